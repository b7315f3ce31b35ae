# SPDX-License-Identifier: Apache-2.0
"""What the real engine's three shared-memory files have in common: opening, mapping, replacing.

The layouts are those in the source of the FEAGI 2.x engine (feagi-core 2.6.10 ships the code, not
reachable yet): no wake, no lock, no sequence lock. A reader polls, copies, and looks again.

This side of the library adds what such files allow: a file appears whole under its name, a slot's
length is 0 while it is written, and memory is ordered around each publication.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import stat
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from feagi_io_host.core.errors import ClosedError, LocalError, RemoteError

HEADER_BYTES: Final = 256
MAGIC_BYTES: Final = 8
ENGINE_VERSION: Final = 1
MAX_FILE_BYTES: Final = 4 << 30

POLL_S: Final = 1e-3  # as the engine polls
_LOOK_AT_NAME_S: Final = 0.1
_fence = threading.Lock()


def order_memory() -> None:
    """Have what was written or read before this ordered before what comes after it.

    Giving a lock back and taking it again does that on every processor.
    """
    with _fence:
        pass
    with _fence:
        pass


class EngineFile:
    """A file of the engine's, mapped. A base for readers and writers; one thread uses it, `close`
    is for any."""

    def __init__(self, path: Path, fd: int, size: int, *, writable: bool) -> None:
        """For subclasses; takes over `fd`."""
        self.path = path
        self._fd = fd
        self._size = size
        self._closing = threading.Event()
        self._using = threading.Lock()
        self._disposed = False
        self._looked_at_name_s = time.monotonic()
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        try:
            self._map = mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=access)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """End; who waits gets ClosedError. May be called more than once."""
        self._closing.set()
        with self._using:
            if not self._disposed:
                self._disposed = True
                self._dispose()
                self._map.close()
                os.close(self._fd)

    def _dispose(self) -> None:
        """For subclasses: the last moment with the file open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def is_replaced(self) -> bool:
        """Whether the name now stands for another file, or for none."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return True
        here = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _refuse_if_closed(self) -> None:
        if self._closing.is_set():
            raise ClosedError(f"{self.path} was closed by this program; open it again")

    def _refuse_if_cut(self) -> None:
        """A file that became shorter kills who touches what is gone."""
        size = os.fstat(self._fd).st_size
        if size < self._size:
            raise RemoteError(f"{self.path} was cut from {self._size} to {size} bytes")

    def _pause(self, until_s: float | None) -> bool:
        """Wait until it is time to poll again; false when `until_s` has come.

        Raises ClosedError when this side closed, or the writer's file is gone from its name.
        """
        now_s = time.monotonic()
        if now_s - self._looked_at_name_s > _LOOK_AT_NAME_S:
            self._looked_at_name_s = now_s
            if self.is_replaced():
                raise ClosedError(f"{self.path} was removed or replaced; open it again")
        if until_s is not None and now_s >= until_s:
            return False
        wait_s = POLL_S if until_s is None else min(POLL_S, until_s - now_s)
        self._closing.wait(wait_s)
        self._refuse_if_closed()
        return True


def open_for_reading(path: Path, magic: bytes) -> tuple[int, bytes, int]:
    """The descriptor, the header and the size of a file that starts with `magic`, version 1.

    Raises RemoteError for another file, or none; LocalError when this user may not read it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise RemoteError(f"there is no {path}: the engine does not use shared memory") from error
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from error
    try:
        facts = os.fstat(fd)
        header = os.pread(fd, HEADER_BYTES, 0) if stat.S_ISREG(facts.st_mode) else b""
        found = header[:MAGIC_BYTES]
        if len(header) < HEADER_BYTES or found != magic:
            raise RemoteError(
                f"{path}: {len(header)} bytes of header beginning with {found!r}; {HEADER_BYTES} "
                f"beginning with {magic!r} expected"
            )
        version = int.from_bytes(header[8:12], "little")
        if version != ENGINE_VERSION:
            raise RemoteError(f"{path}: version {version}; version {ENGINE_VERSION} can be read")
    except BaseException:
        os.close(fd)
        raise
    return fd, header, facts.st_size


def check_size(path: Path, fd: int, declared: int, actual: int) -> None:
    """Close `fd` and raise RemoteError when a file cannot be what its header says."""
    if not HEADER_BYTES < declared <= min(actual, MAX_FILE_BYTES):
        os.close(fd)
        raise RemoteError(
            f"{path}: its header makes it {declared} bytes, it has {actual}; {MAX_FILE_BYTES} at "
            "most can be read"
        )


def make_whole(path: Path, header: bytes, size: int) -> int:
    """Create a file of `size` bytes with this header, in the place of what had the name before.

    Mode 0600; memory is taken for the header only. Raises LocalError.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = -1
    try:
        fd = os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size)
        os.posix_fallocate(fd, 0, HEADER_BYTES)
        os.pwrite(fd, header.ljust(HEADER_BYTES, b"\0"), 0)
        os.rename(new, path)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        with contextlib.suppress(OSError):
            new.unlink()
        raise LocalError(f"{path} of {size} bytes cannot be made: {error.strerror}") from error
    return fd


def take_memory(path: Path, fd: int, at: int, size: int) -> None:
    """Have memory for a part of the file. Raises LocalError when the system has none left."""
    try:
        os.posix_fallocate(fd, at, size)
    except OSError as error:
        raise LocalError(f"no room for {size} bytes in {path}: {error.strerror}") from error
