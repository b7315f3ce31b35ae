# SPDX-License-Identifier: Apache-2.0
"""Counters and latency histograms: what a running system can be asked at any time.

Recording costs a lock and an increment; nothing is allocated per sample. `snapshot()` gives
plain dictionaries of numbers, ready for JSON.
"""

from __future__ import annotations

import threading
from array import array

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
        wanted = max(1.0, self._total * percent / 100.0)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            # The product above may come out a hair over a whole number; half a sample of
            # slack cannot skip or add a bucket's worth of samples.
            if count and seen >= wanted - 1e-6:
                return min(_upper_ns(bucket), self._max_ns)
        return self._max_ns


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
