# SPDX-License-Identifier: Apache-2.0
"""The real client of feagi-rust-py-libs at our server, over WebSocket."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest

from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.websocket import WebSocketTransport
from tests.interop.real_client import DEADLINE_S, TOKEN, RealClient

pytestmark = pytest.mark.oracle

VECTORS = Path(__file__).parent.parent / "vectors"
SENSORY = VECTORS / "valid" / "v36_cap_sensory_real_client.bin"
MOTOR = VECTORS / "valid" / "v38_cap_motor_one_neuron.bin"


@dataclass
class Server:
    host: StandInHost
    transport: WebSocketTransport
    handle: TransportHandle
    runtime: Runtime

    def wait_until_subscribed(self, agent_id: bytes) -> bool:
        waiting = self.transport.wait_until_subscribed(agent_id, DEADLINE_S)
        return self.runtime.call(waiting, DEADLINE_S)


Start = Callable[..., Server]
Connect = Callable[..., RealClient]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Server] = []

    def make(**settings: Any) -> Server:
        host = StandInHost()
        transport = WebSocketTransport(host, port=0, **settings)
        running.append(Server(host, transport, TransportHandle(transport), Runtime()))
        running[-1].handle.start()
        return running[-1]

    yield make
    for server in running:
        server.handle.stop()
        server.runtime.close()


@pytest.fixture
def client(require: Callable[[str], ModuleType | str]) -> Iterator[Connect]:
    require("feagi_rust_py_libs")
    clients: list[RealClient] = []

    def make(server: Server, *args: Any, **settings: Any) -> RealClient:
        clients.append(RealClient(server.transport.control_url, *args, **settings))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


def test_it_registers_configures_senses_moves_and_leaves(start: Start, client: Connect) -> None:
    configured: SimpleQueue[AgentConfiguration] = SimpleQueue()

    def note(agent_id: bytes, configuration: AgentConfiguration) -> bool:
        configured.put(configuration)
        return True

    server = start(token=TOKEN, on_configured=note)
    real = client(server)
    real.ask("connect")
    (session,) = server.host.sessions
    assert session.descriptor.agent_name == "real"
    assert base64.b64decode(real.ask("get_registration_agent_id_b64")) == session.agent_id

    units = json.loads((VECTORS / "device_registrations.json").read_text())
    rotary = units["motor_rotary_motor_register group=0 absolute linear"]["registration"]
    real.ask("send_device_configuration", json.dumps(rotary))
    assert configured.get(timeout=DEADLINE_S).details == rotary

    sensed = SENSORY.read_bytes()
    real.ask("send_sensory_bytes", {"hex": sensed.hex()})
    assert server.host.take_sensory(session.agent_id) == sensed

    assert server.wait_until_subscribed(session.agent_id)
    with SharedFBC.from_bytes(MOTOR.read_bytes()) as fbc:
        server.handle.publish_motor(session.agent_id, fbc)
    assert real.ask("motor") == {"b21vdAUAAAA=": {"x": [0], "y": [0], "z": [6], "p": [100.0]}}

    real.ask("disconnect")
    assert server.host.left == [(session.agent_id, "left: 'python-sdk disconnect'")]
    real.ask("connect")
    assert len(server.host.sessions) == 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"token": bytes(32)}, "Invalid auth token!"),
        ({"limits": ServerLimits(unregistered_bytes=1)}, "Connection failed"),
    ],
)
def test_refusals_are_its_own_errors(
    start: Start, client: Connect, settings: dict[str, Any], text: str
) -> None:
    server = start(**settings)
    with pytest.raises(RuntimeError, match=text):
        client(server, timeout_ms=1500).ask("connect")
    assert server.host.came == []
