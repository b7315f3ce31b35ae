# SPDX-License-Identifier: Apache-2.0
"""FakeClock: time that passes when a test says so."""

from __future__ import annotations


class FakeClock:
    """Stands where `time.monotonic` would: called, it gives seconds.

    Give it to whatever takes a `clock`, and its `now_s` to what takes the time itself.
    """

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> float:
        """Let time pass and return the new time. ValueError for less than 0: it is monotonic."""
        if seconds < 0.0:
            raise ValueError(f"a monotonic clock does not go back by {-seconds} s")
        self.now_s += seconds
        return self.now_s
