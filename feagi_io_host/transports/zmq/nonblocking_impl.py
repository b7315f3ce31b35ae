# SPDX-License-Identifier: Apache-2.0
"""AsyncZmqTransport: agents that register over ZMQ, served in an event loop.

    control task        the ROUTER that agents register with, and what every agent sends
    one per stream      motor and visualization of each agent, see `async_publisher`

Single streams may be carried by other transports (`carriers`), and as a StreamCarrier this one
carries streams of agents that another transport has let in.

Every socket belongs to the event loop. The twin of `blocking_impl`, which says what comes over
the wire.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zmq

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
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.loop_side import Arrivals, LoopSide, loop_channel, loop_side
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.nonblocking.transport import DEFAULT_MAX_FRAME_BYTES, NonBlockingTransport
from feagi_io_host.transports.zmq.async_control import AsyncControlLoop
from feagi_io_host.transports.zmq.async_publisher import AsyncStreamPublisher
from feagi_io_host.transports.zmq.async_socket import end_context
from feagi_io_host.transports.zmq.blocking_impl import DEFAULT_CONTROL_PORT
from feagi_io_host.transports.zmq.common import (
    Role,
    SocketOptions,
    bind,
    endpoint_url,
    open_socket,
)
from feagi_io_host.transports.zmq.connection_guard import ConnectionGuard, control_rule
from feagi_io_host.transports.zmq.desk import Door, ServedAgent
from feagi_io_host.transports.zmq.packing import StreamPacker
from feagi_io_host.transports.zmq.slots import EndpointSlots, Slot, refuse_unfit_streams
from feagi_io_host.transports.zmq.wire_form import refuse_unfit_form, unpacker
from feagi_wire.const import AGENT_ID_BYTES

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqContext

_log = logging.getLogger("feagi_io.zmq")


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A stream that another transport hands over to be served. The slot goes with it."""

    agent: AttachedAgent
    stream: StreamType
    slot: Slot


class AsyncZmqTransport(NonBlockingTransport):
    """Lets agents register at `tcp://address:control_port` and carries their streams.

    Ports are 0 for any free one; `control_url` tells which it became. `data_ports` are those that
    may be used for the streams, three for an agent that does everything (None: any free one).
    `advertised_address` is what agents are told to connect to, if it is not `address`.
    `preferred_ports` are tried first, one for each stream, for as many agents as there are ports.
    `carriers` are started transports that carry a stream of agents let in here; with None as
    `control_port` nobody is let in, and this transport is such a carrier only.

    What is published is one FBC in one message, as the real engine has it. With `topics` the name
    of the stream and a space come before it. With `compression` (one of the two only) frames are
    packed for receivers that declare that they can unpack, in a thread, and packed sensory frames
    are taken; see `wire_form`.

    Without a `token` of 32 bytes everybody is let in who can reach the port: addresses other than
    loopback need `open_to_everybody` then. `on_configured` is asked, in the event loop, with an
    agent's id and units; when it says no the agent gets no acknowledgement. Raises ConfigError
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
        self._control: AsyncWorker | None = None
        self._control_loop: AsyncControlLoop | None = None
        self._slots: EndpointSlots | None = None
        self._arrivals: Arrivals[Arrival] | None = None
        self._beside: ThreadPoolExecutor | None = None
        self._publishers: dict[AsyncStreamPublisher, bytes] = {}
        self._unanswerable = 0
        self._server: RegistrationServer | None = None
        self._context_ended: asyncio.Future[None] | None = None

    @property
    def control_url(self) -> str:
        """Where agents register. Raises ClosedError before `start`, ConfigError for a transport
        that only carries."""
        if self._control_port is None:
            raise ConfigError("this zmq transport has no control_port: it only carries streams")
        if self._control_url is None:
            raise ClosedError("zmq transport was not started; start it first")
        return self._control_url

    async def wait_until_subscribed(self, agent_id: bytes, timeout_s: float) -> bool:
        """Whether the agent listens to all its streams that are carried here, at the latest
        `timeout_s` seconds from now. Frames published before that wait in the agent's channels;
        nothing is lost.

        Raises UnknownHandleError for an agent that is not here.
        """
        mine = [pub for pub, owner in self._publishers.items() if owner == agent_id]
        if not mine and all(agent.agent_id != agent_id for agent in self.agents):
            raise UnknownHandleError(
                f"agent {agent_id[:4].hex()}... is not on this zmq transport; "
                f"{len(self.agents)} others are"
            )
        try:
            async with asyncio.timeout(max(timeout_s, 0.0)):
                for publisher in mine:
                    await publisher.subscribed.wait()
        except TimeoutError:
            return False
        return True

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

    async def _open(self) -> None:
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
            try:
                control_loop = AsyncControlLoop(
                    self, self._server, slots, door, guard, unpacker(self._compression)
                )
            except BaseException:
                if door is not None:
                    door.socket.close(0)
                raise
        except BaseException:
            self._control_url = None
            context.term()
            raise
        self._arrivals = Arrivals(asyncio.get_running_loop(), self._serve_arrival)
        self._control_loop = control_loop
        self._slots = slots
        self._context = context
        self._guard = guard
        if self._compression is not None:
            self._beside = ThreadPoolExecutor(1, thread_name_prefix="feagi-io-zmq-lz4")
        self._control = AsyncWorker(
            "feagi-io-zmq-control", control_loop.run, wake=control_loop.wake
        )
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

    async def _close(self, timeout_s: float) -> None:
        if self._control is None:
            return
        assert self._arrivals is not None
        assert self._control_loop is not None
        deadline_s = time.monotonic() + timeout_s
        late: list[str] = []

        async def end(worker: AsyncWorker | AsyncStreamPublisher) -> None:
            try:
                await worker.stop(deadline_s - time.monotonic())
            except StopTimeoutError as error:
                late.append(str(error))

        for arrival in self._arrivals.close():
            arrival.slot.close()
            arrival.agent.close("zmq transport stopped")
        await end(self._control)  # first: it is what starts publishers for those let in here
        self._control_loop.close()
        publishers = tuple(self._publishers)
        for publisher in publishers:
            publisher.agent.close("zmq transport stopped")  # those let in elsewhere
        for publisher in publishers:
            await end(publisher)
        if late:
            # Ending the context would wait for their sockets without any bound.
            raise StopTimeoutError(f"zmq transport: {'; '.join(late)}")
        if self._beside is not None:
            self._beside.shutdown()  # idle by now: the publishers have ended
        await self._end_context(deadline_s)

    async def _end_context(self, deadline_s: float) -> None:
        if self._context is None:
            return
        if self._context_ended is None:
            self._context_ended = end_context(self._context)
        left_s = max(deadline_s - time.monotonic(), 0.0)
        _, late = await asyncio.wait({self._context_ended}, timeout=left_s)
        if late:
            raise StopTimeoutError(
                "zmq transport: the last answers have not left yet; control_linger_s of the "
                "options bounds how long they may take"
            )
        self._context = None

    # -- as a StreamCarrier, for agents that another transport lets in ---------------------------

    @property
    def protocol(self) -> ConnectionProtocol:
        """What it speaks."""
        return ConnectionProtocol.ZMQ

    @property
    def channel(self) -> ChannelMaker:
        """Makes the outbound channels that this carrier drains."""
        return loop_channel

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
        offered, LocalError when the agent's channel was not made by `channel`.
        """
        self._refuse_unless_running()
        assert self._slots is not None
        assert self._arrivals is not None
        if stream is not StreamType.SENSORY:
            loop_side(agent, stream)  # or it raises, here and not later in the loop
        slot = self._slots.claim(agent.agent_id, CAPABILITY_OF[stream])
        if slot is None:
            raise UnknownHandleError(
                f"{stream.value} of agent {agent.agent_id[:4].hex()}... was not offered by this "
                "zmq transport; call offer first"
            )
        if not self._arrivals.hand_over(Arrival(agent, stream, slot)):
            slot.close()
            raise self._closed_error()

    # -- what the control task calls --------------------------------------------------------------

    def take_in(self, agent_id: bytes) -> ServedAgent:
        """For the control task: attach a registered agent and start its publishers.

        Raises ClosedError when the transport or its host does not run any more, LocalError when
        the system watches no more sockets.
        """
        slots = self._slots
        assert slots is not None
        record = self.registry.get(agent_id)
        carriers = carriers_for(record.protocol, self._carriers, self.protocol)
        agent = self._attach(
            record.descriptor,
            record.capabilities,
            agent_id,
            carried={stream: carrier.channel for stream, carrier in carriers.items()},
        )
        try:
            for stream in agent.channels:
                slot = slots.claim(agent_id, CAPABILITY_OF[stream])
                if slot is not None:
                    self._publish(agent.session, stream, slot)
            for stream, carrier in carriers.items():
                if CAPABILITY_OF[stream] in record.capabilities:
                    agent.session.carried_elsewhere(stream)
                    carrier.serve(agent.session, stream)
        except BaseException:
            self._detach(agent, "a stream could not be served")
            raise
        sensory = slots.claim(agent_id, AgentCapabilities.SEND_SENSOR_DATA)
        return ServedAgent(agent.session, sensory)

    def let_go(self, served: ServedAgent, reason: str) -> None:
        """For the control task: detach an agent; its publishers end by themselves."""
        agent = self._by_id.get(served.agent.agent_id)
        if agent is not None and agent.session is served.agent:
            self._detach(agent, reason)
        served.agent.close(reason)
        if served.sensory is not None:
            served.sensory.close()

    def accepts(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        """For the control task: whether the units of an agent can be had."""
        return accepted_by(self._on_configured, agent_id, configuration)

    def now_s(self) -> float:
        """For the control task: the time on the transport's clock."""
        return self._clock()

    def count_unanswerable(self) -> None:
        """For the control task: an answer did not reach its peer."""
        self._unanswerable += 1

    def _publish(self, agent: AttachedAgent, stream: StreamType, slot: Slot) -> None:
        """Start a publisher, which closes the slot at its end; when this raises, it is closed."""
        try:
            packer = None if self._compression is None else StreamPacker(self._compression)
            publisher = AsyncStreamPublisher(
                agent,
                stream,
                slot,
                self.max_frame_bytes,
                self._forget_publisher,
                topics=self._topics,
                packer=packer,
                beside=self._beside,
            )
            publisher.start()
        except BaseException:
            slot.close()
            raise
        self._publishers[publisher] = agent.agent_id

    def _serve_arrival(self, arrival: Arrival) -> None:
        """In the loop: begin to serve what `serve` has handed over."""
        try:
            if arrival.stream is StreamType.SENSORY:
                self._adopt(arrival)
            else:
                self._publish(arrival.agent, arrival.stream, arrival.slot)
        except LocalError as error:
            _log.warning("%s of an agent is not carried: %s", arrival.stream.value, error)
            arrival.agent.close("a stream could not be served")

    def _adopt(self, arrival: Arrival) -> None:
        assert self._control_loop is not None
        try:
            self._control_loop.adopt(arrival.agent, arrival.slot)
        except BaseException:
            arrival.slot.close()
            raise

    def _thread_side(self, awaited: AsyncBoundedChannel[SharedFBC]) -> FrameChannel:
        return LoopSide(awaited)

    def _forget_publisher(self, publisher: AsyncStreamPublisher) -> None:
        del self._publishers[publisher]
