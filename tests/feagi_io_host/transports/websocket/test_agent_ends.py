# SPDX-License-Identifier: Apache-2.0
"""Agents that register over WebSocket and have streams in shared memory or over UDP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.errors import RegistrationRefusedError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.pns import PNS
from tests.feagi_io_host.agent.faces import face
from tests.feagi_io_host.agent.test_agents import frame, number, voxels
from tests.feagi_io_host.test_create import EVERYTHING, config
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S

SHARED, UDP = ConnectionProtocol.SHARED_MEMORY, ConnectionProtocol.UDP
ROVER = AgentDescriptor("feagi-io test", "rover", 1)
MIXES: dict[str, tuple[ConnectionProtocol, dict[str, str]]] = {
    "shm": (SHARED, dict.fromkeys(("sensory", "motor", "visualization"), "shm")),
    "shm pictures": (SHARED, {"visualization": "shm.nonblocking"}),
    "udp": (UDP, dict.fromkeys(("sensory", "visualization"), "udp")),
}


def serve(carried: dict[str, str]) -> PNS:
    streams = {
        f"transport__{stream}": carried.get(stream, "websocket")
        for stream in ("control", "sensory", "motor", "visualization")
    }
    return create_pns_with_config(config(websocket__endpoint="ws://127.0.0.1:0", **streams))


def url_of(pns: PNS) -> str:
    (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
    return str(url)


@pytest.fixture(params=[FeagiAgent, AsyncFeagiAgent], ids=["blocking", "nonblocking"])
def make_agent(request: pytest.FixtureRequest) -> Iterator[Any]:
    runtime, made = Runtime(), []

    def make(url: str, asked: ConnectionProtocol) -> Any:
        timing = ClientTiming(max_refusals=0)
        agent = request.param(ROVER, EVERYTHING, url, streams_over=asked, timing=timing)
        made.append(face(agent, runtime))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
    runtime.close()


@pytest.mark.parametrize("mix", MIXES.values(), ids=list(MIXES))
def test_frames_go_both_ways(make_agent: Any, mix: tuple[Any, dict[str, str]]) -> None:
    asked, carried = mix
    heard = threading.Event()

    def hear(_: SensoryData) -> None:
        heard.set()

    with serve(carried) as pns:
        pns.sensory_data_received.connect(hear)
        agent = make_agent(url_of(pns), asked)
        agent.connect(DEADLINE_S)
        seen = {}
        for counter in range(1, 500):
            agent.send_sensory(voxels())
            with frame(counter) as fbc:
                pns.publish_motor(agent.agent_id, fbc)
                pns.publish_visualization(fbc)
            for stream, receive in (
                ("motor", agent.receive_motor),
                ("visualization", agent.receive_visualization),
            ):
                received = receive(0.02)
                if received is not None:
                    seen[stream] = number(received)
            if len(seen) == 2 and heard.is_set():
                break
        assert len(seen) == 2
        assert heard.is_set()
        rows = agent.counters()
        assert {stream for stream in ("sensory", "motor", "visualization")
                if "stream_end" in rows[stream]} == set(carried)  # fmt: skip
        assert rows["registrations"] == 1


def test_a_stream_that_ends_brings_the_agent_back(make_agent: Any) -> None:
    with serve(MIXES["shm pictures"][1]) as pns:
        agent = make_agent(url_of(pns), SHARED)
        agent.connect(DEADLINE_S)
        back = threading.Event()
        agent.on_state_change(lambda change: back.set() if change.reason == "registered" else None)
        pns.sessions[0].close("the brain has enough of it")
        assert back.wait(DEADLINE_S)
        assert agent.counters()["registrations"] == 2
        agent.close()  # before the server: who connects in the moment of its end is another story


def test_a_server_that_carries_nothing_so_refuses(make_agent: Any) -> None:
    with serve({}) as pns:
        agent = make_agent(url_of(pns), SHARED)
        with pytest.raises(RegistrationRefusedError, match="leave streams_over out"):
            agent.connect(DEADLINE_S)
