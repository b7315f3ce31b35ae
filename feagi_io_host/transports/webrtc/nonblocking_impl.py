# SPDX-License-Identifier: Apache-2.0
"""WebRtcTransport: streams of agents and browser pages over WebRTC data channels.

It has no control channel: agents register over WebSocket, and the transport there has this one
carry their streams (`offer`, `withdraw`, `serve`, `negotiate`: a PeerCarrier). An agent that was
let in describes its end over that same control connection, and this end answers. So only who is
registered is connected: the two descriptions hold the fingerprints of both certificates.

    look-around task    agents that were detached, sensory frames that did not arrive
    one per stream      motor and visualization of each agent, see `nonblocking.publisher`
    one per connection  the library's own
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost, AttachedAgent, ChannelMaker, FrameChannel
from feagi_io_host.core.endpoints import CAPABILITY_OF, STREAM_OF
from feagi_io_host.core.errors import (
    FeagiDataError,
    FeagiIOError,
    LocalError,
    StopTimeoutError,
    UnknownHandleError,
)
from feagi_io_host.core.messages import ConnectionProtocol, PeerRefusal
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.loop_side import Arrivals, LoopSide, loop_channel, loop_side
from feagi_io_host.nonblocking.publisher import StreamPublisher
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.nonblocking.transport import DEFAULT_MAX_FRAME_BYTES, NonBlockingTransport
from feagi_io_host.transports.webrtc.address import stream_url
from feagi_io_host.transports.webrtc.description import parse_description
from feagi_io_host.transports.webrtc.peer_session import Answer, PeerSession
from feagi_io_host.transports.webrtc.settings import WebRtcSettings

_log = logging.getLogger("feagi_io.webrtc")

_LOOK_AROUND_S: Final = 0.25
_STOPPED: Final = "webrtc transport stopped"
_COUNTED: Final = (
    "offers",
    "offers_refused",
    "offers_too_often",
    "offers_failed",
    "candidates_skipped",
    "opened",
    "not_opened",
    "lost",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Served:
    """A stream that another transport hands over to be served."""

    agent: AttachedAgent
    stream: StreamType


@dataclass(frozen=True, slots=True, eq=False)
class _Offer:
    """What an agent has said of its end, over its control connection."""

    agent_id: bytes
    text: str
    answer: Answer


class WebRtcTransport(NonBlockingTransport):
    """Carries streams over WebRTC, for agents that register over WebSocket. See WebRtcSettings,
    whose names a mapping may have. Raises ConfigError for settings that do not fit."""

    backend_name = "webrtc"

    def __init__(
        self,
        host: AgentHost,
        *,
        settings: WebRtcSettings | Mapping[str, Any] | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    ) -> None:
        super().__init__(host, max_frame_bytes=max_frame_bytes)
        if not isinstance(settings, WebRtcSettings):
            settings = WebRtcSettings.of(settings or {})
        self.settings = settings
        self._lock = threading.Lock()  # guards what was offered
        self._offered: set[tuple[bytes, StreamType]] = set()
        self._sessions: dict[bytes, PeerSession] = {}  # the loop's alone, as what is below
        self._ending: set[PeerSession] = set()
        self._counted: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self._arrivals: Arrivals[_Served | _Offer] | None = None
        self._sweeper: AsyncWorker | None = None

    async def wait_until_connected(self, agent_id: bytes, timeout_s: float) -> bool:
        """Whether an agent's connection stands, at the latest `timeout_s` seconds from now. Frames
        published before that wait in the agent's channels. Raises UnknownHandleError for an agent
        of which nothing is carried here."""
        session = self._sessions.get(agent_id)
        if session is None:
            raise UnknownHandleError(
                f"agent {agent_id[:4].hex()}... has no stream over this webrtc transport; "
                f"{len(self._sessions)} others have"
            )
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)):
                await session.connected.wait()
        except TimeoutError:
            return False
        return True

    def counters(self) -> dict[str, Any]:
        """What happened: `offers` that came, of them `offers_refused` (no description, or of who
        has no stream here), `offers_too_often` and `offers_failed` (this machine had nothing to
        make a connection with), `candidates_skipped` in them; connections `opened`, `not_opened`
        and `lost`, and `connections` now."""
        connected = sum(session.connected.is_set() for session in tuple(self._sessions.values()))
        return {**self._counted, "connections": connected}

    # -- life ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        self._arrivals = Arrivals(asyncio.get_running_loop(), self._take_arrival)
        self._sweeper = AsyncWorker("feagi-io-webrtc-look-around", self._look_around)
        self._sweeper.start()

    async def _close(self, timeout_s: float) -> None:
        if self._arrivals is None or self._sweeper is None:
            return
        deadline_s = time.monotonic() + timeout_s
        late: list[str] = []
        for arrival in self._arrivals.close():
            if isinstance(arrival, _Offer):
                arrival.answer(PeerRefusal(_STOPPED))
            else:
                arrival.agent.close(_STOPPED)
        sessions = (*self._sessions.values(), *self._ending)
        self._sessions.clear()
        for session in sessions:
            session.agent.close(_STOPPED)
            session.end()
        workers: list[AsyncWorker | StreamPublisher] = [self._sweeper]
        workers += [one for session in sessions for one in session.publishers]
        for worker in workers:
            try:
                await worker.stop(deadline_s - time.monotonic())
            except StopTimeoutError as error:
                late.append(str(error))
        closing = {asyncio.ensure_future(session.wait_until_gone()) for session in sessions}
        if closing:
            # Each is cut off by itself within the close timeout; who has less time does it here.
            left_s = max(0.7 * (deadline_s - time.monotonic()), 0.0)
            _, waiting = await asyncio.wait(closing, timeout=left_s)
            for session in sessions:
                session.cut()
            if waiting:
                _, waiting = await asyncio.wait(waiting, timeout=max(left_s / 3, 0.1))
            if waiting:
                late.append(f"{len(waiting)} connections did not end")
        if late:
            raise StopTimeoutError(f"webrtc transport: {'; '.join(late)}")

    async def _look_around(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            for session in tuple(self._sessions.values()):
                session.note_losses()
                self._end_if_over(session)
            self._ending = {session for session in self._ending if session.closing}
            try:
                async with asyncio.timeout(_LOOK_AROUND_S):
                    await stopping.wait()
            except TimeoutError:
                continue

    def _end_if_over(self, session: PeerSession) -> None:
        """Let go of a session whose agent was detached."""
        if session.agent.closed:
            if self._sessions.get(session.agent.agent_id) is session:
                del self._sessions[session.agent.agent_id]
            self._end(session)

    def _end(self, session: PeerSession) -> None:
        session.end()
        self._ending.add(session)

    def _thread_side(self, awaited: AsyncBoundedChannel[SharedFBC]) -> FrameChannel:
        return LoopSide(awaited)

    # -- as a PeerCarrier -----------------------------------------------------------------------

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks."""
        return ConnectionProtocol.WEBRTC

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""
        return loop_channel

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        """A URL for one stream of one agent; None when the transport does not run."""
        stream = STREAM_OF[capability]
        if self._arrivals is None or self._was_stopped():
            return None
        with self._lock:
            self._offered.add((agent_id, stream))
        return stream_url(stream)

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """Take back what `offer` gave and `serve` was not called for; nothing if there is none."""
        with self._lock:
            self._offered.discard((agent_id, STREAM_OF[capability]))

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None:
        """Carry what was offered until the agent is closed; `stop` closes the agent.

        Raises ClosedError when this transport does not run, UnknownHandleError when nothing was
        offered, LocalError when the agent's channel was not made by `channel`.
        """
        self._refuse_unless_running()
        assert self._arrivals is not None
        if stream not in CAPABILITY_OF:
            raise LocalError(f"{stream.value} is not carried over WebRTC, it goes over WebSocket")
        if stream is not StreamType.SENSORY:
            loop_side(agent, stream)  # or it raises, here and not later in the loop
        with self._lock:
            if (agent.agent_id, stream) not in self._offered:
                raise UnknownHandleError(
                    f"{stream.value} of agent {agent.agent_id[:4].hex()}... was not offered by "
                    "this webrtc transport; call offer first"
                )
            self._offered.discard((agent.agent_id, stream))
        if not self._arrivals.hand_over(_Served(agent, stream)):
            raise self._closed_error()

    def negotiate(self, agent_id: bytes, offer: str, answer: Answer) -> None:
        """Take an agent's offer; `answer` is called once, in this transport's loop or here."""
        if self._arrivals is None or not self._arrivals.hand_over(_Offer(agent_id, offer, answer)):
            answer(PeerRefusal(_STOPPED))

    # -- in the loop ----------------------------------------------------------------------------

    def _take_arrival(self, arrival: _Served | _Offer) -> None:
        if isinstance(arrival, _Offer):
            self._take_offer(arrival)
        else:
            self._begin(arrival)

    def _begin(self, served: _Served) -> None:
        agent = served.agent
        session = self._sessions.get(agent.agent_id)
        if session is not None and session.agent is not agent:  # it came back
            self._end(session)
            session = None
        if session is None:
            session = PeerSession(
                agent, self.settings, self.max_frame_bytes, self._counted, self._end_if_over
            )
            self._sessions[agent.agent_id] = session
        try:
            session.serve(served.stream)
        except FeagiIOError as error:
            _log.warning("%s is not carried: %s", served.stream.value, error)
            agent.close("a stream could not be served")

    def _take_offer(self, offer: _Offer) -> None:
        self._counted["offers"] += 1
        session = self._sessions.get(offer.agent_id)
        try:
            if session is None or session.agent.closed:
                raise FeagiDataError("none of this agent's streams goes over WebRTC")
            description = parse_description(offer.text)
        except FeagiDataError as error:
            self._counted["offers_refused"] += 1
            _log.debug("offer refused: %s", error)
            offer.answer(PeerRefusal(str(error)[:200]))
            return
        self._counted["candidates_skipped"] += description.skipped
        session.take_offer(description, offer.answer)
