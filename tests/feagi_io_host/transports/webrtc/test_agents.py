# SPDX-License-Identifier: Apache-2.0
"""FeagiAgent and AsyncFeagiAgent with streams over WebRTC, at a PNS made of a configuration."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ConfigError, RegistrationRefusedError
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.pns import PNS
from tests.feagi_io_host.agent.faces import AgentFace, face
from tests.feagi_io_host.agent.test_agents import number, voxels
from tests.feagi_io_host.agent.test_streams_over import Senses, all_three, ends_of
from tests.feagi_io_host.test_create import EVERYTHING, config, frame
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S

WEBRTC, WEBSOCKET = ConnectionProtocol.WEBRTC, ConnectionProtocol.WEBSOCKET
ROVER = AgentDescriptor("feagi-io test", "rover", 1)
DATA = ("sensory", "motor", "visualization")
EVERYWHERE = {f"transport__{stream}": "webrtc" for stream in DATA}
ANYWHERE = "ws://127.0.0.1:0"
BURST = 100_000  # neurons, 1.6 MB


def serve(**settings: str) -> PNS:
    return create_pns_with_config(config(websocket__endpoint=ANYWHERE, **settings))


def url_of(pns: PNS, scheme: str = "ws") -> str:
    urls = [str(row["control_url"]) for row in pns.endpoints if row["control_url"]]
    (url,) = [url for url in urls if url.startswith(f"{scheme}:")]
    return url


@pytest.fixture(params=[FeagiAgent, AsyncFeagiAgent], ids=["blocking", "nonblocking"])
def make_agent(request: pytest.FixtureRequest) -> Iterator[Any]:
    runtime, made = Runtime(), []

    def make(url: str, asked: ConnectionProtocol | None = WEBRTC, **settings: Any) -> AgentFace:
        timing = ClientTiming(max_refusals=0, backoff_first_s=0.02)
        agent = request.param(ROVER, EVERYTHING, url, streams_over=asked, timing=timing, **settings)
        made.append(face(agent, runtime))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
    runtime.close()


@pytest.mark.parametrize("carried", [DATA, ("visualization",)], ids=["all", "pictures"])
def test_frames_go_both_ways_and_each_stream_where_it_is_carried(
    make_agent: Any, carried: tuple[str, ...]
) -> None:
    with serve(**{f"transport__{stream}": "webrtc" for stream in carried}) as pns:
        agent = make_agent(url_of(pns))
        agent.connect(DEADLINE_S)
        for counter in range(1, 6):
            all_three(pns, agent, counter)
        rows = {row["transport"]: row for row in pns.telemetry()["transports"]}
        assert rows["webrtc"]["control"]["connections"] == 1
        assert rows["websocket"]["control"]["registered"] == 1
        agent.close()
        counted = agent.counters()
        assert ends_of(agent) == set(carried)
        for name in DATA:
            assert (counted[name]["sent"], counted[name]["delivered"]) == (5, 5), name
            assert counted[name]["dropped"] == {}


def test_large_frames_come_whole_both_ways(make_agent: Any) -> None:
    with serve(**EVERYWHERE) as pns, frame(0) as small:
        agent = make_agent(url_of(pns))
        agent.connect(DEADLINE_S)
        senses = Senses(pns)
        made = FeagiByteContainer()
        made.overwrite_byte_data_with_single_struct_data(voxels(BURST), 1)
        with SharedFBC.adopt(made) as burst:
            sent = bytes(burst.view)
            pns.publish_motor(agent.agent_id, burst)
            pns.publish_visualization(burst)
            for receive in (agent.receive_motor, agent.receive_visualization):
                received = receive(DEADLINE_S)
                assert received is not None
                assert bytes(received.get_byte_ref()) == sent
            agent.send_sensory(burst)
            assert senses() == sent
        pns.publish_motor(agent.agent_id, small)
        assert number(agent.receive_motor(DEADLINE_S)) == 0


def test_who_asks_for_nothing_special_is_served_over_websocket_or_zmq(make_agent: Any) -> None:
    with serve(**EVERYWHERE) as pns:
        for scheme in ("ws", "tcp"):
            agent = make_agent(url_of(pns, scheme), None)
            agent.connect(DEADLINE_S)
            all_three(pns, agent, 4)
            agent.close()
            assert ends_of(agent) == set()


def test_a_detached_agent_comes_back(make_agent: Any) -> None:
    with serve(**EVERYWHERE) as pns:
        agent = make_agent(url_of(pns))
        agent.connect(DEADLINE_S)
        all_three(pns, agent, 1)
        back = threading.Event()
        agent.on_state_change(lambda change: back.set() if change.reason == "registered" else None)
        pns.sessions[0].close("the brain has enough of it")
        assert back.wait(DEADLINE_S)
        all_three(pns, agent, 2)
        assert agent.counters()["registrations"] == 2
        agent.close()


def test_a_server_without_webrtc_refuses(make_agent: Any) -> None:
    with serve() as pns:
        agent = make_agent(url_of(pns))
        with pytest.raises(RegistrationRefusedError, match="leave streams_over out"):
            agent.connect(DEADLINE_S)
        with pytest.raises(ConfigError, match="WebRtc"):  # nobody could answer an offer there
            make_agent("tcp://127.0.0.1:9")


def test_an_agent_that_cannot_be_reached_says_why(make_agent: Any) -> None:
    with serve(**EVERYWHERE) as pns:
        # An address of the machine that is none.
        agent = make_agent(url_of(pns), webrtc={"addresses": ("203.0.113.1",)})
        lost = threading.Event()
        agent.on_state_change(
            lambda change: lost.set() if "no address to offer" in change.reason else None
        )
        agent.connect(DEADLINE_S)
        assert lost.wait(DEADLINE_S)
        agent.close()


def test_settings_reach_the_transport_and_those_that_do_not_fit_are_named() -> None:
    made = config(
        websocket__endpoint=ANYWHERE,
        transport__visualization="webrtc",
        webrtc__addresses="192.0.2.7 ::1",
        webrtc__ice_servers="stun:stun.example:3478 turn:me:p%40ss@turn.example",
        webrtc__silence_timeout_s=9.0,
        webrtc__message_bytes=1024,
    )
    (handle,) = [h for h in create_pns_with_config(made).transports if h.backend_name == "webrtc"]
    settings = getattr(handle.transport, "settings")  # noqa: B009
    assert settings.addresses == ("192.0.2.7", "::1")
    assert (settings.silence_timeout_s, settings.message_bytes) == (9.0, 1024)
    stun, turn = settings.servers
    assert (stun.urls, turn.urls) == ("stun:stun.example:3478", "turn:turn.example")
    assert (turn.username, turn.credential) == ("me", "p@ss")
    with pytest.raises(ConfigError, match=r"register over WebSocket: set websocket\.endpoint"):
        create_pns_with_config(config(transport__visualization="webrtc"))
    with pytest.raises(ConfigError, match="no place to register"):
        create_pns_with_config(config(transport__control="webrtc", **EVERYWHERE))
    for setting, bad in (
        ("addresses", "localhost"),
        ("addresses", "0.0.0.0"),
        ("addresses", ""),
        ("ice_servers", "http://stun.example"),
        ("ice_servers", "turn:turn.example"),
        ("ice_servers", "stun:me:secret@stun.example"),
    ):
        with pytest.raises(ConfigError, match=rf"webrtc\.{setting}"):
            PNSConfig.from_sources(arguments={f"webrtc.{setting}": bad})
