# SPDX-License-Identifier: Apache-2.0
"""BoundedChannel: order, policies, ownership, waiting, closing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.core.delivery import DELIVERY_TABLE, OnFull
from feagi_io_host.core.errors import ClosedError, ConfigError, DeliveryTimeoutError
from feagi_io_host.core.types import StreamType

PATIENCE_S = 10.0  # how long a test waits for what must happen


@contextmanager
def in_threads(*calls: Callable[[], Any]) -> Iterator[list[Future[Any]]]:
    with ThreadPoolExecutor(len(calls)) as pool:
        yield [pool.submit(call) for call in calls]


def until(reached: Callable[[], bool]) -> None:
    """Wait until another thread has come so far; fail when it does not."""
    tick = threading.Event()
    for _ in range(int(PATIENCE_S / 0.001)):
        if reached():
            return
        tick.wait(0.001)
    pytest.fail("the other thread did not get there")


@pytest.mark.parametrize("policy", list(OnFull))
def test_entries_come_out_in_order(policy: OnFull) -> None:
    channel: BoundedChannel[int] = BoundedChannel(4, policy)
    channel.put(1)
    if policy is not OnFull.CONFLATE:
        channel.put(2)
        assert len(channel) == 2
        assert channel.get() == 1
    assert channel.get(0.0) in (1, 2)
    assert len(channel) == 0


def test_nothing_there_is_none_and_takes_no_time_without_a_timeout() -> None:
    channel: BoundedChannel[int] = BoundedChannel()
    assert channel.get_nowait() is None
    assert channel.get(0.0) is None
    assert channel.get(-1.0) is None
    assert channel.get(0.001) is None


def test_drop_oldest_keeps_the_newest_and_gives_the_rest_to_on_drop() -> None:
    dropped: list[int] = []
    channel: BoundedChannel[int] = BoundedChannel(3, OnFull.DROP_OLDEST, on_drop=dropped.append)
    for value in range(8):
        channel.put(value)
    assert dropped == [0, 1, 2, 3, 4]
    assert [channel.get(0.0) for _ in range(4)] == [5, 6, 7, None]
    assert channel.drops_by_reason() == {"full": 5}


def test_conflate_keeps_one_entry_whatever_the_capacity() -> None:
    dropped: list[int] = []
    channel: BoundedChannel[int] = BoundedChannel(512, OnFull.CONFLATE, on_drop=dropped.append)
    for value in range(4):
        channel.put(value)
    assert channel.capacity == 1
    assert [channel.get(0.0), channel.get(0.0)] == [3, None]
    assert dropped == [0, 1, 2]
    assert channel.drops_by_reason() == {"conflated": 3}


def test_block_refuses_after_the_deadline_with_numbers_and_keeps_what_it_has() -> None:
    dropped: list[int] = []
    channel: BoundedChannel[int] = BoundedChannel(2, on_drop=dropped.append, name="left wheel")
    channel.put(1)
    channel.put(2)
    for timeout_s in (0.0, 0.001, -1.0):
        with pytest.raises(DeliveryTimeoutError, match="left wheel: still full with 2 entries"):
            channel.put(3, timeout_s)
    assert dropped == [3, 3, 3]
    assert channel.drops_by_reason() == {"timeout": 3}
    assert [channel.get(0.0), channel.get(0.0)] == [1, 2]
    channel.put(4, 0.0)
    assert channel.get(0.0) == 4


@pytest.mark.parametrize("policy", list(OnFull))
def test_try_put_leaves_the_entry_with_the_caller_when_full(policy: OnFull) -> None:
    dropped: list[int] = []
    channel: BoundedChannel[int] = BoundedChannel(1, policy, on_drop=dropped.append)
    assert channel.try_put(1)
    assert not channel.try_put(2)
    assert dropped == []
    assert channel.get(0.0) == 1


def test_a_sleeping_consumer_is_woken_by_a_put() -> None:
    channel: BoundedChannel[str] = BoundedChannel()
    with in_threads(lambda: channel.get(PATIENCE_S)) as (consumer,):
        until(lambda: bool(channel._sleepers))
        channel.put("hello")
        assert consumer.result(PATIENCE_S) == "hello"
    assert not channel._someone_sleeps


def test_each_put_wakes_one_of_several_sleeping_consumers() -> None:
    channel: BoundedChannel[int] = BoundedChannel()
    with in_threads(*[lambda: channel.get(PATIENCE_S)] * 3) as consumers:
        until(lambda: len(channel._sleepers) == 3)
        for value in (1, 2, 3):
            channel.put(value)
        assert sorted(consumer.result(PATIENCE_S) for consumer in consumers) == [1, 2, 3]


def test_a_blocked_producer_goes_on_when_there_is_room() -> None:
    channel: BoundedChannel[int] = BoundedChannel(1)
    channel.put(1)
    with in_threads(lambda: channel.put(2, PATIENCE_S)) as (producer,):
        until(lambda: bool(channel._blocked))
        assert channel.get(0.0) == 1
        producer.result(PATIENCE_S)
    assert channel.get(0.0) == 2
    assert not channel._someone_blocked


def test_close_wakes_everybody_and_drops_what_is_left() -> None:
    dropped: list[int] = []
    full: BoundedChannel[int] = BoundedChannel(1, on_drop=dropped.append, name="full one")
    empty: BoundedChannel[int] = BoundedChannel(name="empty one")
    full.put(1)
    with in_threads(lambda: full.put(2), empty.get, empty.get) as waiting:
        until(lambda: bool(full._blocked) and len(empty._sleepers) == 2)
        full.close()
        empty.close()
        for future in waiting:
            with pytest.raises(ClosedError, match="one is closed"):
                future.result(PATIENCE_S)
    assert sorted(dropped) == [1, 2]
    assert full.drops_by_reason() == {"closed": 2}
    assert len(full) == 0


@pytest.mark.parametrize("policy", list(OnFull))
def test_use_after_close_is_one_named_error(policy: OnFull) -> None:
    dropped: list[int] = []
    channel: BoundedChannel[int] = BoundedChannel(2, policy, on_drop=dropped.append)
    channel.close()
    channel.close()
    assert channel.closed
    assert channel.capacity == 0
    for call in (
        lambda: channel.put(1, 0.0),
        lambda: channel.try_put(2),
        lambda: channel.get(0.0),
        channel.get,
        channel.get_nowait,
    ):
        with pytest.raises(ClosedError):
            call()
    assert dropped == [1, 2]
    assert channel.drops_by_reason() == {"closed": 2}


def test_a_put_that_close_overtakes_does_not_leave_its_entry_behind() -> None:
    """The race of case 3 in the module, played step by step."""
    dropped: list[int] = []
    channel: BoundedChannel[int] = BoundedChannel(8, on_drop=dropped.append)
    append = channel._items.append

    class ClosesBeforeAppending:
        def __len__(self) -> int:
            return 0

        def append(self, item: int) -> None:
            channel._items = items
            channel.close()
            append(item)

    items = channel._items
    channel._items = ClosesBeforeAppending()  # type: ignore[assignment]
    with pytest.raises(ClosedError):
        channel.put(5)
    assert dropped == [5]
    assert len(channel) == 0


def test_a_wait_ended_by_a_signal_passes_its_wake_up_on() -> None:
    channel: BoundedChannel[int] = BoundedChannel()
    other = threading.Lock()
    other.acquire()

    class InterruptedGate:
        """As when Ctrl-C arrives in the moment a producer has picked this gate."""

        def acquire(self, timeout: float) -> bool:
            channel._sleepers.append(other)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        channel._wait(InterruptedGate(), channel._sleepers, None)  # type: ignore[arg-type]
    assert not other.locked()
    assert not channel._sleepers


@pytest.mark.parametrize("policy", [OnFull.BLOCK, OnFull.DROP_OLDEST])
def test_nothing_is_lost_or_invented_between_threads(policy: OnFull) -> None:
    per_producer, producers = 3000, 3
    dropped: list[tuple[int, int]] = []
    channel: BoundedChannel[tuple[int, int]] = BoundedChannel(7, policy, on_drop=dropped.append)
    taken: list[tuple[int, int]] = []

    def produce(producer: int) -> None:
        for number in range(per_producer):
            channel.put((producer, number), PATIENCE_S)

    def consume() -> None:
        while (entry := channel.get(PATIENCE_S)) != (-1, -1):
            assert entry is not None
            taken.append(entry)

    with in_threads(consume, *[lambda p=p: produce(p) for p in range(producers)]) as futures:
        for future in futures[1:]:
            future.result(PATIENCE_S)
        until(lambda: len(channel) < channel.capacity)
        channel.put((-1, -1), PATIENCE_S)
        futures[0].result(PATIENCE_S)
    assert sorted(taken + dropped) == [
        (producer, number) for producer in range(producers) for number in range(per_producer)
    ]
    if policy is OnFull.BLOCK:
        assert dropped == []
    for producer in range(producers):
        numbers = [number for origin, number in taken if origin == producer]
        assert numbers == sorted(numbers)


def test_the_capacity_holds_for_one_producer() -> None:
    channel: BoundedChannel[int] = BoundedChannel(5, OnFull.DROP_OLDEST)
    longest = 0
    for value in range(100):
        channel.put(value)
        longest = max(longest, len(channel))
    assert longest == 5


def test_a_channel_for_a_row_of_the_delivery_table() -> None:
    for stream, rule in DELIVERY_TABLE.items():
        channel: BoundedChannel[int] = BoundedChannel.for_rule(rule, name=stream.value)
        assert channel.capacity == rule.capacity
        assert channel.name == stream.value
    visualization = DELIVERY_TABLE[StreamType.VISUALIZATION]
    channel = BoundedChannel.for_rule(visualization)
    channel.put(1)
    channel.put(2)
    assert channel.get(0.0) == 2


def test_a_capacity_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="capacity is 0"):
        BoundedChannel(0)
