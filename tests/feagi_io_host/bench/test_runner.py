# SPDX-License-Identifier: Apache-2.0
"""Benchmark rows: how they are judged and printed, and that every codec row is there."""

from __future__ import annotations

import json

import pytest

from feagi_io_host.bench import codec
from feagi_io_host.bench.runner import Case, Row, measure, rows_as_text
from tools.bench.__main__ import main


def work(size: int) -> int:
    return sum(range(size))


def test_ratio_decides_against_a_reference() -> None:
    def slow() -> int:
        return work(20_000)

    def fast() -> int:
        return work(200)

    lost, won = measure(
        [
            Case("slow", slow, "fast", "<= 1x", fast, 1),
            Case("fast", fast, "slow", "<= 1x", slow, 1),
        ],
        quick=True,
    )
    assert lost.met is False
    assert won.met is True
    assert lost.ratio is not None
    assert won.ratio is not None
    assert lost.ratio > 1 > won.ratio
    assert lost.reference_s == won.ours_s


def test_time_decides_without_a_reference() -> None:
    def ours() -> int:
        return work(1000)

    within, beyond, open_end = measure(
        [
            Case("within", ours, "a limit", "<= 100 s", max_s=100),
            Case("beyond", lambda: work(1000), "a limit", "<= 1 ns", max_s=1e-9),
            Case("open", ours, "none", "-"),
        ],
        quick=True,
    )
    assert (within.met, beyond.met, open_end.met) == (True, False, None)
    assert within.ratio is None


def test_a_call_of_many_items_is_told_for_one() -> None:
    def ours() -> int:
        return work(2000)

    alone, shared = measure(
        [
            Case("alone", ours, "itself", "<= 2x", ours, 2),
            Case("shared", ours, "itself", "<= 2x", ours, 2, items=100),
        ],
        quick=True,
    )
    assert alone.ours_s is not None
    assert shared.ours_s == pytest.approx(alone.ours_s / 100)
    assert shared.reference_s == shared.ours_s
    assert shared.ratio == alone.ratio == 1


def test_text_ends_with_the_note() -> None:
    rows = [
        Row("first", None, "-", None, None, "0", True, "12 MB/s"),
        Row("second", None, "-", None, None, "0", True),
    ]
    head, first, second = rows_as_text(rows).splitlines()
    assert head.endswith("note")
    assert first.endswith("yes  12 MB/s")
    assert second.endswith("yes")


def test_text_says_what_failed() -> None:
    rows = [
        Row("first", 2e-6, "memcpy", 1e-6, 2.0, "<= 1x", False),
        Row("second", None, "library: not installed", None, None, "<= 1x", None),
        Row("third", 2e-3, "-", None, None, "<= 1 s", True),
    ]
    lines = rows_as_text(rows).splitlines()
    assert len(lines) == 4
    assert lines[1].split() == [
        "first",
        "2.00",
        "us",
        "memcpy",
        "1.00",
        "us",
        "2x",
        "<=",
        "1x",
        "NO",
    ]
    assert lines[2].endswith("-")
    assert "2.00 ms" in lines[3]
    assert lines[3].endswith("yes")


def test_codec_rows(capsys: pytest.CaptureFixture[str]) -> None:
    # How fast this machine is today is no test; that each row is measured is.
    assert main(["codec", "--quick", "--json"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in rows]
    assert len(names) == len(set(names)) == 11
    assert [name.split()[0] for name in names] == ["encode"] * 6 + ["decode"] * 2 + [
        "numpy",
        "bytes",
        "payload",
    ]
    assert rows[-1]["met"] is True  # allocation does not depend on speed
    for row in rows[:8]:
        assert row["ours_s"] > 0
        assert row["met"] is not None


def test_codec_rows_without_the_real_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(codec, "import_module", refuse)
    rows = [row for row in codec.run(quick=True) if "not installed" in row.reference]
    assert len(rows) == 2
    assert all(row.met is None and row.ratio is None for row in rows)
