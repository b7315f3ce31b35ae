# SPDX-License-Identifier: Apache-2.0
"""`feagi-io agents`: the table of our server and of an engine, and servers that are neither."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from feagi_io_host.cli.agents import HEADINGS, AgentsView, table_text, watch
from feagi_io_host.cli.app import app
from feagi_io_host.cli.status_page import StatusPage
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ConfigError, PortError, RemoteError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.pns import PNS
from feagi_io_host.testing import FakeClock

DEADLINE_S = 10.0
ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)


def feagi_io(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["agents", *arguments])


@contextmanager
def answering(answers: Mapping[str, bytes], status: int = 200) -> Iterator[str]:
    """A web server with these answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(404 if body is None else status)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture
def frame() -> Iterator[SharedFBC]:
    with SharedFBC.adopt(FeagiByteContainer.new_empty()) as fbc:
        yield fbc


def test_rates_come_with_the_second_look(frame: SharedFBC) -> None:
    clock = FakeClock()
    current: dict[str, Any] = {}
    with PNS(clock=clock) as pns:
        session = pns.attach_agent(ROVER, EVERYTHING)
        current.update(pns.telemetry())
        with StatusPage(lambda: dict(current), 0) as page:
            page._fresh = lambda: current  # type: ignore[method-assign]
            view = AgentsView(page.url)
            (row,) = view.look()
            assert (row["agent_name"], row["manufacturer"]) == ("rover", "feagi-io tests")
            assert (row["state"], row["sensory_hz"], row["dropped"]) == ("registered", None, 0)
            clock.advance(2.0)
            for _ in range(10):
                pns.publish_visualization(frame)
                taken = session.visualization.get(0.0)
                assert taken is not None
                taken.release()
            pns.publish_motor(None, frame)
            current.update(pns.telemetry())
            (row,) = view.look()
            assert (row["state"], row["visualization_hz"], row["motor_hz"]) == (
                "listening", 5.0, 0.0,
            )  # fmt: skip
            assert row["queued"] == 1
            session.close()
            current.update(pns.telemetry())
            assert view.look() == []
            assert view.has_rates


def test_once_waits_for_rates_and_json_is_one_object(frame: SharedFBC) -> None:
    with PNS() as pns, StatusPage(pns.telemetry, 0) as page:
        pns.attach_agent(ROVER, EVERYTHING)
        done = feagi_io("--url", page.url, "--once", "--json", "--interval", "0.3")
        assert done.exit_code == 0, done.stderr
        value = json.loads(done.stdout)
        assert value["url"] == page.url
        (row,) = value["agents"]
        assert (row["state"], row["sensory_hz"]) == ("silent", 0.0)
        text = feagi_io("--url", page.url, "--once", "--interval", "0.1").stdout
        assert text.split()[: len(HEADINGS[0].split())] == ["name"]
        assert "rover" in text


def test_lines_come_until_it_is_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    class Counted(AgentsView):
        looks = 0

        def look(self) -> list[dict[str, Any]]:
            self.looks += 1
            if self.looks == 3:
                stop.set()
            return []

    stop, view = threading.Event(), Counted("http://127.0.0.1:1")
    watch(view, stop, 0.001, once=False, as_json=False)
    assert capsys.readouterr().out.count("no agents") == view.looks == 3


def test_a_terminal_shows_it_in_place_until_ctrl_c() -> None:
    with PNS() as pns, StatusPage(pns.telemetry, 0) as page:
        pns.attach_agent(ROVER, EVERYTHING)
        ours, theirs = os.openpty()
        shown = b""
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "feagi_io_host.cli", "agents", "--url", page.url,
                 "--interval", "0.1"],
                stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            )  # fmt: skip
            os.close(theirs)
            while b"silent" not in shown:
                more = os.read(ours, 4096)
                assert more, shown
                shown += more
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
                while more := os.read(ours, 4096):
                    shown += more
            assert process.wait(DEADLINE_S) == 0, shown
        finally:
            os.close(ours)
    assert b"rover" in shown
    assert page.url.encode() in shown


def test_an_engine_has_names_and_no_figures() -> None:
    answers = {
        "/v1/agent/list": encoded(["AAAA", "BBBB"]),
        "/v1/agent/capabilities/all": encoded({"AAAA": {"agent_name": "raw"}}),
    }
    with answering(answers) as url:
        view = AgentsView(url)
        rows = view.look()
        assert [(row["agent_id"], row["agent_name"]) for row in rows] == [
            ("AAAA", "raw"), ("BBBB", ""),
        ]  # fmt: skip
        assert {row["state"] for row in rows} == {"registered"}
        assert not view.has_rates
        done = feagi_io("--url", url, "--once")
    assert done.exit_code == 0
    assert "raw" in done.stdout


def one_agent(**figures: object) -> dict[str, Any]:
    """A report of one agent that says something odd of its motor stream."""
    latency = {"p50_ms": 1.0, "p99_ms": 2.0} | figures
    row = {"delivered": 1, "dropped": {}, "queued": 0, "latency": latency} | figures
    who = {"agent_id": "00", "agent_name": "rover", "manufacturer": "tests"}
    return {"uptime_s": 1.0, "agents": [{**who, "sensory": row, "motor": row,
                                         "visualization": row}]}  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        ({}, 200, "neither /telemetry nor /v1/agent/list"),
        ({"/telemetry": b"<html>"}, 200, "6 bytes that are no JSON"),
        ({"/telemetry": b"[" * 100_000}, 200, "no JSON"),
        ({"/telemetry": b"{}"}, 200, "another shape"),
        ({"/telemetry": encoded({"uptime_s": 1, "agents": [1]})}, 200, "another shape"),
        ({"/telemetry": encoded(one_agent(dropped={"full": "many"}))}, 200, "another shape"),
        ({"/telemetry": encoded(one_agent(p50_ms="soon"))}, 200, "another shape"),
        ({"/telemetry": encoded(one_agent(p50_ms=10**400))}, 200, "another shape"),
        ({"/telemetry": encoded(one_agent(queued=10**400))}, 200, "another shape"),
        ({"/telemetry": encoded(one_agent(queued=[]))}, 200, "another shape"),
        ({"/telemetry": b"{}"}, 500, "HTTP 500"),
        ({"/v1/agent/list": encoded({"agents": 3})}, 200, "another shape"),
        ({"/v1/agent/list": b'["a"]', "/v1/agent/capabilities/all": b"[1]"}, 200, "another shape"),
        ({"/telemetry": b" " * ((1 << 24) + 1)}, 200, "more than 16777216 bytes"),
    ],
)
def test_a_server_that_is_neither(answers: dict[str, bytes], status: int, words: str) -> None:
    with answering(answers, status) as url, pytest.raises(RemoteError, match=words):
        AgentsView(url).look()


def test_nobody_there_is_one_error_and_status_1() -> None:
    with answering({}) as url:
        pass
    with pytest.raises(PortError, match="nobody answers"):
        AgentsView(url).look()
    done = feagi_io("--url", url)
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "feagi-io serve" in done.stderr


@pytest.mark.parametrize(
    "url", ["127.0.0.1:1", "https://a:1", "http://", "http://a:99999", "http://a/b"]
)
def test_urls_of_another_form(url: str) -> None:
    with pytest.raises(ConfigError, match=r"http://host:port|Port out of range"):
        AgentsView(url)


def test_what_an_agent_calls_itself_cannot_act_on_a_terminal() -> None:
    row = {
        "agent_id": "ab" * 48, "agent_name": "\x1b[2Jevil\n" + "x" * 90, "manufacturer": None,
        "state": "silent", "sensory_hz": 1.25, "motor_hz": 0.0, "visualization_hz": None,
        "dropped": 3, "queued": 0, "p50_ms": 0.5, "p99_ms": 1.234,
    }  # fmt: skip
    text = table_text([row])
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert "?[2Jevil?" in text
    assert text.splitlines()[1].split()[-4:] == ["3", "0", "0.50", "1.23"]
