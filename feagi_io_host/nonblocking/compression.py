# SPDX-License-Identifier: Apache-2.0
"""AsyncFrameCompressor: LZ4 beside an event loop, in one thread of its own.

When a frame is compressed and what is refused stands in `core.compression`. The loop only awaits:
what is large enough to be packed or unpacked is worked on in the compressor's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import lz4.block

from feagi_io_host.core.compression import (
    PACKED_HEADER_BYTES,
    CompressionChoice,
    CompressionSettings,
    packed_header,
    unpacked_size,
)
from feagi_io_host.core.errors import ClosedError, StructCorruptError

BytesLike = bytes | bytearray | memoryview


class AsyncFrameCompressor:
    """Packs and unpacks frames between two ends that have agreed on it.

    `choice` decides and can be told how fast the link is (`link_took`). Frames handed in by
    several tasks at once wait for each other, one at a time. Close it in the end.
    """

    def __init__(
        self,
        settings: CompressionSettings | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.choice = CompressionChoice(settings or CompressionSettings())
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feagi-io-lz4")
        self._closed = False

    async def pack(self, frame: BytesLike) -> BytesLike:
        """The frame packed where that pays, else a view of the same bytes.

        `frame` must not change until then. Raises ClosedError after `close`.
        """
        if not self.choice.wants(len(frame)):
            return frame
        return await self._beside(self._pack, frame)

    async def unpack(self, data: BytesLike) -> BytesLike:
        """The frame that was packed; a plain one comes back as it is, not copied.

        Raises ContainerLimitError for a bomb, before memory is taken for it, StructCorruptError
        for a damaged frame, ClosedError after `close`.
        """
        view = memoryview(data)
        plain_bytes = unpacked_size(view, self.choice.settings)
        if plain_bytes is None:
            return data
        return await self._beside(lambda packed: _unpack(packed, plain_bytes), view)

    def close(self) -> None:
        """End the thread; frames that wait for it are given up. Waits for the one frame that is
        being worked on, milliseconds. May be called more than once."""
        self._closed = True
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _beside(self, work: Callable[[memoryview], BytesLike], data: BytesLike) -> BytesLike:
        if self._closed:
            raise ClosedError("compressor is closed: nothing is packed or unpacked after close")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, work, memoryview(data))

    def _pack(self, frame: memoryview) -> BytesLike:
        plain_bytes = len(frame)
        began_s = self._clock()
        block: bytes = lz4.block.compress(frame, store_size=False)
        self.choice.packing_took(plain_bytes, len(block), self._clock() - began_s)
        if not self.choice.keeps(plain_bytes, len(block)):
            return frame
        return packed_header(plain_bytes) + block


def _unpack(data: memoryview, plain_bytes: int) -> bytes:
    try:
        frame: bytes = lz4.block.decompress(
            data[PACKED_HEADER_BYTES:], uncompressed_size=plain_bytes
        )
    except lz4.block.LZ4BlockError as error:
        raise StructCorruptError(f"packed frame of {len(data)} bytes: {error}") from None
    if len(frame) != plain_bytes:
        raise StructCorruptError(
            f"packed frame unpacks to {len(frame)} bytes; its header says {plain_bytes}"
        )
    return frame
