# SPDX-License-Identifier: Apache-2.0
"""FeagiAgent and AsyncFeagiAgent at the real engine over WebSocket, and what they get over."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.client_actions import AgentState
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.runtime import Runtime
from tests.feagi_io_host.agent.faces import face
from tests.interop.test_agent_with_engine import (
    DETAILS,
    EVERYTHING,
    HEARTBEAT,
    INFRARED,
    LONGEST_GAP_S,
    PATIENCE_S,
    ROTARY_MOTOR,
    areas,
    sense_until_it_moves,
    stimulus,
    wait_until_back,
    wire_up,
)
from tools.engine import Engine

Agent = Any


@pytest.fixture(params=["blocking", "nonblocking"])
def make_agent(request: pytest.FixtureRequest) -> Iterator[Callable[..., Agent]]:
    made: list[Agent] = []
    runtime = Runtime() if request.param == "nonblocking" else None
    kind: Any = FeagiAgent if runtime is None else AsyncFeagiAgent

    def make(engine: Engine, url: str | None = None, **settings: Any) -> Agent:
        descriptor = AgentDescriptor("feagi-io", "rover", 1)
        agent = kind(
            descriptor, EVERYTHING, url or engine.websocket_url, heartbeat=HEARTBEAT, **settings
        )
        made.append(face(agent, runtime))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
    if runtime is not None:
        runtime.close()


@pytest.mark.slow
def test_from_the_sensor_to_the_motor_and_after_a_restart(
    engine: Engine, make_agent: Callable[..., Agent]
) -> None:
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
    x, y, z, _ = seen[INFRARED].borrow_xyzp_vectors()
    assert (x.tolist(), y.tolist(), z.tolist()) == ([0], [0], [3])

    engine.kill()
    killed_s = time.monotonic()
    while agent.state not in (AgentState.PENDING, AgentState.ERRORED):
        assert time.monotonic() - killed_s < PATIENCE_S
        agent.receive_motor(0.01)
    # The connection ends with the process: no heartbeat has to be missed for that.
    assert time.monotonic() - killed_s < HEARTBEAT.interval_s
    engine.start()
    engine.load_genome("barebones")
    ready_s = time.monotonic()
    wait_until_back(agent, 2)
    engine.wait_for_areas(INFRARED, ROTARY_MOTOR, timeout_s=PATIENCE_S)
    wire_up(engine)
    sense_until_it_moves(agent)
    assert time.monotonic() - ready_s < LONGEST_GAP_S
    rows = agent.counters()
    assert not {"damaged"} & {*rows["motor"]["dropped"], *rows["visualization"]["dropped"]}


@pytest.mark.slow
def test_registered_over_zmq_with_its_streams_over_websocket(
    engine: Engine, make_agent: Callable[..., Agent]
) -> None:
    engine.load_genome("barebones")
    agent = make_agent(engine, engine.registration_url, streams_over=ConnectionProtocol.WEBSOCKET)
    agent.connect(PATIENCE_S)
    agent.configure(DETAILS)
    wire_up(engine)
    sense_until_it_moves(agent)
    assert agent.receive_visualization(PATIENCE_S) is not None
    assert "stream_end" in agent.counters()["motor"]
