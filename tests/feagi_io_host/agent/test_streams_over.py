# SPDX-License-Identifier: Apache-2.0
"""Agents whose streams go over shared memory or UDP while ZMQ lets them in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from zmq.utils.garbage import gc as collector

from feagi_io_host import ConnectionProtocol
from feagi_io_host.agent import FeagiAgent
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import AgentState
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    DeliveryTimeoutError,
    RegistrationRefusedError,
)
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import Endpoint, RegistrationRequest
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.pns import PNS
from feagi_io_host.transports.shm import RingWriter, newest_wins
from feagi_io_host.transports.shm.names import SHM_FOLDER, why_unavailable
from tests.feagi_io_host.agent.conftest import MakeAgent, Serve
from tests.feagi_io_host.agent.faces import AgentFace
from tests.feagi_io_host.agent.server import DEADLINE_S, MOVE, SENSE, VIEW, ScriptedServer
from tests.feagi_io_host.agent.test_agents import DETAILS, States, frame, number, voxels

S = AgentState
UDP, SHARED = ConnectionProtocol.UDP, ConnectionProtocol.SHARED_MEMORY
WEB = ConnectionProtocol.WEBSOCKET
ROOT = Path(__file__).parents[3]
ANYWHERE = {f"zmq.{name}": "tcp://127.0.0.1:0" for name in ("rest", "motor", "viz", "sensory")}
SENSORY, MOTOR, PICTURES = "sensory", "motor", "visualization"
# What each server carries otherwise than over ZMQ, and how.
MIXES = {
    "shm pictures": (SHARED, {PICTURES: "shm"}),
    "shm": (SHARED, {SENSORY: "shm", MOTOR: "shm", PICTURES: "shm"}),
    "shm in a loop": (
        SHARED,
        {SENSORY: "shm.nonblocking", MOTOR: "shm.nonblocking", PICTURES: "shm.nonblocking"},
    ),
    "websocket": (WEB, {SENSORY: "websocket", MOTOR: "websocket", PICTURES: "websocket"}),
    "udp pictures": (UDP, {PICTURES: "udp"}),
    "udp": (UDP, {SENSORY: "udp", PICTURES: "udp"}),
}
Mix = tuple[ConnectionProtocol, dict[str, str]]
MakeServer = Callable[..., PNS]


@pytest.fixture(autouse=True)
def _shared_memory(request: pytest.FixtureRequest) -> None:
    reason = why_unavailable()
    if reason is not None and "udp" not in request.node.name:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true everything has to run")
        pytest.skip(reason)


@pytest.fixture(params=MIXES.values(), ids=list(MIXES))
def mix(request: pytest.FixtureRequest) -> Mix:
    made: Mix = request.param
    return made


def settings(carried: dict[str, str], port: int = 0) -> dict[str, Any]:
    """Of a server that carries these streams so, and lets agents in at that port. An agent that
    comes back finds room."""
    return {
        **ANYWHERE,
        "zmq.rest": f"tcp://127.0.0.1:{port}",
        **{f"transport.{stream}": name for stream, name in carried.items()},
    }


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """Make running servers; all are stopped at the end."""
    made: list[PNS] = []

    def make(carried: dict[str, str], port: int = 0) -> PNS:
        config = PNSConfig.from_sources(arguments=settings(carried, port))
        made.append(create_pns_with_config(config))
        made[-1].start()
        return made[-1]

    yield make
    for pns in made:
        pns.stop()
    collector.stop()


def url_of(pns: PNS) -> str:
    (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
    return str(url)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def ends_of(agent: AgentFace) -> set[str]:
    """The streams that have an end of their own."""
    return {name for name, row in agent.counters().items() if "stream_end" in dict_of(row)}


def dict_of(row: object) -> dict[str, Any]:
    return row if isinstance(row, dict) else {}


class Senses:
    """What a PNS hears, as it comes."""

    def __init__(self, pns: PNS) -> None:
        self._heard: SimpleQueue[bytes] = SimpleQueue()
        pns.sensory_data_received.connect(self._hear)

    def __call__(self) -> bytes:
        return self._heard.get(timeout=DEADLINE_S)

    def _hear(self, event: SensoryData) -> None:
        self._heard.put(bytes(event.fbc.view))


def all_three(pns: PNS, agent: AgentFace, counter: int) -> None:
    """A frame each way over each stream."""
    senses = Senses(pns)
    with frame(counter) as fbc:
        pns.publish_motor(agent.agent_id, fbc)
        pns.publish_visualization(fbc)
        assert number(agent.receive_motor(DEADLINE_S)) == counter
        assert number(agent.receive_visualization(DEADLINE_S)) == counter
        agent.send_sensory(fbc)
        assert senses() == bytes(fbc.view)


# -- carried --------------------------------------------------------------------------------------


def test_each_stream_goes_where_it_is_carried(
    mix: Mix, make_server: MakeServer, make_agent: MakeAgent
) -> None:
    protocol, carried = mix
    pns = make_server(carried)
    agent = make_agent(url_of(pns), streams_over=protocol)
    agent.connect(DEADLINE_S)
    agent.configure(DETAILS)
    for counter in range(1, 11):
        all_three(pns, agent, counter)
    assert agent.receive_visualization(0) is None
    agent.close()
    rows = agent.counters()
    assert ends_of(agent) == set(carried)
    assert rows["registrations"] == 1
    for name in (SENSORY, MOTOR, PICTURES):
        assert (rows[name]["sent"], rows[name]["delivered"]) == (10, 10), name
        assert rows[name]["dropped"] == {}
        ended = rows[name].get("stream_end", {})
        assert not any(ended.get(reason) for reason in ("overtaken", "lost", "unexpected"))


def test_who_asks_for_nothing_special_gets_zmq(
    mix: Mix, make_server: MakeServer, make_agent: MakeAgent
) -> None:
    pns = make_server(mix[1])
    agent = make_agent(url_of(pns))
    agent.connect(DEADLINE_S)
    all_three(pns, agent, 4)
    agent.close()
    assert ends_of(agent) == set()


def test_motor_frames_come_in_order_and_of_pictures_the_newest(
    make_server: MakeServer, make_agent: MakeAgent
) -> None:
    pns = make_server(MIXES["shm"][1])
    agent = make_agent(url_of(pns), streams_over=SHARED)
    agent.connect(DEADLINE_S)
    for counter in range(50):
        with frame(counter) as fbc:
            pns.publish_motor(agent.agent_id, fbc)
            pns.publish_visualization(fbc)
    for receive in (agent.receive_motor, agent.receive_visualization):
        last = -1
        while last < 49:
            now = number(receive(DEADLINE_S))
            assert now > last
            last = now
    agent.close()
    row = agent.counters()[MOTOR]
    # Every command has come; what a newer one replaced before it was read is counted.
    assert row["sent"] == 50
    assert row["delivered"] + sum(row["dropped"].values()) == 50


def test_large_frames_come_whole(mix: Mix, make_server: MakeServer, make_agent: MakeAgent) -> None:
    protocol, carried = mix
    pns = make_server(carried)
    agent = make_agent(url_of(pns), streams_over=protocol)
    agent.connect(DEADLINE_S)
    senses = Senses(pns)
    container = FeagiByteContainer()
    container.overwrite_byte_data_with_single_struct_data(voxels(20_000), 1)
    sent = container.copy_out_as_byte_vector()
    with SharedFBC.from_bytes(sent) as fbc:
        pns.publish_visualization(fbc)
        received = agent.receive_visualization(DEADLINE_S)
        assert received is not None
        assert bytes(received.get_byte_ref()) == sent
        assert received.try_create_new_struct_from_index(0) == voxels(20_000)
        agent.send_sensory(fbc)
        assert senses() == sent
        del received
    agent.close()


def test_a_picture_may_be_kept_longer_than_agent_and_server(
    make_server: MakeServer, make_agent: MakeAgent
) -> None:
    pns = make_server({PICTURES: "shm"})
    agent = make_agent(url_of(pns), capabilities=VIEW, streams_over=SHARED)
    agent.connect(DEADLINE_S)
    kept = []
    for counter in range(8):
        with frame(counter) as fbc:
            pns.publish_visualization(fbc)
        kept.append(agent.receive_visualization(DEADLINE_S))
    agent.close()
    pns.stop()
    assert [number(picture) for picture in kept] == list(range(8))
    for picture in kept:
        assert picture is not None
        assert not np.frombuffer(picture.get_byte_ref(), np.uint8).flags.writeable


def test_an_agent_may_leave_in_the_midst_of_frames(
    mix: Mix, make_server: MakeServer, make_agent: MakeAgent
) -> None:
    protocol, carried = mix
    pns = make_server(carried)
    over = threading.Event()
    seen = threading.Semaphore(0)
    refused: SimpleQueue[Exception] = SimpleQueue()
    agent = make_agent(url_of(pns), streams_over=protocol)
    agent.connect(DEADLINE_S)

    def publish() -> None:
        with frame(1) as fbc:
            while not over.is_set():
                pns.publish_visualization(fbc)
                pns.publish_motor(None, fbc)
                over.wait(0.0005)

    def use() -> None:
        try:
            while True:
                agent.send_sensory(voxels())
                agent.receive_motor(DEADLINE_S)
                agent.receive_visualization(DEADLINE_S)
                seen.release()
        except ClosedError as error:
            refused.put(error)

    threads = [threading.Thread(target=work) for work in (publish, use)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert seen.acquire(timeout=DEADLINE_S)
    agent.close()
    refused.get(timeout=DEADLINE_S)
    over.set()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert agent.counters()["registrations"] == 1


# -- coming back ----------------------------------------------------------------------------------


def test_it_comes_back_to_a_server_that_was_restarted(
    mix: Mix, make_server: MakeServer, make_agent: MakeAgent
) -> None:
    protocol, carried = mix
    first = make_server(carried)
    url = url_of(first)
    agent = make_agent(url, streams_over=protocol)
    agent.connect(DEADLINE_S)
    all_three(first, agent, 1)
    states = States(agent)
    first.stop()
    states.until(S.PENDING)
    agent.send_sensory(voxels())  # nobody is there: dropped and counted, nothing raised
    second = make_server(carried, port_of(url))
    states.until(S.ACTIVE_WAITING)
    all_three(second, agent, 2)
    agent.close()
    rows = agent.counters()
    assert rows["registrations"] == 2
    assert rows[SENSORY]["dropped"] == {"not registered": 1}
    assert ends_of(agent) == set(carried)


class Killable:
    """Servers in processes of their own; all are dead at the end."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, carried: dict[str, str], port: int = 0) -> str:
        """The URL where agents register."""
        program = Path(__file__).parent / "server_process.py"
        process = subprocess.Popen(
            [sys.executable, str(program), json.dumps(settings(carried, port))],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}"},
        )
        self._processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def kill(self) -> None:
        """End the last one as a power failure does."""
        process = self._processes.pop()
        process.kill()
        process.communicate(timeout=DEADLINE_S)
        # Others on this machine find it stale after a while; here it is known at once.
        for left in SHM_FOLDER.glob(f"feagi-io-{process.pid}-*"):
            left.unlink()


@pytest.fixture
def killable() -> Iterator[Killable]:
    made = Killable()
    yield made
    while made._processes:
        made.kill()


@pytest.mark.parametrize("name", ["shm", "udp"])
def test_it_comes_back_after_the_server_was_killed(
    name: str, killable: Killable, make_agent: MakeAgent
) -> None:
    protocol, carried = MIXES[name]
    url = killable.start(carried)
    agent = make_agent(url, streams_over=protocol)
    agent.connect(DEADLINE_S)
    states = States(agent)
    for _ in range(2):
        assert agent.receive_visualization(DEADLINE_S) is not None
        assert agent.receive_motor(DEADLINE_S) is not None
        agent.send_sensory(voxels())
        killable.kill()
        states.until(S.PENDING)
        # What had come before is not what proves the return.
        while agent.receive_visualization(0) or agent.receive_motor(0):
            pass
        assert killable.start(carried, port_of(url)) == url
        states.until(S.ACTIVE_WAITING)
    assert agent.receive_visualization(DEADLINE_S) is not None
    assert agent.receive_motor(DEADLINE_S) is not None
    assert agent.counters()["registrations"] == 3


def test_one_stream_that_ends_has_the_agent_register_again(make_agent: MakeAgent) -> None:
    with ScriptedServer() as server, RingWriter(newest_wins(1000)) as first:
        server.endpoints[VIEW] = Endpoint(SHARED, first.url)
        agent = make_agent(server.url, streams_over=SHARED)
        agent.connect(DEADLINE_S)
        states = States(agent)
        with frame(1) as fbc, RingWriter(newest_wins(1000)) as second:
            first.write(fbc.view)
            assert number(agent.receive_visualization(DEADLINE_S)) == 1
            server.endpoints[VIEW] = Endpoint(SHARED, second.url)
            first.close()
            assert "visualization stream over SharedMemory has ended" in (
                states.until(S.PENDING).reason
            )
            states.until(S.ACTIVE_WAITING)
            second.write(fbc.view)
            assert number(agent.receive_visualization(DEADLINE_S)) == 1
            server.hear(RegistrationRequest)
            server.hear(RegistrationRequest)
            agent.close()


@pytest.mark.parametrize(
    ("protocol", "url", "why"),
    [
        (SHARED, "shm://feagi-io-1-" + "0" * 32, "register again"),
        (SHARED, "shm://../../etc/passwd", "expected shm"),
        (UDP, "udp://127.0.0.1:1", "session-key is expected"),
    ],
)
def test_an_address_where_nobody_is_is_tried_again(
    make_agent: MakeAgent, protocol: ConnectionProtocol, url: str, why: str
) -> None:
    with ScriptedServer() as server:
        good_one = server.endpoints[VIEW]
        server.endpoints[VIEW] = Endpoint(protocol, url)
        agent = make_agent(server.url, streams_over=protocol)
        with pytest.raises(DeliveryTimeoutError, match=why):
            agent.connect(0.3)
        server.endpoints[VIEW] = good_one
        agent.connect(DEADLINE_S)
        server.await_subscriber(server.visualization)
        agent.close()


# -- not carried ----------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [SHARED, UDP])
def test_a_server_that_carries_nothing_so_is_the_likely_reason(
    serve: Serve, make_agent: MakeAgent, protocol: ConnectionProtocol
) -> None:
    url = serve().control_url
    agent = make_agent(url, streams_over=protocol)
    with pytest.raises(
        RegistrationRefusedError,
        match=rf"asked for over {protocol.value}: .* refuses; leave streams_over out",
    ) as refused:
        agent.connect(DEADLINE_S)
    assert refused.value.reason == "failed_invalid_request"
    with ScriptedServer(lambda *_: None) as silent:
        agent = make_agent(silent.url, streams_over=protocol)
        with pytest.raises(
            DeliveryTimeoutError, match=rf"over {protocol.value}: .* does not answer; leave stre"
        ):
            agent.connect(0.2)


@pytest.mark.parametrize("asked", [None, UDP])
def test_a_stream_that_was_not_asked_for_is_not_opened(
    make_agent: MakeAgent, asked: ConnectionProtocol | None
) -> None:
    with ScriptedServer() as server, RingWriter(newest_wins(1000)) as ring:
        server.endpoints[VIEW] = Endpoint(SHARED, ring.url)
        agent = make_agent(server.url, streams_over=asked)
        expected = "Udp" if asked else "Zmq"
        with pytest.raises(DeliveryTimeoutError, match=f"SharedMemory; {expected} was asked for"):
            agent.connect(0.3)
        assert ring.serve(0.0) == 0
        agent.close()


def test_what_no_agent_speaks_is_refused_at_once() -> None:
    rover = AgentDescriptor("feagi-io test", "rover", 1)
    with pytest.raises(ConfigError, match=r"over BluetoothSerial; .* Zmq, Udp, SharedMemory"):
        FeagiAgent(rover, MOVE, streams_over=ConnectionProtocol.BLUETOOTH_SERIAL)
    for asked in (None, UDP, SHARED, WEB, ConnectionProtocol.ZMQ):
        agent = FeagiAgent(rover, SENSE | AgentCapabilities.RECEIVE_MOTOR_DATA, streams_over=asked)
        assert agent.streams_over is (asked or ConnectionProtocol.ZMQ)
        agent.close()
