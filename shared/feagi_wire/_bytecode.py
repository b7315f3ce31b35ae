# SPDX-License-Identifier: Apache-2.0
"""The kernels of `_plain` with the checksum of `binascii`, which is C: MicroPython without viper.

There the checksum allocates 32 bytes for a sum of 2**30 or more, and a window onto the buffer.
"""

from binascii import crc32
from struct import pack_into

from ._plain import *

MYPY = False
if MYPY:
    from array import array

    Bytes = bytes | bytearray | memoryview


def crc32_update(  # type: ignore[no-redef]
    table: "array[int]", buf: "Bytes", start: int, n: int, state: "bytearray"
) -> None:
    """See _viper.crc32_update; `table` is not used."""
    c = (state[0] | state[1] << 8 | state[2] << 16 | state[3] << 24) ^ 0xFFFFFFFF
    c = crc32(memoryview(buf)[start : start + n], c) ^ 0xFFFFFFFF
    pack_into("<I", state, 0, c & 0xFFFFFFFF)
