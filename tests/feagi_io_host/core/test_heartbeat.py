# SPDX-License-Identifier: Apache-2.0
"""Heartbeat: each row of its table, and how soon silence is noticed."""

from __future__ import annotations

import pytest

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.heartbeat import Beat, Heartbeat, HeartbeatState, HeartbeatTiming

TIMING = HeartbeatTiming(interval_s=5.0, answer_timeout_s=2.0, max_unanswered=3)


def started() -> Heartbeat:
    heartbeat = Heartbeat(TIMING)
    heartbeat.start(100.0)
    return heartbeat


def test_idle_does_nothing() -> None:
    heartbeat = Heartbeat()
    heartbeat.answered(5.0)
    assert heartbeat.tick(1e9) is Beat.NOTHING
    assert heartbeat.next_tick_s is None
    assert heartbeat.state is HeartbeatState.IDLE


def test_beats_come_at_the_interval_while_they_are_answered() -> None:
    heartbeat = started()
    now_s = 100.0
    for _ in range(5):
        assert heartbeat.next_tick_s == now_s + 5.0
        assert heartbeat.tick(now_s + 4.999) is Beat.NOTHING
        assert heartbeat.tick(now_s + 5.0) is Beat.SEND
        assert heartbeat.state is HeartbeatState.AWAITING
        assert heartbeat.tick(now_s + 5.5) is Beat.NOTHING
        now_s += 6.0
        heartbeat.answered(now_s)
        assert heartbeat.state is HeartbeatState.RESTING


def test_silence_is_noticed_within_the_promised_time() -> None:
    heartbeat = started()
    beats = []
    while heartbeat.next_tick_s is not None:
        now_s = heartbeat.next_tick_s
        beats.append((now_s, heartbeat.tick(now_s)))
    assert beats == [
        (105.0, Beat.SEND),
        (107.0, Beat.SEND),
        (109.0, Beat.SEND),
        (111.0, Beat.SILENT),
    ]
    assert beats[-1][0] - 100.0 == TIMING.detection_s
    assert heartbeat.state is HeartbeatState.IDLE


def test_one_answer_forgives_the_missing_ones() -> None:
    heartbeat = started()
    heartbeat.tick(105.0)
    heartbeat.tick(107.0)
    heartbeat.tick(109.0)
    assert heartbeat.unanswered == 2
    heartbeat.answered(110.0)
    assert heartbeat.unanswered == 0
    assert heartbeat.tick(114.9) is Beat.NOTHING
    assert heartbeat.tick(115.0) is Beat.SEND


def test_a_program_that_was_held_up_misses_one_answer_not_all() -> None:
    heartbeat = started()
    heartbeat.tick(105.0)
    assert heartbeat.tick(500.0) is Beat.SEND
    assert heartbeat.next_tick_s == 502.0


def test_stop_and_start_again() -> None:
    heartbeat = started()
    heartbeat.tick(105.0)
    heartbeat.stop()
    assert heartbeat.tick(1000.0) is Beat.NOTHING
    heartbeat.start(1000.0)
    assert heartbeat.next_tick_s == 1005.0


@pytest.mark.parametrize(
    "numbers", [(0.0, 1.0, 1), (1.0, 0.0, 1), (1.0, float("inf"), 1), (1.0, 1.0, 0)]
)
def test_timing_that_makes_no_sense(numbers: tuple[float, float, int]) -> None:
    with pytest.raises(ConfigError):
        HeartbeatTiming(*numbers)
