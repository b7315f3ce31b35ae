# SPDX-License-Identifier: Apache-2.0
"""FeagiAgent and AsyncFeagiAgent at the real engine: the whole loop, and what they get over.

The engine forgets its agents when it is restarted and when it loads a genome, and says nothing.
The agents have to find out, register and configure again, and go on.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import AgentState, ClientTiming
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ConfigurationRefusedError, DeliveryTimeoutError
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_io_host.nonblocking.runtime import Runtime
from tests.feagi_io_host.agent.faces import face
from tests.interop.raw_agent import INFRARED, ROTARY_MOTOR, infrared_and_rotary_motor
from tools.engine import Engine

DETAILS = infrared_and_rotary_motor()["agent_configuration"]["AgentConfigurationDetails"]
EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
VOXEL = (0, 0, 3)
PATIENCE_S = 30.0
# The longest that it may take: the heartbeat notices within 4 s, the engine holds on to a session
# of the same agent for 2 s, and waits between attempts grow to 5 s. A genome that is loaded while
# units are being told takes longer to be noticed: no heartbeat is sent then, and their answer and
# that of a heartbeat are awaited, 3 s each.
LONGEST_GAP_S = 12.0
HEARTBEAT = HeartbeatTiming()

Agent = Any


@pytest.fixture(params=["blocking", "nonblocking"])
def make_agent(request: pytest.FixtureRequest) -> Iterator[Callable[..., Agent]]:
    made: list[Agent] = []
    runtime = Runtime() if request.param == "nonblocking" else None
    kind: Any = FeagiAgent if runtime is None else AsyncFeagiAgent

    def make(engine: Engine, name: str = "rover", **settings: Any) -> Agent:
        descriptor = AgentDescriptor("feagi-io", name, 1)
        agent = kind(descriptor, EVERYTHING, engine.registration_url, **settings)
        made.append(face(agent, runtime))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
    if runtime is not None:
        runtime.close()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Keep a figure with the test's report, and show it with `-s` or `-rP`."""

    def keep(name: str, seconds: float) -> None:
        request.node.user_properties.append((name, round(seconds, 3)))
        print(f"{name} = {seconds:.3f}")

    return keep


def stimulus() -> CorticalMappedXYZPNeuronVoxels:
    """One voxel of the infrared sensor, strong enough to fire."""
    x, y, z = (np.array([at], dtype=np.uint32) for at in VOXEL)
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(x, y, z, np.ones(1, dtype=np.float32))
    return CorticalMappedXYZPNeuronVoxels({INFRARED: arrays})


def areas(frame: FeagiByteContainer | None) -> CorticalMappedXYZPNeuronVoxels:
    """What fired, in a frame."""
    assert frame is not None, "no frame in time"
    struct = frame.try_create_new_struct_from_index(0)
    assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
    return struct


def wire_up(engine: Engine) -> None:
    """What a brain needs that an agent cannot give it: a way from the sensor to the motor."""
    engine.wait_for_areas(INFRARED, ROTARY_MOTOR, timeout_s=PATIENCE_S)
    assert engine.map_areas(INFRARED, ROTARY_MOTOR) > 0


def sense_until_it_moves(agent: Agent) -> float:
    """Send the stimulus until the motor area fires; returns how long that took, in seconds."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < PATIENCE_S:
        agent.send_sensory(stimulus())
        frame = agent.receive_motor(0.05)
        if frame is not None and ROTARY_MOTOR in areas(frame):
            return time.monotonic() - began_s
    pytest.fail(f"the motor did not move; the agent is {agent.state}, {agent.counters()}")


def wait_until_back(agent: Agent, registrations: int) -> float:
    """Wait until the agent was let in so often; returns how long that took, in seconds."""
    began_s = time.monotonic()
    while agent.counters()["registrations"] < registrations:
        assert time.monotonic() - began_s < PATIENCE_S, f"{agent.state}, {agent.counters()}"
        agent.send_sensory(stimulus())  # a body goes on sensing, whatever the brain does
        agent.receive_motor(0.02)
    return time.monotonic() - began_s


def test_from_the_sensor_to_the_motor(engine: Engine, make_agent: Callable[..., Agent]) -> None:
    engine.load_genome("barebones")
    agent = make_agent(engine)
    agent.connect(PATIENCE_S)
    assert engine.rest("GET", "/v1/agent/list") == [b64encode(agent.agent_id).decode()]
    agent.configure(DETAILS)
    wire_up(engine)
    sense_until_it_moves(agent)
    for _ in range(200):
        agent.send_sensory(stimulus())
        seen = areas(agent.receive_visualization(PATIENCE_S))
        if INFRARED in seen:
            break
    x, y, z, p = seen[INFRARED].borrow_xyzp_vectors()
    assert (x.tolist(), y.tolist(), z.tolist()) == ([0], [0], [3])
    assert p[0] >= 1.0
    rows = agent.counters()
    assert rows["registrations"] == 1
    assert not {"damaged"} & {*rows["motor"]["dropped"], *rows["visualization"]["dropped"]}
    agent.close()
    assert engine.rest("GET", "/v1/agent/list") == []


def test_two_agents_and_what_the_engine_does_not_answer(
    engine: Engine, make_agent: Callable[..., Agent]
) -> None:
    engine.load_genome("barebones")
    agents = [make_agent(engine, name) for name in ("rover", "scout")]
    for agent in agents:
        agent.connect(PATIENCE_S)
    assert len(engine.rest("GET", "/v1/agent/list")) == 2
    with pytest.raises(DeliveryTimeoutError, match="HealthCheckRequest not answered"):
        agents[0].health(0.5)
    # Both are in all the same. Motor frames would not come: no motor is configured.
    assert all(agent.receive_visualization(PATIENCE_S) is not None for agent in agents)


def test_units_that_do_not_exist_are_refused(
    engine: Engine, make_agent: Callable[..., Agent]
) -> None:
    engine.load_genome("barebones")
    timing = ClientTiming(configuration_timeout_s=1.0, settle_s=0.3)
    agent = make_agent(engine, timing=timing)
    agent.connect(PATIENCE_S)
    inputs = "input_units_and_encoder_properties"
    (sensor,) = DETAILS[inputs].values()
    with pytest.raises(ConfigurationRefusedError, match="names of units"):
        agent.configure({**DETAILS, inputs: {"NoSuchUnit": sensor}})
    agent.configure(DETAILS)
    engine.wait_for_areas(INFRARED, ROTARY_MOTOR)
    assert agent.counters()["registrations"] == 1


@pytest.mark.parametrize("genome_first", [True, False])
def test_service_goes_on_after_the_engine_was_killed(
    engine: Engine,
    make_agent: Callable[..., Agent],
    genome_first: bool,
    note: Callable[[str, float], None],
) -> None:
    engine.load_genome("barebones")
    agent = make_agent(engine, heartbeat=HEARTBEAT)
    agent.connect(PATIENCE_S)
    agent.configure(DETAILS)
    wire_up(engine)
    sense_until_it_moves(agent)

    engine.kill()
    killed_s = time.monotonic()
    while agent.state not in (AgentState.PENDING, AgentState.ERRORED):
        assert time.monotonic() - killed_s < PATIENCE_S
        agent.send_sensory(stimulus())
        agent.receive_motor(0.01)
    note("noticed_s", time.monotonic() - killed_s)
    engine.start()
    # The genome is the engine's own affair; loading it makes the engine forget the agents once
    # more, should they have been quicker.
    if not genome_first:
        wait_until_back(agent, 2)
    engine.load_genome("barebones")
    ready_s = time.monotonic()
    engine.wait_for_areas(INFRARED, ROTARY_MOTOR, timeout_s=PATIENCE_S)
    wire_up(engine)
    sense_until_it_moves(agent)
    gap_s = time.monotonic() - ready_s
    note("gap_s", gap_s)
    assert gap_s < LONGEST_GAP_S
    assert agent.counters()["registrations"] >= 2


def test_service_goes_on_after_a_genome_was_loaded(
    engine: Engine,
    make_agent: Callable[..., Agent],
    note: Callable[[str, float], None],
) -> None:
    engine.load_genome("barebones")
    agent = make_agent(engine, heartbeat=HEARTBEAT)
    agent.connect(PATIENCE_S)
    agent.configure(DETAILS)
    wire_up(engine)
    sense_until_it_moves(agent)

    engine.load_genome("essential")
    assert engine.rest("GET", "/v1/agent/list") == []
    gap_s = wait_until_back(agent, 2)
    began_s = time.monotonic()
    wire_up(engine)
    sense_until_it_moves(agent)
    note("registered_again_s", gap_s)
    note("gap_s", gap_s + time.monotonic() - began_s)
    assert gap_s < LONGEST_GAP_S
    assert len(engine.rest("GET", "/v1/agent/list")) == 1
