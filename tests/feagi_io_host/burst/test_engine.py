# SPDX-License-Identifier: Apache-2.0
"""The timetable of bursts: no drift, lateness counted, lost grid points skipped."""

from __future__ import annotations

import pytest

from feagi_io_host.burst.engine import BurstEngine, BurstTimetable
from feagi_io_host.core.errors import ConfigError


def test_bursts_on_time_stay_on_the_grid() -> None:
    timetable = BurstTimetable(100.0, start_s=5.0)
    for index in range(1000):
        assert timetable.due_s == pytest.approx(5.0 + index * 0.01, abs=1e-9)
        assert timetable.begin(timetable.due_s) == 0.0
        assert timetable.end(timetable.due_s - 0.001) == 0
    assert timetable.late_bursts == 0
    assert timetable.skipped_bursts == 0


def test_lateness_does_not_move_the_grid() -> None:
    timetable = BurstTimetable(10.0, start_s=0.0)
    timetable.begin(0.0)
    assert timetable.begin(0.14) == pytest.approx(0.04)
    assert timetable.late_bursts == 0
    assert timetable.begin(0.26) == pytest.approx(0.06)
    assert timetable.late_bursts == 1
    assert timetable.due_s == pytest.approx(0.3)


def test_an_early_burst_is_not_late() -> None:
    timetable = BurstTimetable(10.0, start_s=1.0)
    assert timetable.begin(0.5) == 0.0


@pytest.mark.parametrize(
    ("end_s", "skipped", "next_due_s"),
    [(0.05, 0, 0.1), (0.1, 0, 0.1), (0.15, 0, 0.1), (0.25, 1, 0.2), (1.05, 9, 1.0)],
)
def test_a_long_burst_skips_what_it_has_run_over(
    end_s: float, skipped: int, next_due_s: float
) -> None:
    timetable = BurstTimetable(10.0, start_s=0.0)
    timetable.begin(0.0)
    assert timetable.end(end_s) == skipped
    assert timetable.skipped_bursts == skipped
    assert timetable.due_s == pytest.approx(next_due_s)
    # The next burst is at most one period late: no busy catching up.
    assert end_s - timetable.due_s < timetable.period_s


def test_a_restart_keeps_the_counters() -> None:
    timetable = BurstTimetable(10.0, start_s=0.0)
    timetable.begin(0.09)
    timetable.end(0.55)
    timetable.restart(100.0)
    assert timetable.due_s == 100.0
    assert (timetable.late_bursts, timetable.skipped_bursts) == (1, 4)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate_hz: float) -> None:
    with pytest.raises(ConfigError, match="bursts per second"):
        BurstTimetable(rate_hz, 0.0)


def test_the_contract_cannot_be_made_by_itself() -> None:
    with pytest.raises(TypeError, match="connect_to_pns"):
        BurstEngine()  # type: ignore[abstract]
