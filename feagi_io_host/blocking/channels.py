# SPDX-License-Identifier: Apache-2.0
"""BoundedChannel: entries from any threads to any threads, never more than a set number.

How it is fast. A deque's append, popleft and len are atomic, so the common case takes no lock:
look at the length, append, look whether somebody sleeps. The lock and the gates below are for
the rare cases (full, empty, closed) only.

Why no wake-up is lost
  1. A consumer that finds nothing sets `_someone_sleeps` and looks again before it waits; a
     producer appends first and looks at `_someone_sleeps` afterwards. Whatever the
     interleaving, one of the two sees the other.
  2. The same holds for producers at a full channel (`_someone_blocked`) and consumers that make
     room.
  3. `close` leaves `_someone_sleeps` set for good. A producer that was past the capacity check
     at that moment thus comes by the slow path and clears away what it has just appended.

A gate is a lock that is held; releasing it lets its one waiter go on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from feagi_io_host.core.delivery import CHANNEL_CAPACITY, DeliveryRule, OnFull
from feagi_io_host.core.errors import ClosedError, ConfigError, DeliveryTimeoutError

T = TypeVar("T")

# Below any length, so that every put comes by the slow path and finds the channel closed.
_CLOSED_LIMIT: Final = -1

_LONGEST_WAIT_S: Final = threading.TIMEOUT_MAX


class BoundedChannel(Generic[T]):
    """A channel of at most `capacity` entries with one of the delivery table's policies.

    `policy` says what a put at a full channel does: DROP_OLDEST and CONFLATE never wait, BLOCK
    waits. CONFLATE keeps one entry whatever `capacity` says. Producers that arrive in the same
    instant may exceed the capacity by one entry each, for that instant.

    `put` owns its entry from the call on: the entry is either taken by a consumer or given to
    `on_drop` exactly once (full, timed out, closed), also when `put` raises. So a caller can
    write `channel.put(fbc.retain(), timeout_s)` and needs no clean-up of its own. `on_drop`
    runs in the thread that caused the drop and must not raise.
    """

    __slots__ = (
        "_blocked",
        "_closed",
        "_drops",
        "_items",
        "_limit",
        "_lock",
        "_on_drop",
        "_policy",
        "_sleepers",
        "_someone_blocked",
        "_someone_sleeps",
        "name",
    )

    def __init__(
        self,
        capacity: int = CHANNEL_CAPACITY,
        policy: OnFull = OnFull.BLOCK,
        *,
        on_drop: Callable[[T], object] | None = None,
        name: str = "channel",
    ) -> None:
        if capacity < 1:
            raise ConfigError(f"{name}: capacity is {capacity}, at least 1 needed")
        self.name = name
        self._items: deque[T] = deque()
        self._limit = 1 if policy is OnFull.CONFLATE else capacity
        self._policy = policy
        self._on_drop = on_drop
        self._closed = False
        self._drops: dict[str, int] = {}
        self._lock = threading.Lock()
        self._sleepers: deque[threading.Lock] = deque()
        self._blocked: deque[threading.Lock] = deque()
        self._someone_sleeps = False
        self._someone_blocked = False

    @classmethod
    def for_rule(
        cls,
        rule: DeliveryRule,
        *,
        on_drop: Callable[[T], object] | None = None,
        name: str = "channel",
    ) -> BoundedChannel[T]:
        """A channel as a row of the delivery table wants it."""
        return cls(rule.capacity, rule.on_full, on_drop=on_drop, name=name)

    def put(self, item: T, timeout_s: float | None = None) -> None:
        """Hand an entry over.

        `timeout_s` counts only for BLOCK at a full channel: None waits for ever, 0 does not
        wait. Raises DeliveryTimeoutError when it passes first, ClosedError when the channel is
        or becomes closed; the entry has then been dropped.
        """
        if len(items := self._items) < self._limit:
            items.append(item)
            if self._someone_sleeps:
                self._wake_consumer()
        else:
            self._put_at_limit(item, timeout_s)

    def try_put(self, item: T) -> bool:
        """Hand an entry over if there is room; False at a full channel, whatever the policy.

        Only then does the entry stay the caller's. Raises ClosedError like `put`.
        """
        items = self._items
        if len(items) >= self._limit:
            if not self._closed:
                return False
            with self._lock:
                self._count_drops("closed", 1)
            self._drop([item])
            raise self._closed_error("put")
        items.append(item)
        if self._someone_sleeps:
            self._wake_consumer()
        return True

    def get(self, timeout_s: float | None = None) -> T | None:
        """Take the oldest entry; None when `timeout_s` passed without one.

        None as timeout waits for ever, 0 does not wait. Raises ClosedError when the channel is
        or becomes closed.
        """
        try:
            return self._items.popleft()
        except IndexError:
            return self._get_when_empty(timeout_s)
        finally:  # an entry that need not be named on its way out: a twentieth of the time
            if self._someone_blocked:
                self._wake_producer()

    def get_nowait(self) -> T | None:
        """Take the oldest entry; None when there is none. Raises ClosedError when closed."""
        return self.get(0.0)

    def close(self) -> None:
        """Close for good: everybody waiting gets ClosedError, entries left are dropped.

        May be called from any thread and more than once.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._limit = _CLOSED_LIMIT
            gates = [*self._sleepers, *self._blocked]
            self._sleepers.clear()
            self._blocked.clear()
            self._someone_sleeps = True
            self._someone_blocked = False
            left = self._take_all()
            self._count_drops("closed", len(left))
        for gate in gates:
            gate.release()
        self._drop(left)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def capacity(self) -> int:
        """How many entries the channel holds; 0 once it is closed."""
        return max(self._limit, 0)

    @property
    def dropped(self) -> int:
        """How many entries were dropped, for whatever reason."""
        with self._lock:
            return sum(self._drops.values())

    def drops_by_reason(self) -> dict[str, int]:
        """Dropped entries by reason: "full", "conflated", "timeout", "closed"."""
        with self._lock:
            return dict(self._drops)

    def __len__(self) -> int:
        return len(self._items)

    # -- slow paths ---------------------------------------------------------------------------

    def _put_at_limit(self, item: T, timeout_s: float | None) -> None:
        if self._policy is OnFull.BLOCK:
            self._put_blocking(item, timeout_s)
            return
        reason = "conflated" if self._policy is OnFull.CONFLATE else "full"
        victims: list[T] = []
        with self._lock:
            closed = self._closed
            if closed:
                self._count_drops("closed", 1)
            else:
                while len(self._items) >= self._limit:
                    try:
                        victims.append(self._items.popleft())
                    except IndexError:  # a consumer was faster
                        break
                self._items.append(item)
                self._count_drops(reason, len(victims))
        self._drop(victims)
        if closed:
            self._drop([item])
            raise self._closed_error("put")
        if self._someone_sleeps:
            self._wake_consumer()

    def _put_blocking(self, item: T, timeout_s: float | None) -> None:
        deadline_s = _deadline(timeout_s)
        while True:
            with self._lock:
                left_s = _left(deadline_s)
                if self._closed:
                    self._count_drops("closed", 1)
                    failure: Exception = self._closed_error("put")
                    break
                gate = self._gate_for(self._blocked)
                if len(self._items) < self._limit:
                    self._forget(gate, self._blocked)
                    self._items.append(item)
                    taken = True
                elif left_s is not None and left_s <= 0.0:
                    self._forget(gate, self._blocked)
                    self._count_drops("timeout", 1)
                    failure = DeliveryTimeoutError(
                        f"{self.name}: still full with {self._limit} entries after "
                        f"{timeout_s} s; the receiver is too slow or stuck"
                    )
                    break
                else:
                    taken = False
            if taken:
                if self._someone_sleeps:
                    self._wake_consumer()
                return
            self._wait(gate, self._blocked, left_s)
        self._drop([item])
        raise failure

    def _get_when_empty(self, timeout_s: float | None) -> T | None:
        deadline_s = _deadline(timeout_s)
        while True:
            with self._lock:
                left_s = _left(deadline_s)
                if self._closed:
                    raise self._closed_error("get")
                gate = self._gate_for(self._sleepers)
                waits = not self._items and (left_s is None or left_s > 0.0)
                if not waits:
                    self._forget(gate, self._sleepers)
            if waits:
                self._wait(gate, self._sleepers, left_s)
            try:
                return self._items.popleft()  # `get` wakes who waits for room
            except IndexError:
                if not waits and left_s is not None and left_s <= 0.0:
                    return None

    def _gate_for(self, gates: deque[threading.Lock]) -> threading.Lock:
        gate = threading.Lock()
        gate.acquire()
        gates.append(gate)
        self._mark_waiters()
        return gate

    def _forget(self, gate: threading.Lock, gates: deque[threading.Lock]) -> None:
        gates.remove(gate)
        self._mark_waiters()

    def _mark_waiters(self) -> None:
        """Tell the fast paths, under the lock, whether somebody is to be woken."""
        self._someone_sleeps = self._closed or bool(self._sleepers)
        self._someone_blocked = bool(self._blocked)

    def _wait(
        self, gate: threading.Lock, gates: deque[threading.Lock], left_s: float | None
    ) -> None:
        woken = False
        try:
            woken = gate.acquire(timeout=-1 if left_s is None else min(left_s, _LONGEST_WAIT_S))
        finally:
            with self._lock:
                if gate in gates:
                    self._forget(gate, gates)
                elif not woken and gates:
                    # Woken in the very moment this wait ended by its timeout or by a signal
                    # such as Ctrl-C: the wake-up may be the last one, so it goes on.
                    self._release_first(gates)

    def _wake_consumer(self) -> None:
        left: list[T] = []
        with self._lock:
            closed = self._closed
            if closed:
                left = self._take_all()
                self._count_drops("closed", len(left))
            elif self._sleepers:
                self._release_first(self._sleepers)
        if closed:
            self._drop(left)
            raise self._closed_error("put")

    def _wake_producer(self) -> None:
        with self._lock:
            if self._blocked:
                self._release_first(self._blocked)

    def _release_first(self, gates: deque[threading.Lock]) -> None:
        gates.popleft().release()
        self._mark_waiters()

    def _take_all(self) -> list[T]:
        taken: list[T] = []
        while True:
            try:
                taken.append(self._items.popleft())
            except IndexError:
                return taken

    def _count_drops(self, reason: str, entries: int) -> None:
        if entries:
            self._drops[reason] = self._drops.get(reason, 0) + entries

    def _drop(self, items: list[T]) -> None:
        if self._on_drop is not None:
            for item in items:
                self._on_drop(item)

    def _closed_error(self, verb: str) -> ClosedError:
        return ClosedError(f"{self.name} is closed: no {verb} after close")


def _deadline(timeout_s: float | None) -> float | None:
    if timeout_s is None:
        return None
    return time.monotonic() + timeout_s if timeout_s > 0.0 else 0.0


def _left(deadline_s: float | None) -> float | None:
    if deadline_s is None:
        return None
    return deadline_s - time.monotonic() if deadline_s > 0.0 else 0.0
