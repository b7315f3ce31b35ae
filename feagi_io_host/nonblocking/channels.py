# SPDX-License-Identifier: Apache-2.0
"""AsyncBoundedChannel: entries between coroutines, and between threads and an event loop.

The twin of `blocking.channels`, with the same policies and counters. `put` and `get` are awaited
in an event loop; `thread_side` has the same methods for threads. Any mixture works: a thread puts
and a loop gets, the other way round, or both ends in one loop.

How it is fast. The common case takes no lock and makes no system call: look at the length,
append, look whether somebody sleeps. A loop is woken (`call_soon_threadsafe`, a write to its
self-pipe) only for a consumer that sleeps in it; while the consumer is busy with the entries
before, a producer costs it nothing.

Why no wake-up is lost
  1. A consumer enlists as a sleeper first and looks for entries afterwards; a producer appends
     first and looks for sleepers afterwards. One of the two sees the other.
  2. The same holds for producers at a full channel and consumers that make room.
  3. `close` leaves `_someone_sleeps` set for good, so a producer that was past the capacity check
     at that moment comes by the slow path and clears away what it has just appended.
  4. A waiter that was woken and cancelled in the same moment passes the wake-up on.

Waiters of both kinds stand in one queue as gates: a lock that is held, or a future.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

from feagi_io_host.core.delivery import CHANNEL_CAPACITY, DeliveryRule, OnFull
from feagi_io_host.core.errors import ClosedError, ConfigError, DeliveryTimeoutError

T = TypeVar("T")

# Below any length, so that every put comes by the slow path and finds the channel closed.
_CLOSED_LIMIT: Final = -1


class _Gate(Protocol):
    def open(self) -> bool:
        """Let the waiter go on; False when nobody is there to go on any more."""


class _ThreadGate:
    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> bool:
        self._lock.release()
        return True

    def wait(self, left_s: float | None) -> None:
        longest_s = threading.TIMEOUT_MAX
        self._lock.acquire(timeout=-1 if left_s is None else min(left_s, longest_s))


class _LoopGate:
    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def open(self) -> bool:
        if asyncio._get_running_loop() is self._loop:
            self._resolve()
            return True
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:  # the loop was closed with the waiter in it
            return False
        return True

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, left_s: float | None) -> None:
        if left_s is None:
            await self._future
            return
        timer = self._loop.call_later(left_s, self._resolve)
        try:
            await self._future
        finally:
            timer.cancel()


class AsyncBoundedChannel(Generic[T]):
    """A channel of at most `capacity` entries with one of the delivery table's policies.

    `policy` says what a put at a full channel does: DROP_OLDEST and CONFLATE never wait, BLOCK
    waits. CONFLATE keeps one entry whatever `capacity` says. Producers in other threads that
    arrive in the same instant may exceed the capacity by one entry each, for that instant.

    `put` owns its entry once it runs: the entry is either taken by a consumer or given to
    `on_drop` exactly once (full, timed out, cancelled, closed), also when `put` raises. Await it
    where it is called: a task that is cancelled before its first step never ran. `on_drop` runs
    where the drop was caused and must not raise. A cancelled `get` has taken nothing.
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
        "thread_side",
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
        self._sleepers: deque[_Gate] = deque()
        self._blocked: deque[_Gate] = deque()
        self._someone_sleeps = False
        self._someone_blocked = False
        self.thread_side: ThreadSide[T] = ThreadSide(self)

    @classmethod
    def for_rule(
        cls,
        rule: DeliveryRule,
        *,
        on_drop: Callable[[T], object] | None = None,
        name: str = "channel",
    ) -> AsyncBoundedChannel[T]:
        """A channel as a row of the delivery table wants it."""
        return cls(rule.capacity, rule.on_full, on_drop=on_drop, name=name)

    async def put(self, item: T, timeout_s: float | None = None) -> None:
        """Hand an entry over.

        `timeout_s` counts only for BLOCK at a full channel: None waits for ever, 0 does not
        wait. Raises DeliveryTimeoutError when it passes first, ClosedError when the channel is
        or becomes closed; the entry has then been dropped.
        """
        items = self._items
        if len(items) < self._limit:  # the common case, without one more call
            items.append(item)
            if self._someone_sleeps:
                self._wake_consumer()
            return
        if self._put_at_once(item):
            return
        deadline_s = _deadline(timeout_s)
        while True:
            gate = _LoopGate()
            left_s = _left(deadline_s)
            if self._place_or_enlist(item, gate, left_s, timeout_s):
                return
            try:
                await gate.wait(left_s)
            except BaseException:
                self._leave_put(gate, item)
                raise
            self._unlist(gate, self._blocked)

    def try_put(self, item: T) -> bool:
        """Hand an entry over if there is room; False at a full channel, whatever the policy.

        Only then does the entry stay the caller's. Raises ClosedError like `put`.
        """
        items = self._items
        if len(items) >= self._limit:
            if not self._closed:
                return False
            self._refuse_closed(item)
        items.append(item)
        if self._someone_sleeps:
            self._wake_consumer()
        return True

    async def get(self, timeout_s: float | None = None) -> T | None:
        """Take the oldest entry; None when `timeout_s` passed without one.

        None as timeout waits for ever, 0 does not wait. Raises ClosedError when the channel is
        or becomes closed. Does not give way to other tasks while there are entries.
        """
        try:
            item = self._items.popleft()
        except IndexError:
            pass
        else:
            if self._someone_blocked:
                self._wake_producer()
            return item
        deadline_s = _deadline(timeout_s)
        while True:
            gate = _LoopGate()
            left_s = _left(deadline_s)
            finished, found = self._take_or_enlist(gate, left_s)
            if finished:
                return found
            try:
                await gate.wait(left_s)
            except BaseException:
                self._leave(gate, self._sleepers)
                raise
            self._unlist(gate, self._sleepers)

    def get_nowait(self) -> T | None:
        """Take the oldest entry; None when there is none. Raises ClosedError when closed."""
        return self._take_now()

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
            gate.open()
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
        """Dropped entries by reason: "full", "conflated", "timeout", "cancelled", "closed"."""
        with self._lock:
            return dict(self._drops)

    def __len__(self) -> int:
        return len(self._items)

    # -- steps that both sides share --------------------------------------------------------------

    def _put_at_once(self, item: T) -> bool:
        """Put without waiting, as far as the policy can; False where it has to wait."""
        items = self._items
        if len(items) < self._limit:
            items.append(item)
        elif self._policy is OnFull.BLOCK:
            return False
        else:
            self._put_over(item)
        if self._someone_sleeps:
            self._wake_consumer()
        return True

    def _put_over(self, item: T) -> None:
        """Put at a full channel that makes room by dropping."""
        victims: list[T] = []
        with self._lock:
            closed = self._closed
            if not closed:
                while len(self._items) >= self._limit:
                    try:
                        victims.append(self._items.popleft())
                    except IndexError:  # a consumer was faster
                        break
                self._items.append(item)
                conflates = self._policy is OnFull.CONFLATE
                self._count_drops("conflated" if conflates else "full", len(victims))
        if closed:
            self._refuse_closed(item)
        self._drop(victims)

    def _place_or_enlist(
        self, item: T, gate: _Gate, left_s: float | None, timeout_s: float | None
    ) -> bool:
        """Put now (True), or stand in the queue of the blocked (False), or drop and raise."""
        failure: Exception | None = None
        with self._lock:
            if self._closed:
                self._count_drops("closed", 1)
                failure = self._closed_error("put")
            else:
                self._enlist(gate, self._blocked)
                if len(self._items) < self._limit:
                    self._items.append(item)
                elif left_s is None or left_s > 0.0:
                    return False
                else:
                    self._count_drops("timeout", 1)
                    failure = DeliveryTimeoutError(
                        f"{self.name}: still full with {self._limit} entries after "
                        f"{timeout_s} s; the receiver is too slow or stuck"
                    )
                self._forget(gate, self._blocked)
        if failure is not None:
            self._drop([item])
            raise failure
        if self._someone_sleeps:
            self._wake_consumer()
        return True

    def _take_or_enlist(self, gate: _Gate, left_s: float | None) -> tuple[bool, T | None]:
        """(True, entry or None) when the get ends here; (False, None) when it has to wait."""
        found: T | None = None
        with self._lock:
            if self._closed:
                raise self._closed_error("get")
            self._enlist(gate, self._sleepers)
            try:
                found = self._items.popleft()
            except IndexError:
                if left_s is None or left_s > 0.0:
                    return False, None
            self._forget(gate, self._sleepers)
        if self._someone_blocked:
            self._wake_producer()
        return True, found

    def _take_now(self) -> T | None:
        try:
            item = self._items.popleft()
        except IndexError:
            if self._closed:
                raise self._closed_error("get") from None
            return None
        if self._someone_blocked:
            self._wake_producer()
        return item

    def _enlist(self, gate: _Gate, gates: deque[_Gate]) -> None:
        gates.append(gate)
        self._mark_waiters()

    def _forget(self, gate: _Gate, gates: deque[_Gate]) -> None:
        gates.remove(gate)
        self._mark_waiters()

    def _unlist(self, gate: _Gate, gates: deque[_Gate]) -> None:
        """After a wait that ended by itself: out of the queue, if nobody took the gate."""
        with self._lock:
            if gate in gates:
                self._forget(gate, gates)

    def _leave(self, gate: _Gate, gates: deque[_Gate]) -> None:
        """After a wait that was cancelled: a wake-up that had come already goes on."""
        with self._lock:
            if gate in gates:
                self._forget(gate, gates)
            else:
                self._open_first(gates)

    def _leave_put(self, gate: _Gate, item: T) -> None:
        self._leave(gate, self._blocked)
        with self._lock:
            self._count_drops("cancelled", 1)
        self._drop([item])

    def _mark_waiters(self) -> None:
        """Tell the fast paths, under the lock, whether somebody is to be woken."""
        self._someone_sleeps = self._closed or bool(self._sleepers)
        self._someone_blocked = bool(self._blocked)

    def _open_first(self, gates: deque[_Gate]) -> None:
        while gates and not gates.popleft().open():
            pass  # a waiter whose loop is gone; the wake-up is for the next one
        self._mark_waiters()

    def _wake_consumer(self) -> None:
        left: list[T] = []
        with self._lock:
            closed = self._closed
            if closed:
                left = self._take_all()
                self._count_drops("closed", len(left))
            else:
                self._open_first(self._sleepers)
        if closed:
            self._drop(left)
            raise self._closed_error("put")

    def _wake_producer(self) -> None:
        with self._lock:
            self._open_first(self._blocked)

    def _refuse_closed(self, item: T) -> None:
        with self._lock:
            self._count_drops("closed", 1)
        self._drop([item])
        raise self._closed_error("put")

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


class ThreadSide(Generic[T]):
    """The same channel for threads, with the methods of `blocking.channels.BoundedChannel`.

    In a thread whose event loop is running nothing here waits, whatever the timeout says: that
    would hold up every task of the loop.
    """

    __slots__ = ("_channel",)

    def __init__(self, channel: AsyncBoundedChannel[T]) -> None:
        self._channel = channel

    @property
    def name(self) -> str:
        """Name of the channel."""
        return self._channel.name

    def put(self, item: T, timeout_s: float | None = None) -> None:
        """Hand an entry over; see `AsyncBoundedChannel.put`."""
        channel = self._channel
        if channel._put_at_once(item):
            return
        deadline_s = _deadline(_patience(timeout_s))
        while True:
            gate = _ThreadGate()
            left_s = _left(deadline_s)
            if channel._place_or_enlist(item, gate, left_s, timeout_s):
                return
            try:
                gate.wait(left_s)
            except BaseException:
                channel._leave_put(gate, item)
                raise
            channel._unlist(gate, channel._blocked)

    def try_put(self, item: T) -> bool:
        """Hand an entry over if there is room; see `AsyncBoundedChannel.try_put`."""
        return self._channel.try_put(item)

    def get(self, timeout_s: float | None = None) -> T | None:
        """Take the oldest entry; see `AsyncBoundedChannel.get`."""
        channel = self._channel
        deadline_s = _deadline(_patience(timeout_s))
        while True:
            gate = _ThreadGate()
            left_s = _left(deadline_s)
            finished, found = channel._take_or_enlist(gate, left_s)
            if finished:
                return found
            try:
                gate.wait(left_s)
            except BaseException:
                channel._leave(gate, channel._sleepers)
                raise
            channel._unlist(gate, channel._sleepers)

    def get_nowait(self) -> T | None:
        """Take the oldest entry; None when there is none. Raises ClosedError when closed."""
        return self._channel._take_now()

    def close(self) -> None:
        """Close the channel, for both sides."""
        self._channel.close()

    @property
    def closed(self) -> bool:
        """Whether the channel is closed."""
        return self._channel.closed

    @property
    def capacity(self) -> int:
        """How many entries the channel holds; 0 once it is closed."""
        return self._channel.capacity

    @property
    def dropped(self) -> int:
        """How many entries were dropped, for whatever reason."""
        return self._channel.dropped

    def drops_by_reason(self) -> dict[str, int]:
        """Dropped entries by reason."""
        return self._channel.drops_by_reason()

    def __len__(self) -> int:
        return len(self._channel)


def _patience(timeout_s: float | None) -> float | None:
    return timeout_s if asyncio._get_running_loop() is None else 0.0


def _deadline(timeout_s: float | None) -> float | None:
    if timeout_s is None:
        return None
    return time.monotonic() + timeout_s if timeout_s > 0.0 else 0.0


def _left(deadline_s: float | None) -> float | None:
    if deadline_s is None:
        return None
    return deadline_s - time.monotonic() if deadline_s > 0.0 else 0.0
