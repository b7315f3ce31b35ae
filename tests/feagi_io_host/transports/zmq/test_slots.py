# SPDX-License-Identifier: Apache-2.0
"""Preferred ports: who gets them, and what is said when somebody else has them."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.messages import (
    DeregistrationRequest,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
)
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.zmq import ZmqTransport
from tests.feagi_io_host.transports.zmq.on_loop import LoopScene
from tests.feagi_io_host.transports.zmq.scene import MOTOR, ROVER, SCOUT, VIEW, Scene


@pytest.fixture(params=[Scene, LoopScene])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    made: Scene = request.param()
    yield made
    made.close()


def free_ports(count: int) -> list[int]:
    """Ports that are free, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_the_first_agent_gets_the_preferred_port_and_the_next_another(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    motor, view = free_ports(2)
    transport = scene.start(
        preferred_ports={StreamType.MOTOR: motor, StreamType.VISUALIZATION: view}
    )
    first = scene.register(scene.control(transport), MOTOR | VIEW)
    assert {what: port_of(url) for what, url in first.items()} == {MOTOR: motor, VIEW: view}
    second = scene.register(scene.control(transport), MOTOR, SCOUT)
    assert port_of(second[MOTOR]) not in (motor, view)
    assert warnings_in(caplog) == []


def test_a_port_given_back_is_had_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    rate = Rate(per_s=1e6, burst=1_000_000)
    limits = ServerLimits(peer_rate=rate, newcomer_rate=rate)
    transport = scene.start(preferred_ports={StreamType.MOTOR: port}, limits=limits)
    control = scene.control(transport)
    assert port_of(scene.register(control, MOTOR)[MOTOR]) == port
    control.ask(DeregistrationRequest(None))
    # The system takes a moment to let go of a port; until then another one serves.
    for _ in range(1000):
        urls = scene.register(control, MOTOR)
        control.ask(DeregistrationRequest(None))
        if port_of(urls[MOTOR]) == port:
            break
    else:
        pytest.fail("the preferred port was never had again")
    assert warnings_in(caplog) == []


def test_a_port_of_another_program_is_told_of_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = int(other.getsockname()[1])
        transport = scene.start(preferred_ports={StreamType.MOTOR: port})
        for descriptor in (ROVER, SCOUT):
            urls = scene.register(scene.control(transport), MOTOR, descriptor)
            assert port_of(urls[MOTOR]) != port
    (warning,) = warnings_in(caplog)
    assert f"motor: tcp://127.0.0.1:{port} is in use" in warning


def test_a_preferred_port_of_the_range_is_not_given_out_twice(scene: Scene) -> None:
    ports = free_ports(2)
    transport = scene.start(data_ports=ports, preferred_ports={StreamType.MOTOR: ports[1]})
    control, other = scene.control(transport), scene.control(transport)
    assert port_of(scene.register(control, MOTOR)[MOTOR]) == ports[1]
    assert port_of(scene.register(other, MOTOR, SCOUT)[MOTOR]) == ports[0]
    third = scene.control(transport)
    answer = third.ask(RegistrationRequest(AgentDescriptor("feagi-io test", "third", 1), MOTOR))
    assert answer == RegistrationRefusal(RefusalReason.INVALID_REQUEST)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"preferred_ports": {StreamType.MOTOR: 0}}, "preferred port 0 of motor"),
        ({"preferred_ports": {StreamType.MOTOR: 65536}}, "65536"),
        ({"preferred_ports": {StreamType.CONTROL: 30001}}, "'control'"),
        (
            {"preferred_ports": {StreamType.MOTOR: 30001}, "control_port": 30001},
            "is control_port already",
        ),
        (
            {"preferred_ports": {StreamType.MOTOR: 5564, StreamType.SENSORY: 5564}},
            "is that of motor already",
        ),
    ],
)
def test_ports_that_do_not_fit_are_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        ZmqTransport(StandInHost(), **settings)  # type: ignore[arg-type]
