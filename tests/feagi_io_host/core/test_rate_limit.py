# SPDX-License-Identifier: Apache-2.0
"""TokenBucket: the burst, the rate, and time that stands still or runs backwards."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.rate_limit import Rate, TokenBucket


def test_the_burst_and_then_the_rate() -> None:
    bucket = TokenBucket(Rate(per_s=10.0, burst=3), 100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.125) for _ in range(2)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False]


def test_time_that_runs_backwards_brings_nothing() -> None:
    bucket = TokenBucket(Rate(per_s=1.0, burst=1), 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


@pytest.mark.parametrize(("per_s", "burst"), [(0.0, 1), (-1.0, 1), (math.inf, 1), (1.0, 0)])
def test_rates_that_make_no_sense(per_s: float, burst: int) -> None:
    with pytest.raises(ConfigError):
        Rate(per_s, burst)
    with pytest.raises(ConfigError):
        Rate(math.nan, 1)


@given(st.lists(st.floats(0, 1), max_size=200))
def test_never_more_than_burst_and_rate_allow(steps_s: list[float]) -> None:
    bucket = TokenBucket(Rate(per_s=7.0, burst=5), 0.0)
    now_s = 0.0
    taken = 0
    for step_s in steps_s:
        now_s += step_s
        taken += bucket.take(now_s)
        assert taken <= 5 + 7.0 * now_s + 1e-6
