# SPDX-License-Identifier: Apache-2.0
"""Properties of reassembly: over any story, and over networks that are 1 to 30 % bad."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from feagi_io_host.core.datagram import Check, Seal
from feagi_io_host.core.fragment import Fragmenter, FragmentSettings
from feagi_io_host.core.reassembly import Reassembler, ReassemblySettings
from tests.feagi_io_host.core.datagrams import VIZ, BadNetwork, whole
from tests.feagi_io_host.core.story import tell

BURSTS = 40
KEY = bytes(32)


@settings(max_examples=400)
@given(st.binary(max_size=400))
def test_any_story_ends_well(data: bytes) -> None:
    tell(data)


def frame(sequence: int) -> bytes:
    size = 300 + 37 * (sequence % 50)
    return np.random.default_rng(sequence).integers(0, 256, size, np.uint8).tobytes()


def journey(network: BadNetwork, check: Check, group: int) -> tuple[list[int], dict[str, int]]:
    """Send bursts through a bad network; what was delivered, each byte of it compared."""
    seal = Seal(check, KEY if check is Check.TAG else None)
    fragmenter = Fragmenter(7, FragmentSettings(datagram_bytes=96, group=group), seal=seal)
    limits = ReassemblySettings(max_memory_bytes=20_000, max_frame_bytes=4000)
    reassembler = Reassembler(limits, seal=seal)
    delivered = []
    for sequence in range(BURSTS):
        now_s = 0.01 * sequence
        for one in network.carry(whole(fragmenter.fragment(VIZ, frame(sequence)))):
            for burst in reassembler.receive(one, now_s):
                assert burst.data == frame(burst.sequence)
                delivered.append(burst.sequence)
            assert reassembler.memory_bytes <= limits.max_memory_bytes
    reassembler.expire(1000.0)
    assert delivered == sorted(set(delivered))
    counted = reassembler.counters()
    assert counted["delivered"] == len(delivered)
    if delivered:  # before the first one delivered and after the last nothing can be known missing
        between = delivered[-1] - delivered[0] + 1
        known = counted["lost"] + sum(
            counted[name] for name in ("incomplete", "superseded", "evicted", "restarted")
        )
        assert known >= between - len(delivered)
        assert known + len(delivered) <= BURSTS
    return delivered, counted


@settings(max_examples=150)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    st.sampled_from([0.0, 0.01, 0.1, 0.3]),
    st.sampled_from([Check.CRC, Check.TAG]),
    st.sampled_from([0, 2, 5]),
)
def test_bad_network_never_brings_a_wrong_byte(
    seed: int,
    loss: float,
    duplicate: float,
    reorder: float,
    corrupt: float,
    check: Check,
    group: int,
) -> None:
    journey(BadNetwork(seed, loss, duplicate, reorder, corrupt), check, group)


@pytest.mark.parametrize("bad", [0.01, 0.05, 0.3])
def test_same_seed_same_journey(bad: float) -> None:
    first, again = (journey(BadNetwork(5, bad, bad, bad, bad), Check.CRC, 0) for _ in range(2))
    assert first == again


def test_each_damaged_datagram_is_counted() -> None:
    network = BadNetwork(11, corrupt=0.1)
    _, counted = journey(network, Check.CRC, 0)
    refused = ("malformed", "unsupported", "unauthenticated", "corrupt")
    assert sum(counted[name] for name in refused) == network.damaged > 0


def test_parity_saves_bursts() -> None:
    plain, _ = journey(BadNetwork(3, loss=0.03), Check.CRC, 0)
    saved, counted = journey(BadNetwork(3, loss=0.03), Check.CRC, 4)
    assert len(plain) < 25
    assert len(saved) > 33
    assert counted["repaired"] > 8


def test_doubles_and_disorder_alone_cost_nothing() -> None:
    network = BadNetwork(9, duplicate=0.3, reorder=0.3)
    delivered, counted = journey(network, Check.NONE, 0)
    assert len(delivered) == BURSTS
    assert counted["duplicate"] == network.doubled
    assert counted["reordered"] > 50


@st.composite
def cut_journeys(draw: st.DrawFn) -> list[list[bytes]]:
    """What a bad network brings, in the pieces that a kernel makes of it: of one size, the last
    datagram of a piece perhaps shorter."""
    bad = st.sampled_from([0.0, 0.01, 0.1])
    network = BadNetwork(draw(st.integers(0, 2**32)), *(draw(bad) for _ in range(4)))
    group = draw(st.sampled_from([0, 3]))
    fragmenter = Fragmenter(7, FragmentSettings(datagram_bytes=96, group=group))
    sent = (
        one for sequence in range(12) for one in whole(fragmenter.fragment(VIZ, frame(sequence)))
    )
    pieces: list[list[bytes]] = []
    for one in network.carry(sent):
        piece = pieces[-1] if pieces else []
        fits = piece and len(piece) < 8 and len(piece[-1]) == len(piece[0]) >= len(one)
        if fits and one and draw(st.integers(0, 9)):
            piece.append(one)
        else:
            pieces.append([one])
    return pieces


@settings(max_examples=150)
@given(cut_journeys(), st.integers(1, 9))
def test_pieces_are_no_different_from_datagrams(pieces: list[list[bytes]], a_call: int) -> None:
    singly, cut = Reassembler(), Reassembler()
    one_by_one = [
        (burst.sequence, bytes(burst.data))
        for piece in pieces
        for one in piece
        for burst in singly.receive(one, 0.0)
    ]
    in_pieces = []
    for at in range(0, len(pieces), a_call):
        blocks = np.zeros((a_call, 1000), np.uint8)
        lengths, segments = [], []
        for row, piece in zip(blocks, pieces[at : at + a_call], strict=False):
            data = b"".join(piece)
            row[: len(data)] = np.frombuffer(data, np.uint8)
            lengths.append(len(data))
            segments.append(len(piece[0]))
        for burst in cut.receive_blocks(blocks, lengths, segments, 0.0):
            in_pieces.append((burst.sequence, bytes(burst.data)))
    assert in_pieces == one_by_one
    known, counted = singly.counters(), cut.counters()
    empty = sum(one == b"" for piece in pieces for one in piece)
    for name in ("datagrams", "malformed"):  # the kernel tells of empty ones by a length of 0
        known[name] -= empty
    # A run counts as out of order whole or not at all.
    del known["reordered"], counted["reordered"]
    assert counted == known
