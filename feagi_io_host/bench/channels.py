# SPDX-License-Identifier: Apache-2.0
"""Channel benchmark: putting and getting, in one thread, across threads and into event loops.

The peers are what a program would use instead: a bare deque (which bounds, counts and wakes
nobody), the queues of the standard library, a Condition around a deque, call_soon_threadsafe.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Protocol

from feagi_io_host.bench.runner import Case, Row, measure
from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.core.delivery import CHANNEL_CAPACITY, OnFull
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.runtime import LoopThread

PAIRS: Final = 200  # put+get in one timed call: the call itself does not show
BURST: Final = 256  # half a channel: a producer that is ahead of its consumer
_DEADLINE_S: Final = 10.0


class _Pipe(Protocol):
    """A queue as threads see it."""

    def put(self, item: object) -> object:
        """Hand over."""

    def get(self) -> object:
        """Take."""


class _ConditionPipe:
    """A deque and a Condition, without bounds: the least a pipe that can be waited at has."""

    def __init__(self) -> None:
        self._items: deque[object] = deque()
        self._condition = threading.Condition()

    def put(self, item: object) -> None:
        with self._condition:
            self._items.append(item)
            self._condition.notify()

    def get(self) -> object:
        with self._condition:
            while not self._items:
                self._condition.wait(_DEADLINE_S)
            return self._items.popleft()


def _bare_pairs() -> Callable[[], object]:
    items: deque[object] = deque()

    def pairs() -> None:
        for number in range(PAIRS):
            items.append(number)
            items.popleft()

    return pairs


def _our_pairs() -> Callable[[], object]:
    channel: BoundedChannel[int] = BoundedChannel()

    # Each peer has a loop of its own: the interpreter adapts a call to the one type it meets there.
    def pairs() -> None:
        for number in range(PAIRS):
            channel.put(number)
            channel.get()

    return pairs


def _library_pairs() -> Callable[[], object]:
    bounded: queue.Queue[int] = queue.Queue(CHANNEL_CAPACITY)

    def pairs() -> None:
        for number in range(PAIRS):
            bounded.put(number)
            bounded.get()

    return pairs


def _overfull(capacity: int, policy: OnFull) -> Callable[[], object]:
    channel: BoundedChannel[int] = BoundedChannel(capacity, policy)
    for number in range(capacity):
        channel.put(number)

    def puts() -> None:
        for number in range(PAIRS):
            channel.put(number)

    return puts


def _blocking_cases() -> list[Case]:
    ours = _our_pairs()
    ring: deque[int] = deque(range(CHANNEL_CAPACITY), CHANNEL_CAPACITY)

    def overwrite() -> None:
        for number in range(PAIRS):
            ring.append(number)

    full = _overfull(CHANNEL_CAPACITY, OnFull.DROP_OLDEST)
    return [
        Case("put+get", ours, "bare deque", "<= 4x", _bare_pairs(), 4, items=PAIRS),
        Case("put+get", ours, "queue.Queue", "<= 0.2x", _library_pairs(), 0.2, items=PAIRS),
        Case("put that drops the oldest", full, "deque(maxlen)", "-", overwrite, items=PAIRS),
    ]


# -- in one event loop ----------------------------------------------------------------------------


def _async_cases(run: Callable[[Coroutine[Any, Any, None]], object]) -> list[Case]:
    channel: AsyncBoundedChannel[object] = AsyncBoundedChannel()
    library: asyncio.Queue[object] = asyncio.Queue(CHANNEL_CAPACITY)
    items: deque[object] = deque()

    async def bare_put(item: object) -> None:
        items.append(item)

    async def bare_get() -> object:
        return items.popleft()

    async def ours() -> None:
        for number in range(PAIRS):
            await channel.put(number)
            await channel.get()

    async def bare() -> None:
        for number in range(PAIRS):
            await bare_put(number)
            await bare_get()

    async def theirs() -> None:
        for number in range(PAIRS):
            await library.put(number)
            await library.get()

    def timed() -> object:
        return run(ours())

    return [
        Case(
            "asyncio put+get",
            timed,
            "bare deque in two coroutines",
            "<= 1.5x",
            lambda: run(bare()),
            1.5,
            items=PAIRS,
        ),
        Case(
            "asyncio put+get",
            timed,
            "asyncio.Queue",
            "<= 0.5x",
            lambda: run(theirs()),
            0.5,
            items=PAIRS,
        ),
    ]


# -- from a thread into an event loop -------------------------------------------------------------


def _bursts(loop: LoopThread) -> tuple[Callable[[], object], Callable[[], object]]:
    """A burst of BURST items handed over, ours and one call_soon_threadsafe each; a call returns
    when the loop has them all."""
    channel: AsyncBoundedChannel[int] = AsyncBoundedChannel()
    arrived = threading.Semaphore(0)
    items: list[int] = []

    async def consume() -> None:
        for _ in range(BURST):
            await channel.get(_DEADLINE_S)
        arrived.release()

    def ours() -> None:
        asyncio.run_coroutine_threadsafe(consume(), loop.loop)
        put = channel.thread_side.put
        for number in range(BURST):
            put(number)
        _wait(arrived)

    def take(number: int) -> None:
        items.append(number)
        if len(items) == BURST:
            items.clear()
            arrived.release()

    def one_call_each() -> None:
        # The same way into the loop at first, so that the rest is what is compared.
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop.loop)
        for number in range(BURST):
            loop.loop.call_soon_threadsafe(take, number)
        _wait(arrived)

    return ours, one_call_each


def _loop_hops(loop: LoopThread) -> tuple[Callable[[], object], Callable[[], object]]:
    """One item to a coroutine that sleeps and back to the thread, ours and with bare futures."""
    there: AsyncBoundedChannel[int] = AsyncBoundedChannel()
    back: BoundedChannel[int] = BoundedChannel()
    arrived = threading.Semaphore(0)
    bell: list[asyncio.Future[None]] = []

    async def echo() -> None:
        while True:
            try:
                item = await there.get()
            except ClosedError:
                return
            assert item is not None
            back.put(item)

    async def bare_echo() -> None:
        while True:
            bell[:] = [loop.loop.create_future()]
            arrived.release()
            await bell[0]

    def ours() -> None:
        there.thread_side.put(1)
        assert back.get(_DEADLINE_S) == 1

    def bare() -> None:
        loop.loop.call_soon_threadsafe(bell[0].set_result, None)
        _wait(arrived)

    # Both end with the loop, which cancels what runs in it.
    asyncio.run_coroutine_threadsafe(echo(), loop.loop)
    asyncio.run_coroutine_threadsafe(bare_echo(), loop.loop)
    _wait(arrived)
    return ours, bare


def _wait(arrived: threading.Semaphore) -> None:
    if not arrived.acquire(timeout=_DEADLINE_S):
        raise TimeoutError(f"the event loop did not answer within {_DEADLINE_S} s")


@contextmanager
def _loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread("feagi-io-bench-loop")
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()


def _loop_thread_cases(loop: LoopThread) -> list[Case]:
    ours, one_call_each = _bursts(loop)
    our_hop, bare_hop = _loop_hops(loop)
    return [
        Case(
            f"thread to event loop, bursts of {BURST}, per item",
            ours,
            "call_soon_threadsafe each",
            "<= 0.5x",
            one_call_each,
            0.5,
            items=BURST,
        ),
        Case(
            "thread to a coroutine that sleeps, and back",
            our_hop,
            "bare future and semaphore",
            "<= 1.5x",
            bare_hop,
            1.5,
        ),
    ]


# -- to a thread that sleeps ----------------------------------------------------------------------


@contextmanager
def _echo(there: _Pipe, back: _Pipe) -> Iterator[Callable[[], object]]:
    """A thread that sends back what comes; yields one round trip. Both ends sleep before."""

    def echo() -> None:
        while (item := there.get()) is not None:
            back.put(item)

    def round_trip() -> None:
        there.put(1)
        assert back.get() == 1

    thread = threading.Thread(target=echo, name="feagi-io-bench-echo", daemon=True)
    thread.start()
    try:
        yield round_trip
    finally:
        there.put(None)
        thread.join(_DEADLINE_S)


def _hop_cases(stack: ExitStack) -> list[Case]:
    ours = stack.enter_context(_echo(BoundedChannel[object](), BoundedChannel[object]()))
    condition = stack.enter_context(_echo(_ConditionPipe(), _ConditionPipe()))
    library = stack.enter_context(_echo(queue.SimpleQueue(), queue.SimpleQueue()))
    name = "to a thread that sleeps, and back"
    return [
        Case(name, ours, "deque and Condition", "<= 1.1x", condition, 1.1),
        Case(name, ours, "queue.SimpleQueue", "-", library),
    ]


def run(quick: bool = False) -> list[Row]:
    """All rows of the channel benchmark; `quick` takes fewer and shorter samples."""
    rows = measure(_blocking_cases(), quick=quick)
    with asyncio.Runner() as runner:
        rows += measure(_async_cases(runner.run), quick=quick)
    with ExitStack() as stack:
        rows += measure(_hop_cases(stack), quick=quick)
    with _loop_thread() as loop:
        rows += measure(_loop_thread_cases(loop), quick=quick)
    return rows
