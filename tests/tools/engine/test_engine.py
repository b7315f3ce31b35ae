# SPDX-License-Identifier: Apache-2.0
"""The life of an engine's process, with small programs in its place that misbehave on purpose."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tools.engine import (
    Engine,
    EngineFailedError,
    EngineRestError,
    EngineUnavailableError,
    Installation,
    OwnAddress,
    free_ports,
)

# Answers every REST request by its path, and hears no SIGTERM.
SERVES = """
import http.server, json, os, signal, sys, tomllib
signal.signal(signal.SIGTERM, signal.SIG_IGN)
api = tomllib.load(open(sys.argv[2], "rb"))["api"]
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *what):
        pass
    def do_GET(self):
        body = {"/text": b"no json", "/env": json.dumps(dict(os.environ)).encode()}
        if self.path == "/say":
            print("said", flush=True)
        self.send_response(404 if self.path == "/none" else 200)
        self.end_headers()
        self.wfile.write(body.get(self.path, b'{"well": true}'))
print("serving", flush=True)
http.server.HTTPServer((api["bind_host"], api["port"]), Handler).serve_forever()
"""
ENDS = "import sys; print('out of ideas'); sys.exit(3)"
SILENT = "import signal; print('thinking', flush=True); signal.pause()"


@pytest.fixture
def installed(tmp_path: Path, request: pytest.FixtureRequest) -> Installation:
    program = tmp_path / "program.py"
    program.write_text(request.param, encoding="utf-8")
    return Installation(tmp_path, (sys.executable, str(program)))


@pytest.fixture
def engine(installed: Installation) -> Iterator[Engine]:
    """One that is not started; killed, as most of these programs hear no SIGTERM."""
    made = Engine(installed)
    yield made
    made.kill()
    made.close()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("installed", [ENDS], indirect=True)
def test_one_that_ends_by_itself_is_told_with_its_last_words(engine: Engine) -> None:
    with pytest.raises(EngineFailedError, match=r"by itself with 3(?s:.)*out of ideas"), engine:
        pass
    assert not engine.folder.exists()


@pytest.mark.parametrize("installed", [SILENT], indirect=True)
def test_one_that_does_not_answer_is_ended_at_the_deadline(engine: Engine) -> None:
    began_s = time.monotonic()
    with pytest.raises(EngineFailedError, match=r"did not answer within 1\.0 s"):
        engine.start(timeout_s=1.0)
    assert 1.0 <= time.monotonic() - began_s < 10
    assert (engine.running, engine.pid) == (False, None)
    assert engine.log_tail() == "thinking"


@pytest.mark.parametrize("installed", [SERVES], indirect=True)
def test_life(engine: Engine) -> None:
    assert (engine.running, engine.pid, engine.log_tail()) == (False, None, "")
    engine.stop()
    engine.kill()
    engine.start()
    first = engine.pid
    assert engine.running
    assert first is not None
    with pytest.raises(EngineFailedError, match=f"runs already, as process {first}"):
        engine.start()
    # a program that hears no SIGTERM
    engine.stop(timeout_s=0.1)
    engine.stop()
    assert gone(first)
    assert engine.pid is None

    engine.start()
    second = engine.pid
    assert second not in (None, first)
    assert engine.log_tail(lines=2) == "serving\nserving"
    # ended by somebody else
    os.kill(second or 0, signal.SIGKILL)
    os.waitid(os.P_PID, second or 0, os.WEXITED | os.WNOWAIT)
    assert not engine.running
    engine.start()
    engine.kill()
    engine.close()
    engine.close()
    assert not engine.folder.exists()
    with pytest.raises(EngineFailedError, match="closed"):
        engine.start()


@pytest.mark.parametrize("installed", [SERVES], indirect=True)
def test_rest(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEAGI_ZMQ_MOTOR_PORT", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    engine.start()
    assert engine.rest("GET", "/v1/anything") == {"well": True}
    with pytest.raises(EngineRestError, match="GET /none was answered with HTTP 404"):
        engine.rest("GET", "/none")
    with pytest.raises(EngineFailedError, match="7 bytes that are no JSON: b'no json'"):
        engine.rest("GET", "/text")
    seen = engine.rest("GET", "/env")
    assert not {"FEAGI_ZMQ_MOTOR_PORT", "LD_LIBRARY_PATH"} & seen.keys()
    assert seen["FEAGI_CONFIG_PATH"] == str(engine.folder / "feagi_configuration.toml")
    engine.kill()
    with pytest.raises(EngineFailedError, match=r"GET /v1/anything at http://.* got no answer"):
        engine.rest("GET", "/v1/anything")


@pytest.mark.parametrize("installed", [SERVES], indirect=True)
def test_a_long_log_is_emptied_and_written_on(engine: Engine) -> None:
    assert not engine.trim_log(0)
    engine.start()
    assert not engine.trim_log(len("serving\n"))
    assert engine.trim_log(len("serving\n") - 1)
    assert engine.log_tail() == ""
    engine.rest("GET", "/say")
    assert (engine.folder / "engine.log").read_bytes() == b"said\n"


@pytest.mark.parametrize("installed", [SERVES], indirect=True)
def test_a_taken_port_is_refused_before_anything_starts(
    engine: Engine, installed: Installation
) -> None:
    engine.start()
    ports = replace(free_ports(engine.host), rest=engine.ports.rest)
    second = Engine(installed, host=engine.host, ports=ports)
    with pytest.raises(EngineFailedError, match=rf"port {ports.rest} \(rest\) on"):
        second.start()
    assert second.log_tail() == ""
    second.close()


def test_addresses_differ_and_come_back() -> None:
    one, two = OwnAddress(), OwnAddress()
    hosts = one.host, two.host
    assert len(set(hosts)) == 2
    assert all(host.startswith("127.") for host in hosts)
    one.close()
    again = OwnAddress()
    assert again.host == hosts[0]
    again.close()
    two.close()


def test_no_address_left(monkeypatch: pytest.MonkeyPatch) -> None:
    # 240.0.0.0, reserved: unlike the addresses for documents no machine can be given one
    monkeypatch.setattr("tools.engine.settings._FIRST_ADDRESS", 0xF000_0000)
    monkeypatch.setattr("tools.engine.settings._ADDRESSES", 250)
    with pytest.raises(EngineUnavailableError, match=r"no address of the loopback.* 240\.0\.0\."):
        OwnAddress()
