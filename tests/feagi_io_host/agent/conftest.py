# SPDX-License-Identifier: Apache-2.0
"""Agents of both paradigms, and servers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.zmq import ZmqTransport
from tests.feagi_io_host.agent.faces import AgentFace, face

EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
# Waits as short as a loaded machine takes well; what is right does not depend on them.
TIMING = ClientTiming(
    answer_timeout_s=1.0,
    backoff_first_s=0.02,
    backoff_limit_s=0.1,
    configuration_timeout_s=0.3,
    settle_s=0.1,
    leave_timeout_s=0.3,
)
HEARTBEAT = HeartbeatTiming(interval_s=0.05, answer_timeout_s=0.2, max_unanswered=2)

MakeAgent = Callable[..., AgentFace]
Serve = Callable[..., ZmqTransport]


@pytest.fixture(params=["blocking", "nonblocking"])
def make_agent(request: pytest.FixtureRequest) -> Iterator[MakeAgent]:
    """Make agents for a server's address; all are closed at the end."""
    made: list[AgentFace] = []
    runtime = Runtime() if request.param == "nonblocking" else None
    kind: Any = FeagiAgent if runtime is None else AsyncFeagiAgent

    def make(
        url: str,
        name: str = "rover",
        capabilities: AgentCapabilities = EVERYTHING,
        **settings: Any,
    ) -> AgentFace:
        settings = {"timing": TIMING, "heartbeat": HEARTBEAT, **settings}
        agent = kind(AgentDescriptor("feagi-io test", name, 1), capabilities, url, **settings)
        made.append(face(agent, runtime))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
    if runtime is not None:
        runtime.close()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports; all are stopped at the end."""
    running: list[ZmqTransport] = []

    def make(host: StandInHost | None = None, **settings: Any) -> ZmqTransport:
        options: dict[str, Any] = {
            "control_port": 0,
            # An agent that comes back is the same one.
            "limits": ServerLimits(takeover_s=0.0),
            **settings,
        }
        running.append(ZmqTransport(host or StandInHost(), **options))
        running[-1].start()
        return running[-1]

    yield make
    for transport in running:
        transport.stop()
