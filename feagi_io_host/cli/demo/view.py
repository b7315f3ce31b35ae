# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: a live picture on a terminal, a line per second elsewhere."""

from __future__ import annotations

import math
import sys
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from feagi_io_host.cli.demo.session import DemoSnapshot

_WIDTH = 64
_POLE_ROWS = 9
_TRACK_M = 2.4


class DemoView(Protocol):
    """Anything that can show snapshots and say what happened."""

    def __enter__(self) -> DemoView: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, now: DemoSnapshot) -> None:
        """A new state, some times a second."""

    def say(self, text: str) -> None:
        """Something happened: the board went away, came back, sent a message."""


class LineView:
    """A line per second, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_s = -1

    def __enter__(self) -> LineView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def show(self, now: DemoSnapshot) -> None:
        """Print when a whole second has passed."""
        second = int(now.seconds)
        if second == self._shown_s:
            return
        self._shown_s = second
        self._console.print(
            f"{now.seconds:5.1f} s  {now.link:<9}  angle {now.angle_rad:+.3f} rad  "
            f"cart {now.position_m:+.2f} m  bursts {now.bursts_hz:3.0f}/s  "
            f"sensory {now.sensory_hz:3.0f}/s  motor {now.motor_hz:3.0f}/s  "
            f"RTT {now.rtt_p50_ms:.1f}/{now.rtt_p99_ms:.1f} ms  lost {now.lost}",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip

    def say(self, text: str) -> None:
        """Print at once."""
        self._console.print(f"        {text}", highlight=False, markup=False, soft_wrap=True)


def picture(angle_rad: float, position_m: float) -> Text:
    """Cart and pole in characters, seen from the side."""
    rows = [[" "] * _WIDTH for _ in range(_POLE_ROWS)]
    cart = (position_m / _TRACK_M + 1) / 2 * (_WIDTH - 1)
    for row in range(_POLE_ROWS):
        height = _POLE_ROWS - row
        # a character is about twice as tall as wide
        at = round(cart + 2 * height * math.tan(max(-1.2, min(1.2, angle_rad))))
        if 0 <= at < _WIDTH:
            lean = "|" if abs(angle_rad) < 0.06 else "/" if angle_rad > 0 else "\\"
            rows[row][at] = "o" if row == 0 else lean
    body = [" "] * _WIDTH
    for at in range(round(cart) - 3, round(cart) + 4):
        if 0 <= at < _WIDTH:
            body[at] = "="
    lines = ["".join(r) for r in rows] + ["".join(body), "-" * _WIDTH]
    colour = "green" if abs(angle_rad) < 0.2 else "yellow" if abs(angle_rad) < 0.45 else "red"
    return Text("\n".join(lines), style=colour)


class LiveView:
    """Cart and pole, rates and the last messages, redrawn in place."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=15, transient=False)
        self._said: list[str] = []

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, now: DemoSnapshot) -> None:
        """Redraw."""
        figures = Table.grid(padding=(0, 3))
        figures.add_row(
            f"[bold]{now.seconds:5.1f} s[/]",
            f"board {now.link}",
            f"angle {math.degrees(now.angle_rad):+5.1f} deg",
            f"cart {now.position_m:+.2f} m",
        )
        figures.add_row(
            f"bursts {now.bursts_hz:3.0f}/s",
            f"sensory {now.sensory_hz:3.0f}/s",
            f"motor {now.motor_hz:3.0f}/s",
            f"RTT p50 {now.rtt_p50_ms:.1f}  p99 {now.rtt_p99_ms:.1f} ms   lost {now.lost}",
        )
        said = Text("\n".join(self._said[-4:]), style="dim")
        self._live.update(
            Panel(
                Group(picture(now.angle_rad, now.position_m), figures, said),
                title="feagi-io: a MicroPython board, a brain, a pole",
                expand=False,
            )
        )

    def say(self, text: str) -> None:
        """Add to the messages under the picture."""
        self._said.append(text)
        del self._said[:-4]


class SilentView(LineView):
    """Nothing but the final JSON object: what happens goes to standard error."""

    def show(self, now: DemoSnapshot) -> None:
        """Nothing."""


def choose_view(json_output: bool) -> DemoView:
    """Live on a terminal, lines elsewhere; with --json only messages, on standard error."""
    if json_output:
        return SilentView(Console(stderr=True))
    console = Console()
    if console.is_terminal and sys.stdout.isatty():
        return LiveView(console)
    return LineView(console)
