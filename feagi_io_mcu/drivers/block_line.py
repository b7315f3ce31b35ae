# SPDX-License-Identifier: Apache-2.0
"""BlockDriver: a line on a bus whose controller is the board. What it says and hears goes in blocks
of feagi_wire/blocks.py; SpiDriver and I2cDriver move them."""

from feagi_wire.blocks import BlockEnd
from feagi_wire.link import ticks_diff

from .._port import ticks
from .base import RTOSDriver

MYPY = False
if MYPY:
    from typing import Any

POLL_MS = 2
# After bytes went either way the next exchanges tell that they were taken, and bring the next ones.
_AFTER_BYTES = 2


class BlockDriver(RTOSDriver):
    """`attention`: the number of a pin that the other end holds high while it has bytes for the
    board. Without one it is asked every `poll_ms`, as it is while it takes nothing. `ready`: a pin
    that it holds high while an exchange may begin.

    A call makes at most one exchange. `errors` counts those that made no sense, modulo 65536.
    """

    def __init__(
        self,
        block_bytes: int,
        attention: "int | str | None",
        ready: "int | str | None",
        poll_ms: int,
        pins: "dict[str, Any]",
    ) -> None:
        self.poll_ms = poll_ms
        self.blocks = BlockEnd(block_bytes)
        self._pins = pins
        self._numbers = (attention, ready)
        self._attention: "Any" = None
        self._ready: "Any" = None
        self._bus: "Any" = None
        self._asked = 0
        self._soon = 0  # exchanges that need not wait for their time

    @property
    def errors(self) -> int:
        """Exchanges that made no sense: nobody there, or damage."""
        return self.blocks.errors

    def init(self) -> None:
        """Claim the bus and the pins."""
        from machine import Pin

        attention, ready = self._numbers
        self._attention = None if attention is None else Pin(attention, Pin.IN)
        self._ready = None if ready is None else Pin(ready, Pin.IN)
        now = ticks()
        self.blocks.start(now)
        self._asked = now - self.poll_ms
        self._soon = 0
        self._bus = self._open()

    def deinit(self) -> None:
        """Give them back. What was received and not read is gone, what was not taken as well."""
        if self._bus is not None:
            self._close()
            self._bus = None
            self.blocks.start(0)

    def _open(self) -> "Any":
        """The bus; may allocate."""
        raise NotImplementedError

    def _close(self) -> None:
        """Give the bus back."""
        raise NotImplementedError

    def _move(self, size: int) -> bool:
        """Move `blocks.tx`, of which `size` bytes mean something, and `blocks.rx`; whether there
        is something in it."""
        raise NotImplementedError

    def data_available(self) -> int:
        """Bytes that were received and not read."""
        blocks = self.blocks
        if not blocks.unread and self._is_due():
            self._exchange()
        return blocks.unread

    def read_some(self, buf: bytearray) -> int:
        """See RTOSDriver."""
        return self.blocks.read(buf) if self.data_available() else 0

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        """See RTOSDriver. What is taken here is this end's to deliver, once and in order."""
        blocks = self.blocks
        if self._bus is None or n <= 0:
            return 0
        if blocks.waiting:
            if self._is_due():
                self._exchange()
            if blocks.waiting:
                return 0
        done = blocks.offer(buf, start, n)
        self._soon = _AFTER_BYTES
        if self._is_due():
            self._exchange()
        return done

    def _is_due(self) -> bool:
        if self._bus is None or (self._ready is not None and not self._ready.value()):
            return False
        if self._soon > 0 or (self._attention is not None and self._attention.value()):
            return True
        return ticks_diff(ticks(), self._asked) >= self.poll_ms

    def _exchange(self) -> None:
        blocks = self.blocks
        self._soon -= 1
        if self._move(blocks.prepare()) and blocks.take():
            if blocks.rx[0]:
                self._soon = _AFTER_BYTES
        else:
            self._soon = 0
        if self._soon < 0:
            self._soon = 0
        self._asked = ticks()
