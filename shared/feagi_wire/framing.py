# SPDX-License-Identifier: Apache-2.0
"""Frames on a byte line: 0x00 | COBS( payload | CRC-32 ) | 0x00.

COBS keeps 0x00 out of the frame, so the delimiter is unmistakable and one damaged byte costs one
frame. Every frame also opens with a delimiter: noise since the last one then costs nothing, and a
damaged delimiter costs one frame instead of two.
"""

from array import array

from .const import E_CAPACITY, E_CRC, E_RANGE, E_STATE, END
from .kernels import cobs_decode, cobs_encode, crc32_update

CRC_BYTES = 4
_RESIDUE = b"\xe3\x20\xbb\xde"  # CRC-32 register after payload and checksum
_TABLE: "list[array[int]]" = []


def frame_bytes(n: int) -> int:
    """Bytes that a payload of n bytes takes on the line, at most."""
    n += CRC_BYTES
    return n + n // 254 + 3


def crc_table() -> "array[int]":
    """The table of CRC-32 (reflected, polynomial 0xEDB88320); made on first use, 1 KB."""
    if not _TABLE:
        table = array("I", bytes(1024))
        for i in range(256):
            c = i
            for _ in range(8):
                c = (c >> 1) ^ 0xEDB88320 if c & 1 else c >> 1
            table[i] = c
        _TABLE.append(table)
    return _TABLE[0]


class Framer:
    """Encodes into `tx`, decodes into `rx[rx_start:]`; both bytearrays of at most 65535 bytes.

    Counters: frames (good ones received), crc_errors, resyncs (a block cut short, or fewer bytes
    than a checksum), oversize (longer than rx).
    """

    def __init__(self, tx: bytearray, rx: bytearray, rx_start: int = 0) -> None:
        if len(tx) > 65535:
            raise ValueError("framer: tx of %d bytes, at most 65535" % len(tx))
        self.tx = tx
        self.rx = rx
        self.rx_start = rx_start
        self.index = 0
        self.frames = 0
        self.crc_errors = 0
        self.resyncs = 0
        self.oversize = 0
        self._table = crc_table()
        self._st = array("H", bytes(18))
        self._crc = bytearray(4)
        self._room = -1
        self.set_rx(rx)

    def set_rx(self, rx: bytearray) -> None:
        """Decode into another buffer from the next frame on. Drops a frame half received.

        ValueError for more than 65535 bytes.
        """
        if len(rx) > 65535:
            raise ValueError("framer: rx of %d bytes, at most 65535" % len(rx))
        self.rx = rx
        st = self._st
        st[4] = self.rx_start
        st[5] = st[6] = st[8] = 0
        st[7] = len(rx)

    # -- out ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open a frame in tx; follow with `add` and `finish`."""
        crc = self._crc
        crc[0] = crc[1] = crc[2] = crc[3] = 255
        st = self._st
        st[0] = 1
        st[1] = 2
        st[2] = 1
        st[3] = 0
        self.tx[0] = 0
        self._room = len(self.tx) - 3 - CRC_BYTES

    def add(self, buf: "bytes | bytearray | memoryview", start: int, n: int) -> int:
        """Stuff buf[start:start+n] as payload.

        E_CAPACITY when tx could not hold the whole frame, E_RANGE when buf is shorter than that
        (a kernel on a board checks no bounds), E_STATE without `begin` or after a failed add.
        """
        room = self._room - n
        if self._room < 0:
            return E_STATE
        if start < 0 or n < 0 or start + n > len(buf):
            self._room = -1
            return E_RANGE
        # besides the bytes counted so far, COBS takes one for each 254
        if room < (len(self.tx) - 3 - room) // 254:
            self._room = -1
            return E_CAPACITY
        self._room = room
        crc32_update(self._table, buf, start, n, self._crc)
        cobs_encode(buf, start, self.tx, n, self._st)
        return n

    def finish(self) -> int:
        """Close the frame: its length in tx, ready to be written. E_STATE after a failed add."""
        if self._room < 0:
            return E_STATE
        crc = self._crc
        for i in range(4):
            crc[i] ^= 255
        st = self._st
        tx = self.tx
        cobs_encode(crc, 0, tx, CRC_BYTES, st)
        o = st[1]
        if st[2] == 1 and st[3]:
            o -= 1  # the frame ended with a full block: no empty one after it
        else:
            tx[st[0]] = st[2]
        tx[o] = 0
        self._room = -1
        return o + 1

    def encode(self, buf: "bytes | bytearray | memoryview", start: int, n: int) -> int:
        """A whole frame of one piece in tx: its length, or E_CAPACITY."""
        self.begin()
        rc = self.add(buf, start, n)
        return self.finish() if rc >= 0 else rc

    # -- in -----------------------------------------------------------------------------------

    def feed(self, chunk: "bytes | bytearray | memoryview", n: int, start: int = 0) -> int:
        """Take chunk[start:n], at most to the end of one frame; `index` is where it stopped.

        > 0: so many payload bytes stand at rx[rx_start:], valid until the next call.
        END: all of the chunk is used. E_CRC or E_CAPACITY: one damaged or oversize frame was
        dropped and counted; call again with `index` as start.
        """
        if n > len(chunk):
            n = len(chunk)  # a kernel on a board checks no bounds
        st = self._st
        i = start
        while True:
            i = cobs_decode(chunk, i, self.rx, n, st)
            if i < 0:
                self.index = n
                return END
            self.index = i
            size = st[4] - self.rx_start
            wrong = st[8]
            st[4] = self.rx_start
            st[8] = 0
            if wrong == 2:
                self.oversize += 1
                return E_CAPACITY
            if size == 0 and wrong == 0:
                continue  # a delimiter after a delimiter
            if wrong or size <= CRC_BYTES:
                self.resyncs += 1
                return E_CRC
            crc = self._crc_in(size)
            if crc:
                self.crc_errors += 1
                return E_CRC
            self.frames += 1
            return size - CRC_BYTES

    def _crc_in(self, size: int) -> int:
        crc = self._crc
        crc[0] = crc[1] = crc[2] = crc[3] = 255
        crc32_update(self._table, self.rx, self.rx_start, size, crc)
        for i in range(4):
            if crc[i] != _RESIDUE[i]:
                return 1
        return 0
