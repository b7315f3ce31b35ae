# SPDX-License-Identifier: Apache-2.0
"""FrameCompressor and its asyncio twin: what goes in comes out; damage and bombs do not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feagi_io_host.blocking.compression import FrameCompressor
from feagi_io_host.core.compression import CompressionMode, CompressionSettings, packed_header
from feagi_io_host.core.errors import ClosedError, ContainerLimitError, StructCorruptError
from feagi_io_host.nonblocking.compression import AsyncFrameCompressor

ON = CompressionSettings(CompressionMode.ON, threshold_bytes=64, max_frame_bytes=1 << 20)
FRAME = b"\x04" + bytes(range(256)) * 40
BytesLike = bytes | bytearray | memoryview
Both = tuple[Callable[[BytesLike], BytesLike], Callable[[BytesLike], BytesLike]]


@pytest.fixture(params=["blocking", "nonblocking"])
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    """`pack` and `unpack` of one paradigm, as plain calls."""
    if request.param == "blocking":
        compressor = FrameCompressor(ON)
        yield compressor.pack, compressor.unpack
        return
    awaited = AsyncFrameCompressor(ON)
    with asyncio.Runner() as runner:
        yield lambda f: runner.run(awaited.pack(f)), lambda f: runner.run(awaited.unpack(f))
    awaited.close()


def test_frames_come_back_and_are_smaller_between(both: Both) -> None:
    pack, unpack = both
    packed = pack(FRAME)
    assert len(packed) < len(FRAME) / 5
    assert unpack(packed) == FRAME
    assert unpack(pack(memoryview(FRAME))) == FRAME


def test_small_and_incompressible_frames_stay_plain(both: Both) -> None:
    pack, unpack = both
    small = FRAME[:63]
    assert pack(small) is small
    zeros = b"\x04" + bytes(100_000)  # beyond the ratio that a receiver takes
    assert pack(zeros) == zeros
    assert unpack(zeros) is zeros


def test_damage_is_refused(both: Both) -> None:
    pack, unpack = both
    packed = bytes(pack(FRAME))
    for data in (packed[:-1], packed[:9], packed[:8] + b"\xff" * 500):
        with pytest.raises((StructCorruptError, ContainerLimitError)):
            unpack(data)
    longer = packed_header(len(FRAME) + 1) + packed[8:]
    with pytest.raises(StructCorruptError, match="its header says"):
        unpack(longer)
    with pytest.raises(StructCorruptError):
        unpack(packed_header(len(FRAME) - 1) + packed[8:])
    with pytest.raises(ContainerLimitError, match="4294967295"):
        unpack(packed_header(0xFFFFFFFF) + packed[8:])


@given(st.binary(max_size=300))
def test_any_bytes_give_a_frame_or_a_clear_error(data: bytes) -> None:
    compressor = FrameCompressor(ON)
    for hostile in (data, b"FLZ1" + data):
        try:
            frame = compressor.unpack(hostile)
        except (StructCorruptError, ContainerLimitError):
            continue
        assert len(frame) <= max(len(hostile), 64 * len(hostile))


def test_time_spent_is_measured_with_the_clock_given() -> None:
    ticks = iter([1.0, 1.5])
    compressor = FrameCompressor(ON, clock=lambda: next(ticks))
    compressor.pack(FRAME)
    assert compressor.choice.snapshot()["packer_bytes_per_s"] == len(FRAME) / 0.5


def test_a_loop_does_not_compress_in_its_own_thread() -> None:
    where: list[str] = []

    def clock() -> float:
        where.append(threading.current_thread().name)
        return 0.0

    async def main() -> None:
        compressor = AsyncFrameCompressor(ON, clock=clock)
        await compressor.pack(FRAME)
        compressor.close()
        compressor.close()
        with pytest.raises(ClosedError):
            await compressor.pack(FRAME)

    asyncio.run(main())
    assert len(where) == 2
    assert all(name.startswith("feagi-io-lz4") for name in where)
