# SPDX-License-Identifier: Apache-2.0
"""The real engine starts, takes an agent and closes the loop from a sensor to a motor.

Our codec is the only part of ours on the agent's side; see raw_agent.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from feagi_io_host.core.types import CorticalID
from tests.interop.raw_agent import (
    CAPABILITIES,
    INFRARED,
    ROTARY_MOTOR,
    RawAgent,
    Voxels,
    deregistration,
    infrared_and_rotary_motor,
    registration,
)
from tools.engine import (
    Engine,
    EngineFailedError,
    EngineRestError,
    EngineUnavailableError,
    Installation,
    NetworkNamespace,
    free_ports,
)

ROOT = Path(__file__).resolve().parents[2]
VOXEL = (0, 0, 3)
SECOND = (1, 0, 5)


@pytest.fixture
def agent(engine: Engine) -> Iterator[RawAgent]:
    engine.load_genome("barebones")
    with RawAgent(engine.registration_url) as raw:
        yield raw


def test_answers_a_health_check(engine: Engine) -> None:
    assert engine.health()["genome_state"] == "missing"
    engine.load_genome("essential")
    health = engine.health()
    assert (health["genome_state"], health["brain_readiness"]) == ("loaded", True)
    assert health["cortical_area_count"] > 7


def test_registers_answers_heartbeats_and_deregisters(agent: RawAgent, engine: Engine) -> None:
    urls = agent.register()
    assert agent.agent_id != bytes(48)
    assert urls["send_sensor_data"] == f"tcp://{engine.host}:{engine.ports.sensory}"
    assert len(set(urls.values())) == len(CAPABILITIES)
    assert engine.rest("GET", "/v1/agent/list") == [b64encode(agent.agent_id).decode()]
    assert agent.ask("heart_beat") == "heart_beat"
    answer = agent.ask(deregistration())
    assert answer == {"agent_registration": {"server_responds_deregistration": "success"}}
    assert engine.rest("GET", "/v1/agent/list") == []


def test_configuration_makes_the_areas(agent: RawAgent, engine: Engine) -> None:
    agent.register()
    with pytest.raises(EngineFailedError, match="no area"):
        engine.wait_for_areas(INFRARED, timeout_s=0)
    # acknowledged with a heartbeat, not with a type of its own
    assert agent.ask(infrared_and_rotary_motor()) == "heart_beat"
    engine.wait_for_areas(INFRARED, ROTARY_MOTOR)
    # Both have two channels of 8 steps: the sensor gets room for one, the motor a step more.
    assert engine.area_dimensions(INFRARED) == (1, 1, 8)
    assert engine.area_dimensions(ROTARY_MOTOR) == (2, 1, 9)


def test_from_the_sensor_to_the_motor(agent: RawAgent, engine: Engine) -> None:
    agent.register()
    agent.ask(infrared_and_rotary_motor())
    engine.wait_for_areas(INFRARED, ROTARY_MOTOR)
    # One sensory frame for each motor frame, so in step with the engine's bursts.
    unmapped = []
    for motor in islice(agent.frames(agent.motor), 8):
        agent.sense((*VOXEL, 1.0))
        unmapped.append(ROTARY_MOTOR in motor)
    assert unmapped == [False] * 8
    seen = next(fired for fired in agent.frames(agent.visualization) if INFRARED in fired)
    assert [voxel[:3] for voxel in seen[INFRARED]] == [VOXEL]
    assert all(voxel[3] >= 1.0 for voxel in seen[INFRARED])

    assert engine.map_areas(INFRARED, ROTARY_MOTOR) > 0
    for motor in agent.frames(agent.motor):
        agent.sense((*VOXEL, 1.0))
        if ROTARY_MOTOR in motor:
            break
    else:
        pytest.fail("the motor area never fired")
    assert motor.keys() == {ROTARY_MOTOR}
    assert motor[ROTARY_MOTOR]
    for x, y, z, p in motor[ROTARY_MOTOR]:
        # the projector keeps the place in proportion: 3 of 8 deep to the middle of the motor
        assert (x in (0, 1), y, z) == (True, 0, 4)
        assert p > 0


def test_a_second_channel_is_felt_once_there_is_room(agent: RawAgent, engine: Engine) -> None:
    agent.register()
    agent.ask(infrared_and_rotary_motor())
    engine.wait_for_areas(INFRARED)
    first = next(fired for fired in _while_sensing(agent) if INFRARED in fired)
    assert [voxel[:3] for voxel in first[INFRARED]] == [VOXEL]
    engine.set_channels(INFRARED, 2)
    assert engine.area_dimensions(INFRARED) == (2, 1, 8)
    # frames from before the change may still be on their way
    assert any(
        {voxel[:3] for voxel in fired.get(INFRARED, [])} == {VOXEL, SECOND}
        for fired in _while_sensing(agent)
    )


def _while_sensing(agent: RawAgent) -> Iterator[dict[CorticalID, Voxels]]:
    """Visualization frames, with both channels sent again at each."""
    agent.sense((*VOXEL, 1.0), (*SECOND, 1.0))
    for fired in agent.frames(agent.visualization):
        yield fired
        agent.sense((*VOXEL, 1.0), (*SECOND, 1.0))


def test_loading_a_genome_forgets_the_agents_without_a_word(
    agent: RawAgent, engine: Engine
) -> None:
    agent.register()
    engine.load_genome("barebones")
    assert engine.rest("GET", "/v1/agent/list") == []
    # Answers come in order: that of the second message would stand behind the heartbeat's.
    agent.tell("heart_beat")
    assert "agent_registration" in agent.ask(registration())


def test_restart_keeps_the_address_and_forgets_the_rest(engine: Engine) -> None:
    session = engine.health()["feagi_session"]
    first = engine.pid
    for again in (engine.restart, lambda: (engine.kill(), engine.start())):
        again()
        health = engine.health()
        assert engine.pid != first
        assert health["feagi_session"] != session
        assert health["genome_state"] == "missing"
        with RawAgent(engine.registration_url) as raw:
            raw.register()


def test_refusals_are_told_with_their_status(engine: Engine) -> None:
    with pytest.raises(EngineRestError, match="HTTP 404") as told:
        engine.load_genome("no_such_genome")
    assert told.value.status == 404


def test_many_run_side_by_side(engine: Engine, engine_installation: Installation) -> None:
    with Engine(engine_installation) as other:
        assert other.host != engine.host
        with RawAgent(engine.registration_url) as one, RawAgent(other.registration_url) as two:
            engine.load_genome()
            other.load_genome()
            urls = [raw.register()["receive_neuron_visualizations"] for raw in (one, two)]
    # A hard-coded port, the same in both: on one address the second would be refused.
    assert len({url.rpartition(":")[2] for url in urls}) == 1
    assert len(set(urls)) == 2


def test_a_taken_port_is_named(engine: Engine, engine_installation: Installation) -> None:
    twin = Engine(engine_installation, host=engine.host, ports=engine.ports)
    with pytest.raises(EngineFailedError, match=rf"port {engine.ports.rest} \(rest\)"), twin:
        pass
    assert not twin.running


def test_in_a_network_of_its_own(engine_installation: Installation) -> None:
    try:
        network = NetworkNamespace()
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    try:
        # Ports that nobody has outside either, so that only the wall can be in the way.
        ports = free_ports("127.0.0.1")
        with Engine(engine_installation, namespace=network, ports=ports) as engine:
            engine.load_genome("barebones")
            with engine.inside(), RawAgent(engine.registration_url) as raw:
                raw.register()
                assert raw.ask("heart_beat") == "heart_beat"
            engine.restart()
            assert engine.health()["burst_engine"]
            with engine.inside():
                assert _reachable(engine)
            assert not _reachable(engine)
    finally:
        network.close()


def _reachable(engine: Engine) -> bool:
    host, port = engine.host, engine.ports.registration
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_nothing_is_left_when_its_owner_is_killed(engine_installation: Installation) -> None:
    program = (
        "import sys; from tools.engine import *\n"
        "engine = Engine(find_or_install()); engine.start()\n"
        "print(engine.pid, engine.folder, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        engine = os.pidfd_open(int(pid))
        try:
            owner.send_signal(signal.SIGKILL)
            assert select.select([engine], [], [], 5)[0], "the engine outlived its owner"
        finally:
            os.close(engine)
    assert not Path(folder).exists()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_for_people(engine_installation: Installation, ending: signal.Signals) -> None:
    command = [sys.executable, "-m", "tools.engine", "--own-address", "--genome", "essential"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tool:
        assert tool.stdout is not None
        shown = []
        for line in tool.stdout:
            shown.append(line)
            if "Ctrl-C" in line:
                break
        tool.send_signal(ending)
        rest, _ = tool.communicate(timeout=10)
    assert (tool.returncode, rest.strip()) == (0, "ended")
    match = re.match(r"FEAGI engine \S+, process (\d+), genome essential\n", shown[0])
    assert match, shown
    assert not Path("/proc", match[1]).exists()
    assert [line.split()[:1] for line in shown[1:4]] == [["REST"], ["registration"], ["log"]]
    assert re.search(r"REST +http://127\.\d+\.\d+\.\d+:\d+", shown[1])
