# SPDX-License-Identifier: Apache-2.0
"""SpiDriver: a line over SPI. The board is the controller, as MicroPython knows no other part; at
the other end is a peripheral that carries bytes on to the host: a second microcontroller, an FPGA.

SPI moves bytes both ways at once, so one exchange is one block each way (feagi_wire/blocks.py), all
of it, while chip select is low. Port rp2 moves 32 bytes and more by DMA, by itself.
"""

from .block_line import POLL_MS, BlockDriver

MYPY = False
if MYPY:
    from typing import Any

BLOCK_BYTES = 64
BAUD = 1000000


class SpiDriver(BlockDriver):
    """`machine.SPI(spi)` with its chip select at pin `cs`; further `pins` (sck=, mosi=, miso=) go
    to machine.SPI as they are. An exchange is `block_bytes` * 8 clocks of 1 / `baud` seconds. The
    rest: BlockDriver.
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
        BlockDriver.__init__(self, block_bytes, attention, ready, poll_ms, pins)
        self.id = spi
        self.baud = baud
        self._select = cs
        self._cs: "Any" = None

    def _open(self) -> "Any":
        from machine import SPI, Pin

        self._cs = Pin(self._select, Pin.OUT, value=1)
        return SPI(self.id, baudrate=self.baud, polarity=0, phase=0, **self._pins)

    def _close(self) -> None:
        from machine import Pin

        self._bus.deinit()
        self._cs = Pin(self._select, Pin.IN)  # no longer driven

    def _move(self, size: int) -> bool:
        self._cs.value(0)
        self._bus.write_readinto(self.blocks.tx, self.blocks.rx)
        self._cs.value(1)
        return True
