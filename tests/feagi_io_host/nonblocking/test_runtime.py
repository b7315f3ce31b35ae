# SPDX-License-Identifier: Apache-2.0
"""Runtime, LoopThread and AsyncWorker: whose loop, bounded ends, failures heard of."""

from __future__ import annotations

import asyncio
import threading

import pytest

from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LocalError,
    StopTimeoutError,
)
from feagi_io_host.nonblocking.runtime import AsyncWorker, LoopThread, Runtime, WorkerFailure

PATIENCE_S = 10.0


async def thread_name() -> str:
    return threading.current_thread().name


def test_all_without_a_loop_share_one_thread_that_ends_with_the_last() -> None:
    first, second = Runtime(), Runtime()
    assert first.loop is second.loop
    assert first.owns_thread
    assert first.call(thread_name(), PATIENCE_S) == "feagi-io-loop"
    first.close()
    first.close()
    assert second.call(thread_name(), PATIENCE_S) == "feagi-io-loop"
    with pytest.raises(ClosedError):
        first.call(thread_name(), PATIENCE_S)
    second.close()
    assert "feagi-io-loop" not in {thread.name for thread in threading.enumerate()}
    third = Runtime()
    assert third.call(thread_name(), PATIENCE_S) == "feagi-io-loop"
    third.close()


def test_inside_a_loop_the_callers_own_is_used() -> None:
    async def main() -> None:
        runtime = Runtime()
        assert runtime.loop is asyncio.get_running_loop()
        assert not runtime.owns_thread
        with pytest.raises(LocalError, match="await"):
            runtime.call(thread_name())
        name = await asyncio.to_thread(runtime.call, thread_name(), PATIENCE_S)
        assert name == threading.current_thread().name
        runtime.close()
        assert runtime.loop.is_running()

    asyncio.run(main())


def test_a_call_that_takes_too_long_is_cancelled() -> None:
    runtime = Runtime()
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(DeliveryTimeoutError, match=r"0\.01 s"):
        runtime.call(hang(), 0.01)
    assert cancelled.wait(PATIENCE_S)
    runtime.close()


def test_what_a_coroutine_raises_comes_out_even_a_timeout() -> None:
    async def late() -> None:
        raise TimeoutError("its own")

    runtime = Runtime()
    with pytest.raises(TimeoutError, match="its own"):
        runtime.call(late(), PATIENCE_S)
    runtime.close()


def test_the_end_of_the_thread_cancels_what_runs_in_it() -> None:
    thread = LoopThread("loop under test")
    thread.start()
    entered, ended = threading.Event(), threading.Event()

    async def wait_for_ever() -> None:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(wait_for_ever(), thread.loop)
    assert entered.wait(PATIENCE_S)
    thread.stop(PATIENCE_S)
    thread.stop(PATIENCE_S)
    assert ended.is_set()
    assert future.cancelled()


def test_a_loop_that_is_held_up_is_reported() -> None:
    thread = LoopThread("held up")
    thread.start()
    let_go = threading.Event()
    thread.loop.call_soon_threadsafe(let_go.wait, PATIENCE_S)
    with pytest.raises(StopTimeoutError, match=r"held up did not end within 0\.01 s"):
        thread.stop(0.01)
    let_go.set()
    thread.stop(PATIENCE_S)


def test_a_worker_ends_when_asked_and_tells_its_failure() -> None:
    async def main() -> None:
        async def obey(stopping: asyncio.Event) -> None:
            await stopping.wait()

        async def fail(stopping: asyncio.Event) -> None:
            raise ValueError("on purpose")

        worker = AsyncWorker("good", obey)
        worker.start()
        worker.start()
        assert worker.is_alive
        await worker.stop(PATIENCE_S)
        await worker.stop(PATIENCE_S)
        assert not worker.is_alive
        with pytest.raises(ClosedError):
            worker.start()

        bad = AsyncWorker("bad", fail)
        told: list[WorkerFailure] = []
        bad.failed.connect(told.append)
        bad.start()
        await asyncio.sleep(0)
        await bad.stop(PATIENCE_S)
        assert isinstance(bad.failure, ValueError)
        assert told == [WorkerFailure("bad", bad.failure)]

    asyncio.run(main())


def test_a_worker_that_does_not_listen_is_cancelled_and_named() -> None:
    async def main() -> None:
        async def deaf(stopping: asyncio.Event) -> None:
            await asyncio.Event().wait()

        woken: list[int] = []
        worker = AsyncWorker("deaf", deaf, wake=lambda: woken.append(1))
        worker.start()
        with pytest.raises(StopTimeoutError, match=r"worker deaf did not end within 0\.01 s"):
            await worker.stop(0.01)
        await worker.stop(PATIENCE_S)
        assert not worker.is_alive
        assert woken == [1]

    asyncio.run(main())
