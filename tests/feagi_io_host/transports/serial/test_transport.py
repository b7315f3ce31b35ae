# SPDX-License-Identifier: Apache-2.0
"""SerialTransport moves a party's bytes and finds its line again."""

from __future__ import annotations

import os
import queue
import threading
import tty
from collections.abc import Iterator

import pytest

from feagi_io_host.core.errors import (
    ClosedError,
    FeagiIOError,
    PortNotFoundError,
    StopTimeoutError,
)
from feagi_io_host.transports.serial import SerialTransport

DEADLINE_S = 10.0


class Party:
    """Says what happens to it; sends what is put into `out`."""

    def __init__(self) -> None:
        self.happened: queue.Queue[tuple[str, object]] = queue.Queue()
        self.out = bytearray()
        self.polled = queue.Queue[float]()
        self.pause_s = 60.0
        self.reopen = threading.Event()
        self.last_words = b""
        self.stuck = threading.Event()
        self.may_go_on = threading.Event()

    def line_opened(self) -> None:
        self.happened.put(("opened", None))

    def line_failed(self, error: FeagiIOError) -> None:
        self.happened.put(("failed", error))

    def line_closed(self, error: FeagiIOError | None) -> None:
        self.happened.put(("closed", error))

    def line_closing(self) -> None:
        self.out += self.last_words

    def receive(self, chunk: memoryview) -> None:
        data = bytes(chunk)
        if data == b"hang":
            self.stuck.set()
            self.may_go_on.wait(DEADLINE_S)
        self.happened.put(("received", data))

    def poll(self) -> float:
        self.polled.put(0.0)
        return self.pause_s

    def next_bytes(self) -> memoryview:
        return memoryview(bytes(self.out))

    def bytes_written(self, count: int) -> None:
        del self.out[:count]

    def wants_reopening(self) -> bool:
        return self.reopen.is_set()

    def expect(self, what: str) -> object:
        kind, value = self.happened.get(timeout=DEADLINE_S)
        assert kind == what, value
        return value


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


@pytest.fixture
def party() -> Party:
    return Party()


@pytest.fixture
def transport(pty: tuple[int, str], party: Party) -> Iterator[SerialTransport]:
    made = SerialTransport(pty[1], party)
    yield made
    made.stop(DEADLINE_S)


def read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def test_bytes_both_ways(pty: tuple[int, str], party: Party, transport: SerialTransport) -> None:
    transport.start()
    party.expect("opened")
    os.write(pty[0], b"up")
    assert party.expect("received") == b"up"
    party.out += b"down"
    transport.flush()
    assert read_exactly(pty[0], 4) == b"down"
    assert (transport.bytes_in, transport.bytes_out) == (2, 4)


def test_what_a_full_line_does_not_take_follows_when_it_does(
    pty: tuple[int, str], party: Party, transport: SerialTransport
) -> None:
    transport.start()
    party.expect("opened")
    sent = os.urandom(200_000)
    party.out += sent
    transport.flush()
    assert party.out  # more than a terminal holds
    assert read_exactly(pty[0], len(sent)) == sent


def test_last_words_are_written_before_the_line_closes(
    pty: tuple[int, str], party: Party, transport: SerialTransport
) -> None:
    transport.start()
    party.expect("opened")
    party.last_words = b"bye"
    transport.stop(DEADLINE_S)
    assert party.expect("closed") is None
    assert read_exactly(pty[0], 3) == b"bye"
    transport.stop(DEADLINE_S)
    with pytest.raises(ClosedError):
        transport.start()


def test_stop_is_bounded_by_last_words_nobody_reads(
    pty: tuple[int, str], party: Party, transport: SerialTransport
) -> None:
    transport.start()
    party.expect("opened")
    party.last_words = bytes(1 << 20)
    transport.stop(DEADLINE_S)
    assert party.expect("closed") is None


def test_a_party_that_hangs_is_named(
    pty: tuple[int, str], party: Party, transport: SerialTransport
) -> None:
    transport.start()
    party.expect("opened")
    os.write(pty[0], b"hang")
    assert party.stuck.wait(DEADLINE_S)
    with pytest.raises(StopTimeoutError, match="feagi-io-serial /dev/pts"):
        transport.stop(0.01)
    party.may_go_on.set()


def test_wake_calls_poll(party: Party, transport: SerialTransport) -> None:
    transport.start()
    party.expect("opened")
    party.polled.get(timeout=DEADLINE_S)
    transport.wake()
    party.polled.get(timeout=DEADLINE_S)


def test_a_port_that_comes_late_and_goes_is_found_again(
    tmp_path: os.PathLike[str], party: Party
) -> None:
    name = os.path.join(tmp_path, "board")
    transport = SerialTransport(name, party, retry_s=0.001, retry_max_s=0.01)
    transport.start()
    try:
        assert isinstance(party.expect("failed"), PortNotFoundError)
        for _ in range(2):
            master, slave = os.openpty()
            tty.setraw(slave)
            try:
                os.symlink(os.ttyname(slave), name + ".new")
                os.replace(name + ".new", name)
                while (happened := party.happened.get(timeout=DEADLINE_S))[0] == "failed":
                    pass
                assert happened[0] == "opened"
                os.write(master, b"here")
                assert party.expect("received") == b"here"
            finally:
                os.close(master)
            assert isinstance(party.expect("closed"), PortNotFoundError)
            os.close(slave)
    finally:
        transport.stop(DEADLINE_S)


def test_a_silent_line_is_opened_anew(party: Party, pty: tuple[int, str]) -> None:
    party.pause_s = 0.01
    now_s = iter(range(100_000))  # each look at the clock is a second later
    transport = SerialTransport(pty[1], party, retry_s=0.001, clock=lambda: float(next(now_s)))
    party.reopen.set()
    transport.start()
    try:
        party.expect("opened")
        assert party.expect("closed") is None
        party.expect("opened")
    finally:
        transport.stop(DEADLINE_S)


def test_flush_of_a_line_that_is_not_open_does_nothing(transport: SerialTransport) -> None:
    transport.flush()
    transport.wake()
    transport.drop_output()
    assert not transport.is_open
