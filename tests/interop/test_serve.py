# SPDX-License-Identifier: Apache-2.0
"""`feagi-io serve` as a user runs it, with FEAGI's real client; `feagi-io agents` at both ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from feagi_io_host.cli.agents import AgentsView
from tests.interop.raw_agent import RawAgent
from tests.interop.real_client import DEADLINE_S, RealClient
from tools.engine import Engine

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
SENSORY = TESTS / "vectors" / "valid" / "v36_cap_sensory_real_client.bin"
DEVICES = TESTS / "vectors" / "device_registrations.json"
PORTS = [
    part
    for name in ("rest", "sensory", "motor", "viz")
    for part in (f"--zmq-{name}", "tcp://127.0.0.1:0")
]


class Served:
    """`feagi-io serve --json` in a process of its own, over ZMQ and over WebSocket."""

    def __init__(self, configuration: Path) -> None:
        configuration.write_text('[websocket]\nendpoint = "ws://127.0.0.1:0"\n', encoding="utf-8")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "feagi_io_host.cli", "serve", *PORTS, "--status", "0"),
                *("--config", str(configuration), "--json"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started = self.next("started")
        urls = started["control_urls"]
        self.urls = {str(url).partition(":")[0]: str(url) for url in urls}
        assert sorted(self.urls) == ["tcp", "ws"]
        self.status_url: str = started["status_url"]

    def next(self, event: str) -> dict[str, Any]:
        """The next line of this kind."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            value: dict[str, Any] = json.loads(line)
            if value["event"] == event:
                return value
        raise AssertionError(f"it ended without {event!r}: {self.process.communicate()[1]}")

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Ctrl-C: exit status, last figures and standard error."""
        self.process.send_signal(signal.SIGINT)
        telemetry = self.next("stopped")["telemetry"]
        _, errors = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, telemetry, errors


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    running = Served(tmp_path / "feagi-io.toml")
    yield running
    if running.process.poll() is None:
        running.process.kill()
    running.process.communicate()


def both_units() -> str:
    """The details of an infrared sensor and a rotary motor, as the real client wrote each."""
    devices = json.loads(DEVICES.read_text(encoding="utf-8"))
    details = devices["sensor_Infrared_register group=0 absolute linear"]["registration"]
    motor = devices["motor_rotary_motor_register group=0 absolute linear"]["registration"]
    outputs = "output_units_and_decoder_properties"
    return json.dumps(details | {outputs: motor[outputs]})


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_the_real_client_is_moved_by_the_reflex(
    served: Served, require: Callable[[str], ModuleType | str], scheme: str
) -> None:
    require("feagi_rust_py_libs")
    real = RealClient(served.urls[scheme])
    try:
        real.ask("connect")
        registered = served.next("registered")
        assert (registered["agent_name"], registered["manufacturer"]) == ("real", "feagi-io test")
        real.ask("send_device_configuration", both_units())
        assert served.next("configured")["not_wired"] is None
        # Channel 0 at step 6, channel 1 at step 4: 3/16 and 7/16, so 1 - 2 z / 7 next to that.
        sensed = {"hex": SENSORY.read_bytes().hex()}
        deadline_s = time.monotonic() + DEADLINE_S
        moved: dict[str, Any] = {}
        while "b21vdAUAAAA=" not in moved:
            assert time.monotonic() < deadline_s, "the reflex did not move it"
            real.ask("send_sensory_bytes", sensed)
            moved = real.ask("motor") or {}
        assert moved == {"b21vdAUAAAA=": {"x": [0, 1], "y": [0, 0], "z": [3, 2], "p": [1.0, 1.0]}}

        view = AgentsView(served.status_url)
        view.look()
        (row,) = view.look()
        assert (row["agent_name"], row["agent_id"]) == ("real", registered["agent_id"])
        real.ask("disconnect")
        assert served.next("gone")["reason"] == "left: 'python-sdk disconnect'"
    finally:
        real.close()
    status, telemetry, errors = served.end()
    assert (status, errors) == (0, "")
    assert telemetry["totals"]["sensory"]["delivered"] >= 1
    assert telemetry["totals"]["motor"]["latency"]["count"] >= 1
    registered_at = {
        str(row["control_url"]).partition(":")[0]: row["control"]["registered"]
        for row in telemetry["transports"]
    }
    assert registered_at == {"tcp": 0, "ws": 0, scheme: 1}


def test_agents_of_the_real_engine(engine: Engine) -> None:
    engine.load_genome("barebones")
    view = AgentsView(engine.rest_url)
    assert view.look() == []
    with RawAgent(engine.registration_url) as agent:
        agent.register()
        (row,) = view.look()
    assert (row["agent_name"], row["state"]) == ("raw", "registered")
    assert not view.has_rates
    done = subprocess.run(
        [sys.executable, "-m", "feagi_io_host.cli", "agents", "--url", engine.rest_url, "--once",
         "--json"],
        capture_output=True, text=True, cwd=ROOT, timeout=30, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["url"] == engine.rest_url
