# SPDX-License-Identifier: Apache-2.0
"""The package ws of npm at our server: registration, frames, pieces, pings and closes."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S, Served
from tools.browser import BrowserUnavailableError, find_node_ws

HERE = Path(__file__).parent
AGENT = HERE.parent.parent / "examples" / "browser_agent.mjs"
VECTORS = HERE.parent / "vectors" / "valid"
MOTOR = VECTORS / "v38_cap_motor_one_neuron.bin"
SHOWN = VECTORS / "v11_two_areas.bin"
EYE = list(b"iinf\x01\x00\x00\x00")
SETTINGS = {"ping_interval_s": 0.2, "ping_timeout_s": 2.0}


@pytest.fixture
def command() -> list[str]:
    """Node, the script, ws and the agent."""
    try:
        found = find_node_ws()
    except BrowserUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))
    return [found.node, str(HERE / "ws_client.mjs"), str(found.module), str(AGENT)]


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def voxels_of(data: bytes) -> list[dict[str, object]]:
    """The first struct of a frame, as the client shows it."""
    with SharedFBC.from_bytes(data) as fbc:
        struct = fbc.container.try_create_new_struct_from_index(0)
        assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
        return [
            {
                "id": list(area.as_bytes()),
                **{
                    name: column.tolist()
                    for name, column in zip("xyzp", arrays.borrow_xyzp_vectors(), strict=True)
                },
            }
            for area, arrays in struct
        ]


@pytest.mark.slow
def test_ws_is_served_like_any_other(command: list[str]) -> None:
    with Served(settings=SETTINGS) as served:
        process = subprocess.Popen(
            [*command, served.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        # Whatever becomes of it.
        watch = threading.Timer(3 * DEADLINE_S, process.kill)
        watch.start()
        try:
            until(lambda: bool(served.host.sessions), process)
            (session,) = served.host.sessions
            sensed = served.host.take_sensory(session.agent_id, DEADLINE_S)
            with (
                SharedFBC.from_bytes(MOTOR.read_bytes()) as motor,
                SharedFBC.from_bytes(SHOWN.read_bytes()) as shown,
            ):
                served.handle.publish_motor(session.agent_id, motor)
                served.handle.publish_visualization(shown)
                until(lambda: session.snapshot()["visualization"]["delivered"] > 0, process)
            session.close("the brain has enough of it")
            said, complaint = process.communicate(timeout=3 * DEADLINE_S)
        finally:
            watch.cancel()
            watch.join()
            process.kill()
            process.communicate()
    assert complaint == ""
    report = json.loads(said)
    assert report["id"] == session.agent_id.hex()
    assert report["beat"] == "heart_beat"
    assert report["sent"] is True
    assert sensed is not None
    assert voxels_of(sensed) == [
        {"id": EYE, "x": [1, 2], "y": [0, 0], "z": [3, 7], "p": [1.0, 0.5]}
    ]
    wheels = list(b"omot\x05\x00\x00\x00")
    assert report["moved"] == [{"id": wheels, "x": [0], "y": [0], "z": [6], "p": [100]}]
    assert report["shown"] == voxels_of(SHOWN.read_bytes())
    assert report["lost"][0] == 1001
    assert report["extensions"] == ""
    assert report["pong"] == "there?"
    assert report["pieces"] == ["success"]
    assert report["alive"] is True
    assert report["closed"] == [1000, "bye"]
    assert report["text"] == [1003, "binary messages only, one FBC in each"]
    assert report["large"][0] == 1009
    assert report["cut"] == [1006, ""]
