# SPDX-License-Identifier: Apache-2.0
"""FeagiSignal: order, thread, failures, changes while emitting."""

from __future__ import annotations

import functools
import logging
import threading
import tracemalloc

import pytest

from feagi_io_host.core.errors import UnknownHandleError
from feagi_io_host.core.signal import FeagiSignal, ListenerFailure


def test_listeners_are_called_in_order_of_connection() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    seen: list[tuple[str, int]] = []
    for name in "abc":
        signal.connect(lambda value, name=name: seen.append((name, value)))
    signal.emit(7)
    assert seen == [("a", 7), ("b", 7), ("c", 7)]
    assert signal.listener_count == 3


def test_listeners_run_in_the_thread_of_the_emitter() -> None:
    signal: FeagiSignal[None] = FeagiSignal()
    threads: list[threading.Thread] = []
    signal.connect(lambda _: threads.append(threading.current_thread()))
    emitter = threading.Thread(target=signal.emit, args=(None,))
    emitter.start()
    emitter.join(5.0)
    assert threads == [emitter]


def test_shared_state_is_handed_over_uncopied() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    state: list[int] = []
    signal.connect_with_shared_state(state, lambda shared, value: shared.append(value))
    signal.emit(1)
    signal.emit(2)
    assert state == [1, 2]


def test_disconnect_ends_one_connection_only() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    seen: list[int] = []
    first = signal.connect(seen.append)
    second = signal.connect(seen.append)
    assert first != second
    signal.disconnect(first)
    signal.emit(5)
    assert seen == [5]
    assert signal.listener_count == 1


def test_an_unknown_handle_is_an_error_that_says_so() -> None:
    signal: FeagiSignal[int] = FeagiSignal("bursts")
    other: FeagiSignal[int] = FeagiSignal()
    handle = signal.connect(print)
    foreign = other.connect(print)
    signal.disconnect(handle)
    for unknown in (handle, foreign):
        with pytest.raises(UnknownHandleError, match=rf"bursts.*{unknown}.*0 connections"):
            signal.disconnect(unknown)
    assert other.listener_count == 1


def test_disconnect_all_makes_every_handle_unknown() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    seen: list[int] = []
    handle = signal.connect(seen.append)
    signal.connect(seen.append)
    signal.disconnect_all()
    signal.emit(1)
    assert seen == []
    assert signal.listener_count == 0
    with pytest.raises(UnknownHandleError):
        signal.disconnect(handle)


def broken_listener(_: int) -> None:
    raise RuntimeError("broken on purpose")


def test_a_failing_listener_is_reported_and_the_others_still_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures: list[ListenerFailure] = []
    signal: FeagiSignal[int] = FeagiSignal("motor_commands", on_error=failures.append)
    seen: list[int] = []
    signal.connect(seen.append)
    signal.connect(broken_listener)
    signal.connect(seen.append)
    with caplog.at_level(logging.DEBUG, logger="feagi_io.core"):
        signal.emit(3)
        signal.emit(4)
    assert seen == [3, 3, 4, 4]
    assert [failure.signal for failure in failures] == ["motor_commands"] * 2
    assert all("broken_listener" in failure.listener for failure in failures)
    assert isinstance(failures[0].error, RuntimeError)
    assert [failure.failures for failure in failures] == [1, 2]
    assert signal.failure_count == 2
    # The first failure stands out in the log, the same one again does not flood it.
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.DEBUG]
    assert all("broken_listener" in record.getMessage() for record in caplog.records)


def test_a_failing_error_hook_silences_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def hook(_: ListenerFailure) -> None:
        raise ValueError("hook broken on purpose")

    signal: FeagiSignal[int] = FeagiSignal(on_error=hook)
    seen: list[int] = []
    signal.connect(broken_listener)
    signal.connect(seen.append)
    signal.emit(1)
    assert seen == [1]
    assert "error hook" in caplog.text


def test_keyboard_interrupt_goes_through() -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    signal: FeagiSignal[int] = FeagiSignal()
    signal.connect(interrupted)
    with pytest.raises(KeyboardInterrupt):
        signal.emit(1)


def test_names_of_partials_and_callable_objects_are_found() -> None:
    class Callback:
        def __call__(self, _: int) -> None:
            raise RuntimeError

        def __repr__(self) -> str:
            return "<the callable object>"

    failures: list[ListenerFailure] = []
    signal: FeagiSignal[int] = FeagiSignal(on_error=failures.append)
    signal.connect(functools.partial(broken_listener))
    signal.connect(Callback())
    signal.connect_with_shared_state(0, lambda state, value: broken_listener(state + value))
    signal.emit(0)
    names = [failure.listener for failure in failures]
    assert "broken_listener" in names[0]
    assert names[1] == "<the callable object>"
    assert "<lambda>" in names[2]


def test_a_listener_connected_while_emitting_waits_for_the_next_emission() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    seen: list[int] = []

    def connect_another(_: int) -> None:
        if signal.listener_count == 1:
            signal.connect(seen.append)

    signal.connect(connect_another)
    signal.emit(1)
    assert seen == []
    signal.emit(2)
    assert seen == [2]


def test_a_listener_disconnected_while_emitting_is_not_called_any_more() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    seen: list[str] = []

    def first(_: int) -> None:
        seen.append("first")
        signal.disconnect(own)
        signal.disconnect(last)

    own = signal.connect(first)
    signal.connect(lambda _: seen.append("middle"))
    last = signal.connect(lambda _: seen.append("last"))
    signal.emit(1)
    signal.emit(2)
    assert seen == ["first", "middle", "middle"]


def test_disconnect_all_while_emitting_ends_the_emission() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    seen: list[int] = []
    signal.connect(lambda _: signal.disconnect_all())
    signal.connect(seen.append)
    signal.emit(1)
    assert seen == []


def test_a_listener_may_emit_again() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    seen: list[int] = []

    def count_down(value: int) -> None:
        seen.append(value)
        if value:
            signal.emit(value - 1)

    signal.connect(count_down)
    signal.emit(3)
    assert seen == [3, 2, 1, 0]


def test_connecting_and_emitting_from_several_threads_loses_nothing() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    rounds = 200
    start = threading.Barrier(4)

    def come_and_go() -> None:
        start.wait(5.0)
        for _ in range(rounds):
            signal.disconnect(signal.connect(lambda _: None))

    steady: list[int] = []
    signal.connect(steady.append)
    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    start.wait(5.0)
    for value in range(rounds):
        signal.emit(value)
    for thread in threads:
        thread.join(10.0)
    assert steady == list(range(rounds))
    assert signal.listener_count == 1
    assert signal.failure_count == 0


def test_an_emission_allocates_nothing_that_stays() -> None:
    signal: FeagiSignal[int] = FeagiSignal()
    for _ in range(50):
        signal.connect(abs)
    signal.emit(1)
    tracemalloc.start()
    try:
        signal.emit(1)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        signal.emit(1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A list of 50 listeners would be 456 bytes.
    assert peak - before < 300
