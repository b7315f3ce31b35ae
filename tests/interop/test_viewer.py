# SPDX-License-Identifier: Apache-2.0
"""`feagi-io view` as a user runs it: at a `feagi-io serve` and at the real engine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from tests.feagi_io_host.viewer.live import DEADLINE_S, LivePage, Place, looking
from tools.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
INFRARED = CorticalID(b"iinf\x01\x00\x00\x00")
POWER = CorticalID(b"___power")
ANY = "tcp://127.0.0.1:0"


@contextmanager
def command(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-m", "feagi_io_host.cli", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_with(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"it ended without {words!r}")


@contextmanager
def serving(rest: str, status: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    ports = [f for name in ("sensory", "motor", "viz") for f in (f"--zmq-{name}", ANY)]
    with command(
        *("serve", "--zmq-rest", rest, *ports, "--status", status),
        *("--wire", "iinf/2/8:omot/2/8", "--rate", "50", "--json"),
    ) as process:
        started = json.loads(line_with(process, '"started"'))
        yield process, started["control_urls"][0], started["status_url"]


@contextmanager
def seeing(url: str) -> Iterator[None]:
    """An agent that sees the same all the time."""
    voxel = [np.array([n], np.uint32) for n in (1, 0, 3)]
    seen = CorticalMappedXYZPNeuronVoxels(
        {INFRARED: NeuronVoxelXYZPArrays.new_from_numpy(*voxel, np.ones(1, np.float32))}
    )
    stop = threading.Event()
    with FeagiAgent(
        AgentDescriptor("feagi-io", "rover", 1), AgentCapabilities.SEND_SENSOR_DATA, url
    ) as agent:

        def see() -> None:
            while not stop.wait(0.02):
                agent.send_sensory(seen)

        thread = threading.Thread(target=see)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


def draw_until(page: LivePage, area: CorticalID) -> None:
    """Frames are drawn, from here on all of them, until one shows this area."""
    page.draws_all = True
    page.shown.voxels.clear()
    while bytes(area) not in {voxel[0] for voxel in page.shown.voxels}:
        page.frame()


def areas_of(page: LivePage) -> dict[str, dict[str, Any]]:
    """The areas that were told last, by name."""
    (areas,) = [text["areas"] for text in page.texts if text["type"] == "areas"][-1:]
    return {area["name"]: area for area in areas}


def names_of(page: LivePage) -> set[str]:
    """Of the areas that were told last."""
    return set(areas_of(page))


@pytest.mark.slow
def test_a_served_brain_is_shown_and_again_after_its_restart() -> None:
    with (
        serving(ANY, "0") as (first, url, status_url),
        command("view", url, "--status", status_url) as view,
        looking(Place.of(line_with(view, "viewer: ").split()[-1])) as page,
    ):
        assert page.texts[0]["source"] == url
        with seeing(url):
            draw_until(page, INFRARED)
            assert page.shown.voxels[(bytes(INFRARED), 1, 0, 3)] == 1.0
            state = page.text(
                "state", lambda s: s["streams"]["sensory"]["rate_hz"] and len(s["agents"]) == 2
            )
            names = {agent["name"]: agent for agent in state["agents"]}
            assert names["rover"]["state"] == "UP"
            assert names["rover"]["transport"] == "zmq.blocking"
            assert names["viewer"]["capabilities"] == ["receive_neuron_visualizations"]
            assert state["paused"] is False
            assert state["burst_hz"] > 0
        first.kill()
        page.text("state", lambda s: s["bursts"] is None)
        with serving(url, status_url.rpartition(":")[2]), seeing(url):
            page.text("say", lambda said: "is back" in said["text"])
            draw_until(page, INFRARED)
            page.text("state", lambda s: s["bursts"] is not None)
        assert any("lost the brain" in said.get("text", "") for said in page.texts)
        view.send_signal(signal.SIGINT)
        assert page.close_code()[0] == 1001
        assert view.wait(DEADLINE_S) == 0


@pytest.mark.slow
def test_the_real_engine_is_shown_with_its_names_and_again_after_its_restart(
    engine: Engine,
) -> None:
    engine.load_genome("essential")
    with (
        command("view", engine.registration_url, "--rest", engine.rest_url) as view,
        looking(Place.of(line_with(view, "viewer: ").split()[-1])) as page,
    ):
        draw_until(page, POWER)
        page.text("state", lambda _: len(areas_of(page)) > 10)
        named = areas_of(page)
        assert named["Brain_Power"]["kind"] == "core"
        assert named["Motor Output"]["kind"] == "motor"
        assert named["vision_C"]["kind"] == "sensor"
        eye = named["vision_C"]
        assert engine.area_dimensions(b"isviI\x00\x00\x00") == (
            eye["width"], eye["height"], eye["depth"],
        )  # fmt: skip
        state = page.text("state", lambda s: s["burst_hz"] and s["agents"])
        assert state["bursts"] > 0
        assert state["agents"][0]["state"] == "REGISTERED"
        assert state["streams"]["motor"]["rate_hz"] is None
        engine.kill()
        engine.start()
        engine.load_genome("barebones")
        page.text("say", lambda said: "is back" in said["text"])
        draw_until(page, POWER)
        page.text(
            "state", lambda _: "Brain_Power" in names_of(page) and "vision_C" not in names_of(page)
        )
