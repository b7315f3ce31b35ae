# SPDX-License-Identifier: Apache-2.0
"""Histograms are right within their buckets, counters under threads."""

from __future__ import annotations

import json
import random
import threading
import tracemalloc
from typing import Any

import pytest

from feagi_io_host.core.telemetry import (
    LatencyHistogram,
    QueueMark,
    StreamCounters,
    StreamTotals,
    stream_row,
)


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


def test_merged_histograms_are_the_histogram_of_all_samples() -> None:
    generator = random.Random(11)
    samples = [[generator.expovariate(50.0) for _ in range(500)] for _ in range(3)]
    parts, whole, merged = [], LatencyHistogram(), LatencyHistogram()
    for part in samples:
        parts.append(LatencyHistogram())
        for sample in part:
            parts[-1].record(sample)
            whole.record(sample)
        merged.merge(parts[-1])
    assert merged.snapshot() == whole.snapshot()
    assert [part.count for part in parts] == [500] * 3


def test_a_mark_knows_the_most_ever_and_since_it_was_asked() -> None:
    mark = QueueMark()
    for entries in (1, 5, 2):
        mark.note(entries)
    assert mark.take(2) == (5, 5)
    assert mark.take(0) == (5, 2)
    mark.note(3)
    assert mark.take(0) == (5, 3)
    assert mark.take(9) == (9, 9)  # more than anyone has noted
    mark.note(8)
    assert mark.take(0) == (9, 9)


def row(
    sent: int, dropped: dict[str, int], queued: int, counts_delivered: bool = False
) -> dict[str, Any]:
    counters, mark = StreamCounters(), QueueMark()
    for _ in range(sent):
        counters.count_sent(10)
    counters.count_delivered()
    counters.count_dropped("damaged")
    mark.note(6)
    return stream_row(
        counters, dropped, mark, queued=queued, capacity=8, counts_delivered=counts_delivered
    )


def test_a_row_accounts_for_every_frame() -> None:
    assert row(10, {"full": 2}, 3) == {
        "sent": 10,
        "delivered": 4,
        "bytes": 100,
        "dropped": {"damaged": 1, "full": 2},
        "queued": 3,
        "in_flight": 0,
        "high_water": 6,
        "saturation": 0.75,
        "saturation_lately": 0.75,
    }
    counted = row(10, {"full": 2}, 3, counts_delivered=True)
    assert (counted["delivered"], counted["in_flight"]) == (1, 3)
    # Read while frames moved: dropped before it was seen to be sent.
    assert row(1, {"full": 2}, 0)["delivered"] == 0


def test_totals_add_up_rows_and_take_the_highest_mark() -> None:
    histogram = LatencyHistogram()
    histogram.record(0.01)
    total, other = StreamTotals(), StreamTotals()
    total.add(row(10, {"full": 2}, 3), histogram)
    other.add({**row(4, {"closed": 1}, 0), "high_water": 7, "saturation": 0.9}, histogram)
    total.merge(other)
    snapshot = json.loads(json.dumps(total.snapshot()))
    assert (snapshot["sent"], snapshot["queued"], snapshot["high_water"]) == (14, 3, 7)
    assert snapshot["dropped"] == {"damaged": 2, "full": 2, "closed": 1}
    assert (snapshot["saturation"], snapshot["saturation_lately"]) == (0.9, 0.75)
    assert snapshot["latency"]["count"] == 2


def test_what_turns_out_to_be_lost_is_counted_and_the_sum_holds() -> None:
    counters = StreamCounters()
    for _ in range(5):
        counters.count_sent(10)
        counters.count_delivered()
    counters.count_undelivered("lost", 2)
    counters.count_never_came("lost", 3)
    snapshot = counters.snapshot()
    assert snapshot == {"sent": 8, "delivered": 3, "bytes": 50, "dropped": {"lost": 5}}
    counters.count_undelivered("lost", 100)  # more than there were: a peer may say anything
    assert (counters.delivered, counters.dropped, counters.sent) == (0, 8, 8)
