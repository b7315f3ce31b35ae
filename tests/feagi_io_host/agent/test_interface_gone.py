# SPDX-License-Identifier: Apache-2.0
"""The network interface that an agent reaches its server by is taken away, and comes back.

In a network namespace of its own, in a process of its own: nothing of this machine changes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 60.0

_STORY = """
import subprocess, threading
from feagi_io_host import (
    AgentCapabilities, AgentDescriptor, AgentState, FeagiAgent, PNSConfig, create_pns_with_config,
)
from feagi_io_host.core.heartbeat import HeartbeatTiming

ADDRESS = "10.98.0.1"

def ip(line):
    subprocess.run(["ip", *line.split()], check=True)

def interface_comes():
    ip("link add body0 type veth peer name body1")
    ip(f"addr add {ADDRESS}/24 dev body0")
    ip("link set body0 up")
    ip("link set body1 up")

ip("link set lo up")
interface_comes()
anywhere = {f"zmq.{name}": f"tcp://{ADDRESS}:0" for name in ("rest", "motor", "viz", "sensory")}
config = PNSConfig.from_sources(arguments={**anywhere, "auth.open_to_everybody": True})
away, back = threading.Event(), threading.Event()

def note(change):
    if change.after is AgentState.PENDING:
        away.set()
    elif change.after is AgentState.ACTIVE_WAITING and away.is_set():
        back.set()

with create_pns_with_config(config) as pns:
    with FeagiAgent(
        AgentDescriptor("feagi-io", "rover", 1),
        AgentCapabilities.RECEIVE_MOTOR_DATA,
        pns.endpoints[0]["control_url"],
        heartbeat=HeartbeatTiming(0.1, 0.1, 3),
    ) as agent:
        agent.on_state_change(note)
        ip("link del body0")
        assert away.wait(10), "the agent did not notice"
        interface_comes()
        assert back.wait(20), f"the agent did not come back: {agent.state}"
        assert len(pns.sessions) == 1
print("came back")
"""


def _why_not() -> str | None:
    for program in ("unshare", "ip"):
        if shutil.which(program) is None:
            return f"there is no {program} here"
    tried = subprocess.run(
        ["unshare", "-n", "ip", "link", "add", "a0", "type", "veth", "peer", "name", "a1"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return None if tried.returncode == 0 else f"not permitted here: {tried.stderr.strip()}"


def test_an_agent_comes_back_when_its_interface_does() -> None:
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", _STORY],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "came back" in done.stdout
