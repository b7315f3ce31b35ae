# SPDX-License-Identifier: Apache-2.0
"""What viper's pointer types mean to a type checker. Never imported when the code runs."""

from array import array


class ptr8(bytearray):
    """Bytes of a buffer."""

    def __init__(self, buf: object) -> None:
        raise NotImplementedError


class ptr16(array[int]):
    """16-bit items of a buffer."""

    def __new__(cls, buf: object) -> "ptr16":
        raise NotImplementedError


ptr32 = ptr16
