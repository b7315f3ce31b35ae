# SPDX-License-Identifier: Apache-2.0
"""The header of a segment: its fields, what they may be, and who made it.

Native byte order, one page; then the slots, a page multiple each, of which the first 64 bytes are
the slot's own header.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from feagi_io_host.core.delivery import Order
from feagi_io_host.core.errors import ConfigError, RemoteError

VERSION: Final = 1
MAGIC: Final = b"FIO-SHM\0"
PAGE_BYTES: Final = 4096
SLOT_HEADER_BYTES: Final = 64  # a cache line, so that payloads are aligned for any array type
MAX_SLOTS: Final = 1024
MAX_PAYLOAD_BYTES: Final = 1 << 30
WORDS_AT: Final = 128  # words that change, away from the fields that do not

# magic, version, byte order, mode, order, slots, readers, payload, stride, total, pid, start, ns
_HEADER: Final = struct.Struct("=8sIIIIIIQQQQQQ")
_ORDER_MARK: Final = 0x01020304
_ORDERS: Final = {Order.NEWEST_WINS: 1, Order.IN_ORDER: 2}


class ShmMode(enum.Enum):
    """What stands in the slots of a segment."""

    FBC = 1
    """One FEAGI byte container each."""
    DIRECT = 2
    """Neuron ids and potentials as plain arrays; see `direct`."""


class Word(enum.IntEnum):
    """Words of the header that change, by their index."""

    HEARTBEAT_NS = 0  # the creator's monotonic clock
    NEWEST = 1  # 1 + the slot written last; 0 before the first
    CLOSED = 2  # 1 once the creator closed it in an orderly way


@dataclass(frozen=True, slots=True)
class SegmentShape:
    """What a segment holds. `payload_bytes` is the most that one slot takes.

    Raises ConfigError for shapes that cannot work.
    """

    mode: ShmMode
    order: Order
    slots: int
    payload_bytes: int
    max_readers: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.payload_bytes <= MAX_PAYLOAD_BYTES:
            raise ConfigError(
                f"payload_bytes is {self.payload_bytes}; 1 to {MAX_PAYLOAD_BYTES} can be had"
            )
        if not 1 <= self.max_readers < MAX_SLOTS:
            raise ConfigError(f"max_readers is {self.max_readers}; 1 to {MAX_SLOTS - 1} can be had")
        # Newest wins: one slot stays the newest, one is written, and each reader may keep one.
        least = self.max_readers + 2 if self.order is Order.NEWEST_WINS else 2
        if not least <= self.slots <= MAX_SLOTS:
            raise ConfigError(
                f"{self.slots} slots; {least} to {MAX_SLOTS} are needed for {self.max_readers} "
                f"readers, {self.order.value}"
            )

    @property
    def stride(self) -> int:
        """Bytes from one slot to the next."""
        return -(-(SLOT_HEADER_BYTES + self.payload_bytes) // PAGE_BYTES) * PAGE_BYTES

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole segment. Memory is taken for what is written, not for this."""
        return PAGE_BYTES + self.slots * self.stride

    def slot_at(self, slot: int) -> int:
        """Where a slot starts."""
        return PAGE_BYTES + slot * self.stride


@dataclass(frozen=True, slots=True)
class Creator:
    """The process that made a segment. `namespace` tells equal process ids apart."""

    pid: int
    start_ticks: int
    namespace: int

    @classmethod
    def this_process(cls) -> Creator:
        """The one that calls."""
        return cls(os.getpid(), _start_ticks(os.getpid()) or 0, _pid_namespace())

    def is_here(self) -> bool:
        """Whether that very process is alive, where its id means something to this one."""
        return self.namespace == _pid_namespace() and _start_ticks(self.pid) == self.start_ticks

    def __str__(self) -> str:
        other = "" if self.namespace == _pid_namespace() else " of another container"
        return f"process {self.pid}{other}"


def pack_header(shape: SegmentShape, creator: Creator) -> bytes:
    return _HEADER.pack(
        MAGIC, VERSION, _ORDER_MARK, shape.mode.value, _ORDERS[shape.order], shape.slots,
        shape.max_readers, shape.payload_bytes, shape.stride, shape.total_bytes, creator.pid,
        creator.start_ticks, creator.namespace,
    )  # fmt: skip


def read_header(fd: int, name: str) -> tuple[SegmentShape, Creator]:
    facts = os.fstat(fd)
    data = os.pread(fd, _HEADER.size, 0) if stat.S_ISREG(facts.st_mode) else b""
    if len(data) < _HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise RemoteError(f"{name} is no segment of feagi-io: {len(data)} bytes, {data[:8]!r}")
    (_, version, mark, mode, order, slots, readers, payload, stride, total, *who) = _HEADER.unpack(
        data
    )
    if mark != _ORDER_MARK or version != VERSION:
        raise RemoteError(
            f"segment {name} has version {version}, byte order {mark:#010x}; this library reads "
            f"version {VERSION}, {_ORDER_MARK:#010x}: use the same release on both sides"
        )
    orders = {number: order for order, number in _ORDERS.items()}
    try:
        shape = SegmentShape(ShmMode(mode), orders[order], slots, payload, readers)
    except (ValueError, KeyError, ConfigError) as error:
        raise RemoteError(f"segment {name} has a header that cannot be: {error}") from None
    if (stride, total) != (shape.stride, shape.total_bytes):
        raise RemoteError(
            f"segment {name} says {stride} bytes a slot and {total} in all; its sizes make "
            f"{shape.stride} and {shape.total_bytes}"
        )
    if facts.st_size < total:
        raise RemoteError(f"segment {name} is cut short: {facts.st_size} of {total} bytes")
    return shape, Creator(*who)


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; None when there is none, or it is dead and
    only waits to be waited for."""
    try:
        text = Path("/proc", str(pid), "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command in brackets may hold anything; the fields after it are plain.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _pid_namespace() -> int:
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0
