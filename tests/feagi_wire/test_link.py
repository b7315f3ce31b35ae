# SPDX-License-Identifier: Apache-2.0
"""The link under any order of faults, restarts and outages; `line.py` holds what it promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feagi_wire import STREAM_CONTROL, Framer, StaticFBC
from feagi_wire.board_link import BoardLink
from feagi_wire.const import BYE_STOPPED, CONNECTED, EV_FAILSAFE, EV_MOTOR
from feagi_wire.framing import frame_bytes
from feagi_wire.host_link import STATE_NAMES, HostLink
from feagi_wire.link import TABLE
from tests.portable.line import DECLARATION, SIZE, Line

Fault = Callable[[bytes], bytes]

# What happens to one written piece, told by two numbers: how, and where.
HITS = st.tuples(st.integers(0, 9), st.integers(0, 999))
# A stretch of the run: a sort, its length in ms, and the hits that its pieces take in turn.
STRETCHES = st.lists(
    st.one_of(
        st.tuples(st.just("bad"), st.integers(1, 500), st.lists(HITS, min_size=1, max_size=12)),
        st.tuples(st.just("cut"), st.integers(1, 5000), st.just([])),
        st.tuples(st.just("good"), st.integers(1, 300), st.just([])),
        st.tuples(st.just("host"), st.integers(0, 300), st.just([])),
        st.tuples(st.just("board"), st.integers(0, 300), st.just([])),
        st.tuples(st.just("bye"), st.integers(0, 50), st.just([])),
    ),
    max_size=8,
)


def hitting(hits: list[tuple[int, int]]) -> Fault:
    """A fault that goes through `hits` again and again."""
    turn = 0
    late = b""

    def fault(piece: bytes) -> bytes:
        nonlocal turn, late
        how, where = hits[turn % len(hits)]
        turn += 1
        piece, late = late + piece, b""
        at = where % len(piece)
        if how == 0:
            return b""
        if how == 1:
            return piece + piece
        if how == 2:
            return piece[:at] + bytes([piece[at] ^ (1 + where % 255)]) + piece[at + 1 :]
        if how == 3:
            return piece[:at]
        if how == 4:
            return piece[:at] + bytes([where & 255]) * (1 + where % 5) + piece[at:]
        if how == 5:
            late = piece
            return b""
        if how == 6:
            return piece[at:] + piece
        return piece

    return fault


@settings(max_examples=60)
@given(STRETCHES, st.integers(1, 20), st.booleans(), st.integers(1, 6000))
def test_promises_hold_whatever_happens(
    stretches: list[tuple[str, int, list[tuple[int, int]]]],
    data_ms: int,
    control: bool,
    wrap_in_ms: int,
) -> None:
    line = Line(wrap_in_ms)
    line.data_ms = data_ms
    line.control_ms = 40 if control else 0
    for kind, ms, hits in stretches:
        if kind == "bad":
            line.run(ms, hitting(hits))
        elif kind == "cut":
            line.run(ms, lambda piece: b"")
        else:
            if kind == "host":
                line.host.restart(ms & 255)
            elif kind == "board":
                line.board.restart(0)
            elif kind == "bye":
                line.board.link.bye(BYE_STOPPED)
            line.run(ms)
    line.recover(3000)
    counts = len(line.host.delivered), len(line.board.delivered)
    line.run(100 + data_ms)
    assert line.both_connected()
    assert len(line.host.delivered) > counts[0]
    assert len(line.board.delivered) > counts[1]
    for sender, receiver in ((line.host, line.board), (line.board, line.host)):
        requests = {number for stream, _, number in receiver.delivered if stream == STREAM_CONTROL}
        assert requests.issuperset(sender.acked)


@pytest.mark.parametrize("wrap_in_ms", [1, 250, 299, 300, 301, 799, 801, 1500])
def test_fail_safe_comes_once_and_in_time_across_the_wrap(wrap_in_ms: int) -> None:
    line = Line(wrap_in_ms)
    line.recover()
    line.run(200)
    board = line.board
    last_ms = board.last_motor_ms
    board.events.clear()
    seen = []
    for _ in range(2000):
        line.step(lambda piece: b"")
        seen += [line.ms for ev in board.events if ev & EV_FAILSAFE]
        board.events.clear()
    assert seen == [last_ms + board.link.motor_timeout_ms + 1]
    assert board.link.failsafe
    line.recover()
    line.run(50)
    assert sum(bool(ev & EV_MOTOR) for ev in board.events) == 1


@pytest.mark.parametrize("at", range(120))
def test_cut_at_any_byte_of_the_meeting(at: int) -> None:
    """The line breaks after so many bytes and is mended a second later."""
    line = Line()
    left = at

    def cut(piece: bytes) -> bytes:
        nonlocal left
        taken, left = piece[:left], max(0, left - len(piece))
        return taken

    line.run(1000, cut)
    assert line.recover() <= 3000


def test_a_host_that_was_there_first_and_a_board_that_was() -> None:
    for first in ("host", "board"):
        line = Line()
        line.run(7000, lambda piece: b"")
        getattr(line, first).restart(3)
        assert line.recover() <= 300  # the host asks every 250 ms


def test_table_leads_only_to_states_that_exist() -> None:
    assert len(TABLE) == 4
    for row in TABLE:
        assert len(row) == len(STATE_NAMES)
        assert max(row) < len(STATE_NAMES)


@given(st.lists(st.binary(min_size=1, max_size=120), max_size=6), st.booleans(), st.booleans())
def test_any_frames_are_no_danger(payloads: list[bytes], host: bool, up: bool) -> None:
    """Well-formed frames with any content, to either end, in a session or before one."""
    line = Line()
    if up:
        line.recover()
    end = line.host if host else line.board
    link = end.link
    for payload in payloads:
        framer = Framer(bytearray(frame_bytes(len(payload))), bytearray(8))
        size = framer.encode(payload, 0, len(payload))
        link.receive(framer.tx, 0, size, end.ticks(line.ms))
        link.tick(end.ticks(line.ms))
        link.discard()
        # and headers that get further
        shaped = bytearray(payload.ljust(4, b"\0"))
        shaped[0] = 1 + shaped[0] % 8
        shaped[1] = shaped[1] & 0xF7 | (0 if host else 8)
        shaped[2] = link.epoch
        size = framer_of(shaped, line, host)
        assert size >= 0


def framer_of(payload: bytearray, line: Line, host: bool) -> int:
    end = line.host if host else line.board
    framer = Framer(bytearray(frame_bytes(len(payload))), bytearray(8))
    size = framer.encode(payload, 0, len(payload))
    ev = end.link.receive(framer.tx, 0, size, end.ticks(line.ms))
    end.link.tick(end.ticks(line.ms))
    end.link.discard()
    return ev


def test_counters_of_both_ends_meet() -> None:
    line = Line()
    line.data_ms = 5
    line.recover()
    line.run(995)
    line.data_ms = 0
    line.run(700)  # beats carry the counters over
    for near, far in ((line.host.link, line.board.link), (line.board.link, line.host.link)):
        assert near.sent == far.received > 100
        assert list(near.peer_counters) == [far.sent, far.received, 0, 0, 0]
        assert near.state == CONNECTED


def test_both_classes_of_limits() -> None:
    link = BoardLink(bytearray(frame_bytes(SIZE)), StaticFBC(bytearray(SIZE)), DECLARATION)
    assert link.max_container() == SIZE - 4
    large = HostLink(bytearray(100), StaticFBC(bytearray(65535)))
    assert large.max_container() == 65531
    with pytest.raises(ValueError, match="65536"):
        HostLink(bytearray(100), StaticFBC(bytearray(65536)))
