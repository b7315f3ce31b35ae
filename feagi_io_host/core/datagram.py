# SPDX-License-Identifier: Apache-2.0
"""The header in front of every datagram: 32 bytes, little-endian, of our own making.

A datagram here is what a line carries whole or not at all: one of UDP, a message of a WebRTC data
channel.

     0  u64  check: 0, or CRC-32 of everything behind it, or the first 8 bytes of its keyed BLAKE2s
     8  2s   magic "FU"
    10  u8   version, 1
    11  u8   flags, below
    12  u8   stream: 0 control, 1 sensory, 2 motor, 3 visualization
    13  u8   group: data fragments that share one parity fragment; 0 without parity
    14  u16  share: bytes of each data fragment but the last, which has the rest
    16  u32  epoch: one run of the sender; a later run has a later one
    20  u32  sequence: bursts of this stream, counted from 0, wrapping
    24  u32  total: bytes of the whole burst
    28  u16  index: of this data fragment, or (flag PARITY) of the group it repairs
    30  u16  count: data fragments of the burst, total / share rounded up

The check comes first so that what it covers lies in one piece.

Flags: 1 PARITY, 2 CRC, 4 TAG. 8 and 16 are reserved and compatible: a receiver that does not know
them goes on. 32 and 64 are reserved and incompatible: it drops the datagram. 128 is always 0.

FEAGI's own engine speaks neither; both ends of this are ours. The key of the tag belongs to one
session: handed out by the control channel, it dies with the session, and so do the datagrams
somebody may have recorded in it.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.types import StreamType

BytesLike = bytes | bytearray | memoryview

HEADER: Final = struct.Struct("<Q2sBBBBHIIIHH")
HEADER_BYTES: Final = HEADER.size
_CHECK: Final = struct.Struct("<Q")
CHECK_BYTES: Final = 8
FLAGS_AT: Final = 11
MAGIC: Final = b"FU"
VERSION: Final = 1

FLAG_PARITY: Final = 1
FLAG_CRC: Final = 2
FLAG_TAG: Final = 4
RESERVED_COMPATIBLE: Final = 8 | 16
RESERVED_INCOMPATIBLE: Final = 32 | 64
_ALWAYS_ZERO: Final = 128
_CHECK_FLAGS: Final = FLAG_CRC | FLAG_TAG

MIN_SHARE_BYTES: Final = 64  # bounds the bookkeeping that a declared total can ask for
MAX_FRAGMENTS: Final = 0xFFFF
MAX_DATAGRAM_BYTES: Final = 65_507  # what IPv4 and UDP can carry
DEFAULT_DATAGRAM_BYTES: Final = 1400  # fits Ethernet beneath a tunnel or two
KEY_BYTES: Final = 32


class Check(enum.Enum):
    """What stands in the check field. Both ends have to mean the same: no flag on the wire can
    talk a receiver into less."""

    NONE = "none"
    """Nothing: for loopback, where the kernel leaves UDP's own checksum out as well."""
    CRC = "crc"
    """CRC-32: finds what UDP's 16-bit sum overlooks, and what changed on the way through a
    program."""
    TAG = "tag"
    """Keyed BLAKE2s, 64 bits of it: only who has the key can make or change a datagram."""

    @property
    def flag(self) -> int:
        """Its bit among the flags."""
        return _FLAG_OF[self]


_FLAG_OF: Final = {Check.NONE: 0, Check.CRC: FLAG_CRC, Check.TAG: FLAG_TAG}


class DatagramError(FeagiDataError):
    """A datagram that is not taken; `reason` is the counter that it goes to."""

    def __init__(self, reason: str, text: str) -> None:
        self.reason = reason
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class DatagramHeader:
    """The fields of one header, checked against each other."""

    stream: StreamType
    epoch: int
    sequence: int
    total: int
    index: int
    count: int
    share: int
    group: int
    parity: bool

    @property
    def groups(self) -> int:
        """Parity fragments of the burst. Data fragment i belongs to group i % groups, so that a
        run of lost ones hits each group once."""
        return -(-self.count // self.group) if self.group else 0

    @property
    def payload_bytes(self) -> int:
        """Bytes that have to follow the header."""
        if self.parity or self.index < self.count - 1:
            return self.share
        return self.total - (self.count - 1) * self.share


class Seal:
    """Makes and proves the check field of one direction of one session."""

    def __init__(self, check: Check, key: bytes | None = None) -> None:
        """`key`: 32 bytes with Check.TAG, None otherwise; ConfigError for anything else."""
        if (key is not None) != (check is Check.TAG):
            raise ConfigError(
                f"datagram check {check.value!r} {'takes no' if key else 'needs a'} key; "
                f"the check 'tag' takes {KEY_BYTES} bytes, the others none"
            )
        if key is not None and len(key) != KEY_BYTES:
            raise ConfigError(f"datagram key has {len(key)} bytes; {KEY_BYTES} needed")
        self.check = check
        self._keyed = hashlib.blake2s(key=key, digest_size=CHECK_BYTES) if key else None

    def of(self, heads: BytesLike, payload: BytesLike, share: int) -> bytes:
        """The check fields, 8 bytes each, of datagrams whose headers lie one after the other in
        `heads` and whose payloads are `share` bytes of `payload` each, the last one the rest."""
        count = len(heads) // HEADER_BYTES
        starts = range(CHECK_BYTES, len(heads), HEADER_BYTES)
        behind = HEADER_BYTES - CHECK_BYTES
        if self.check is Check.NONE:
            return bytes(CHECK_BYTES * count)
        if self._keyed is None:
            crc32 = zlib.crc32
            sums = [
                crc32(payload[place * share : (place + 1) * share], crc32(heads[at : at + behind]))
                for place, at in enumerate(starts)
            ]
            return struct.pack(f"<{count}Q", *sums)
        tags = []
        for place, at in enumerate(starts):
            digest = self._keyed.copy()
            digest.update(heads[at : at + behind])
            digest.update(payload[place * share : (place + 1) * share])
            tags.append(digest.digest())
        return b"".join(tags)

    def proves(self, piece: memoryview, segment: int) -> bool:
        """Whether the check fields of all datagrams in `piece` are right, which has one every
        `segment` bytes. With a tag it takes the same time wherever one differs."""
        if self.check is Check.NONE:
            return True
        starts = range(0, len(piece), segment)
        if self._keyed is None:
            crc32 = zlib.crc32
            return all(
                crc32(piece[at + CHECK_BYTES : at + segment]) == _CHECK.unpack_from(piece, at)[0]
                for at in starts
            )
        said, right = [], []
        for at in starts:
            digest = self._keyed.copy()
            digest.update(piece[at + CHECK_BYTES : at + segment])
            right.append(digest.digest())
            said.append(piece[at : at + CHECK_BYTES])
        return hmac.compare_digest(b"".join(right), b"".join(said))

    def __repr__(self) -> str:
        return f"<Seal {self.check.value}>"


def parse_header(datagram: memoryview, check: Check) -> DatagramHeader:
    """The header of one datagram, every field checked; the check field is not looked into.

    Raises DatagramError: "malformed" for what is no datagram of ours or contradicts itself,
    "unsupported" for another version or an incompatible flag, "unauthenticated" for one without
    the check that was agreed on.
    """
    size = len(datagram)
    if size <= HEADER_BYTES:
        raise DatagramError("malformed", f"{size} bytes; a datagram has over {HEADER_BYTES}")
    (_, magic, version, flags, stream, group, share, epoch, sequence, total, index, count) = (
        HEADER.unpack_from(datagram)
    )
    if magic != MAGIC or flags & _ALWAYS_ZERO:
        raise DatagramError("malformed", f"opens with {magic!r}, flags {flags}; not {MAGIC!r}")
    if version != VERSION or flags & RESERVED_INCOMPATIBLE:
        raise DatagramError(
            "unsupported", f"version {version}, flags {flags:#04x}; this end knows {VERSION}, 0x07"
        )
    if flags & _CHECK_FLAGS != check.flag:
        raise DatagramError(
            "unauthenticated", f"flags {flags:#04x}; the check {check.value!r} was agreed on"
        )
    parity = bool(flags & FLAG_PARITY)
    if share < MIN_SHARE_BYTES or total == 0 or count != -(-total // share):
        raise DatagramError(
            "malformed", f"{total} bytes in {count} fragments of {share} (at least 64 each)"
        )
    try:
        kind = StreamType.try_from_wire(stream)
    except FeagiDataError as error:
        raise DatagramError("malformed", str(error)) from None
    header = DatagramHeader(kind, epoch, sequence, total, index, count, share, group, parity)
    if index >= (header.groups if parity else count):
        raise DatagramError("malformed", f"fragment {index} of {count}, groups of {group}")
    if size - HEADER_BYTES != header.payload_bytes:
        raise DatagramError(
            "malformed",
            f"{size - HEADER_BYTES} bytes after the header; fragment {index} of {count} has "
            f"{header.payload_bytes}",
        )
    return header
