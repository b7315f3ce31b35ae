# SPDX-License-Identifier: Apache-2.0
"""`feagi-io serve` without its process: the brain moves agents and answers them; wrong settings."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from feagi_io_host.cli.app import app
from feagi_io_host.cli.serve import MAX_ALL_WEIGHTS, BrainServer, BuiltInBrain, status_line
from feagi_io_host.cli.viewing import ViewOptions
from feagi_io_host.cli.wires import parse_wire
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ConfigError, PortBusyError
from feagi_io_host.core.messages import (
    AgentConfiguration,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    TimestepChange,
    TimestepChangeAnswer,
    TimestepReport,
    TimestepRequest,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.core.units import DeclaredUnit, agent_configuration
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ZmqPeer
from tests.feagi_io_host.viewer.live import Place, looking

ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
ANYWHERE = {f"zmq.{name}": "tcp://127.0.0.1:0" for name in ("rest", "motor", "viz", "sensory")}
INFRARED = CorticalID.try_from_bytes(b"iinf\x01\x00\x00\x00")
MOTOR = CorticalID.try_from_bytes(b"omot\x05\x00\x00\x00")
UNITS = [
    DeclaredUnit("iinf", channels=2, resolution=8),
    DeclaredUnit("omot", channels=2, resolution=8),
]


@dataclass
class Running:
    """A server in a thread, and what it says."""

    server: BrainServer
    url: str = ""
    said: list[dict[str, Any]] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)


@contextmanager
def served(
    *wires: str, view: ViewOptions | None = None, control: bool = False, **config: object
) -> Iterator[Running]:
    events: SimpleQueue[dict[str, Any]] = SimpleQueue()
    said: list[dict[str, Any]] = []

    def say(line: str, data: dict[str, Any]) -> None:
        assert line
        said.append(data)
        if data["event"] == "started":
            events.put(data)

    settings = PNSConfig.from_sources(arguments={**ANYWHERE, **config})
    reflexes = [parse_wire(wire) for wire in wires]
    server = BrainServer(
        settings,
        rate_hz=100.0,
        reflexes=reflexes,
        status_port=None,
        say=say,
        view=view,
        control=control,
    )
    running = Running(server, said=said)
    stop = threading.Event()

    def run() -> None:
        running.last = server.run(stop, None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        (running.url,) = events.get(timeout=DEADLINE_S)["control_urls"]
        yield running
    finally:
        stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def sensed(*voxels: tuple[int, int]) -> SharedFBC:
    """A frame of the infrared sensor: channel and step."""
    x, z = (np.array(column, np.uint32) for column in zip(*voxels, strict=True))
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(
        x, np.zeros_like(x), z, np.ones(len(x), np.float32)
    )
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(
        CorticalMappedXYZPNeuronVoxels({INFRARED: arrays}), 0
    )
    return SharedFBC.adopt(container)


def moved(agent: ZmqPeer, sensed: SharedFBC) -> list[tuple[int, int]]:
    """Channel and step of the first motor frame that is not empty, while this is sensed: a frame
    acts for two bursts, and is dropped when it came too late for them."""
    for _ in range(1000):
        agent.send_sensory(sensed)
        fbc = agent.receive_motor(DEADLINE_S)
        assert fbc is not None
        with fbc:
            struct = fbc.container.try_create_new_struct_from_index(0)
            assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
            if MOTOR in struct.mappings:
                x, _, z, _ = struct[MOTOR].borrow_xyzp_vectors()
                return list(zip(x.tolist(), z.tolist(), strict=True))
    raise AssertionError("never moved")


def test_an_agent_that_says_its_units_is_moved_by_what_it_senses() -> None:
    with served() as running:
        agent = ZmqPeer(running.url, ROVER, EVERYTHING, 1 << 20)
        details = agent_configuration(UNITS)
        assert agent.ask(AgentConfiguration(details)) == HeartBeat()
        with sensed((0, 0), (1, 7)) as fbc:
            # 15/16 ahead and next to nothing: 1 - 2 z / 7
            assert moved(agent, fbc) == [(0, 0), (1, 3)]
        agent.close()
    events = [data["event"] for data in running.said]
    assert events[:3] == ["started", "registered", "configured"]
    assert running.said[2]["not_wired"] is None
    assert "gone" in events
    assert running.last["totals"]["sensory"]["delivered"] >= 1


def test_it_is_shown_in_the_browser_and_paused_there() -> None:
    with served("iinf/1/8:omot/1/8", view=ViewOptions(), control=True) as running:
        (told,) = [data for data in running.said if data["event"] == "viewer"]
        with looking(Place.of(told["url"])) as page:
            page.draws_all = True
            assert page.texts[0]["source"] == "serve"
            names = [area["name"] for area in page.text("areas")["areas"]]
            assert names == ["Infrared 0", "RotaryMotor 0"]
            agent = ZmqPeer(running.url, ROVER, EVERYTHING, 1 << 20)
            page.text("say", lambda said: said["text"] == "rover of feagi-io tests is here")
            page.text("state", lambda state: [a["name"] for a in state["agents"]] == ["rover"])
            with sensed((0, 0)) as fbc:
                while {voxel[0] for voxel in page.shown.voxels} != {INFRARED, MOTOR}:
                    agent.send_sensory(fbc)  # it acts for two bursts; not each one is shown
                    page.frame()
            page.send("pause")
            page.text("state", lambda state: state["paused"])
            assert not running.server.brain.engine.is_firing
            agent.close()


def test_wires_are_all_there_is_when_there_are_some() -> None:
    with served("iinf/1/8:omot/1/8") as running:
        agent = ZmqPeer(running.url, ROVER, EVERYTHING, 1 << 20)
        assert agent.ask(AgentConfiguration(agent_configuration(UNITS))) == HeartBeat()
        with sensed((0, 0)) as fbc:
            assert moved(agent, fbc) == [(0, 0)]
        assert len(running.server.brain.engine.reflexes) == 1
        agent.close()


def test_the_brain_answers_what_agents_ask_it() -> None:
    with served() as running:
        agent = ZmqPeer(running.url, ROVER, EVERYTHING, 1 << 20)
        report = agent.ask(HealthCheckRequest())
        assert isinstance(report, HealthReport)
        assert (report.burst_engine, report.brain_readiness) == (True, True)
        assert (report.connected_agents, report.simulation_timestep) == (1, 0.01)
        assert agent.ask(TimestepRequest()) == TimestepReport(0.01)
        assert agent.ask(TimestepChange(0.02)) == TimestepChangeAnswer(True)
        assert agent.ask(TimestepRequest()) == TimestepReport(0.02)
        for impossible in (1e-6, 1e6):
            assert agent.ask(TimestepChange(impossible)) == TimestepChangeAnswer(False)
        assert agent.ask(TimestepRequest()) == TimestepReport(0.02)
        agent.close()


def learned(brain: BuiltInBrain, *units: DeclaredUnit) -> str | None:
    return brain.learn(AgentConfiguration(agent_configuration(units)))


def test_units_that_do_not_fit_are_told_and_change_nothing() -> None:
    brain = BuiltInBrain(100.0, [])
    assert learned(brain, *UNITS) is None
    before = brain.engine.reflexes
    wider = [DeclaredUnit("iinf", channels=3, resolution=8), UNITS[1]]
    assert learned(brain, *wider) is None  # the same two areas, anew
    assert brain.engine.reflexes != before
    other_motor = [DeclaredUnit("ipro", channels=2, resolution=8), DeclaredUnit("omot", channels=5)]
    problem = learned(brain, *other_motor)
    assert problem is not None
    assert "declared with" in problem
    assert len(brain.engine.reflexes) == 1


def test_agents_cannot_fill_the_memory_with_reflexes() -> None:
    brain = BuiltInBrain(100.0, [])
    problems = [
        learned(
            brain,
            DeclaredUnit("iinf", group=group, channels=100, resolution=100),
            DeclaredUnit("omot", group=group, channels=100, resolution=100),
        )
        for group in range(6)
    ]
    assert problems[:4] == [None] * 4
    assert all(problem and str(MAX_ALL_WEIGHTS) in problem for problem in problems[4:])
    assert sum(reflex.weights.size for reflex in brain.engine.reflexes) <= MAX_ALL_WEIGHTS


def test_the_status_line_has_rates_of_the_time_between() -> None:
    with served() as running:
        before = running.server.snapshot()
        after = json.loads(json.dumps(before))
        after["uptime_s"] = before["uptime_s"] + 2.0
        after["totals"]["sensory"]["delivered"] += 50
        after["totals"]["motor"]["dropped"] = {"full": 3}
        line, data = status_line(before, after)
    assert data["sensory_hz"] == pytest.approx(25.0)
    assert data["dropped"] == 3
    assert "sensory 25" in line
    assert "dropped 3" in line


def test_one_who_does_not_read_holds_up_no_agent() -> None:
    reading = threading.Event()

    def say(line: str, data: dict[str, Any]) -> None:
        if data["event"] == "started":
            urls.put(data["control_urls"][0])
            reading.wait(DEADLINE_S)

    urls: SimpleQueue[str] = SimpleQueue()
    stop = threading.Event()
    server = BrainServer(
        PNSConfig.from_sources(arguments=ANYWHERE),
        rate_hz=100.0, reflexes=[], status_port=None, say=say,
    )  # fmt: skip
    thread = threading.Thread(target=server.run, args=(stop, None))
    thread.start()
    try:
        agent = ZmqPeer(urls.get(timeout=DEADLINE_S), ROVER, EVERYTHING, 1 << 20)
        assert agent.ask(HeartBeat()) == HeartBeat()
        agent.close()
    finally:
        reading.set()
        stop.set()
        thread.join(DEADLINE_S)


def test_a_port_in_use_ends_it_with_everything_closed() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = held.getsockname()[1]
        settings = PNSConfig.from_sources(
            arguments={**ANYWHERE, "zmq.rest": f"tcp://127.0.0.1:{taken}"}
        )
        for status in (None, 0):
            server = BrainServer(
                settings, rate_hz=100.0, reflexes=[], status_port=status, say=lambda *_: None
            )
            with pytest.raises(PortBusyError, match=f"{taken} is in use"):
                server.run(threading.Event(), 1.0)


def test_an_impossible_rate_is_refused() -> None:
    for rate_hz in (0.0, 1e6, float("nan")):
        with pytest.raises(ConfigError, match="rate is"):
            BrainServer(
                PNSConfig(), rate_hz=rate_hz, reflexes=[], status_port=None, say=lambda *_: None
            )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--status", "many"], 2, "is no port"),
        (["--status", "70000"], 2, "is no port"),
        (["--seconds", "0"], 2, "seconds"),
        (["--wire", "iinf"], 2, "SENSOR:MOTOR is needed"),
        (["--zmq-rest", "nonsense"], 2, "zmq.rest is 'nonsense'"),
        (["--config", "no-such-file.toml"], 2, "no-such-file.toml"),
        (["--rate", "0"], 2, "rate is 0"),
    ],
)
def test_wrong_options(arguments: list[str], status: int, words: str) -> None:
    done = CliRunner().invoke(app, ["serve", *arguments])
    assert done.exit_code == status
    assert words in done.stderr


def test_json_is_one_object_per_event() -> None:
    urls = [
        part
        for name in ("rest", "sensory", "motor", "viz")
        for part in (f"--zmq-{name}", "tcp://127.0.0.1:0")
    ]
    done = CliRunner().invoke(app, ["serve", *urls, "--status", "0", "--seconds", "0.2", "--json"])
    assert done.exit_code == 0, done.stderr
    started, *_, stopped = (json.loads(line) for line in done.stdout.splitlines())
    assert started["event"] == "started"
    assert started["status_url"].startswith("http://127.0.0.1:")
    assert stopped["event"] == "stopped"
    assert stopped["telemetry"]["engine"]["bursts"] > 0
