# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM: at whatever step they find the main thread, it is told."""

from __future__ import annotations

import signal
import threading

import pytest

from feagi_io_host.cli.signals import stops_on_signal

DEADLINE_S = 10.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = threading.Event()
    with stops_on_signal(stop):
        assert not stop.is_set()
        signal.raise_signal(number)
        assert stop.wait(DEADLINE_S)
        signal.raise_signal(number)  # once more does no harm
    assert signal.getsignal(number) is before
    assert not any(thread.name == "feagi-io-signals" for thread in threading.enumerate())


@pytest.mark.timeout(DEADLINE_S)
def test_a_signal_may_come_while_its_thread_holds_the_lock_of_the_event() -> None:
    class Interrupted(threading.Event):
        """The moment of a wait in which the lock is held."""

        def wait(self, timeout: float | None = None) -> bool:
            with self._cond:  # type: ignore[attr-defined]
                signal.raise_signal(signal.SIGINT)
            return super().wait(timeout)

    stop = Interrupted()
    with stops_on_signal(stop):
        assert stop.wait(DEADLINE_S)


def test_without_a_signal_nothing_is_set() -> None:
    stop = threading.Event()
    with stops_on_signal(stop):
        pass
    assert not stop.is_set()
