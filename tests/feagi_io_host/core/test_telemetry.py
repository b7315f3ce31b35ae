# SPDX-License-Identifier: Apache-2.0
"""Histograms are right within their buckets, counters under threads."""

from __future__ import annotations

import json
import random
import threading
import tracemalloc

import pytest

from feagi_io_host.core.telemetry import LatencyHistogram, StreamCounters


def test_an_empty_histogram_is_all_zero() -> None:
    histogram = LatencyHistogram()
    assert histogram.count == 0
    assert histogram.percentile_s(99.0) == 0.0
    assert set(histogram.snapshot().values()) == {0}


@pytest.mark.parametrize("scale_s", [1e-8, 1e-6, 1e-3, 1.0, 100.0])
def test_percentiles_are_at_most_one_bucket_above_the_truth(scale_s: float) -> None:
    generator = random.Random(7)
    samples = [generator.expovariate(1.0) * scale_s for _ in range(5000)]
    histogram = LatencyHistogram()
    for sample in samples:
        histogram.record(sample)
    samples.sort()
    for percent in (50.0, 99.0, 99.9):
        true_s = samples[max(-(-len(samples) * int(percent * 10) // 1000), 1) - 1]
        got_s = histogram.percentile_s(percent)
        assert true_s - 1e-9 <= got_s <= true_s * 1.0625 + 1e-9
    assert histogram.percentile_s(100.0) == pytest.approx(samples[-1], abs=1e-9)


def test_every_sample_falls_into_a_bucket_that_contains_it() -> None:
    for exponent in range(40):
        for offset in (-1, 0, 1):
            ns = max((1 << exponent) + offset, 0)
            histogram = LatencyHistogram()
            histogram.record(ns / 1e9 + 1e-10)
            histogram.record(1e9)  # keeps the maximum from hiding the bucket's upper end
            assert ns <= round(histogram.percentile_s(50.0) * 1e9) <= ns * 1.0625


def test_what_no_clock_should_say_is_bounded() -> None:
    histogram = LatencyHistogram()
    histogram.record(-1.0)
    histogram.record(float("inf"))
    assert histogram.percentile_s(50.0) == 0.0
    assert 1000.0 < histogram.percentile_s(100.0) < 1200.0
    with pytest.raises(ValueError, match="NaN"):
        histogram.record(float("nan"))
    with pytest.raises(ValueError, match="percent is 101"):
        histogram.percentile_s(101)
    assert histogram.count == 2


def test_a_snapshot_is_plain_data() -> None:
    histogram = LatencyHistogram()
    for _ in range(100):
        histogram.record(0.002)
    snapshot = json.loads(json.dumps(histogram.snapshot()))
    assert snapshot["count"] == 100
    for key in ("mean_ms", "p50_ms", "p99_ms", "p99_9_ms", "max_ms"):
        assert snapshot[key] == pytest.approx(2.0)


def test_recording_keeps_no_memory() -> None:
    histogram = LatencyHistogram()
    histogram.record(0.5)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for k in range(2000):
            histogram.record(k * 1e-5)
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 500


def test_counters_add_up_from_several_threads() -> None:
    counters = StreamCounters()

    def work() -> None:
        for _ in range(1000):
            counters.count_sent(10)
            counters.count_delivered()
            counters.count_dropped("full", 2)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert counters.snapshot() == {
        "sent": 3000,
        "delivered": 3000,
        "bytes": 30000,
        "dropped": {"full": 6000},
    }
    assert (counters.sent, counters.delivered, counters.dropped) == (3000, 3000, 6000)
