# SPDX-License-Identifier: Apache-2.0
"""Heartbeat: when to send a sign of life, and when its silence means that the server is gone.

An engine that was restarted or has loaded a genome forgets its agents without a word: heartbeats
without an answer are the only sign. Data frames count for nothing here, they may come from a
server that has forgotten who it sends them to.

    state     input                      becomes   and
    IDLE      start                      RESTING   first beat after the interval
    RESTING   interval over              AWAITING  SEND
    AWAITING  answered                   RESTING
    AWAITING  deadline over              AWAITING  SEND, until too many in a row had no answer:
              deadline over, last one    IDLE      SILENT
    any       stop                       IDLE

An answer that nobody waits for is a sign of life too: it puts the next beat off. A program that
was held up should hand in what has arrived meanwhile before it calls `tick`; even if it does not,
one call counts one missing answer, however late it comes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from feagi_io_host.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class HeartbeatTiming:
    """A beat every `interval_s`; `max_unanswered` in a row, each awaited for `answer_timeout_s`,
    are silence. ConfigError for numbers that are not above 0."""

    interval_s: float = 1.0
    answer_timeout_s: float = 1.0
    max_unanswered: int = 3

    def __post_init__(self) -> None:
        for name in ("interval_s", "answer_timeout_s"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; a number above 0 is needed")
        if self.max_unanswered < 1:
            raise ConfigError(f"max_unanswered is {self.max_unanswered}; at least 1 is needed")

    @property
    def detection_s(self) -> float:
        """The longest that a silent server stays undetected, in seconds."""
        return self.interval_s + self.max_unanswered * self.answer_timeout_s


class HeartbeatState(enum.Enum):
    """See the module's table."""

    IDLE = "idle"
    RESTING = "resting"
    AWAITING = "awaiting"


class Beat(enum.Enum):
    """What `tick` wants done."""

    NOTHING = "nothing"
    SEND = "send"
    SILENT = "silent"


class Heartbeat:
    """One side's heartbeat, on a time that is handed in. Not thread-safe."""

    def __init__(self, timing: HeartbeatTiming | None = None) -> None:
        self.timing = HeartbeatTiming() if timing is None else timing
        self.state = HeartbeatState.IDLE
        self.unanswered = 0
        self._due_s: float | None = None

    @property
    def next_tick_s(self) -> float | None:
        """When `tick` has something to do; None while idle."""
        return self._due_s

    def start(self, now_s: float) -> None:
        """Begin to beat, from any state."""
        self._rest(now_s)

    def stop(self) -> None:
        """Beat no more."""
        self.state = HeartbeatState.IDLE
        self.unanswered = 0
        self._due_s = None

    def answered(self, now_s: float) -> None:
        """The server gave a sign of life. Nothing while idle."""
        if self.state is not HeartbeatState.IDLE:
            self._rest(now_s)

    def tick(self, now_s: float) -> Beat:
        """What has to be done now."""
        if self._due_s is None or now_s < self._due_s:
            return Beat.NOTHING
        if self.state is HeartbeatState.AWAITING:
            self.unanswered += 1
            if self.unanswered >= self.timing.max_unanswered:
                self.stop()
                return Beat.SILENT
        self.state = HeartbeatState.AWAITING
        self._due_s = now_s + self.timing.answer_timeout_s
        return Beat.SEND

    def _rest(self, now_s: float) -> None:
        self.state = HeartbeatState.RESTING
        self.unanswered = 0
        self._due_s = now_s + self.timing.interval_s
