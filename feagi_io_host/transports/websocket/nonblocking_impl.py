# SPDX-License-Identifier: Apache-2.0
"""WebSocketTransport: agents, viewers and browser pages, served in an event loop.

    one listener        /            agents register here: control messages, as over ZMQ
                        /stream/KEY  one stream of one agent, as its registration tells it
    look-around task    silent agents and connections, and strangers that do not register
    one per stream      motor and visualization of each agent, see `nonblocking.publisher`

Each message is binary and one FBC, as the engine has it (feagi-core 2.6.10): no text, no
subprotocol, no compression. The engine gives each channel a port of its own; this one gives each
stream a secret path, so that one port and one certificate do, and nobody comes to a stream who
was not told.

Single streams may be carried by other transports (`carriers`), and as a StreamCarrier this one
carries streams of agents that another transport has let in. For threads there is `TransportHandle`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket as sockets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from feagi_io_host.blocking.listener import server_socket
from feagi_io_host.core.agent_registry import DEFAULT_TIMEOUT_S, AgentRegistry
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import (
    AgentHost,
    AttachedAgent,
    ChannelMaker,
    FrameChannel,
    PeerCarrier,
    StreamCarrier,
)
from feagi_io_host.core.endpoints import (
    CAPABILITY_OF,
    EndpointsByStream,
    carriers_for,
    refuse_uncarried,
)
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    FeagiIOError,
    StopTimeoutError,
    UnknownHandleError,
)
from feagi_io_host.core.exposure import advertised, is_loopback
from feagi_io_host.core.messages import (
    AgentConfiguration,
    ConnectionProtocol,
    PeerAnswer,
    PeerRefusal,
    encode_control,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.reception import Reception, accepted_by
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.core.server_seams import BrainControl, ServerLimits
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.loop_side import Arrivals, LoopSide, loop_channel, loop_side
from feagi_io_host.nonblocking.publisher import StreamPublisher
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.nonblocking.transport import DEFAULT_MAX_FRAME_BYTES, NonBlockingTransport
from feagi_io_host.transports.websocket.address import CONTROL_PATH, DEFAULT_PORT, in_url
from feagi_io_host.transports.websocket.line import Message, library_log
from feagi_io_host.transports.websocket.places import StreamPlace, StreamPlaces
from feagi_io_host.transports.websocket.server_line import Lobby, ServerLine
from feagi_io_host.transports.websocket.settings import WebSocketSettings
from feagi_wire.const import AGENT_ID_BYTES

_log = logging.getLogger("feagi_io.websocket")

# An agent has up to four connections.
DEFAULT_MAX_AGENTS: Final = 64
_SPARE_STRANGERS: Final = 64
_STOPPED: Final = "websocket transport stopped"


@dataclass(frozen=True, slots=True, eq=False)
class ServedAgent:
    """One registered agent and the connection that it has registered over."""

    agent: AttachedAgent
    line: ServerLine


@dataclass(frozen=True, slots=True, eq=False)
class _Arrival:
    """A stream that another transport hands over to be served."""

    agent: AttachedAgent
    place: StreamPlace


class WebSocketTransport(NonBlockingTransport):
    """Lets agents register at `ws://address:port/` and carries their streams.

    Port 0 is any free one; `control_url` tells which it became. `advertised_address` is what
    agents are told to connect to, if it is not `address`. With `lets_in` False nobody registers
    here, and this transport is a carrier only. `carriers` are started transports that carry a
    stream of agents let in here. `settings` may be a mapping of their names; see
    WebSocketSettings for deadlines, the pages that browsers may come from, and wss://.

    Without a `token` of 32 bytes everybody is let in who can reach the port: addresses other than
    loopback need `open_to_everybody` then. `on_configured` is asked, in the event loop, with an
    agent's id and units; when it says no the agent gets no acknowledgement. Raises ConfigError
    for settings that do not fit.
    """

    backend_name = "websocket"

    def __init__(
        self,
        host: AgentHost,
        *,
        address: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        lets_in: bool = True,
        advertised_address: str | None = None,
        token: bytes | None = None,
        open_to_everybody: bool = False,
        settings: WebSocketSettings | Mapping[str, Any] | None = None,
        brain: BrainControl | None = None,
        on_configured: Callable[[bytes, AgentConfiguration], bool] | None = None,
        limits: ServerLimits | None = None,
        max_agents: int = DEFAULT_MAX_AGENTS,
        silence_timeout_s: float = DEFAULT_TIMEOUT_S,
        carriers: Mapping[StreamType, StreamCarrier] | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._carriers = dict(carriers or {})
        refuse_uncarried(self._carriers, negotiates=True)
        peers = (one for one in self._carriers.values() if isinstance(one, PeerCarrier))
        self._peer_carrier = next(peers, None)
        if not 0 <= port <= 65535:
            raise ConfigError(f"port {port}; 0 to 65535 possible")
        super().__init__(host, max_frame_bytes=max_frame_bytes)
        if not isinstance(settings, WebSocketSettings):
            settings = WebSocketSettings.of(settings or {})
        self.settings = settings
        # Who only carries is reached over secret paths alone.
        everybody = open_to_everybody or not lets_in
        self._advertised = advertised(address, advertised_address, token, everybody)
        self.registry = AgentRegistry(max_agents=max_agents, timeout_s=silence_timeout_s)
        self._address = address
        self._port = port
        self._lets_in = lets_in
        self._limits = ServerLimits() if limits is None else limits
        self._token = token
        self._brain = brain
        self._on_configured = on_configured
        self._clock = clock
        self._base_url: str | None = None
        self._origins: frozenset[str] = frozenset()
        self._listener: Server | None = None
        self._lobby = Lobby(max_agents + _SPARE_STRANGERS, settings.register_timeout_s)
        self._places: StreamPlaces | None = None
        self._reception: Reception[ServedAgent] | None = None
        self._by_peer: dict[object, ServerLine] = {}
        self._heard: ServerLine | None = None  # whose message is being answered
        self._arrivals: Arrivals[_Arrival] | None = None
        self._sweeper: AsyncWorker | None = None

    @property
    def control_url(self) -> str:
        """Where agents register. Raises ClosedError before `start`, ConfigError for a transport
        that only carries."""
        if not self._lets_in:
            raise ConfigError("this websocket transport lets nobody in: it only carries streams")
        return f"{self.base_url}{CONTROL_PATH}"

    @property
    def base_url(self) -> str:
        """`ws://host:port` or `wss://host:port`. Raises ClosedError before `start`."""
        if self._base_url is None:
            raise ClosedError("websocket transport was not started; start it first")
        return self._base_url

    async def wait_until_subscribed(self, agent_id: bytes, timeout_s: float) -> bool:
        """Whether the agent has connected all its outbound streams that are carried here, at the
        latest `timeout_s` seconds from now. Frames published before that wait in the agent's
        channels; nothing is lost.

        Raises UnknownHandleError for an agent that is not here.
        """
        places = () if self._places is None else self._places.of(agent_id)
        if not places and all(agent.agent_id != agent_id for agent in self.agents):
            raise UnknownHandleError(
                f"agent {agent_id[:4].hex()}... is not on this websocket transport; "
                f"{len(self.agents)} others are"
            )
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)):
                for place in places:
                    if place.publisher is not None:
                        await place.publisher.connected.wait()
        except TimeoutError:
            return False
        return True

    def counters(self) -> dict[str, Any]:
        """What happened on the control channel, as RegistrationServer counts it, and to the
        connections, as Lobby does."""
        reception = self._reception
        return {
            **({} if reception is None else reception.server.counters()),
            **self._lobby.counters(),
        }

    # -- life ---------------------------------------------------------------------------------

    async def _open(self) -> None:
        tls = self.settings.tls()
        raw = self._listen()
        try:
            listener = await serve(
                self._serve_line,
                sock=raw,
                create_connection=cast("type[ServerConnection]", self._lobby.make),
                process_request=self._admit,
                compression=None,
                server_header=None,
                open_timeout=self.settings.open_timeout_s,
                close_timeout=self.settings.close_timeout_s,
                max_size=self._limits.unregistered_bytes,
                logger=library_log,
                ssl=tls,
                start_serving=False,
            )
        except BaseException:
            raw.close()
            raise
        port = raw.getsockname()[1]
        scheme = "wss" if self.settings.secure else "ws"
        self._base_url = f"{scheme}://{in_url(self._advertised)}:{port}"
        self._origins = self._own_origins(port)
        self._places = StreamPlaces(self._base_url)
        self._reception = Reception(
            self,
            RegistrationServer(
                self.registry,
                EndpointsByStream(self._places, self._carriers, self.protocol),
                new_agent_id=lambda: secrets.token_bytes(AGENT_ID_BYTES),
                token=self._token,
                brain=self._brain,
                limits=self._limits,
                takes_offers=self._peer_carrier is not None,
            ),
            on_offer=self._pass_on_offer,
        )
        self._arrivals = Arrivals(asyncio.get_running_loop(), self._serve_arrival)
        try:
            await listener.start_serving()
        except BaseException:
            listener.close()
            self._base_url = None
            raise
        self._listener = listener
        self._sweeper = AsyncWorker("feagi-io-websocket-look-around", self._look_around)
        self._sweeper.start()
        if self._lets_in:
            _log.info("agents register at %s", self.control_url)

    def _listen(self) -> sockets.socket:
        """A bound socket. Raises PortBusyError and PortError."""
        size = self.settings.send_buffer_bytes
        buffers = {} if size is None else {sockets.SO_SNDBUF: size}
        return server_socket("websocket transport", self._address, self._port, buffers)

    async def _close(self, timeout_s: float) -> None:
        if self._listener is None:
            return
        assert self._arrivals is not None
        assert self._places is not None
        assert self._sweeper is not None
        assert self._reception is not None
        deadline_s = time.monotonic() + timeout_s
        late: list[str] = []
        self._listener.close(close_connections=False)
        for arrival in self._arrivals.close():
            arrival.agent.close(_STOPPED)
        self._reception.close(_STOPPED)
        places = self._places.close(_STOPPED)
        for place in places:
            if place.agent is not None:
                place.agent.close(_STOPPED)  # those let in elsewhere
        self._lobby.close(CloseCode.GOING_AWAY, _STOPPED)
        workers: list[AsyncWorker | StreamPublisher] = [self._sweeper]
        workers += [place.publisher for place in places if place.publisher is not None]
        for worker in workers:
            try:
                await worker.stop(deadline_s - time.monotonic())
            except StopTimeoutError as error:
                late.append(str(error))
        # The library ends each connection within the close timeout; who does not take part is
        # cut off before the time is over.
        closing = asyncio.ensure_future(self._listener.wait_closed())
        left_s = max(0.7 * (deadline_s - time.monotonic()), 0.0)
        _, waiting = await asyncio.wait({closing}, timeout=left_s)
        if waiting:
            for line in tuple(self._lobby.lines):
                line.transport.abort()
            _, waiting = await asyncio.wait({closing}, timeout=max(left_s / 3, 0.1))
        # Those that the system had accepted and the loop had not: their turn comes within two.
        for _ in range(3):
            await asyncio.sleep(0)
        while self._lobby.lines and time.monotonic() < deadline_s:
            await asyncio.sleep(0.001)
        if waiting or self._lobby.lines:
            closing.cancel()
            late.append(f"{len(self._lobby.lines)} connections did not end")
        if late:
            raise StopTimeoutError(f"websocket transport: {'; '.join(late)}")

    async def _look_around(self, stopping: asyncio.Event) -> None:
        assert self._reception is not None
        assert self._places is not None
        settings = self.settings
        while not stopping.is_set():
            try:
                async with asyncio.timeout(self._reception.longest_wait_s()):
                    await stopping.wait()
                    return
            except TimeoutError:
                pass
            self._reception.look_around()
            self._places.look_around()
            self._lobby.look_around(
                lambda line: line.tend(settings.ping_interval_s, settings.ping_timeout_s)
            )

    # -- connections ------------------------------------------------------------------------------

    def _own_origins(self, port: int) -> frozenset[str]:
        """What a page has as its origin that comes from this very address."""
        scheme = "https" if self.settings.secure else "http"
        hosts = {in_url(self._advertised), in_url(self._address)}
        if is_loopback(self._address):
            hosts |= {"localhost", "127.0.0.1", "[::1]"}
        return frozenset(f"{scheme}://{host}:{port}" for host in hosts)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """For the library: an answer to a handshake that is refused, None for a good one."""
        origins = request.headers.get_all("Origin")
        if not all(self.settings.admits(origin, self._origins) for origin in origins):
            self._lobby.bad_origins += 1
            return connection.respond(
                HTTPStatus.FORBIDDEN, "pages of this origin are not admitted; see origins\n"
            )
        path = request.path
        if path == CONTROL_PATH and self._lets_in:
            return None
        if self._places is None or self._places.at(path) is None:
            self._lobby.not_found += 1
            return connection.respond(HTTPStatus.NOT_FOUND, "no such stream\n")
        return None

    async def _serve_line(self, connection: ServerConnection) -> None:
        """For the library: one connection, after its handshake, until it is over."""
        assert isinstance(connection, ServerLine)
        assert self._places is not None
        assert connection.request is not None
        path = connection.request.path
        if self._was_stopped():
            connection.end(CloseCode.GOING_AWAY, _STOPPED)
        elif path == CONTROL_PATH:
            self._by_peer[connection.id] = connection
            connection.on_message = lambda data: self._hear(connection, data)
            connection.on_lost = lambda: self._lose(connection)
        else:
            self._connect_stream(connection, self._places.at(path))
        await connection.wait_until_over()

    def _connect_stream(self, line: ServerLine, place: StreamPlace | None) -> None:
        if place is None:  # gone since the handshake
            line.end(CloseCode.GOING_AWAY, "the agent was detached")
            return
        self._lobby.know(line)
        reception, agent_id = self._reception, place.agent_id
        assert reception is not None
        place.connect(line, self.max_frame_bytes, lambda: reception.heard_of(agent_id))

    def _hear(self, line: ServerLine, data: Message) -> None:
        """A control message."""
        reception = self._reception
        if reception is None or self._was_stopped():
            return
        was_in = reception.is_in(line.id)
        if not was_in and not self._lobby.hear_stranger(line):
            return
        self._heard = line
        try:
            reply = reception.hear(line.id, data)
        finally:
            self._heard = None
        is_in = reception.is_in(line.id)
        if is_in and not was_in:
            line.limit_messages(self._limits.registered_bytes)
            self._lobby.know(line)
        elif was_in and not is_in:
            line.limit_messages(self._limits.unregistered_bytes)
            self._lobby.estrange(line)
        if reply is not None and line.is_open:
            line.send_message(reply)

    def _pass_on_offer(self, served: ServedAgent, sdp: str) -> None:
        """An agent's offer of a peer connection, for who carries its streams so."""
        assert self._peer_carrier is not None
        loop, agent_id, line = asyncio.get_running_loop(), served.agent.agent_id, served.line

        def send(message: PeerAnswer | PeerRefusal) -> None:
            if line.is_open:
                line.send_message(encode_control(message, agent_id))

        def answer(message: PeerAnswer | PeerRefusal) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(send, message)

        self._peer_carrier.negotiate(agent_id, sdp, answer)

    def _lose(self, line: ServerLine) -> None:
        """A control connection is gone, and with it its agent: that can register again at once."""
        self._by_peer.pop(line.id, None)
        if self._reception is not None:
            self._reception.lose(line.id, "its connection has ended")

    # -- what the reception asks its owner --------------------------------------------------------

    def take_in(self, agent_id: bytes) -> ServedAgent:
        """Attach a registered agent and let it connect its streams.

        Raises ClosedError when the transport or its host does not run any more, and what a carrier
        raises.
        """
        assert self._places is not None
        record = self.registry.get(agent_id)
        carriers = carriers_for(record.protocol, self._carriers, self.protocol)
        agent = self._attach(
            record.descriptor,
            record.capabilities,
            agent_id,
            carried={stream: carrier.channel for stream, carrier in carriers.items()},
        )
        try:
            for place in self._places.of(agent_id):
                place.serve(agent.session, self.max_frame_bytes, self._end_place)
            for stream, carrier in carriers.items():
                if CAPABILITY_OF[stream] in record.capabilities:
                    carrier.serve(agent.session, stream)
        except BaseException:
            self._detach(agent, "a stream could not be served")
            raise
        return ServedAgent(agent.session, self._by_peer[record.peer])

    def let_go(self, served: ServedAgent, reason: str) -> None:
        """Detach an agent and close what is its own."""
        agent = self._by_id.get(served.agent.agent_id)
        if agent is not None and agent.session is served.agent:
            self._detach(agent, reason)
        served.agent.close(reason)
        if self._places is not None:
            for place in self._places.of(served.agent.agent_id):
                if place.agent is served.agent:
                    self._places.remove(place, reason)
        if served.line is not self._heard:  # else it has asked for it, and gets an answer
            served.line.end(CloseCode.GOING_AWAY, reason)

    def accepts(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        """Whether the units of an agent can be had."""
        return accepted_by(self._on_configured, agent_id, configuration)

    def now_s(self) -> float:
        """The time on the transport's clock."""
        return self._clock()

    # -- as a StreamCarrier, for agents that another transport lets in ---------------------------

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks."""
        return ConnectionProtocol.WEBSOCKET

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""
        return loop_channel

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        """A URL for one stream of one agent; None when there is none to be had."""
        if self._places is None:
            return None
        endpoint = self._places.allocate(agent_id, capability, self.protocol)
        return None if endpoint is None else endpoint.url

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """Take back what `offer` gave and `serve` was not called for; nothing if there is none."""
        if self._places is not None:
            self._places.withdraw(agent_id, capability)

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None:
        """Carry what was offered until the agent is closed; `stop` closes the agent.

        Raises ClosedError when this transport does not run, UnknownHandleError when nothing was
        offered, LocalError when the agent's channel was not made by `channel`.
        """
        self._refuse_unless_running()
        assert self._places is not None
        assert self._arrivals is not None
        if stream is not StreamType.SENSORY:
            loop_side(agent, stream)  # or it raises, here and not later in the loop
        place = self._places.claim(agent.agent_id, CAPABILITY_OF[stream])
        if place is None:
            raise UnknownHandleError(
                f"{stream.value} of agent {agent.agent_id[:4].hex()}... was not offered by this "
                "websocket transport; call offer first"
            )
        if not self._arrivals.hand_over(_Arrival(agent, place)):
            raise self._closed_error()

    def _serve_arrival(self, arrival: _Arrival) -> None:
        """In the loop: begin to serve what `serve` has handed over."""
        try:
            arrival.place.serve(arrival.agent, self.max_frame_bytes, self._end_place)
        except FeagiIOError as error:
            _log.warning("%s is not carried: %s", arrival.place.stream.value, error)
            arrival.agent.close("a stream could not be served")

    def _end_place(self, place: StreamPlace) -> None:
        if self._places is not None:
            self._places.remove(place, "the agent was detached")

    def _thread_side(self, awaited: AsyncBoundedChannel[SharedFBC]) -> FrameChannel:
        return LoopSide(awaited)
