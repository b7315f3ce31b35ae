# SPDX-License-Identifier: Apache-2.0
"""BlockPeripheral: the other end of a board's SpiDriver or I2cDriver, as bytes in and bytes out.

What a second microcontroller has to do between the board and the host, for tests and to copy the
behaviour from. The form of a block stands in feagi_wire/blocks.py.
"""

from __future__ import annotations

from typing import Final

from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_wire.blocks import HEAD_BYTES, MAX_BLOCK_BYTES, BlockEnd

CAPACITY_BYTES: Final = 4096


class BlockPeripheral:
    """Keeps up to `capacity` bytes for the host and as many for the board.

    SPI moves both blocks at once: `exchange`. I2C writes one, then reads: `written`, `answer`.
    """

    def __init__(self, block_bytes: int = 64, capacity: int = CAPACITY_BYTES) -> None:
        limit = block_bytes - HEAD_BYTES
        if not HEAD_BYTES < block_bytes <= MAX_BLOCK_BYTES:
            raise ConfigError(
                f"block_bytes is {block_bytes}; {HEAD_BYTES + 1} to {MAX_BLOCK_BYTES} needed"
            )
        if capacity < limit:
            raise ConfigError(f"capacity is {capacity} bytes; a block has up to {limit}")
        self._end = BlockEnd(block_bytes)
        self._capacity = capacity
        self._into = bytearray(limit)
        self._towards_host = bytearray()
        self._towards_board = bytearray()
        self.restart(0)

    @property
    def errors(self) -> int:
        """Blocks of the board with a wrong head, or cut short."""
        return self._end.errors

    @property
    def attention(self) -> bool:
        """The level of the attention line: there are bytes for the board."""
        return bool(self._towards_board or self._end.waiting)

    def restart(self, chance: int) -> None:
        """As after a reset: what it kept is gone. `chance`: any number, another one each time."""
        self._end.start(chance)
        self._towards_host.clear()
        self._towards_board.clear()
        self._end.prepare()

    def feed(self, data: bytes) -> int:
        """Bytes of the host, for the board; how many there was room for."""
        taken = data[: self._capacity - len(self._towards_board)]
        self._towards_board += taken
        self._load()
        return len(taken)

    def take(self) -> bytes:
        """Bytes of the board, for the host."""
        data = bytes(self._towards_host)
        self._towards_host.clear()
        self._unload()
        return data

    def answer(self) -> bytes:
        """The block that a controller reads."""
        return bytes(self._end.tx)

    def exchange(self, block: bytes) -> bytes:
        """Take the controller's block; the one that it has got meanwhile. FeagiDataError for a
        block of another size."""
        if len(block) != len(self._end.tx):
            raise FeagiDataError(f"block of {len(block)} bytes; {len(self._end.tx)} were agreed on")
        out = self.answer()
        self.written(block)
        return out

    def written(self, block: bytes) -> None:
        """Take the controller's block, which may end behind its last byte that counts."""
        end = self._end
        if not HEAD_BYTES <= len(block) <= len(end.rx) or len(block) < HEAD_BYTES + block[0]:
            end.errors = (end.errors + 1) & 0xFFFF
            return
        end.rx[: len(block)] = block
        self._unload()
        end.take()
        self._unload()
        self._load()

    def _unload(self) -> None:
        """To the host, once there is room for all of a block."""
        if self._end.unread and len(self._towards_host) + self._end.unread <= self._capacity:
            self._towards_host += self._into[: self._end.read(self._into)]

    def _load(self) -> None:
        """The block that goes out next."""
        sent = self._end.offer(self._towards_board, 0, len(self._towards_board))
        del self._towards_board[:sent]
        self._end.prepare()
