# SPDX-License-Identifier: Apache-2.0
"""What a status page or an engine's REST says, and what others say that answer in their place."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from feagi_io_host.burst.reflex import ReflexEngine
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ConfigError, PortError, RemoteError
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.pns import PNS
from feagi_io_host.viewer import RemoteSource, ViewerServer
from feagi_io_host.viewer.areas import KnownArea
from feagi_io_host.viewer.figures import Figures
from feagi_io_host.viewer.looks import ODD, EngineLook, JsonSite, StatusLook
from tests.feagi_io_host.viewer.bursts import CUSTOM, EYE
from tests.feagi_io_host.viewer.live import looking

HERE = "tcp://127.0.0.1:30001"
HEALTH = {
    "feagi_session": 1,
    "cortical_areas_hash": 2,
    "brain_geometry_hash": 3,
    "cortical_area_count": 2,
}


@contextmanager
def site(answers: dict[str, Any]) -> Iterator[str]:
    """A server that answers each path with JSON, bytes or a status."""

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            value = answers.get(self.path, 404)
            status = value if isinstance(value, int) else 200
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def report(url: str = HERE) -> dict[str, Any]:
    engine = ReflexEngine(rate_hz=50)
    with PNS() as pns:
        pns.attach_agent(
            AgentDescriptor("feagi-io", "rover", 1), AgentCapabilities.RECEIVE_MOTOR_DATA
        )
        snapshot = {**pns.telemetry(), "engine": engine.telemetry()}
    engine.stop()
    return {**snapshot, "endpoints": [{"control_url": url}, {"control_url": None}]}


def test_rates_are_those_between_two_looks() -> None:
    figures = Figures()
    first, second = report(), report()
    first["uptime_s"], second["uptime_s"] = 10.0, 12.0
    row = second["totals"]["sensory"]
    row["delivered"], row["dropped"], row["queued"] = 100, {"full": 3, "damaged": 2}, 7
    row["latency"].update(count=100, p50_ms=0.5, p99_ms=2.0)
    second["agents"][0]["motor"]["delivered"] = 40
    assert figures.state(first)["streams"]["sensory"]["rate_hz"] is None
    state = figures.state(second)
    assert state["streams"]["sensory"] == {
        "rate_hz": 50.0, "delivered": 100, "dropped": 5, "queue": 7, "p50_ms": 0.5, "p99_ms": 2.0,
    }  # fmt: skip
    assert state["streams"]["motor"]["p50_ms"] is None
    assert state["paused"] is False
    (agent,) = state["agents"]
    assert agent["name"] == "rover"
    assert agent["capabilities"] == ["receive_motor_data"]
    second["uptime_s"] = 12.1  # too soon: the rates stay
    assert figures.state(second)["streams"]["sensory"]["rate_hz"] == 50.0
    first["uptime_s"] = 0.5  # it was restarted
    assert figures.state(first)["streams"]["sensory"]["rate_hz"] is None


def test_a_status_page_is_believed_only_if_it_is_that_of_the_server() -> None:
    with site({"/telemetry": report()}) as url:
        look = StatusLook(url, "tcp://localhost:30001")
        state = look.state()
        assert [agent["name"] for agent in state["agents"]] == ["rover"]
        assert look.rate_hz == pytest.approx(50)
        with pytest.raises(RemoteError, match="another server"):
            StatusLook(url, "tcp://127.0.0.1:30005").state()


def engine_site(**instead: Any) -> dict[str, Any]:
    geometry = {
        EYE.as_base_64(): {"cortical_dimensions": [2, 1, 8], "cortical_name": "Eye"},
        CUSTOM.as_base_64(): {"cortical_dimensions": [1, 2, 3], "cortical_name": 5},
        "no id": {"cortical_dimensions": [1, 1, 1], "cortical_name": "x"},
        "Y2JpZ2dlcl8=": {"cortical_dimensions": [1 << 40, 1, 1], "cortical_name": "x"},
        "Y2RpbWVuc18=": {"cortical_dimensions": ["a"], "cortical_name": "x"},
        "Y25vZGltXzE=": 7,
    }
    return {
        "/v1/burst_engine/status": {"burst_count": 5, "paused": True, "frequency_hz": 15.0},
        "/v1/system/health_check": HEALTH,
        "/v1/cortical_area/cortical_area/geometry": geometry,
        "/v1/agent/list": ["AAEC"],
        "/v1/agent/capabilities/all": {
            "AAEC": {"agent_name": "rover", "capabilities": {"receive_motor_data": True}}
        },
        **instead,
    }


def test_what_an_engine_tells() -> None:
    with site(engine_site()) as url:
        look = EngineLook(url)
        state = look.state()
        assert look.rate_hz == 15.0
        assert look.areas == (KnownArea(EYE, (2, 1, 8), "Eye"), KnownArea(CUSTOM, (1, 2, 3), None))
        assert state["paused"] is True
        assert state["bursts"] == 5
        (agent,) = state["agents"]
        assert agent["id"] == "000102"
        assert agent["state"] == "REGISTERED"
        assert agent["name"] == "rover"
        assert agent["p50_ms"] is None


def test_areas_are_asked_for_again_when_they_have_changed() -> None:
    answers = engine_site()
    with site(answers) as url:
        look = EngineLook(url)
        look.state()
        geometry = answers["/v1/cortical_area/cortical_area/geometry"]
        answers["/v1/cortical_area/cortical_area/geometry"] = 500  # busy: it keeps what it has
        answers["/v1/system/health_check"] = {**HEALTH, "cortical_areas_hash": 9}
        look.state()
        assert len(look.areas) == 2
        answers["/v1/cortical_area/cortical_area/geometry"] = dict([geometry.popitem()])
        look.state()
        assert look.areas == ()


@pytest.mark.parametrize(
    "odd",
    [
        b"", b"{", b"[" * 100_000, b"\xff", [], {}, "x", 7.5, None, 500, 302, True,
        {"agents": {}, "endpoints": 5, "totals": [], "uptime_s": "x"},
        {"burst_count": "x", "paused": 1, "frequency_hz": []},
        {"burst_count": 10**400, "paused": 1, "frequency_hz": 1e400},
    ],
)  # fmt: skip
def test_other_answers_are_errors_with_names(odd: Any) -> None:
    for path in ("/v1/burst_engine/status", "/v1/system/health_check", "/v1/agent/list"):
        with site(engine_site(**{path: odd})) as url:
            if (path, odd) == ("/v1/agent/list", []):
                assert EngineLook(url).state()["agents"] == []
                continue
            with pytest.raises((PortError, RemoteError, *ODD)):
                EngineLook(url).state()
    with site({"/telemetry": odd}) as url, pytest.raises((PortError, RemoteError, *ODD)):
        StatusLook(url, HERE).state()


def test_addresses_that_cannot_be() -> None:
    for url in ("127.0.0.1:8000", "https://127.0.0.1", "http://h:99999", "http://h/x", "http://"):
        with pytest.raises(ConfigError, match="http://host:port"):
            JsonSite(url)
        with pytest.raises(ConfigError, match="http://host:port"):
            RemoteSource(HERE, rest_url=url)
    with pytest.raises(ConfigError):
        RemoteSource("nonsense")


def test_a_brain_that_is_not_there_is_waited_for_and_nothing_is_made_up() -> None:
    with site({}) as url:
        source = RemoteSource("tcp://127.0.0.1:1", rest_url=url)
        with ViewerServer(source, assets={}) as viewer, looking(viewer) as page:
            source.start(viewer)
            state = page.text("state")
            assert state["bursts"] is None
            assert state["streams"]["motor"]["rate_hz"] is None
            assert state["agents"] == []
            assert page.texts[0]["source"] == "tcp://127.0.0.1:1"
        source.stop()
    source.stop()
