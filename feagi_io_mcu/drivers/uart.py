# SPDX-License-Identifier: Apache-2.0
"""UartDriver: machine.UART over static buffers.

UART.write waits until its sending ring has taken the last byte, whatever its timeouts say: with a
full ring that is the time of the bytes on the wire, 87 us each at 115200 baud. So this driver
reckons what the ring still holds, writes only what fits, and corrects itself by a write that
waited all the same.
"""

from feagi_wire.const import EV_DOWN, EV_LOST
from feagi_wire.link import ticks_diff

from .._port import sleep_ms, ticks
from ..config import UART_BAUD_RATE
from .base import RTOSDriver

MYPY = False
if MYPY:
    from machine import UART

    from feagi_wire.board_link import BoardLink


def rxbuf_bytes(baud: int) -> int:
    """A receive ring that holds 50 ms of the line: 512 to 8192 bytes, in steps of 64.

    The hardware FIFO of an RP2040 holds 32 bytes, which 115200 baud fills in 3 ms; a control loop
    that is away for longer loses bytes unless the interrupt handler has this ring to fill.
    """
    n = baud // 200 + 63 & ~63
    return 512 if n < 512 else 8192 if n > 8192 else n


def txbuf_bytes(baud: int) -> int:
    """A sending ring that holds 20 ms of the line: 256 to 4096 bytes, a power of two."""
    n = 256
    while n < baud // 500 and n < 4096:
        n += n
    return n


# Without a ring, what is written waits for the line; so little of it that nobody minds.
_NO_RING = 16
# After so long the largest ring is empty at 9600 baud, and the product below is no big integer.
_LONG_MS = 4500
_LINGER_MS = 50


class UartDriver(RTOSDriver):
    """A UART by its number, as `machine.UART(id)` counts them.

    `pins` goes to machine.UART as it is: tx=, rx=, cts=, rts= and whatever the port knows.
    With `max_baud` the host may take the line up to that rate, and both come back to `baud` when
    it does not carry; the rings have room for 50 ms at the highest. A change makes the port
    allocate its rings anew.
    """

    def __init__(
        self,
        uart: "int | str" = 0,
        baud: int = UART_BAUD_RATE,
        rxbuf: int = 0,
        txbuf: int = 0,
        max_baud: int = 0,
        **pins: object,
    ) -> None:
        self.id = uart
        self.baud = baud
        self.max_baud = max_baud if max_baud > baud else 0
        self.rxbuf = rxbuf if rxbuf else rxbuf_bytes(max_baud or baud)
        self.txbuf = txbuf if txbuf else txbuf_bytes(max_baud or baud)
        self._pins = pins
        self._uart: "UART | None" = None
        self._now_baud = 0  # 0 while closed
        self._bits_per_ms = 0
        self._trial = -1  # frames that had come when the rate changed, -1: it is not on trial
        self._since = 0
        self._back = False  # to the first rate, once what was written has left
        self._room = 0  # bytes that an empty ring takes for certain
        self._bits = 0  # in the ring, reckoned
        self._at = 0  # when that was

    def init(self) -> None:
        """Open the UART: 8N1, no waiting in read, bytes of one character time in write."""
        self._open(self.baud)

    def _open(self, baud: int) -> None:
        import machine

        self._bits_per_ms = baud // 1010 or 1  # a line may be 1 % slower than its name
        try:
            self._uart = machine.UART(
                self.id, baud, bits=8, parity=None, stop=1, rxbuf=self.rxbuf,
                txbuf=self.txbuf, timeout=0, timeout_char=1, **self._pins,  # type: ignore[arg-type]
            )  # fmt: skip
            # less what a clock of whole milliseconds may count too much
            self._room = self.txbuf - self._bits_per_ms // 10 - 2
        except TypeError:  # a port without a sending ring
            self._uart = machine.UART(
                self.id, baud, bits=8, parity=None, stop=1, rxbuf=self.rxbuf,
                timeout=0, timeout_char=1, **self._pins,  # type: ignore[arg-type]
            )  # fmt: skip
            self._room = _NO_RING
        self._now_baud = baud
        self._back = False
        self._bits = 0
        self._at = ticks()

    def keep_rate(self, link: "BoardLink", ev: int, now: int) -> None:
        """See RTOSDriver. Half the motor timeout, or of `lost_ms`, is a rate on trial: nothing
        heard, and the line goes back before anything fails safe or the session is lost."""
        if self._uart is None:
            return
        if ev & (EV_LOST | EV_DOWN):
            self._trial = -1
            self._back = self._now_baud != self.baud
            self._since = now
        if self._back:
            if self.sent() or ticks_diff(now, self._since) > _LINGER_MS:  # a goodbye leaves first
                self._open(self.baud)
        elif link.rate:
            if link.may_switch() and self.sent():
                # No chip has every rate, and machine.UART raises for what it has not.
                self._open(link.rate if link.rate > self.baud else self.baud)
                self._trial = link.framer.frames
                self._since = now
                link.resume(now)
        elif self._trial >= 0:
            if link.framer.frames != self._trial:
                self._trial = -1
            elif ticks_diff(now, self._since) > min(link.motor_timeout_ms, link.lost_ms) >> 1:
                self._trial = -1
                self._open(self.baud)

    def sent(self) -> bool:
        """Whether everything written has left."""
        return self._uart is not None and self._uart.txdone()

    def linger(self) -> None:
        """Wait until what was written has left, 50 ms at most."""
        start = ticks()
        while not self.sent() and ticks_diff(ticks(), start) < _LINGER_MS:
            sleep_ms(1)

    def deinit(self) -> None:
        """Give the UART back, after `linger`."""
        if self._uart is not None:
            self.linger()
            self._uart.deinit()
            self._uart = None
            self._now_baud = 0

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
        now = ticks()
        gone = ticks_diff(now, self._at)
        if 0 <= gone < _LONG_MS:
            self._bits -= gone * self._bits_per_ms
            if self._bits < 0:
                self._bits = 0
        else:  # less than no time: half the circle of the ticks has passed
            self._bits = 0
        self._at = now
        room = self._room - self._bits // 10
        if room <= 0:
            return 0
        done = self._uart.write(buf, start, n if n < room else room)
        self._at = ticks()
        if ticks_diff(self._at, now) > 1:
            # it waited, so the ring is full: the line is slower than reckoned
            self._bits = self._room * 10
        elif done:
            self._bits += done * 10
        return done if done else 0
