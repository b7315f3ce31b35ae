# SPDX-License-Identifier: Apache-2.0
"""TokenBucket: how often something may happen, on a time that is handed in."""

from __future__ import annotations

from dataclasses import dataclass

from feagi_io_host.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` at once and `per_s` a second in the long run. ConfigError unless both are above 0."""

    per_s: float
    burst: int

    def __post_init__(self) -> None:
        if not 0.0 < self.per_s < float("inf") or self.burst < 1:
            raise ConfigError(
                f"rate of {self.per_s} per second, {self.burst} at once; above 0 and at least 1 "
                "are needed"
            )


class TokenBucket:
    """Full at first; each `take` takes one token, time brings them back. Not thread-safe."""

    __slots__ = ("_at_s", "_rate", "_tokens")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether it may happen now. A time before the last one brings nothing back."""
        if now_s > self._at_s:
            gained = (now_s - self._at_s) * self._rate.per_s
            self._tokens = min(self._tokens + gained, float(self._rate.burst))
            self._at_s = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
