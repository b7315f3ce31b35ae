# SPDX-License-Identifier: Apache-2.0
"""StreamPlaces: where single streams of agents connect. Each has a secret path of its own.

offered    handed out as a URL; nobody may connect yet
served     an agent is attached: one connection at a time, a newer one takes over
gone       the agent is detached: the connection is closed, the path is unknown
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from typing import Final

from websockets.frames import CloseCode

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.endpoints import CAPABILITY_OF
from feagi_io_host.core.errors import ClosedError, FeagiDataError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.publisher import StreamPublisher
from feagi_io_host.transports.websocket.address import STREAM_PATH
from feagi_io_host.transports.websocket.line import Line, Message

_log = logging.getLogger("feagi_io.websocket")

_KEY_BYTES: Final = 24


class StreamPlace:
    """One stream of one agent. All but its making and `agent` is for the event loop."""

    def __init__(self, agent_id: bytes, stream: StreamType) -> None:
        self.key = secrets.token_urlsafe(_KEY_BYTES)
        self.agent_id = agent_id
        self.stream = stream
        self.agent: AttachedAgent | None = None
        self.publisher: StreamPublisher | None = None
        self._line: Line | None = None

    def serve(
        self,
        agent: AttachedAgent,
        max_frame_bytes: int,
        on_end: Callable[[StreamPlace], object],
    ) -> None:
        """Let the agent connect from here on. `on_end(place)` is called when it is detached; for a
        sensory stream somebody has to look (`is_over`). Raises LocalError for a channel that no
        event loop drains."""
        if self.stream is not StreamType.SENSORY:
            self.publisher = StreamPublisher(
                agent, self.stream, "websocket", max_frame_bytes, lambda: on_end(self)
            )
            self.publisher.start()
        self.agent = agent

    @property
    def is_over(self) -> bool:
        """Whether its agent has been detached."""
        return self.agent is not None and self.agent.closed

    def connect(self, line: Line, max_frame_bytes: int, heard_of: Callable[[], object]) -> None:
        """This connection is the stream's. `heard_of()` is called with each frame that comes."""
        old, self._line = self._line, line
        if old is not None:
            old.end(CloseCode.POLICY_VIOLATION, "replaced by a newer connection of this stream")
        line.on_lost = lambda: self._lost(line)
        if self.publisher is None:
            line.limit_messages(max_frame_bytes)
            line.on_message = lambda data: self._take(data, heard_of)
        else:
            line.on_message = lambda _: line.end(
                CloseCode.POLICY_VIOLATION, f"nothing is taken on a {self.stream.value} stream"
            )
            self.publisher.lead_to(line)

    def close(self, code: int, reason: str) -> None:
        """End the connection, if there is one."""
        line, self._line = self._line, None
        if self.publisher is not None:
            self.publisher.lead_to(None)
        if line is not None:
            line.end(code, reason)

    def _lost(self, line: Line) -> None:
        if self._line is line:
            self._line = None
            if self.publisher is not None:
                self.publisher.lead_to(None)

    def _take(self, data: Message, heard_of: Callable[[], object]) -> None:
        agent = self.agent
        assert agent is not None
        heard_of()
        try:
            fbc = SharedFBC.from_bytes(data)
        except FeagiDataError as error:
            counters = agent.counters[StreamType.SENSORY]
            counters.count_sent(len(data))
            counters.count_dropped("damaged")
            _log.debug("sensory frame dropped: %s", error)
            return
        with fbc:
            try:
                agent.submit_sensory(fbc)
            except ClosedError:
                return  # detached by the host; it is looked for now and then


class StreamPlaces:
    """The server's EndpointAllocator. `allocate`, `withdraw` and `claim` may be called from any
    thread, the rest belongs to the event loop. `base_url` is what a path is put behind."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._lock = threading.Lock()
        self._by_key: dict[str, StreamPlace] = {}
        self._by_stream: dict[tuple[bytes, AgentCapabilities], StreamPlace] = {}
        self._closed = False

    def allocate(
        self, agent_id: bytes, capability: AgentCapabilities, protocol: ConnectionProtocol
    ) -> Endpoint | None:
        """Where one stream goes; None for another protocol and after `close`."""
        if protocol is not ConnectionProtocol.WEBSOCKET:
            return None
        stream = next(s for s, c in CAPABILITY_OF.items() if c is capability)
        place = StreamPlace(agent_id, stream)
        with self._lock:
            if self._closed:
                return None
            self._by_key[place.key] = place
            self._by_stream[agent_id, capability] = place
        return Endpoint(protocol, f"{self._base_url}{STREAM_PATH}{place.key}")

    def free(self, agent_id: bytes, capability: AgentCapabilities, endpoint: Endpoint) -> None:
        """Take back what nobody serves; the rest ends with its agent."""
        self.withdraw(agent_id, capability)

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """As `free`, for who does not know the endpoint."""
        with self._lock:
            place = self._by_stream.get((agent_id, capability))
            if place is not None and place.agent is None:
                self._forget(place)

    def claim(self, agent_id: bytes, capability: AgentCapabilities) -> StreamPlace | None:
        """The place of a stream that was handed out; None when there is none."""
        with self._lock:
            return self._by_stream.get((agent_id, capability))

    def at(self, path: str) -> StreamPlace | None:
        """The place that has this path and may be connected to."""
        if not path.startswith(STREAM_PATH):
            return None
        place = self._by_key.get(path.removeprefix(STREAM_PATH))
        return None if place is None or place.agent is None or place.agent.closed else place

    def of(self, agent_id: bytes) -> tuple[StreamPlace, ...]:
        """The places of one agent."""
        with self._lock:
            return tuple(p for p in self._by_key.values() if p.agent_id == agent_id)

    def look_around(self) -> None:
        """End the places of agents that have been detached."""
        for place in tuple(self._by_key.values()):
            if place.is_over:
                self.remove(place, "the agent was detached")

    def remove(self, place: StreamPlace, reason: str) -> None:
        """End one place; its path is unknown from here on."""
        with self._lock:
            self._forget(place)
        place.close(CloseCode.GOING_AWAY, reason)

    def close(self, reason: str) -> tuple[StreamPlace, ...]:
        """End all of them, hand out no more; who they were."""
        with self._lock:
            self._closed = True
            places = tuple(self._by_key.values())
        for place in places:
            self.remove(place, reason)
        return places

    def _forget(self, place: StreamPlace) -> None:
        self._by_key.pop(place.key, None)
        capability = CAPABILITY_OF[place.stream]
        if self._by_stream.get((place.agent_id, capability)) is place:
            del self._by_stream[place.agent_id, capability]
