# SPDX-License-Identifier: Apache-2.0
"""PNS: the peripheral nervous system, between the carriers of agents and a burst engine.

A carrier (the board bridge, a ZMQ transport) attaches each agent it speaks for and gets an
AgentSession: it submits sensory frames to it and drains its two outbound channels.

    carrier -> session.submit_sensory -> one channel per agent -> worker -> sensory_data_received
    brain   -> publish_motor          -> session.motor         -> carrier
    brain   -> publish_visualization  -> session.visualization -> carrier

Every channel follows the delivery table. Each entry of a channel holds a lease of its own on
its frame; whoever takes the entry gives that lease back.

A PNS runs the transports that it was given by `add_transport`; others may attach agents, too.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from feagi_io_host.blocking.session import AgentSession, thread_channel
from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import ChannelMaker
from feagi_io_host.core.delivery import DELIVERY_TABLE, DeliveryRule
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    DeliveryTimeoutError,
    StopTimeoutError,
    UnknownHandleError,
)
from feagi_io_host.core.events import (
    AgentDisconnected,
    AgentRegistered,
    BrainSignals,
    MotorCommand,
    SensoryData,
    VisualizationReady,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.signal import FeagiSignal, SignalHandle
from feagi_io_host.core.telemetry import StreamCounters
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from feagi_io_host.figures import Figures
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.transport import NonBlockingTransport
from feagi_io_host.transports.registry import (
    Paradigm,
    blocking_transport,
    nonblocking_transport,
)
from feagi_wire.const import AGENT_ID_BYTES

__all__ = ["PNS", "AgentSession", "TransportHandle"]

_log = logging.getLogger("feagi_io.pns")

# The worker is woken by every frame and by stop; it looks around by itself this often.
_IDLE_WAIT_S: Final = 1.0
_CLEAN_UP_S: Final = 5.0  # for what was opened before a start failed


class PNS:
    """Carries sensory, motor and visualization frames between agents and a burst engine.

    `delivery` is the delivery table, `clock` gives seconds that never go back. Use as a context
    manager, or call `start` and `stop`. A stopped PNS is not started again.
    """

    def __init__(
        self,
        *,
        delivery: Mapping[StreamType, DeliveryRule] = DELIVERY_TABLE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.delivery = delivery
        self.clock = clock
        self.sensory_data_received: FeagiSignal[SensoryData] = FeagiSignal("sensory_data_received")
        self.agent_registered: FeagiSignal[AgentRegistered] = FeagiSignal("agent_registered")
        self.agent_disconnected: FeagiSignal[AgentDisconnected] = FeagiSignal("agent_disconnected")
        self._lock = threading.Lock()
        self._by_id: dict[bytes, AgentSession] = {}
        self._sessions: tuple[AgentSession, ...] = ()  # replaced as a whole, read without lock
        self._engines: list[tuple[BrainSignals, SignalHandle, SignalHandle]] = []
        self._life = threading.Lock()  # held by `start`
        self._started = False
        self._handles: tuple[TransportHandle, ...] = ()
        self._figures = Figures()
        self._unclaimed = StreamCounters()
        self._sensory_waiting = threading.Event()
        self._worker = Worker(
            "feagi-io-pns-sensory", self._distribute, wake=self._sensory_waiting.set
        )
        self._stopped = False
        self._started_at_s = clock()

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the transports and begin to pass sensory frames on; does nothing when started
        before. Agents may be attached before.

        Transports that let agents in open last, those that only carry streams for them first.
        Raises what the first one raises that cannot be opened; the PNS is stopped then. Raises
        ClosedError after `stop`.
        """
        try:
            with self._life:
                if self._started and not self._stopped:
                    return
                self._worker.start()
                for handle in self._in_opening_order():
                    handle.start()
                self._started = True
        except BaseException:
            try:
                self.stop(_CLEAN_UP_S)
            except StopTimeoutError:
                _log.exception("after a start that failed")
            raise

    def stop(self, timeout_s: float = 5.0) -> None:
        """Detach every agent and every engine, stop the transports and end the worker, within
        `timeout_s` seconds.

        May be called more than once. Raises StopTimeoutError when something is held up, the
        worker by a listener that does not return for example, or what a transport raised that
        failed to end; everything else is closed even then.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            self._stopped = True
        for engine, _, _ in tuple(self._engines):
            with contextlib.suppress(UnknownHandleError):  # stopped by two at once
                self.disconnect_from_burst_engine(engine)
        for session in self._sessions:
            session.close("PNS stopped")
        steps: list[Callable[[float], object]] = [
            *(handle.stop for handle in reversed(self._in_opening_order())),
            self._worker.stop,
        ]
        late: list[str] = []
        failure: Exception | None = None
        for index, step in enumerate(steps):
            # One that is stuck must not use up the time of the others.
            share_s = max(deadline_s - time.monotonic(), 0.0) / (len(steps) - index)
            try:
                step(share_s)
            except StopTimeoutError as error:
                late.append(str(error))
            except Exception as error:
                _log.exception("a transport failed to end")
                failure = failure or error
        if failure is not None:
            raise failure
        if late:
            raise StopTimeoutError("; ".join(late))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- transports -----------------------------------------------------------------------------

    def add_transport(
        self,
        make: str | Callable[..., BlockingTransport | NonBlockingTransport],
        *,
        paradigm: Paradigm = "blocking",
        streams: Iterable[StreamType] = tuple(StreamType),
        carriers: Mapping[StreamType, TransportHandle] | None = None,
        **settings: Any,
    ) -> TransportHandle:
        """Give the PNS one more transport, which starts and stops with it.

        `make` is its name in the registry, or its class; `paradigm` counts for a name alone.
        `settings` are its keyword arguments, `carriers` the streams of its agents that other
        transports of this PNS carry, of either paradigm. One without StreamType.CONTROL among its
        `streams` only carries: it opens before those that let agents in. A PNS that runs does
        not start it by itself: call the handle's `start`.

        Raises ConfigError for an unknown name, a carrier that cannot be one and what the transport
        finds wrong with its settings, ClosedError after `stop`.
        """
        door = _Door(self)
        if carriers:
            settings["carriers"] = {s: handle.carrier for s, handle in carriers.items()}
        if not isinstance(make, str):
            transport = make(door, **settings)
        elif paradigm == "blocking":
            transport = blocking_transport(make, door, **settings)
        else:
            transport = nonblocking_transport(make, door, **settings)
        handle = TransportHandle(transport, streams=streams, carriers=carriers)
        door.handle = handle
        with self._lock:
            if self._stopped:
                raise ClosedError("PNS was stopped; it takes no more transports")
            self._handles = (*self._handles, handle)
        return handle

    @property
    def transports(self) -> tuple[TransportHandle, ...]:
        """The transports of this PNS, in the order in which they were added."""
        return self._handles

    @property
    def endpoints(self) -> list[dict[str, Any]]:
        """What listens where, as plain data: for each transport what
        `TransportHandle.endpoint` says. The data streams of an agent have addresses of their own,
        which it is told when it registers."""
        return [handle.endpoint() for handle in self._handles]

    def _in_opening_order(self) -> list[TransportHandle]:
        return sorted(self._handles, key=lambda handle: StreamType.CONTROL in handle.streams)

    # -- agents -------------------------------------------------------------------------------

    def attach_agent(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
        channel: ChannelMaker = thread_channel,
    ) -> AgentSession:
        """Let an agent in and tell the listeners of `agent_registered`.

        Without `agent_id` it gets 48 random bytes. An id that is attached already takes over:
        its old session is closed first, as when a board was plugged out and in again. `channel`
        makes its motor and visualization channels: a carrier in an event loop gives its own. Raises
        ConfigError for an id of another length or of zeros, ClosedError after `stop`.
        """
        return self._attach(
            None, descriptor, capabilities, agent_id, motor_areas=motor_areas, channel=channel
        )

    def _attach(
        self,
        handle: TransportHandle | None,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
        *,
        motor_areas: Iterable[CorticalID] | None,
        channel: ChannelMaker,
    ) -> AgentSession:
        if agent_id is None:
            agent_id = secrets.token_bytes(AGENT_ID_BYTES)
        if len(agent_id) != AGENT_ID_BYTES or not any(agent_id):
            raise ConfigError(
                f"agent id has {len(agent_id)} bytes, {sum(map(bool, agent_id))} of them not "
                f"zero; expected {AGENT_ID_BYTES} bytes that are not all zero, or None"
            )
        areas = None if motor_areas is None else frozenset(motor_areas)
        session = AgentSession(
            bytes(agent_id),
            descriptor,
            capabilities,
            areas,
            delivery=self.delivery,
            clock=self.clock,
            on_sensory=self._sensory_waiting.set,
            on_close=self._detach,
            channel=channel,
        )
        while True:
            with self._lock:
                if self._stopped:
                    raise ClosedError("PNS was stopped; it takes no more agents")
                old = self._by_id.get(session.agent_id)
                if old is None:
                    self._by_id[session.agent_id] = session
                    self._sessions = (*self._sessions, session)
                    self._figures.came(session, handle)
                    break
            old.close("replaced by a new session of the same agent")
        _log.info("agent %s attached", descriptor.agent_name)
        self.agent_registered.emit(AgentRegistered(session.agent_id, descriptor))
        return session

    @property
    def sessions(self) -> tuple[AgentSession, ...]:
        """The agents attached now, in order of arrival."""
        return self._sessions

    @property
    def registered_agents(self) -> tuple[AgentRegistered, ...]:
        """Who is attached now, in the form in which `agent_registered` told it."""
        return tuple(AgentRegistered(s.agent_id, s.descriptor) for s in self._sessions)

    # -- towards the agents -------------------------------------------------------------------

    def publish_visualization(self, fbc: SharedFBC) -> None:
        """Show a frame to every agent with RECEIVE_NEURON_VISUALIZATIONS. Never waits: what an
        agent has not taken yet is replaced and counted. The caller keeps its own lease."""
        self._note_emitted(fbc)
        for session in self._sessions:
            if AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS in session.capabilities:
                session.show(fbc)

    def publish_motor(self, agent_id: bytes | None, fbc: SharedFBC) -> None:
        """Hand a motor frame to one agent, or (None) to every agent with RECEIVE_MOTOR_DATA.

        The caller keeps its own lease. Agents with room are served first; then each full one is
        waited for up to the delivery table's deadline, but one that let a deadline pass is not
        waited for again before it has room. Raises DeliveryTimeoutError naming who did not
        get the frame, UnknownHandleError for an id that is not attached or takes no motor data.
        """
        self._note_emitted(fbc)
        if agent_id is None:
            sessions: tuple[AgentSession, ...] = tuple(
                s for s in self._sessions if AgentCapabilities.RECEIVE_MOTOR_DATA in s.capabilities
            )
        else:
            sessions = (self._motor_session(agent_id),)
        full: list[AgentSession] = []
        areas: frozenset[CorticalID] | None = None
        for session in sessions:
            if session.motor_areas is not None:
                areas = _areas_of(fbc) if areas is None else areas
                if areas and areas.isdisjoint(session.motor_areas):
                    continue
            session.counters[StreamType.MOTOR].count_sent(len(fbc))
            if not session.offer_motor(fbc):
                full.append(session)
        if full:
            self._press(full, len(sessions), fbc)

    def _note_emitted(self, fbc: SharedFBC) -> None:
        """Where the time to the wire begins, unless the brain has said so itself."""
        if fbc.emitted_at_s is None:
            fbc.emitted_at_s = self.clock()

    def _press(self, full: list[AgentSession], addressed: int, fbc: SharedFBC) -> None:
        missed = [session for session in full if not session.press_motor(fbc)]
        if missed:
            deadline_s = self.delivery[StreamType.MOTOR].deadline_s
            names = ", ".join(f"{s.motor.name} ({len(s.motor)} frames queued)" for s in missed)
            raise DeliveryTimeoutError(
                f"motor frame of {len(fbc)} bytes not taken within {deadline_s} s by "
                f"{len(missed)} of {addressed} agents: {names}; their carriers are stuck or slow"
            )

    def _motor_session(self, agent_id: bytes) -> AgentSession:
        session = self._by_id.get(agent_id)
        if session is None:
            raise UnknownHandleError(
                f"no agent {agent_id[:4].hex()}... attached; {len(self._sessions)} others are"
            )
        if AgentCapabilities.RECEIVE_MOTOR_DATA not in session.capabilities:
            raise UnknownHandleError(
                f"agent {session.descriptor.agent_name} did not ask for RECEIVE_MOTOR_DATA"
            )
        return session

    # -- towards the brain --------------------------------------------------------------------

    def connect_to_burst_engine(self, engine: BrainSignals) -> None:
        """Carry what the engine emits: its motor commands and its visualization.

        The engine's own `connect_to_pns` is the other direction. Connecting twice does nothing.
        """
        with self._lock:
            if self._stopped:
                raise ClosedError("PNS was stopped; it connects to no engine")
            if any(known is engine for known, _, _ in self._engines):
                return
            motor = engine.motor_commands.connect(self._on_motor_command)
            shown = engine.visualization_ready.connect(self._on_visualization)
            self._engines.append((engine, motor, shown))

    def disconnect_from_burst_engine(self, engine: BrainSignals) -> None:
        """Carry nothing of this engine any more. Raises UnknownHandleError if it is not
        connected."""
        with self._lock:
            for index, (known, motor, shown) in enumerate(self._engines):
                if known is engine:
                    del self._engines[index]
                    engine.motor_commands.disconnect(motor)
                    engine.visualization_ready.disconnect(shown)
                    return
        raise UnknownHandleError(f"{type(engine).__name__} is not connected to this PNS")

    def _on_motor_command(self, command: MotorCommand) -> None:
        try:
            self.publish_motor(command.agent_id, command.fbc)
        except UnknownHandleError as error:
            # The agent left while the brain was computing for it: no fault of either.
            self._unclaimed.count_sent(len(command.fbc))
            self._unclaimed.count_dropped("no such agent")
            _log.debug("motor command without a receiver: %s", error)

    def _on_visualization(self, event: VisualizationReady) -> None:
        self.publish_visualization(event.fbc)

    def _distribute(self, stopping: threading.Event) -> None:
        """The worker: one frame of each agent in turn, so that none crowds out the others."""
        while not stopping.is_set():
            self._sensory_waiting.wait(_IDLE_WAIT_S)
            # Cleared before looking: a frame that arrives from here on sets it again.
            self._sensory_waiting.clear()
            busy = True
            while busy and not stopping.is_set():
                busy = False
                for session in self._sessions:
                    if session.deliver_one(self.sensory_data_received):
                        busy = True

    def _detach(self, session: AgentSession, reason: str) -> None:
        with self._lock:
            if self._by_id.get(session.agent_id) is not session:
                return
            del self._by_id[session.agent_id]
            self._sessions = tuple(s for s in self._sessions if s is not session)
        session.close_channels()
        self._figures.left(session)
        _log.info("agent %s detached: %s", session.descriptor.agent_name, reason)
        self.agent_disconnected.emit(AgentDisconnected(session.agent_id, reason))

    # -- figures ------------------------------------------------------------------------------

    def telemetry(self) -> dict[str, Any]:
        """A snapshot as plain data, ready for JSON.

        `uptime_s`
        `agents`: for each attached one `agent_id` (hex), `manufacturer`, `agent_name`,
            `agent_version`, `capabilities` (as in a registration), `transport` ("name.paradigm" of
            the one that let it in, None for others), `attached_s`, and a row for each of
            `sensory`, `motor` and `visualization`
        `transports`: for each what `endpoints` says, the number of its `agents`, its `control`
            counters, and the rows of the streams that it carries, of agents that left, too
        `totals`: the rows of all agents there ever were
        `unclaimed_motor`: commands for agents that were gone
        `sensory_queue_latency`: the latency of the sensory total

        A row has `sent`, `delivered`, `bytes`, `dropped` (by reason), `queued`, `in_flight`,
        `high_water`, `saturation`, `saturation_lately` (see `core.telemetry.stream_row`) and
        `latency` with `count`, `mean_ms`, `p50_ms`, `p99_ms`, `p99_9_ms`, `max_ms`: for sensory
        from the carrier to the brain, for the others from `publish_*` to the wire, where the
        carrier reports it. `saturation_lately` is since the snapshot before, whoever took that.
        """
        report = self._figures.report(self._sessions, self._handles, self.clock())
        return {
            "uptime_s": self.clock() - self._started_at_s,
            **report,
            "unclaimed_motor": self._unclaimed.snapshot(),
            "sensory_queue_latency": report["totals"][StreamType.SENSORY.value]["latency"],
        }


class _Door:
    """The host that a transport of the PNS sees: it remembers by which one an agent came."""

    def __init__(self, pns: PNS) -> None:
        self._pns = pns
        self.handle: TransportHandle | None = None

    def attach_agent(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
        channel: ChannelMaker = thread_channel,
    ) -> AgentSession:
        """As `PNS.attach_agent`."""
        return self._pns._attach(
            self.handle,
            descriptor,
            capabilities,
            agent_id,
            motor_areas=motor_areas,
            channel=channel,
        )


def _areas_of(fbc: SharedFBC) -> frozenset[CorticalID]:
    """The cortical areas of all XYZP structs of a frame."""
    areas: set[CorticalID] = set()
    container = fbc.container
    for index in range(container.try_get_number_contained_structures()):
        struct = container.try_create_new_struct_from_index(index)
        if isinstance(struct, CorticalMappedXYZPNeuronVoxels):
            areas.update(struct.mappings)
    return frozenset(areas)
