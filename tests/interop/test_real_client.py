# SPDX-License-Identifier: Apache-2.0
"""The real client of feagi-rust-py-libs at our server, over ZMQ."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.testing import FakeClock, StandInHost
from feagi_io_host.transports.zmq import ZmqTransport
from tests.interop.real_client import DEADLINE_S, TOKEN, RealClient

pytestmark = pytest.mark.oracle

VECTORS = Path(__file__).parent.parent / "vectors"
SENSORY = VECTORS / "valid" / "v36_cap_sensory_real_client.bin"
MOTOR = VECTORS / "valid" / "v38_cap_motor_one_neuron.bin"


Start = Callable[..., ZmqTransport]
Connect = Callable[..., RealClient]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[ZmqTransport] = []

    def make(host: StandInHost | None = None, **settings: Any) -> ZmqTransport:
        running.append(ZmqTransport(host or StandInHost(), control_port=0, **settings))
        running[-1].start()
        return running[-1]

    yield make
    for transport in running:
        transport.stop()


@pytest.fixture
def client(require: Callable[[str], ModuleType | str]) -> Iterator[Connect]:
    require("feagi_rust_py_libs")
    clients: list[RealClient] = []

    def make(transport: ZmqTransport, *args: Any, **settings: Any) -> RealClient:
        clients.append(RealClient(transport.control_url, *args, **settings))
        return clients[-1]

    yield make
    for one in clients:
        one.close()


def test_it_registers_configures_senses_moves_and_leaves(start: Start, client: Connect) -> None:
    host = StandInHost()
    configured: SimpleQueue[AgentConfiguration] = SimpleQueue()

    def note(agent_id: bytes, configuration: AgentConfiguration) -> bool:
        configured.put(configuration)
        return True

    transport = start(host, token=TOKEN, on_configured=note)
    real = client(transport)
    real.ask("connect")
    (session,) = host.sessions
    assert session.descriptor.agent_name == "real"
    assert session.capabilities == (
        AgentCapabilities.SEND_SENSOR_DATA | AgentCapabilities.RECEIVE_MOTOR_DATA
    )
    agent_id = real.ask("get_registration_agent_id_b64")
    assert base64.b64decode(agent_id) == session.agent_id

    units = json.loads((VECTORS / "device_registrations.json").read_text())
    rotary = units["motor_rotary_motor_register group=0 absolute linear"]["registration"]
    real.ask("send_device_configuration", json.dumps(rotary))
    # It does not wait for the acknowledgement.
    assert configured.get(timeout=DEADLINE_S).details == rotary

    sensed = SENSORY.read_bytes()
    real.ask("send_sensory_bytes", {"hex": sensed.hex()})
    assert host.take_sensory(session.agent_id) == sensed

    assert transport.wait_until_subscribed(session.agent_id, DEADLINE_S)
    with SharedFBC.from_bytes(MOTOR.read_bytes()) as fbc:
        transport.publish_motor(session.agent_id, fbc)
    assert real.ask("motor") == {"b21vdAUAAAA=": {"x": [0], "y": [0], "z": [6], "p": [100.0]}}

    real.ask("disconnect")
    assert host.left == [(session.agent_id, "left: 'python-sdk disconnect'")]
    real.ask("connect")
    assert len(host.sessions) == 1


def test_its_heartbeat_keeps_it_in(start: Start, client: Connect) -> None:
    clock, host = FakeClock(), StandInHost()
    transport = start(host, clock=clock, silence_timeout_s=30.0)
    real = client(transport)
    real.ask("connect")
    (session,) = host.sessions
    clock.advance(25.0)
    # It beats from inside its calls, when its own interval of real time is over.
    deadline_s = time.monotonic() + DEADLINE_S
    while transport.registry.silent_for_s(session.agent_id, clock.now_s) > 0.0:
        assert time.monotonic() < deadline_s, "no heartbeat came"
        assert real.ask("is_registered")
    clock.advance(25.0)
    assert real.ask("is_registered")
    assert host.left == []


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"token": bytes(32)}, "Invalid auth token!"),
        ({"data_ports": []}, "Invalid server responses!"),
        # A server that finds its request too long and says nothing.
        ({"limits": ServerLimits(unregistered_bytes=1)}, r"Registration timed out after \d+ ms"),
    ],
)
def test_refusals_are_its_own_errors(
    start: Start, client: Connect, settings: dict[str, Any], text: str
) -> None:
    host = StandInHost()
    with pytest.raises(RuntimeError, match=text):
        client(start(host, **settings), timeout_ms=1500).ask("connect")
    assert host.came == []


def test_a_second_one_of_the_same_name_is_told_so(start: Start, client: Connect) -> None:
    host = StandInHost()
    transport = start(host, limits=ServerLimits(takeover_s=1000.0))
    first, second = client(transport), client(transport)
    first.ask("connect")
    with pytest.raises(RuntimeError, match="Client already registered!"):
        second.ask("connect")
    assert len(host.sessions) == 1
    assert first.ask("is_registered")
