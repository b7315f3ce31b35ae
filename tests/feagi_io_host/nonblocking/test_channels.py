# SPDX-License-Identifier: Apache-2.0
"""AsyncBoundedChannel: order, policies, ownership, waiting, cancelling, threads, wake-ups."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from feagi_io_host.core.delivery import DELIVERY_TABLE, OnFull
from feagi_io_host.core.errors import ClosedError, ConfigError, DeliveryTimeoutError
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel

PATIENCE_S = 10.0


async def turns(count: int = 5) -> None:
    """Let every task that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("policy", list(OnFull))
def test_entries_come_out_in_order(policy: OnFull) -> None:
    async def main() -> None:
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel(3, policy)
        assert await channel.get(0.0) is None
        assert await channel.get(0.001) is None
        assert channel.get_nowait() is None
        for value in (1, 2, 3):
            await channel.put(value)
            if policy is OnFull.CONFLATE:
                assert await channel.get() == value
        if policy is not OnFull.CONFLATE:
            assert [await channel.get(None) for _ in range(3)] == [1, 2, 3]

    asyncio.run(main())


def test_policies_drop_what_the_table_says_and_count_it() -> None:
    async def main() -> None:
        gone: list[int] = []
        oldest: AsyncBoundedChannel[int] = AsyncBoundedChannel(
            2, OnFull.DROP_OLDEST, on_drop=gone.append
        )
        newest: AsyncBoundedChannel[int] = AsyncBoundedChannel(
            9, OnFull.CONFLATE, on_drop=gone.append
        )
        for value in range(4):
            await oldest.put(value)
            newest.thread_side.put(value + 10)
        assert sorted(gone) == [0, 1, 10, 11, 12]
        assert [oldest.get_nowait(), oldest.get_nowait(), newest.get_nowait()] == [2, 3, 13]
        assert oldest.drops_by_reason() == {"full": 2}
        assert newest.drops_by_reason() == {"conflated": 3}
        assert newest.capacity == 1

    asyncio.run(main())


def test_for_rule_reads_the_delivery_table() -> None:
    for rule in DELIVERY_TABLE.values():
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel.for_rule(rule)
        assert channel.capacity == rule.capacity
    with pytest.raises(ConfigError, match="capacity is 0"):
        AsyncBoundedChannel[int](0)
    assert StreamType.MOTOR in DELIVERY_TABLE


def test_a_full_blocking_channel_waits_and_then_says_so() -> None:
    async def main() -> None:
        gone: list[int] = []
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel(1, on_drop=gone.append, name="ch")
        await channel.put(1)
        assert not channel.try_put(2)
        with pytest.raises(DeliveryTimeoutError, match=r"ch: still full with 1 entries after 0.01"):
            await channel.put(3, 0.01)
        with pytest.raises(DeliveryTimeoutError):
            await channel.put(4, 0.0)
        assert gone == [3, 4]
        waiting = asyncio.create_task(channel.put(5))
        await turns()
        assert not waiting.done()
        assert await channel.get() == 1
        await waiting
        assert await channel.get() == 5
        assert channel.drops_by_reason() == {"timeout": 2}

    asyncio.run(main())


def test_waiting_consumers_are_served_and_a_cancelled_one_passes_its_wake_up_on() -> None:
    async def main() -> None:
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel()
        first = asyncio.create_task(channel.get())
        second = asyncio.create_task(channel.get())
        await turns()
        await channel.put(7)  # wakes the first
        first.cancel()  # before it could run
        assert await asyncio.wait_for(second, PATIENCE_S) == 7
        with pytest.raises(asyncio.CancelledError):
            await first
        assert len(channel) == 0

    asyncio.run(main())


def test_a_cancelled_producer_drops_its_entry_once_and_passes_the_room_on() -> None:
    async def main() -> None:
        gone: list[int] = []
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel(1, on_drop=gone.append)
        await channel.put(1)
        first = asyncio.create_task(channel.put(2))
        second = asyncio.create_task(channel.put(3))
        await turns()
        assert await channel.get() == 1
        first.cancel()
        await asyncio.wait_for(second, PATIENCE_S)
        with pytest.raises(asyncio.CancelledError):
            await first
        assert gone == [2]
        assert await channel.get() == 3
        assert channel.drops_by_reason() == {"cancelled": 1}

    asyncio.run(main())


def test_close_wakes_everybody_and_drops_what_is_left() -> None:
    async def main() -> None:
        gone: list[int] = []
        empty: AsyncBoundedChannel[int] = AsyncBoundedChannel()
        full: AsyncBoundedChannel[int] = AsyncBoundedChannel(1, on_drop=gone.append)
        await full.put(1)
        waiting: list[asyncio.Task[Any]] = [
            asyncio.create_task(empty.get()),
            asyncio.create_task(full.put(2)),
        ]
        await turns()
        for channel in (empty, full):
            channel.close()
            channel.close()
            assert channel.closed
            assert channel.capacity == 0
        for task in waiting:
            with pytest.raises(ClosedError):
                await task
        for call in (lambda: full.put(3), lambda: full.get(0.0)):
            with pytest.raises(ClosedError):
                await call()
        with pytest.raises(ClosedError):
            full.try_put(4)
        with pytest.raises(ClosedError):
            full.get_nowait()
        assert sorted(gone) == [1, 2, 3, 4]
        assert full.dropped == 4

    asyncio.run(main())


def run_pair(producer: Callable[[], None], consumer: Callable[[], None]) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(consumer), pool.submit(producer)]
        for future in both:
            future.result(PATIENCE_S)


@pytest.mark.parametrize("producer_in", ["thread", "loop"])
@pytest.mark.parametrize("consumer_in", ["thread", "loop"])
def test_nothing_is_lost_between_threads_and_loops(producer_in: str, consumer_in: str) -> None:
    channel: AsyncBoundedChannel[int] = AsyncBoundedChannel(4)
    count = 2000
    seen: list[int | None] = []

    async def put_all() -> None:
        for value in range(count):
            await channel.put(value, PATIENCE_S)

    async def get_all() -> None:
        for _ in range(count):
            seen.append(await channel.get(PATIENCE_S))

    def put_each() -> None:
        for value in range(count):
            channel.thread_side.put(value, PATIENCE_S)

    def get_each() -> None:
        for _ in range(count):
            seen.append(channel.thread_side.get(PATIENCE_S))

    run_pair(
        put_each if producer_in == "thread" else lambda: asyncio.run(put_all()),
        get_each if consumer_in == "thread" else lambda: asyncio.run(get_all()),
    )
    assert seen == list(range(count))
    assert channel.dropped == 0


def test_a_loop_is_woken_only_while_its_consumer_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel(1000)
        wakes = 0
        wake = loop.call_soon_threadsafe

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal wakes
            wakes += 1
            return wake(*args, **kwargs)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        consumer = asyncio.create_task(channel.get())
        await turns()

        def produce() -> None:
            for value in range(500):
                channel.thread_side.put(value)

        producer = threading.Thread(target=produce)
        producer.start()
        producer.join(PATIENCE_S)  # the loop stands still meanwhile
        assert await consumer == 0
        assert [await channel.get() for _ in range(499)] == list(range(1, 500))
        return wakes

    assert asyncio.run(main()) == 1


def test_a_waiter_whose_loop_is_gone_holds_nobody_up() -> None:
    channel: AsyncBoundedChannel[int] = AsyncBoundedChannel()
    loop = asyncio.new_event_loop()
    abandoned = channel.get()

    async def begin() -> None:
        abandoned.send(None)  # waits in this loop, which then ends without it

    loop.run_until_complete(begin())
    loop.close()
    channel.thread_side.put(1)
    assert channel.thread_side.get(PATIENCE_S) == 1
    abandoned.close()


def test_the_thread_side_never_holds_a_running_loop_up() -> None:
    async def main() -> None:
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel(1, name="ch")
        assert channel.thread_side.get(None) is None
        channel.thread_side.put(1)
        with pytest.raises(DeliveryTimeoutError, match="ch"):
            channel.thread_side.put(2, None)
        assert channel.thread_side.get_nowait() == 1

    asyncio.run(main())


def test_the_thread_side_is_the_same_channel() -> None:
    channel: AsyncBoundedChannel[int] = AsyncBoundedChannel(2, OnFull.DROP_OLDEST, name="both")
    side = channel.thread_side
    for value in range(3):
        side.put(value)
    assert (side.name, side.capacity, side.dropped, len(side)) == ("both", 2, 1, 2)
    assert side.try_put(9) is False
    assert side.drops_by_reason() == {"full": 1}
    assert not side.closed
    side.close()
    assert channel.closed


def test_an_entry_that_comes_while_a_consumer_lies_down_wakes_it() -> None:
    channel: AsyncBoundedChannel[int] = AsyncBoundedChannel()
    producers: list[threading.Thread] = []

    class Between(deque[int]):
        """Found empty for the second time, under the lock: just then a producer appends."""

        looks = 0

        def popleft(self) -> int:
            try:
                return super().popleft()
            except IndexError:
                self.looks += 1
                if self.looks == 2:
                    producer = threading.Thread(target=channel.thread_side.put, args=(5,))
                    producers.append(producer)
                    producer.start()
                    while not self and producer.is_alive():
                        producer.join(0.001)
                raise

    channel._items = Between()

    async def main() -> int | None:
        # Without a timeout of its own, which would look for entries once more at its end.
        return await asyncio.wait_for(channel.get(None), PATIENCE_S / 5)

    assert asyncio.run(main()) == 5
    producers[0].join(PATIENCE_S)
    assert not producers[0].is_alive()


def test_inside_one_loop_nothing_is_written_to_the_self_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        channel: AsyncBoundedChannel[int] = AsyncBoundedChannel()
        consumer = asyncio.create_task(channel.get())
        await turns()
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_soon_threadsafe", pytest.fail)
        await channel.put(3)
        assert await consumer == 3
        monkeypatch.undo()

    asyncio.run(main())
