# SPDX-License-Identifier: Apache-2.0
"""The part of MicroPython's `rp2` that feagi_io_mcu uses, for the type checker.

Source: MicroPython 1.22 to 1.29 documentation, library `rp2`.
"""

class DMA:
    def __init__(self) -> None: ...
    def config(
        self,
        *,
        read: int | bytearray = ...,
        write: int | bytearray = ...,
        count: int = ...,
        ctrl: int = ...,
        trigger: bool = ...,
    ) -> None: ...
    def pack_ctrl(self, default: int | None = ..., **fields: int | bool) -> int: ...
    def active(self, value: int = ..., /) -> bool: ...
    def close(self) -> None: ...
