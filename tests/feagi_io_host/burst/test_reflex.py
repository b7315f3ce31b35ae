# SPDX-License-Identifier: Apache-2.0
"""ReflexEngine: what goes in, what comes out, when, and at what cost."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from feagi_io_host.burst import BurstEngine, Reflex, ReflexEngine, linear_weights
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError, ConfigError, DeliveryTimeoutError
from feagi_io_host.core.events import (
    AgentDisconnected,
    AgentRegistered,
    MotorCommand,
    SensoryData,
    VisualizationReady,
)
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels

PATIENCE_S = 10.0

ANGLE = CorticalID(b"iinf\x01\x00\x00\x00")
SPEED = CorticalID(b"iinf\x01\x00\x01\x00")
STRANGE = CorticalID(b"iinf\x01\x00\x09\x00")
FORCE = CorticalID(b"omot\x05\x00\x00\x00")
CART = b"\x01" * 48
WALKER = b"\x02" * 48
DESCRIPTOR = AgentDescriptor("feagi-io tests", "cart", 1)

R = 9  # depth of the sensory areas; the middle is z = 4
T = 21  # depth of the motor area; the middle is z = 10

Voxels = list[tuple[int, int, int, float]]
Frame = dict[CorticalID, Voxels]


class StubBody:
    """The signals of a PNS without one."""

    def __init__(self, *agents: bytes) -> None:
        self.sensory_data_received: FeagiSignal[SensoryData] = FeagiSignal("sensory")
        self.agent_registered: FeagiSignal[AgentRegistered] = FeagiSignal("registered")
        self.agent_disconnected: FeagiSignal[AgentDisconnected] = FeagiSignal("disconnected")
        self.registered_agents = tuple(AgentRegistered(agent, DESCRIPTOR) for agent in agents)
        self.pool = BufferPool()

    def sense(self, agent: bytes, frame: Frame, at_s: float = 0.0) -> None:
        container = self.pool.acquire()
        views = container.reserve_xyzp([(area, len(v)) for area, v in frame.items()], 0)
        for area, voxels in frame.items():
            for column, values in zip(views[area], zip(*voxels, strict=True), strict=False):
                column[:] = values
        del views
        with self.pool.share(container) as fbc:
            self.sensory_data_received.emit(SensoryData(agent, fbc, at_s))


def contents(fbc: SharedFBC) -> Frame:
    struct = fbc.container.try_create_new_struct_from_index(0)
    assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
    return {
        area: sorted(zip(*(c.tolist() for c in arrays.borrow_xyzp_vectors()), strict=True))
        for area, arrays in struct
    }


class Bench:
    """An engine at 100 bursts per second between stubs, driven burst by burst."""

    def __init__(self, *agents: bytes) -> None:
        self.engine = ReflexEngine(
            100.0,
            [
                Reflex(ANGLE, FORCE, linear_weights(1.0, R).reshape(1, R, 1), T),
                Reflex(SPEED, FORCE, linear_weights(0.5, R).reshape(1, R, 1), T),
            ],
            clock=lambda: 0.0,
        )
        self.body = StubBody(*agents)
        self.engine.connect_to_pns(self.body)
        self.motor: list[tuple[bytes | None, Frame, int]] = []
        self.shown: list[tuple[int, Frame]] = []
        self.engine.motor_commands.connect(self._keep_motor)
        self.engine.visualization_ready.connect(self._keep_shown)

    def _keep_motor(self, command: MotorCommand) -> None:
        counter = command.fbc.container.get_increment_counter()
        self.motor.append((command.agent_id, contents(command.fbc), counter))

    def _keep_shown(self, event: VisualizationReady) -> None:
        self.shown.append((event.burst, contents(event.fbc)))

    def counted(self, name: str) -> int:
        value: int = self.engine.telemetry()[name]
        return value


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench(CART)
    yield made
    made.engine.stop()
    telemetry = made.engine.telemetry()
    assert made.body.pool.counters()["leased"] == 0
    for name in ("motor_pool", "visualization_pool"):
        assert telemetry[name]["leased"] == 0
        assert telemetry[name]["still_viewed"] == 0


def test_what_is_sensed_becomes_motor_and_visualization(bench: Bench) -> None:
    # Angle: z = 0 of 9 is the value 1 - 0.5/9, in -1..1 that is 8/9; drive 8/9 -> z 1 of 21.
    bench.body.sense(CART, {ANGLE: [(0, 0, 0, 1.0)]})
    bench.engine.run_burst(0.0)
    force = (0, 0, 1, 1.0)
    assert bench.motor == [(CART, {FORCE: [force]}, 0)]
    assert bench.shown == [(0, {ANGLE: [(0, 0, 0, 1.0)], FORCE: [force]})]
    assert bench.engine.burst_count == 1


def test_sources_of_one_target_add_up_and_p_scales(bench: Bench) -> None:
    # Angle 8/9 at half potential = 4/9; speed z = 8 is -8/9, gain 0.5 = -4/9: they cancel.
    bench.body.sense(CART, {ANGLE: [(0, 0, 0, 0.5)], SPEED: [(0, 0, 8, 1.0)]})
    bench.engine.run_burst(0.0)
    assert bench.motor[0][1] == {FORCE: [(0, 0, 10, 1.0)]}


def test_a_frame_acts_for_two_bursts_and_then_the_motor_frames_are_empty(bench: Bench) -> None:
    bench.body.sense(CART, {ANGLE: [(0, 0, 4, 1.0)]}, at_s=1.0)
    for now_s in (1.0, 1.01, 1.0199, 1.031, 1.04):
        bench.engine.run_burst(now_s)
    assert [bool(frame) for _, frame, _ in bench.motor] == [True, True, True, False, False]
    assert [agent for agent, _, _ in bench.motor] == [CART] * 5
    assert [counter for _, _, counter in bench.motor] == [0, 1, 2, 3, 4]
    assert [bool(frame) for _, frame in bench.shown] == [True, True, True, False, False]
    assert bench.counted("sensory_expired") == 1
    assert bench.counted("sensory_stale") == 0
    assert bench.counted("motor_frames") == 3
    assert bench.counted("motor_frames_empty") == 2


def test_an_empty_motor_frame_is_the_real_engines(bench: Bench) -> None:
    frames: list[bytes] = []
    bench.engine.motor_commands.connect(lambda command: frames.append(bytes(command.fbc.view)))
    bench.engine.run_burst(0.0)
    # Version 4, counter 0, one struct, no agent id; 4 bytes of XYZP without an area.
    assert frames == [b"\x04\x00\x00\x01" + bytes(48) + b"\x04\x00\x00\x00\x0b\x01\x00\x00"]


def test_a_frame_too_old_on_arrival_is_dropped_and_counted(bench: Bench) -> None:
    bench.body.sense(CART, {ANGLE: [(0, 0, 4, 1.0)]}, at_s=1.0)
    bench.engine.run_burst(1.5)
    assert bench.motor == [(CART, {}, 0)]
    assert bench.counted("sensory_stale") == 1
    assert bench.body.pool.counters()["leased"] == 0


def test_the_newest_frame_wins_and_the_others_are_counted(bench: Bench) -> None:
    for z in (0, 8, 4):
        bench.body.sense(CART, {ANGLE: [(0, 0, z, 1.0)]})
    bench.engine.run_burst(0.0)
    assert bench.motor[0][1] == {FORCE: [(0, 0, 10, 1.0)]}
    assert bench.counted("sensory_superseded") == 2
    bench.body.sense(CART, {ANGLE: [(0, 0, 0, 1.0)]})
    assert bench.counted("sensory_superseded") == 2  # the frame before has been used


def test_agents_are_apart_but_shown_together(bench: Bench) -> None:
    bench.body.agent_registered.emit(AgentRegistered(WALKER, DESCRIPTOR))
    bench.body.sense(CART, {ANGLE: [(0, 0, 0, 1.0)]})
    bench.body.sense(WALKER, {ANGLE: [(0, 0, 8, 1.0)], SPEED: [(0, 0, 4, 1.0)]})
    bench.engine.run_burst(0.0)
    assert {agent: frame for agent, frame, _ in bench.motor} == {
        CART: {FORCE: [(0, 0, 1, 1.0)]},
        WALKER: {FORCE: [(0, 0, 19, 1.0)]},
    }
    assert bench.shown[0][1] == {
        ANGLE: [(0, 0, 0, 1.0), (0, 0, 8, 1.0)],
        SPEED: [(0, 0, 4, 1.0)],
        FORCE: [(0, 0, 1, 1.0), (0, 0, 19, 1.0)],
    }


def test_agents_that_left_are_forgotten_with_their_frames(bench: Bench) -> None:
    bench.body.sense(CART, {ANGLE: [(0, 0, 0, 1.0)]})
    bench.body.agent_disconnected.emit(AgentDisconnected(CART, "unplugged"))
    assert bench.body.pool.counters()["leased"] == 0
    bench.engine.run_burst(0.0)
    assert bench.motor == []
    # A last frame that was under way: it acts while it is fresh, and no ghost stays.
    bench.body.sense(CART, {ANGLE: [(0, 0, 0, 1.0)]}, at_s=1.0)
    for now_s in (1.0, 1.1, 1.2):
        bench.engine.run_burst(now_s)
    assert len(bench.motor) == 1


def test_voxels_outside_the_geometry_are_ignored_and_counted(bench: Bench) -> None:
    good = (0, 0, 4, 1.0)
    bad = [(1, 0, 4, 1.0), (0, 1, 4, 1.0), (0, 0, R, 1.0), (0, 0, 4, 0.0), (0, 0, 4, -1.0)]
    bad += [(0, 0, 4, float("nan")), (0, 0, 4, float("inf")), (2**32 - 1, 0, 2**32 - 1, 1.0)]
    bench.body.sense(CART, {ANGLE: [*bad, good], STRANGE: [good, good]})
    bench.engine.run_burst(0.0)
    assert bench.motor[0][1] == {FORCE: [(0, 0, 10, 1.0)]}
    assert bench.shown[0][1] == {ANGLE: [good], FORCE: [(0, 0, 10, 1.0)]}
    assert bench.counted("voxels_ignored") == len(bad)
    assert bench.counted("voxels_unknown_area") == 2


def test_a_frame_that_fires_nothing_drives_nothing(bench: Bench) -> None:
    bench.body.sense(CART, {ANGLE: [(5, 0, 0, 1.0)]})
    bench.engine.run_burst(0.0)
    assert bench.motor == [(CART, {}, 0)]
    assert bench.shown == [(0, {})]


def test_json_on_the_sensory_stream_is_counted_and_harms_nothing(bench: Bench) -> None:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON({"not": "voxels"}), 0)
    with SharedFBC.adopt(container) as fbc:
        bench.body.sensory_data_received.emit(SensoryData(CART, fbc, 0.0))
    bench.engine.run_burst(0.0)
    assert bench.motor == [(CART, {}, 0)]
    assert bench.counted("sensory_undecodable") == 1


def test_a_failing_listener_costs_no_lease_and_no_burst(bench: Bench) -> None:
    def stuck(_: MotorCommand) -> None:
        raise DeliveryTimeoutError("on purpose")

    bench.engine.motor_commands.connect(stuck)
    for _ in range(3):
        bench.engine.run_burst(0.0)
    assert bench.counted("motor_failures") == 3
    assert len(bench.shown) == 3


def test_a_listener_may_keep_a_frame_and_it_does_not_change(bench: Bench) -> None:
    kept: list[tuple[SharedFBC, bytes]] = []
    bench.engine.visualization_ready.connect(
        lambda event: kept.append((event.fbc.retain(), bytes(event.fbc.view)))
    )
    for z in range(R):
        bench.body.sense(CART, {ANGLE: [(0, 0, z, 1.0)]})
        bench.engine.run_burst(0.0)
    assert len({then for _, then in kept}) == R
    for fbc, then in kept:
        assert bytes(fbc.view) == then
        fbc.release()


def test_after_warm_up_a_burst_allocates_no_payload_memory(bench: Bench) -> None:
    bench.engine.motor_commands.disconnect_all()
    bench.engine.visualization_ready.disconnect_all()
    voxels: Voxels = [(0, 0, k % R, 1.0) for k in range(4000)]  # 64 KB of voxels
    bench.body.sense(CART, {ANGLE: voxels})
    for _ in range(5):
        bench.engine.run_burst(0.0)
    created = bench.counted("visualization_frames")
    pools = [bench.engine.telemetry()[n]["created"] for n in ("motor_pool", "visualization_pool")]
    tracemalloc.start()
    try:
        bench.engine.run_burst(0.0)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            bench.engine.run_burst(0.0)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # One payload is 64 KB. A few small objects of the interpreter itself come and go with what ran
    # before this test; a tenth of one payload in twenty bursts is none of ours.
    assert after - before < 6400
    assert bench.counted("visualization_frames") == created + 21
    telemetry = bench.engine.telemetry()
    assert [telemetry[n]["created"] for n in ("motor_pool", "visualization_pool")] == pools


def test_masks_of_many_partly_fired_areas_do_not_mix(bench: Bench) -> None:
    """More voxels than the mask arena starts with, half of them ignored, from two agents."""
    bench.body.agent_registered.emit(AgentRegistered(WALKER, DESCRIPTOR))
    half: Voxels = [(k % 2, 0, k % R, 1.0) for k in range(900)]
    for agent in (CART, WALKER):
        bench.body.sense(agent, {ANGLE: half, SPEED: half[::-1]})
    bench.engine.run_burst(0.0)
    shown = bench.shown[0][1]
    fired = sorted(voxel for voxel in half if voxel[0] == 0)
    assert shown[ANGLE] == shown[SPEED] == sorted(fired * 2)


# -- life ---------------------------------------------------------------------------------------


def test_connecting_twice_is_as_good_as_once(bench: Bench) -> None:
    bench.engine.connect_to_pns(bench.body)
    assert bench.body.sensory_data_received.listener_count == 1


def test_stop_leaves_the_pns_and_gives_back_the_frames(bench: Bench) -> None:
    bench.body.sense(CART, {ANGLE: [(0, 0, 4, 1.0)]})
    bench.engine.stop()
    bench.engine.stop()
    for signal in (
        bench.body.sensory_data_received,
        bench.body.agent_registered,
        bench.body.agent_disconnected,
    ):
        assert signal.listener_count == 0
    assert bench.body.pool.counters()["leased"] == 0
    # A signal that was under way when the engine stopped.
    with SharedFBC.from_bytes(bytes([4]) + bytes(51)) as fbc:
        bench.engine._on_sensory_data(SensoryData(CART, fbc, 0.0))
        assert fbc.lease_count == 1


def test_the_thread_fires_until_it_is_stopped() -> None:
    engine = ReflexEngine(500.0)
    assert isinstance(engine, BurstEngine)
    enough = threading.Event()

    def count(event: VisualizationReady) -> None:
        if event.burst >= 20:
            enough.set()

    engine.visualization_ready.connect(count)
    with engine:
        assert enough.wait(PATIENCE_S)
    fired = engine.burst_count
    assert fired > 20
    # The grid is absolute: bursts plus skipped grid points never run ahead of it.
    assert 0.0 < engine.measured_rate_hz < 600.0
    with pytest.raises(ClosedError):
        engine.start()
    assert engine.burst_count == fired


def test_pause_step_and_resume() -> None:
    engine = ReflexEngine(1000.0)
    burst = threading.Event()
    engine.visualization_ready.connect(lambda _: burst.set())
    with engine:
        assert burst.wait(PATIENCE_S)
        with pytest.raises(ClosedError, match="pause it"):
            engine.step()
        assert engine.telemetry()["paused"] is False
        engine.pause()
        assert engine.telemetry()["paused"] is True
        fired = engine.burst_count
        engine.step()
        engine.step(3)
        assert engine.burst_count == fired + 4
        burst.clear()
        engine.resume()
        assert engine.telemetry()["paused"] is False
        assert burst.wait(PATIENCE_S)


def test_several_threads_pause_step_and_resume_one_engine() -> None:
    engine = ReflexEngine(1000.0)
    shown: list[int] = []
    engine.visualization_ready.connect(lambda event: shown.append(event.burst))

    def play(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(200):
            act = choose.choice((engine.pause, engine.resume, engine.step))
            with contextlib.suppress(ClosedError):  # a step beside bursts
                act()

    with engine:
        players = [threading.Thread(target=play, args=(seed,)) for seed in range(4)]
        for player in players:
            player.start()
        for player in players:
            player.join(PATIENCE_S)
            assert not player.is_alive()
        engine.pause()
        fired = engine.burst_count
        engine.step()
        assert engine.burst_count == fired + 1
    assert shown == list(range(fired + 1)), "each burst once, one after the other"


def test_a_listener_may_pause_the_engine() -> None:
    engine = ReflexEngine(1000.0)
    paused = threading.Event()

    def pause(_: VisualizationReady) -> None:
        engine.pause()
        paused.set()

    engine.visualization_ready.connect(pause)
    with engine:
        assert paused.wait(PATIENCE_S)
        engine.pause()
        assert engine.burst_count == 1


def test_steps_need_no_thread() -> None:
    engine = ReflexEngine(100.0, clock=lambda: 3.0)
    engine.step(5)
    assert engine.burst_count == 5
    assert engine.measured_rate_hz == 0.0  # no time has passed
    engine.stop()


def test_the_measured_rate_is_that_of_the_last_bursts() -> None:
    engine = ReflexEngine(100.0)
    assert engine.measured_rate_hz == 0.0
    for k in range(50):
        engine.run_burst(k * 1.0)
    assert engine.measured_rate_hz == pytest.approx(1.0)
    for k in range(200):
        engine.run_burst(50.0 + k * 0.01)
    assert engine.measured_rate_hz == pytest.approx(100.0)
    assert engine.rate_hz == pytest.approx(100.0)
    engine.stop()


def test_telemetry_is_plain_data(bench: Bench) -> None:
    bench.engine.run_burst(0.0)
    report = json.loads(json.dumps(bench.engine.telemetry()))
    assert report["bursts"] == 1
    assert report["rate_hz"] == pytest.approx(100.0)
    assert report["lateness"]["count"] == 0


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="bursts per second"):
        ReflexEngine(0.0)
    with pytest.raises(ConfigError, match="max_age_bursts is 0"):
        ReflexEngine(10.0, max_age_bursts=0)


# -- changes while it runs ------------------------------------------------------------------------


def test_reflexes_can_be_added_and_replaced(bench: Bench) -> None:
    eye = Reflex(STRANGE, FORCE, linear_weights(1.0, R).reshape(1, R, 1), T)
    bench.engine.add_reflexes([eye])
    assert len(bench.engine.reflexes) == 3
    bench.body.sense(CART, {STRANGE: [(0, 0, 0, 1.0)]})
    bench.engine.run_burst(0.0)
    _, frame, _ = bench.motor[-1]
    assert frame[FORCE] == [(0, 0, 1, 1.0)]  # 8/9 ahead
    still = Reflex(STRANGE, FORCE, linear_weights(0.0, R).reshape(1, R, 1), T)
    bench.engine.add_reflexes([still])
    assert len(bench.engine.reflexes) == 3
    bench.engine.run_burst(0.0)
    _, frame, _ = bench.motor[-1]
    assert frame[FORCE] == [(0, 0, 10, 1.0)]


def test_reflexes_that_do_not_fit_change_nothing(bench: Bench) -> None:
    before = bench.engine.reflexes
    wide = Reflex(STRANGE, FORCE, linear_weights(1.0, R).reshape(1, R, 1).repeat(2, axis=2), T)
    with pytest.raises(ConfigError, match="declared with 1 channels"):
        bench.engine.add_reflexes([wide])
    assert bench.engine.reflexes == before
    bench.body.sense(CART, {STRANGE: [(0, 0, 0, 1.0)]})
    bench.engine.run_burst(0.0)
    assert bench.motor[-1][1] == {}


def test_the_rate_can_be_changed(bench: Bench) -> None:
    bench.engine.change_rate(20.0)
    assert bench.engine.rate_hz == pytest.approx(20.0)
    # What is sensed acts for two bursts, now of 50 ms.
    bench.body.sense(CART, {ANGLE: [(0, 0, 0, 1.0)]}, at_s=0.0)
    bench.engine.run_burst(0.09)
    assert FORCE in bench.motor[-1][1]
    for rate_hz in (0.0, float("inf")):
        with pytest.raises(ConfigError, match="must be above 0"):
            bench.engine.change_rate(rate_hz)
    assert bench.engine.rate_hz == pytest.approx(20.0)


def test_it_says_whether_it_fires() -> None:
    engine = ReflexEngine(1000.0)
    assert not engine.is_firing
    with engine:
        assert engine.is_firing
        engine.pause()
        assert not engine.is_firing
        engine.resume()
        assert engine.is_firing
    assert not engine.is_firing
