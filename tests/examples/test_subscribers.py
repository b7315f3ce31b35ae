# SPDX-License-Identifier: Apache-2.0
"""The example with four subscribers: what each of them saw, by its own account."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "subscribers.py"
BURSTS = 20

# Bytes of a frame: container, struct and area headers, 16 per voxel.
ONE_VOXEL, TWO_AREAS = 92, 124


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("subscribers_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up here
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_every_subscriber_saw_everything(example: ModuleType) -> None:
    log = io.StringIO()
    report = example.run(BURSTS, log)

    # the brain: the wheel did what the light said
    ahead = [brightness > 0.5 for brightness in example.BRIGHTNESS]
    assert [speed > 0 for speed in report.speeds] == [ahead[n % 6] for n in range(BURSTS)]
    assert all(report.speeds)

    # metrics
    assert report.events == {
        "AgentRegistered": 1,
        "SensoryData": BURSTS,
        "MotorCommand": BURSTS,
        "VisualizationReady": BURSTS,
        "AgentDisconnected": 1,
    }
    assert report.bytes == {
        "SensoryData": BURSTS * ONE_VOXEL,
        "MotorCommand": BURSTS * ONE_VOXEL,
        "VisualizationReady": BURSTS * TWO_AREAS,
    }

    # the file logger
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert Counter(line["event"] for line in lines) == report.events
    assert lines[0] == {"event": "AgentRegistered", "agent": "rover"}
    assert lines[1:4] == [
        {"event": "SensoryData", "bytes": ONE_VOXEL},
        {"event": "MotorCommand", "bytes": ONE_VOXEL},
        {"event": "VisualizationReady", "bytes": TWO_AREAS},
    ]
    assert lines[-1] == {"event": "AgentDisconnected", "reason": "the run is over"}

    # the debugger
    turns = [(n, "back") for n in range(BURSTS) if n == 0 or n % 6 == 5]
    turns += [(n, "ahead") for n in range(BURSTS) if n % 6 == 2]
    assert report.turns == sorted(turns)
    assert report.last_picture == {"iinf": 1, "omot": 1}

    # nobody kept a frame
    assert report.frames_still_leased == 0


def test_two_runs_are_alike(example: ModuleType) -> None:
    first, second = io.StringIO(), io.StringIO()
    assert example.run(7, first) == example.run(7, second)
    assert first.getvalue() == second.getvalue()


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--bursts", "6", "--log", str(log)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "VisualizationReady         6       744" in done.stdout
    assert "the wheel turned 3 times: back in burst 0, ahead in burst 2" in done.stdout
    assert len(log.read_text().splitlines()) == 2 + 3 * 6
