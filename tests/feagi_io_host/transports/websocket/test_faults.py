# SPDX-License-Identifier: Apache-2.0
"""Slow, stopped and killed ends: the brain never waits for one, and service comes back."""

from __future__ import annotations

import collections
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.bench.lines import encode
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import DeliveryTimeoutError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW
from tests.feagi_io_host.transports.websocket.peer import WebSocketPeer
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S, Served

HERE = Path(__file__).parent
SERVER = HERE.parent.parent / "agent" / "server_process.py"
BURST = 200_000  # neurons
QUICK = {"ping_interval_s": 0.2, "ping_timeout_s": 0.3, "close_timeout_s": 0.2}
LIMITS = ServerLimits(takeover_s=0.0)
TIMING = ClientTiming(backoff_first_s=0.02, backoff_limit_s=0.1)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[subprocess.Popen[str]] = []

    def make(script: Path, *arguments: str) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen(
                [sys.executable, str(script), *arguments], stdout=subprocess.PIPE, text=True
            )
        )
        return running[-1]

    yield make
    for process in running:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def numbered(counter: int, neurons: int = 0) -> SharedFBC:
    container = FeagiByteContainer.new_empty()
    encode(container, neurons, counter)
    return SharedFBC.adopt(container)


def agent_at(url: str, capabilities: AgentCapabilities, name: str = "reader") -> FeagiAgent:
    descriptor = AgentDescriptor("feagi-io test", name, 1)
    return FeagiAgent(descriptor, capabilities, url, timing=TIMING)


def until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again, without end only as long as the test may take."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.005)


@pytest.mark.slow
def test_ten_stalled_viewers_slow_no_motor_and_are_conflated() -> None:
    with Served(limits=LIMITS) as served:
        viewers = []
        for number in range(10):
            descriptor = AgentDescriptor("feagi-io test", f"stalled {number}", 1)
            connecting = WebSocketPeer.connect(served.url, descriptor, VIEW)
            viewers.append(served.call(connecting))
        for viewer in viewers:
            viewer.streams[VIEW].transport.pause_reading()
        with agent_at(served.url, MOVE) as agent:
            assert served.call(served.transport.wait_until_subscribed(agent.agent_id, DEADLINE_S))
            ways_s = []
            shown_s = []
            with numbered(0, BURST) as burst:
                for counter in range(60):
                    began_s = time.perf_counter()
                    served.handle.publish_visualization(burst)
                    shown_s.append(time.perf_counter() - began_s)
                    with numbered(counter) as command:
                        began_s = time.perf_counter()
                        served.handle.publish_motor(agent.agent_id, command)
                        received = agent.receive_motor(DEADLINE_S)
                        ways_s.append(time.perf_counter() - began_s)
                    assert received is not None
                    assert received.get_increment_counter() == counter
        # A copy of one burst for ten viewers is all that the others may ever have to wait for.
        assert statistics.median(ways_s[10:]) < 0.05
        assert statistics.median(shown_s[10:]) < 0.05
        sessions = [s for s in served.host.sessions if VIEW in s.capabilities]
        rows = [session.snapshot()["visualization"] for session in sessions]
        assert [row["sent"] for row in rows] == [60] * 10
        for row in rows:
            assert row["dropped"]["conflated"] >= 50
            assert row["queued"] <= 1
        for viewer in viewers:
            served.call(viewer.cut())


@pytest.mark.slow
def test_a_stopped_agent_is_let_go_and_comes_back(start: Start) -> None:
    with Served(settings=QUICK, limits=LIMITS) as served:
        other = start(HERE / "agent_process.py", served.url)
        assert line(other) == "in"
        (session,) = served.host.sessions
        other.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(other.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        with numbered(1, BURST) as burst:
            served.handle.publish_visualization(burst)  # never waits
            served.handle.publish_visualization(burst)
            command = partial(served.handle.publish_motor, None, burst)
            with pytest.raises(DeliveryTimeoutError, match="other process"):
                collections.deque((command() for _ in range(1000)), maxlen=0)
        until(lambda: session.closed, "still there")
        assert served.host.left == [(session.agent_id, "its connection has ended")]
        other.send_signal(signal.SIGCONT)
        until(lambda: bool(served.host.sessions), "did not come back")
        told: SimpleQueue[str] = SimpleQueue()
        assert other.stdout is not None
        reader = threading.Thread(target=lambda out: [told.put(text) for text in out],
                                  args=(other.stdout,))  # fmt: skip
        reader.start()
        with numbered(77) as command:

            def moved() -> bool:
                served.handle.publish_motor(None, command)
                return not told.empty() and told.get().strip() == "77"

            until(moved, "it is not moved")
        other.kill()
        reader.join(DEADLINE_S)


def test_a_killed_agent_is_gone_at_once(start: Start) -> None:
    with Served(limits=LIMITS) as served:
        other = start(HERE / "agent_process.py", served.url)
        assert line(other) == "in"
        (session,) = served.host.sessions
        other.kill()
        until(lambda: session.closed, "still there")
        assert served.host.left == [(session.agent_id, "its connection has ended")]
        until(lambda: not served.transport.counters()["connections"], "connections left")


@pytest.mark.slow
def test_a_killed_server_is_found_again(start: Start) -> None:
    settings: dict[str, Any] = {
        f"transport.{stream}": "websocket"
        for stream in ("control", "sensory", "motor", "visualization")
    }
    server = start(SERVER, json.dumps({**settings, "websocket.endpoint": "ws://127.0.0.1:0"}))
    url = line(server)
    with agent_at(url, SENSE | MOVE | VIEW) as agent:
        assert agent.receive_motor(DEADLINE_S) is not None
        server.kill()
        killed_s = time.monotonic()
        until(lambda: agent.state.name == "PENDING", "not noticed")
        assert time.monotonic() - killed_s < 1.0  # no heartbeat had to be missed
        start(SERVER, json.dumps({**settings, "websocket.endpoint": url.rstrip("/")}))
        until(lambda: agent.counters()["registrations"] == 2, "not back")
        while agent.receive_motor(0) is not None:
            pass
        assert agent.receive_motor(DEADLINE_S) is not None
        assert agent.receive_visualization(DEADLINE_S) is not None
