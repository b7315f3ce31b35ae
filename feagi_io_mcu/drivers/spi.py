# SPDX-License-Identifier: Apache-2.0
"""SpiDriver: a line over SPI. The board is the controller, as MicroPython knows no other part; at
the other end is a peripheral that carries bytes on to the host: a second microcontroller, an FPGA.

SPI moves bytes both ways at once and tells nobody how many of them mean something. So blocks of one
size go back and forth, each while chip select is low, of the same form in both directions:

    0      how many bytes of this block count, n
    1      0xA5 ^ n: a peripheral that is not there reads as all zeros or all ones
    2      how many bytes the sender of this block can take with the next one
    3...   n bytes, then anything

Damage to the bytes themselves is found by the link's checksum. A block whose head is wrong counts
in `errors`, and nothing of it is taken.
"""

from feagi_wire.kernels import copy8
from feagi_wire.link import ticks_diff

from .._port import ticks
from .base import RTOSDriver

MYPY = False
if MYPY:
    from typing import Any

BLOCK_BYTES = 64
HEAD_BYTES = 3
MARK = 0xA5
POLL_MS = 2
BAUD = 1000000


class SpiDriver(RTOSDriver):
    """`machine.SPI(spi)` with its chip select at pin `cs`; further `pins` (sck=, mosi=, miso=) go
    to machine.SPI as they are. A call exchanges a block or two of `block_bytes` * 8 clocks.

    `attention`: the number of a pin that the peripheral holds high while it has bytes for the
    board. Without one it is asked every `poll_ms`. `ready`: a pin that it holds high while a block
    may begin.
    """

    def __init__(
        self,
        spi: int = 0,
        cs: "int | str" = 17,
        attention: "int | str | None" = None,
        ready: "int | str | None" = None,
        baud: int = BAUD,
        block_bytes: int = BLOCK_BYTES,
        poll_ms: int = POLL_MS,
        **pins: object,
    ) -> None:
        if not HEAD_BYTES < block_bytes <= 258:
            raise ValueError("block_bytes is %d; 4 to 258 needed" % block_bytes)
        self.id = spi
        self.baud = baud
        self.poll_ms = poll_ms
        self.errors = 0  # blocks with a wrong head
        self._numbers = (cs, attention, ready)
        self._pins = pins
        self._tx = bytearray(block_bytes)
        self._rx = bytearray(block_bytes)
        self._at = 0  # of the bytes received that were not read yet
        self._end = 0
        self._room = 0  # what the peripheral said it can take
        self._asked = 0
        self._spi: "Any" = None
        self._cs: "Any" = None
        self._attention: "Any" = None
        self._ready: "Any" = None

    def init(self) -> None:
        """Claim the bus and the pins."""
        from machine import SPI, Pin

        cs, attention, ready = self._numbers
        self._cs = Pin(cs, Pin.OUT, value=1)
        self._attention = None if attention is None else Pin(attention, Pin.IN)
        self._ready = None if ready is None else Pin(ready, Pin.IN)
        self._spi = SPI(self.id, baudrate=self.baud, polarity=0, phase=0, **self._pins)  # type: ignore[arg-type]
        self._at = self._end = self._room = 0
        self._asked = ticks() - self.poll_ms

    def deinit(self) -> None:
        """Give them back."""
        if self._spi is not None:
            self._spi.deinit()
            self._spi = None

    def data_available(self) -> int:
        """Bytes that were received and not read."""
        if self._at >= self._end and self._is_due():
            self._exchange(0)
        return self._end - self._at

    def read_some(self, buf: bytearray) -> int:
        """See RTOSDriver."""
        n = self.data_available()
        if n > len(buf):
            n = len(buf)
        copy8(buf, 0, self._rx, self._at, n)
        self._at += n
        return n

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        """See RTOSDriver. 0 while the bytes that came with the last block wait to be read: there is
        no room for those of the next."""
        if self._at < self._end:
            return 0
        if self._room == 0 and self._is_due():
            self._exchange(0)  # it may have room again
            if self._at < self._end:
                return 0
        if n > self._room:
            n = self._room
        if n <= 0 or not self._may_begin():
            return 0
        copy8(self._tx, HEAD_BYTES, buf, start, n)
        return n if self._exchange(n) else 0

    def _may_begin(self) -> bool:
        return self._spi is not None and (self._ready is None or self._ready.value() == 1)

    def _is_due(self) -> bool:
        """Whether to ask for bytes, or for room, now."""
        if not self._may_begin():
            return False
        if self._attention is not None and self._attention.value():
            return True
        return ticks_diff(ticks(), self._asked) >= self.poll_ms

    def _exchange(self, n: int) -> bool:
        """One block each way, n bytes of ours in it; whether the peripheral's made sense. If not,
        ours did not arrive either."""
        tx = self._tx
        rx = self._rx
        limit = len(tx) - HEAD_BYTES
        tx[0] = n
        tx[1] = MARK ^ n
        tx[2] = limit
        self._cs.value(0)
        self._spi.write_readinto(tx, rx)
        self._cs.value(1)
        self._asked = ticks()
        came = rx[0]
        if came > limit or rx[1] != MARK ^ came or rx[2] > limit:
            self.errors = (self.errors + 1) & 0xFFFF
            self._room = 0
            return False
        self._at = HEAD_BYTES
        self._end = HEAD_BYTES + came
        self._room = rx[2]
        return True
