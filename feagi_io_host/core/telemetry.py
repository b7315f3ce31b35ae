# SPDX-License-Identifier: Apache-2.0
"""Counters and latency histograms: what a running system can be asked at any time.

Recording costs a lock and an increment; nothing is allocated per sample. `snapshot()` gives
plain dictionaries of numbers, ready for JSON.

    LatencyHistogram   how long something took
    StreamCounters     what became of the frames of one stream of one agent
    QueueMark          how full its channel was
    StreamTotals       all of these added up over several agents
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

# A histogram bucket is 1/16 of an octave: a percentile read from it is at most 6.25 % above
# the sample. 40 octaves of nanoseconds reach 18 minutes; what is longer counts as that.
_SUB_BITS = 4
_SUB_BUCKETS = 1 << _SUB_BITS
_MAX_NS = (1 << 40) - 1


def _bucket_of(ns: int) -> int:
    """Samples below 32 ns have a bucket each; above, the five leading bits decide."""
    shift = ns.bit_length() - (_SUB_BITS + 1)
    if shift <= 0:
        return ns
    return shift * _SUB_BUCKETS + (ns >> shift)


def _upper_ns(bucket: int) -> int:
    """The largest number of nanoseconds that falls into `bucket`."""
    if bucket < 2 * _SUB_BUCKETS:
        return bucket
    shift = bucket // _SUB_BUCKETS - 1
    lead = bucket - shift * _SUB_BUCKETS
    return ((lead + 1) << shift) - 1


class LatencyHistogram:
    """Latencies in fixed logarithmic buckets. Thread-safe; 5 KB of memory, once."""

    __slots__ = ("_counts", "_lock", "_max_ns", "_sum_ns", "_total")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = array("Q", bytes(8 * (_bucket_of(_MAX_NS) + 1)))
        self._total = 0
        self._sum_ns = 0
        self._max_ns = 0

    def record(self, latency_s: float) -> None:
        """Count one sample in seconds. Below 0 (clocks disagree) counts as 0, NaN raises
        ValueError."""
        ns = _MAX_NS if latency_s > 1e9 else int(latency_s * 1e9)
        ns = min(max(ns, 0), _MAX_NS)
        with self._lock:
            self._counts[_bucket_of(ns)] += 1
            self._total += 1
            self._sum_ns += ns
            self._max_ns = max(self._max_ns, ns)

    def merge(self, other: LatencyHistogram) -> None:
        """Add the samples of another one, which keeps its own."""
        with other._lock:
            counts = np.frombuffer(other._counts, np.uint64).copy()
            total, sum_ns, max_ns = other._total, other._sum_ns, other._max_ns
        with self._lock:
            mine = np.frombuffer(self._counts, np.uint64)
            np.add(mine, counts, out=mine)
            self._total += total
            self._sum_ns += sum_ns
            self._max_ns = max(self._max_ns, max_ns)

    def percentile_s(self, percent: float) -> float:
        """The latency in seconds that `percent` of the samples do not exceed; 0.0 without
        samples. At most 6.25 % above the true value, never above the largest sample."""
        if not 0.0 <= percent <= 100.0:
            raise ValueError(f"percent is {percent}, must be 0 to 100")
        with self._lock:
            return self._percentile_ns(percent) / 1e9

    @property
    def count(self) -> int:
        """How many samples were recorded."""
        return self._total

    def snapshot(self) -> dict[str, float]:
        """`count` and `mean_ms`, `p50_ms`, `p99_ms`, `p99_9_ms`, `max_ms`."""
        with self._lock:
            mean_ns = self._sum_ns / self._total if self._total else 0.0
            return {
                "count": self._total,
                "mean_ms": mean_ns / 1e6,
                "p50_ms": self._percentile_ns(50.0) / 1e6,
                "p99_ms": self._percentile_ns(99.0) / 1e6,
                "p99_9_ms": self._percentile_ns(99.9) / 1e6,
                "max_ms": self._max_ns / 1e6,
            }

    def _percentile_ns(self, percent: float) -> int:
        if self._total == 0:
            return 0
        # The product may come out a hair over a whole number; half a sample of slack cannot skip
        # or add a bucket's worth of samples.
        wanted = max(1.0, self._total * percent / 100.0) - 1e-6
        seen = np.cumsum(np.frombuffer(self._counts, np.uint64))
        bucket = int(np.searchsorted(seen, wanted))
        return min(_upper_ns(bucket), self._max_ns)


class StreamCounters:
    """What happened to the frames of one stream: sent, delivered, dropped by reason, bytes.

    `sent` counts what was handed in, `delivered` what reached the other end of this stage; at
    any rest sent = delivered + dropped + queued. Thread-safe.
    """

    __slots__ = ("_bytes", "_delivered", "_dropped", "_lock", "_sent")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent = 0
        self._delivered = 0
        self._bytes = 0
        self._dropped: dict[str, int] = {}

    def count_sent(self, size_bytes: int) -> None:
        """One frame of `size_bytes` was handed in."""
        with self._lock:
            self._sent += 1
            self._bytes += size_bytes

    def count_delivered(self) -> None:
        """One frame reached the other end."""
        with self._lock:
            self._delivered += 1

    def count_dropped(self, reason: str, frames: int = 1) -> None:
        """`frames` frames were given up, for a reason named in one or two words."""
        with self._lock:
            self._dropped[reason] = self._dropped.get(reason, 0) + frames

    def count_undelivered(self, reason: str, frames: int) -> None:
        """`frames` frames that were counted as delivered turn out to have been lost."""
        with self._lock:
            frames = min(frames, self._delivered)
            self._delivered -= frames
            self._dropped[reason] = self._dropped.get(reason, 0) + frames

    def count_never_came(self, reason: str, frames: int) -> None:
        """`frames` frames, of unknown size, were sent to here and never arrived."""
        with self._lock:
            self._sent += frames
            self._dropped[reason] = self._dropped.get(reason, 0) + frames

    @property
    def sent(self) -> int:
        """Frames handed in."""
        return self._sent

    @property
    def delivered(self) -> int:
        """Frames that reached the other end."""
        return self._delivered

    @property
    def dropped(self) -> int:
        """Frames given up, for whatever reason."""
        with self._lock:
            return sum(self._dropped.values())

    def snapshot(self) -> dict[str, int | dict[str, int]]:
        """`sent`, `delivered`, `bytes` and `dropped` as a dictionary by reason."""
        with self._lock:
            return {
                "sent": self._sent,
                "delivered": self._delivered,
                "bytes": self._bytes,
                "dropped": dict(self._dropped),
            }


class QueueMark:
    """The most entries that were seen in a channel: ever, and since this was last asked.

    Thread-safe.
    """

    __slots__ = ("_ever", "_lately", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ever = 0
        self._lately = 0

    def note(self, entries: int) -> None:
        """The channel holds so many now."""
        if entries <= self._lately:  # it only grows while nobody asks
            return
        with self._lock:
            self._lately = max(self._lately, entries)
            self._ever = max(self._ever, entries)

    def take(self, now: int) -> tuple[int, int]:
        """The most ever and the most since the last call; from here on it counts from `now`."""
        with self._lock:
            lately = max(self._lately, now)
            self._lately = now
            self._ever = max(self._ever, now)
            return self._ever, lately


class StreamTotals:
    """The figures of one stream over several agents. Used under its owner's lock.

    The keys are those of `stream_row`; `high_water` and the saturations are those of the agent
    where they are highest.
    """

    __slots__ = ("_dropped", "_highest", "_summed", "latency")

    def __init__(self) -> None:
        self.latency = LatencyHistogram()
        self._summed: dict[str, int] = dict.fromkeys(_SUMMED, 0)
        self._highest: dict[str, float] = dict.fromkeys(_HIGHEST, 0)
        self._dropped: dict[str, int] = {}

    def add(self, row: Mapping[str, Any], latency: LatencyHistogram) -> None:
        """Count in what one agent's row says."""
        for key in _SUMMED:
            self._summed[key] += row[key]
        for key in _HIGHEST:
            self._highest[key] = max(self._highest[key], row[key])
        for reason, frames in row["dropped"].items():
            self._dropped[reason] = self._dropped.get(reason, 0) + frames
        self.latency.merge(latency)

    def merge(self, other: StreamTotals) -> None:
        """Count in other totals."""
        self.add(other._row(), other.latency)

    def snapshot(self) -> dict[str, Any]:
        """Plain data, with `latency` as the histogram's snapshot."""
        return {**self._row(), "latency": self.latency.snapshot()}

    def _row(self) -> dict[str, Any]:
        return {**self._summed, "dropped": dict(self._dropped), **self._highest}


_SUMMED = ("sent", "delivered", "bytes", "queued", "in_flight")
_HIGHEST = ("high_water", "saturation", "saturation_lately")


def stream_row(
    counters: StreamCounters,
    channel_drops: Mapping[str, int],
    mark: QueueMark,
    *,
    queued: int,
    capacity: int,
    counts_delivered: bool,
) -> dict[str, Any]:
    """The figures of one stream of one agent, as plain data.

    `sent` frames of `bytes` bytes were handed in; each was `delivered`, `dropped` for a reason,
    is `queued`, or `in_flight` between the channel and its end. Where nobody counts what arrives
    (`counts_delivered` is false), what left the channel counts as delivered. `high_water` is the
    most that was queued, `saturation` its share of the capacity, `saturation_lately` the same
    since the row before.
    """
    row: dict[str, Any] = dict(counters.snapshot())
    dropped: dict[str, int] = row["dropped"]
    for reason, frames in channel_drops.items():
        dropped[reason] = dropped.get(reason, 0) + frames
    # The parts are read one after the other while frames move: never below nothing.
    left = max(row["sent"] - sum(dropped.values()) - queued, 0)
    if not counts_delivered:
        row["delivered"] = left
    ever, lately = mark.take(queued)
    row["queued"] = queued
    row["in_flight"] = max(left - row["delivered"], 0)
    row["high_water"] = ever
    row["saturation"] = min(ever / capacity, 1.0)
    row["saturation_lately"] = min(lately / capacity, 1.0)
    return row
