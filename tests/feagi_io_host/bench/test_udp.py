# SPDX-License-Identifier: Apache-2.0
"""The UDP benchmark: every row is there, and is judged against what it ought to be."""

from __future__ import annotations

import pytest

from feagi_io_host.bench import udp, udp_soak
from feagi_io_host.bench.runner import Row
from feagi_io_host.transports.udp.ladder import Probe, Rung


@pytest.mark.slow
def test_every_row_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "BURST_BYTES", 100_000)
    monkeypatch.setattr(udp, "_GROWTH", (1_000, 400_000))  # the last is more than one window
    soaked = Row("soaked", None, "", None, None, "", None)
    monkeypatch.setattr(udp_soak, "soak", lambda: soaked)
    rows = udp.run(quick=True, soak=True)
    assert [row.reference for row in rows[:2]] == [udp.ONE_BY_ONE, udp.BARE]
    assert [row.limit for row in rows[:2]] == ["<= 0.1x (10x faster)", "<= 1.3x"]
    assert [row.name for row in rows[2:]] == [
        "same, CRC-32",
        "same, authentication tag",
        "same, parity of 8",
        "same, by many",
        "same, by plain",
        "UDP burst, 1K neurons, 0.0161 MB",
        "UDP burst, 400K neurons, 6.4 MB",
        "soaked",
    ]
    assert all(row.ratio for row in rows[:-1])
    assert [row.met is None for row in rows] == [False, False] + 8 * [True]


def test_without_segments_there_is_no_bare_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "BURST_BYTES", 10_000)
    monkeypatch.setattr(udp, "probe", lambda: Probe(Rung.MANY, Rung.MANY, ()))
    rows = udp.run(quick=True)
    assert rows[0].name.endswith("by many")
    assert udp.BARE not in {row.reference for row in rows}


def test_soak_counts_every_burst() -> None:
    row = udp_soak.soak(0.3, neurons=2000)
    assert row.name == "UDP soak, 2K neurons, 100 bursts/s, 30 bursts"
    assert row.note.startswith("lost 0 (0 of them before they were sent, 0 in the agent), p50 ")
    assert row.ours_s is not None
    assert row.met == (row.ours_s < udp_soak.MAX_P99_S)


def test_soak_judges_loss_and_lateness() -> None:
    told = {"arrived": [[0, 5.001], [2, 7.002]], "busy": 0.5, "here": 1, "overtaken": 0}
    row = udp_soak._row(3, 200_000, [5.0, 6.0, 7.0], told, 0.25)
    assert row.met is False
    assert row.note.startswith("lost 1 (1 of them before they were sent, 0 in the agent), p50 1.50")
    assert row.note.endswith("CPU 25% + 50% of a core")
    told["arrived"].insert(1, [1, 6.001])
    assert udp_soak._row(3, 200_000, [5.0, 6.0, 7.0], told, 0.25).met is True
    told["arrived"][1] = [1, 6.02]
    assert udp_soak._row(3, 200_000, [5.0, 6.0, 7.0], told, 0.25).met is False
    assert udp_soak._row(3, 200_000, [5.0], {**told, "arrived": []}, 0.0).met is False


def test_lost_datagrams_end_it_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "BUFFER_BYTES", 4096)
    monkeypatch.setattr(udp, "_WAIT_S", 0.05)
    with pytest.raises((udp.LostError, TimeoutError)):
        udp.run(quick=True)
