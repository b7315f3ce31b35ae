# SPDX-License-Identifier: Apache-2.0
"""How bursts get in and out of a socket: the best of three ways that this machine has.

    SEGMENTS  the kernel cuts datagrams out of 64 KB (UDP_SEGMENT) and puts those that came back
              together (UDP_GRO), several pieces to a system call
    MANY      several datagrams to a system call (sendmmsg, recvmmsg)
    PLAIN     one datagram to a system call, on every system

`probe` tries them over loopback. Nothing here waits: who calls knows how to, in a thread or in a
loop. The two directions stand on rungs of their own.
"""

from __future__ import annotations

import enum
import errno
import functools
import logging
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from feagi_io_host.core.datagram import (
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    MIN_SHARE_BYTES,
    Check,
    Seal,
)
from feagi_io_host.core.errors import ConfigError, PortError
from feagi_io_host.core.fragment import Burst, Fragmenter, FragmentSettings, U8Array
from feagi_io_host.core.reassembly import Reassembler
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.udp.sockets import path_datagram_bytes
from feagi_io_host.transports.udp.vectors import (
    SOL_UDP,
    UDP_GRO,
    Address,
    ReceiveVector,
    SendVector,
    segments_per_message,
    why_not,
)

logger = logging.getLogger("feagi_io.udp")

# So much passes at once: a receive buffer of the default size takes it asleep, since what the
# kernel grants is twice what is asked for. What is beyond flows at about the speed at which a
# receiver that is awake takes datagrams in.
DEFAULT_DEPTH_BYTES: Final = 4 << 20
DEFAULT_BYTES_PER_S: Final = 4e9

_PIECES: Final = 26  # of 64 KB, to one call: a burst of 3.2 MB in two calls
_DATAGRAMS: Final = 64  # to one call, one by one
_MESSAGES_PER_CALL: Final = 1024  # UIO_MAXIOV
_ROOM: Final = 1 << 16
_NO_BUFFERS_PAUSE_S: Final = 1e-3
_PROBE_S: Final = 0.5


class Rung(enum.Enum):
    """One way of moving datagrams."""

    SEGMENTS = "segments"
    MANY = "many"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Probe:
    """What this machine can do in each direction, and why not more."""

    send: Rung
    receive: Rung
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        text = f"UDP: sends by {self.send.value}, receives by {self.receive.value}"
        return "; ".join((text, *self.reasons))


class Pacer:
    """Lets `depth_bytes` pass at once and then `bytes_per_s`, so that a burst does not overrun
    its receiver. Time is a parameter. Raises ConfigError for numbers that cannot work."""

    def __init__(
        self, bytes_per_s: float = DEFAULT_BYTES_PER_S, depth_bytes: int = DEFAULT_DEPTH_BYTES
    ) -> None:
        if not bytes_per_s > 0.0 or depth_bytes < _ROOM:
            raise ConfigError(
                f"pacing of {bytes_per_s} bytes/s after {depth_bytes}; above 0, at least {_ROOM}"
            )
        self._bytes_per_s = bytes_per_s
        self._depth = depth_bytes
        self._left = float(depth_bytes)
        self._at_s: float | None = None

    def allowance(self, now_s: float) -> int:
        """Bytes that may be sent now."""
        if self._at_s is not None:
            gained = max(0.0, now_s - self._at_s) * self._bytes_per_s
            self._left = min(self._left + gained, self._depth)
        self._at_s = now_s
        return int(self._left)

    def spend(self, size: int) -> None:
        """So many were sent."""
        self._left -= size

    def pause_s(self, size: int) -> float:
        """How long until so many may be sent."""
        return max(0.0, (min(size, self._depth) - self._left) / self._bytes_per_s)


class BurstSender:
    """Sends bursts through a non-blocking socket, which stays the caller's.

    `begin` a burst, then call `step` until it returns None. A burst goes to the address that comes
    with it, else to where the socket is connected.
    """

    def __init__(self, sock: socket.socket, rung: Rung, pacer: Pacer | None = None) -> None:
        self.rung = rung
        self._sock = sock
        self._pacer = pacer
        self._burst: Burst | None = None
        self._vector: SendVector | None = None
        self._spare: SendVector | None = None  # of the burst before: mostly the next is alike
        self._plain: Iterator[tuple[memoryview, memoryview]] | None = None
        self._held: tuple[memoryview, memoryview] | None = None
        self._message = 0
        self._sent_plain = 0
        self._address: Address | None = None
        self._counters = {"datagrams": 0, "calls": 0, "refused": 0, "no_buffers": 0, "cut_off": 0}

    def counters(self) -> dict[str, int]:
        """`datagrams` sent by `calls`; `refused` because nobody listened; `no_buffers`: times the
        kernel had none; `cut_off`: bursts that a newer one replaced before they were out."""
        return dict(self._counters)

    @property
    def idle(self) -> bool:
        """Whether no burst is on its way out."""
        return self._burst is None

    def begin(self, burst: Burst, address: Address | None = None) -> None:
        """Take a burst to send; one that is still on its way out is cut off and counted."""
        self._counters["cut_off"] += self._burst is not None
        self._burst = burst
        self._address = address
        self._message = self._sent_plain = 0
        self._held = None
        if self.rung is Rung.PLAIN:
            self._plain = burst.datagrams()
        else:
            vector = self._spare
            if vector is None or not vector.point_to(burst):
                vector = SendVector(burst, self._per_message(burst))
            vector.lead_to(address)
            self._vector = self._spare = vector

    def cut_off(self) -> None:
        """Give up the burst that is on its way out, if there is one; it is counted."""
        self._counters["cut_off"] += self._burst is not None
        self._drop()

    def keep_rest(self) -> None:
        """Copy the burst that is on its way out, so that the caller may have its memory back."""
        burst = self._burst
        if burst is None:
            return
        own = Burst(burst.headers, memoryview(bytes(burst.payload)), burst.share, burst.parity)
        self._burst = own
        if self._vector is not None:
            self._vector.point_to(own)
        else:
            # Those that went out are passed over; the one held back has the caller's memory, too.
            rest = own.datagrams()
            for _ in range(self._sent_plain):
                next(rest)
            self._plain, self._held = rest, None

    def step(self, now_s: float) -> float | None:
        """Send what can be sent now. None when the burst is out, 0.0 when the socket has to
        become writable first, else the seconds to wait.

        Raises PortError for a datagram that the path does not take and for what else the system
        refuses; the burst is given up then.
        """
        burst = self._burst
        if burst is None:
            return None
        try:
            pause_s = self._step_plain(burst, now_s) if self._plain else self._step(burst, now_s)
        except BlockingIOError:
            return 0.0
        except OSError as error:
            return self._after(error, burst)
        if pause_s is None:
            self._drop()
        return pause_s

    def _drop(self) -> None:
        self._burst = self._vector = self._plain = self._held = None

    def _per_message(self, burst: Burst) -> int:
        whole = HEADER_BYTES + burst.share
        return segments_per_message(whole) if self.rung is Rung.SEGMENTS else 1

    def _step(self, burst: Burst, now_s: float) -> float | None:
        vector = self._vector
        assert vector is not None
        each = int(vector.datagrams[0]) * (HEADER_BYTES + burst.share)
        while self._message < len(vector):
            amount = min(len(vector) - self._message, _MESSAGES_PER_CALL)
            if self._pacer is not None:
                amount = min(amount, self._pacer.allowance(now_s) // each)
                if amount < 1:
                    return self._pacer.pause_s(each)
            taken = vector.send(self._sock, self._message, amount)
            if self._pacer is not None:
                self._pacer.spend(taken * each)
            past = self._message + taken
            self._counters["calls"] += 1
            self._counters["datagrams"] += int(vector.datagrams[self._message : past].sum())
            self._message = past
        return None

    def _step_plain(self, burst: Burst, now_s: float) -> float | None:
        each = HEADER_BYTES + burst.share
        budget = each if self._pacer is None else self._pacer.allowance(now_s)
        while True:
            if self._held is None:
                self._held = next(self._plain, None) if self._plain else None
                if self._held is None:
                    return None
            if budget < each:
                return self._pacer.pause_s(each) if self._pacer else None
            head, payload = self._held
            datagram = b"".join((head, payload))
            if self._address is None:
                self._sock.send(datagram)
            else:
                self._sock.sendto(datagram, self._address)
            self._held = None
            self._sent_plain += 1
            self._counters["calls"] += 1
            self._counters["datagrams"] += 1
            if self._pacer is not None:
                self._pacer.spend(each)
                budget -= each

    def _after(self, error: OSError, burst: Burst) -> float | None:
        """Go on after an error of the system, as far as that is possible."""
        number = error.errno
        if number == errno.EINTR:
            return _NO_BUFFERS_PAUSE_S
        if number in (errno.ENOBUFS, errno.ENOMEM):
            self._counters["no_buffers"] += 1
            return _NO_BUFFERS_PAUSE_S
        if number == errno.ECONNREFUSED:
            return self._skip()
        if number == errno.EIO and self.rung is Rung.SEGMENTS and self._vector is not None:
            logger.warning("UDP: the interface cannot cut segments; sending datagrams one by one")
            self.rung = Rung.MANY
            sent = int(self._vector.datagrams[: self._message].sum())
            self._vector = SendVector(burst, 1, sent)
            self._vector.lead_to(self._address)
            self._spare = None
            self._message = 0
            return _NO_BUFFERS_PAUSE_S
        self._drop()
        size = HEADER_BYTES + burst.share
        text = f"datagrams of {size} bytes cannot be sent: {error.strerror}"
        most = path_datagram_bytes(self._sock)
        if number in (errno.EMSGSIZE, errno.EINVAL) and most is not None and most < size:
            text += f"; the path takes {most}: set datagram_bytes to that"
        raise PortError(text) from error

    def _skip(self) -> float | None:
        """The receiver's machine said that nobody listens there: what was to go next goes lost."""
        if self._vector is None:
            self._held = None
            self._sent_plain += 1
            self._counters["refused"] += 1
            return 0.0
        self._counters["refused"] += int(self._vector.datagrams[self._message])
        self._message += 1
        return 0.0


class BurstReceiver:
    """Takes datagrams out of a bound, non-blocking socket, which stays the caller's.

    After `receive`, `blocks`, `lengths` and `segments` are what Reassembler.receive_blocks takes,
    until the next call. Raises PortError when the socket cannot be set up for the rung.
    """

    def __init__(
        self, sock: socket.socket, rung: Rung, max_datagram_bytes: int = MAX_DATAGRAM_BYTES
    ) -> None:
        self.rung = rung
        self._sock = sock
        self._counters = {"pieces": 0, "calls": 0, "truncated": 0, "errors": 0}
        # One byte more than allowed shows that a datagram was longer. Rows begin at whole words.
        room = _ROOM if rung is Rung.SEGMENTS else (max_datagram_bytes + 8) // 8 * 8
        amount = _PIECES if rung is Rung.SEGMENTS else _DATAGRAMS
        self._most = room - 1
        self._vector: ReceiveVector | None = None
        self._sources: list[tuple[str, int]] = []
        self.lengths: list[int] = []
        self.segments: list[int] = []
        if rung is Rung.PLAIN:
            self.blocks: U8Array = np.zeros((amount, room), np.uint8)
            self._rows = [row.data for row in self.blocks]
            return
        self._vector = ReceiveVector(amount, room)
        self.blocks = self._vector.blocks
        if rung is Rung.SEGMENTS:
            try:
                sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            except OSError as error:
                raise PortError(f"UDP_GRO cannot be switched on: {error.strerror}") from error

    def counters(self) -> dict[str, int]:
        """`pieces` received by `calls`; `truncated`: longer than a datagram may be, dropped;
        `errors` of the system that were passed over."""
        return dict(self._counters)

    def receive(self) -> int:
        """Take what has come, without waiting; how many pieces, 0 for none.

        Raises PortError when the socket is beyond use.
        """
        self.lengths, self.segments = [], []
        try:
            came = self._receive() if self._vector else self._receive_plain()
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOTSOCK):
                raise PortError(f"UDP socket cannot be read: {error.strerror}") from error
            self._counters["errors"] += 1
            return 0
        self._counters["pieces"] += came
        self._counters["calls"] += 1
        return came

    @property
    def full(self) -> bool:
        """Whether the last call filled all the room, so that more may be waiting."""
        return len(self.lengths) == len(self.blocks)

    def source(self, piece: int) -> tuple[str, int]:
        """Host and port that a piece of the last call came from."""
        return self._vector.source(piece) if self._vector else self._sources[piece]

    def _receive(self) -> int:
        vector = self._vector
        assert vector is not None
        came = vector.receive(self._sock)
        self.lengths, self.segments = vector.lengths, vector.segments
        if vector.truncated or (self._most < _ROOM - 1 and max(self.lengths) > self._most):
            for piece in range(came):
                self._leave_out(piece, vector.cut(piece))
        return came

    def _receive_plain(self) -> int:
        self._sources = []
        for piece, row in enumerate(self._rows):
            try:
                size, address = self._sock.recvfrom_into(row)
            except BlockingIOError:
                break
            self.lengths.append(size)
            self.segments.append(size)
            self._sources.append((address[0], address[1]))
            self._leave_out(piece, False)
        return len(self.lengths)

    def _leave_out(self, piece: int, cut: bool) -> None:
        if cut or self.lengths[piece] > self._most:
            self._counters["truncated"] += 1
            self.lengths[piece] = self.segments[piece] = 0


def probe(family: int = socket.AF_INET) -> Probe:
    """Try the rungs over loopback, from the top, and say why those above were left."""
    reasons = []
    receive = send = Rung.PLAIN
    for rung in (Rung.SEGMENTS, Rung.MANY):
        reason = _why_not(Rung.PLAIN, rung, family)
        if reason is None:
            receive = rung
            break
        reasons.append(f"receiving by {rung.value}: {reason}")
    for rung in (Rung.SEGMENTS, Rung.MANY):
        reason = _why_not(rung, receive, family)
        if reason is None:
            send = rung
            break
        reasons.append(f"sending by {rung.value}: {reason}")
    return Probe(send, receive, tuple(reasons))


@functools.cache
def best_rungs() -> Probe:
    """What `probe` found the first time that somebody asked."""
    found = probe()
    logger.info("%s", found)
    return found


def _why_not(send: Rung, receive: Rung, family: int) -> str | None:
    """Send a small burst to ourselves; None when it arrives, else what went wrong."""
    if why_not() is not None and (send, receive) != (Rung.PLAIN, Rung.PLAIN):
        return why_not()
    settings = FragmentSettings(datagram_bytes=HEADER_BYTES + MIN_SHARE_BYTES)
    frame = bytes(range(256)) * 2
    try:
        with _pair(family) as (sending, receiving):
            receiver = BurstReceiver(receiving, receive)
            sender = BurstSender(sending, send)
            seal = Seal(Check.CRC)
            burst = Fragmenter(1, settings, seal=seal).fragment(StreamType.CONTROL, frame)
            assert burst is not None
            sender.begin(burst)
            while sender.step(0.0) is not None:
                select.select([], [sending], [], _PROBE_S)
            reassembler = Reassembler(seal=seal)
            deadline_s = time.monotonic() + _PROBE_S
            while True:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0.0 or not select.select([receiving], [], [], left_s)[0]:
                    return f"nothing whole arrived within {_PROBE_S} s"
                receiver.receive()
                bursts = reassembler.receive_blocks(
                    receiver.blocks, receiver.lengths, receiver.segments, 0.0
                )
                if bursts:
                    return None if bursts[0].data == frame else "other bytes arrived"
    except (OSError, PortError) as error:
        return str(error)


@contextmanager
def _pair(family: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sending,
        socket.socket(family, socket.SOCK_DGRAM) as receiving,
    ):
        receiving.bind((host, 0))
        sending.connect(receiving.getsockname())
        sending.setblocking(False)
        receiving.setblocking(False)
        yield sending, receiving
