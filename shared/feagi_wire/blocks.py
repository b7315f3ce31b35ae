# SPDX-License-Identifier: Apache-2.0
"""Bytes in blocks, for buses where one side alone decides when bytes move: SPI and I2C.

The controller gives a block and gets one. Either end may have nothing to say, no room for what
comes, or be gone; so each block names itself and says which one of the other end was taken:

    0      how many bytes of this block count, n
    1      its number, 1 to 255; a block with bytes is given again until it was taken
    2      the number of the other end's block that was taken last, 0 for none
    3      check of the three above: CRC-8, polynomial 0x07, start 0xC3
    4...   n bytes, then anything

Whoever has no room does not take: that is all there is of flow control. A number that comes twice
is a repetition and is not taken again. A line that reads as all zeros or all ones (nobody there)
fails the check, and so does a head with up to three wrong bits. Damage to the bytes behind it is
found by the checksum of the link's frames.

An end that starts anew begins with a number of chance; once in 255 times it is the one that the
other end took last, and a block is lost, which the link notices and mends.
"""

from .kernels import copy8

MYPY = False
if MYPY:
    from ._slices import Bytes, Writable

HEAD_BYTES = 4
MAX_BLOCK_BYTES = HEAD_BYTES + 255
_START = 0xC3
# CRC-8 of each half byte
_TABLE = b"\x00\x07\x0e\t\x1c\x1b\x12\x158?61$#*-"


def check_of(head: "Bytes") -> int:
    """The check of the head's first three bytes."""
    table = _TABLE
    crc = _START
    for i in range(3):
        crc ^= head[i]
        crc = (crc << 4 & 0xFF) ^ table[crc >> 4]
        crc = (crc << 4 & 0xFF) ^ table[crc >> 4]
    return crc


class BlockEnd:
    """One end. Each exchange: `prepare`, move `tx` and `rx`, `take`. Nothing allocates after
    `__init__`.

    `tx` and `rx` have the whole block's size; of `tx` the first `prepare()` bytes mean something.
    `waiting`: bytes offered and not taken by the other end. `unread`: bytes taken and not read.
    `errors` counts blocks with a wrong head, modulo 65536.
    """

    def __init__(self, block_bytes: int) -> None:
        if not HEAD_BYTES < block_bytes <= MAX_BLOCK_BYTES:
            raise ValueError("block_bytes is %d; 5 to %d needed" % (block_bytes, MAX_BLOCK_BYTES))
        self.tx = bytearray(block_bytes)
        self.rx = bytearray(block_bytes)
        self.errors = 0
        self.waiting = 0
        self.unread = 0
        self._in = bytearray(block_bytes - HEAD_BYTES)
        self._at = 0
        self._number = 0
        self._taken = 0

    def start(self, chance: int) -> None:
        """Forget what was under way; `chance`: any number, another one each time."""
        self.waiting = 0
        self.unread = 0
        self._number = chance % 255
        self._taken = 0

    def offer(self, buf: "Bytes", start: int, n: int) -> int:
        """Put of buf[start:start+n] what fits into the next block; how many bytes, 0 while the last
        one was not taken."""
        if self.waiting:
            return 0
        if n > len(self._in):
            n = len(self._in)
        if n > 0:
            copy8(self.tx, HEAD_BYTES, buf, start, n)
            self.waiting = n
            self._number = self._number % 255 + 1
        return n

    def read(self, buf: "Writable") -> int:
        """Move what was taken into buf[0:]; how many bytes, 0 for none."""
        n = self.unread
        if n > len(buf):
            n = len(buf)
        if n > 0:
            copy8(buf, 0, self._in, self._at, n)
            self._at += n
            self.unread -= n
        return n

    def prepare(self) -> int:
        """Write the head of the next block; how many bytes of `tx` mean something."""
        tx = self.tx
        tx[0] = self.waiting
        tx[1] = self._number
        tx[2] = self._taken
        tx[3] = check_of(tx)
        return HEAD_BYTES + self.waiting

    def take(self) -> bool:
        """Look at what came into `rx`; whether its head makes sense."""
        rx = self.rx
        n = rx[0]
        if n > len(self._in) or check_of(rx) != rx[3]:
            self.errors = (self.errors + 1) & 0xFFFF
            return False
        if rx[2] == self._number:
            self.waiting = 0
        if n and rx[1] != self._taken and not self.unread:
            copy8(self._in, 0, rx, HEAD_BYTES, n)
            self._at = 0
            self.unread = n
            self._taken = rx[1]
        return True
