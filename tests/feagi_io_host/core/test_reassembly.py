# SPDX-License-Identifier: Apache-2.0
"""Reassembly case by case: what is delivered, and under which name everything else is counted."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from feagi_io_host.core.datagram import Check, Seal
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.fragment import Fragmenter, FragmentSettings
from feagi_io_host.core.reassembly import (
    MAX_AHEAD,
    Reassembler,
    ReassemblySettings,
    ReceivedBurst,
)
from tests.feagi_io_host.core.datagrams import VIZ, datagram, whole

FRAME = np.random.default_rng(1).integers(0, 256, 1000, np.uint8).tobytes()
SMALL = FragmentSettings(datagram_bytes=96)
KEY = bytes(range(32))


class Ends:
    """A sender and a receiver, datagram by datagram."""

    def __init__(self, group: int = 0, first: int = 0, **settings: float) -> None:
        self.fragmenter = Fragmenter(
            7, FragmentSettings(datagram_bytes=96, group=group), first_sequence=first
        )
        self.settings = dataclasses.replace(ReassemblySettings(), **settings)  # type: ignore[arg-type]
        self.reassembler = Reassembler(self.settings)

    def next(self, frame: bytes = FRAME) -> list[bytes]:
        return whole(self.fragmenter.fragment(VIZ, frame))

    def take(self, datagrams: list[bytes], now_s: float = 0.0) -> list[ReceivedBurst]:
        return [burst for one in datagrams for burst in self.reassembler.receive(one, now_s)]

    def counted(self) -> dict[str, int]:
        counters = self.reassembler.counters()
        return {name: value for name, value in counters.items() if value}


def sequences(bursts: list[ReceivedBurst]) -> list[int]:
    return [burst.sequence for burst in bursts]


def test_a_burst_comes_whole_and_read_only() -> None:
    ends = Ends()
    (burst,) = ends.take(ends.next(), 5.0)
    assert burst.data == FRAME
    assert burst.data.readonly
    assert (burst.stream, burst.epoch, burst.sequence, burst.first_s) == (VIZ, 7, 0, 5.0)
    assert ends.counted() == {"datagrams": 16, "delivered": 1, "epochs": 1}
    assert ends.reassembler.next_deadline_s is None


def test_any_order_and_doubles() -> None:
    ends = Ends()
    datagrams = ends.next()
    (burst,) = ends.take(datagrams[::-1][:10] * 2 + datagrams[::-1][10:])
    assert burst.data == FRAME
    assert ends.take(datagrams[3:5]) == []
    assert ends.counted() == {
        "datagrams": 28,
        "duplicate": 12,
        "reordered": 15,
        "delivered": 1,
        "epochs": 1,
    }


def test_gap_is_lost_and_half_is_incomplete() -> None:
    ends = Ends(timeout_s=0.5)
    assert len(ends.take(ends.next(), 0.0)) == 1
    ends.next()
    half = ends.next()[:-1]
    ends.next()
    assert ends.take(half, 1.0) == []
    assert ends.reassembler.next_deadline_s == 1.5
    ends.reassembler.expire(1.4)
    assert "incomplete" not in ends.counted()
    ends.reassembler.expire(1.5)
    assert ends.take(half[:2], 1.5) == []
    assert sequences(ends.take(ends.next(), 2.0)) == [4]
    counted = ends.counted()
    assert counted["incomplete"] == 1
    assert counted["fragments_missing"] == 1
    assert counted["lost"] == 2
    assert counted["late"] == 2


def test_each_burst_given_up_is_counted_once() -> None:
    ends = Ends(timeout_s=0.1)
    ends.take(ends.next())
    ends.take(ends.next()[:-1])
    ends.reassembler.expire(1.0)
    for _ in range(3):
        ends.next()
        assert len(ends.take(ends.next(), 1.0)) == 1
    assert ends.counted()["incomplete"] == 1
    assert ends.counted()["lost"] == 3


def test_long_drought_is_counted_right() -> None:
    ends = Ends()
    ends.take(ends.next())
    droughts = 1500  # more than are remembered one by one
    for number in range(droughts):
        ends.take(ends.next()[:1], float(number))
    ends.next()
    assert len(ends.take(ends.next(), float(droughts))) == 1
    assert ends.counted()["incomplete"] == droughts
    assert ends.counted()["lost"] == 1


def test_newest_wins() -> None:
    ends = Ends()
    old, new = ends.next(), ends.next()
    assert sequences(ends.take(old[:-1] + new + old[-1:])) == [1]
    assert ends.counted()["superseded"] == 1
    assert ends.counted()["late"] == 1
    assert "lost" not in ends.counted()


def test_oldest_makes_way_when_too_many_are_open() -> None:
    ends = Ends(max_open=2)
    bursts = [ends.next() for _ in range(4)]
    for burst in bursts[1:]:
        assert ends.take(burst[:-1]) == []
    assert ends.counted()["evicted"] == 1
    # The oldest of all would push out newer ones: not begun at all.
    assert ends.take(bursts[0][:1]) == []
    assert ends.counted()["late"] == 1
    assert sequences(ends.take([bursts[2][-1], bursts[3][-1]])) == [2, 3]


def test_memory_stays_below_its_limit() -> None:
    limit = 3000
    ends = Ends(max_memory_bytes=limit, max_frame_bytes=2000, max_open=50)
    for _ in range(20):
        ends.take(ends.next()[:-1])
        assert ends.reassembler.memory_bytes <= limit
    assert ends.counted()["evicted"] == 18
    assert sequences(ends.take(ends.next())) == [20]
    big = Fragmenter(7, SMALL, first_sequence=21).fragment(VIZ, bytes(2001))
    assert ends.take(whole(big)) == []
    assert ends.counted()["refused_memory"] == 32


def test_declared_size_takes_no_memory_beyond_the_limit() -> None:
    ends = Ends(max_memory_bytes=4 << 20, max_frame_bytes=4 << 20)
    total = 64 * 0xFFFF
    bomb = datagram(bytes(64), total=total, count=0xFFFF)
    assert ends.take([bomb]) == []
    assert ends.counted()["refused_memory"] == 1  # with its bookkeeping it does not fit
    assert ends.reassembler.memory_bytes == 0


def test_memory_is_used_again_once_nobody_looks() -> None:
    ends = Ends()
    kept = ends.take(ends.next())[0].data
    address = np.frombuffer(kept, np.uint8).ctypes.data
    (second,) = ends.take(ends.next(FRAME[::-1]))
    assert np.frombuffer(second.data, np.uint8).ctypes.data != address
    assert kept == FRAME
    del kept
    (third,) = ends.take(ends.next())
    assert np.frombuffer(third.data, np.uint8).ctypes.data == address
    assert second.data == FRAME[::-1]


def test_later_epoch_starts_anew() -> None:
    ends = Ends()
    ends.take(ends.next())
    ends.take(ends.next()[:3])
    again = Fragmenter(8, SMALL)
    (burst,) = ends.take(whole(again.fragment(VIZ, FRAME)))
    assert (burst.epoch, burst.sequence) == (8, 0)
    assert ends.counted()["restarted"] == 1
    assert ends.counted()["epochs"] == 2
    assert ends.take(ends.next()) == []  # of the run before, still under way
    assert ends.counted()["stale_epoch"] == 16
    assert ends.reassembler.epoch == 8


def test_epoch_wraps() -> None:
    reassembler = Reassembler()
    for epoch in (0xFFFF_FFFF, 0):
        assert len(reassembler.receive(datagram(b"x", epoch=epoch), 0.0)) == 1
    assert reassembler.receive(datagram(b"x", epoch=0xFFFF_FFFF, sequence=1), 0.0) == []


def test_earlier_epoch_is_taken_after_silence_but_never_with_a_tag() -> None:
    for check, key, deliveries in ((Check.CRC, None, 1), (Check.TAG, KEY, 0)):
        seal = Seal(check, key)
        reassembler = Reassembler(seal=seal)
        (late,) = whole(Fragmenter(8, seal=seal).fragment(VIZ, b"x"))
        (early,) = whole(Fragmenter(7, seal=seal).fragment(VIZ, b"x"))
        assert len(reassembler.receive(late, 0.0)) == 1
        assert reassembler.receive(early, 1.9) == []
        assert len(reassembler.receive(early, 2.0)) == deliveries


def test_receiver_that_starts_later_joins_in() -> None:
    ends = Ends(first=1000)
    ends.next()
    assert sequences(ends.take(ends.next())) == [1001]
    assert "lost" not in ends.counted()


def test_sequence_wraps() -> None:
    ends = Ends(first=0xFFFF_FFFE)
    bursts = [ends.next() for _ in range(4)]
    assert sequences(ends.take(bursts[0])) == [0xFFFF_FFFE]
    assert sequences(ends.take(bursts[2] + bursts[1] + bursts[3])) == [0, 1]
    assert ends.counted()["lost"] == 1
    assert ends.counted()["late"] == 16


def test_leap_is_damage_unless_there_was_silence_or_a_tag() -> None:
    for check, key in ((Check.CRC, None), (Check.TAG, KEY)):
        seal = Seal(check, key)
        reassembler = Reassembler(seal=seal)

        def one(sequence: int, seal: Seal = seal) -> bytes:
            (only,) = whole(Fragmenter(7, seal=seal, first_sequence=sequence).fragment(VIZ, b"x"))
            return only

        assert len(reassembler.receive(one(0), 0.0)) == 1
        far = MAX_AHEAD + 1
        if check is Check.CRC:
            assert reassembler.receive(one(far), 1.0) == []
            assert reassembler.counters()["far_ahead"] == 1
        assert len(reassembler.receive(one(far), 2.0)) == 1
        assert reassembler.counters()["lost"] == MAX_AHEAD
        # Backwards is never taken: a recording played back would come that way.
        assert reassembler.receive(one(0), 100.0) == []


def test_parity_replaces_what_is_missing() -> None:
    ends = Ends(group=4)
    datagrams = ends.next()  # 16 data fragments in 4 groups, then 4 of parity
    assert len(datagrams) == 20
    missing = {0, 5, 10, 15}  # one of each group, the short last one included
    (burst,) = ends.take([one for at, one in enumerate(datagrams) if at not in missing])
    assert burst.data == FRAME
    assert burst.repaired == 4
    assert ends.counted()["repaired"] == 1
    assert ends.take(datagrams[:1] + datagrams[19:]) == []
    assert ends.counted()["duplicate"] == 1
    assert ends.counted()["spare_parity"] == 1


def test_parity_cannot_replace_two_of_a_group() -> None:
    ends = Ends(group=4)
    datagrams = ends.next()
    assert ends.take([one for at, one in enumerate(datagrams) if at not in (1, 5)]) == []
    ends.reassembler.expire(1.0)
    assert ends.counted()["incomplete"] == 1
    assert ends.counted()["fragments_missing"] == 2


def test_second_story_about_a_burst_is_not_believed() -> None:
    ends = Ends()
    ends.take([datagram(bytes(64), count=2, total=100)])
    assert ends.take([datagram(bytes(64), count=3, total=130)]) == []
    assert ends.counted()["contradicting"] == 1


def test_damage_is_told_from_forgery() -> None:
    ends = Ends()
    wrong = bytearray(ends.next()[0])
    wrong[-1] ^= 1
    assert ends.take([bytes(wrong)]) == []
    assert ends.counted() == {"datagrams": 1, "corrupt": 1}
    tagged = Reassembler(seal=Seal(Check.TAG, KEY))
    forged = whole(Fragmenter(7, seal=Seal(Check.TAG, bytes(32))).fragment(VIZ, b"x"))
    assert tagged.receive(forged[0], 0.0) == []
    assert tagged.receive(datagram(b"x"), 0.0) == []  # without a tag
    assert tagged.counters()["unauthenticated"] == 2
    assert tagged.epoch is None


def blocks_of(pieces: list[bytes]) -> tuple[np.ndarray, list[int]]:
    rows = np.zeros((len(pieces), max(map(len, pieces)) + 100), np.uint8)
    for row, piece in zip(rows, pieces, strict=True):
        row[: len(piece)] = np.frombuffer(piece, np.uint8)
    return rows, [len(piece) for piece in pieces]


@pytest.mark.parametrize("each", [1, 3, 5, 16, 40])
@pytest.mark.parametrize("check", list(Check))
def test_pieces_as_the_kernel_gives_them(each: int, check: Check) -> None:
    seal = Seal(check, KEY if check is Check.TAG else None)
    fragmenter = Fragmenter(7, SMALL, seal=seal)
    reassembler = Reassembler(seal=seal)
    frame = FRAME * 7
    for sequence in range(3):
        datagrams = whole(fragmenter.fragment(VIZ, frame))
        pieces = [b"".join(datagrams[at : at + each]) for at in range(0, len(datagrams), each)]
        (burst,) = reassembler.receive_blocks(*blocks_of(pieces), [96] * len(pieces), 0.0)
        assert burst.sequence == sequence
        assert burst.data == frame
    counters = reassembler.counters()
    assert counters["datagrams"] == 3 * len(datagrams)
    assert sum(counters.values()) == 3 * len(datagrams) + 3 + 1


def test_piece_with_something_wrong_is_taken_apart() -> None:
    ends = Ends()
    first, second = ends.next(), ends.next(FRAME[::-1])
    damaged = bytearray(second[7])
    damaged[50] ^= 4
    mixed = [*first[:9], *second[:7], bytes(damaged), *second[8:12], first[9], first[9]]
    rest = [second[7], *second[12:15], b"?" * 96]
    rows, lengths = blocks_of([b"".join(mixed), b"".join(rest), second[15]])
    bursts = ends.reassembler.receive_blocks(rows, lengths, [96, 96, 96], 0.0)
    assert sequences(bursts) == [1]
    assert bursts[0].data == FRAME[::-1]
    counted = ends.counted()
    assert (counted["corrupt"], counted["malformed"], counted["duplicate"]) == (1, 1, 1)
    assert counted["superseded"] == 1


def test_pieces_of_parity_and_in_disorder() -> None:
    ends = Ends(group=4)
    datagrams = ends.next()  # 16 and 4
    pieces = [b"".join(part) for part in (datagrams[8:12], datagrams[4:8], datagrams[12:15])]
    rows, lengths = blocks_of([*pieces, datagrams[15], b"".join(datagrams[16:])])
    (burst,) = ends.reassembler.receive_blocks(rows, lengths, [96, 96, 96, 72, 96], 0.0)
    assert burst.data == FRAME
    assert burst.repaired == 4
    assert ends.counted()["reordered"] == 4


def test_senseless_segments_are_only_malformed() -> None:
    ends = Ends()
    rows, lengths = blocks_of([b"?" * 200, b"?" * 10, b"?" * 96, b"?" * 33])
    assert ends.reassembler.receive_blocks(rows, lengths, [0, -5, 1, 33], 0.0) == []
    counted = ends.counted()
    assert counted["malformed"] == counted["datagrams"] == 1 + 1 + 96 + 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_frame_bytes": 0},
        {"max_memory_bytes": 1000},
        {"max_open": 0},
        {"timeout_s": 0.0},
        {"resync_s": 0.05},
        {"resync_s": float("inf")},
    ],
)
def test_settings_that_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong)))):
        dataclasses.replace(ReassemblySettings(), **wrong)  # type: ignore[arg-type]
