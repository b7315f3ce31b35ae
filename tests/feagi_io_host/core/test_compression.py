# SPDX-License-Identifier: Apache-2.0
"""When a frame is compressed, and which packed frames are refused before memory is taken."""

from __future__ import annotations

import struct

import pytest

from feagi_io_host.core.compression import (
    CompressionChoice,
    CompressionMode,
    CompressionSettings,
    packed_header,
    unpacked_size,
)
from feagi_io_host.core.errors import ConfigError, ContainerLimitError, StructCorruptError

SETTINGS = CompressionSettings(max_frame_bytes=1000, max_ratio=10)


def choice(mode: CompressionMode) -> CompressionChoice:
    return CompressionChoice(CompressionSettings(mode, threshold_bytes=100))


def test_threshold_and_modes() -> None:
    assert not choice(CompressionMode.OFF).wants(10**6)
    assert not choice(CompressionMode.ON).wants(99)
    assert choice(CompressionMode.ON).wants(100)


def test_auto_is_off_until_the_link_was_measured_and_on_for_a_slow_one() -> None:
    auto = choice(CompressionMode.AUTO)
    assert not auto.wants(1000)
    auto.link_took(1000, 0.0)  # too quick to measure
    assert not auto.wants(1000)
    auto.link_took(10_000_000, 1.0)
    assert auto.wants(1000)  # a trial
    auto.packing_took(1000, 500, 1e-6)  # 1 GB/s, ratio 2: pays below 500 MB/s
    assert all(auto.wants(1000) for _ in range(200))
    assert auto.snapshot()["ratio"] == 2.0


def test_auto_stays_plain_on_a_fast_link_but_tries_again_now_and_then() -> None:
    auto = choice(CompressionMode.AUTO)
    auto.link_took(5_000_000_000, 1.0)
    auto.packing_took(1000, 500, 1e-6)
    wanted = [auto.wants(1000) for _ in range(129)]
    assert sum(wanted) == 3
    assert wanted[0]
    assert wanted[64]
    for _ in range(40):
        auto.link_took(1_000_000, 1.0)
    assert auto.wants(1000)


def test_what_does_not_compress_never_pays() -> None:
    auto = choice(CompressionMode.AUTO)
    auto.link_took(1000, 1.0)
    auto.packing_took(1000, 1004, 1e-6)
    assert sum(auto.wants(1000) for _ in range(64)) == 1


def test_a_packed_frame_is_kept_only_when_smaller_and_within_the_receivers_cap() -> None:
    kept = CompressionChoice(SETTINGS)
    assert kept.keeps(100, 99)
    assert not kept.keeps(100, 100)
    assert kept.keeps(100, 10)
    assert not kept.keeps(100, 9)


def test_plain_frames_pass_up_to_the_limit() -> None:
    assert unpacked_size(memoryview(b"\x04" + bytes(999)), SETTINGS) is None
    with pytest.raises(ContainerLimitError, match="1001 bytes; at most 1000"):
        unpacked_size(memoryview(b"\x04" + bytes(1000)), SETTINGS)


@pytest.mark.parametrize("data", [b"", b"FLZ", b"FLZ1\0\0\0\0", b"\x03" + bytes(60), b"FLZ2" * 9])
def test_what_is_neither_plain_nor_packed_is_refused(data: bytes) -> None:
    with pytest.raises(StructCorruptError, match="neither a container"):
        unpacked_size(memoryview(data), SETTINGS)


@pytest.mark.parametrize(
    ("says", "block", "fits"),
    [
        (52, 6, True),
        (51, 6, False),
        (60, 6, True),
        (61, 6, False),
        (1000, 100, True),
        (1001, 900, False),
        (0xFFFFFFFF, 900, False),
        (0, 6, False),
    ],
)
def test_bombs_are_refused_by_size_and_by_ratio(says: int, block: int, fits: bool) -> None:
    data = memoryview(packed_header(says) + bytes(block))
    assert bytes(data[:8]) == struct.pack("<4sI", b"FLZ1", says)
    if fits:
        assert unpacked_size(data, SETTINGS) == says
    else:
        with pytest.raises(ContainerLimitError, match=str(says)):
            unpacked_size(data, SETTINGS)


@pytest.mark.parametrize(
    "wrong", [{"threshold_bytes": -1}, {"max_frame_bytes": 51}, {"max_frame_bytes": 1 << 32}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        CompressionSettings(**wrong)
    with pytest.raises(ConfigError, match="max_ratio is 0"):
        CompressionSettings(max_ratio=0)
