# SPDX-License-Identifier: Apache-2.0
"""The page's choice of detail, at machines of known speed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("detail.mjs")
GOAL_MS = 1000 / 30
SHARE = 0.8


Choice = tuple[int, int | None, bool]
Choices = Callable[..., list[Choice]]


@pytest.fixture
def choices(require: Callable[[str], Any]) -> Choices:
    node = require("node")

    def run(base_ms: float, each_us: float, fired: int, seconds: int) -> list[Choice]:
        figures = (base_ms, each_us / 1000, fired, seconds)
        command = [str(node), str(PROGRAM), *map(str, figures)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return [(ms, voxels, squares) for ms, voxels, squares in json.loads(done.stdout)]

    return run


@pytest.mark.parametrize("each_us", [0.2, 0.5, 2.0, 5.0])
def test_it_settles_near_what_can_be_drawn_and_stays(choices: Choices, each_us: float) -> None:
    possible = SHARE * (GOAL_MS - 3) / each_us * 1000
    found = choices(3, each_us, 200_000, 60)
    _, last, squares = found[-1]
    assert last is not None
    assert 0.6 * possible < last < 1.2 * possible
    assert squares
    late = [voxels for ms, voxels, _ in found if ms > 20_000]
    assert len(late) < 15
    assert all(voxels is not None and voxels < 1.3 * possible for voxels in late)


def test_a_fast_machine_draws_everything(choices: Choices) -> None:
    assert choices(3, 0.05, 200_000, 30) == []


def test_squares_come_before_fewer_voxels(choices: Choices) -> None:
    found = choices(3, 2, 10_000, 30)
    assert [(voxels, squares) for _, voxels, squares in found] == [(None, True)]


def test_where_voxels_are_not_what_is_slow_all_are_drawn(choices: Choices) -> None:
    assert {voxels for _, voxels, _ in choices(80, 0.05, 2_000, 30)} == {None}
