# SPDX-License-Identifier: Apache-2.0
"""RingWriter: frames from one process to readers in others, through the slots of a segment.

Two orders, as in the delivery table:

newest wins   The writer takes the first slot that is neither the newest nor being read. Readers
              take the newest and skip what they missed. Nothing a reader does makes the writer
              wait: a stopped reader keeps its slot, a dead one keeps nothing.
in order      Frame n lies in slot n modulo the number of slots. The writer waits, up to a deadline,
              until each reader has done with the frame that was there before.

A slot is locked (see `locks`) by the writer while it is written and by a reader from looking at its
sequence number until nobody looks at the frame any more. So no frame changes under its reader, on
any processor; a frame that its writer died on has the number 0 and is no frame.

One thread writes; `close` from any.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import struct
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from feagi_io_host.core.delivery import Order
from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LocalError,
    RemoteError,
)
from feagi_io_host.core.voxels import U8Array
from feagi_io_host.transports.shm.doorbell import (
    Doorway,
    FarReader,
    cut_off,
    deadline,
    left_s,
)
from feagi_io_host.transports.shm.header import (
    SLOT_HEADER_BYTES,
    SegmentShape,
    ShmMode,
    Word,
)
from feagi_io_host.transports.shm.locks import forget_after_fork
from feagi_io_host.transports.shm.names import SHM_FOLDER
from feagi_io_host.transports.shm.segment import Segment

_log = logging.getLogger("feagi_io.shm")

SLOT: Final = struct.Struct("=QQQ")  # sequence (0: no frame), bytes, written at (monotonic ns)
DEFAULT_PAYLOAD_BYTES: Final = 64 << 20
DEFAULT_READERS: Final = 4

# How soon a slot is tried again that somebody holds who is not behind with reading.
_LOCK_LOOK_S: Final = 0.002

BytesLike = bytes | bytearray | memoryview | U8Array


def newest_wins(
    payload_bytes: int = DEFAULT_PAYLOAD_BYTES,
    *,
    mode: ShmMode = ShmMode.FBC,
    max_readers: int = DEFAULT_READERS,
) -> SegmentShape:
    """A shape in which each of `max_readers` may keep two frames and the writer never waits."""
    return SegmentShape(mode, Order.NEWEST_WINS, 2 * max_readers + 2, payload_bytes, max_readers)


def in_order(
    payload_bytes: int = DEFAULT_PAYLOAD_BYTES,
    *,
    slots: int = 8,
    mode: ShmMode = ShmMode.FBC,
    max_readers: int = DEFAULT_READERS,
) -> SegmentShape:
    """A shape that holds `slots` frames until the readers have done with them."""
    return SegmentShape(mode, Order.IN_ORDER, slots, payload_bytes, max_readers)


class RingWriter:
    """Creates a segment and writes frames into it. `url` is what readers are given."""

    def __init__(self, shape: SegmentShape, *, folder: Path = SHM_FOLDER) -> None:
        """Raises LocalError where there is no shared memory, or none left."""
        self.no_slot = 0
        """Frames given up because every slot was being read. 0 with readers of this library."""
        self._segment = Segment.create(shape, folder)
        self._sequence = 0
        self._readers: dict[int, FarReader] = {}
        self._lock = threading.Lock()  # held while writing or serving, and to close
        self._calling = threading.Lock()  # guards the life of `_interrupt`
        self._closing = False
        self._closed = False
        try:
            self._listener = Doorway(self._segment.socket_path)
        except BaseException:
            self._segment.unlink()
            self._segment.locks.close()
            self._segment.close()
            raise
        self._interrupt = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._interrupt, select.EPOLLIN)
        memory = self._segment.map
        at = shape.slot_at
        self._slot_at = tuple(at(slot) for slot in range(shape.slots))
        self._payloads: list[U8Array] = [
            np.frombuffer(memory, np.uint8, shape.payload_bytes, start + SLOT_HEADER_BYTES)
            for start in self._slot_at
        ]
        forget_after_fork(self)

    @property
    def url(self) -> str:
        """`shm://<name>`."""
        return self._segment.url

    @property
    def path(self) -> Path:
        """The segment's file."""
        return self._segment.path

    @property
    def shape(self) -> SegmentShape:
        """Sizes, mode and order."""
        return self._segment.shape

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing

    @property
    def readers(self) -> int:
        """How many readers are connected, as far as `serve` and the writes have seen."""
        return len(self._readers)

    def fileno(self) -> int:
        """For an event loop: readable when a reader comes or goes, which `serve` looks after."""
        return self._epoll.fileno()

    def room_filenos(self) -> tuple[int, ...]:
        """For an event loop, in order: descriptors of which one becomes readable when a write that
        timed out may succeed. Ask before that write, and each time anew."""
        with self._lock:
            self._refuse_if_closed()
            # What came back so far is counted now, so that only news makes them readable.
            for reader in list(self._readers.values()):
                self._unread(reader)
            return (self.fileno(), *(reader.taken_fd for reader in self._readers.values()))

    def is_unlinked(self) -> bool:
        """Whether somebody removed the segment's name, so that no reader can come any more."""
        return self._segment.is_unlinked()

    def serve(self, timeout_s: float = 0.0) -> int:
        """Let readers in and forget those that ended, waiting up to `timeout_s` for one.

        Each write does that too; call it while nothing is written. Returns how many there are.
        Raises ClosedError.
        """
        with self._lock:
            self._refuse_if_closed()
            self._serve(timeout_s)
            self._segment.beat()
            return len(self._readers)

    def write(self, data: BytesLike, timeout_s: float | None = 0.0) -> int:
        """Copy one frame in and tell the readers; returns how many there are.

        `timeout_s` (None: for ever) is how long to wait for slow readers, in order only. Raises
        DeliveryTimeoutError when they are still not ready then (nobody gets the frame), LocalError
        for a frame above `payload_bytes` or when the system has no memory left, ClosedError.
        """
        source = np.frombuffer(data, np.uint8)
        return self.write_parts((source,), timeout_s)

    def write_parts(self, parts: tuple[U8Array, ...], timeout_s: float | None = 0.0) -> int:
        """As `write`, for a frame that lies in several arrays of bytes."""
        size = sum(len(part) for part in parts)
        if size > self._segment.shape.payload_bytes:
            raise LocalError(
                f"frame of {size} bytes; a slot of this ring takes "
                f"{self._segment.shape.payload_bytes}"
            )
        with self._lock:
            self._refuse_if_closed()
            in_order = self._segment.shape.order is Order.IN_ORDER
            if in_order:
                # Who is let in here gets this frame; who comes later the next one.
                self._serve(0.0)
            slot = self._free_slot(timeout_s)
            if slot is not None:
                try:
                    self._fill(slot, parts, size)
                finally:
                    self._segment.locks.release(slot)
                self._segment.words[Word.NEWEST] = slot + 1
            if not in_order:
                # After the frame is there: a reader that connects too late to be told of it sees
                # it when it looks for itself.
                self._serve(0.0)
            if slot is not None:
                for reader in self._readers.values():
                    reader.ring()
            return len(self._readers)

    def close(self) -> None:
        """Remove the segment and tell the readers. May be called more than once."""
        self._closing = True
        with self._calling:  # whoever waits with the lock held is called off first
            if self._interrupt >= 0:
                os.eventfd_write(self._interrupt, 1)
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._segment.words[Word.CLOSED] = 1
            self._segment.unlink()
            self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def forget_after_fork(self) -> None:
        """In a child: let go without unlinking; the ring is the parent's."""
        self._lock = threading.Lock()  # the fork may have caught them held
        self._calling = threading.Lock()
        self._closing = True
        if not self._closed:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        self._listener.close()
        self._epoll.close()
        with self._calling:
            os.close(self._interrupt)
            self._interrupt = -1
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._payloads.clear()
        self._segment.locks.close()
        self._segment.close()

    def _refuse_if_closed(self) -> None:
        if self._closing:
            raise ClosedError("this ring is closed; make a new one")

    def _serve(self, timeout_s: float) -> None:
        knocking = False
        for fd, _ in self._epoll.poll(timeout_s):
            if fd == self._listener.fileno():
                knocking = True
            elif fd == self._interrupt:
                self._refuse_if_closed()
            else:
                # A reader says nothing: whatever comes from it is its end.
                self._drop(fd)
        if knocking:
            for connection in self._listener.accept():
                self._greet_or_cut(connection)

    def _greet_or_cut(self, connection: socket.socket) -> None:
        most = self._segment.shape.max_readers
        if len(self._readers) >= most:
            _log.warning("ring %s: one reader more than %d, cut off", self.url, most)
            cut_off(connection)
            return
        in_order = self._segment.shape.order is Order.IN_ORDER
        try:
            reader = FarReader(connection, self._sequence, one_by_one=in_order)
        except OSError as error:
            _log.warning("ring %s: a reader could not be let in: %s", self.url, error)
            return
        self._readers[connection.fileno()] = reader
        self._epoll.register(connection, select.EPOLLIN)

    def _drop(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        self._readers.pop(fd).close()

    def _free_slot(self, timeout_s: float | None) -> int | None:
        """A slot locked for writing; None when there is none and nobody may be waited for."""
        locks = self._segment.locks
        if self._segment.shape.order is Order.IN_ORDER:
            return self._next_slot(timeout_s)
        newest = self._segment.words[Word.NEWEST] - 1
        for slot in range(self._segment.shape.slots):
            if slot != newest and locks.try_exclusive(slot):
                return slot
        self.no_slot += 1
        return None

    def _next_slot(self, timeout_s: float | None) -> int:
        slots = self._segment.shape.slots
        slot = self._sequence % slots
        until_s = deadline(timeout_s)
        while True:
            slow = [reader for reader in list(self._readers.values()) if self._is_full(reader)]
            if not slow and self._segment.locks.try_exclusive(slot):
                return slot
            wait_s = left_s(until_s)
            if wait_s == 0.0:
                raise DeliveryTimeoutError(
                    f"frame not taken within {timeout_s} s: {len(slow) or 1} of "
                    f"{len(self._readers)} readers have not done with {slots} frames"
                )
            if not slow:
                # A dying process closes its connection before its locks, of which nobody tells.
                wait_s = _LOCK_LOOK_S if wait_s is None else min(wait_s, _LOCK_LOOK_S)
            self._wait_for_room(wait_s)

    def _is_full(self, reader: FarReader) -> bool:
        # The count is asked for only where it decides something: each time is a system call.
        slots = self._segment.shape.slots
        return reader.sent - reader.taken >= slots and self._unread(reader) >= slots

    def _unread(self, reader: FarReader) -> int:
        try:
            return reader.unread()
        except RemoteError as error:
            _log.warning("ring %s: %s; cut off", self.url, error)
            fd = reader.socket.fileno()
            cut_off(reader.socket)
            self._drop(fd)
            return 0

    def _wait_for_room(self, wait_s: float | None) -> None:
        """Wait until a reader is done with something, comes or goes."""
        room = select.poll()
        room.register(self._epoll.fileno(), select.POLLIN)
        for reader in self._readers.values():
            room.register(reader.taken_fd, select.POLLIN)
        room.poll(None if wait_s is None else max(wait_s * 1000.0, 1.0))
        self._serve(0.0)
        # Also of those that are not full: a frame that is kept by one reader alone comes back so.
        for reader in list(self._readers.values()):
            self._unread(reader)

    def _fill(self, slot: int, parts: tuple[U8Array, ...], size: int) -> None:
        self._segment.refuse_if_cut()
        self._segment.allocate(slot, size)
        memory = self._segment.map
        header_at = self._slot_at[slot]
        SLOT.pack_into(memory, header_at, 0, 0, 0)
        payload = self._payloads[slot]
        at = 0
        for part in parts:
            payload[at : at + len(part)] = part
            at += len(part)
        self._sequence += 1
        now_ns = time.monotonic_ns()
        SLOT.pack_into(memory, header_at, self._sequence, size, now_ns)
        self._segment.words[Word.HEARTBEAT_NS] = now_ns
