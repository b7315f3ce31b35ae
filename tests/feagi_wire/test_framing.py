# SPDX-License-Identifier: Apache-2.0
"""Frames under any payload, any chunking and any damage; and against the `cobs` package."""

from __future__ import annotations

import binascii
from collections.abc import Callable
from itertools import pairwise
from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

from feagi_wire import E_CAPACITY, E_CRC, END, Framer, frame_bytes

# Weighted towards what COBS finds hard: zeros, and runs longer than a block.
PAYLOADS = st.one_of(
    st.binary(min_size=1, max_size=80),
    st.lists(st.sampled_from([0, 1, 255]), min_size=1, max_size=40).map(bytes),
    st.integers(245, 520).flatmap(lambda n: st.binary(min_size=n, max_size=n)),
    st.tuples(st.integers(240, 520), st.integers(1, 255)).map(lambda t: bytes([t[1]]) * t[0]),
)


def frame(payload: bytes) -> bytes:
    framer = Framer(bytearray(frame_bytes(len(payload))), bytearray(8))
    size = framer.encode(payload, 0, len(payload))
    assert size > 0
    return bytes(framer.tx[:size])


def received(framer: Framer, *chunks: bytes) -> list[bytes]:
    found = []
    for chunk in chunks:
        at = 0
        while (rc := framer.feed(chunk, len(chunk), at)) != END:
            assert framer.index > at
            at = framer.index
            if rc > 0:
                found.append(bytes(framer.rx[framer.rx_start : framer.rx_start + rc]))
            else:
                assert rc in (E_CRC, E_CAPACITY)
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(PAYLOADS, min_size=1, max_size=4), st.lists(st.integers(0, 5000), max_size=12))
def test_any_payload_in_any_chunks(payloads: list[bytes], places: list[int]) -> None:
    line = b"".join(map(frame, payloads))
    framer = Framer(bytearray(8), bytearray(600), 5)
    assert received(framer, *cut(line, places)) == payloads
    assert (framer.frames, framer.crc_errors, framer.resyncs, framer.oversize) == (
        len(payloads), 0, 0, 0,
    )  # fmt: skip


@given(PAYLOADS, st.integers(0, 520))
def test_pieces_make_the_same_frame(payload: bytes, place: int) -> None:
    middle = place % (len(payload) + 1)
    framer = Framer(bytearray(frame_bytes(len(payload))), bytearray(8))
    framer.begin()
    assert framer.add(payload, 0, middle) == middle
    assert framer.add(payload, middle, len(payload) - middle) == len(payload) - middle
    assert bytes(framer.tx[: framer.finish()]) == frame(payload)


@given(PAYLOADS)
def test_zeros_stand_only_around_a_frame(payload: bytes) -> None:
    whole = frame(payload)
    assert whole[0] == whole[-1] == 0
    assert 0 not in whole[1:-1]
    assert len(whole) <= frame_bytes(len(payload))


@given(PAYLOADS)
def test_same_bytes_as_the_cobs_package(
    require: Callable[[str], ModuleType | str], payload: bytes
) -> None:
    cobs = require("cobs.cobs")
    assert isinstance(cobs, ModuleType)
    checked = payload + binascii.crc32(payload).to_bytes(4, "little")
    assert frame(payload) == b"\0" + cobs.encode(checked) + b"\0"


@given(st.lists(PAYLOADS, min_size=1, max_size=3), st.binary(max_size=40), st.data())
def test_one_spoilt_place_costs_at_most_one_frame(
    payloads: list[bytes], extra: bytes, data: st.DataObject
) -> None:
    line = b"".join(map(frame, payloads))
    at = data.draw(st.integers(0, len(line) - 1))
    change: Callable[[], bytes] = data.draw(
        st.sampled_from(
            [
                lambda: line[:at] + line[at + 1 :],
                lambda: line[:at] + bytes([line[at] ^ (1 + at % 255)]) + line[at + 1 :],
                lambda: line[:at] + extra + line[at:],
            ]
        )
    )
    found = received(Framer(bytearray(8), bytearray(600)), change())
    left = list(payloads)
    for payload in found:
        assert payload in left
        left.remove(payload)
    assert len(left) <= 1


@given(st.lists(PAYLOADS, min_size=1, max_size=3), st.lists(st.binary(max_size=60), min_size=4))
def test_noise_between_frames_costs_no_frame(payloads: list[bytes], noise: list[bytes]) -> None:
    line = noise[0]
    for payload, after in zip(payloads, noise[1:], strict=False):
        line += frame(payload) + after
    found = received(Framer(bytearray(8), bytearray(600)), line)
    assert [payload for payload in found if payload in payloads] == payloads


@given(st.binary(max_size=400), st.integers(0, 60), st.lists(st.integers(0, 400), max_size=6))
def test_arbitrary_bytes_stay_inside_the_buffer(line: bytes, room: int, places: list[int]) -> None:
    rx = bytearray(b"\xaa" * (3 + room))
    framer = Framer(bytearray(8), rx, 3)
    for payload in received(framer, *cut(line, places)):
        assert len(payload) <= room - 4
    assert rx[:3] == b"\xaa\xaa\xaa"
    # whatever came before, the next frame is read
    if room >= 6:
        assert received(framer, frame(b"ok"))[-1:] == [b"ok"]
