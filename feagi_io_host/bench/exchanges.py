# SPDX-License-Identifier: Apache-2.0
"""Exchanges of frames in an event loop, ours and a peer's in turns, and the row that they make."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from feagi_io_host.bench.lines import DEADLINE_S
from feagi_io_host.bench.runner import Row
from feagi_io_host.core.pool import SharedFBC

Exchange = Callable[[SharedFBC], Awaitable[object]]
Times = tuple[Sequence[float], Sequence[float]]
"""Seconds of ours and of the peer's exchanges, as many of either."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One way and its peer. `judged`: whether the limit is for it."""

    name: str
    ours: Exchange
    theirs: Exchange
    judged: bool


async def take_turns(pair: Pair, fbc: SharedFBC, count: int, warm_up: int) -> Times:
    """Exchange the frame `count` times either way, after `warm_up` times that do not count."""
    ours: list[float] = []
    theirs: list[float] = []
    ways = [(pair.ours, ours), (pair.theirs, theirs)]
    for turn in range(count + warm_up):
        for exchange, times_s in ways if turn % 2 else reversed(ways):
            began_s = time.perf_counter()
            async with asyncio.timeout(DEADLINE_S):
                await exchange(fbc)
            times_s.append(time.perf_counter() - began_s)
    return ours[warm_up:], theirs[warm_up:]


def compared(
    name: str, times: Times, peer: str, limit: float | None, size_bytes: int | None = None
) -> Row:
    """The row: medians, the median of the ratios pair by pair, and in its note the slow end; with
    `size_bytes` of a frame also megabytes a second. `limit` None: not judged."""
    ours, theirs = times
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    told = [percentiles(times_s, size_bytes) for times_s in times]
    return Row(
        name,
        statistics.median(ours),
        peer,
        statistics.median(theirs),
        ratio,
        "-" if limit is None else f"<= {limit:g}x",
        None if limit is None else ratio <= limit,
        f"{told[0]}; {peer} {told[1]}; {len(ours)} exchanges",
    )


def percentiles(times_s: Sequence[float], size_bytes: int | None = None) -> str:
    """Median and slow end; with `size_bytes` megabytes a second at the median."""
    ordered = sorted(times_s)
    median = statistics.median(ordered)
    p99 = ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)]
    told = f"p50 {1e3 * median:.3f} ms, p99 {1e3 * p99:.3f} ms"
    return told if size_bytes is None else f"{told}, {1e-6 * size_bytes / median:.2f} MB/s"
