# SPDX-License-Identifier: Apache-2.0
"""PNS: who gets which frame, what happens when somebody is slow, where the leases go."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.delivery import delivery_table
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
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.pns import PNS

PATIENCE_S = 10.0

SENSOR = AgentCapabilities.SEND_SENSOR_DATA
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
VIEW = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
ALL = SENSOR | MOTOR | VIEW

CART = AgentDescriptor("feagi-io tests", "cart", 1)
WALKER = AgentDescriptor("feagi-io tests", "walker", 2)

LEFT = CorticalID(b"omot\x05\x00\x00\x00")
RIGHT = CorticalID(b"omot\x05\x00\x01\x00")


class StubBrain:
    """The signals of a burst engine without one."""

    def __init__(self) -> None:
        self.visualization_ready: FeagiSignal[VisualizationReady] = FeagiSignal("viz")
        self.motor_commands: FeagiSignal[MotorCommand] = FeagiSignal("motor")


@pytest.fixture
def pool() -> Iterator[BufferPool]:
    """A pool whose every lease must have come back at the end of the test."""
    buffers = BufferPool()
    yield buffers
    assert buffers.counters()["leased"] == 0, "leases leaked"


@pytest.fixture
def pns(pool: BufferPool) -> Iterator[PNS]:  # after the pool, so that it ends before it
    table = delivery_table(
        capacity={StreamType.SENSORY: 4, StreamType.MOTOR: 3}, deadline_s={StreamType.MOTOR: 0.02}
    )
    with PNS(delivery=table) as system:
        yield system


def make(pool: BufferPool, *areas: CorticalID, counter: int = 0) -> SharedFBC:
    container = pool.acquire()
    for x, y, z, p in container.reserve_xyzp([(area, 1) for area in areas], counter).values():
        for column in (x, y, z, p):
            np.copyto(column, 1)
    return pool.share(container)


def counter_of(fbc: SharedFBC | None) -> int:
    """The increment counter of a frame taken from a channel, which is given back."""
    assert fbc is not None
    with fbc:
        return fbc.container.get_increment_counter()


def test_sensory_frames_reach_the_listeners_in_the_worker(pns: PNS, pool: BufferPool) -> None:
    arrived = threading.Event()
    seen: list[tuple[bytes, int, str]] = []

    def listen(data: SensoryData) -> None:
        counter = data.fbc.container.get_increment_counter()
        seen.append((data.agent_id, counter, threading.current_thread().name))
        if counter == 2:
            arrived.set()

    pns.sensory_data_received.connect(listen)
    session = pns.attach_agent(CART, SENSOR)
    for counter in (1, 2):
        with make(pool, counter=counter) as fbc:
            session.submit_sensory(fbc)
    assert arrived.wait(PATIENCE_S)
    assert seen == [(session.agent_id, k, "feagi-io-pns-sensory") for k in (1, 2)]


def test_a_full_sensory_channel_drops_the_oldest_and_counts(pool: BufferPool) -> None:
    pns = PNS(delivery=delivery_table(capacity={StreamType.SENSORY: 3}))
    seen: list[int] = []
    done = threading.Event()

    def listen(data: SensoryData) -> None:
        seen.append(data.fbc.container.get_increment_counter())
        if seen[-1] == 9:
            done.set()

    pns.sensory_data_received.connect(listen)
    session = pns.attach_agent(CART, SENSOR)
    for counter in range(10):  # not started yet: nobody takes anything
        with make(pool, counter=counter) as fbc:
            session.submit_sensory(fbc)
    row = pns.telemetry()["agents"][0]["sensory"]
    assert (row["sent"], row["queued"], row["dropped"]) == (10, 3, {"full": 7})
    pns.start()
    assert done.wait(PATIENCE_S)
    pns.stop()
    assert seen == [7, 8, 9]
    assert pns.telemetry()["totals"]["sensory"]["delivered"] == 3
    assert pns.telemetry()["sensory_queue_latency"]["count"] == 3


def test_one_flooding_agent_does_not_crowd_out_another(pool: BufferPool) -> None:
    pns = PNS()
    order: list[str] = []
    done = threading.Event()
    names: dict[bytes, str] = {}

    def listen(data: SensoryData) -> None:
        order.append(names[data.agent_id])
        if len(order) == 303:
            done.set()

    pns.sensory_data_received.connect(listen)
    flood = pns.attach_agent(CART, SENSOR)
    quiet = pns.attach_agent(WALKER, SENSOR)
    names.update({flood.agent_id: "flood", quiet.agent_id: "quiet"})
    with make(pool) as fbc:
        for _ in range(300):
            flood.submit_sensory(fbc)
        for _ in range(3):
            quiet.submit_sensory(fbc)
    pns.start()
    assert done.wait(PATIENCE_S)
    pns.stop()
    assert order[:6] == ["flood", "quiet"] * 3


def test_sensory_frames_without_the_capability_are_counted_not_delivered(
    pns: PNS, pool: BufferPool
) -> None:
    seen: list[SensoryData] = []
    pns.sensory_data_received.connect(seen.append)
    session = pns.attach_agent(CART, MOTOR)
    with make(pool) as fbc:
        session.submit_sensory(fbc)
    pns.stop()
    assert seen == []
    assert pns.telemetry()["totals"]["sensory"]["dropped"] == {"not permitted": 1}


def test_motor_goes_to_one_agent_or_to_all_that_receive_it(pns: PNS, pool: BufferPool) -> None:
    cart = pns.attach_agent(CART, ALL)
    walker = pns.attach_agent(WALKER, MOTOR)
    viewer = pns.attach_agent(AgentDescriptor("feagi-io tests", "viewer", 1), VIEW)
    with make(pool, counter=1) as one, make(pool, counter=2) as everybody:
        pns.publish_motor(cart.agent_id, one)
        pns.publish_motor(None, everybody)
    assert [counter_of(cart.motor.get(0.0)) for _ in range(2)] == [1, 2]
    assert counter_of(walker.motor.get(0.0)) == 2
    assert walker.motor.get(0.0) is None
    assert viewer.motor.get(0.0) is None


def test_motor_for_nobody_is_an_error(pns: PNS, pool: BufferPool) -> None:
    viewer = pns.attach_agent(CART, VIEW)
    with make(pool) as fbc:
        with pytest.raises(UnknownHandleError, match="did not ask for RECEIVE_MOTOR_DATA"):
            pns.publish_motor(viewer.agent_id, fbc)
        with pytest.raises(UnknownHandleError, match=r"no agent 07070707\.\.\. .*1 others"):
            pns.publish_motor(b"\x07" * 48, fbc)
        pns.publish_motor(None, fbc)


def test_motor_areas_keep_foreign_frames_away(pns: PNS, pool: BufferPool) -> None:
    left = pns.attach_agent(CART, MOTOR, motor_areas=[LEFT])
    both = pns.attach_agent(WALKER, MOTOR)
    for counter, areas in enumerate([(LEFT,), (RIGHT,), (LEFT, RIGHT), ()]):
        with make(pool, *areas, counter=counter) as fbc:
            pns.publish_motor(None, fbc)
        assert counter_of(both.motor.get(0.0)) == counter
    assert [counter_of(left.motor.get(0.0)) for _ in range(len(left.motor))] == [0, 2, 3]


def test_motor_areas_can_be_narrowed_while_attached(pns: PNS, pool: BufferPool) -> None:
    session = pns.attach_agent(CART, MOTOR)
    for counter, areas in enumerate([None, [LEFT], None]):
        session.narrow_motor(areas)
        with make(pool, RIGHT, counter=counter) as fbc:
            pns.publish_motor(None, fbc)
    assert [counter_of(session.motor.get(0.0)) for _ in range(len(session.motor))] == [0, 2]


def test_time_to_wire_is_counted_from_the_first_publish(pns: PNS, pool: BufferPool) -> None:
    session = pns.attach_agent(CART, MOTOR)
    with make(pool) as fbc:
        session.sent_to_wire(StreamType.MOTOR, fbc)  # nobody has emitted it
        assert session.time_to_wire[StreamType.MOTOR].count == 0
        pns.publish_motor(None, fbc)
        emitted_at_s = fbc.emitted_at_s
        pns.publish_motor(None, fbc)
        assert fbc.emitted_at_s == emitted_at_s
        session.sent_to_wire(StreamType.MOTOR, fbc)
    assert session.time_to_wire[StreamType.MOTOR].count == 1


def test_a_stuck_agent_is_an_error_after_the_others_were_served(pns: PNS, pool: BufferPool) -> None:
    stuck = pns.attach_agent(CART, MOTOR)
    for counter in range(3):
        with make(pool, counter=counter) as fbc:
            pns.publish_motor(None, fbc)
    good = pns.attach_agent(WALKER, MOTOR)
    with (
        make(pool, counter=3) as fbc,
        pytest.raises(
            DeliveryTimeoutError, match=r"within 0\.02 s by 1 of 2 agents: cart .*\(3 frames queued"
        ),
    ):
        pns.publish_motor(None, fbc)
    assert counter_of(good.motor.get(0.0)) == 3
    # What was taken is still there, in order; what was not is counted.
    row = stuck.snapshot()["motor"]
    assert (row["sent"], row["queued"], row["dropped"]) == (4, 3, {"timeout": 1})
    assert [counter_of(stuck.motor.get(0.0)) for _ in range(3)] == [0, 1, 2]
    assert stuck.snapshot()["motor"]["delivered"] == 3


def test_a_stuck_agent_costs_the_brain_one_deadline_only(pool: BufferPool) -> None:
    table = delivery_table(capacity={StreamType.MOTOR: 1}, deadline_s={StreamType.MOTOR: 0.05})
    with PNS(delivery=table) as pns, make(pool) as fbc:
        session = pns.attach_agent(CART, MOTOR)
        pns.publish_motor(None, fbc)
        waits: list[float | None] = []
        put = session.motor.put

        class Observed:
            def __getattr__(self, name: str) -> object:
                return getattr(channel, name)

            def __len__(self) -> int:
                return len(channel)

            def put(self, item: SharedFBC, timeout_s: float | None = None) -> None:
                waits.append(timeout_s)
                put(item, timeout_s)

        channel = session.motor
        session.motor = Observed()  # type: ignore[assignment]
        for _ in range(3):
            with pytest.raises(DeliveryTimeoutError):
                pns.publish_motor(None, fbc)
        assert waits == [0.05, 0.0, 0.0]
        taken = channel.get(0.0)
        assert taken is not None
        taken.release()
        pns.publish_motor(None, fbc)
        with pytest.raises(DeliveryTimeoutError):
            pns.publish_motor(None, fbc)
        assert waits == [0.05, 0.0, 0.0, 0.05]


def test_motor_waits_for_room_within_the_deadline(pool: BufferPool) -> None:
    table = delivery_table(
        capacity={StreamType.MOTOR: 1}, deadline_s={StreamType.MOTOR: PATIENCE_S}
    )
    with PNS(delivery=table) as pns, make(pool, counter=1) as one, make(pool, counter=2) as two:
        session = pns.attach_agent(CART, MOTOR)
        pns.publish_motor(None, one)
        publisher = threading.Thread(target=pns.publish_motor, args=(None, two))
        publisher.start()
        assert counter_of(session.motor.get(PATIENCE_S)) == 1
        assert counter_of(session.motor.get(PATIENCE_S)) == 2
        publisher.join(PATIENCE_S)
        assert not publisher.is_alive()


def test_visualization_conflates_and_never_waits(pns: PNS, pool: BufferPool) -> None:
    viewer = pns.attach_agent(CART, VIEW)
    blind = pns.attach_agent(WALKER, MOTOR)
    for counter in range(5):
        with make(pool, counter=counter) as fbc:
            pns.publish_visualization(fbc)
    assert viewer.snapshot()["visualization"]["dropped"] == {"conflated": 4}
    assert counter_of(viewer.visualization.get(0.0)) == 4
    assert viewer.visualization.get(0.0) is None
    assert blind.visualization.get(0.0) is None


def test_agents_come_and_go_with_their_signals(pns: PNS) -> None:
    events: list[AgentRegistered | AgentDisconnected] = []
    pns.agent_registered.connect(events.append)
    pns.agent_disconnected.connect(events.append)
    session = pns.attach_agent(CART, ALL)
    assert len(session.agent_id) == 48
    assert pns.sessions == (session,)
    assert pns.registered_agents == (AgentRegistered(session.agent_id, CART),)
    session.close("unplugged")
    session.close("again")
    assert session.closed
    assert pns.sessions == ()
    assert events == [
        AgentRegistered(session.agent_id, CART),
        AgentDisconnected(session.agent_id, "unplugged"),
    ]


def test_closing_a_session_gives_back_its_frames_and_ends_its_channels(
    pns: PNS, pool: BufferPool
) -> None:
    session = pns.attach_agent(CART, ALL)
    with make(pool) as fbc:
        pns.publish_motor(None, fbc)
        pns.publish_visualization(fbc)
        session.close()
        for call in (
            session.motor.get,
            session.visualization.get,
            lambda: session.submit_sensory(fbc),
        ):
            with pytest.raises(ClosedError):
                call()
    assert pool.counters()["leased"] == 0
    assert pns.telemetry()["totals"]["motor"]["dropped"] == {"closed": 1}


def test_the_same_id_takes_over(pns: PNS) -> None:
    gone: list[AgentDisconnected] = []
    pns.agent_disconnected.connect(gone.append)
    agent_id = bytes(range(1, 49))
    first = pns.attach_agent(CART, ALL, agent_id)
    second = pns.attach_agent(CART, ALL, agent_id)
    assert first.closed
    assert pns.sessions == (second,)
    assert len(gone) == 1
    assert "replaced" in gone[0].reason
    first.close("late")
    assert not second.closed


@pytest.mark.parametrize("agent_id", [b"", bytes(47), bytes(48), b"x" * 49])
def test_an_impossible_agent_id_is_refused(pns: PNS, agent_id: bytes) -> None:
    with pytest.raises(ConfigError, match=f"{len(agent_id)} bytes"):
        pns.attach_agent(CART, ALL, agent_id)


def test_a_burst_engine_is_heard_until_it_is_disconnected(pns: PNS, pool: BufferPool) -> None:
    brain = StubBrain()
    session = pns.attach_agent(CART, ALL)
    pns.connect_to_burst_engine(brain)
    pns.connect_to_burst_engine(brain)
    assert brain.motor_commands.listener_count == 1
    with make(pool, counter=7) as fbc:
        brain.motor_commands.emit(MotorCommand(session.agent_id, fbc))
        brain.visualization_ready.emit(VisualizationReady(fbc, 1))
        # Nobody's fault: the agent left while the brain was busy.
        brain.motor_commands.emit(MotorCommand(b"\x07" * 48, fbc))
        assert brain.motor_commands.failure_count == 0
        assert pns.telemetry()["unclaimed_motor"]["dropped"] == {"no such agent": 1}
        assert counter_of(session.motor.get(0.0)) == 7
        assert counter_of(session.visualization.get(0.0)) == 7
        pns.disconnect_from_burst_engine(brain)
        brain.motor_commands.emit(MotorCommand(None, fbc))
        assert session.motor.get(0.0) is None
    with pytest.raises(UnknownHandleError, match="StubBrain"):
        pns.disconnect_from_burst_engine(brain)


def test_a_burst_engine_learns_of_a_stuck_agent_by_its_signal(pns: PNS, pool: BufferPool) -> None:
    brain = StubBrain()
    failures: list[Exception] = []
    brain.motor_commands.on_error = lambda failure: failures.append(failure.error)
    pns.connect_to_burst_engine(brain)
    pns.attach_agent(CART, MOTOR)
    with make(pool) as fbc:
        for _ in range(4):
            brain.motor_commands.emit(MotorCommand(None, fbc))
    assert len(failures) == 1
    assert isinstance(failures[0], DeliveryTimeoutError)


def test_stop_is_idempotent_and_final(pool: BufferPool) -> None:
    pns = PNS()
    brain = StubBrain()
    gone: list[AgentDisconnected] = []
    pns.agent_disconnected.connect(gone.append)
    pns.connect_to_burst_engine(brain)
    pns.start()
    pns.start()
    session = pns.attach_agent(CART, ALL)
    pns.stop(PATIENCE_S)
    pns.stop(PATIENCE_S)
    assert session.closed
    assert [event.reason for event in gone] == ["PNS stopped"]
    assert brain.motor_commands.listener_count == 0
    for call in (
        pns.start,
        lambda: pns.attach_agent(CART, ALL),
        lambda: pns.connect_to_burst_engine(brain),
    ):
        with pytest.raises(ClosedError):
            call()


def test_two_may_stop_it_at_once() -> None:
    class StoppedMeanwhile(PNS):
        """Somebody else stops it between this stop's look at the engines and its next step."""

        def disconnect_from_burst_engine(self, engine: BrainSignals) -> None:
            super().disconnect_from_burst_engine(engine)
            super().disconnect_from_burst_engine(engine)

    pns = StoppedMeanwhile()
    brain = StubBrain()
    pns.connect_to_burst_engine(brain)
    session = pns.attach_agent(CART, ALL)
    pns.stop(PATIENCE_S)
    assert session.closed
    assert brain.motor_commands.listener_count == 0


def test_stop_is_bounded_even_if_a_listener_hangs(pool: BufferPool) -> None:
    pns = PNS()
    hangs, release = threading.Event(), threading.Event()

    def listen(_: SensoryData) -> None:
        hangs.set()
        release.wait(PATIENCE_S)

    pns.sensory_data_received.connect(listen)
    pns.start()
    session = pns.attach_agent(CART, SENSOR)
    with make(pool) as fbc:
        session.submit_sensory(fbc)
    assert hangs.wait(PATIENCE_S)
    with pytest.raises(StopTimeoutError, match="feagi-io-pns-sensory"):
        pns.stop(0.01)
    assert session.closed
    release.set()
    pns.stop(PATIENCE_S)


def test_stop_from_a_listener_does_not_wait_for_itself(pool: BufferPool) -> None:
    pns = PNS()
    done = threading.Event()

    def listen(_: SensoryData) -> None:
        pns.stop()
        done.set()

    pns.sensory_data_received.connect(listen)
    pns.start()
    session = pns.attach_agent(CART, SENSOR)
    with make(pool) as fbc:
        session.submit_sensory(fbc)
    assert done.wait(PATIENCE_S)
    pns.stop(PATIENCE_S)


def test_a_failing_listener_keeps_no_lease(pns: PNS, pool: BufferPool) -> None:
    called = threading.Event()

    def listen(_: SensoryData) -> None:
        called.set()
        raise RuntimeError("broken on purpose")

    pns.sensory_data_received.connect(listen)
    session = pns.attach_agent(CART, SENSOR)
    with make(pool) as fbc:
        session.submit_sensory(fbc)
    assert called.wait(PATIENCE_S)
    pns.stop()
    assert pool.counters()["leased"] == 0


def test_telemetry_is_plain_data_and_remembers_who_left(pns: PNS, pool: BufferPool) -> None:
    cart = pns.attach_agent(CART, ALL)
    with make(pool) as fbc:
        pns.publish_motor(None, fbc)
        size = len(fbc)
    cart.close()
    walker = pns.attach_agent(WALKER, ALL)
    with make(pool) as fbc:
        pns.publish_motor(None, fbc)
    report = json.loads(json.dumps(pns.telemetry()))
    assert [agent["agent_name"] for agent in report["agents"]] == ["walker"]
    assert report["agents"][0]["agent_id"] == walker.agent_id.hex()
    assert report["agents"][0]["motor"]["queued"] == 1
    assert report["totals"]["motor"]["sent"] == 2
    assert report["totals"]["motor"]["bytes"] == 2 * size
    assert report["uptime_s"] >= 0.0
    assert set(report["sensory_queue_latency"]) >= {"count", "p50_ms", "p99_ms", "p99_9_ms"}
