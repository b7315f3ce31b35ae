# SPDX-License-Identifier: Apache-2.0
"""`feagi-io demo --view`: the pole stands while pages look on, and falls when its brain pauses."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.feagi_io_host.transports.websocket.raw import FIN, TEXT, RawPeer, frame
from tests.feagi_io_host.viewer.live import DEADLINE_S, Place, looking

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "feagi_io_host.cli", "demo"]
LOOK_ON_S = 2.0


@pytest.mark.slow
@pytest.mark.micropython
def test_the_pole_stands_while_pages_look_on_and_falls_without_its_brain(
    require: Callable[[str], Any],
) -> None:
    require("micropython_unix")
    with (
        subprocess.Popen(
            [*COMMAND, "--view", "--control", "--seconds", "60"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as demo,
        ExitStack() as stack,
    ):
        stack.callback(demo.kill)
        assert demo.stdout is not None
        line = demo.stdout.readline()
        assert line.startswith("viewer: http://127.0.0.1:")
        place = Place.of(line.split()[-1])
        for _ in range(10):  # say hello and read nothing more
            peer = stack.enter_context(RawPeer(f"{place.base_url}/live", receive_buffer=4096))
            assert peer.shake_hands(Origin=place.base_url)[0] == 101
            hello = f'{{"type":"hello","protocol":1,"token":"{place.token}"}}'
            peer.write(frame(FIN | TEXT, hello.encode()))
        page = stack.enter_context(looking(place))
        page.draws_all = True
        assert page.texts[0]["source"] == "demo"
        assert page.texts[0]["control"] is True
        world = page.text("world")
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < LOOK_ON_S:
            world = page.text("world")
            assert world["kind"] == "cart_pole"
            assert world["track_m"] == 2.4
            assert not world["fell"]
            assert abs(world["angle_rad"]) < 0.3
        (areas,) = [text["areas"] for text in page.texts if text["type"] == "areas"][-1:]
        assert [(a["name"], a["kind"], a["width"], a["height"], a["depth"]) for a in areas] == [
            ("AnalogGPIO 0", "sensor", 4, 1, 512),
            ("RotaryMotor 0", "motor", 1, 1, 255),
        ]
        state = page.text("state", lambda s: s["streams"]["motor"]["rate_hz"])
        assert state["viewers"] == 11
        assert 10 < state["burst_hz"] < 110  # the machine may have more to do
        assert state["agents"][0]["name"] == "cart-pole"
        while {voxel[0][:4] for voxel in page.shown.voxels} != {b"iagp", b"omot"}:
            page.frame()
        page.send("pause")
        assert page.text("state", lambda s: s["paused"])["burst_hz"] == 0.0
        page.text("world", lambda value: value["fell"])
        assert page.close_code() == (1001, "the viewer was stopped")
        said = [text["text"] for text in page.texts if text["type"] == "say"]
        assert any("fail-safe" in words for words in said), "the board"
        assert "board down: the bridge stops" in said
        rest = demo.stdout.read()
        assert demo.wait(DEADLINE_S) == 1
        assert "the pole fell after" in rest
