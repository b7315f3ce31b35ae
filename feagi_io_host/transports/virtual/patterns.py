# SPDX-License-Identifier: Apache-2.0
"""Impairment: which frames get lost, come twice, late or in another order. No chance, no clock.

Every pattern is a cycle over the frames of one stream of one agent, so that a test that failed
fails again in the same way:

    loss       (False, False, True)   every third frame is lost
    duplicate  (True, False)          every other frame comes twice
    delay      (0, 2)                 every other frame comes after the 2 frames sent after it
    delay      (3,)                   all come in order, each once 3 more have been sent
    reorder    (True, False)          pairs change places: the same as a delay of 1
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType

_MAX_DELAY_FRAMES: Final = 512  # frames held back are memory


@dataclass(frozen=True, slots=True)
class Impairment:
    """Patterns for one stream; see the module. An empty one does nothing.

    A lost frame still counts for the patterns. Raises ConfigError for a delay outside 0 to 512
    frames.
    """

    loss: tuple[bool, ...] = ()
    duplicate: tuple[bool, ...] = ()
    delay: tuple[int, ...] = ()
    reorder: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        for frames in self.delay:
            if not 0 <= frames <= _MAX_DELAY_FRAMES:
                raise ConfigError(f"a delay of {frames} frames; 0 to {_MAX_DELAY_FRAMES} allowed")

    def loses(self, index: int) -> bool:
        """Whether frame number `index`, from 0, is lost."""
        return bool(self.loss) and self.loss[index % len(self.loss)]

    def doubles(self, index: int) -> bool:
        """Whether frame number `index` comes twice."""
        return bool(self.duplicate) and self.duplicate[index % len(self.duplicate)]

    def delays(self, index: int) -> int:
        """How many later frames frame number `index` lets pass."""
        frames = self.delay[index % len(self.delay)] if self.delay else 0
        return frames + int(bool(self.reorder) and self.reorder[index % len(self.reorder)])


NO_IMPAIRMENT: Final = Impairment()
Impairments = Mapping[StreamType, Impairment]


class ImpairedLine:
    """One stream of one agent: frames go in by `feed` and come out by `take`. Thread-safe.

    Each frame inside holds a lease; a frame that is lost or left at `close` gives it back.
    """

    def __init__(self, impairment: Impairment = NO_IMPAIRMENT) -> None:
        self._impairment = impairment
        self._lock = threading.Lock()
        self._next = 0
        self._held: list[tuple[int, int, SharedFBC]] = []  # due, minus its number, frame
        self._ready: deque[SharedFBC] = deque()
        self._closed = False
        self._lost = 0
        self._duplicated = 0

    def feed(self, fbc: SharedFBC) -> None:
        """The next frame; its lease is the line's from here on."""
        impairment = self._impairment
        with self._lock:
            index = self._next
            self._next += 1
            if self._closed or impairment.loses(index):
                self._lost += 1
                fbc.release()
            else:
                if impairment.doubles(index):
                    self._duplicated += 1
                    self._held.append((index + impairment.delays(index), -index, fbc.retain()))
                self._held.append((index + impairment.delays(index), -index, fbc))
            due = sorted((h for h in self._held if h[0] <= index), key=lambda h: h[:2])
            if due:
                self._held = [h for h in self._held if h[0] > index]
                self._ready.extend(frame for _, _, frame in due)

    def take(self) -> SharedFBC | None:
        """The next frame that has come out, with its lease; None when none has."""
        with self._lock:
            return self._ready.popleft() if self._ready else None

    def close(self) -> None:
        """Give up what is inside, and what is fed from now on."""
        with self._lock:
            self._closed = True
            left = [*self._ready, *(frame for _, _, frame in self._held)]
            self._ready.clear()
            self._held.clear()
            self._lost += len(left)
        for fbc in left:
            fbc.release()

    def counters(self) -> dict[str, int]:
        """`fed`, `lost` (given up at `close` included) and `duplicated`."""
        with self._lock:
            return {"fed": self._next, "lost": self._lost, "duplicated": self._duplicated}
