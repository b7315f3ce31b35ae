# SPDX-License-Identifier: Apache-2.0
"""Drivers. StdioDriver runs on real pipes and PTYs here and under MicroPython in the end-to-end
tests. UartDriver meets a stand-in for machine.UART here, and the real one of an emulated board in
tests/emulated."""

from __future__ import annotations

import io
import os
import select
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from feagi_io_mcu.drivers.base import RTOSDriver
from feagi_io_mcu.drivers.stdio import StdioDriver
from feagi_io_mcu.drivers.uart import UartDriver, rxbuf_bytes
from feagi_wire.const import E_TIMEOUT


class StandInUart:
    """What MicroPython documents of machine.UART, with a FIFO of `room` bytes to write into."""

    made: list[StandInUart] = []

    def __init__(self, number: int, baudrate: int, **settings: Any) -> None:
        self.number = number
        self.baudrate = baudrate
        self.settings = settings
        self.inward = bytearray()
        self.outward = bytearray()
        self.room = 16
        self.open = True
        self.busy = 0  # how often it will say that bytes are still on their way
        StandInUart.made.append(self)

    def deinit(self) -> None:
        assert not self.busy, "what was written is lost"
        self.open = False

    def txdone(self) -> bool:
        self.busy = max(self.busy - 1, 0)
        return not self.busy

    def any(self) -> int:
        return len(self.inward)

    def readinto(self, buf: bytearray, n: int) -> int | None:
        assert n <= len(self.inward), "asking for more than is there waits for the timeout"
        if n == 0:
            return None
        buf[:n] = self.inward[:n]
        del self.inward[:n]
        return n

    def write(self, buf: bytearray, start: int, n: int) -> int | None:
        done = min(n, self.room)
        self.outward += buf[start : start + done]
        self.room -= done
        return done or None


@pytest.fixture
def uart(monkeypatch: pytest.MonkeyPatch) -> Iterator[UartDriver]:
    machine = types.ModuleType("machine")
    machine.UART = StandInUart  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "machine", machine)
    StandInUart.made.clear()
    driver = UartDriver(1, 115200, tx="GP4", rx="GP5")
    driver.init()
    yield driver
    driver.deinit()


def test_uart_is_opened_so_that_nothing_waits(uart: UartDriver) -> None:
    (made,) = StandInUart.made
    assert (made.number, made.baudrate) == (1, 115200)
    assert made.settings["timeout"] == 0
    assert made.settings["rxbuf"] == 576
    assert made.settings["tx"] == "GP4"


@pytest.mark.parametrize(
    ("baud", "size"), [(9600, 512), (115200, 576), (921600, 4608), (3000000, 8192)]
)
def test_uart_ring_holds_fifty_milliseconds(baud: int, size: int) -> None:
    assert rxbuf_bytes(baud) == size
    assert size == 8192 or size >= baud / 10 * 0.05


def test_uart_reads_what_is_there_and_no_more(uart: UartDriver) -> None:
    (made,) = StandInUart.made
    buf = bytearray(4)
    assert uart.data_available() == 0
    assert uart.read_some(buf) == 0
    made.inward += b"abcdef"
    assert uart.data_available() == 6
    assert uart.read_some(buf) == 4
    assert buf == b"abcd"
    assert uart.read_some(buf) == 2
    assert buf[:2] == b"ef"


def test_uart_send_bytes_keeps_its_deadline(uart: UartDriver) -> None:
    (made,) = StandInUart.made
    data = bytearray(range(40))
    assert uart.send_bytes(data, 10, timeout_ms=50) == 10
    assert uart.send_bytes(data, 40, timeout_ms=5) == E_TIMEOUT
    assert made.outward == bytes(range(10)) + bytes(range(6)), "what fitted went out, in order"


def test_uart_recv_bytes_keeps_its_deadline(uart: UartDriver) -> None:
    (made,) = StandInUart.made
    buf = bytearray(8)
    assert uart.recv_bytes(buf, timeout_ms=3) == E_TIMEOUT
    made.inward += b"xyz"
    assert uart.recv_bytes(buf, timeout_ms=3) == 3


def test_uart_writes_what_fits_into_the_ring_and_waits_for_the_line_to_take_it(
    uart: UartDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = StandInUart.made
    made.room = 10_000  # a real one takes all, in its own time
    now = 1000
    monkeypatch.setattr("feagi_io_mcu.drivers.uart.ticks", lambda: now)
    data = bytearray(range(256)) * 3
    assert made.settings["txbuf"] == uart.txbuf == 256
    first = uart.write_some(data, 0, 700)
    assert 230 <= first <= 256
    assert uart.write_some(data, first, 700) == 0, "the ring is full"
    now += 10
    second = uart.write_some(data, first, 700)
    assert 100 <= second <= 115, "ten milliseconds of 115200 baud"
    now += 1_000_000_000
    assert uart.write_some(data, 0, 700) == first, "all of it is long gone"
    assert made.outward == data[: first + second] + data[:first]


def test_uart_goes_when_what_was_written_has_left(uart: UartDriver) -> None:
    (made,) = StandInUart.made
    made.busy = 3
    uart.deinit()
    assert not made.open


def test_uart_waits_for_no_line_that_stands_still(uart: UartDriver) -> None:
    (made,) = StandInUart.made
    made.txdone = lambda: False  # type: ignore[method-assign]
    uart.deinit()
    assert not made.open


def test_uart_learns_from_a_write_that_waited(
    uart: UartDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    (made,) = StandInUart.made
    now = 1000
    monkeypatch.setattr("feagi_io_mcu.drivers.uart.ticks", lambda: now)

    def slow(buf: bytearray, start: int, n: int) -> int:
        nonlocal now
        now += 7
        return n

    made.write = slow  # type: ignore[method-assign]
    data = bytearray(600)
    assert uart.write_some(data, 0, 20) == 20
    assert uart.write_some(data, 20, 500) == 0, "it waited, so it is full"
    now += 5
    assert 40 <= uart.write_some(data, 20, 500) <= 60, "what five milliseconds take"


def test_uart_of_a_port_without_a_sending_ring_is_given_little_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class NoRing(StandInUart):
        def __init__(self, number: int, baudrate: int, **settings: Any) -> None:
            if "txbuf" in settings:
                raise TypeError("extra keyword arguments given")
            super().__init__(number, baudrate, **settings)
            self.room = 1000

    machine = types.ModuleType("machine")
    machine.UART = NoRing  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "machine", machine)
    monkeypatch.setattr("feagi_io_mcu.drivers.uart.ticks", lambda: 5)
    driver = UartDriver(2)
    driver.init()
    assert driver.write_some(bytearray(100), 0, 100) == 16
    assert driver.write_some(bytearray(100), 16, 84) == 0
    driver.deinit()


def test_uart_after_deinit_moves_nothing(uart: UartDriver) -> None:
    uart.deinit()
    assert not StandInUart.made[0].open
    assert uart.data_available() == 0
    assert uart.read_some(bytearray(4)) == 0
    assert uart.write_some(bytearray(4), 0, 4) == 0
    uart.deinit()


class StdioEnds:
    """A driver whose standard input and output are one end of a PTY."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import tty

        self.far, self.near = os.openpty()
        tty.setraw(self.near)
        os.set_blocking(self.near, False)
        for name, mode in (("stdin", "rb"), ("stdout", "wb")):
            stream = types.SimpleNamespace(
                buffer=io.FileIO(os.dup(self.far), mode), isatty=lambda: True
            )
            setattr(self, name, stream)
            monkeypatch.setattr(sys, name, stream)
        self.driver: RTOSDriver = StdioDriver()
        monkeypatch.undo()
        self.driver.init()

    def close(self) -> None:
        self.driver.deinit()
        self.stdin.buffer.close()  # type: ignore[attr-defined]
        self.stdout.buffer.close()  # type: ignore[attr-defined]
        os.close(self.far)
        if self.near >= 0:
            os.close(self.near)


@pytest.fixture
def stdio(monkeypatch: pytest.MonkeyPatch) -> Iterator[StdioEnds]:
    ends = StdioEnds(monkeypatch)
    yield ends
    ends.close()


def test_stdio_moves_every_byte_value(stdio: StdioEnds) -> None:
    every = bytes(range(256))
    assert stdio.driver.write_some(bytearray(every), 0, 256) == 256
    # the kernel carries bytes across a PTY when it comes to it: wait for them, with a deadline
    came = b""
    while len(came) < 256:
        assert select.select([stdio.near], [], [], 5.0)[0], f"{len(came)} of 256 bytes came"
        came += os.read(stdio.near, 512)
    assert came == every
    os.write(stdio.near, every)
    buf = bytearray(300)
    came = b""
    while len(came) < 256:
        n = stdio.driver.recv_bytes(buf, timeout_ms=5000)
        assert n > 0, f"{len(came)} of 256 bytes came"
        came += buf[:n]
    assert came == every


def test_stdio_does_not_wait_in_either_direction(stdio: StdioEnds) -> None:
    assert stdio.driver.read_some(bytearray(16)) == 0
    flood = bytearray(65536)
    written = 0
    while True:
        n = stdio.driver.write_some(flood, 0, len(flood))
        written += n
        if n == 0:
            break
    assert 0 < written < 10 * len(flood), "nobody reads: the line fills up and takes no more"


def test_stdio_notices_a_hang_up(stdio: StdioEnds) -> None:
    assert not stdio.driver.hangup  # type: ignore[attr-defined]
    os.close(stdio.near)
    stdio.near = -1
    assert stdio.driver.recv_bytes(bytearray(16), timeout_ms=20) == E_TIMEOUT
    assert stdio.driver.hangup  # type: ignore[attr-defined]
