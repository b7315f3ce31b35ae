# SPDX-License-Identifier: Apache-2.0
"""Fragmentation: sizes at the boundaries, oversize policies, parity, and that nothing is copied."""

from __future__ import annotations

import numpy as np
import pytest

from feagi_io_host.core.datagram import HEADER_BYTES, BytesLike, Check, Seal, parse_header
from feagi_io_host.core.errors import ConfigError, LocalError
from feagi_io_host.core.fragment import Burst, Fragmenter, FragmentSettings, Oversize
from feagi_io_host.core.types import StreamType
from tests.feagi_io_host.core.datagrams import VIZ, whole

SHARE = 1368


def made(frame: BytesLike, **settings: object) -> Burst:
    burst = Fragmenter(1, FragmentSettings(**settings)).fragment(VIZ, frame)  # type: ignore[arg-type]
    assert burst is not None
    return burst


@pytest.mark.parametrize("size", [1, SHARE - 1, SHARE, SHARE + 1, 3 * SHARE, 3 * SHARE + 5])
def test_sizes_at_the_boundaries(size: int) -> None:
    frame = bytes(index % 251 for index in range(size))
    datagrams = whole(made(frame))
    assert len(datagrams) == -(-size // SHARE)
    assert {len(one) for one in datagrams[:-1]} <= {1400}
    assert b"".join(one[HEADER_BYTES:] for one in datagrams) == frame
    headers = [parse_header(memoryview(one), Check.CRC) for one in datagrams]
    assert [header.index for header in headers] == list(range(len(datagrams)))
    assert {header.total for header in headers} == {size}


def test_payload_is_looked_at_not_copied() -> None:
    frame = bytearray(10_000)
    burst = made(frame)
    assert not burst.parity.size
    frame[5000] = 99
    assert b"".join(bytes(payload) for _, payload in burst.datagrams()) == frame
    assert burst.payload.readonly
    assert burst.wire_bytes == 10_000 + burst.count * HEADER_BYTES


def test_each_stream_is_counted_by_itself_and_wraps() -> None:
    fragmenter = Fragmenter(1, first_sequence=0xFFFF_FFFF)

    def sequence(stream: StreamType) -> int:
        (one,) = whole(fragmenter.fragment(stream, b"x"))
        return parse_header(memoryview(one), Check.CRC).sequence

    assert [sequence(VIZ) for _ in range(3)] == [0xFFFF_FFFF, 0, 1]
    assert sequence(StreamType.SENSORY) == 0xFFFF_FFFF


def test_drop_policy_counts() -> None:
    fragmenter = Fragmenter(1, FragmentSettings(oversize=Oversize.DROP))
    assert fragmenter.fragment(VIZ, bytes(SHARE + 1)) is None
    assert fragmenter.fragment(VIZ, bytes(SHARE)) is not None
    assert fragmenter.counters() == {
        "bursts": 1,
        "datagrams": 1,
        "bytes": 1400,
        "dropped_oversize": 1,
    }
    assert fragmenter.max_frame_bytes == SHARE


def test_compress_policy_asks_for_what_does_not_fit() -> None:
    asked = []

    def pack(frame: BytesLike) -> BytesLike:
        asked.append(len(frame))
        return frame[::2]

    fragmenter = Fragmenter(1, pack=pack)
    assert len(whole(fragmenter.fragment(VIZ, bytes(SHARE)))) == 1
    assert asked == []
    assert len(whole(fragmenter.fragment(VIZ, bytes(4 * SHARE)))) == 2
    assert asked == [4 * SHARE]
    plain = Fragmenter(1, FragmentSettings(oversize=Oversize.FRAGMENT), pack=pack)
    assert len(whole(plain.fragment(VIZ, bytes(4 * SHARE)))) == 4
    assert len(asked) == 1


@pytest.mark.parametrize(("group", "size"), [(1, 500), (3, 64 * 7), (4, 64 * 8 + 1), (255, 700)])
def test_parity_is_the_exclusive_or_of_its_group(group: int, size: int) -> None:
    frame = np.random.default_rng(3).integers(0, 256, size, np.uint8).tobytes()
    burst = made(frame, datagram_bytes=96, group=group)
    datagrams = whole(burst)
    data, parity = datagrams[: burst.count], datagrams[burst.count :]
    groups = -(-burst.count // group)
    assert len(parity) == groups
    for number, one in enumerate(parity):
        header = parse_header(memoryview(one), Check.CRC)
        assert (header.parity, header.index, header.groups) == (True, number, groups)
        expected = bytearray(64)
        for member in data[number::groups]:
            for at, byte in enumerate(member[HEADER_BYTES:]):
                expected[at] ^= byte
        assert one[HEADER_BYTES:] == expected


def test_refusals_have_numbers() -> None:
    with pytest.raises(LocalError, match="empty"):
        Fragmenter(1).fragment(VIZ, b"")
    small = Fragmenter(1, FragmentSettings(datagram_bytes=96), seal=Seal(Check.NONE))
    assert small.fragment(VIZ, bytes(small.max_frame_bytes)) is not None
    with pytest.raises(LocalError, match=r"65536 datagrams of 96.*65535"):
        small.fragment(VIZ, bytes(small.max_frame_bytes + 1))
    for wrong in ({"datagram_bytes": 95}, {"datagram_bytes": 65_508}, {"group": 256}):
        with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
            FragmentSettings(**wrong)
    with pytest.raises(ConfigError, match="epoch is -1"):
        Fragmenter(-1)
