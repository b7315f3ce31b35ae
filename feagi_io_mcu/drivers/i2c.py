# SPDX-License-Identifier: Apache-2.0
"""I2cDriver: a line over I2C. The board is the controller; at `address` is a target that carries
bytes on to the host: a second microcontroller, a computer whose I2C can be a target.

I2C moves bytes one way at a time. One exchange writes a block (feagi_wire/blocks.py) as far as it
means something, in steps of 16 bytes, then reads the head of the target's, and the whole of it
where the head names bytes: a target gives the same block from its beginning until it is written
the next one.
"""

from feagi_wire.blocks import HEAD_BYTES, check_of

from .block_line import POLL_MS, BlockDriver

MYPY = False
if MYPY:
    from typing import Any

ADDRESS = 0x42
BAUD = 400000
BLOCK_BYTES = 64
_STEP = 16


class I2cDriver(BlockDriver):
    """`machine.I2C(i2c)`; further `pins` (scl=, sda=, timeout=) go to machine.I2C as they are. An
    exchange without bytes takes about 100 clocks of 1 / `baud` seconds, one with blocks full on
    both sides 20 a byte. A target that does not answer counts in `errors`. The rest: BlockDriver.

    Raises ValueError for an `address` outside 8 to 119: I2C has reserved those.
    """

    def __init__(
        self,
        i2c: int = 0,
        address: int = ADDRESS,
        attention: "int | str | None" = None,
        ready: "int | str | None" = None,
        baud: int = BAUD,
        block_bytes: int = BLOCK_BYTES,
        poll_ms: int = POLL_MS,
        **pins: object,
    ) -> None:
        if not 8 <= address <= 119:
            raise ValueError("address is %d; 8 to 119 needed" % address)
        BlockDriver.__init__(self, block_bytes, attention, ready, poll_ms, pins)
        self.id = i2c
        self.address = address
        self.baud = baud
        tx = memoryview(self.blocks.tx)
        # Views cannot be made later, without the heap: these are the sizes that are sent.
        self._parts = [tx[:n] for n in range(_STEP, block_bytes, _STEP)] + [tx]
        self._head = memoryview(self.blocks.rx)[:HEAD_BYTES]

    def _open(self) -> "Any":
        from machine import I2C

        return I2C(self.id, freq=self.baud, **self._pins)

    def _close(self) -> None:
        deinit = getattr(self._bus, "deinit", None)  # not every port has it
        if deinit is not None:
            deinit()

    def _move(self, size: int) -> bool:
        rx = self.blocks.rx
        try:
            self._bus.writeto(self.address, self._parts[(size - 1) // _STEP])
            self._bus.readfrom_into(self.address, self._head)
            if rx[0] and check_of(rx) == rx[3]:
                self._bus.readfrom_into(self.address, rx)
        except OSError:  # nobody there, or the bus was held down for too long
            self.blocks.errors = (self.blocks.errors + 1) & 0xFFFF
            return False
        return True
