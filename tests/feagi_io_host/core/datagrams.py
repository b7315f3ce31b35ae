# SPDX-License-Identifier: Apache-2.0
"""A bad network in memory, and headers made without the code under test."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from feagi_io_host.core.fragment import Burst
from feagi_io_host.core.types import StreamType

VIZ = StreamType.VISUALIZATION
NO_CHECK, CRC = 0, 2


def datagram(
    payload: bytes,
    *,
    sequence: int = 0,
    index: int = 0,
    count: int = 1,
    total: int | None = None,
    share: int = 64,
    epoch: int = 7,
    stream: int = 3,
    group: int = 0,
    flags: int = CRC,
    version: int = 1,
    magic: bytes = b"FU",
) -> bytes:
    """One datagram, field by field as the description of the header says."""
    total = len(payload) if total is None else total
    rest = magic + struct.pack(
        "<BBBBHIIIHH", version, flags, stream, group, share, epoch, sequence, total, index, count
    )
    rest += payload
    return struct.pack("<Q", zlib.crc32(rest) if flags & CRC else 0) + rest


def whole(burst: Burst | None) -> list[bytes]:
    """The datagrams of a burst as they would travel."""
    assert burst is not None
    return [bytes(head) + bytes(payload) for head, payload in burst.datagrams()]


@dataclass
class BadNetwork:
    """Loses, doubles, swaps and damages datagrams; the same ones for the same seed."""

    seed: int
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.lost = self.doubled = self.damaged = 0

    def carry(self, datagrams: Iterable[bytes]) -> list[bytes]:
        """What comes out at the other end."""
        arrived: list[bytes] = []
        for one in datagrams:
            if self.random.random() < self.loss:
                self.lost += 1
                continue
            if self.random.random() < self.corrupt:
                self.damaged += 1
                one = self.damage(one)
            arrived.append(one)
            if self.random.random() < self.duplicate:
                self.doubled += 1
                arrived.append(one)
        for at in range(len(arrived)):
            if self.random.random() < self.reorder:
                other = min(at + self.random.randrange(1, 8), len(arrived) - 1)
                arrived[at], arrived[other] = arrived[other], arrived[at]
        return arrived

    def damage(self, one: bytes) -> bytes:
        """One to four bits turned over, anywhere, or the end cut off."""
        if self.random.random() < 0.2:
            return one[: self.random.randrange(len(one))]
        data = bytearray(one)
        bits = self.random.sample(range(8 * len(data)), self.random.randrange(1, 5))
        for bit in bits:
            data[bit // 8] ^= 1 << bit % 8
        return bytes(data)
