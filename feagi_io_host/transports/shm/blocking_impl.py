# SPDX-License-Identifier: Apache-2.0
"""ShmTransport: frames between a host and agents of the same machine, through shared memory.

It has no control channel. Either another transport lets agents in and has this one carry some of
their streams (`offer`, `withdraw`, `serve`: a StreamCarrier), or a program does both itself by
`admit` and `dismiss`. An agent that dies does not leave by itself: whoever let it in notices by its
heartbeat. The twin is `nonblocking_impl`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from feagi_io_host.blocking.session import thread_channel
from feagi_io_host.blocking.transport import DEFAULT_MAX_FRAME_BYTES, BlockingTransport
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost, AttachedAgent, ChannelMaker
from feagi_io_host.core.errors import ConfigError, LocalError, StopTimeoutError
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.transports.shm.direct import DEFAULT_NEURONS, ShmDirectTransport
from feagi_io_host.transports.shm.header import SegmentShape, ShmMode
from feagi_io_host.transports.shm.names import SHM_FOLDER, refuse_if_unavailable, why_unavailable
from feagi_io_host.transports.shm.ring import in_order, newest_wins
from feagi_io_host.transports.shm.stale import remove_stale
from feagi_io_host.transports.shm.streams import SensoryIntake, StreamFeed

_log = logging.getLogger("feagi_io.shm")

DEFAULT_MOTOR_SLOTS: Final = 8
STREAM_OF: Final = {
    AgentCapabilities.SEND_SENSOR_DATA: StreamType.SENSORY,
    AgentCapabilities.RECEIVE_MOTOR_DATA: StreamType.MOTOR,
    AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: StreamType.VISUALIZATION,
}
# An agent that comes again finds its old process perhaps still connected for a moment.
_READERS: Final = 2
_TAKEOVER_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ShmInvitation:
    """What an agent that was let in has to know: its id, and a `shm://` URL per capability."""

    agent_id: bytes
    endpoints: Mapping[AgentCapabilities, str]


def direct_of_mode(
    mode: ShmMode | str, max_neurons: int, folder: Path
) -> ShmDirectTransport | None:
    """What carries plain arrays, in that mode. ConfigError for a mode that there is not."""
    known = {member.name.lower(): member for member in ShmMode}
    chosen = known.get(mode) if isinstance(mode, str) else mode
    if chosen is None:
        raise ConfigError(f"shared-memory mode {mode!r}; one of {', '.join(known)} is needed")
    if chosen is ShmMode.DIRECT:
        return ShmDirectTransport(max_neurons=max_neurons, folder=folder)
    return None


def stream_shapes(max_frame_bytes: int, motor_slots: int) -> dict[StreamType, SegmentShape]:
    """The rings that a host makes for each agent. ConfigError for sizes that cannot be."""
    return {
        StreamType.MOTOR: in_order(max_frame_bytes, slots=motor_slots, max_readers=_READERS),
        StreamType.VISUALIZATION: newest_wins(max_frame_bytes, max_readers=_READERS),
    }


class ShmTransport(BlockingTransport):
    """Carries frames through shared memory, with a thread per stream.

    `motor_slots` is how many motor frames lie ready in an agent's ring; memory is taken for the
    largest frames that were really sent. With the mode "direct" there is also `direct`, for bursts
    of up to `direct_neurons` as plain arrays. `start` raises LocalError, saying why and what to use
    instead, where there is no shared memory.
    """

    backend_name = "shm"

    def __init__(
        self,
        host: AgentHost,
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        motor_slots: int = DEFAULT_MOTOR_SLOTS,
        mode: ShmMode | str = ShmMode.FBC,
        direct_neurons: int = DEFAULT_NEURONS,
        folder: Path = SHM_FOLDER,
    ) -> None:
        """Raises ConfigError for sizes that cannot be and modes that there are not."""
        super().__init__(host, max_frame_bytes=max_frame_bytes)
        self._folder = folder
        self._shapes = stream_shapes(max_frame_bytes, motor_slots)
        self._direct = direct_of_mode(mode, direct_neurons, folder)
        self._streams: dict[tuple[bytes, StreamType], StreamFeed | SensoryIntake] = {}
        self._streams_lock = threading.Lock()

    @property
    def direct(self) -> ShmDirectTransport:
        """Neuron ids and potentials beside the streams, for readers that were given its `url` (see
        ShmDirectReader). It runs as long as this transport.

        Raises ConfigError in another mode.
        """
        if self._direct is None:
            raise ConfigError("this shm transport has no direct ring; set its mode to 'direct'")
        return self._direct

    # -- with a control channel of one's own ----------------------------------------------------

    def admit(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
    ) -> ShmInvitation:
        """Let an agent in; give what comes back to its ShmAgent. An `agent_id` that is here already
        takes over.

        Raises ClosedError when the transport or its host does not run, ConfigError for an id that
        is none, LocalError when the system has no shared memory or threads left.
        """
        if agent_id is not None:
            self._end_streams(agent_id)  # before the new one is there: nothing reaches the old
        agent = self._attach(descriptor, capabilities, agent_id, motor_areas=motor_areas)
        endpoints = {}
        try:
            for capability, stream in STREAM_OF.items():
                if capability in capabilities:
                    endpoints[capability] = self._make(agent.agent_id, stream)
                    self.serve(agent, stream)
        except BaseException:
            self._end_streams(agent.agent_id)
            self._detach(agent, "no shared memory for it")
            raise
        return ShmInvitation(agent.agent_id, MappingProxyType(endpoints))

    def dismiss(self, agent_id: bytes, reason: str = "dismissed") -> None:
        """Let go of an agent that was admitted, and of its streams; nothing when it is not here."""
        for agent in self.agents:
            if agent.agent_id == agent_id:
                self._detach(agent, reason)
        self._end_streams(agent_id)

    # -- for agents of another transport --------------------------------------------------------

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks."""
        return ConnectionProtocol.SHARED_MEMORY

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""
        return thread_channel

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        """A `shm://` URL for one stream of one agent; None where there is no memory left, with the
        reason in the log."""
        self._refuse_unless_running()
        try:
            return self._make(agent_id, STREAM_OF[capability])
        except LocalError as error:
            _log.warning("no shared memory for agent %s...: %s", agent_id[:4].hex(), error)
            return None

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """Take back what `offer` gave and `serve` was not called for; nothing if there is none."""
        key = (agent_id, STREAM_OF[capability])
        with self._streams_lock:
            stream = self._streams.get(key)
            if stream is None or stream.started:
                return
            del self._streams[key]
        stream.stop(0.0)

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None:
        """Carry what was offered until the agent is closed.

        Raises ClosedError when the transport does not run, LocalError when nothing was offered or
        the system has no thread left.
        """
        self._refuse_unless_running()
        key = (agent.agent_id, stream)
        with self._streams_lock:
            offered = self._streams.get(key)
        if offered is None:
            raise LocalError(
                f"nothing was offered for the {stream.value} stream of agent "
                f"{agent.agent_id[:4].hex()}..."
            )

        def forget() -> None:
            with self._streams_lock:
                if self._streams.get(key) is offered:
                    del self._streams[key]

        offered.start(agent, forget)
        if self._was_stopped():  # while this was starting: `stop` may not have seen it
            offered.stop(_TAKEOVER_S)

    # -- for the base class ---------------------------------------------------------------------

    def _open(self) -> None:
        refuse_if_unavailable(self._folder)
        remove_stale(self._folder)
        if self._direct is not None:
            self._direct.start()

    def _close(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        if self._direct is not None:
            self._direct.stop()
        with self._streams_lock:
            streams = tuple(self._streams.values())
            self._streams.clear()
        stuck = []
        for stream in streams:
            try:
                stream.stop(max(until_s - time.monotonic(), 0.0))
            except StopTimeoutError as error:
                stuck.append(str(error))
        if stuck:
            raise StopTimeoutError("; ".join(stuck))

    def _make(self, agent_id: bytes, stream: StreamType) -> str:
        made: StreamFeed | SensoryIntake
        if stream is StreamType.SENSORY:
            reason = why_unavailable(self._folder)
            if reason is not None:
                raise LocalError(reason)
            made = SensoryIntake(self.max_frame_bytes, self._folder)
        else:
            made = StreamFeed(stream, self._shapes[stream], self._folder)
        with self._streams_lock:
            old = self._streams.pop((agent_id, stream), None)
            self._streams[agent_id, stream] = made
        if old is not None:
            old.stop(_TAKEOVER_S)
        return made.url

    def _pop(self, agent_id: bytes, stream: StreamType) -> StreamFeed | SensoryIntake | None:
        with self._streams_lock:
            return self._streams.pop((agent_id, stream), None)

    def _end_streams(self, agent_id: bytes) -> None:
        for stream in STREAM_OF.values():
            old = self._pop(agent_id, stream)
            if old is not None:
                old.stop(_TAKEOVER_S)
