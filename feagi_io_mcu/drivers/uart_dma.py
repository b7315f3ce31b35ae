# SPDX-License-Identifier: Apache-2.0
"""UartDmaDriver: the UART of an RP2040 or RP2350, sent to by DMA.

What is written is copied once and goes out without the processor: no interrupt for each half FIFO,
which at high rates is most of what sending costs. Receiving is UartDriver's, by the port's ring.
"""

import sys

from feagi_wire.kernels import copy8

from ..config import UART_BAUD_RATE
from .uart import UartDriver

MYPY = False
if MYPY:
    from typing import Any

# Data registers and requests of UART 0 and 1: RP2040 datasheet 2.2, 2.5.3.1; RP2350 datasheet 2.2,
# 12.6.4.1. The enable register for DMA, UARTDMACR, lies 0x48 behind the data register.
_RP2040 = ((0x40034000, 20), (0x40038000, 22))
_RP2350 = ((0x40070000, 28), (0x40078000, 30))
_ENABLE = 0x48
_TXDMAE = 2


class UartDmaDriver(UartDriver):
    """As UartDriver; `uart` is 0 or 1, and `txbuf` the bytes that go out at a time.

    `init` raises ImportError on a port without rp2.DMA (MicroPython before 1.22, other chips).
    """

    def __init__(
        self,
        uart: int = 0,
        baud: int = UART_BAUD_RATE,
        rxbuf: int = 0,
        txbuf: int = 0,
        max_baud: int = 0,
        **pins: object,
    ) -> None:
        UartDriver.__init__(self, uart, baud, rxbuf, txbuf, max_baud, **pins)
        self._stage = bytearray(self.txbuf)
        self._dma: "Any" = None
        self._ctrl = 0
        chip = _RP2350 if "RP2350" in getattr(sys.implementation, "_machine", "") else _RP2040
        self._data = chip[uart][0]
        self._request = chip[uart][1]

    def init(self) -> None:
        """Open the UART and claim a DMA channel."""
        from rp2 import DMA

        UartDriver.init(self)
        self._dma = DMA()
        self._ctrl = self._dma.pack_ctrl(
            size=0, inc_read=True, inc_write=False, treq_sel=self._request, irq_quiet=True
        )

    def _open(self, baud: int) -> None:
        from machine import mem32

        UartDriver._open(self, baud)
        mem32[self._data + _ENABLE] = mem32[self._data + _ENABLE] | _TXDMAE

    def deinit(self) -> None:
        """Give both back."""
        if self._dma is not None:
            self.linger()
            self._dma.close()
            self._dma = None
        UartDriver.deinit(self)

    def sent(self) -> bool:
        """See UartDriver."""
        dma = self._dma
        return (dma is None or not dma.active()) and UartDriver.sent(self)

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        """See RTOSDriver."""
        dma = self._dma
        if dma is None or n <= 0 or dma.active():
            return 0
        stage = self._stage
        if n > len(stage):
            n = len(stage)
        copy8(stage, 0, buf, start, n)
        dma.config(read=stage, write=self._data, count=n, ctrl=self._ctrl, trigger=True)
        return n
