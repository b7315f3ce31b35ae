# SPDX-License-Identifier: Apache-2.0
"""How the two sides of a segment meet, wake each other, and learn of each other's end.

The creator listens on a unix socket beside the segment. A reader connects; the creator answers
with a greeting and two eventfds:

    data   the creator adds 1 for each frame; readable means there is something new. In order it
           is a semaphore: each look takes one, and it stays readable until all were taken
    taken  the reader adds 1 for each frame it has done with

An eventfd's counter is kept by the kernel: a count that was read is ordered after all that was
written before it was added, on every processor. The connection carries nothing more; it ends with
the process at either side, whatever ends that, and so tells of deaths across containers too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from feagi_io_host.core.errors import LocalError, RemoteError

_log = logging.getLogger("feagi_io.shm")

GREETING: Final = struct.Struct("=QQ")  # greeting mark, sequence of the last frame before
_GREETING_MARK: Final = 0x4645_4147_4953_484D
_CUT_OFF: Final = b"\0"
_CREDENTIALS: Final = struct.Struct("=iII")  # pid, uid, gid
_BACKLOG: Final = 64
_ACCEPTS_AT_ONCE: Final = 16


class Doorway:
    """A listening socket beside a segment, which only this user may connect to."""

    __slots__ = ("_listener", "_spare")

    def __init__(self, path: Path) -> None:
        """Raises LocalError when it is not possible to listen there."""
        self._spare = -1
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            os.fchmod(self._listener.fileno(), 0o600)  # what the bound file will have
            self._listener.bind(str(path))
            self._listener.listen(_BACKLOG)
            self._spare = _spare_descriptor()
        except OSError as error:
            self.close()
            raise LocalError(f"cannot listen at {path}: {error.strerror or error}") from error

    def fileno(self) -> int:
        """Readable when somebody waits."""
        return self._listener.fileno()

    def accept(self) -> Iterator[socket.socket]:
        """Connections of this user and of root that wait now; others are cut off."""
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    return  # nobody waits, or the one that did has gone
                # Left waiting it would be announced for ever, and whoever listens would not rest.
                self._turn_away()
                return
            connection.setblocking(False)
            credentials = connection.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            if _CREDENTIALS.unpack(credentials)[1] in (os.geteuid(), 0):
                yield connection
            else:
                cut_off(connection)

    def close(self) -> None:
        """Stop listening; may be called more than once."""
        self._listener.close()
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1

    def _turn_away(self) -> None:
        """Cut one off with the descriptor that was kept for it."""
        _log.warning("no descriptor left to let somebody in; cut off (see ulimit -n)")
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):
            cut_off(self._listener.accept()[0])
        with contextlib.suppress(OSError):
            self._spare = _spare_descriptor()


def _spare_descriptor() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def cut_off(connection: socket.socket) -> None:
    """Refuse or end a connection, with the one word that tells this from a death."""
    with contextlib.suppress(OSError):
        connection.send(_CUT_OFF)
    connection.close()


def connect_to(path: Path) -> socket.socket:
    """Connect to a creator. Raises RemoteError when nobody listens, LocalError otherwise."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connection.connect(str(path))
    except (ConnectionRefusedError, FileNotFoundError) as error:
        connection.close()
        raise RemoteError(f"nobody listens at {path}: its process ended; register again") from error
    except OSError as error:
        connection.close()
        raise LocalError(f"cannot connect to {path}: {error.strerror or error}") from error
    return connection


class FarReader:
    """One reader, as the creator sees it."""

    __slots__ = ("data", "known", "sent", "socket", "taken", "taken_fd")

    def __init__(self, connection: socket.socket, sequence: int, *, one_by_one: bool) -> None:
        """Greets the reader; OSError when that fails (the connection is closed then)."""
        kind = os.EFD_SEMAPHORE if one_by_one else 0
        self.socket = connection
        self.sent = 0
        self.taken = 0
        self.data = self.taken_fd = -1
        try:
            self.data = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC | kind)
            self.taken_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            greeting = GREETING.pack(_GREETING_MARK, sequence)
            socket.send_fds(connection, [greeting], [self.data, self.taken_fd])
        except OSError:
            self.close()
            raise

    def ring(self) -> None:
        """One frame more."""
        self.sent += 1
        os.eventfd_write(self.data, 1)

    def unread(self) -> int:
        """Frames that were sent and not yet done with. RemoteError when more came back than went
        out."""
        with contextlib.suppress(BlockingIOError):
            self.taken += os.eventfd_read(self.taken_fd)
        if self.taken > self.sent:
            raise RemoteError(f"a reader took {self.taken} frames of {self.sent}")
        return self.sent - self.taken

    def close(self) -> None:
        """End the connection."""
        self.socket.close()
        for fd in (self.data, self.taken_fd):
            if fd >= 0:
                os.close(fd)
        self.data = self.taken_fd = -1


class ReaderEnd:
    """The creator, as a reader sees it. `fileno()` is readable when `look` has news.

    One thread looks or waits at a time; `interrupt` may be called by any.
    """

    __slots__ = (
        "__weakref__", "_data", "_epoll", "_interrupt", "_socket", "_taken", "arrived",
        "cut_off", "gone",
        "greeted_at",
    )  # fmt: skip

    def __init__(self, path: Path) -> None:
        """Connects; raises as `connect_to`."""
        self.arrived = 0
        """Frames announced so far."""
        self.greeted_at: int | None = None
        """The sequence the creator was at when it let this reader in; None before."""
        self.gone = False
        """Whether the connection has ended."""
        self.cut_off = False
        """Whether the creator ended it and lives on."""
        self._data = self._taken = -1
        self._socket = connect_to(path)
        self._interrupt = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._socket, select.EPOLLIN)
        self._epoll.register(self._interrupt, select.EPOLLIN)

    def fileno(self) -> int:
        """For an event loop to watch."""
        return self._epoll.fileno()

    def look(self, timeout_s: float | None = 0.0, *, count: bool = True) -> None:
        """Take in what there is, waiting up to `timeout_s` (None: for ever) for something.

        Without `count`, announcements are left for the next look. Raises RemoteError for a greeting
        that is none.
        """
        for fd, _ in self._epoll.poll(timeout_s):
            if fd == self._data:
                if not count:
                    continue
                self.arrived += os.eventfd_read(fd)  # readable, and nobody else reads it
            elif fd == self._socket.fileno():
                self._listen(count)

    def took(self) -> None:
        """Tell the creator that one frame is done with."""
        if self._taken >= 0:
            os.eventfd_write(self._taken, 1)

    def interrupt(self) -> None:
        """End the wait of whoever waits, and each one after it."""
        if self._interrupt >= 0:
            os.eventfd_write(self._interrupt, 1)

    def close(self) -> None:
        """End the connection. Nobody may be waiting."""
        self._epoll.close()
        self._socket.close()
        for fd in (self._data, self._taken, self._interrupt):
            if fd >= 0:
                os.close(fd)
        self._data = self._taken = self._interrupt = -1

    def _listen(self, count: bool) -> None:
        try:
            said, fds, _, _ = socket.recv_fds(self._socket, GREETING.size, 2)
        except BlockingIOError:
            return
        except OSError:
            said, fds = b"", []
        if self.greeted_at is not None or len(said) < GREETING.size or len(fds) != 2:
            # The end, or a word, which ends the connection as well.
            self.cut_off = len(said) > 0
            for fd in fds:
                os.close(fd)
            self.gone = True
            with contextlib.suppress(OSError):
                self._epoll.unregister(self._socket)
            return
        mark, sequence = GREETING.unpack(said)
        self._data, self._taken = fds
        for fd in fds:
            os.set_inheritable(fd, False)
            if mark != _GREETING_MARK or not _is_eventfd(fd):
                raise RemoteError("the creator of a segment greeted with something else")
        self.greeted_at = sequence
        self._epoll.register(self._data, select.EPOLLIN)
        # What was announced since then counts as being there already.
        if count:
            with contextlib.suppress(BlockingIOError):
                self.arrived += os.eventfd_read(self._data)


def _is_eventfd(fd: int) -> bool:
    return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]"


def deadline(timeout_s: float | None) -> float | None:
    """When a wait that begins now is over, on the monotonic clock."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def left_s(until_s: float | None) -> float | None:
    """Seconds until then, 0.0 at least."""
    return None if until_s is None else max(until_s - time.monotonic(), 0.0)
