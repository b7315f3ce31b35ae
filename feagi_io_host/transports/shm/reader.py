# SPDX-License-Identifier: Apache-2.0
"""RingReader: frames out of another process's segment, without copying them.

A frame is a view of its slot, and the slot stays locked as long as anybody looks: the frame, a
memoryview, an array made from it. A reader keeps so many slots at most that the writer always
finds one; a frame beyond that is copied and counted in `copied`.
"""

from __future__ import annotations

import asyncio
import enum
import threading
import weakref
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from feagi_io_host.core.delivery import Order
from feagi_io_host.core.errors import ClosedError, LeaseError, LocalError, RemoteError
from feagi_io_host.core.voxels import U8Array
from feagi_io_host.transports.shm.doorbell import ReaderEnd, deadline, left_s
from feagi_io_host.transports.shm.header import SLOT_HEADER_BYTES, SegmentShape, ShmMode, Word
from feagi_io_host.transports.shm.locks import forget_after_fork
from feagi_io_host.transports.shm.names import SHM_FOLDER
from feagi_io_host.transports.shm.ring import SLOT
from feagi_io_host.transports.shm.segment import Segment

_SILENT_AFTER_S: Final = 1.0
# The newest slot can be overtaken while a reader reaches for it, by a writer that writes twice in
# that moment; after so many times in a row the announcement of the next frame is waited for.
_TRIES: Final = 16


class WriterState(enum.Enum):
    """What is known of the process at the other end."""

    ALIVE = "alive"
    SILENT = "silent"
    """Connected, but without a sign of life for a while: stopped, stuck or starved."""
    GONE = "gone"
    """It closed the ring, cut this reader off, or died."""


class ShmFrame:
    """One frame. Everything it gives is read-only and shares the writer's memory.

    `sequence` counts the writer's frames from 1, `written_at_ns` is its monotonic clock. `release`
    it, or leave its `with`, as soon as possible: a slot that is kept cannot be written.
    """

    __slots__ = ("_array", "sequence", "written_at_ns")

    def __init__(self, array: U8Array, sequence: int, written_at_ns: int) -> None:
        """For users: see `RingReader.take`."""
        self._array: U8Array | None = array
        self.sequence = sequence
        self.written_at_ns = written_at_ns

    @property
    def array(self) -> U8Array:
        """The bytes, as an array. Arrays and memoryviews made from it keep the slot."""
        if self._array is None:
            raise LeaseError("frame used after its release")
        return self._array

    @property
    def view(self) -> memoryview:
        """The bytes."""
        return self.array.data

    def __len__(self) -> int:
        return len(self.array)

    def release(self) -> None:
        """Look at it no more. May be called more than once."""
        self._array = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class RingReader:
    """Reads the ring that `url` names.

    One thread or task takes at a time; `close` from any. `fileno()` is readable when there may be
    something to take, for event loops other than asyncio's.
    """

    def __init__(self, url: str, *, mode: ShmMode = ShmMode.FBC, folder: Path = SHM_FOLDER) -> None:
        """Raises RemoteError when there is no such ring, its process ended, or it is of another
        version or mode; LocalError where there is no shared memory."""
        self.copied = 0
        """Frames that were copied: too many were kept, or the writer had not let this reader in."""
        self.skipped = 0
        """Frames that were replaced by newer ones before they were taken."""
        self._segment = segment = Segment.attach(url, mode, folder)
        try:
            self._end = ReaderEnd(segment.socket_path)
        except BaseException:
            segment.locks.close()
            segment.close()
            raise
        shape = segment.shape
        self._in_order = shape.order is Order.IN_ORDER
        # So many slots that the writer still finds one, whatever the other readers keep.
        self._may_keep = (
            shape.slots - 1 if self._in_order else (shape.slots - 2) // shape.max_readers
        )
        self._slot_at = tuple(shape.slot_at(slot) for slot in range(shape.slots))
        # Made once: what a frame costs here comes on top of the time it takes to wake up.
        self._when_gone = tuple(partial(self._slot_is_free, slot) for slot in range(shape.slots))
        self._kept: dict[int, weakref.ref[U8Array]] = {}
        self._last = 0  # sequence of the frame taken last
        self._seen = 0  # in order: how many announced frames were taken
        # Re-entrant: the end of a kept array may come in the middle of anything.
        self._lock = threading.RLock()
        self._users = 0
        self._closed = False
        self._disposed = False
        forget_after_fork(self)

    @property
    def url(self) -> str:
        """`shm://<name>`."""
        return self._segment.url

    @property
    def shape(self) -> SegmentShape:
        """Sizes, mode and order."""
        return self._segment.shape

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def kept(self) -> int:
        """Slots that frames of this reader occupy now."""
        return len(self._kept)

    def fileno(self) -> int:
        """For an event loop to watch for reading."""
        return self._end.fileno()

    def writer_state(self, silent_after_s: float = _SILENT_AFTER_S) -> WriterState:
        """How the writer is. Raises ClosedError."""
        with _Use(self):
            self._end.look(count=False)  # a frame that is announced is still to be taken
            if self._end.gone or self._segment.words[Word.CLOSED]:
                return WriterState.GONE
            silent = self._segment.silence_s() > silent_after_s
            return WriterState.SILENT if silent else WriterState.ALIVE

    def take(self, timeout_s: float | None = None) -> ShmFrame | None:
        """The next frame, or the newest, as the ring's order says; None when `timeout_s` passed.

        None waits for ever, 0 does not wait. Raises ClosedError when this reader is closed or the
        writer closed the ring, died (the message says which) or cut this reader off; RemoteError
        when somebody cut the memory or writes nonsense into it.
        """
        until_s = deadline(timeout_s)
        self._enter()
        try:
            self._end.look()
            while True:
                frame = self._take_what_is_there()
                if frame is not None:
                    return frame
                wait_s = left_s(until_s)
                if wait_s == 0.0:
                    return None
                self._end.look(wait_s)
        finally:
            self._leave()

    async def take_async(self, timeout_s: float | None = None) -> ShmFrame | None:
        """As `take`, waiting in the running event loop. A cancelled call takes nothing."""
        until_s = deadline(timeout_s)
        loop = asyncio.get_running_loop()
        with _Use(self):
            while True:
                self._end.look()
                frame = self._take_what_is_there()
                if frame is not None:
                    return frame
                wait_s = left_s(until_s)
                if wait_s == 0.0:
                    return None
                readable: asyncio.Future[None] = loop.create_future()
                loop.add_reader(self._end.fileno(), _resolve, readable)
                try:
                    async with asyncio.timeout(wait_s):
                        await readable
                except TimeoutError:
                    continue
                finally:
                    loop.remove_reader(self._end.fileno())

    def close(self) -> None:
        """End: who waits gets ClosedError; frames that are kept stay as they are.

        May be called more than once.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                self._end.interrupt()
            self._dispose_when_idle()

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
        """In a child: let go; connection and locks are the parent's."""
        self._lock = threading.RLock()  # the fork may have caught it held
        self._users = 0
        self._closed = True
        self._kept.clear()
        self._dispose_when_idle()

    # -- taking -------------------------------------------------------------------------------

    def _take_what_is_there(self) -> ShmFrame | None:
        if self._closed:
            raise ClosedError("this reader is closed; make a new one")
        if self._end.gone or self._segment.words[Word.CLOSED]:
            # Also what lies there unread: old commands of a dead brain move nobody.
            raise ClosedError(self._why_gone())
        if self._in_order and self._end.greeted_at is None:
            return None
        self._segment.refuse_if_cut()
        return self._take_next() if self._in_order else self._take_newest()

    def _take_newest(self) -> ShmFrame | None:
        slots = len(self._slot_at)
        for _ in range(_TRIES):
            slot = self._segment.words[Word.NEWEST] - 1
            if slot < 0:
                return None
            if slot >= slots:
                raise RemoteError(f"{self.url}: newest slot {slot} of {slots}; register again")
            # A look without the lock saves taking it; what it says is not relied on.
            if SLOT.unpack_from(self._segment.map, self._slot_at[slot])[0] == (self._last):
                return None
            if slot in self._kept or not self._segment.locks.try_shared(slot):
                continue
            frame = self._frame_in(slot)
            if frame is not None:
                self.skipped += max(frame.sequence - self._last - 1, 0) if self._last else 0
                self._last = frame.sequence
                return frame
        return None

    def _take_next(self) -> ShmFrame | None:
        if self._seen >= self._end.arrived:
            return None
        assert self._end.greeted_at is not None
        wanted = self._end.greeted_at + self._seen + 1
        slot = (wanted - 1) % self._segment.shape.slots
        if not self._segment.locks.try_shared(slot):
            raise RemoteError(f"{self.url}: frame {wanted} was announced and is still written to")
        frame = self._frame_in(slot)
        if frame is None or frame.sequence != wanted:
            found = "none" if frame is None else str(frame.sequence)
            raise RemoteError(f"{self.url}: frame {wanted} was announced, slot has {found}")
        self._seen += 1
        self._last = wanted
        return frame

    def _frame_in(self, slot: int) -> ShmFrame | None:
        """The frame in a slot that is locked; None, and unlocked, when it is not a newer one."""
        shape = self._segment.shape
        at = self._slot_at[slot]
        sequence, size, written_at_ns = SLOT.unpack_from(self._segment.map, at)
        if sequence <= self._last:
            self._segment.locks.release(slot)
            return None
        if size > shape.payload_bytes:
            self._segment.locks.release(slot)
            raise RemoteError(
                f"{self.url}: frame of {size} bytes in a slot of {shape.payload_bytes}"
            )
        array: U8Array = np.frombuffer(self._segment.map, np.uint8, size, at + SLOT_HEADER_BYTES)
        if len(self._kept) >= self._may_keep or self._end.greeted_at is None:
            array = array.copy()
            array.flags.writeable = False
            self.copied += 1
            self._done_with(slot)
        else:
            self._keep(slot, array)
        return ShmFrame(array, sequence, written_at_ns)

    def _keep(self, slot: int, array: U8Array) -> None:
        """Have the slot given back when the last view of `array` is gone.

        Views of it, by whatever library, keep the object `array` itself alive: it does not own
        its memory, and what it is made from is no array.
        """
        self._kept[slot] = weakref.ref(array, self._when_gone[slot])

    def _slot_is_free(self, slot: int, _: weakref.ref[U8Array]) -> None:
        with self._lock:
            if self._kept.pop(slot, None) is None:  # a forked child's copy
                return
            self._done_with(slot)
            if self._closed:
                self._dispose_when_idle()

    def _done_with(self, slot: int) -> None:
        self._segment.locks.release(slot)
        if self._in_order and not self._disposed:
            self._end.took()

    # -- ends ---------------------------------------------------------------------------------

    def _why_gone(self) -> str:
        if self._segment.words[Word.CLOSED]:
            return f"{self.url} was closed by its writer, {self._segment.creator}"
        if self._end.cut_off:
            return (
                f"{self.url}: cut off by its writer, {self._segment.creator}, which takes "
                f"{self._segment.shape.max_readers} readers"
            )
        return f"{self.url}: its writer, {self._segment.creator}, died; register again"

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise ClosedError("this reader is closed; make a new one")
            if self._users:
                raise LocalError("another thread or task takes from this reader")
            self._users = 1

    def _leave(self) -> None:
        with self._lock:
            self._users = 0
            self._dispose_when_idle()

    def _dispose_when_idle(self) -> None:
        """Let go of what nobody uses any more; called with the lock held."""
        if not self._closed or self._users:
            return
        if not self._disposed:
            self._disposed = True
            self._end.close()
            self._segment.close()
        if not self._kept:
            self._segment.locks.close()


class _Use:
    """The time in which the reader's descriptors must stay open."""

    __slots__ = ("_reader",)

    def __init__(self, reader: RingReader) -> None:
        self._reader = reader

    def __enter__(self) -> None:
        self._reader._enter()

    def __exit__(self, *_: object) -> None:
        self._reader._leave()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
