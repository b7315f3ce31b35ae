# SPDX-License-Identifier: Apache-2.0
"""The datagram header: its bytes as described, and every field that does not fit refused."""

from __future__ import annotations

import struct

import pytest

from feagi_io_host.core.datagram import (
    HEADER_BYTES,
    Check,
    DatagramError,
    Seal,
    parse_header,
)
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.fragment import Fragmenter, FragmentSettings
from feagi_io_host.core.types import StreamType
from tests.feagi_io_host.core.datagrams import NO_CHECK, VIZ, datagram, whole

KEY = bytes(range(32))
PAYLOAD = bytes(range(100))


def refused(data: bytes, check: Check = Check.CRC) -> str:
    with pytest.raises(DatagramError) as error:
        parse_header(memoryview(data), check)
    assert str(error.value)
    return error.value.reason


def test_bytes_are_those_of_the_description() -> None:
    fragmenter = Fragmenter(7, FragmentSettings(datagram_bytes=96))
    assert whole(fragmenter.fragment(VIZ, PAYLOAD)) == [
        datagram(PAYLOAD[:64], count=2, total=100),
        datagram(PAYLOAD[64:], index=1, count=2, total=100),
    ]


def test_fields_come_back() -> None:
    data = datagram(PAYLOAD[64:], sequence=9, index=1, count=2, total=100, epoch=5, stream=1)
    header = parse_header(memoryview(data), Check.CRC)
    assert header.stream is StreamType.SENSORY
    assert (header.epoch, header.sequence, header.total) == (5, 9, 100)
    assert (header.index, header.count, header.share) == (1, 2, 64)
    assert (header.group, header.groups, header.parity) == (0, 0, False)
    assert header.payload_bytes == 36


def test_parity_belongs_to_a_group() -> None:
    data = datagram(bytes(64), index=2, count=9, total=9 * 64, group=4, flags=2 | 1)
    header = parse_header(memoryview(data), Check.CRC)
    assert header.parity
    assert header.groups == 3
    assert header.payload_bytes == 64
    past = datagram(bytes(64), index=3, count=9, total=9 * 64, group=4, flags=2 | 1)
    assert refused(past) == "malformed"
    without_group = datagram(bytes(64), index=0, count=9, total=9 * 64, flags=2 | 1)
    assert refused(without_group) == "malformed"


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("malformed", b""),
        ("malformed", bytes(HEADER_BYTES)),
        ("malformed", datagram(b"")),
        ("malformed", datagram(b"a", magic=b"UF")),
        ("malformed", datagram(b"a", flags=2 | 128)),
        ("unsupported", datagram(b"a", version=2)),
        ("unsupported", datagram(b"a", flags=2 | 32)),
        ("unsupported", datagram(b"a", flags=2 | 64)),
        ("unauthenticated", datagram(b"a", flags=NO_CHECK)),
        ("unauthenticated", datagram(b"a", flags=4)),
        ("unauthenticated", datagram(b"a", flags=2 | 4)),
        ("malformed", datagram(b"a", stream=4)),
        ("malformed", datagram(b"a", share=63)),
        ("malformed", datagram(b"a", share=0)),
        ("malformed", datagram(b"a", total=0)),
        ("malformed", datagram(b"a", count=0)),
        ("malformed", datagram(b"a", count=2)),
        ("malformed", datagram(b"a", index=1)),
        ("malformed", datagram(b"a", total=65)),
        ("malformed", datagram(b"ab", total=1)),
        ("malformed", datagram(bytes(63), count=2, total=100)),
        ("malformed", datagram(bytes(64), index=1, count=2, total=100)),
        ("malformed", datagram(bytes(64), total=0xFFFF_FFFF, count=0xFFFF)),
    ],
)
def test_what_does_not_fit_is_refused(reason: str, data: bytes) -> None:
    assert refused(data) == reason


def test_compatible_flags_are_let_pass() -> None:
    assert parse_header(memoryview(datagram(b"a", flags=2 | 8 | 16)), Check.CRC).total == 1


@pytest.mark.parametrize("check", list(Check))
def test_seal_proves_what_it_made(check: Check) -> None:
    key = KEY if check is Check.TAG else None
    fragmenter = Fragmenter(7, FragmentSettings(datagram_bytes=96, group=2), seal=Seal(check, key))
    datagrams = whole(fragmenter.fragment(VIZ, bytes(range(200))))
    assert len(datagrams) == 4 + 2
    for one in datagrams:
        assert Seal(check, key).proves(memoryview(one), len(one))
        parse_header(memoryview(one), check)
    full = b"".join(datagrams[:3])
    assert Seal(check, key).proves(memoryview(full), 96)


@pytest.mark.parametrize("check", [Check.CRC, Check.TAG])
def test_seal_finds_each_bit_that_changed(check: Check) -> None:
    seal = Seal(check, KEY if check is Check.TAG else None)
    (one,) = whole(Fragmenter(7, seal=seal).fragment(VIZ, b"some payload"))
    two = one + one
    for bit in range(8 * len(one)):
        changed = bytearray(one)
        changed[bit // 8] ^= 1 << bit % 8
        assert not seal.proves(memoryview(changed), len(one))
        assert not seal.proves(memoryview(one + changed), len(one))
    assert seal.proves(memoryview(two), len(one))


def test_tag_needs_the_key() -> None:
    seal = Seal(Check.TAG, KEY)
    (one,) = whole(Fragmenter(7, seal=seal).fragment(VIZ, b"some payload"))
    assert not Seal(Check.TAG, bytes(32)).proves(memoryview(one), len(one))
    (tag,) = struct.unpack_from("<Q", one)
    assert tag
    assert "00" not in repr(seal)
    assert KEY.hex() not in repr(seal)


@pytest.mark.parametrize(
    ("check", "key"),
    [(Check.TAG, None), (Check.TAG, bytes(31)), (Check.CRC, KEY), (Check.NONE, KEY)],
)
def test_key_goes_with_the_tag(check: Check, key: bytes | None) -> None:
    with pytest.raises(ConfigError, match="key"):
        Seal(check, key)
