# SPDX-License-Identifier: Apache-2.0
"""UartDriver: machine.UART over static buffers."""

from ..config import UART_BAUD_RATE
from .base import RTOSDriver

MYPY = False
if MYPY:
    from machine import UART


def rxbuf_bytes(baud: int) -> int:
    """A receive ring that holds 50 ms of the line: 512 to 8192 bytes, a power of two.

    The hardware FIFO of an RP2040 holds 32 bytes, which 115200 baud fills in 3 ms; a control loop
    that is away for longer loses bytes unless the interrupt handler has this ring to fill.
    """
    n = 512
    while n < baud // 200 and n < 8192:
        n += n
    return n


class UartDriver(RTOSDriver):
    """A UART by its number, as `machine.UART(id)` counts them.

    `pins` goes to machine.UART as it is: tx=, rx=, cts=, rts=, txbuf= and whatever the port knows.
    """

    def __init__(
        self, uart: "int | str" = 0, baud: int = UART_BAUD_RATE, rxbuf: int = 0, **pins: object
    ) -> None:
        self.id = uart
        self.baud = baud
        self.rxbuf = rxbuf if rxbuf else rxbuf_bytes(baud)
        self._pins = pins
        self._uart: "UART | None" = None

    def init(self) -> None:
        """Open the UART: 8N1, no waiting in read, bytes of one character time in write."""
        import machine

        self._uart = machine.UART(
            self.id, self.baud, bits=8, parity=None, stop=1, rxbuf=self.rxbuf,
            timeout=0, timeout_char=1, **self._pins,  # type: ignore[arg-type]
        )  # fmt: skip

    def deinit(self) -> None:
        """Give the UART back."""
        if self._uart is not None:
            self._uart.deinit()
            self._uart = None

    def data_available(self) -> int:
        """Bytes in the receive ring."""
        return self._uart.any() if self._uart is not None else 0

    def read_some(self, buf: bytearray) -> int:
        """See RTOSDriver."""
        uart = self._uart
        if uart is None:
            return 0
        n = uart.any()
        if n <= 0:
            return 0
        # asking for no more than is there keeps readinto from waiting for the rest
        got = uart.readinto(buf, n if n < len(buf) else len(buf))
        return got if got else 0

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        """See RTOSDriver."""
        if self._uart is None:
            return 0
        done = self._uart.write(buf, start, n)
        return done if done else 0
