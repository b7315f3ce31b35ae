# SPDX-License-Identifier: Apache-2.0
"""Where coroutines run: in the caller's event loop, or in one loop thread for all without one.

Runtime()           inside a running loop: that loop; elsewhere: a lease on the process's
                    loop thread, which starts with the first lease and ends with the last
runtime.call(...)   run a coroutine in it from another thread and wait for the result

AsyncWorker         one supervised task: the twin of `blocking.worker.Worker`
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LocalError,
    StopTimeoutError,
)
from feagi_io_host.core.signal import FeagiSignal

T = TypeVar("T")

_log = logging.getLogger("feagi_io.nonblocking")

# How long cancelled tasks may take to end before the loop is closed without them.
_LAST_TASKS_S: Final = 1.0


class LoopThread:
    """One event loop in a daemon thread of its own. Runs once.

    `stop` cancels the tasks left and ends the thread within its deadline.
    """

    def __init__(self, name: str = "feagi-io-loop") -> None:
        self.name = name
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Start the thread. RuntimeError the second time, as for threads."""
        self._thread.start()

    def is_current(self) -> bool:
        """Whether the caller runs in this thread."""
        return threading.current_thread() is self._thread

    def stop(self, timeout_s: float = 5.0) -> None:
        """Cancel what runs and end the thread, within `timeout_s` seconds.

        May be called more than once. Raises StopTimeoutError when something in the loop does not
        return; LocalError from inside the thread, which cannot wait for itself.
        """
        if self.is_current():
            raise LocalError(f"{self.name} cannot be stopped from inside itself")
        if not self._stopping:
            self._stopping = True
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(max(timeout_s, 0.0))
        if self._thread.is_alive():
            raise StopTimeoutError(
                f"{self.name} did not end within {timeout_s} s; a callback or task in it does "
                "not return"
            )

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                _, stuck = self.loop.run_until_complete(asyncio.wait(left, timeout=_LAST_TASKS_S))
                for task in stuck:
                    _log.error("task %s did not end when it was cancelled", task.get_name())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self.loop.close()


class _SharedLoop:
    """The process's loop thread and how many lease it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.leases = 0
        self.thread: LoopThread | None = None

    def lease(self) -> LoopThread:
        with self.lock:
            if self.thread is None:
                self.thread = LoopThread()
                self.thread.start()
            self.leases += 1
            return self.thread

    def give_back(self) -> LoopThread | None:
        """The thread to stop, when this was its last lease."""
        with self.lock:
            self.leases -= 1
            if self.leases:
                return None
            last, self.thread = self.thread, None
            return last

    def forget(self) -> None:
        """In a forked child: the thread stayed with the parent."""
        self.lock = threading.Lock()
        self.leases = 0
        self.thread = None


_shared = _SharedLoop()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared.forget)


class Runtime:
    """An event loop to run coroutines in: the caller's, or the process's loop thread.

    Close it in the end; in the caller's own loop that does nothing.
    """

    def __init__(self) -> None:
        running = asyncio._get_running_loop()
        self._thread = _shared.lease() if running is None else None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self.loop: asyncio.AbstractEventLoop = (
            running if self._thread is None and running is not None else self._leased().loop
        )

    @property
    def owns_thread(self) -> bool:
        """Whether the loop runs in the process's loop thread."""
        return self._thread is not None

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine in the loop from another thread; its result, or what it raised.

        None waits for ever. When `timeout_s` passes first the coroutine is cancelled and
        DeliveryTimeoutError raised. LocalError in the loop's own thread, which would wait for
        itself (await the coroutine there); ClosedError after `close`.
        """
        if asyncio._get_running_loop() is self.loop:
            coroutine.close()
            raise LocalError("Runtime.call inside its own event loop; await the coroutine instead")
        if self._closed or self.loop.is_closed() or self._pid != os.getpid():
            coroutine.close()
            raise ClosedError("this runtime is closed, or was made before a fork; make a new one")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.TimeoutError:
            if future.done() and not future.cancelled():
                raise  # the coroutine's own
            future.cancel()
            raise DeliveryTimeoutError(
                f"no result from the event loop within {timeout_s} s; the call was cancelled"
            ) from None
        except BaseException:
            future.cancel()
            raise

    def close(self, timeout_s: float = 5.0) -> None:
        """Give the loop thread back; the last one to do so ends it, within `timeout_s` seconds.

        May be called more than once. Raises what `LoopThread.stop` raises.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if self._thread is None or self._pid != os.getpid():
            return
        last = _shared.give_back()
        if last is not None:
            last.stop(timeout_s)

    def _leased(self) -> LoopThread:
        assert self._thread is not None
        return self._thread


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """A worker's coroutine raised, and its task has ended. `worker` is its name."""

    worker: str
    error: BaseException


class AsyncWorker:
    """Runs `run(stopping)` in a task of its own, in the loop in which `start` is called.

    `run` returns soon after the event `stopping` is set; where it waits for something else,
    `wake` is called once after the event was set and makes that wait end. What `run` raises is
    logged, kept in `failure` and emitted by the signal `failed`, in the loop. A worker runs once.

    The task is held by the worker, so the collector cannot take it while it waits.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[asyncio.Event], Coroutine[Any, Any, object]],
        *,
        wake: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.failed: FeagiSignal[WorkerFailure] = FeagiSignal(f"{name}.failed")
        self._run = run
        self._wake = wake
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task; does nothing when it was started before. Raises ClosedError after
        `stop`."""
        if self._stopping.is_set():
            raise ClosedError(f"worker {self.name} was stopped; make a new one")
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._main(), name=self.name)

    async def stop(self, timeout_s: float) -> None:
        """Ask the worker to end, wait `timeout_s` seconds at most, then cancel it.

        May be called more than once and from the worker's own task (which then is asked but not
        waited for). Raises StopTimeoutError when it had to be cancelled.
        """
        first = not self._stopping.is_set()
        self._stopping.set()
        if first and self._wake is not None:
            self._wake()
        task = self._task
        if task is None or task is asyncio.current_task():
            return
        _, late = await asyncio.wait({task}, timeout=max(timeout_s, 0.0))
        if late:
            task.cancel()
            raise StopTimeoutError(
                f"worker {self.name} did not end within {timeout_s} s of being asked to; cancelled"
            )

    @property
    def is_alive(self) -> bool:
        """Whether the task runs."""
        return self._task is not None and not self._task.done()

    @property
    def failure(self) -> BaseException | None:
        """What `run` raised, if it did."""
        return self._failure

    async def _main(self) -> None:
        try:
            await self._run(self._stopping)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failure = error
            _log.error("worker %s ended with %r", self.name, error, exc_info=error)
            self.failed.emit(WorkerFailure(self.name, error))
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt and SystemExit are for whoever runs the loop
