# SPDX-License-Identifier: Apache-2.0
"""Worker: one named thread whose end is bounded and whose failure is heard of."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from feagi_io_host.core.errors import ClosedError, StopTimeoutError
from feagi_io_host.core.signal import FeagiSignal

_log = logging.getLogger("feagi_io.blocking")


@dataclass(frozen=True, slots=True)
class WorkerFailure:
    """A worker's function raised, and its thread has ended. `worker` is its name."""

    worker: str
    error: BaseException


class Worker:
    """Runs `run(stopping)` in a thread of its own.

    `run` returns soon after the event `stopping` is set; where it waits for something else,
    `wake` is called once after the event was set and makes that wait end (close the channel,
    say). What `run` raises is logged, kept in `failure` and emitted by the signal `failed`, in
    the worker's thread. A worker runs once; it is not started again.

    The thread is a daemon: one that hangs is reported by `stop` and cannot keep the program
    from ending.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[threading.Event], object],
        *,
        wake: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.failed: FeagiSignal[WorkerFailure] = FeagiSignal(f"{name}.failed")
        self._run = run
        self._wake = wake
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._started = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; does nothing when it was started before. Raises ClosedError after
        `stop`."""
        with self._lock:
            if self._stopping.is_set():
                raise ClosedError(f"worker {self.name} was stopped; make a new one")
            if not self._started:
                self._started = True
                self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ask the worker to end and wait for it, `timeout_s` seconds at most.

        May be called more than once and from the worker's own thread (which then is asked but
        not waited for). Raises StopTimeoutError when the thread is still there afterwards.
        """
        with self._lock:
            first = not self._stopping.is_set()
            self._stopping.set()
            started = self._started
        if first and self._wake is not None:
            self._wake()
        if not started or threading.current_thread() is self._thread:
            return
        self._thread.join(max(timeout_s, 0.0))
        if self._thread.is_alive():
            raise StopTimeoutError(
                f"worker {self.name} did not end within {timeout_s} s of being asked to"
            )

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def failure(self) -> BaseException | None:
        """What `run` raised, if it did."""
        return self._failure

    def _main(self) -> None:
        try:
            self._run(self._stopping)
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt: nobody stands above a thread to catch
            # them, so they are reported like any other end that was not asked for.
            self._failure = error
            _log.error("worker %s ended with %r", self.name, error, exc_info=error)
            self.failed.emit(WorkerFailure(self.name, error))
