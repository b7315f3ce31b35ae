# SPDX-License-Identifier: Apache-2.0
"""create_pns with WebSocket: beside ZMQ, instead of it, and for single streams."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.errors import ConfigError, RegistrationRefusedError
from feagi_io_host.core.messages import ConnectionProtocol, RegistrationRequest, RegistrationSuccess
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.pns import PNS
from tests.feagi_io_host.test_create import EVERYTHING, config, frame
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ControlPeer

ANYWHERE = "ws://127.0.0.1:0"


def url(pns: PNS, scheme: str) -> str:
    (found,) = [
        row["control_url"]
        for row in pns.endpoints
        if row["control_url"] and row["control_url"].startswith(f"{scheme}:")
    ]
    return str(found)


def agent_at(address: str, name: str = "rover", **settings: Any) -> FeagiAgent:
    return FeagiAgent(AgentDescriptor("feagi-io tests", name, 1), EVERYTHING, address, **settings)


def see_that_it_is_served(pns: PNS, agent: FeagiAgent) -> None:
    """Motor, visualization and sensory frames of one agent."""
    heard = threading.Event()
    handle = pns.sensory_data_received.connect(
        lambda data: heard.set() if data.agent_id == agent.agent_id else None
    )
    with frame(5) as fbc:
        pns.publish_motor(agent.agent_id, fbc)
        pns.publish_visualization(fbc)
        for received in (
            agent.receive_motor(DEADLINE_S),
            agent.receive_visualization(DEADLINE_S),
        ):
            assert received is not None
            assert received.get_increment_counter() == 5
        agent.send_sensory(fbc)
    assert heard.wait(DEADLINE_S)
    pns.sensory_data_received.disconnect(handle)


def test_agents_come_over_both_at_the_same_time() -> None:
    with (
        create_pns_with_config(config(websocket__endpoint=ANYWHERE)) as pns,
        agent_at(url(pns, "tcp")) as zmq,
        agent_at(url(pns, "ws"), "scout") as websocket,
    ):
        assert [s.descriptor.agent_name for s in pns.sessions] == ["rover", "scout"]
        see_that_it_is_served(pns, zmq)
        see_that_it_is_served(pns, websocket)
        rows = {row["transport"]: row for row in pns.telemetry()["transports"]}
        assert rows["websocket"]["control"]["registered"] == 1
        assert rows["websocket"]["control"]["connections"] == 4
        assert rows["websocket"]["motor"]["delivered"] == 1
        assert rows["zmq"]["control"]["registered"] == 1
        assert rows["zmq"]["motor"]["delivered"] == 1


def test_websocket_alone_lets_in_and_the_token_is_asked_for(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_bytes(bytes(range(1, 33)))
    settings = config(
        websocket__endpoint=ANYWHERE,
        auth__token_file=str(token),
        **{
            f"transport__{stream}": "websocket"
            for stream in ("control", "sensory", "motor", "visualization")
        },
    )
    with create_pns_with_config(settings) as pns:
        (only,) = pns.transports
        assert (only.backend_name, only.paradigm) == ("websocket", "nonblocking")
        with agent_at(url(pns, "ws"), token=bytes(range(1, 33))) as agent:
            see_that_it_is_served(pns, agent)
        stranger = agent_at(url(pns, "ws"))
        with pytest.raises(RegistrationRefusedError, match="token"):
            stranger.connect(DEADLINE_S)
        stranger.close()


def test_a_stream_of_an_agent_that_registers_over_zmq_may_go_over_websocket() -> None:
    with create_pns_with_config(config(transport__visualization="websocket")) as pns:
        asker = ControlPeer(url(pns, "tcp"))
        try:
            answer = asker.ask(
                RegistrationRequest(
                    AgentDescriptor("feagi-io tests", "viewer", 1),
                    EVERYTHING,
                    ConnectionProtocol.WEBSOCKET,
                )
            )
            assert isinstance(answer, RegistrationSuccess)
            protocols = sorted(end.protocol.value for end in answer.endpoints.values())
            assert protocols == ["WebSocket", "Zmq", "Zmq"]
        finally:
            asker.close()


def test_settings_reach_the_transport_and_those_that_do_not_fit_are_named() -> None:
    made = config(
        websocket__endpoint=ANYWHERE,
        websocket__allowed_origins="http://localhost:8080 null",
        websocket__ping_interval_s=3.0,
        websocket__send_buffer_bytes=65536,
    )
    carrier, _ = create_pns_with_config(made).transports
    settings = getattr(carrier.transport, "settings")  # noqa: B009
    assert settings.origins == ("http://localhost:8080", "null")
    assert (settings.ping_interval_s, settings.send_buffer_bytes) == (3.0, 65536)
    with pytest.raises(ConfigError, match=r"wss://127\.0\.0\.1:0 .*needs certificate"):
        create_pns_with_config(config(websocket__endpoint="wss://127.0.0.1:0"))
    with pytest.raises(ConfigError, match="no token"):
        create_pns_with_config(config(websocket__endpoint="ws://0.0.0.0:0"))
    for bad in ("localhost:80", "http://a b/", "ftp://x"):
        with pytest.raises(ConfigError, match=r"websocket\.allowed_origins"):
            PNSConfig.from_sources(arguments={"websocket.allowed_origins": bad})
    with pytest.raises(ConfigError, match="both listen on port 30001"):
        PNSConfig.from_sources(arguments={"websocket.endpoint": "ws://127.0.0.1:30001"})
