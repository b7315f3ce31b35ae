# SPDX-License-Identifier: Apache-2.0
"""FrameCompressor: LZ4 for the threads of a transport.

When a frame is compressed and what is refused stands in `core.compression`. `pack` is called by
the thread that drains a channel and sends, never by the one that emits; LZ4 lets other threads
run meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import lz4.block

from feagi_io_host.core.compression import (
    PACKED_HEADER_BYTES,
    CompressionChoice,
    CompressionSettings,
    packed_header,
    unpacked_size,
)
from feagi_io_host.core.errors import StructCorruptError

BytesLike = bytes | bytearray | memoryview


class FrameCompressor:
    """Packs and unpacks frames between two ends that have agreed on it. Thread-safe.

    `choice` decides and can be told how fast the link is (`link_took`).
    """

    def __init__(
        self,
        settings: CompressionSettings | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.choice = CompressionChoice(settings or CompressionSettings())
        self._clock = clock

    def pack(self, frame: BytesLike) -> BytesLike:
        """The frame packed where that pays, else the same object: send what comes back."""
        return self.pack_chosen(frame) if self.choice.wants(len(frame)) else frame

    def pack_chosen(self, frame: BytesLike) -> BytesLike:
        """As `pack`, for a frame that `choice.wants`: to ask again would count as another one."""
        plain_bytes = len(frame)
        began_s = self._clock()
        block: bytes = lz4.block.compress(frame, store_size=False)
        self.choice.packing_took(plain_bytes, len(block), self._clock() - began_s)
        if not self.choice.keeps(plain_bytes, len(block)):
            return frame
        return packed_header(plain_bytes) + block

    def unpack(self, data: BytesLike) -> BytesLike:
        """The frame that was packed; a plain one comes back as it is, not copied.

        Raises ContainerLimitError for a bomb, before memory is taken for it, StructCorruptError
        for a damaged frame.
        """
        view = memoryview(data)
        plain_bytes = unpacked_size(view, self.choice.settings)
        if plain_bytes is None:
            return data
        try:
            frame: bytes = lz4.block.decompress(
                view[PACKED_HEADER_BYTES:], uncompressed_size=plain_bytes
            )
        except lz4.block.LZ4BlockError as error:
            raise StructCorruptError(f"packed frame of {len(view)} bytes: {error}") from None
        if len(frame) != plain_bytes:
            raise StructCorruptError(
                f"packed frame unpacks to {len(frame)} bytes; its header says {plain_bytes}"
            )
        return frame
