# SPDX-License-Identifier: Apache-2.0
"""ReflexEngine: the brain that is built in, an honest small burst engine.

It fires at a fixed rate. In each burst it takes the newest sensory frame of each agent, works
out which voxels have fired, and drives motor areas through declared weights (`Reflex`). The
arcs are local to an agent: what one body senses moves that body only. Like the real engine it
sends each agent a motor frame per burst, an empty one when nothing drives it, and one
visualization frame with everything that fired.

A sensory frame acts for two bursts (as a frame injected into the real engine does), unless a
newer one replaces it. Frames that no burst has used are counted: superseded or stale.
"""

from __future__ import annotations

import logging
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from feagi_io_host.blocking.worker import Worker
from feagi_io_host.burst.engine import BurstEngine, BurstTimetable
from feagi_io_host.burst.plan import BurstPlan, Fired, fill
from feagi_io_host.burst.wiring import Reflex, Wiring, linear_weights
from feagi_io_host.core.delivery import DELIVERY_TABLE
from feagi_io_host.core.errors import ClosedError, ConfigError, FeagiDataError
from feagi_io_host.core.events import (
    AgentDisconnected,
    AgentRegistered,
    BodySignals,
    MotorCommand,
    SensoryData,
    VisualizationReady,
)
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.signal import ListenerFailure, SignalHandle
from feagi_io_host.core.telemetry import LatencyHistogram
from feagi_io_host.core.types import StreamType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels

__all__ = ["Reflex", "ReflexEngine", "linear_weights"]

_log = logging.getLogger("feagi_io.burst")

_COUNTER_MASK: Final = 0xFFFF  # the container's increment counter is a u16
_RATE_WINDOW: Final = 128  # bursts over which the measured rate is taken
_PAUSE_WAIT_S: Final = 1.0  # a paused engine is woken by resume and stop; it looks this often


@dataclass(slots=True)
class _Frame:
    """The newest sensory frame of an agent, with a lease of its own."""

    fbc: SharedFBC
    received_at_s: float
    used: bool = False


class ReflexEngine(BurstEngine):
    """Fires at `rate_hz` bursts per second and wires sensors to motors by `reflexes`.

    `max_age_bursts` is the age beyond which a sensory frame acts no more (the delivery table's
    2 unless given). `clock` gives seconds that never go back and must be the PNS's own, since
    frames are dated by that. Raises ConfigError for settings that do not fit.
    """

    def __init__(
        self,
        rate_hz: float = 100.0,
        reflexes: Iterable[Reflex] = (),
        *,
        max_age_bursts: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._timetable = BurstTimetable(rate_hz, clock())
        self._wiring_lock = threading.Lock()  # guards the list of reflexes
        self._reflexes = tuple(reflexes)
        self._wiring = Wiring(self._reflexes)
        age = DELIVERY_TABLE[StreamType.SENSORY].max_age_bursts or 2
        self._max_age_bursts = age if max_age_bursts is None else max_age_bursts
        if self._max_age_bursts < 1:
            raise ConfigError(f"max_age_bursts is {max_age_bursts}, at least 1 needed")
        self._clock = clock
        self._lock = threading.Lock()  # guards the frames and agents
        # One burst at a time: thread, step or test. Re-entrant, so a listener may pause.
        self._burst_lock = threading.RLock()
        self._frames: dict[bytes, _Frame | None] = {}
        self._registered: set[bytes] = set()
        self._pns: list[tuple[BodySignals, SignalHandle, SignalHandle, SignalHandle]] = []
        self._plan = BurstPlan()
        # Two pools, because a buffer that keeps its layout is filled the fastest.
        self._motor_pool = BufferPool()
        self._visualization_pool = BufferPool()
        self._counts: dict[str, int] = dict.fromkeys(_COUNTERS, 0)
        self._lateness = LatencyHistogram()
        self._burst_count = 0
        self._begun_s = array("d", bytes(8 * _RATE_WINDOW))
        self._begun = 0
        self._resumed = threading.Event()
        self._resumed.set()
        self._worker = Worker("feagi-io-reflex-engine", self._run, wake=self._resumed.set)
        self.motor_commands.on_error = self._count_motor_failure

    # -- life ---------------------------------------------------------------------------------

    def connect_to_pns(self, pns: BodySignals) -> None:
        """Listen to the sensory data and the agents of `pns`; twice is as good as once."""
        with self._lock:
            if any(known is pns for known, *_ in self._pns):
                return
            handles = (
                pns.sensory_data_received.connect(self._on_sensory_data),
                pns.agent_registered.connect(self._on_agent_registered),
                pns.agent_disconnected.connect(self._on_agent_disconnected),
            )
            self._pns.append((pns, *handles))
            # Agents that came before this engine. One that leaves in this moment is told of
            # by its signal, which waits for this lock.
            for agent in pns.registered_agents:
                self._registered.add(agent.agent_id)
                self._frames.setdefault(agent.agent_id, None)

    def start(self) -> None:
        """Begin to fire at the set rate; does nothing when already started."""
        self._worker.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the bursts, leave the PNS and give back all leases. May be called again.

        Raises StopTimeoutError when a listener holds the burst up for longer.
        """
        with self._lock:
            connections, self._pns = self._pns, []
        for pns, sensory, registered, disconnected in connections:
            pns.sensory_data_received.disconnect(sensory)
            pns.agent_registered.disconnect(registered)
            pns.agent_disconnected.disconnect(disconnected)
        try:
            self._worker.stop(timeout_s)
        finally:
            with self._lock:
                frames = [frame for frame in self._frames.values() if frame is not None]
                self._frames.clear()
                self._registered.clear()
            for frame in frames:
                frame.fbc.release()

    def __enter__(self) -> ReflexEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def pause(self) -> None:
        """Fire no more until `resume`. When this returns, no burst is under way any more."""
        self._resumed.clear()
        with self._burst_lock:
            _log.debug("paused after %d bursts", self._burst_count)

    def resume(self) -> None:
        """Fire on, on a new grid from now; the time of the pause counts nowhere."""
        if not self._resumed.is_set():
            with self._burst_lock:
                self._timetable.restart(self._clock())
                self._begun = 0
            self._resumed.set()

    def step(self, bursts: int = 1) -> None:
        """Fire `bursts` bursts at once, in this thread. Raises ClosedError unless paused or
        not started: beside a running timetable a step would mean nothing."""
        if self._worker.is_alive and self._resumed.is_set():
            raise ClosedError("the engine is running; pause it before stepping")
        for _ in range(bursts):
            self.run_burst(self._clock())

    def add_reflexes(self, reflexes: Iterable[Reflex]) -> None:
        """Wire more sensors to motors from the next agent's turn on.

        An arc between two areas takes the place of the one that they had. Raises ConfigError, and
        changes nothing, for reflexes that do not fit the others.
        """
        with self._wiring_lock:
            arcs = {(reflex.source, reflex.target): reflex for reflex in self._reflexes}
            arcs.update({(reflex.source, reflex.target): reflex for reflex in reflexes})
            self._wiring = Wiring(arcs.values())
            self._reflexes = tuple(arcs.values())

    def change_rate(self, rate_hz: float) -> None:
        """Fire at another rate, on a new grid from now. Raises ConfigError for a rate that is not
        a positive number."""
        with self._burst_lock:
            self._timetable.change_rate(rate_hz, self._clock())
            self._begun = 0

    # -- figures ------------------------------------------------------------------------------

    @property
    def reflexes(self) -> tuple[Reflex, ...]:
        """The arcs that there are."""
        return self._reflexes

    @property
    def is_firing(self) -> bool:
        """Whether bursts come by themselves now."""
        return self._worker.is_alive and self._resumed.is_set()

    @property
    def burst_count(self) -> int:
        """Bursts fired so far."""
        return self._burst_count

    @property
    def rate_hz(self) -> float:
        """The set rate in bursts per second."""
        return 1.0 / self._timetable.period_s

    @property
    def measured_rate_hz(self) -> float:
        """The rate over the last bursts, 128 at most; 0.0 before there are two."""
        begun = self._begun
        count = min(begun, _RATE_WINDOW)
        if count < 2:
            return 0.0
        newest = self._begun_s[(begun - 1) % _RATE_WINDOW]
        span_s = newest - self._begun_s[(begun - count) % _RATE_WINDOW]
        return (count - 1) / span_s if span_s > 0.0 else 0.0

    def telemetry(self) -> dict[str, Any]:
        """A snapshot as plain data: `bursts`, `paused`, `rate_hz` set and `measured_rate_hz`,
        `late_bursts`, `skipped_bursts`, `lateness`, the buffer pools, and the counters of
        frames (`sensory_*`, `motor_*`, `visualization_frames`) and voxels (`voxels_*`)."""
        with self._lock:
            counts = dict(self._counts)
        return {
            "bursts": self._burst_count,
            "paused": not self._resumed.is_set(),
            "rate_hz": self.rate_hz,
            "measured_rate_hz": self.measured_rate_hz,
            "late_bursts": self._timetable.late_bursts,
            "skipped_bursts": self._timetable.skipped_bursts,
            "lateness": self._lateness.snapshot(),
            "motor_pool": self._motor_pool.counters(),
            "visualization_pool": self._visualization_pool.counters(),
            **counts,
        }

    # -- what comes from the PNS, in its worker's thread ---------------------------------------

    def _on_sensory_data(self, data: SensoryData) -> None:
        frame = _Frame(data.fbc.retain(), data.received_at_s)
        with self._lock:
            if not self._pns:  # stopped while this signal was under way
                old: _Frame | None = frame
            else:
                self._counts["sensory_frames"] += 1
                old = self._frames.get(data.agent_id)
                self._frames[data.agent_id] = frame
                if old is not None and not old.used:
                    self._counts["sensory_superseded"] += 1
        if old is not None:
            old.fbc.release()

    def _on_agent_registered(self, event: AgentRegistered) -> None:
        with self._lock:
            self._registered.add(event.agent_id)
            self._frames.setdefault(event.agent_id, None)

    def _on_agent_disconnected(self, event: AgentDisconnected) -> None:
        with self._lock:
            self._registered.discard(event.agent_id)
            frame = self._frames.pop(event.agent_id, None)
        if frame is not None:
            frame.fbc.release()

    def _count_motor_failure(self, failure: ListenerFailure) -> None:
        with self._lock:
            self._counts["motor_failures"] += 1

    # -- the bursts ---------------------------------------------------------------------------

    def _run(self, stopping: threading.Event) -> None:
        timetable = self._timetable
        timetable.restart(self._clock())
        while not stopping.is_set():
            if not self._resumed.is_set():
                self._resumed.wait(_PAUSE_WAIT_S)
                continue
            wait_s = timetable.due_s - self._clock()
            if wait_s > 0.0:
                stopping.wait(wait_s)
                continue
            with self._burst_lock:
                if not self._resumed.is_set():
                    continue
                now_s = self._clock()
                self._lateness.record(timetable.begin(now_s))
                self.run_burst(now_s)
                timetable.end(self._clock())

    def run_burst(self, now_s: float) -> None:
        """Fire one burst, as of `now_s` seconds of the engine's clock.

        The thread does this by itself; a test or a simulation may call it instead.
        """
        with self._burst_lock:
            self._begun_s[self._begun % _RATE_WINDOW] = now_s
            self._begun += 1
            plan = self._plan
            try:
                self._take_frames(now_s, plan)
                for agent_id, fbc in plan.work:
                    self._serve(agent_id, fbc, plan)
                self._show(plan)
            finally:
                plan.clear()
                self._burst_count += 1

    def _take_frames(self, now_s: float, plan: BurstPlan) -> None:
        max_age_s = self._max_age_bursts * self._timetable.period_s
        with self._lock:
            for agent_id, frame in tuple(self._frames.items()):
                if frame is not None and now_s - frame.received_at_s > max_age_s:
                    self._counts["sensory_expired" if frame.used else "sensory_stale"] += 1
                    frame.fbc.release()
                    frame = self._frames[agent_id] = None
                if frame is not None:
                    frame.used = True
                    plan.work.append((agent_id, frame.fbc.retain()))
                elif agent_id in self._registered:
                    plan.work.append((agent_id, None))
                else:
                    # A last frame that came in after its agent had left.
                    del self._frames[agent_id]

    def _serve(self, agent_id: bytes, fbc: SharedFBC | None, plan: BurstPlan) -> None:
        """Take up what one agent senses and send its motor frame."""
        wiring = self._wiring  # one for the whole turn: it may be replaced meanwhile
        wiring.rest()
        if fbc is not None:
            self._sense(fbc, plan, wiring)
        driven = wiring.driven()
        frame = self._motor_pool.acquire()
        try:
            views = frame.reserve_xyzp(
                [(motor.area, motor.channels) for motor in driven],
                self._burst_count & _COUNTER_MASK,
            )
            for motor in driven:
                motor.write_into(views[motor.area])
        except BaseException:
            self._motor_pool.discard(frame)
            raise
        shared = self._motor_pool.share(frame)
        plan.leases.append(shared)
        for motor in driven:
            voxels = Fired(views[motor.area], None, motor.channels)
            plan.fired.setdefault(motor.area, []).append(voxels)
        with self._lock:
            self._counts["motor_frames" if driven else "motor_frames_empty"] += 1
        self.motor_commands.emit(MotorCommand(agent_id, shared))

    def _sense(self, fbc: SharedFBC, plan: BurstPlan, wiring: Wiring) -> None:
        unknown = ignored = undecodable = 0
        container = fbc.container
        for index in range(container.try_get_number_contained_structures()):
            try:
                struct = container.try_create_new_struct_from_index(index)
            except FeagiDataError as error:
                undecodable += 1
                _log.debug("sensory struct %d not decodable: %s", index, error)
                continue
            if not isinstance(struct, CorticalMappedXYZPNeuronVoxels):
                undecodable += 1
                continue
            for area, arrays in struct:
                sensory = wiring.sensory.get(area)
                if sensory is None:
                    unknown += len(arrays)
                    continue
                voxels = arrays.borrow_xyzp_vectors()
                mask = plan.mask(len(arrays))
                count = sensory.collect(voxels, mask)
                ignored += len(arrays) - count
                if count:
                    sensory.drive_targets()
                    fired = Fired(voxels, None if count == len(arrays) else mask, count)
                    plan.fired.setdefault(area, []).append(fired)
        with self._lock:
            self._counts["voxels_unknown_area"] += unknown
            self._counts["voxels_ignored"] += ignored
            self._counts["sensory_undecodable"] += undecodable

    def _show(self, plan: BurstPlan) -> None:
        """Emit all that has fired in this burst as one frame."""
        frame = self._visualization_pool.acquire()
        try:
            views = frame.reserve_xyzp(
                [(area, sum(part.count for part in parts)) for area, parts in plan.fired.items()],
                self._burst_count & _COUNTER_MASK,
            )
            for area, parts in plan.fired.items():
                fill(views[area], parts)
        except BaseException:
            self._visualization_pool.discard(frame)
            raise
        shared = self._visualization_pool.share(frame)
        plan.leases.append(shared)
        with self._lock:
            self._counts["visualization_frames"] += 1
        self.visualization_ready.emit(VisualizationReady(shared, self._burst_count))


_COUNTERS: Final = (
    "sensory_frames",
    "sensory_superseded",
    "sensory_stale",
    "sensory_expired",
    "sensory_undecodable",
    "voxels_unknown_area",
    "voxels_ignored",
    "motor_frames",
    "motor_frames_empty",
    "motor_failures",
    "visualization_frames",
)
