# SPDX-License-Identifier: Apache-2.0
"""SpiPeripheral: the other end of a board's SpiDriver, as bytes in and bytes out.

What a second microcontroller has to do between the board and the host, for tests and to copy the
behaviour from. The form of a block stands in feagi_io_mcu/drivers/spi.py.
"""

from __future__ import annotations

from typing import Final

from feagi_io_host.core.errors import ConfigError, FeagiDataError

_HEAD: Final = 3
_MARK: Final = 0xA5


class SpiPeripheral:
    """Keeps up to `capacity` bytes for the host, and any number for the board.

    A controller clocks the block out that `armed` is while it clocks its own in: `exchange`.
    `errors` counts blocks with a wrong head.
    """

    def __init__(self, block_bytes: int = 64, capacity: int = 4096) -> None:
        if not _HEAD < block_bytes <= 258:
            raise ConfigError(f"block_bytes is {block_bytes}; 4 to 258 needed")
        self.block_bytes = block_bytes
        self.errors = 0
        self._capacity = capacity
        self._towards_host = bytearray()
        self._towards_board = bytearray()
        self._offered = 0

    @property
    def attention(self) -> bool:
        """The level of the attention line: there are bytes for the board."""
        return bool(self._towards_board)

    def feed(self, data: bytes) -> None:
        """Bytes of the host, for the board."""
        self._towards_board += data

    def take(self) -> bytes:
        """Bytes of the board, for the host."""
        data = bytes(self._towards_host)
        self._towards_host.clear()
        return data

    def armed(self) -> bytes:
        """The block that goes out with the next exchange."""
        limit = self.block_bytes - _HEAD
        self._offered = min(len(self._towards_board), limit)
        # Less what may come with the block that this one goes out with.
        room = max(0, min(self._capacity - len(self._towards_host) - limit, limit))
        block = bytes((self._offered, _MARK ^ self._offered, room))
        block += self._towards_board[: self._offered]
        return block.ljust(self.block_bytes, b"\0")

    def exchange(self, block: bytes) -> bytes:
        """Take the controller's block; the one that it has got meanwhile. FeagiDataError for a
        block of another size."""
        if len(block) != self.block_bytes:
            raise FeagiDataError(f"block of {len(block)} bytes; {self.block_bytes} were agreed on")
        out = self.armed()
        count, mark, _ = block[:_HEAD]
        if mark != _MARK ^ count or count > self.block_bytes - _HEAD:
            # The controller cannot have read ours either, or will think so: it is offered again.
            self.errors += 1
            return out
        del self._towards_board[: self._offered]
        self._towards_host += block[_HEAD : _HEAD + count]
        return out
