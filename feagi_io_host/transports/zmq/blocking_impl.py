# SPDX-License-Identifier: Apache-2.0
"""ZmqTransport: agents that register over ZMQ, served by threads.

    control thread      the ROUTER that agents register with, and what every agent sends
    one per stream      motor and visualization of each agent, see `publisher`

Single streams may be carried by other transports (`carriers`), and as a StreamCarrier this one
carries streams of agents that another transport has let in.

Each socket belongs to one thread. What comes in is FEAGI's own wire as feagi-core 2.6.10 and the
client of feagi-rust-py-libs 0.0.120 speak it: control messages as `[identity, delimiter, FBC]`
(the delimiter may be missing, further parts are let go), data as messages of one part, one FBC.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket as sockets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import zmq

from feagi_io_host.blocking.transport import DEFAULT_MAX_FRAME_BYTES, BlockingTransport
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.agent_registry import (
    DEFAULT_MAX_AGENTS,
    DEFAULT_TIMEOUT_S,
    AgentRegistry,
)
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import (
    AgentHost,
    AttachedAgent,
    ChannelMaker,
    FrameChannel,
    StreamCarrier,
)
from feagi_io_host.core.compression import CompressionSettings
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.endpoints import CAPABILITY_OF, EndpointsByStream, carriers_for
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    LocalError,
    StopTimeoutError,
    UnknownHandleError,
)
from feagi_io_host.core.exposure import advertised
from feagi_io_host.core.messages import AgentConfiguration, ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.reception import accepted_by
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.core.server_seams import BrainControl, ServerLimits
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.common import (
    Role,
    SocketOptions,
    bind,
    endpoint_url,
    open_socket,
)
from feagi_io_host.transports.zmq.connection_guard import ConnectionGuard, control_rule
from feagi_io_host.transports.zmq.control import ControlLoop
from feagi_io_host.transports.zmq.desk import Door, ServedAgent
from feagi_io_host.transports.zmq.packing import StreamPacker
from feagi_io_host.transports.zmq.publisher import StreamPublisher, WireChannel
from feagi_io_host.transports.zmq.slots import EndpointSlots, Slot, refuse_unfit_streams
from feagi_io_host.transports.zmq.wire_form import refuse_unfit_form, unpacker
from feagi_wire.const import AGENT_ID_BYTES

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqContext

_log = logging.getLogger("feagi_io.zmq")

DEFAULT_CONTROL_PORT: Final = 30001

_OUTBOUND: Final = (StreamType.MOTOR, StreamType.VISUALIZATION)


class ZmqTransport(BlockingTransport):
    """Lets agents register at `tcp://address:control_port` and carries their streams.

    Ports are 0 for any free one; `control_url` tells which it became. `data_ports` are those that
    may be used for the streams, three for an agent that does everything (None: any free one).
    `advertised_address` is what agents are told to connect to, if it is not `address`.
    `preferred_ports` are tried first, one for each stream, for as many agents as there are ports.
    `carriers` are started transports that carry a stream of agents let in here; with None as
    `control_port` nobody is let in, and this transport is such a carrier only.

    What is published is one FBC in one message, as the real engine has it. With `topics` the name
    of the stream and a space come before it. With `compression` (one of the two only) frames are
    packed for receivers that declare that they can unpack, and packed sensory frames are taken;
    see `wire_form`.

    Without a `token` of 32 bytes everybody is let in who can reach the port: addresses other than
    loopback need `open_to_everybody` then. `on_configured` is asked, in the control thread, with
    an agent's id and units; when it says no the agent gets no acknowledgement. Raises ConfigError
    for settings that do not fit.
    """

    backend_name = "zmq"

    def __init__(
        self,
        host: AgentHost,
        *,
        address: str = "127.0.0.1",
        control_port: int | None = DEFAULT_CONTROL_PORT,
        data_ports: Sequence[int] | None = None,
        preferred_ports: Mapping[StreamType, int] | None = None,
        advertised_address: str | None = None,
        token: bytes | None = None,
        open_to_everybody: bool = False,
        brain: BrainControl | None = None,
        on_configured: Callable[[bytes, AgentConfiguration], bool] | None = None,
        limits: ServerLimits | None = None,
        max_agents: int = DEFAULT_MAX_AGENTS,
        silence_timeout_s: float = DEFAULT_TIMEOUT_S,
        options: SocketOptions | None = None,
        topics: bool = False,
        compression: CompressionSettings | None = None,
        carriers: Mapping[StreamType, StreamCarrier] | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._carriers = dict(carriers or {})
        self._preferred_ports = dict(preferred_ports or {})
        refuse_unfit_streams(self._carriers, self._preferred_ports, control_port)
        self._topics = topics
        self._compression = refuse_unfit_form(topics, compression, max_frame_bytes)
        super().__init__(host, max_frame_bytes=max_frame_bytes)
        self._advertised = advertised(address, advertised_address, token, open_to_everybody)
        self.registry = AgentRegistry(max_agents=max_agents, timeout_s=silence_timeout_s)
        self._address = address
        self._control_port = control_port
        self._data_ports = data_ports
        self._options = SocketOptions() if options is None else options
        self._limits = ServerLimits() if limits is None else limits
        self._token = token
        self._brain = brain
        self._on_configured = on_configured
        self._clock = clock
        self._control_url: str | None = None
        self._context: ZmqContext | None = None
        self._guard: ConnectionGuard | None = None
        self._control: Worker | None = None
        self._loop: ControlLoop | None = None
        self._slots: EndpointSlots | None = None
        self._ending = False
        self._wake_line: tuple[sockets.socket, sockets.socket] | None = None
        self._publishers_lock = threading.Lock()
        self._publishers: dict[StreamPublisher, bytes] = {}
        self._unanswerable = 0
        self._server: RegistrationServer | None = None

    @property
    def control_url(self) -> str:
        """Where agents register. Raises ClosedError before `start`, ConfigError for a transport
        that only carries."""
        if self._control_port is None:
            raise ConfigError("this zmq transport has no control_port: it only carries streams")
        if self._control_url is None:
            raise ClosedError("zmq transport was not started; start it first")
        return self._control_url

    def wait_until_subscribed(self, agent_id: bytes, timeout_s: float) -> bool:
        """Whether the agent listens to all its streams that are carried here, at the latest
        `timeout_s` seconds from now. Frames published before that wait in the agent's channels;
        nothing is lost.

        Raises UnknownHandleError for an agent that is not here.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._publishers_lock:
            mine = [pub for pub, owner in self._publishers.items() if owner == agent_id]
        if not mine and all(agent.agent_id != agent_id for agent in self.agents):
            raise UnknownHandleError(
                f"agent {agent_id[:4].hex()}... is not on this zmq transport; "
                f"{len(self.agents)} others are"
            )
        return all(pub.subscribed.wait(max(deadline_s - time.monotonic(), 0.0)) for pub in mine)

    def counters(self) -> dict[str, Any]:
        """What happened on the control channel, as RegistrationServer counts it, and
        `unanswerable`: answers given up because their peer was gone or did not read. On all
        ports, `flooded` and `crowded` connections that were ended, as ConnectionGuard does."""
        server = self._server
        return {
            **({} if server is None else server.counters()),
            "unanswerable": self._unanswerable,
            **({} if self._guard is None else self._guard.counters()),
        }

    # -- life ---------------------------------------------------------------------------------

    def _open(self) -> None:
        context: ZmqContext = zmq.Context()
        guard = ConnectionGuard()
        slots = EndpointSlots(
            context,
            guard,
            address=self._address,
            advertised_address=self._advertised,
            ports=self._data_ports,
            options=self._options,
            max_frame_bytes=self.max_frame_bytes,
            preferred_ports=self._preferred_ports,
        )
        try:
            self._server = RegistrationServer(
                self.registry,
                EndpointsByStream(slots, self._carriers, self.protocol),
                new_agent_id=lambda: secrets.token_bytes(AGENT_ID_BYTES),
                token=self._token,
                brain=self._brain,
                limits=self._limits,
            )
            door = self._open_door(context, guard)
        except BaseException:
            context.term()
            raise
        self._wake_line = sockets.socketpair()
        for end in self._wake_line:
            end.setblocking(False)
        self._loop = ControlLoop(
            self,
            self._server,
            slots,
            door,
            guard,
            self._wake_line[1],
            unpacker(self._compression),
        )
        self._slots = slots
        self._context = context
        self._guard = guard
        self._control = Worker("feagi-io-zmq-control", self._loop.run, wake=self._wake)
        self._control.start()

    def _open_door(self, context: ZmqContext, guard: ConnectionGuard) -> Door | None:
        if self._control_port is None:
            return None
        router = open_socket(context, Role.CONTROL, self._options, self._limits.registered_bytes)
        try:
            port = bind(router, self._address, self._control_port)
        except BaseException:
            router.close(0)
            raise
        self._control_url = endpoint_url(self._advertised, port)
        _log.info("agents register at %s", self._control_url)
        rule = control_rule(self._limits.unregistered_bytes, self.registry.max_agents)
        return Door(router, guard.watch(router, rule))

    def _close(self, timeout_s: float) -> None:
        if self._control is None:
            return
        deadline_s = time.monotonic() + timeout_s
        late: list[str] = []

        def end(worker: Worker | StreamPublisher) -> None:
            try:
                worker.stop(deadline_s - time.monotonic())
            except StopTimeoutError as error:
                late.append(str(error))

        with self._publishers_lock:
            self._ending = True  # for carried streams, which others bring
        end(self._control)  # first: it is what starts publishers for those let in here
        with self._publishers_lock:
            publishers = tuple(self._publishers)
        for publisher in publishers:
            publisher.agent.close("zmq transport stopped")  # those let in elsewhere
        for publisher in publishers:
            end(publisher)
        if late:
            # Ending the context would wait for their sockets without any bound.
            raise StopTimeoutError(f"zmq transport: {'; '.join(late)}")
        if self._wake_line is not None:
            # Both ends here, not in the thread: it may be gone before it is woken.
            for end_of_line in self._wake_line:
                end_of_line.close()
            self._wake_line = None
        if self._context is not None:
            self._context.term()
            self._context = None

    def _wake(self) -> None:
        assert self._wake_line is not None
        with contextlib.suppress(BlockingIOError):  # full: it will wake up anyway
            self._wake_line[0].send(b"\0")

    # -- as a StreamCarrier, for agents that another transport lets in ---------------------------

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks."""
        return ConnectionProtocol.ZMQ

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""
        return WireChannel.make

    def offer(self, agent_id: bytes, capability: AgentCapabilities) -> str | None:
        """A URL for one stream of one agent; None when there is none to be had."""
        if self._slots is None:
            return None
        endpoint = self._slots.allocate(agent_id, capability, self.protocol)
        return None if endpoint is None else endpoint.url

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """Take back what `offer` gave and `serve` was not called for; nothing if there is none."""
        if self._slots is not None:
            self._slots.withdraw(agent_id, capability)

    def serve(self, agent: AttachedAgent, stream: StreamType) -> None:
        """Carry what was offered until the agent is closed; `stop` closes the agent.

        Raises ClosedError when this transport does not run, UnknownHandleError when nothing was
        offered, LocalError when there is no thread left.
        """
        self._refuse_unless_running()
        assert self._slots is not None
        slot = self._slots.claim(agent.agent_id, CAPABILITY_OF[stream])
        if slot is None:
            raise UnknownHandleError(
                f"{stream.value} of agent {agent.agent_id[:4].hex()}... was not offered by this "
                "zmq transport; call offer first"
            )
        if stream is not StreamType.SENSORY:
            self._publish(agent, stream, slot)
            return
        with self._publishers_lock:
            assert self._loop is not None
            taken = not self._ending and self._loop.adopt(agent, slot)
            if taken:
                self._wake()
        if not taken:
            slot.close()
            raise self._closed_error()

    # -- what the control thread calls ----------------------------------------------------------

    def take_in(self, agent_id: bytes) -> ServedAgent:
        """For the control thread: attach a registered agent and start its publishers.

        Raises ClosedError when the transport or its host does not run any more, LocalError when
        there is no thread left.
        """
        slots = self._slots
        assert slots is not None
        record = self.registry.get(agent_id)
        carriers = carriers_for(record.protocol, self._carriers, self.protocol)

        def channel(
            rule: DeliveryRule, *, on_drop: Callable[[SharedFBC], object], name: str
        ) -> FrameChannel:
            carrier = carriers.get(rule.stream, self)
            return carrier.channel(rule, on_drop=on_drop, name=name)

        agent = self._attach(record.descriptor, record.capabilities, agent_id, channel=channel)
        try:
            for stream in _OUTBOUND:
                if stream in carriers:
                    continue
                slot = slots.claim(agent_id, CAPABILITY_OF[stream])
                if slot is not None:
                    self._publish(agent, stream, slot)
            for stream, carrier in carriers.items():
                if CAPABILITY_OF[stream] in record.capabilities:
                    agent.carried_elsewhere(stream)
                    carrier.serve(agent, stream)
        except BaseException:
            self._detach(agent, "a stream could not be served")
            raise
        return ServedAgent(agent, slots.claim(agent_id, AgentCapabilities.SEND_SENSOR_DATA))

    def let_go(self, served: ServedAgent, reason: str) -> None:
        """For the control thread: detach an agent; its publishers end by themselves."""
        self._detach(served.agent, reason)
        if served.sensory is not None:
            served.sensory.close()

    def accepts(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        """For the control thread: whether the units of an agent can be had."""
        return accepted_by(self._on_configured, agent_id, configuration)

    def now_s(self) -> float:
        """For the control thread: the time on the transport's clock."""
        return self._clock()

    def count_unanswerable(self) -> None:
        """For the control thread: an answer did not reach its peer."""
        self._unanswerable += 1

    def _publish(self, agent: AttachedAgent, stream: StreamType, slot: Slot) -> None:
        """Start a publisher, which closes the slot at its end; when this raises, it is closed."""
        try:
            publisher = StreamPublisher(
                agent,
                stream,
                slot,
                self.max_frame_bytes,
                self._forget_publisher,
                topics=self._topics,
                packer=None if self._compression is None else StreamPacker(self._compression),
            )
        except LocalError:
            slot.close()
            raise
        with self._publishers_lock:
            ending = self._ending
            if not ending:
                self._publishers[publisher] = agent.agent_id
        if ending:
            slot.close()
            raise self._closed_error()
        try:
            publisher.start()
        except BaseException as error:
            # Nobody else closes the socket, and the context would wait for it without end.
            self._forget_publisher(publisher)
            slot.close()
            if isinstance(error, (ClosedError, zmq.ContextTerminated)):  # stopped meanwhile
                raise self._closed_error() from error
            if isinstance(error, RuntimeError):  # the system has no thread left
                raise LocalError(f"no thread for the {stream.value} stream: {error}") from error
            raise

    def _forget_publisher(self, publisher: StreamPublisher) -> None:
        with self._publishers_lock:
            del self._publishers[publisher]
