# SPDX-License-Identifier: Apache-2.0
"""Datagrams into bursts again: bounded, newest wins, and everything that is missing is counted.

One Reassembler stands for one sender. Time comes in as a parameter. A datagram's payload is
copied once, to its place in the memory of its burst; datagrams that follow each other in one
piece (UDP_GRO) are copied in one go.

What becomes of each burst: it is delivered; or not one datagram of it came (lost); or some did,
but not all in time (incomplete), or a newer one was complete before it (superseded), or its
memory was needed for a newer one (evicted), or the sender started anew (restarted). Bursts are
delivered in the order of their sequence, each at most once. That is the replay window too: at or
before the burst delivered last nothing is taken.

Cases, referred to by number below
1. A later epoch: the sender started anew. What is open is given up, counting starts anew.
2. An earlier epoch: datagrams that were under way, or a clock that was set back. Dropped, unless
   nothing of the present epoch came for `resync_s`. With tags always dropped: else a recording of
   an earlier run could be played back.
3. A sequence far ahead (more than MAX_AHEAD): damage, or a sender that went on while this end
   slept. Dropped, unless nothing of the stream came for `resync_s`. With tags always taken, since
   nobody but the sender can have made it.
4. A sequence at or before the last one delivered: duplicate or late.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from feagi_io_host.core.datagram import (
    CHECK_BYTES,
    HEADER_BYTES,
    BytesLike,
    Check,
    DatagramError,
    DatagramHeader,
    Seal,
    parse_header,
)
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.fragment import SEQUENCE_END, U8Array, header_ramp
from feagi_io_host.core.types import StreamType

MAX_AHEAD: Final = 1 << 15
COUNTERS: Final = (
    # datagrams
    "datagrams",
    "malformed",
    "unsupported",
    "unauthenticated",
    "corrupt",
    "contradicting",
    "duplicate",
    "late",
    "far_ahead",
    "stale_epoch",
    "reordered",
    "spare_parity",
    "refused_memory",
    "fragments_missing",
    # bursts
    "delivered",
    "repaired",
    "lost",
    "incomplete",
    "superseded",
    "evicted",
    "restarted",
    # epochs
    "epochs",
)

_HALF: Final = SEQUENCE_END // 2
_REMEMBERED: Final = 1024  # given up since the last delivered: late ones are known by them
_RECENT: Final = 64  # delivered ones, to tell a duplicate from a late datagram
_SPARES: Final = 2  # one that its receiver still looks at, and one to write to
_BULK: Final = 4  # datagrams from which on one copy for all pays


@dataclass(frozen=True, slots=True)
class ReassemblySettings:
    """`max_frame_bytes`: the largest burst. `max_memory_bytes`: of all unfinished bursts and
    idle memory together. `max_open`: unfinished bursts of a stream. `timeout_s`: from its first
    datagram on, a burst has so long. `resync_s`: see cases 2 and 3. Raises ConfigError for
    numbers that cannot work."""

    max_frame_bytes: int = 64 << 20
    max_memory_bytes: int = 128 << 20
    max_open: int = 4
    timeout_s: float = 0.1
    resync_s: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.max_frame_bytes <= self.max_memory_bytes:
            raise ConfigError(
                f"max_frame_bytes is {self.max_frame_bytes}, max_memory_bytes "
                f"{self.max_memory_bytes}; at least 1, and the second not below the first"
            )
        if self.max_open < 1:
            raise ConfigError(f"max_open is {self.max_open}; at least 1 needed")
        if not 0.0 < self.timeout_s <= self.resync_s < float("inf"):
            raise ConfigError(
                f"timeout_s is {self.timeout_s}, resync_s {self.resync_s}; above 0, and the "
                "second not below the first"
            )


@dataclass(frozen=True, slots=True)
class ReceivedBurst:
    """One whole burst. `data` is read-only and its receiver's for as long as it is looked at.
    `first_s`: when its first datagram came. `repaired`: fragments made from parity."""

    stream: StreamType
    epoch: int
    sequence: int
    data: memoryview
    first_s: float
    repaired: int


class _Open:
    """A burst that is being put together: rows of `share` bytes, data first, then parity."""

    __slots__ = ("first_s", "have", "header", "highest", "memory", "missing", "parity", "rows")

    def __init__(self, header: DatagramHeader, memory: U8Array, size: int, now_s: float) -> None:
        self.header = header
        self.memory = memory
        self.rows = memory[:size].reshape(-1, header.share)
        self.have = np.zeros(header.count + header.groups, np.bool_)
        self.missing = header.count
        self.parity = 0
        self.highest = -1
        self.first_s = now_s

    @property
    def held_bytes(self) -> int:
        """Its memory, bookkeeping included."""
        return self.memory.nbytes + self.have.nbytes

    def same_burst(self, header: DatagramHeader) -> bool:
        """Whether a datagram says the same about the burst as its first one."""
        mine = self.header
        return (mine.total, mine.share, mine.group) == (header.total, header.share, header.group)

    def repair(self) -> int:
        """Make every missing fragment from parity, if that can be done; how many were made."""
        header = self.header
        count, groups = header.count, header.groups
        missing = np.flatnonzero(~self.have[:count])
        hit = missing % groups
        if len(np.unique(hit)) < len(hit) or not self.have[count + hit].all():
            return 0
        for index, group in zip(missing.tolist(), hit.tolist(), strict=True):
            row = self.rows[index]
            row[:] = self.rows[count + group]
            for other in range(group, count, groups):
                if other != index:
                    row ^= self.rows[other]
        self.missing = 0
        return len(missing)


@dataclass(slots=True)
class _Stream:
    """What is known of one stream in the present epoch."""

    open: dict[int, _Open] = field(default_factory=dict)
    delivered: int | None = None
    # Those after the one delivered last, in the order of giving up; of more, only how many.
    given_up: dict[int, None] = field(default_factory=dict)
    forgotten: int = 0
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=_RECENT))
    heard_s: float = 0.0


class Reassembler:
    """The receiving end for one sender. Not thread-safe. Takes any bytes and never raises."""

    def __init__(
        self, settings: ReassemblySettings | None = None, *, seal: Seal | None = None
    ) -> None:
        self.settings = settings or ReassemblySettings()
        self._seal = seal or Seal(Check.CRC)
        self._epoch: int | None = None
        self._heard_s = 0.0
        self._streams: dict[StreamType, _Stream] = {}
        self._spares: deque[U8Array] = deque()
        self._memory_bytes = 0
        self._counters = dict.fromkeys(COUNTERS, 0)
        self._ramp = header_ramp(0)
        self._arrived: list[ReceivedBurst] = []

    def counters(self) -> dict[str, int]:
        """What happened so far, by the names in COUNTERS."""
        return dict(self._counters)

    @property
    def memory_bytes(self) -> int:
        """Memory held now: for unfinished bursts and idle."""
        return self._memory_bytes

    @property
    def epoch(self) -> int | None:
        """The sender's present run; None before its first datagram."""
        return self._epoch

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do; None while nothing is open."""
        begun = [one.first_s for stream in self._streams.values() for one in stream.open.values()]
        return min(begun) + self.settings.timeout_s if begun else None

    def expire(self, now_s: float) -> None:
        """Give up bursts whose time is over."""
        begun_before_s = now_s - self.settings.timeout_s
        for stream in self._streams.values():
            late = [key for key, one in stream.open.items() if one.first_s <= begun_before_s]
            for sequence in late:
                self._give_up(stream, sequence, "incomplete")

    def receive(self, datagram: BytesLike, now_s: float) -> list[ReceivedBurst]:
        """Take one datagram; the bursts that it completes, which is at most one."""
        self.expire(now_s)
        self._take(memoryview(datagram).cast("B"), now_s)
        return self._handed_out()

    def receive_blocks(
        self, blocks: U8Array, lengths: Sequence[int], segments: Sequence[int], now_s: float
    ) -> list[ReceivedBurst]:
        """Take pieces of several datagrams each, as UDP_GRO gives them; the bursts completed.

        `blocks` is u8 of shape (n or more, room). Piece k is the first `lengths[k]` bytes of row
        k, cut every `segments[k]` bytes; its last datagram may be shorter.
        """
        self.expire(now_s)
        first, end = 0, len(lengths)
        while first < end:
            length, segment = lengths[first], segments[first]
            past = first + 1
            if segment > HEADER_BYTES and length % segment == 0:
                while past < end and lengths[past] == length and segments[past] == segment:
                    past += 1
            self._take_alike(blocks[first:past, :length], segment, now_s)
            first = past
        return self._handed_out()

    # -- whole pieces -------------------------------------------------------------------------

    def _take_alike(self, blocks: U8Array, segment: int, now_s: float) -> None:
        """Pieces of one length and cut. Only in a single one may the last datagram be shorter."""
        pieces, length = blocks.shape
        whole = length // segment if segment > 0 else 0
        cut = whole * segment
        if pieces * whole >= _BULK and self._take_run(blocks[:, :cut], segment, now_s):
            if cut < length:
                self._take(blocks[0, cut:].data, now_s)
        elif pieces > 1:
            # Something is missing or mixed in: narrow it down.
            half = pieces // 2
            self._take_alike(blocks[:half], segment, now_s)
            self._take_alike(blocks[half:], segment, now_s)
        elif whole >= 2 * _BULK:
            half = whole // 2 * segment
            self._take_alike(blocks[:, :half], segment, now_s)
            self._take_alike(blocks[:, half:], segment, now_s)
        else:
            piece = blocks[0].data
            step = segment if segment > 0 else max(length, 1)
            for start in range(0, length, step):
                self._take(piece[start : start + step], now_s)

    def _take_run(self, blocks: U8Array, segment: int, now_s: float) -> bool:
        """Take pieces that are consecutive new fragments of one burst; False for anything else,
        with nothing done."""
        pieces, length = blocks.shape
        each = length // segment
        amount = pieces * each
        datagrams = blocks.reshape(pieces, each, segment)
        first = datagrams[0, 0].data
        try:
            header = parse_header(first, self._seal.check)
        except DatagramError:
            return False
        index, past = header.index, header.index + amount
        if header.parity or past > header.count:
            return False
        # All of these have the full size, which the last fragment need not have.
        if past == header.count and header.total % header.share:
            return False
        if not self._alike(datagrams, first):
            return False
        if self._seal.check is not Check.NONE:
            proves = self._seal.proves
            if not all(proves(piece.data, segment) for piece in blocks):
                return False
        stream = self._streams.get(header.stream)
        known = stream.open.get(header.sequence) if stream else None
        if known is not None and index <= known.highest and known.have[index:past].any():
            return False
        burst = self._burst_for(header, now_s, amount)
        self._counters["datagrams"] += amount
        if burst is not None:
            if index < burst.highest:
                self._counters["reordered"] += amount
            burst.highest = max(burst.highest, past - 1)
            places = burst.rows[index:past].reshape(pieces, each, header.share)
            np.copyto(places, datagrams[:, :, HEADER_BYTES:])
            burst.have[index:past] = True
            burst.missing -= amount
            self._finish_if_whole(burst)
        return True

    def _alike(self, datagrams: U8Array, first: memoryview) -> bool:
        """Whether the headers are that of the first with the index counting up."""
        pieces, each, _ = datagrams.shape
        amount = pieces * each
        if len(self._ramp) < amount:
            self._ramp = header_ramp(amount)
        expected = self._ramp[:amount] + np.frombuffer(first[CHECK_BYTES:HEADER_BYTES], "<u8")
        # Comparing bytes costs half as much as comparing arrays of so few.
        same: bool = datagrams[:, :, CHECK_BYTES:HEADER_BYTES].tobytes() == expected.tobytes()
        return same

    # -- single datagrams ---------------------------------------------------------------------

    def _take(self, datagram: memoryview, now_s: float) -> None:
        counters = self._counters
        counters["datagrams"] += 1
        try:
            header = parse_header(datagram, self._seal.check)
        except DatagramError as error:
            counters[error.reason] += 1
            return
        if not self._seal.proves(datagram, len(datagram)):
            counters["unauthenticated" if self._seal.check is Check.TAG else "corrupt"] += 1
            return
        burst = self._burst_for(header, now_s, 1)
        if burst is None:
            return
        index = header.index
        slot = header.count + index if header.parity else index
        if burst.have[slot]:
            counters["duplicate"] += 1
            return
        size = header.payload_bytes
        row = burst.rows[slot]
        row[:size] = np.frombuffer(datagram, np.uint8, offset=HEADER_BYTES)
        row[size:] = 0  # what parity takes it for
        burst.have[slot] = True
        if header.parity:
            burst.parity += 1
        else:
            burst.missing -= 1
            counters["reordered"] += index < burst.highest
            burst.highest = max(burst.highest, index)
        self._finish_if_whole(burst)

    # -- bursts -------------------------------------------------------------------------------

    def _burst_for(self, header: DatagramHeader, now_s: float, amount: int) -> _Open | None:
        """The burst that `amount` datagrams belong to, begun if need be; None for such that are
        not taken, which are counted."""
        if not self._in_epoch(header.epoch, now_s):
            self._counters["stale_epoch"] += amount
            return None
        stream = self._streams.setdefault(header.stream, _Stream())
        sequence = header.sequence
        burst = stream.open.get(sequence)
        if burst is None:
            refused = self._refusal(stream, header, now_s)
            if refused is None:
                burst = self._begin(stream, header, now_s)
                refused = "refused_memory"
            if burst is None:
                self._counters[refused] += amount
                return None
        elif not burst.same_burst(header):
            self._counters["contradicting"] += amount
            return None
        self._heard_s = stream.heard_s = now_s
        return burst

    def _in_epoch(self, epoch: int, now_s: float) -> bool:
        if epoch == self._epoch:
            return True
        if self._epoch is not None and not _is_after(epoch, self._epoch):  # case 2
            silent = now_s - self._heard_s >= self.settings.resync_s
            if self._seal.check is Check.TAG or not silent:
                return False
        for stream in self._streams.values():  # case 1
            for sequence in tuple(stream.open):
                self._give_up(stream, sequence, "restarted")
        self._streams.clear()
        self._epoch = epoch
        self._heard_s = now_s
        self._counters["epochs"] += 1
        return True

    def _refusal(self, stream: _Stream, header: DatagramHeader, now_s: float) -> str | None:
        """Why no burst is begun for a datagram; None when it is to be begun."""
        sequence, last = header.sequence, stream.delivered
        if sequence in stream.given_up:
            return "late"
        full = len(stream.open) >= self.settings.max_open
        if full and all(_distance(other, sequence) > 0 for other in stream.open):
            return "late"  # it would take the place of a newer one
        if last is None:
            return None
        ahead = _distance(sequence, last)
        if ahead <= 0:  # case 4
            if sequence not in stream.recent:
                return "late"
            return "spare_parity" if header.parity else "duplicate"
        silent = now_s - stream.heard_s >= self.settings.resync_s
        if ahead > MAX_AHEAD and self._seal.check is not Check.TAG and not silent:  # case 3
            return "far_ahead"
        return None

    def _begin(self, stream: _Stream, header: DatagramHeader, now_s: float) -> _Open | None:
        """Memory for a burst, older ones evicted for it; None when it may not have so much."""
        settings = self.settings
        slots = header.count + header.groups
        size = slots * header.share
        if header.total > settings.max_frame_bytes or size + slots > settings.max_memory_bytes:
            return None
        sequence = header.sequence
        while len(stream.open) >= settings.max_open:
            oldest = min(stream.open, key=lambda other: _distance(other, sequence))
            self._give_up(stream, oldest, "evicted")
        memory = self._room(size, slots)
        burst = _Open(header, memory, size, now_s)
        self._memory_bytes += burst.held_bytes
        stream.open[sequence] = burst
        return burst

    def _room(self, size: int, slots: int) -> U8Array:
        """Memory of at least `size` bytes, inside the limit together with `slots` more."""
        spares = self._spares
        most = min(2 * size, self.settings.max_memory_bytes - slots)
        memory: U8Array | None = None
        for _ in range(len(spares)):
            if _references(spares) == _IDLE_REFERENCES and size <= spares[0].nbytes <= most:
                memory = spares.popleft()
                self._memory_bytes -= memory.nbytes
                break
            spares.rotate(-1)
        taken = size if memory is None else memory.nbytes
        limit = self.settings.max_memory_bytes - slots - taken
        while self._memory_bytes > limit:
            if spares:
                self._memory_bytes -= spares.popleft().nbytes
            else:
                self._evict_oldest()
        return np.empty(size, np.uint8) if memory is None else memory

    def _evict_oldest(self) -> None:
        stream, sequence = min(
            ((stream, key) for stream in self._streams.values() for key in stream.open),
            key=lambda place: place[0].open[place[1]].first_s,
        )
        self._give_up(stream, sequence, "evicted")

    def _give_up(self, stream: _Stream, sequence: int, reason: str) -> None:
        burst = stream.open.pop(sequence)
        self._memory_bytes -= burst.held_bytes
        self._keep(burst.memory)
        self._counters[reason] += 1
        self._counters["fragments_missing"] += burst.missing
        if len(stream.given_up) >= _REMEMBERED:
            del stream.given_up[next(iter(stream.given_up))]
            stream.forgotten += 1
        stream.given_up[sequence] = None

    def _keep(self, memory: U8Array) -> None:
        """Keep memory for the bursts to come; the idle memory kept longest makes way."""
        while len(self._spares) >= _SPARES:
            self._memory_bytes -= self._spares.popleft().nbytes
        self._spares.append(memory)
        self._memory_bytes += memory.nbytes

    def _finish_if_whole(self, burst: _Open) -> None:
        repaired = 0
        if 0 < burst.missing <= burst.parity:
            repaired = burst.repair()
        if burst.missing:
            return
        header = burst.header
        stream, sequence = self._streams[header.stream], header.sequence
        del stream.open[sequence]
        self._memory_bytes -= burst.held_bytes
        for other in [key for key in stream.open if _distance(key, sequence) < 0]:
            self._give_up(stream, other, "superseded")
        known = [key for key in stream.given_up if _distance(key, sequence) < 0]
        if stream.delivered is not None:
            gap = (sequence - stream.delivered) % SEQUENCE_END - 1
            self._counters["lost"] += max(gap - len(known) - stream.forgotten, 0)
        for key in known:
            del stream.given_up[key]
        stream.forgotten = 0
        stream.delivered = sequence
        stream.recent.append(sequence)
        self._counters["delivered"] += 1
        self._counters["repaired"] += repaired > 0
        data = burst.memory[: header.total].data.toreadonly()
        self._keep(burst.memory)
        self._arrived.append(
            ReceivedBurst(header.stream, header.epoch, sequence, data, burst.first_s, repaired)
        )

    def _handed_out(self) -> list[ReceivedBurst]:
        arrived, self._arrived = self._arrived, []
        return arrived


def _distance(sequence: int, other: int) -> int:
    """How far `sequence` is after `other`, below 0 for before, across the wrap."""
    ahead = (sequence - other) % SEQUENCE_END
    return ahead - SEQUENCE_END if ahead >= _HALF else ahead


def _is_after(epoch: int, other: int) -> bool:
    return _distance(epoch, other) > 0


def _references(spares: deque[U8Array]) -> int:
    """References to the memory at the front: its views, what this counts itself included."""
    memory = spares[0]
    return sys.getrefcount(memory)


_IDLE_REFERENCES: Final = _references(deque([np.empty(1, np.uint8)]))
