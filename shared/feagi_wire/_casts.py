# SPDX-License-Identifier: Apache-2.0
"""What viper's casts mean to a type checker. Never imported when the code runs."""

from array import array


def ptr8(buf: object) -> bytearray:
    """Bytes of a buffer."""
    assert isinstance(buf, bytearray)
    return buf


def ptr16(buf: object) -> "array[int]":
    """16-bit items of a buffer."""
    assert isinstance(buf, array)
    return buf


ptr32 = ptr16
