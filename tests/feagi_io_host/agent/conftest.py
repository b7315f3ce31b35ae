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
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.websocket import WebSocketTransport
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


class OverWebSocket:
    """A WebSocketTransport for threads, with what the tests use of a ZmqTransport."""

    def __init__(self, host: StandInHost, port: int = 0, **settings: Any) -> None:
        self._transport = WebSocketTransport(host, port=port, **settings)
        self.counters = self._transport.counters
        self._handle = TransportHandle(self._transport)
        self._runtime = Runtime()
        self.registry = self._transport.registry
        self.start = self._handle.start
        self.publish_motor = self._handle.publish_motor
        self.publish_visualization = self._handle.publish_visualization

    @property
    def control_url(self) -> str:
        return self._transport.control_url

    def wait_until_subscribed(self, agent_id: bytes, timeout_s: float) -> bool:
        waiting = self._transport.wait_until_subscribed(agent_id, timeout_s)
        return self._runtime.call(waiting, timeout_s + 1.0)

    def stop(self) -> None:
        self._handle.stop()
        self._runtime.close()


def _over_zmq(host: StandInHost, port: int = 0, **settings: Any) -> ZmqTransport:
    return ZmqTransport(host, control_port=port, **settings)


def _serving(make_server: Callable[..., Any]) -> Iterator[Serve]:
    running: list[Any] = []

    def make(host: StandInHost | None = None, **settings: Any) -> Any:
        # An agent that comes back is the same one.
        options: dict[str, Any] = {"limits": ServerLimits(takeover_s=0.0), **settings}
        running.append(make_server(host or StandInHost(), **options))
        running[-1].start()
        return running[-1]

    yield make
    for transport in running:
        transport.stop()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers on free ports; all are stopped at the end."""
    yield from _serving(_over_zmq)


@pytest.fixture(params=[_over_zmq, OverWebSocket], ids=["zmq", "websocket"])
def serve_any(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """The same, over ZMQ and over WebSocket."""
    yield from _serving(request.param)
