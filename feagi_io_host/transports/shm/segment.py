# SPDX-License-Identifier: Apache-2.0
"""Segment: one named piece of shared memory with a header, and locks that the kernel keeps.

A segment is a file in /dev/shm with mode 0600 and a name of 128 random bits. It appears there
whole, header and life lock included, and its creator alone removes it. (Python's own
`multiprocessing.shared_memory` is not used: before 3.13 its resource tracker unlinks a segment
when a mere reader of it ends.)

What may be touched by whom is said by locks on bytes of the file (see `locks`):

    byte 0        held by the creator as long as it lives
    byte 1 + k    slot k: exclusive while it is written, shared while somebody reads it
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from pathlib import Path

from feagi_io_host.core.errors import LocalError, RemoteError
from feagi_io_host.transports.shm.header import (
    PAGE_BYTES,
    SLOT_HEADER_BYTES,
    WORDS_AT,
    Creator,
    SegmentShape,
    ShmMode,
    Word,
    pack_header,
    read_header,
)
from feagi_io_host.transports.shm.locks import ByteLocks
from feagi_io_host.transports.shm.names import (
    SCHEME,
    SHM_FOLDER,
    SOCKET_SUFFIX,
    name_from_url,
    new_name,
    refuse_if_unavailable,
)
from feagi_io_host.transports.shm.stale import remove_stale


class Segment:
    """A mapped segment: made by `create`, or `attach`ed to for reading only.

    `map` is the memory, `locks` its locks, `words` the changing words of the header.
    """

    __slots__ = (
        "_allocated",
        "_fd",
        "_total_bytes",
        "creator",
        "folder",
        "locks",
        "map",
        "name",
        "shape",
        "words",
    )

    def __init__(
        self, name: str, folder: Path, fd: int, locks: ByteLocks, shape: SegmentShape,
        creator: Creator, *, writable: bool,
    ) -> None:  # fmt: skip
        """For users: see `create` and `attach`. Takes over `fd` and `locks`."""
        self.name = name
        self.folder = folder
        self.shape = shape
        self.creator = creator
        self.locks = locks
        self._fd = fd
        self._total_bytes = shape.total_bytes
        self._allocated = [0] * shape.slots
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self.map = mmap.mmap(fd, shape.total_bytes, flags=mmap.MAP_SHARED, prot=access)
        # Aligned native words: each is stored and loaded in one piece.
        self.words = memoryview(self.map)[WORDS_AT : WORDS_AT + 8 * len(Word)].cast("Q")

    @classmethod
    def create(cls, shape: SegmentShape, folder: Path = SHM_FOLDER) -> Segment:
        """A new segment, after removing those that dead processes left.

        Raises LocalError where there is no shared memory or no room for a header.
        """
        refuse_if_unavailable(folder)
        remove_stale(folder)
        name = new_name()
        creator = Creator.this_process()
        fd = -1
        locks: ByteLocks | None = None
        try:
            # Unnamed until it is whole, so that nobody finds half a segment.
            fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            os.ftruncate(fd, shape.total_bytes)
            os.posix_fallocate(fd, 0, PAGE_BYTES)
            locks = ByteLocks(os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC), shape.slots)
            locks.take_life()
            os.pwrite(fd, pack_header(shape, creator), 0)
            segment = cls(name, folder, fd, locks, shape, creator, writable=True)
            segment.beat()
            _link(fd, folder, name)
        except OSError as error:
            if locks is not None:
                locks.close()
            if fd >= 0:
                os.close(fd)
            raise LocalError(
                f"no segment of {shape.total_bytes} bytes in {folder}: {error.strerror}"
            ) from error
        return segment

    @classmethod
    def attach(cls, url: str, mode: ShmMode, folder: Path = SHM_FOLDER) -> Segment:
        """The segment `url` names, for reading.

        Every field of its header is checked before it is used. Raises RemoteError for a segment
        that is gone, cut short, of another version or mode or no segment at all, LocalError where
        there is no shared memory or this user may not open it.
        """
        refuse_if_unavailable(folder)
        name = name_from_url(url)
        path = folder / name
        fd = -1
        locks: ByteLocks | None = None
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(path, flags)
            shape, creator = read_header(fd, name)
            if shape.mode is not mode:
                raise RemoteError(f"segment {name} holds {shape.mode.name}, not {mode.name}")
            locks = ByteLocks(os.open(f"/proc/self/fd/{fd}", flags & ~os.O_NOFOLLOW), shape.slots)
            return cls(name, folder, fd, locks, shape, creator, writable=False)
        except BaseException as error:
            if locks is not None:
                locks.close()
            if fd >= 0:
                os.close(fd)
            if isinstance(error, FileNotFoundError):
                raise RemoteError(
                    f"there is no segment {name} in {folder}: its writer ended or somebody removed "
                    "it; register again"
                ) from error
            if isinstance(error, PermissionError):
                raise LocalError(f"segment {name}: user {os.geteuid()} may not read it") from error
            if isinstance(error, OSError):
                raise LocalError(f"segment {name} cannot be used: {error.strerror}") from error
            raise

    @property
    def url(self) -> str:
        """`shm://<name>`."""
        return SCHEME + self.name

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.name

    @property
    def socket_path(self) -> Path:
        """Where its creator listens for readers."""
        return self.folder / (self.name + SOCKET_SUFFIX)

    def beat(self) -> None:
        """For the creator: say that it is alive."""
        self.words[Word.HEARTBEAT_NS] = time.monotonic_ns()

    def silence_s(self) -> float:
        """Seconds since the creator's last sign of life."""
        return max(time.monotonic_ns() - self.words[Word.HEARTBEAT_NS], 0) / 1e9

    def is_unlinked(self) -> bool:
        """Whether somebody removed the name: nobody can attach any more."""
        return os.fstat(self._fd).st_nlink == 0

    def refuse_if_cut(self) -> None:
        """Raise RemoteError when the file became shorter: touching what is gone kills a process."""
        size = os.lseek(self._fd, 0, os.SEEK_END)  # at a quarter of the price of fstat
        if size < self._total_bytes:
            raise RemoteError(
                f"segment {self.name} was cut from {self._total_bytes} to {size} bytes by "
                "somebody; register again"
            )

    def allocate(self, slot: int, payload_bytes: int) -> None:
        """For the creator: memory for so much in a slot. What was allocated once stays.

        Raises LocalError when the system has none left; without this the write itself would end
        the process (SIGBUS).
        """
        if payload_bytes >= self._allocated[slot]:
            size = SLOT_HEADER_BYTES + payload_bytes
            try:
                os.posix_fallocate(self._fd, self.shape.slot_at(slot), size)
            except OSError as error:
                raise LocalError(
                    f"no room for {size} bytes in {self.folder}: {error.strerror}; make it larger "
                    "(mount -o remount,size=...; docker run --shm-size=...)"
                ) from error
            self._allocated[slot] = payload_bytes + 1

    def unlink(self) -> None:
        """For the creator: remove the names; nothing when they are gone."""
        # The segment last: if this process is killed in between, the next one finds it and knows
        # by its lock that it is dead; of a socket alone that can be known only later.
        self.socket_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the mapping, as soon as nobody looks at it any more, and of the file.

        The locks stay: they are closed by who knows that no slot is in use.
        """
        self.words.release()
        # With arrays of users still on it the mapping goes with the last of them.
        with contextlib.suppress(BufferError):
            self.map.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _link(fd: int, folder: Path, name: str) -> None:
    """Give an unnamed file its name."""
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # With a folder's descriptor Python uses linkat, which alone follows the link in /proc.
        os.link(
            f"/proc/self/fd/{fd}", name,
            src_dir_fd=folder_fd, dst_dir_fd=folder_fd, follow_symlinks=True,
        )  # fmt: skip
    finally:
        os.close(folder_fd)
