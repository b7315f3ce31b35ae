# SPDX-License-Identifier: Apache-2.0
"""Pins, SPI and I2C of a board with something soldered to them, for interpreters whose `machine`
has none: the Unix port and CPython. Real ones are met on the emulated Pico (tests/emulated).

Nothing here allocates once it is made, so that drivers can be tried with the heap locked.
"""

import sys

from feagi_wire.blocks import BlockEnd

MYPY = False
if MYPY:
    from collections.abc import Callable

HEAD_BYTES = 4
ATTENTION = 20
READY = 21


class Bus:
    """The other end is an Echo: it says what it was told. `damage` gets each block that goes to the
    board, and each that comes from it."""

    def __init__(self) -> None:
        self.echo = BlockEnd(64)
        self.kept = bytearray(60)
        self.there = True
        self.ready = True
        self.held_down = False
        self.exchanges = 0
        self.closed = 0
        self.to_board: "Callable[[bytearray], None]" = keep
        self.from_board: "Callable[[bytearray], None]" = keep
        self.echo.prepare()

    def written(self, n: int) -> None:
        """The board's block is in `echo.rx`, `n` bytes of it."""
        self.exchanges += 1
        end = self.echo
        if n < HEAD_BYTES + end.rx[0] and n < len(end.rx):
            end.errors += 1
            return
        self.from_board(end.rx)
        end.take()
        if end.unread and not end.waiting:
            got = end.read(self.kept)
            end.offer(self.kept, 0, got)
        end.prepare()


def keep(block: bytearray) -> None:
    """No damage."""


bus = Bus()


def new_bus() -> Bus:
    """Another one in place of the last."""
    bus.__init__()  # type: ignore[misc]  # the classes below know it by this name
    return bus


class Pin:
    """machine.Pin, of what the drivers use."""

    OUT = 1
    IN = 0

    def __init__(self, number: int, mode: int, value: int = 0) -> None:
        self.number = number

    def value(self, level: int = -1) -> int:
        """The level of an input."""
        if self.number == READY:
            return 1 if bus.ready else 0
        return 1 if self.number == ATTENTION and bus.echo.waiting else 0


class SPI:
    """machine.SPI."""

    def __init__(self, number: int, baudrate: int = 0, polarity: int = 1, phase: int = 1) -> None:
        assert (baudrate, polarity, phase) == (1000000, 0, 0)

    def write_readinto(self, out: bytearray, into: bytearray) -> None:
        """One block each way; a line without anybody is high."""
        for i in range(len(into)):
            into[i] = bus.echo.tx[i] if bus.there else 255
        if bus.there:
            bus.to_board(into)
            for i in range(len(out)):
                bus.echo.rx[i] = out[i]
            bus.written(len(out))

    def deinit(self) -> None:
        """Give it back."""
        bus.closed += 1


class I2C:
    """machine.I2C."""

    def __init__(self, number: int, freq: int = 0) -> None:
        assert freq == 400000

    def writeto(self, address: int, out: bytearray) -> int:
        """A block of ours."""
        self._called(address)
        for i in range(len(out)):
            bus.echo.rx[i] = out[i]
        bus.written(len(out))
        return len(out)

    def readfrom_into(self, address: int, into: bytearray) -> None:
        """The block of the target, from its beginning."""
        self._called(address)
        for i in range(len(into)):
            into[i] = bus.echo.tx[i]
        bus.to_board(into)

    def _called(self, address: int) -> None:
        if not bus.there or address != 0x42:
            raise OSError(5)

    def deinit(self) -> None:
        """Give it back."""
        bus.closed += 1


def install() -> None:
    """Make this file the `machine` of this interpreter."""
    sys.modules["machine"] = sys.modules[__name__]
