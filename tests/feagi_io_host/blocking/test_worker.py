# SPDX-License-Identifier: Apache-2.0
"""Worker: its end is bounded, its failure is heard of."""

from __future__ import annotations

import logging
import threading

import pytest

from feagi_io_host.blocking.worker import Worker, WorkerFailure
from feagi_io_host.core.errors import ClosedError, StopTimeoutError

PATIENCE_S = 10.0


def test_a_worker_runs_in_a_thread_of_its_name_and_stops() -> None:
    names: list[str] = []
    running = threading.Event()

    def run(stopping: threading.Event) -> None:
        names.append(threading.current_thread().name)
        running.set()
        stopping.wait(PATIENCE_S)

    worker = Worker("feagi-io-test", run)
    worker.start()
    worker.start()
    assert running.wait(PATIENCE_S)
    assert worker.is_alive
    worker.stop(PATIENCE_S)
    worker.stop(PATIENCE_S)
    assert not worker.is_alive
    assert names == ["feagi-io-test"]
    assert worker.failure is None


def test_stop_wakes_a_worker_that_waits_for_something_else() -> None:
    something_else = threading.Event()
    wakes: list[None] = []

    def wake() -> None:
        wakes.append(None)
        something_else.set()

    worker = Worker("sleeper", lambda _: something_else.wait(PATIENCE_S), wake=wake)
    worker.start()
    worker.stop(PATIENCE_S)
    worker.stop(PATIENCE_S)
    assert not worker.is_alive
    assert len(wakes) == 1


def test_a_worker_that_does_not_stop_is_named() -> None:
    release = threading.Event()
    worker = Worker("stubborn one", lambda _: release.wait(PATIENCE_S))
    worker.start()
    with pytest.raises(StopTimeoutError, match=r"stubborn one .* 0\.01 s"):
        worker.stop(0.01)
    release.set()
    worker.stop(PATIENCE_S)


def test_a_failure_is_logged_kept_and_emitted(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[WorkerFailure] = []

    def run(_: threading.Event) -> None:
        raise RuntimeError("worn out on purpose")

    worker = Worker("frail one", run)
    worker.failed.connect(failures.append)
    with caplog.at_level(logging.ERROR, logger="feagi_io.blocking"):
        worker.start()
        worker.stop(PATIENCE_S)
    assert isinstance(worker.failure, RuntimeError)
    assert failures == [WorkerFailure("frail one", worker.failure)]
    assert "frail one" in caplog.text
    assert "worn out on purpose" in caplog.text


def test_stop_before_start_is_fine_and_start_after_stop_is_not() -> None:
    worker = Worker("never ran", lambda _: None)
    worker.stop(PATIENCE_S)
    with pytest.raises(ClosedError, match="never ran"):
        worker.start()


def test_a_worker_may_stop_itself() -> None:
    done = threading.Event()

    def run(stopping: threading.Event) -> None:
        worker.stop(PATIENCE_S)
        if stopping.is_set():
            done.set()

    worker = Worker("finisher", run)
    worker.start()
    assert done.wait(PATIENCE_S)
    worker.stop(PATIENCE_S)
    assert worker.failure is None
