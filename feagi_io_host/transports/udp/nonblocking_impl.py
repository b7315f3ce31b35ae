# SPDX-License-Identifier: Apache-2.0
"""UdpTransport: visualization to agents and sensory from them, in datagrams, through one port.

It has no control channel: another transport lets agents in and has this one carry their streams
(`offer`, `withdraw`, `serve`: a StreamCarrier), or a program does both itself by `admit` and
`dismiss`. Motor frames are not carried: a command that is lost is worse than one that is late.

Where an agent is it proves by itself (see `greeting`), from then on datagrams from there are its
own. What is lost is counted in the agent's session and, by cause, in `counters`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost, AttachedAgent, ChannelMaker, FrameChannel
from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    LocalError,
    StopTimeoutError,
)
from feagi_io_host.core.fragment import Oversize
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.compression import AsyncFrameCompressor
from feagi_io_host.nonblocking.loop_side import LoopSide, loop_channel, loop_side
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.nonblocking.transport import DEFAULT_MAX_FRAME_BYTES, NonBlockingTransport
from feagi_io_host.transports.udp.address import StreamAddress, new_key, new_session
from feagi_io_host.transports.udp.feeds import (
    Exit,
    GroupFeed,
    VisualizationFeed,
)
from feagi_io_host.transports.udp.greeting import session_of
from feagi_io_host.transports.udp.ladder import BurstReceiver, best_rungs
from feagi_io_host.transports.udp.loop_socket import LoopSocket
from feagi_io_host.transports.udp.session import (
    STREAM_OF,
    SensorySession,
    Session,
    VisualizationSession,
)
from feagi_io_host.transports.udp.settings import UdpSettings
from feagi_io_host.transports.udp.stream_end import take_greetings

_log = logging.getLogger("feagi_io.udp")

_LOOK_AROUND_S: Final = 0.25
_WHY_NO_MOTOR: Final = (
    "motor frames are not carried over UDP, which loses some without a word: a robot would not "
    "get a command, and its brain not know; name another transport for the motor stream"
)


@dataclass(frozen=True, slots=True)
class UdpInvitation:
    """What an agent that was let in has to know: its id, and a `udp://` URL per capability."""

    agent_id: bytes
    endpoints: Mapping[AgentCapabilities, str]


class UdpTransport(NonBlockingTransport):
    """Carries sensory and visualization frames as UDP datagrams. See UdpSettings.

    Raises ConfigError for settings that do not fit.
    """

    backend_name = "udp"

    def __init__(
        self,
        host: AgentHost,
        *,
        settings: UdpSettings | Mapping[str, Any] | None = None,
        compression: CompressionSettings | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`settings` may be a mapping of their names. `compression` is for frames above one
        datagram where the policy is to compress; None for on, except over loopback."""
        super().__init__(host, max_frame_bytes=max_frame_bytes)
        if not isinstance(settings, UdpSettings):
            settings = UdpSettings.of(settings or {})
        self.settings = settings
        self._clock = clock
        self._compression = self._fitting(compression)
        self._packs = (
            settings.oversize is Oversize.COMPRESS
            and self._compression.mode is not CompressionMode.OFF
        )
        self._secret = new_key()
        self._epoch = int(time.time()) & 0xFFFF_FFFF
        self._lock = threading.Lock()  # guards the table of sessions
        self._by_number: dict[int, Session] = {}
        self._by_stream: dict[tuple[bytes, StreamType], Session] = {}
        self._by_address: dict[tuple[str, int], Session] = {}  # the loop's alone
        self._feeds: dict[Session, AsyncWorker] = {}
        self._counters = {"strangers": 0, "unknown_sessions": 0}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: LoopSocket | None = None
        self._packer: AsyncFrameCompressor | None = None
        self._sweeper: AsyncWorker | None = None
        self._exit: Exit | None = None
        self._group: GroupFeed | None = None

    @property
    def port(self) -> int:
        """Where agents say hello. Raises ClosedError when it does not run."""
        self._refuse_unless_running()
        assert self._socket is not None
        return self._socket.port

    # -- with a control channel of one's own ----------------------------------------------------

    async def admit(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
    ) -> UdpInvitation:
        """Let an agent in; give what comes back to its `udp_stream_end`s. An `agent_id` that is
        here already takes over. An agent that dies does not leave by itself: see `dismiss`.

        Raises ConfigError for one that wants motor frames or an id that is none, ClosedError when
        the transport or its host does not run.
        """
        if AgentCapabilities.RECEIVE_MOTOR_DATA in capabilities:
            raise ConfigError(_WHY_NO_MOTOR)
        agent = self._attach(descriptor, capabilities, agent_id, motor_areas=motor_areas)
        endpoints = {}
        try:
            for capability, stream in STREAM_OF.items():
                if capability in capabilities:
                    endpoints[capability] = self._make(agent.session.agent_id, stream).address.url
                    self.serve(agent.session, stream)
        except BaseException:
            self._detach(agent, "its streams cannot be carried")
            raise
        return UdpInvitation(agent.session.agent_id, MappingProxyType(endpoints))

    def dismiss(self, agent_id: bytes, reason: str = "dismissed") -> None:
        """Let go of an agent that was admitted; nothing when it is not here. In the loop."""
        agent = self._by_id.get(agent_id)
        if agent is not None:
            self._detach(agent, reason)

    # -- for agents of another transport --------------------------------------------------------

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks."""
        return ConnectionProtocol.UDP

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""
        return loop_channel

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        """A `udp://` URL for one stream of one agent; None when the transport does not run.

        Raises ConfigError for the motor stream.
        """
        stream = STREAM_OF.get(capability)
        if stream is None:
            raise ConfigError(_WHY_NO_MOTOR)
        try:
            self._refuse_unless_running()
        except ClosedError:
            return None
        return self._make(agent_id, stream).address.url

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """Take back what `offer` gave and `serve` was not called for; nothing if there is none."""
        stream = STREAM_OF.get(capability)
        with self._lock:
            session = self._by_stream.get((agent_id, stream)) if stream else None
            if session is not None and session.agent is None:
                self._remove(session)

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None:
        """Carry what was offered until the agent is closed; `stop` closes the agent.

        Raises ClosedError when this transport does not run, LocalError when nothing was offered or
        the agent's channel was not made by `channel`.
        """
        self._refuse_unless_running()
        if stream is StreamType.VISUALIZATION:
            loop_side(agent, stream)  # or it raises, here and not later in the loop
        with self._lock:
            session = self._by_stream.get((agent.agent_id, stream))
            if session is None or session.agent is not None:
                raise LocalError(
                    f"{stream.value} of agent {agent.agent_id[:4].hex()}... was not offered by "
                    "this udp transport; call offer first"
                )
            session.agent = agent
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._begin, session)
        except RuntimeError:  # the loop was closed before the transport was stopped
            raise self._closed_error() from None

    def counters(self) -> dict[str, Any]:
        """What happened, as plain data: how datagrams are moved (`send`, `receive`, and in
        `reasons` why not better), what came from `strangers` and for `unknown_sessions`, the
        `socket`'s own figures, and a row per session."""
        with self._lock:
            sessions = tuple(self._by_number.values())
        rungs = best_rungs()
        socket = self._socket
        return {
            "send": rungs.send.value,
            "receive": rungs.receive.value,
            "reasons": list(rungs.reasons),
            **self._counters,
            "socket": {} if socket is None else socket.receiver.counters(),
            "sessions": [session.counters() for session in sessions],
        }

    # -- for the base class ---------------------------------------------------------------------

    async def _open(self) -> None:
        settings = self.settings
        self._loop = asyncio.get_running_loop()
        opened = LoopSocket(
            settings.address,
            settings.port,
            best_rungs(),
            settings.buffer_bytes,
            self._came,
            self._clock,
        )
        try:
            if settings.group is not None:
                settings.group.prepare(opened.socket)
        except BaseException:
            opened.close()
            raise
        self._socket = opened
        if self._packs:
            self._packer = AsyncFrameCompressor(self._compression)
        self._exit = Exit(opened, self._packer, settings, self.max_frame_bytes, self._clock)
        if settings.group is not None:
            address = self._address_of(StreamType.VISUALIZATION)
            self._group = GroupFeed(address, self._epoch, self._exit)
        self._sweeper = AsyncWorker("feagi-io-udp-sweep", self._sweep)
        self._sweeper.start()
        _log.info("UDP streams at %s:%d", settings.address, opened.port)

    async def _close(self, timeout_s: float) -> None:
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            sessions = tuple(self._by_number.values())
        late = []
        for session in sessions:
            if session.agent is not None:
                session.agent.close("udp transport stopped")
            self._end(session)
        workers = [*self._feeds.values(), *([self._sweeper] if self._sweeper else [])]
        for worker in workers:
            try:
                await worker.stop(max(deadline_s - time.monotonic(), 0.0))
            except StopTimeoutError as error:
                late.append(str(error))
        if self._socket is not None:
            self._socket.close()
        if self._packer is not None:
            self._packer.close()
        if late:
            raise StopTimeoutError(f"udp transport: {'; '.join(late)}")

    def _thread_side(self, awaited: AsyncBoundedChannel[SharedFBC]) -> FrameChannel:
        return LoopSide(awaited)

    # -- sessions -------------------------------------------------------------------------------

    def _fitting(self, compression: CompressionSettings | None) -> CompressionSettings:
        if compression is None:
            mode = CompressionMode.OFF if self.settings.is_loopback else CompressionMode.ON
            compression = CompressionSettings(mode)
        # What a datagram takes is not packed: that saves no datagram.
        return CompressionSettings(
            compression.mode,
            max(compression.threshold_bytes, self.settings.fragments.share + 1),
            min(compression.max_frame_bytes, self.max_frame_bytes),
            compression.max_ratio,
        )

    def _address_of(self, stream: StreamType) -> StreamAddress:
        settings, group = self.settings, self.settings.group
        host, via = settings.advertised, None
        port = 0 if self._socket is None else self._socket.port
        if group is not None and stream is StreamType.VISUALIZATION:
            host, port, via = group.group, group.port, group.interface
        return StreamAddress(
            host,
            port,
            settings.agreed_check,
            settings.datagram_bytes,
            settings.parity_group,
            self._packs,
            settings.oversize is Oversize.DROP,
            via,
            new_session(),
            new_key(),
        )

    def _make(self, agent_id: bytes, stream: StreamType) -> Session:
        made: Session
        if stream is StreamType.SENSORY:
            made = SensorySession(
                agent_id,
                self._address_of(stream),
                self._secret,
                self.max_frame_bytes,
                self._compression,
            )
        else:
            group = self._group
            address = self._address_of(stream) if group is None else group.address
            fragments = self.settings.fragments
            made = VisualizationSession(agent_id, address, self._secret, self._epoch, fragments)
        with self._lock:
            old = self._by_stream.get((agent_id, stream))
            if old is not None and old.agent is None:
                self._remove(old)
            self._by_stream[agent_id, stream] = made
            self._by_number[made.number] = made
        return made

    def _remove(self, session: Session) -> None:
        """Out of the tables. Called with the lock held."""
        self._by_number.pop(session.number, None)
        key = (session.agent_id, session.stream)
        if self._by_stream.get(key) is session:
            del self._by_stream[key]

    def _begin(self, session: Session) -> None:
        """In the loop: begin to carry what `serve` has handed over."""
        if self._was_stopped():
            if session.agent is not None:
                session.agent.close("udp transport stopped")
            self._end(session)
        elif isinstance(session, VisualizationSession):
            assert session.agent is not None

            self._feed(session, session.agent)

    def _feed(self, session: VisualizationSession, agent: AttachedAgent) -> None:
        assert self._exit is not None
        feed = VisualizationFeed(session, agent, self._exit, self._group)

        async def run(stopping: asyncio.Event) -> None:
            try:
                await feed.run(stopping)
            finally:
                self._end(session)
                self._feeds.pop(session, None)

        name = f"feagi-io-udp-{agent.visualization.name}"
        worker = AsyncWorker(name, run, wake=session.found.set)
        self._feeds[session] = worker
        worker.start()

    def _end(self, session: Session) -> None:
        """Forget a session and tell its agent, if it is known where that is."""
        with self._lock:
            self._remove(session)
        to = session.to
        if to is not None:
            session.greeter.address = None
            if self._by_address.get(to) is session:
                del self._by_address[to]
            if self._socket is not None:
                self._socket.say(session.greeter.gone(), to)

    async def _sweep(self, stopping: asyncio.Event) -> None:
        """What nobody else notices: agents that left or fell silent, bursts that stay halves."""
        while not stopping.is_set():
            now_s = self._clock()
            with self._lock:
                sessions = tuple(self._by_number.values())
            for session in sessions:
                to = session.to
                if session.over:
                    self._end(session)
                elif session.forget_if_silent(now_s - self.settings.silence_timeout_s):
                    self._lost_sight_of(session, to)
                if isinstance(session, SensorySession):
                    session.expire(now_s)
            try:
                await asyncio.wait_for(stopping.wait(), _LOOK_AROUND_S)
            except TimeoutError:
                continue

    def _lost_sight_of(self, session: Session, to: tuple[str, int] | None) -> None:
        _log.info("UDP agent %s... fell silent", session.agent_id[:4].hex())
        if to is not None and self._by_address.get(to) is session:
            del self._by_address[to]
        if isinstance(session, VisualizationSession):
            session.found.clear()

    # -- what comes -----------------------------------------------------------------------------

    def _came(self, receiver: BurstReceiver, now_s: float) -> None:
        take_greetings(
            receiver, lambda datagram, piece: self._greeted(datagram, receiver.source(piece), now_s)
        )
        lengths, segments = receiver.lengths, receiver.segments
        first, end = 0, len(lengths)
        while first < end:
            source = receiver.source(first)
            past = first + 1
            while past < end and receiver.source(past) == source:
                past += 1
            session = self._by_address.get(source)
            if isinstance(session, SensorySession):
                session.take(
                    receiver.blocks[first:past], lengths[first:past], segments[first:past], now_s
                )
            else:
                self._counters["strangers"] += sum(map(bool, lengths[first:past]))
            first = past

    def _greeted(self, datagram: memoryview, source: tuple[str, int], now_s: float) -> None:
        session = self._by_number.get(session_of(datagram) or 0)
        if session is None:
            self._counters["unknown_sessions"] += 1
            return
        before = session.to
        answer = session.greeted(datagram, source, now_s)
        if session.to != before:
            if before is not None and self._by_address.get(before) is session:
                del self._by_address[before]
            if session.to is not None:
                self._by_address[session.to] = session
            if isinstance(session, VisualizationSession):
                (session.found.set if session.to else session.found.clear)()
        if answer is not None and self._socket is not None:
            self._socket.say(answer, source)
