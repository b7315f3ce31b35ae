# SPDX-License-Identifier: Apache-2.0
"""The part of MicroPython's `uctypes` that the portable packages use: typed views of a buffer.

Source: MicroPython 1.20 to 1.29 documentation, library `uctypes`.
"""

from typing import Any

ARRAY: int
PTR: int
NATIVE: int
LITTLE_ENDIAN: int
BIG_ENDIAN: int
UINT8: int
INT8: int
UINT16: int
INT16: int
UINT32: int
INT32: int
UINT64: int
INT64: int
FLOAT32: int
FLOAT64: int

class struct:
    def __init__(
        self, addr: int, descriptor: dict[str, Any], layout_type: int = ..., /
    ) -> None: ...
    # The fields are what the descriptor says.
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

def addressof(obj: bytes | bytearray | memoryview, /) -> int: ...
def sizeof(struct: object, layout_type: int = ..., /) -> int: ...
def bytes_at(addr: int, size: int, /) -> bytes: ...
def bytearray_at(addr: int, size: int, /) -> bytearray: ...
