# SPDX-License-Identifier: Apache-2.0
"""UDP benchmark: one burst of 200,000 neurons in datagrams of 1400 bytes, over loopback.

Limit and peer run in the same process: a bare loop on UDP_SEGMENT and UDP_GRO that puts the same
bytes into one buffer without a header, a check or anything to be put in order; and a loop of
sendto and recv_into, one datagram a call, which is what a program without the two gets. They take
turns burst by burst: in use bursts are 10 ms apart, and none finds its caches warm.
"""

from __future__ import annotations

import select
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from feagi_io_host.bench import udp_soak
from feagi_io_host.bench.runner import Row
from feagi_io_host.core.datagram import (
    DEFAULT_DATAGRAM_BYTES,
    KEY_BYTES,
    Check,
    Seal,
)
from feagi_io_host.core.fragment import Fragmenter, FragmentSettings
from feagi_io_host.core.reassembly import Reassembler
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.udp.ladder import BurstReceiver, BurstSender, Pacer, Rung, probe
from feagi_io_host.transports.udp.sockets import size_buffer
from feagi_io_host.transports.udp.vectors import (
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    segments_per_message,
)

BURST_BYTES: Final = 52 + 200_000 * 16
BUFFER_BYTES: Final = 8 << 20  # a whole burst lies in it while nobody reads
BARE: Final = "UDP_SEGMENT + UDP_GRO, bare"
ONE_BY_ONE: Final = "sendto + recv_into"
_WAIT_S: Final = 1.0
_ROUNDS: Final = 60
_QUICK_ROUNDS: Final = 10
_GROWTH: Final = (1_000, 10_000, 100_000, 200_000, 1_000_000)
_PAGE_BYTES: Final = 4096
_WINDOW_BYTES: Final = 4 << 20  # under way at most: what the receive buffer holds


class LostError(Exception):
    """The kernel dropped part of a burst: its buffer is too small for this benchmark."""


@contextmanager
def _sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """One connected for sending, one for receiving, with room for a burst."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiving,
    ):
        receiving.bind(("127.0.0.1", 0))
        size_buffer(receiving, "receive", BUFFER_BYTES)
        size_buffer(sending, "send", BUFFER_BYTES)
        sending.connect(receiving.getsockname())
        yield sending, receiving


def _ours(
    sockets: tuple[socket.socket, socket.socket],
    frame: memoryview,
    rungs: tuple[Rung, Rung],
    check: Check = Check.NONE,
    group: int = 0,
) -> Callable[[], object]:
    sending, receiving = sockets
    sending.setblocking(False)
    receiving.setblocking(False)
    seal = Seal(check, bytes(KEY_BYTES) if check is Check.TAG else None)
    fragmenter = Fragmenter(1, FragmentSettings(group=group), seal=seal)
    reassembler = Reassembler(seal=seal)
    # One window per turn, whatever the clock says: both ends are in this thread.
    sender = BurstSender(sending, rungs[0], Pacer(_WINDOW_BYTES, _WINDOW_BYTES))
    receiver = BurstReceiver(receiving, rungs[1], DEFAULT_DATAGRAM_BYTES)
    turn_s = 0.0

    def send() -> None:
        nonlocal turn_s
        turn_s += 1.0
        while sender.step(turn_s) == 0.0:
            select.select([], [sending], [], _WAIT_S)

    def burst() -> None:
        made = fragmenter.fragment(StreamType.VISUALIZATION, frame)
        assert made is not None
        sender.begin(made)
        send()
        while True:
            if not receiver.receive() and not sender.idle:
                send()
                continue
            if not receiver.lengths and not select.select([receiving], [], [], _WAIT_S)[0]:
                raise LostError(f"burst not whole: {reassembler.counters()}")
            whole = reassembler.receive_blocks(
                receiver.blocks, receiver.lengths, receiver.segments, 0.0
            )
            if whole:
                assert len(whole[0].data) == len(frame)
                return

    return burst


def _target(size: int) -> memoryview:
    """Memory for a loop to receive into, at the start of a page. New arrays begin 16 bytes into
    one, and there some processors (AMD's Zen 3) need four times as long for the kernel's copy,
    which would flatter ours."""
    memory = np.zeros(size + _PAGE_BYTES, np.uint8)
    start = -memory.ctypes.data % _PAGE_BYTES
    return memory[start : start + size].data


def _bare(sockets: tuple[socket.socket, socket.socket], frame: memoryview) -> Callable[[], object]:
    sending, receiving = sockets
    receiving.setsockopt(SOL_UDP, UDP_GRO, 1)
    receiving.settimeout(_WAIT_S)
    size = DEFAULT_DATAGRAM_BYTES
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("H", size))]
    chunk = size * segments_per_message(size)
    target = _target(len(frame) + (1 << 16))

    window = _WINDOW_BYTES // chunk * chunk

    def burst() -> None:
        came = 0
        for start in range(0, len(frame), window):
            past = min(start + window, len(frame))
            for at in range(start, past, chunk):
                sending.sendmsg([frame[at : min(at + chunk, past)]], control)
            while came < past:
                came += receiving.recvmsg_into([target[came : came + (1 << 16)]], 64)[0]

    return burst


def _one_by_one(
    sockets: tuple[socket.socket, socket.socket], frame: memoryview
) -> Callable[[], object]:
    sending, receiving = sockets
    receiving.settimeout(_WAIT_S)
    address = receiving.getsockname()
    size = DEFAULT_DATAGRAM_BYTES
    target = _target(len(frame) + size)

    def burst() -> None:
        for at in range(0, len(frame), size):
            sending.sendto(frame[at : at + size], address)
        at = 0
        while at < len(frame):
            at += receiving.recv_into(target[at : at + size])

    return burst


@dataclass(frozen=True, slots=True)
class _Match:
    """`ours` against `reference`, by their names among the contestants."""

    ours: str
    reference: str
    limit: str = "-"
    max_ratio: float | None = None


def _alternate(
    contestants: dict[str, Callable[[], object]], matches: Sequence[_Match], quick: bool
) -> list[Row]:
    """One burst of each in turn, there and back, for several rounds; a ratio in each round."""
    for contestant in contestants.values():
        contestant()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants.items())
    for _ in range(_QUICK_ROUNDS if quick else _ROUNDS):
        took = dict.fromkeys(contestants, 0.0)
        for name, contestant in (*order, *reversed(order)):
            start = time.perf_counter()
            contestant()
            took[name] += (time.perf_counter() - start) / 2
        for name, seconds in took.items():
            times[name].append(seconds)
    rows = []
    for match in matches:
        ours, theirs = times[match.ours], times[match.reference]
        ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
        rows.append(
            Row(
                match.ours,
                statistics.median(ours),
                match.reference,
                statistics.median(theirs),
                ratio,
                match.limit,
                None if match.max_ratio is None else ratio <= match.max_ratio,
            )
        )
    return rows


def _frame_of(size: int) -> memoryview:
    return np.random.default_rng(1).integers(0, 256, size, np.uint8).data.toreadonly()


def _growth(rungs: tuple[Rung, Rung], quick: bool) -> list[Row]:
    """How it grows with the size of a burst."""
    rows = []
    for neurons in _GROWTH:
        frame = _frame_of(52 + 16 * neurons)
        name = f"UDP burst, {neurons // 1000}K neurons, {len(frame) / 1e6:.3g} MB"
        with _sockets() as mine, _sockets() as theirs:
            contestants = {name: _ours(mine, frame, rungs), BARE: _bare(theirs, frame)}
            rows += _alternate(contestants, [_Match(name, BARE)], quick)
    return rows


def run(quick: bool = False, soak: bool = False) -> list[Row]:
    """All rows of the UDP benchmark; `quick` takes fewer rounds, `soak` adds the 30 seconds of 100
    bursts a second from a PNS to an agent."""
    frame = _frame_of(BURST_BYTES)
    able = probe()
    rungs = (able.send, able.receive)
    name = f"UDP burst {BURST_BYTES / 1e6:.1f} MB, {DEFAULT_DATAGRAM_BYTES} B, by {able.send.value}"
    with ExitStack() as stack:

        def sockets() -> tuple[socket.socket, socket.socket]:
            return stack.enter_context(_sockets())

        def ours(check: Check = Check.NONE, group: int = 0) -> Callable[[], object]:
            return _ours(sockets(), frame, rungs, check, group)

        plain = ours()
        rows = _alternate(
            {name: plain, ONE_BY_ONE: _one_by_one(sockets(), frame)},
            [_Match(name, ONE_BY_ONE, "<= 0.1x (10x faster)", 0.1)],
            quick,
        )
        if rungs == (Rung.SEGMENTS, Rung.SEGMENTS):
            rows += _alternate(
                {name: plain, BARE: _bare(sockets(), frame)},
                [_Match(name, BARE, "<= 1.3x", 1.3)],
                quick,
            )
        others = {
            "same, CRC-32": ours(Check.CRC),
            "same, authentication tag": ours(Check.TAG),
            "same, parity of 8": ours(group=8),
        }
        for rung in (Rung.MANY, Rung.PLAIN):
            if rung is not able.send:
                others[f"same, by {rung.value}"] = _ours(sockets(), frame, (rung, rung))
        matches = [_Match(other, name) for other in others]
        rows += _alternate({name: plain, **others}, matches, quick)
    if rungs == (Rung.SEGMENTS, Rung.SEGMENTS):
        rows += _growth(rungs, quick)
    if soak:
        rows.append(udp_soak.soak())
    return rows
