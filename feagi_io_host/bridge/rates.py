# SPDX-License-Identifier: Apache-2.0
"""RateKeeper: takes a line above its first baud rate, and back when it does not carry there.

    IDLE   -> ASKED   the board has said that it can, and the session has stood for a moment
    ASKED  -> TRIAL   the board agreed: both ends change over, and beat at once
    TRIAL  -> FAST    a frame came through
    FAST   -> ASKED   frames are damaged: the next lower rate, or the first one
    any    -> IDLE    no, no answer, nothing through, or the session was lost: the first rate

Nobody speaks between question and change, which costs one frame at most. Question and trial take
half the motor timeout each at most, and half of `lost_ms`: a rate that does not carry makes nobody
fail safe and ends no session. What did not carry is left alone for a minute, then for two, and so
on up to an hour.

No clock and no line: the time comes in, the rate to set goes out.
"""

from __future__ import annotations

import enum
from typing import Final

from feagi_wire.const import EV_DOWN, EV_LOST, EV_RATE, EV_UP
from feagi_wire.host_link import HostLink

RATES: Final = (230_400, 460_800, 921_600)
MAX_BAUD: Final = RATES[-1]
_SETTLE_S: Final = 0.2
_BEAT_S: Final = 0.03  # on trial; the board may change over a little later than we do
_WINDOW_S: Final = 1.0
_FEW: Final = 3  # damaged frames a window that any line may have
_SHARE: Final = 50  # beyond those, one damaged frame of so many is too much
_AVOID_S: Final = 60.0
_MOST_AVOID_S: Final = 3600.0
_YOUNG_S: Final = 10.0  # a session lost so soon after a change was lost by it


class RateState(enum.Enum):
    """Where a line stands."""

    IDLE = "idle"
    ASKED = "asked"
    TRIAL = "trial"
    FAST = "fast"


class RateKeeper:
    """`base`: the baud rate at which the line opens, 0 where it has none to change. `most`: the
    highest to go to; `base` or less keeps it there.

    Call `step` in the line's thread after each event and each tick.
    """

    def __init__(self, base: int, most: int) -> None:
        self.base = base
        self.most = most
        self.current = base
        self.state = RateState.IDLE
        self.changes = 0
        """How often another rate was taken that then carried."""
        self.failures = 0
        """How often one did not carry, or was refused."""
        self._wanted = base
        self._since_s = 0.0
        self._next_s = float("inf")
        self._beaten_s = 0.0
        self._frames = 0
        self._damaged = 0
        self._damaged_there = 0
        self._avoid_from = 0  # this rate and those above, until `_avoid_until_s`
        self._avoid_until_s = 0.0
        self._avoid_s = _AVOID_S

    def step(self, link: HostLink, events: int, now_s: float, ticks: int) -> int:
        """The baud rate to set now, 0 for none. `ticks`: the link's own time."""
        if events & (EV_LOST | EV_DOWN):
            return self._lost(now_s)
        if events & EV_UP:
            self._next_s = now_s + _SETTLE_S
        patience_s = min(link.motor_timeout_ms, link.lost_ms) / 2000.0
        if self.state is RateState.ASKED:
            return self._asked(link, events, now_s, patience_s, ticks)
        if self.state is RateState.TRIAL:
            return self._on_trial(link, now_s, patience_s, ticks)
        if now_s >= self._next_s and link.framer.frames != self._frames:
            # The board was heard here, so it is not still on trial where we have left it.
            self._next_s = now_s + _WINDOW_S
            if self.state is RateState.FAST and self._is_bad(link):
                self._avoid(self.current, now_s)
                self._ask(link, self._best(link, now_s), now_s)
            elif self._best(link, now_s) > self.current:
                self._ask(link, self._best(link, now_s), now_s)
        return 0

    def closed(self) -> None:
        """The line was closed; it opens at its first rate again."""
        self.current = self.base
        self.state = RateState.IDLE
        self._next_s = float("inf")

    def not_set(self, now_s: float) -> int:
        """The system would not set the rate that `step` gave: the board comes back by itself. The
        rate to set instead, 0 for none."""
        refused = self.current
        self._avoid(refused, now_s)
        self.closed()
        self._next_s = now_s + _SETTLE_S
        return self.base if refused != self.base else 0

    # -- steps ------------------------------------------------------------------------------------

    def _lost(self, now_s: float) -> int:
        before = self.current
        if before != self.base and now_s - self._since_s < _YOUNG_S:
            self._avoid(before, now_s)
        self.closed()
        return self.base if before != self.base else 0

    def _ask(self, link: HostLink, rate: int, now_s: float) -> None:
        if link.ask_rate(rate) < 0:
            return
        self._wanted = rate
        self._since_s = now_s
        self.state = RateState.ASKED

    def _asked(
        self, link: HostLink, events: int, now_s: float, patience_s: float, ticks: int
    ) -> int:
        answered = bool(events & EV_RATE)
        if not answered and now_s - self._since_s < patience_s:
            return 0
        agreed = answered and link.rate == self._wanted
        link.resume(ticks)
        if not agreed:
            if self._wanted > self.current:
                self._avoid(self._wanted, now_s)
            self.state = RateState.IDLE if self.current == self.base else RateState.FAST
            return 0
        self.current = self._wanted
        self.state = RateState.TRIAL
        self._since_s = self._beaten_s = now_s
        self._note(link)
        return self.current

    def _on_trial(self, link: HostLink, now_s: float, patience_s: float, ticks: int) -> int:
        if link.framer.frames != self._frames:
            self.changes += 1
            self.state = RateState.IDLE if self.current == self.base else RateState.FAST
            self._since_s = now_s
            self._next_s = now_s + _WINDOW_S
            self._note(link)
        elif now_s - self._since_s > patience_s:
            self._avoid(self.current, now_s)
            self.closed()
            self._note(link)
            self._next_s = now_s + _SETTLE_S
            return self.base
        elif now_s - self._beaten_s >= _BEAT_S:
            self._beaten_s = now_s
            link.beat_now(ticks)
        return 0

    # -- what is good enough ----------------------------------------------------------------------

    def _best(self, link: HostLink, now_s: float) -> int:
        most = min(self.most, link.peer_max_baud)
        if now_s < self._avoid_until_s:
            most = min(most, self._avoid_from - 1)
        return max((rate for rate in RATES if self.base < rate <= most), default=self.base)

    def _note(self, link: HostLink) -> None:
        framer = link.framer
        self._frames = framer.frames
        self._damaged = framer.crc_errors + framer.resyncs + framer.oversize
        self._damaged_there = link.peer_counters[3] + link.peer_counters[4]

    def _is_bad(self, link: HostLink) -> bool:
        """Whether too many frames were damaged since the last look, at either end."""
        good, here, there = self._frames, self._damaged, self._damaged_there
        self._note(link)
        good = self._frames - good
        # the board's counters have 16 bits, and begin anew when it restarts
        bad = self._damaged - here + max(self._damaged_there - there, 0)
        return bad > _FEW and bad * _SHARE > good + bad

    def _avoid(self, rate: int, now_s: float) -> None:
        self.failures += 1
        self._avoid_from = rate
        self._avoid_until_s = now_s + self._avoid_s
        self._avoid_s = min(2 * self._avoid_s, _MOST_AVOID_S)
