# SPDX-License-Identifier: Apache-2.0
"""Side-by-side timing: absolute times swing with the machine, ratios within one run do not.

All contestants run interleaved, A B C ... C B A, for several rounds. A ratio is worked out in
each round on its own, and the row shows the median, so a disturbance spoils a round, not a row.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

SAMPLE_S: Final = 2e-3  # one timing takes about this long: far above the clock's grain
QUICK_SAMPLE_S: Final = 5e-4
ROUNDS: Final = 15
QUICK_ROUNDS: Final = 5
NOT_INSTALLED: Final = "not installed"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a benchmark.

    `ratio` is ours / reference; `limit` is what the row has to reach, in words; `met` is None
    when it could not be judged, for example because the reference is not installed. `note` holds
    further figures, for people.
    """

    name: str
    ours_s: float | None
    reference: str
    reference_s: float | None
    ratio: float | None
    limit: str
    met: bool | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """What one row measures: `ours` against `reference`, each timed as a whole call.

    Judged by `max_ratio` (ours / reference) or, without a reference, by `max_s`. A call that deals
    with many items says how many by `items`; the times of the row are for one of them.
    """

    name: str
    ours: Callable[[], object]
    reference_name: str
    limit: str
    reference: Callable[[], object] | None = None
    max_ratio: float | None = None
    max_s: float | None = None
    items: int = 1


def _calls_per_sample(function: Callable[[], object], sample_s: float) -> int:
    function()  # warm up
    start = time.perf_counter()
    function()
    once = time.perf_counter() - start
    return max(1, min(20_000, int(sample_s / max(once, 1e-7))))


def _time(function: Callable[[], object], calls: int) -> float:
    """Seconds per call, averaged over `calls`."""
    repeat = range(calls)
    start = time.perf_counter()
    for _ in repeat:
        function()
    return (time.perf_counter() - start) / calls


def measure(cases: Sequence[Case], *, quick: bool = False) -> list[Row]:
    """Time every case against its reference, interleaved, and judge it. One row a case."""
    sample_s = QUICK_SAMPLE_S if quick else SAMPLE_S
    functions: dict[int, Callable[[], object]] = {}
    for case in cases:
        functions[id(case.ours)] = case.ours
        if case.reference is not None:
            functions[id(case.reference)] = case.reference
    calls = {key: _calls_per_sample(function, sample_s) for key, function in functions.items()}
    samples: dict[int, list[float]] = {key: [] for key in functions}
    order = list(functions)
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        there = {key: _time(functions[key], calls[key]) for key in order}
        back = {key: _time(functions[key], calls[key]) for key in reversed(order)}
        for key in order:
            samples[key].append((there[key] + back[key]) / 2)
    return [_judge(case, samples) for case in cases]


def _judge(case: Case, samples: dict[int, list[float]]) -> Row:
    ours = samples[id(case.ours)]
    ours_s = statistics.median(ours) / case.items
    if case.reference is None:
        met = None if case.max_s is None else ours_s <= case.max_s
        return Row(case.name, ours_s, case.reference_name, None, None, case.limit, met)
    theirs = samples[id(case.reference)]
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    met = None if case.max_ratio is None else ratio <= case.max_ratio
    return Row(
        case.name,
        ours_s,
        case.reference_name,
        statistics.median(theirs) / case.items,
        ratio,
        case.limit,
        met,
    )


def rows_as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON-able objects."""
    return [asdict(row) for row in rows]


def rows_as_text(rows: Sequence[Row]) -> str:
    """The rows as text, one line each, in columns."""
    cells = [("row", "ours", "reference", "reference time", "ratio", "limit", "met", "note")]
    for row in rows:
        cells.append(
            (
                row.name,
                _duration(row.ours_s),
                row.reference,
                _duration(row.reference_s),
                "-" if row.ratio is None else f"{row.ratio:.3g}x",
                row.limit,
                {True: "yes", False: "NO", None: "-"}[row.met],
                row.note,
            )
        )
    widths = [max(len(cell[column]) for cell in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(cell, widths, strict=True)).rstrip()
        for cell in cells
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.2f} us"
    return f"{seconds * 1e3:.2f} ms"
