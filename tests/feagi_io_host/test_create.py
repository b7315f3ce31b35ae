# SPDX-License-Identifier: Apache-2.0
"""create_pns: the transports of a configuration, mixed by stream, served to agents over ZMQ."""

from __future__ import annotations

import dataclasses
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.config import AuthSettings, PNSConfig
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError, ConfigError, PortBusyError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    HealthCheckRequest,
    HealthReport,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
    RegistrationSuccess,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.create import create_pns, create_pns_with_config
from feagi_io_host.pns import PNS
from feagi_io_host.transports import registry
from tests.feagi_io_host.transports.udp.far import Far
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ControlPeer, ZmqPeer

ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
ANYWHERE = {f"zmq.{name}": "tcp://127.0.0.1:0" for name in ("rest", "motor", "viz", "sensory")}


def config(**more: object) -> PNSConfig:
    arguments = {key.replace("__", "."): value for key, value in more.items()}
    return PNSConfig.from_sources(arguments={**ANYWHERE, **arguments})


def frame(counter: int) -> SharedFBC:
    container = FeagiByteContainer.new_empty()
    container.set_increment_counter_state(counter)
    return SharedFBC.adopt(container)


def counter_of(fbc: SharedFBC | None) -> int:
    assert fbc is not None
    with fbc:
        return fbc.container.get_increment_counter()


def connect(pns: PNS) -> ZmqPeer:
    (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
    return ZmqPeer(url, ROVER, EVERYTHING, 1 << 20)


@pytest.fixture
def blocker() -> Iterator[int]:
    """A port that another program holds."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


MIXES: list[dict[str, Any]] = [
    {},
    {"transport__control": "zmq.blocking"},
    {f"transport__{stream.value}": "zmq.nonblocking" for stream in StreamType},
    {"transport__visualization": "zmq.nonblocking"},
    {"transport__motor": "zmq.nonblocking", "transport__visualization": "zmq.nonblocking"},
    {"transport__control": "zmq.nonblocking"},
]


@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "-".join(mix) or "default")
def test_an_agent_is_served_whichever_transport_carries_what(mix: dict[str, Any]) -> None:
    heard = threading.Event()

    def listen(_: SensoryData) -> None:
        heard.set()

    with create_pns_with_config(config(**mix)) as pns:
        pns.sensory_data_received.connect(listen)
        agent = connect(pns)
        try:
            (session,) = pns.sessions
            with frame(5) as fbc:
                pns.publish_motor(session.agent_id, fbc)
                pns.publish_visualization(fbc)
                assert counter_of(agent.receive_motor(DEADLINE_S)) == 5
                assert counter_of(agent.receive_visualization(DEADLINE_S)) == 5
                agent.send_sensory(fbc)
            assert heard.wait(DEADLINE_S)
        finally:
            agent.close()
    # After the end: a frame may arrive before its carrier has counted it.
    report = pns.telemetry()
    for stream in ("sensory", "motor", "visualization"):
        (carried,) = [row[stream] for row in report["transports"] if stream in row["streams"]]
        for row in (carried, report["totals"][stream]):
            assert (row["sent"], row["delivered"], row["latency"]["count"]) == (1, 1, 1), stream


def test_who_asked_for_zmq_is_counted_there_and_not_where_others_are_shown() -> None:
    with create_pns_with_config(config(transport__visualization="shm")) as pns:
        agent = connect(pns)
        try:
            with frame(5) as fbc:
                pns.publish_visualization(fbc)
            assert counter_of(agent.receive_visualization(DEADLINE_S)) == 5
        finally:
            agent.close()
    rows = {row["transport"]: row for row in pns.telemetry()["transports"]}
    assert rows["shm"]["visualization"]["sent"] == 0
    assert rows["zmq"]["visualization"]["sent"] == 1


def test_streams_of_one_transport_share_it() -> None:
    pns = create_pns_with_config(config())
    (only,) = pns.transports
    assert (only.backend_name, only.paradigm, only.carriers) == ("zmq", "blocking", {})
    mixed = create_pns_with_config(config(transport__visualization="zmq.nonblocking"))
    carrier, control = mixed.transports
    assert (carrier.paradigm, carrier.streams) == ("nonblocking", (StreamType.VISUALIZATION,))
    assert control.carriers == {StreamType.VISUALIZATION: carrier}
    assert StreamType.VISUALIZATION not in control.streams


def test_the_first_agent_gets_the_ports_of_the_urls() -> None:
    host = "127.91.7.3"  # nobody else's, so that a port found free stays free
    with socket.socket() as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    urls = {f"zmq__{name}": f"tcp://{host}:0" for name in ("rest", "motor", "sensory")}
    with create_pns_with_config(config(**urls, zmq__viz=f"tcp://{host}:{port}")) as pns:
        agent = ControlPeer(pns.endpoints[0]["control_url"])
        answer = agent.ask(RegistrationRequest(ROVER, EVERYTHING))
        assert isinstance(answer, RegistrationSuccess)
        shown = answer.endpoints[AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS]
        assert shown.url == f"tcp://{host}:{port}"
        agent.close()


def test_the_old_names_are_the_urls() -> None:
    with create_pns(
        zmq_rest="tcp://127.0.0.1:0",
        zmq_motor="tcp://127.0.0.1:*",
        zmq_viz="tcp://127.0.0.1:0",
        zmq_sensory="tcp://127.0.0.1:0",
    ) as pns:
        connect(pns).close()
    with pytest.raises(ConfigError, match=r"zmq\.motor is 'nonsense'"):
        create_pns(zmq_motor="nonsense")


def test_what_the_configuration_says_reaches_the_server(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_bytes(bytes(range(1, 33)))

    class Brain:
        def health(self) -> HealthReport:
            return HealthReport(True, True, True, neuron_count_max=7)

        def timestep_s(self) -> float:
            return 0.01

        def change_timestep(self, agent_id: bytes, timestep_s: float) -> bool:
            return False

    settings = config(limits__max_agents=1, limits__heartbeat_timeout_s=7.0)
    with create_pns_with_config(settings, brain=Brain()) as pns:
        agent = connect(pns)
        answer = agent.ask(HealthCheckRequest())
        assert isinstance(answer, HealthReport)
        assert (answer.neuron_count_max, answer.connected_agents) == (7, 1)
        transport: Any = pns.transports[0].transport
        assert (transport.registry.max_agents, transport.registry.timeout_s) == (1, 7.0)
        agent.close()
    with create_pns_with_config(config(auth__token_file=str(token))) as pns:
        stranger = ControlPeer(pns.endpoints[0]["control_url"])
        answer = stranger.ask(RegistrationRequest(ROVER, EVERYTHING))
        assert answer == RegistrationRefusal(RefusalReason.INVALID_AUTH)
        stranger.close()


def test_a_port_in_use_is_one_error_and_everything_is_closed(blocker: int) -> None:
    pns = create_pns_with_config(
        config(zmq__rest=f"tcp://127.0.0.1:{blocker}", transport__visualization="zmq.nonblocking")
    )
    with pytest.raises(PortBusyError, match=f"{blocker} is in use"):
        pns.start()
    with pytest.raises(ClosedError):
        pns.start()


def test_a_transport_that_is_not_there_is_named_with_its_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    present = {kind: place for kind, place in registry.TRANSPORTS.items() if kind[0] != "udp"}
    monkeypatch.setattr(registry, "TRANSPORTS", present)
    with pytest.raises(
        ConfigError,
        match=r"transport\.visualization is 'udp' \(udp_optimized\(\)\).*zmq\.blocking.*'udp'",
    ):
        create_pns_with_config(PNSConfig.udp_optimized())
    with pytest.raises(ConfigError, match=r"transport\.motor is 'mybus\.blocking'"):
        create_pns_with_config(config(transport__motor="mybus.blocking"))


def udp_optimized(**more: object) -> PNSConfig:
    """`PNSConfig.udp_optimized()` on ports of the system's choice."""
    here = dataclasses.replace(PNSConfig.udp_optimized(), zmq=config(**more).zmq)
    return dataclasses.replace(here, udp=config(**more).udp)


@pytest.mark.parametrize("control", ["zmq.blocking", "zmq.nonblocking"])
def test_udp_optimized_serves_who_asks_for_it_and_who_does_not(control: str) -> None:
    settings = udp_optimized()
    settings = dataclasses.replace(
        settings, transport=dataclasses.replace(settings.transport, control=control)
    )
    settings = dataclasses.replace(
        settings,
        transport=dataclasses.replace(settings.transport, sensory=control, motor=control),
    )
    with create_pns_with_config(settings) as pns:
        plain = connect(pns)  # as the real client asks
        (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
        asker = ControlPeer(url)
        answer = asker.ask(
            RegistrationRequest(
                AgentDescriptor("feagi-io tests", "viewer", 1), EVERYTHING, ConnectionProtocol.UDP
            )
        )
        assert isinstance(answer, RegistrationSuccess)
        assert {capability: end.protocol.value for capability, end in answer.endpoints.items()} == {
            AgentCapabilities.SEND_SENSOR_DATA: "Zmq",
            AgentCapabilities.RECEIVE_MOTOR_DATA: "Zmq",
            AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: "Udp",
        }
        far = Far(
            answer.endpoints[AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS].url,
            StreamType.VISUALIZATION,
        ).welcome()
        try:
            with frame(5) as fbc:
                pns.publish_visualization(fbc)
                assert counter_of(plain.receive_visualization(DEADLINE_S)) == 5
                assert bytes(far.take()) == bytes(fbc.view)
            rows = {row["transport"]: row["control"] for row in pns.telemetry()["transports"]}
            (session,) = rows["udp"]["sessions"]
            assert session["stream"] == "visualization"
            assert session["peer"] is not None
        finally:
            plain.close()
            asker.close()
            far.close()
    shown = pns.telemetry()["totals"]["visualization"]
    assert (shown["sent"], shown["delivered"]) == (2, 2)


def test_what_the_configuration_says_of_udp_reaches_it() -> None:
    made = udp_optimized(
        udp__endpoint="udp://127.0.0.1:0",
        udp__check="tag",
        udp__datagram_bytes=8972,
        udp__oversize="fragment",
        udp__parity_group=8,
        udp__multicast="udp://239.1.2.3:5562",
        udp__multicast_interface="127.0.0.1",
    )
    (carrier, _) = create_pns_with_config(made).transports
    settings = getattr(carrier.transport, "settings")  # noqa: B009
    assert (settings.address, settings.port) == ("127.0.0.1", 0)
    assert (settings.agreed_check.value, settings.fragments.oversize.value) == ("tag", "fragment")
    assert (settings.datagram_bytes, settings.parity_group) == (8972, 8)
    assert (settings.group.group, settings.group.port) == ("239.1.2.3", 5562)
    far_away = udp_optimized(
        zmq__rest="tcp://0.0.0.0:0", zmq__motor="tcp://0.0.0.0:0",
        zmq__sensory="tcp://0.0.0.0:0", zmq__viz="tcp://0.0.0.0:0",
        zmq__advertised_address="10.0.0.7",
    )  # fmt: skip
    far_away = dataclasses.replace(far_away, auth=AuthSettings(open_to_everybody=True))
    (carrier, _) = create_pns_with_config(far_away).transports
    settings = getattr(carrier.transport, "settings")  # noqa: B009
    assert (settings.address, settings.advertised) == ("0.0.0.0", "10.0.0.7")
    assert settings.agreed_check.value == "tag"


@pytest.mark.parametrize("stream", ["motor", "control"])
def test_udp_is_not_for_what_must_arrive(stream: str) -> None:
    with pytest.raises(ConfigError, match=rf"transport\.{stream} is 'udp'.*Name zmq there"):
        create_pns_with_config(config(**{f"transport__{stream}": "udp"}))


def test_what_cannot_be_had_together_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"zmq\.rest on 127\.0\.0\.2; name the same host"):
        create_pns_with_config(config(zmq__rest="tcp://127.0.0.2:0"))
    with pytest.raises(ConfigError, match=r"virtual.*cannot carry single streams"):
        create_pns_with_config(config(transport__motor="virtual"))
    with pytest.raises(ConfigError, match="unexpected keyword argument 'carriers'"):
        create_pns_with_config(config(transport__control="virtual"))


def test_other_machines_are_let_in_only_when_that_is_said() -> None:
    everywhere = {f"zmq__{name}": "tcp://0.0.0.0:0" for name in ("rest", "motor", "viz", "sensory")}
    with pytest.raises(ConfigError, match="no token"):
        create_pns_with_config(config(**everywhere))
    with pytest.raises(ConfigError, match="advertised_address"):
        create_pns_with_config(config(**everywhere, auth__open_to_everybody=True))
    pns = create_pns_with_config(
        config(**everywhere, auth__open_to_everybody=True, zmq__advertised_address="127.0.0.1")
    )
    with pns:
        connect(pns).close()


def test_every_stream_may_be_virtual(caplog: pytest.LogCaptureFixture) -> None:
    streams = {f"transport__{stream.value}": "virtual" for stream in StreamType}
    with caplog.at_level(logging.WARNING), create_pns_with_config(config(**streams)) as pns:
        transport: Any = pns.transports[0].transport
        agent = transport.connect(ROVER, EVERYTHING)
        with frame(2) as fbc:
            pns.publish_motor(None, fbc)
        assert counter_of(agent.receive_motor(DEADLINE_S)) == 2
    assert caplog.records == []
