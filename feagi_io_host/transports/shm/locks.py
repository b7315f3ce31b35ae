# SPDX-License-Identifier: Apache-2.0
"""ByteLocks: locks on bytes of a file that the kernel keeps and that die with their process.

They are open-file-description locks: two open files of one process exclude each other as those of
two processes do. Taking one orders memory on every processor: who got a lock sees all that its
last holder wrote.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import weakref
from typing import Protocol

if sys.platform != "win32":  # there the room says why it cannot be used
    import fcntl


class _Forgetful(Protocol):
    def forget_after_fork(self) -> None:
        """Close descriptors that would keep locks and connections of the parent alive."""


_forgetful: weakref.WeakSet[_Forgetful] = weakref.WeakSet()


def forget_after_fork(thing: _Forgetful) -> None:
    """Have `thing.forget_after_fork()` called in each forked child, without keeping it alive."""
    _forgetful.add(thing)


def _after_fork_in_child() -> None:
    for thing in list(_forgetful):
        with contextlib.suppress(OSError):
            thing.forget_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class ByteLocks:
    """The locks of one open file. Close it when nothing is locked any more.

    The descriptor is this object's own and serves for nothing else: mappings duplicate theirs, and
    a duplicate would keep locks alive.
    """

    __slots__ = ("_exclusive", "_fd", "_shared", "_unlock")

    def __init__(self, fd: int, slots: int) -> None:
        self._fd = fd
        self._exclusive = tuple(_flock(fcntl.F_WRLCK, byte) for byte in range(slots + 1))
        self._shared = tuple(_flock(fcntl.F_RDLCK, byte) for byte in range(slots + 1))
        self._unlock = tuple(_flock(fcntl.F_UNLCK, byte) for byte in range(slots + 1))

    def take_life(self) -> bool:
        """Hold the life lock; false when somebody holds it."""
        return self._try(self._exclusive[0])

    def creator_lives(self) -> bool:
        """Whether another open file holds the life lock."""
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, self._shared[0])
        return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)

    def try_exclusive(self, slot: int) -> bool:
        """Lock a slot for writing; false when somebody reads it."""
        return self._try(self._exclusive[slot + 1])

    def try_shared(self, slot: int) -> bool:
        """Lock a slot for reading; false when it is being written."""
        return self._try(self._shared[slot + 1])

    def release(self, slot: int) -> None:
        """Unlock a slot; nothing after `close`."""
        if self._fd >= 0:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, self._unlock[slot + 1])

    def close(self) -> None:
        """Close the file, and with it every lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _try(self, lock: bytes) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, lock)
        except (BlockingIOError, PermissionError):
            return False
        return True


def _flock(kind: int, byte: int) -> bytes:
    """`struct flock` with 64-bit offsets; the process id has to be 0 for these locks."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0)
