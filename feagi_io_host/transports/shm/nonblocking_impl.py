# SPDX-License-Identifier: Apache-2.0
"""AsyncShmTransport: frames between a host and agents of the same machine, in an event loop.

Agents come as to its twin, `blocking_impl`: let in by another transport that has this one carry
some of their streams (`offer`, `withdraw` and `serve`, from any thread), or by `admit`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost, AttachedAgent, ChannelMaker, FrameChannel
from feagi_io_host.core.errors import ConfigError, LocalError, StopTimeoutError
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.loop_side import LoopSide, loop_channel, loop_side
from feagi_io_host.nonblocking.transport import DEFAULT_MAX_FRAME_BYTES, NonBlockingTransport
from feagi_io_host.transports.shm.async_streams import (
    AsyncSensoryIntake,
    AsyncStreamFeed,
)
from feagi_io_host.transports.shm.blocking_impl import (
    DEFAULT_MOTOR_SLOTS,
    STREAM_OF,
    ShmInvitation,
    direct_of_mode,
    stream_shapes,
)
from feagi_io_host.transports.shm.direct import DEFAULT_NEURONS, ShmDirectTransport
from feagi_io_host.transports.shm.header import ShmMode
from feagi_io_host.transports.shm.names import SHM_FOLDER, refuse_if_unavailable
from feagi_io_host.transports.shm.stale import remove_stale

_log = logging.getLogger("feagi_io.shm")

_TAKEOVER_S = 5.0
_Stream = AsyncStreamFeed | AsyncSensoryIntake


class AsyncShmTransport(NonBlockingTransport):
    """Carries frames through shared memory, with a task per stream.

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
        self._loop: asyncio.AbstractEventLoop | None = None
        # Offered and not yet served, and served. Other threads offer, withdraw and ask to serve.
        self._offered: dict[tuple[bytes, StreamType], _Stream] = {}
        self._serving: dict[_Stream, bytes] = {}
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

    async def admit(
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
        is none, LocalError when the system has no shared memory left.
        """
        if agent_id is not None:
            await self._end_streams(
                agent_id
            )  # before the new one is there: nothing reaches the old
        agent = self._attach(descriptor, capabilities, agent_id, motor_areas=motor_areas)
        session = agent.session
        endpoints = {}
        try:
            for capability, stream in STREAM_OF.items():
                if capability in capabilities:
                    made = self._make(stream)
                    endpoints[capability] = made.url
                    self._begin(session, made)
        except BaseException:
            self._detach(agent, "no shared memory for it")  # which ends what was begun
            raise
        return ShmInvitation(session.agent_id, MappingProxyType(endpoints))

    async def dismiss(self, agent_id: bytes, reason: str = "dismissed") -> None:
        """Let go of an agent that was admitted, and of its streams; nothing when it is not here."""
        agent = self._by_id.get(agent_id)
        if agent is not None:
            self._detach(agent, reason)
        await self._end_streams(agent_id)

    # -- for agents of another transport --------------------------------------------------------

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks."""
        return ConnectionProtocol.SHARED_MEMORY

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""
        return loop_channel

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        """A `shm://` URL for one stream of one agent; None where there is no memory left, with the
        reason in the log."""
        self._refuse_unless_running()
        stream = STREAM_OF[capability]
        try:
            made = self._make(stream)
        except LocalError as error:
            _log.warning("no shared memory for agent %s...: %s", agent_id[:4].hex(), error)
            return None
        with self._streams_lock:
            old = self._offered.pop((agent_id, stream), None)
            stopped = self._was_stopped()  # `stop` has taken back what was offered
            if not stopped:
                self._offered[agent_id, stream] = made
        if old is not None:
            old.discard()
        if stopped:
            made.discard()
            raise self._closed_error()
        return made.url

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """Take back what `offer` gave and `serve` was not called for; nothing if there is none."""
        with self._streams_lock:
            offered = self._offered.pop((agent_id, STREAM_OF[capability]), None)
        if offered is not None:
            offered.discard()

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None:
        """Carry what was offered until the agent is closed.

        Raises ClosedError when the transport does not run, LocalError when nothing was offered or
        the agent's channel was not made by `channel`.
        """
        self._refuse_unless_running()
        assert self._loop is not None
        if stream is not StreamType.SENSORY:
            loop_side(agent, stream)  # or it raises, here and not later in the loop
        key = (agent.agent_id, stream)
        with self._streams_lock:
            offered = self._offered.get(key)
            if offered is None:
                raise LocalError(
                    f"nothing was offered for the {stream.value} stream of agent "
                    f"{agent.agent_id[:4].hex()}..."
                )
            try:
                self._loop.call_soon_threadsafe(self._begin_offered, agent, offered)
            except RuntimeError:  # the loop was closed before the transport was stopped
                raise self._closed_error() from None
            del self._offered[key]
            self._serving[offered] = agent.agent_id  # where `stop` finds it, begun or not

    # -- for the base class ---------------------------------------------------------------------

    async def _open(self) -> None:
        refuse_if_unavailable(self._folder)
        remove_stale(self._folder)
        if self._direct is not None:
            self._direct.start()
        self._loop = asyncio.get_running_loop()

    async def _close(self, timeout_s: float) -> None:
        if self._direct is not None:
            self._direct.stop()
        with self._streams_lock:
            offered = tuple(self._offered.values())
            self._offered.clear()
            serving = tuple(self._serving)
        for stream in offered:
            stream.discard()
        await self._stop_all(serving, timeout_s)

    def _thread_side(self, awaited: AsyncBoundedChannel[SharedFBC]) -> FrameChannel:
        return LoopSide(awaited)

    def _make(self, stream: StreamType) -> _Stream:
        if stream is StreamType.SENSORY:
            refuse_if_unavailable(self._folder)
            return AsyncSensoryIntake(self.max_frame_bytes, self._folder)
        return AsyncStreamFeed(stream, self._shapes[stream], self._folder)

    def _begin(self, agent: AttachedAgent, made: _Stream) -> None:
        """In the loop: start the task of a stream, which takes itself out of the table."""
        with self._streams_lock:
            self._serving[made] = agent.agent_id
        made.start(agent, lambda: self._forget(made))

    def _forget(self, made: _Stream) -> None:
        with self._streams_lock:
            self._serving.pop(made, None)

    def _begin_offered(self, agent: AttachedAgent, offered: _Stream) -> None:
        if self._was_stopped():  # meanwhile, and has let go of it
            agent.close("shm transport stopped")
            return
        self._begin(agent, offered)

    async def _end_streams(self, agent_id: bytes) -> None:
        with self._streams_lock:
            keys = [(agent_id, stream) for stream in STREAM_OF.values()]
            offered = [self._offered.pop(key) for key in keys if key in self._offered]
            serving = tuple(made for made, owner in self._serving.items() if owner == agent_id)
        for stream in offered:
            stream.discard()
        await self._stop_all(serving, _TAKEOVER_S)

    async def _stop_all(self, streams: tuple[_Stream, ...], timeout_s: float) -> None:
        """Stop them together. They leave the table when that is done, so that a call that was
        cancelled can be made again."""
        until_s = time.monotonic() + timeout_s
        stuck = []

        async def end(stream: _Stream) -> None:
            try:
                await stream.stop(max(until_s - time.monotonic(), 0.0))
            except StopTimeoutError as error:
                stuck.append(str(error))
            self._forget(stream)

        await asyncio.gather(*(end(stream) for stream in streams))
        if stuck:
            raise StopTimeoutError("; ".join(stuck))
