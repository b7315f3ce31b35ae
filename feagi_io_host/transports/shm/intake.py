# SPDX-License-Identifier: Apache-2.0
"""The two ends of a sensory stream, whichever paradigm the host has.

SensoryGate    the host's: it only listens; the agent connects, says the name of its ring, and keeps
               the connection as long as it is there
SensoryLine    the agent's
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
from pathlib import Path
from typing import Final

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import (
    ClosedError,
    FeagiDataError,
    FeagiIOError,
    LocalError,
    RemoteError,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.shm.doorbell import Doorway, connect_to, cut_off
from feagi_io_host.transports.shm.header import SegmentShape
from feagi_io_host.transports.shm.locks import forget_after_fork
from feagi_io_host.transports.shm.names import (
    MOST_NAME_BYTES,
    SCHEME,
    SOCKET_SUFFIX,
    name_from_url,
    new_name,
)
from feagi_io_host.transports.shm.reader import RingReader, ShmFrame
from feagi_io_host.transports.shm.ring import DEFAULT_PAYLOAD_BYTES, RingWriter

_log = logging.getLogger("feagi_io.shm")

_MAX_CALLERS: Final = 4
_MOST_FRAMES: Final = 16  # slots of a sensory ring, of the largest frames


class SensoryGate:
    """Takes what an agent writes into a ring of its own. `url` is for the agent.

    The thread or task that serves it is its user's business: one attends, and closes it."""

    def __init__(self, max_frame_bytes: int, folder: Path) -> None:
        """Raises LocalError when there is no place to listen at."""
        self._name = new_name()
        self._folder = folder
        self._max_frame_bytes = max_frame_bytes
        # An agent does not know the limit here: a ring of the usual size is welcome.
        self._most_bytes = max(max_frame_bytes, DEFAULT_PAYLOAD_BYTES)
        self._path = folder / (self._name + SOCKET_SUFFIX)
        self._listener = Doorway(self._path)
        self._callers: dict[int, socket.socket] = {}  # connected; the ring not named yet
        self._line: socket.socket | None = None  # the one whose ring is read
        self._reader: RingReader | None = None
        self._last = 0
        self._interrupt = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._interrupt, select.EPOLLIN)
        self._lock = threading.Lock()
        self._closed = False
        forget_after_fork(self)

    @property
    def url(self) -> str:
        """`shm://<name>`."""
        return SCHEME + self._name

    def fileno(self) -> int:
        """Readable when there is something to attend to."""
        return self._epoll.fileno()

    def attend(self, agent: AttachedAgent, timeout_s: float) -> None:
        """Let the agent in, take what it wrote and submit it; waits up to `timeout_s` for that.

        Raises ClosedError when the agent was detached meanwhile.
        """
        for fd, _ in self._epoll.poll(timeout_s):
            self._attend(fd, agent)

    def wake(self) -> None:
        """End the wait of whoever attends, and each one after it. From any thread."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._interrupt, 1)

    def close(self) -> None:
        """Listen no more; nobody may be attending. May be called more than once."""
        # In this order: when the name is gone, the agent's end has been told.
        self._let_go()
        self._path.unlink(missing_ok=True)

    def forget_after_fork(self) -> None:
        """In a child: let go; the sockets are the parent's."""
        self._lock = threading.Lock()  # the fork may have caught it held
        self._let_go()

    def _attend(self, fd: int, agent: AttachedAgent) -> None:
        if fd == self._listener.fileno():
            self._let_in()
        elif fd in self._callers:
            self._hear(self._callers[fd], agent)
        elif self._line is not None and fd == self._line.fileno():
            self._drop_line()  # it has nothing more to say: this is its end
        elif self._reader is not None and fd == self._reader.fileno():
            self._take(self._reader, agent)

    def _let_in(self) -> None:
        for caller in self._listener.accept():
            if len(self._callers) >= _MAX_CALLERS:
                cut_off(caller)
                continue
            self._callers[caller.fileno()] = caller
            self._epoll.register(caller, select.EPOLLIN)

    def _hear(self, caller: socket.socket, agent: AttachedAgent) -> None:
        """The name of the caller's ring, which takes the place of the one before."""
        del self._callers[caller.fileno()]
        try:
            # So few bytes come in one piece or not at all.
            name = caller.recv(MOST_NAME_BYTES + 1).decode("ascii", "replace")
            reader = RingReader(SCHEME + name, folder=self._folder)
            # What is mapped takes addresses, no memory. The frames are looked at one by one.
            if reader.shape.total_bytes > _MOST_FRAMES * self._most_bytes:
                reader.close()
                raise LocalError(
                    f"its ring of {reader.shape.total_bytes} bytes is larger than {_MOST_FRAMES} "
                    f"frames of {self._most_bytes}"
                )
        except (OSError, FeagiIOError) as error:
            _log.warning("a sensory ring was refused: %s", error)
            cut_off(caller)
            return
        self._drop_line()
        self._line = caller  # registered already
        self._reader = reader
        self._last = 0
        self._epoll.register(reader.fileno(), select.EPOLLIN)
        # What was written before this side was connected is not announced.
        self._take(reader, agent)

    def _take(self, reader: RingReader, agent: AttachedAgent) -> None:
        try:
            frame = reader.take(0.0)
        except ClosedError:
            self._drop_line()
            return
        except FeagiIOError as error:
            _log.warning("sensory ring of %s given up: %s", agent.descriptor.agent_name, error)
            self._drop_line()
            return
        if frame is not None:
            self._submit(frame, agent)

    def _submit(self, frame: ShmFrame, agent: AttachedAgent) -> None:
        counters = agent.counters[StreamType.SENSORY]
        # Newer ones took their place before anybody saw them here: nothing of them was handed in.
        overtaken = frame.sequence - self._last - 1
        if overtaken > 0:
            counters.count_dropped("overtaken", overtaken)
        self._last = frame.sequence
        if len(frame) > self._max_frame_bytes:
            counters.count_sent(len(frame))
            counters.count_dropped("too large")
            frame.release()
            return
        with frame:
            try:
                # A view of the agent's memory: the slot is its again when the brain lets go of it.
                fbc = SharedFBC.from_bytes(frame.view)
            except FeagiDataError:
                counters.count_sent(len(frame))
                counters.count_dropped("damaged")
                return
        with fbc:
            agent.submit_sensory(fbc)

    def _drop_line(self) -> None:
        if self._reader is not None:
            self._epoll.unregister(self._reader.fileno())
            self._reader.close()
            self._reader = None
        if self._line is not None:
            self._line.close()
            self._line = None

    def _let_go(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._listener.close()
            self._epoll.close()
            os.close(self._interrupt)
            for caller in self._callers.values():
                caller.close()
            if self._reader is not None:
                self._reader.close()
            if self._line is not None:
                self._line.close()


class SensoryLine:
    """The agent's end of a SensoryIntake: a ring, and the connection over which it was named."""

    def __init__(self, url: str, shape: SegmentShape, folder: Path) -> None:
        """Raises RemoteError when nobody listens, LocalError where there is no shared memory."""
        path = folder / (name_from_url(url) + SOCKET_SUFFIX)
        self._connection = connection = connect_to(path)
        try:
            self._ring = RingWriter(shape, folder=folder)
        except BaseException:
            connection.close()
            raise
        try:
            connection.send(self._ring.url[len(SCHEME) :].encode())
        except OSError as error:
            self.close()
            raise RemoteError(
                f"{url}: the host cut this agent off at once ({error.strerror}); register again"
            ) from error

    def fileno(self) -> int:
        """A descriptor that is readable when the host has ended."""
        return self._connection.fileno()

    def send(self, data: memoryview | bytes) -> bool:
        """Put a frame in the place of the one before; False when every slot is being read, which
        readers of this library do not do. Raises ClosedError when the host has let go of this agent
        or ended, LocalError for a frame that is too large."""
        self.refuse_if_ended()
        given_up = self._ring.no_slot
        self._ring.write(data)
        return self._ring.no_slot == given_up

    def refuse_if_ended(self) -> None:
        """Raise ClosedError when the host has let go of this agent or ended."""
        try:
            gone = self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) is not None
        except BlockingIOError:
            gone = False
        except OSError:
            gone = True
        if gone:
            raise ClosedError("the host ended this agent's sensory stream; register again")

    def close(self) -> None:
        """End the stream; may be called more than once."""
        with contextlib.suppress(OSError):
            self._connection.close()
        self._ring.close()
