# SPDX-License-Identifier: Apache-2.0
"""Bursts into datagrams: headers are made, the payload is looked at where it lies.

All datagrams of a burst have one size but the last, so that the kernel can cut them out of one
piece (UDP_SEGMENT). A lost datagram costs the burst, unless parity is on: then each group of
datagrams is followed by one that is the exclusive or of them, and can replace one of them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from feagi_io_host.core.datagram import (
    CHECK_BYTES,
    DEFAULT_DATAGRAM_BYTES,
    FLAG_PARITY,
    FLAGS_AT,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    MAX_DATAGRAM_BYTES,
    MAX_FRAGMENTS,
    MIN_SHARE_BYTES,
    VERSION,
    BytesLike,
    Check,
    Seal,
)
from feagi_io_host.core.errors import ConfigError, LocalError
from feagi_io_host.core.types import StreamType

U8Array = npt.NDArray[np.uint8]
Pack = Callable[[BytesLike], BytesLike]

SEQUENCE_END: Final = 1 << 32
_WORDS: Final = HEADER_BYTES // 8
_SEQUENCE_WORD: Final = 2
_SEQUENCE_SHIFT: Final = 32  # in its word, which it shares with the epoch
_INDEX_SHIFT: Final = 32  # of the index in the fourth word of a header
_MAX_GROUP: Final = 255


class Oversize(enum.Enum):
    """What happens to a frame that does not fit one datagram."""

    DROP = "drop"
    """It is dropped and counted."""
    FRAGMENT = "fragment"
    """It goes in several datagrams."""
    COMPRESS = "compress"
    """It is compressed first, where that pays, and goes in several if it still does not fit."""


@dataclass(frozen=True, slots=True)
class FragmentSettings:
    """`datagram_bytes`: the largest datagram sent, header included, IP and UDP headers not: 28
    (IPv6: 48) below the path's MTU. `group`: data fragments per parity fragment, 0 for none.
    Raises ConfigError for numbers that cannot work."""

    datagram_bytes: int = DEFAULT_DATAGRAM_BYTES
    oversize: Oversize = Oversize.COMPRESS
    group: int = 0

    def __post_init__(self) -> None:
        least = HEADER_BYTES + MIN_SHARE_BYTES
        if not least <= self.datagram_bytes <= MAX_DATAGRAM_BYTES:
            raise ConfigError(
                f"datagram_bytes is {self.datagram_bytes}; {least} to {MAX_DATAGRAM_BYTES} needed"
            )
        if not 0 <= self.group <= _MAX_GROUP:
            raise ConfigError(f"parity group is {self.group}; 0 to {_MAX_GROUP} needed")

    @property
    def share(self) -> int:
        """Payload bytes of a full datagram; whole words, so that headers stay aligned."""
        return (self.datagram_bytes - HEADER_BYTES) // 8 * 8


@dataclass(frozen=True, slots=True, eq=False)
class Burst:
    """One frame as datagrams. `headers` is u8 of shape (count, 32), `parity` u8 of shape
    (groups, 32 + share): whole datagrams that follow the data. `payload` is the caller's memory
    and must not change until the burst is sent."""

    headers: U8Array
    payload: memoryview
    share: int
    parity: U8Array

    @property
    def count(self) -> int:
        """Data fragments."""
        return len(self.headers)

    @property
    def wire_bytes(self) -> int:
        """Bytes of all datagrams."""
        return self.headers.nbytes + len(self.payload) + self.parity.nbytes

    def datagrams(self) -> Iterator[tuple[memoryview, memoryview]]:
        """Header and payload of each datagram in the order of sending, as views."""
        heads = self.headers.reshape(-1).data
        share = self.share
        for index in range(self.count):
            head = heads[index * HEADER_BYTES : (index + 1) * HEADER_BYTES]
            yield head, self.payload[index * share : (index + 1) * share]
        for index in range(len(self.parity)):
            whole = self.parity[index].data
            yield whole[:HEADER_BYTES], whole[HEADER_BYTES:]


class Fragmenter:
    """The sending end of one session: counts the bursts of each stream. Not thread-safe.

    `epoch` (u32) has to be later than that of the run before; the seconds since 1970 are.
    `pack` is asked for a smaller form of a frame where the policy is COMPRESS; what it returns is
    sent.
    """

    def __init__(
        self,
        epoch: int,
        settings: FragmentSettings | None = None,
        *,
        seal: Seal | None = None,
        pack: Pack | None = None,
        first_sequence: int = 0,
    ) -> None:
        if not 0 <= epoch < SEQUENCE_END:
            raise ConfigError(f"epoch is {epoch}; 0 to {SEQUENCE_END - 1} needed")
        self.settings = settings or FragmentSettings()
        self.epoch = epoch
        self._seal = seal or Seal(Check.CRC)
        self._pack = pack
        self._first = first_sequence % SEQUENCE_END
        self._form: tuple[StreamType, int] | None = None
        self._words = np.empty((0, _WORDS), "<u8")
        self._next: dict[StreamType, int] = {}
        self._counters = {"bursts": 0, "datagrams": 0, "bytes": 0, "dropped_oversize": 0}

    @property
    def max_frame_bytes(self) -> int:
        """The largest frame that these settings can carry."""
        most = 1 if self.settings.oversize is Oversize.DROP else MAX_FRAGMENTS
        return most * self.settings.share

    def counters(self) -> dict[str, int]:
        """`bursts`, `datagrams` and `bytes` made so far, `dropped_oversize` frames."""
        return dict(self._counters)

    def fragment(self, stream: StreamType, frame: BytesLike) -> Burst | None:
        """A frame as datagrams; None when the policy drops it, which is counted.

        Raises LocalError for an empty frame and for one above what 65535 fragments hold.
        """
        settings = self.settings
        share = settings.share
        if len(frame) > share and settings.oversize is Oversize.COMPRESS and self._pack:
            frame = self._pack(frame)
        total = len(frame)
        if total == 0:
            raise LocalError("an empty frame has nothing to cut; 1 byte or more needed")
        count = -(-total // share)
        if count > 1 and settings.oversize is Oversize.DROP:
            self._counters["dropped_oversize"] += 1
            return None
        if count > MAX_FRAGMENTS:
            raise LocalError(
                f"frame of {total} bytes makes {count} datagrams of {settings.datagram_bytes}; at "
                f"most {MAX_FRAGMENTS} are possible: raise datagram_bytes, if the path's MTU "
                "allows, or send fewer areas"
            )
        payload = memoryview(frame).toreadonly().cast("B")
        sequence = self._next.get(stream, self._first)
        self._next[stream] = (sequence + 1) % SEQUENCE_END
        headers = self._headers(stream, sequence, total, count)
        parity = self._parity(payload, headers, count)
        burst = Burst(headers, payload, share, parity)
        counters = self._counters
        counters["bursts"] += 1
        counters["datagrams"] += count + len(parity)
        counters["bytes"] += burst.wire_bytes
        if self._seal.check is not Check.NONE:
            self._sign(burst)
        return burst

    def _headers(self, stream: StreamType, sequence: int, total: int, count: int) -> U8Array:
        """All headers at once: they differ in the index alone, and from burst to burst mostly in
        the sequence alone."""
        settings = self.settings
        if self._form != (stream, total):
            first = HEADER.pack(
                0,
                MAGIC,
                VERSION,
                self._seal.check.flag,
                stream.wire,
                settings.group,
                settings.share,
                self.epoch,
                0,
                total,
                0,
                count,
            )
            self._form = (stream, total)
            self._words = np.empty((count, _WORDS), "<u8")
            self._words[:] = np.frombuffer(first, "<u8")
            self._words[:, 1:] += header_ramp(count)
        words = self._words.copy()
        words[:, _SEQUENCE_WORD] |= np.uint64(sequence << _SEQUENCE_SHIFT)
        return words.view(np.uint8)

    def _parity(self, payload: memoryview, headers: U8Array, count: int) -> U8Array:
        share, group = self.settings.share, self.settings.group
        groups = -(-count // group) if group else 0
        parity = np.zeros((groups, HEADER_BYTES + share), np.uint8)
        if not groups:
            return parity
        parity[:, :HEADER_BYTES] = headers[:groups]
        parity[:, FLAGS_AT] |= FLAG_PARITY
        sums = parity[:, HEADER_BYTES:]
        data = np.frombuffer(payload, np.uint8)
        full = len(data) // share
        rows = data[: full * share].reshape(full, share)
        for start in range(0, full, groups):
            part = rows[start : start + groups]
            sums[: len(part)] ^= part
        rest = data[full * share :]
        if len(rest):
            sums[full % groups, : len(rest)] ^= rest
        return parity

    def _sign(self, burst: Burst) -> None:
        checks = self._seal.of(burst.headers.reshape(-1).data, burst.payload, burst.share)
        burst.headers[:, :CHECK_BYTES] = _rows(checks)
        if len(burst.parity):
            heads, sums = burst.parity[:, :HEADER_BYTES], burst.parity[:, HEADER_BYTES:]
            checks = self._seal.of(heads.tobytes(), sums.tobytes(), burst.share)
            burst.parity[:, :CHECK_BYTES] = _rows(checks)


def _rows(checks: bytes) -> U8Array:
    return np.frombuffer(checks, np.uint8).reshape(-1, CHECK_BYTES)


def header_ramp(count: int) -> npt.NDArray[np.uint64]:
    """What the index adds to the three words of a header behind the check, for the first `count`
    fragments: shape (count, 3)."""
    ramp = np.zeros((count, _WORDS - 1), "<u8")
    ramp[:, -1] = np.arange(count, dtype="<u8") << np.uint64(_INDEX_SHIFT)
    return ramp
