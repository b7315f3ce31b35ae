# SPDX-License-Identifier: Apache-2.0
"""FeagiAgent and AsyncFeagiAgent at our own server: coming, going, coming back, streams."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import pytest
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.client_actions import AgentState, StateChanged
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    ConfigurationRefusedError,
    DeliveryTimeoutError,
    FeagiDataError,
    LocalError,
    RegistrationRefusedError,
)
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.messages import AgentConfiguration, HealthReport
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.units import DeclaredUnit, agent_configuration
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_io_host.testing import FakeClock, StandInHost
from feagi_io_host.transports.zmq.common import COPY_LIMIT_BYTES
from tests.feagi_io_host.agent.conftest import MakeAgent, Serve
from tests.feagi_io_host.agent.faces import AgentFace
from tests.feagi_io_host.agent.server import DEADLINE_S, MOVE, SENSE
from tests.feagi_io_host.transports.zmq.peer import CONFIGURATION

S = AgentState
EYE = CorticalID.try_from_bytes(b"iinf\x01\x00\x00\x00")
DETAILS = CONFIGURATION.details


def voxels(count: int = 1) -> CorticalMappedXYZPNeuronVoxels:
    """So many voxels of one area."""
    column = np.arange(count, dtype=np.uint32)
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(
        column, column, column, np.ones(count, dtype=np.float32)
    )
    return CorticalMappedXYZPNeuronVoxels({EYE: arrays})


def frame(counter: int) -> SharedFBC:
    """An empty container with this number."""
    container = FeagiByteContainer()
    container.overwrite_byte_data_with_multiple_struct_data([], counter)
    return SharedFBC.adopt(container)


def number(received: FeagiByteContainer | None) -> int:
    """The number of a received container."""
    assert received is not None
    return received.get_increment_counter()


class States:
    """The changes of an agent's state, as they come."""

    def __init__(self, agent: AgentFace) -> None:
        self._changes: SimpleQueue[StateChanged] = SimpleQueue()
        agent.on_state_change(self._changes.put)

    def until(self, state: AgentState) -> StateChanged:
        """The next change to that state."""
        while (change := self._changes.get(timeout=DEADLINE_S)).after is not state:
            pass
        return change


# -- coming and going -------------------------------------------------------------------------


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


def test_it_comes_configures_moves_and_leaves(serve_any: Serve, make_agent: MakeAgent) -> None:
    host = StandInHost()
    configured: list[AgentConfiguration] = []
    transport = serve_any(
        host, on_configured=lambda _, configuration: configured.append(configuration) or True
    )
    agent = make_agent(transport.control_url)
    states = States(agent)
    assert (agent.state, agent.agent_id) == (S.INACTIVE, bytes(48))
    agent.connect(DEADLINE_S)
    assert agent.state is S.ACTIVE_WAITING
    assert [session.agent_id for session in host.sessions] == [agent.agent_id]
    agent.connect(DEADLINE_S)  # in already: nothing
    agent.configure(DETAILS)
    assert configured == [CONFIGURATION]

    agent.send_sensory(voxels())
    sensed = host.take_sensory(agent.agent_id)
    assert sensed is not None
    received = FeagiByteContainer()
    received.try_write_data_by_copy_and_verify(sensed)
    assert received.try_create_new_struct_from_index(0) == voxels()

    assert transport.wait_until_subscribed(agent.agent_id, DEADLINE_S)
    with frame(7) as fbc:
        transport.publish_motor(agent.agent_id, fbc)
        states.until(S.ACTIVE_HAS_DATA)
        assert agent.state is S.ACTIVE_HAS_DATA
        assert number(agent.receive_motor(0)) == 7
        states.until(S.ACTIVE_WAITING)
        transport.publish_visualization(fbc)
        assert number(agent.receive_visualization(DEADLINE_S)) == 7
    assert agent.receive_motor(0) is None
    assert agent.receive_visualization(0.01) is None

    agent.close()
    assert agent.state is S.INACTIVE
    assert host.left == [(host.came[0], "left: 'closed'")]
    rows = agent.counters()
    assert (rows["registrations"], rows["state"]) == (1, "inactive")
    assert rows["sensory"] == {
        "sent": 1, "delivered": 1, "bytes": len(sensed), "dropped": {}, "queued": 0
    }  # fmt: skip
    assert (rows["motor"]["sent"], rows["motor"]["delivered"]) == (1, 1)


def test_closed_is_closed(serve_any: Serve, make_agent: MakeAgent) -> None:
    agent = make_agent(serve_any().control_url)
    agent.connect(DEADLINE_S)
    agent.close()
    agent.close()
    for call in (
        agent.connect,
        lambda: agent.configure(DETAILS),
        lambda: agent.send_sensory(voxels()),
        agent.receive_motor,
        agent.receive_visualization,
        agent.health,
    ):
        with pytest.raises(ClosedError, match="rover is closed"):
            call()
    never = make_agent(serve_any().control_url)
    never.close()
    with pytest.raises(ClosedError):
        never.connect()


def test_before_it_is_connected_it_says_so(serve_any: Serve, make_agent: MakeAgent) -> None:
    agent = make_agent(serve_any().control_url)
    for call in (
        lambda: agent.configure(DETAILS),
        lambda: agent.send_sensory(voxels()),
        agent.health,
    ):
        with pytest.raises(LocalError, match="connect it before"):
            call()
    assert agent.receive_motor(0) is None


def test_close_wakes_who_waits(serve_any: Serve, make_agent: MakeAgent) -> None:
    agent = make_agent(serve_any().control_url)
    agent.connect(DEADLINE_S)
    outcomes: SimpleQueue[Exception | None] = SimpleQueue()

    def wait(receive: Callable[[], object]) -> None:
        try:
            receive()
        except Exception as error:
            outcomes.put(error)
        else:
            outcomes.put(None)

    waiting = [
        threading.Thread(target=wait, args=(receive,))
        for receive in (agent.receive_motor, agent.receive_visualization)
    ]
    for thread in waiting:
        thread.start()
    agent.close()
    for thread in waiting:
        assert isinstance(outcomes.get(timeout=DEADLINE_S), ClosedError)
        thread.join()


def test_close_ends_a_connect_under_way(make_agent: MakeAgent) -> None:
    agent = make_agent("tcp://127.0.0.1:1")
    states = States(agent)
    outcome: list[Exception] = []

    def connect() -> None:
        try:
            agent.connect(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    states.until(S.PENDING)
    agent.close()
    thread.join(DEADLINE_S)
    assert [isinstance(error, ClosedError) for error in outcome] == [True]


def test_two_agents_in_one_process(serve_any: Serve, make_agent: MakeAgent) -> None:
    host = StandInHost()
    transport = serve_any(host)
    agents = [make_agent(transport.control_url, name) for name in ("rover", "scout")]
    for agent in agents:
        agent.connect(DEADLINE_S)
        assert transport.wait_until_subscribed(agent.agent_id, DEADLINE_S)
    for counter, agent in enumerate(agents):
        with frame(counter) as fbc:
            transport.publish_motor(agent.agent_id, fbc)
    assert [number(agent.receive_motor(DEADLINE_S)) for agent in agents] == [0, 1]
    agents[0].close()
    with frame(9) as fbc:
        transport.publish_motor(agents[1].agent_id, fbc)
    assert number(agents[1].receive_motor(DEADLINE_S)) == 9


# -- refusals ---------------------------------------------------------------------------------


def test_a_wrong_token_is_told_and_a_right_one_gets_in(
    serve_any: Serve, make_agent: MakeAgent
) -> None:
    token = bytes(range(32))
    transport = serve_any(token=token)
    agent = make_agent(transport.control_url)
    states = States(agent)
    with pytest.raises(RegistrationRefusedError, match="token") as refused:
        agent.connect(DEADLINE_S)
    assert refused.value.reason == "failed_invalid_auth"
    assert states.until(S.ERRORED).before is S.PENDING
    assert agent.state is S.ERRORED
    for call in (agent.receive_motor, lambda: agent.send_sensory(voxels()), agent.connect):
        with pytest.raises(RegistrationRefusedError):
            call()
    entitled = make_agent(transport.control_url, token=token)
    entitled.connect(DEADLINE_S)
    assert "1, 2, 3" not in repr(entitled)


def test_no_room_is_refused_with_its_reason(serve: Serve, make_agent: MakeAgent) -> None:
    agent = make_agent(serve(max_agents=1, data_ports=[1]).control_url)
    with pytest.raises(RegistrationRefusedError, match="6 times") as refused:
        agent.connect(DEADLINE_S)
    assert refused.value.reason == "failed_invalid_request"


def test_nobody_there_is_one_clear_error_and_a_late_server_reads_one_request(
    serve_any: Serve, make_agent: MakeAgent
) -> None:
    gone = serve_any()
    port = port_of(gone.control_url)
    gone.stop()
    agent = make_agent(gone.control_url)
    with pytest.raises(
        DeliveryTimeoutError, match=rf"127\.0\.0\.1:{port}/?: not registered within"
    ):
        agent.connect(0.3)
    assert agent.state is S.ERRORED
    with pytest.raises(DeliveryTimeoutError):
        agent.receive_motor()
    back = serve_any(port=port)
    agent.connect(DEADLINE_S)  # after a failure it may be called again
    assert back.counters()["registered"] == 1
    assert agent.receive_motor(0) is None


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:30001", "tcp://", "tcp://host", "tcp://host:0", "tcp://host:70000",
            "ipc://somewhere", "udp://host:1", "ws://", "ws://host:0", "ws://a b", "ws://host/?x",
            "wss://@h", "tcp://a b:1", "tcp://host:1/x"],
)  # fmt: skip
def test_addresses_that_cannot_be_are_refused_at_once(make_agent: MakeAgent, url: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        make_agent(url)


def test_declared_units_become_the_configuration(serve_any: Serve, make_agent: MakeAgent) -> None:
    told: list[AgentConfiguration] = []
    transport = serve_any(on_configured=lambda _, configuration: told.append(configuration) or True)
    agent = make_agent(transport.control_url)
    agent.connect(DEADLINE_S)
    units = [DeclaredUnit("Infrared", channels=2), DeclaredUnit("RotaryMotor")]
    agent.configure(units)
    assert told == [AgentConfiguration(agent_configuration(units))]
    with pytest.raises(ConfigError, match="one area"):
        agent.configure([units[0], units[0]])


def test_refused_units_are_told_and_others_may_follow(
    serve_any: Serve, make_agent: MakeAgent
) -> None:
    answers = iter([False, True])
    agent = make_agent(serve_any(on_configured=lambda *_: next(answers)).control_url)
    agent.connect(DEADLINE_S)
    with pytest.raises(ConfigurationRefusedError, match="names of units"):
        agent.configure(DETAILS)
    agent.configure(DETAILS)
    with pytest.raises(FeagiDataError, match="feedbacks"):
        agent.configure({})
    assert agent.state is S.ACTIVE_WAITING


def test_what_was_not_asked_for_is_not_to_be_had(serve_any: Serve, make_agent: MakeAgent) -> None:
    url = serve_any().control_url
    mover = make_agent(url, "mover", MOVE)
    sensor = make_agent(url, "sensor", SENSE)
    for agent in (mover, sensor):
        agent.connect(DEADLINE_S)
    with pytest.raises(LocalError, match="SEND_SENSOR_DATA"):
        mover.send_sensory(voxels())
    with pytest.raises(LocalError, match="motor frames"):
        sensor.receive_motor(0)
    with pytest.raises(LocalError, match="visualization frames"):
        mover.receive_visualization(0)


# -- coming back ------------------------------------------------------------------------------


def test_it_comes_back_to_a_server_that_was_restarted(
    serve_any: Serve, make_agent: MakeAgent
) -> None:
    first = serve_any()
    agent = make_agent(first.control_url)
    agent.connect(DEADLINE_S)
    agent.configure(DETAILS)
    states = States(agent)
    first.stop()
    states.until(S.PENDING)
    agent.send_sensory(voxels())  # nobody is there: dropped and counted, nothing raised

    host = StandInHost()
    configured: SimpleQueue[AgentConfiguration] = SimpleQueue()
    second = serve_any(
        host,
        port=port_of(first.control_url),
        on_configured=lambda _, configuration: configured.put(configuration) or True,
    )
    assert states.until(S.ACTIVE_WAITING).reason == "registered"
    assert configured.get(timeout=DEADLINE_S) == CONFIGURATION
    assert second.wait_until_subscribed(agent.agent_id, DEADLINE_S)
    with frame(3) as fbc:
        second.publish_motor(agent.agent_id, fbc)
    assert number(agent.receive_motor(DEADLINE_S)) == 3
    agent.send_sensory(voxels(2))
    assert host.take_sensory(agent.agent_id) is not None
    rows = agent.counters()
    assert rows["registrations"] == 2
    assert rows["sensory"]["dropped"] == {"not registered": 1}


def test_it_comes_back_when_the_host_has_enough_of_it(
    serve_any: Serve, make_agent: MakeAgent
) -> None:
    host = StandInHost()
    agent = make_agent(serve_any(host).control_url)
    agent.connect(DEADLINE_S)
    states = States(agent)
    (session,) = host.sessions
    session.close("the brain has enough of it")
    # Over ZMQ the server answers its heartbeats no more; that is all it is told.
    told = "2 heartbeats without an answer|detached|HTTP 404"
    assert re.search(told, states.until(S.PENDING).reason)
    states.until(S.ACTIVE_WAITING)
    assert host.came[0] != host.came[1] == agent.agent_id


def test_heartbeats_keep_it_in(serve_any: Serve, make_agent: MakeAgent) -> None:
    clock, host = FakeClock(), StandInHost()
    transport = serve_any(host, clock=clock, silence_timeout_s=30.0)
    agent = make_agent(transport.control_url)
    agent.connect(DEADLINE_S)
    for _ in range(3):
        clock.advance(20.0)
        deadline_s = time.monotonic() + DEADLINE_S
        while transport.registry.silent_for_s(agent.agent_id, clock.now_s) > 0.0:
            assert time.monotonic() < deadline_s, "no heartbeat came"
            assert agent.receive_motor(0.01) is None  # nothing else happens
    assert host.left == []
    assert agent.counters()["registrations"] == 1


# -- streams ----------------------------------------------------------------------------------


def test_of_motor_and_visualization_the_newest_is_kept(
    serve_any: Serve, make_agent: MakeAgent
) -> None:
    transport = serve_any()
    agent = make_agent(transport.control_url)
    agent.connect(DEADLINE_S)
    assert transport.wait_until_subscribed(agent.agent_id, DEADLINE_S)
    for counter in range(50):
        with frame(counter) as fbc:
            transport.publish_motor(agent.agent_id, fbc)
    last, seen = -1, 0
    while last < 49:
        now = number(agent.receive_motor(DEADLINE_S))
        assert now > last
        last, seen = now, seen + 1
    row = agent.counters()["motor"]
    assert (row["sent"], row["delivered"], row["queued"]) == (50, seen, 0)
    assert sum(row["dropped"].values()) == 50 - seen
    assert set(row["dropped"]) <= {"conflated"}


def test_every_kind_of_frame_can_be_sent(serve_any: Serve, make_agent: MakeAgent) -> None:
    host = StandInHost()
    agent = make_agent(serve_any(host).control_url)
    agent.connect(DEADLINE_S)
    container = FeagiByteContainer()
    container.overwrite_byte_data_with_single_struct_data(voxels(3), 5)
    expected = container.copy_out_as_byte_vector()
    agent.send_sensory(container)
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON("another one"), 6)
    assert host.take_sensory(agent.agent_id) == expected
    pool = agent.pool
    leased = pool.acquire()
    for view in leased.reserve_xyzp([(EYE, 2)], 1)[EYE]:
        view[:] = 1
    with pool.share(leased) as fbc:
        agent.send_sensory(fbc)
        assert host.take_sensory(agent.agent_id) == bytes(fbc.view)
        assert fbc.lease_count >= 1
    with pytest.raises(LocalError, match="bytes is no sensory frame"):
        agent.send_sensory(b"raw")
    refused = FeagiByteContainer()
    with pytest.raises(FeagiDataError):
        refused.try_write_data_by_copy_and_verify(b"nonsense")
    with pytest.raises(FeagiDataError):
        agent.send_sensory(refused)
    agent.close()
    assert pool.counters()["leased"] == 0


def test_frames_above_the_limit_are_refused_here(serve_any: Serve, make_agent: MakeAgent) -> None:
    agent = make_agent(serve_any().control_url, max_frame_bytes=100)
    agent.connect(DEADLINE_S)
    agent.send_sensory(voxels(1))
    with pytest.raises(LocalError, match="108 bytes; at most 100"):
        agent.send_sensory(voxels(2))
    assert agent.pool.counters()["leased"] <= 1


@pytest.mark.parametrize("neurons", [10, COPY_LIMIT_BYTES // 16 + 1])
def test_sending_takes_no_new_memory_after_a_while(
    serve_any: Serve, make_agent: MakeAgent, neurons: int
) -> None:
    host = StandInHost()
    agent = make_agent(serve_any(host).control_url)
    agent.connect(DEADLINE_S)
    state = voxels(neurons)
    try:
        for _ in range(40):
            agent.send_sensory(state)
            assert host.take_sensory(agent.agent_id) is not None
            # How many frames are under way at once is up to the system's threads; here it is one.
            deadline_s = time.monotonic() + DEADLINE_S
            while agent.pool.counters()["leased"]:
                assert time.monotonic() < deadline_s, agent.pool.counters()
                agent.receive_motor(0.001)
        # The library may look at the memory a moment longer than it says.
        assert agent.pool.counters()["created"] <= 4, agent.pool.counters()
    finally:
        agent.close()
        collector.stop()  # the thread by which pyzmq gives large messages back; one per process
    assert agent.pool.counters()["leased"] == 0


def test_questions_are_answered(serve_any: Serve, make_agent: MakeAgent) -> None:
    class Brain:
        timestep = 0.02

        def health(self) -> HealthReport:
            return HealthReport(True, True, True, neuron_count=12)

        def timestep_s(self) -> float:
            return self.timestep

        def change_timestep(self, agent_id: bytes, timestep_s: float) -> bool:
            self.timestep = timestep_s
            return True

    agent = make_agent(serve_any(brain=Brain()).control_url)
    agent.connect(DEADLINE_S)
    assert agent.health().neuron_count == 12
    assert agent.timestep() == 0.02
    assert agent.change_timestep(0.05)
    assert agent.timestep() == 0.05
