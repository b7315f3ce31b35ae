# SPDX-License-Identifier: Apache-2.0
"""The main job: a real MicroPython process balances a pole because our brain moves it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.micropython]

FEAGI_IO = [sys.executable, "-c", "from feagi_io_host.cli import main; main()"]


@pytest.fixture(autouse=True)
def _needs_micropython(require: Callable[[str], Any]) -> None:
    require("micropython_unix")


def run_demo(*options: str, timeout_s: float = 40.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FEAGI_IO, "demo", *options],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_brain_holds_the_pole() -> None:
    done = run_demo("--seconds", "6", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["upright"] is True
    assert report["fell_after_s"] is None
    assert report["seconds"] == pytest.approx(6, abs=0.5)
    assert report["bursts"] > 400
    assert report["sensory"] > 300
    assert report["motor"] > 300
    assert report["lost"] == 0
    assert 0 < report["rtt_ms"]["p50"] <= report["rtt_ms"]["p99"]
    assert report["interpreter"].startswith("micropython ")
    assert report["board_restarts"] == 0


def test_without_the_brain_it_falls_within_two_seconds() -> None:
    done = run_demo("--no-brain", "--seconds", "10", "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["upright"] is False
    assert 0.3 < report["fell_after_s"] < 2.0
    assert report["motor"] == 0
    assert report["sensory"] > 20


def test_a_line_per_second_without_a_terminal() -> None:
    done = run_demo("--seconds", "3")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if " angle " in line]
    assert 3 <= len(lines) <= 5
    assert "the pole stood for" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_within_two_seconds_of_a_signal(number: signal.Signals) -> None:
    with subprocess.Popen(
        [*FEAGI_IO, "demo", "--seconds", "60"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            # seconds count from the first sensory frame: before it nobody knows of any pole
            if line.startswith("  1.") and "CONNECTED" in line:
                break
        process.send_signal(number)
        asked_s = time.monotonic()
        rest = process.stdout.read()
        assert process.wait(timeout=5) == 0
        assert time.monotonic() - asked_s < 2.0
    assert "the pole stood for" in rest


class RunningDemo:
    """A demo in a thread of its own, and what it said."""

    def __init__(self, seconds: float) -> None:
        from feagi_io_host.cli.demo.session import Demo, DemoResult, DemoSnapshot

        self.said: queue.Queue[str] = queue.Queue()
        self.shown: queue.Queue[DemoSnapshot] = queue.Queue()
        self.demo = Demo(seconds=seconds, say=self.said.put, show=self.shown.put)
        self.result: DemoResult | None = None
        self._thread = threading.Thread(target=self._run, name="demo")
        self._thread.start()

    def _run(self) -> None:
        self.result = self.demo.run()

    def wait_for(self, text: str, timeout_s: float = 10.0) -> None:
        until_s = time.monotonic() + timeout_s
        heard = []
        while True:
            try:
                heard.append(self.said.get(timeout=max(0.0, until_s - time.monotonic())))
            except queue.Empty:
                pytest.fail(f"nobody said {text!r} within {timeout_s} s, but: {heard}")
            if text in heard[-1]:
                return

    def wait_until(self, seconds: float, timeout_s: float = 15.0) -> None:
        """Until the demo itself has counted so many seconds."""
        until_s = time.monotonic() + timeout_s
        while self.shown.get(timeout=max(0.01, until_s - time.monotonic())).seconds < seconds:
            pass

    def finish(self, timeout_s: float = 30.0) -> Any:
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the demo did not end"
        return self.result

    def close(self) -> None:
        self.demo.stop.set()
        self._thread.join(10)


@pytest.fixture
def running() -> Iterator[Callable[[float], RunningDemo]]:
    started: list[RunningDemo] = []

    def start(seconds: float) -> RunningDemo:
        started.append(RunningDemo(seconds))
        return started[-1]

    yield start
    for run in started:
        run.close()


def test_killed_board_comes_back_and_the_pole_is_caught(
    running: Callable[[float], RunningDemo],
) -> None:
    run = running(8.0)
    run.wait_until(2.0)
    before = run.demo.watch.frames
    os.kill(run.demo.board.pid, signal.SIGKILL)
    run.wait_for("started again")
    run.wait_for("board up")
    result = run.finish()
    assert result.upright
    assert result.board_restarts == 1
    assert result.fell_after_s is None
    assert result.sensory > before + 200, "the new board was heard for seconds"


def test_killed_brain_leaves_the_board_fail_safe(
    running: Callable[[float], RunningDemo],
) -> None:
    run = running(20.0)
    run.wait_until(2.0)
    assert run.demo.engine is not None
    run.demo.engine.stop()
    run.wait_for("fail-safe")
    result = run.finish()
    assert not result.upright
    assert result.fell_after_s is not None, "nothing else holds the pole"
