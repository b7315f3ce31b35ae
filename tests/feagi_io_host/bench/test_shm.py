# SPDX-License-Identifier: Apache-2.0
"""The shared-memory benchmark runs, gives its rows and leaves nothing behind."""

from __future__ import annotations

import json
import os
import sys
from typing import Literal

import pytest
from typer.testing import CliRunner

from feagi_io_host.bench import shm, shm_soak
from feagi_io_host.bench.runner import Row
from feagi_io_host.cli.app import app

needs_linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="shared memory needs Linux"
)


@needs_linux
def test_every_row_is_there_and_the_processor_is_given_back() -> None:
    allowed = os.sched_getaffinity(0)
    rows = shm.run(quick=True)
    assert os.sched_getaffinity(0) == allowed
    assert [row.limit for row in rows] == ["-", "-", "-", "<= 1.3x", "-", "<= 1.1x", "0 bytes"]
    assert all(row.ours_s and row.reference_s for row in rows[:-1])
    assert rows[-1].met  # the one that is no matter of time


def test_where_there_is_no_shared_memory_a_row_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm, "why_unavailable", lambda: "there is none")
    (row,) = shm.run()
    assert (row.reference, row.met) == ("there is none", None)


@needs_linux
@pytest.mark.parametrize("paradigm", ["blocking", "nonblocking"])
def test_a_soak_says_what_came_and_when(paradigm: Literal["blocking", "nonblocking"]) -> None:
    row = shm_soak.soak(0.2, 1000, paradigm)
    assert row.name.startswith("SHM soak, 1K neurons, 100 bursts/s, 20 bursts, " + paradigm)
    # Even a busy machine shows the last one, which nothing overtakes.
    assert row.ours_s
    assert 0 <= int(row.note.split("lost ")[1].split()[0]) < 20


def test_a_soak_is_met_only_without_loss_and_in_time() -> None:
    def row(arrived: list[tuple[int, float]]) -> Row:
        told = {"arrived": arrived, "overtaken": 0, "busy": 0.1}
        return shm_soak._row(2, 200_000, "blocking", [1.0, 2.0], 0.2, told)

    assert row([(0, 1.001), (1, 2.002)]).met
    assert row([(0, 1.001), (1, 2.002)]).ours_s == pytest.approx(0.00199)
    assert not row([(0, 1.001), (1, 2.2)]).met
    assert not row([(1, 2.002)]).met
    assert "lost 1" in row([(1, 2.002)]).note
    assert not row([]).met


def test_the_soak_is_only_run_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(paradigm: str) -> Row:
        asked.append(paradigm)
        return Row("SHM soak", None, "-", None, None, "-", None)

    monkeypatch.setattr(shm, "why_unavailable", lambda: None)
    monkeypatch.setattr(shm, "_SIZES", ())
    monkeypatch.setattr(shm, "_direct_row", lambda *, quick: [])
    monkeypatch.setattr(shm_soak, "soak", note)
    assert shm.run() == []
    assert len(shm.run(soak=True)) == 2
    assert asked == ["blocking", "nonblocking"]


@pytest.mark.parametrize("options", [(), ("--quick",), ("--soak",)])
def test_the_command_hands_on_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    asked: list[dict[str, bool]] = []

    def note(**arguments: bool) -> list[Row]:
        asked.append(arguments)
        return [Row("SHM", None, "-", None, None, "-", None)]

    monkeypatch.setattr(shm, "run", note)
    done = CliRunner().invoke(app, ["bench", "shm", "--json", *options])
    assert done.exit_code == 0
    assert [row["name"] for row in json.loads(done.stdout)] == ["SHM"]
    assert asked == [{"quick": "--quick" in options, "soak": "--soak" in options}]
