# SPDX-License-Identifier: Apache-2.0
"""Stories to tell a reassembly: whatever happens in one, what comes out is true.

A story is made of bytes: raw datagrams, datagrams with fields of the teller's choice, pieces of
several, and the passing of time. Nothing may be raised, memory stays below its limit, sequences
rise, and each byte delivered is one that a datagram brought to that place.
"""

from __future__ import annotations

import struct
from collections import defaultdict

import numpy as np

from feagi_io_host.core.datagram import Check, Seal
from feagi_io_host.core.reassembly import (
    Reassembler,
    ReassemblySettings,
    ReceivedBurst,
)
from feagi_io_host.core.types import StreamType

SETTINGS = ReassemblySettings(
    max_frame_bytes=2048, max_memory_bytes=4096, max_open=3, timeout_s=0.1, resync_s=0.5
)
_HEADER = struct.Struct("<Q2sBBBBHIIIHH")


class Story:
    """Reads an input to its end; zeros come after it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def over(self) -> bool:
        return self.at >= len(self.data)

    def take(self, size: int) -> bytes:
        part = self.data[self.at : self.at + size]
        self.at += size
        return part.ljust(size, b"\0")

    def byte(self) -> int:
        return self.take(1)[0]


class Witness:
    """Remembers what each datagram brought, without any of the code under test."""

    def __init__(self) -> None:
        self.reassembler = Reassembler(SETTINGS, seal=Seal(Check.NONE))
        self.brought: dict[tuple[int, ...], set[bytes]] = defaultdict(set)
        self.shares: dict[tuple[int, ...], set[int]] = defaultdict(set)
        self.newest: dict[StreamType, tuple[int, int]] = {}

    def note(self, datagram: bytes) -> None:
        if len(datagram) > _HEADER.size:
            _, _, _, flags, stream, _, share, epoch, sequence, total, index, _ = (
                _HEADER.unpack_from(datagram)
            )
            burst = (stream, epoch, sequence, total)
            self.shares[burst].add(share)
            if not flags & 1:
                self.brought[*burst, share, index].add(datagram[_HEADER.size :])

    def receive(self, datagram: bytes, now_s: float) -> None:
        self.note(datagram)
        self.check(self.reassembler.receive(datagram, now_s))

    def receive_piece(self, piece: bytes, segment: int, now_s: float) -> None:
        for at in range(0, len(piece), segment):
            self.note(piece[at : at + segment])
        rows = np.frombuffer(piece, np.uint8).reshape(1, -1)
        self.check(self.reassembler.receive_blocks(rows, [len(piece)], [segment], now_s))

    def check(self, bursts: list[ReceivedBurst]) -> None:
        assert self.reassembler.memory_bytes <= SETTINGS.max_memory_bytes
        for burst in bursts:
            self.compare(burst)
            # A run that comes back after another was heard counts as one more run.
            run = self.reassembler.counters()["epochs"]
            before, sequence = self.newest.get(burst.stream, (0, 0))
            ahead = (burst.sequence - sequence) % (1 << 32)
            assert before != run or 0 < ahead < 1 << 31
            self.newest[burst.stream] = (run, burst.sequence)

    def compare(self, burst: ReceivedBurst) -> None:
        """Some one way to cut the burst explains all of it but what parity stands for."""
        data = bytes(burst.data)
        start = (burst.stream.wire, burst.epoch, burst.sequence, len(data))
        for share in self.shares[start] - {0}:
            parts = [data[at : at + share] for at in range(0, len(data), share)]
            unexplained = sum(
                part not in self.brought[(*start, share, index)] for index, part in enumerate(parts)
            )
            if unexplained <= burst.repaired:
                return
        raise AssertionError(f"burst {start} of bytes that nobody sent")


def crafted(story: Story) -> bytes:
    """A datagram that is right in most of its fields, most of the time."""
    kind = story.byte()
    share = 64 + 8 * (kind & 3)
    count = 1 + story.byte() % 6
    total = max(1, count * share - story.byte() % share)
    index = story.byte() % (count + 1) if kind & 4 else story.byte() % count
    group = (kind >> 3) & 1 and 2
    groups = -(-count // group) if group else 0
    parity = bool(group and kind & 16)
    if parity:
        index %= groups
    size = share if parity or index < count - 1 else total - (count - 1) * share
    if kind & 32 and kind & 64:
        size = story.byte()
    sequence = story.byte() if kind & 128 else story.byte() % 4
    head = struct.pack(
        "<BBBBHIIIHH",
        1,
        int(parity),
        3,
        group,
        share,
        7 + (story.byte() == 255),
        sequence,
        total,
        index,
        count,
    )
    fill = bytes([story.byte()])
    return bytes(8) + b"FU" + head + fill * max(size, 0)


def tell(data: bytes) -> None:
    """Tell one story."""
    story, witness, now_s = Story(data), Witness(), 0.0
    while not story.over:
        action = story.byte()
        if action < 32:
            witness.receive(story.take(story.byte()), now_s)
        elif action < 48:
            now_s += story.byte() / 256
            witness.reassembler.expire(now_s)
        elif action < 80:
            one = crafted(story)
            amount = 1 + story.byte() % 12
            whole = bytearray(one * amount)
            if action & 1:  # count the index up, as fragments of one burst do
                for place in range(amount):
                    whole[place * len(one) + 28] = place
            witness.receive_piece(bytes(whole), len(one), now_s)
        else:
            witness.receive(crafted(story), now_s)
