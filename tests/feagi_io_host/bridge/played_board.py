# SPDX-License-Identifier: Apache-2.0
"""A board played by the test: a BoardLink, in a thread, behind a PTY or a TCP socket.

What it sends and receives are real bytes; nothing of the bridge is replaced.
"""

from __future__ import annotations

import json
import os
import queue
import selectors
import socket
import threading
import time
import tty
from collections.abc import Callable
from typing import Any, Protocol, Self

from feagi_wire.board_link import BoardLink
from feagi_wire.const import CONNECTED, END, EV_DATA, EV_UP, LINK_HEADER, STREAM_SENSORY
from feagi_wire.container import StaticFBC
from feagi_wire.framing import frame_bytes

DEADLINE_S = 10.0
SENSOR = b"iagp\x01\x00\x00\x00"
MOTOR = b"omot\x05\x00\x00\x00"
CART: dict[str, Any] = {
    "name": "cart",
    "uid": "0badcafe",
    "fw": "played by a test",
    "sensors": [{"u": "iagp", "t": 1, "s": 0, "g": 0, "f": 0, "n": 4, "r": 256, "c": 0}],
    "motors": [{"u": "omot", "t": 5, "s": 0, "g": 0, "f": 0, "n": 1, "r": 255, "c": 1}],
}


class Line(Protocol):
    """The board's end of a line, and the address under which the bridge finds the other."""

    address: str

    def fileno(self) -> int: ...
    def read(self, size: int) -> bytes: ...
    def write(self, data: bytes | memoryview) -> int: ...
    def close(self) -> None: ...


class PtyLine:
    """A pseudo terminal; the bridge opens `address`."""

    def __init__(self, link_path: str | None = None) -> None:
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave)
        os.set_blocking(self.master, False)
        self.address = os.ttyname(self.slave)
        if link_path is not None:
            os.symlink(self.address, link_path + ".new")
            os.replace(link_path + ".new", link_path)
            self.address = link_path

    def fileno(self) -> int:
        return self.master

    def read(self, size: int) -> bytes:
        try:
            return os.read(self.master, size)
        except BlockingIOError:
            return b""

    def write(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0

    def wait_for_host(self) -> None:
        """Wait until the bridge has opened the line and spoken: what stood in it before is lost."""
        os.set_blocking(self.master, True)
        while not any(os.read(self.master, 4096)):
            pass
        os.set_blocking(self.master, False)

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        for fd in (self.master, self.slave):
            if fd >= 0:
                os.close(fd)
        self.master = self.slave = -1


class TcpLine:
    """A TCP server of one connection; the bridge opens socket://."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(DEADLINE_S)
        self.address = f"socket://127.0.0.1:{self.server.getsockname()[1]}"
        self.connection: socket.socket | None = None

    def accept(self) -> None:
        self.connection, _ = self.server.accept()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection.setblocking(False)

    def _peer(self) -> socket.socket:
        assert self.connection is not None
        return self.connection

    def fileno(self) -> int:
        return self._peer().fileno()

    def read(self, size: int) -> bytes:
        try:
            return self._peer().recv(size)
        except BlockingIOError:
            return b""

    def write(self, data: bytes | memoryview) -> int:
        try:
            return self._peer().send(data)
        except BlockingIOError:
            return 0

    def hang_up(self) -> None:
        self._peer().close()

    def close(self) -> None:
        self.server.close()
        if self.connection is not None:
            self.connection.close()


class PlayedBoard:
    """Runs a BoardLink over `line` in a thread, from `start` to `stop`.

    Frames that come in are put into `frames` as (stream, bytes). `mute` makes it stop talking,
    `deaf` stop reading.
    """

    def __init__(
        self,
        line: Line,
        declaration: dict[str, Any] | bytes = CART,
        *,
        max_container: int = 4096,
        before: Callable[[BoardLink], None] | None = None,
    ) -> None:
        self.line = line
        text = declaration if isinstance(declaration, bytes) else json.dumps(declaration).encode()
        room = max(max_container, len(text) + 64)
        self.link = BoardLink(
            bytearray(frame_bytes(room + LINK_HEADER)),
            StaticFBC(bytearray(max_container + 4)),
            text,
        )
        if before is not None:
            before(self.link)
        self.frames: queue.Queue[tuple[int, bytes]] = queue.Queue()
        self.up = threading.Event()
        self.mute = threading.Event()
        self.deaf = threading.Event()
        self._seen: queue.Queue[int] = queue.Queue()
        self._lock = threading.Lock()
        self._out: queue.SimpleQueue[bytes | threading.Event] = queue.SimpleQueue()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="played-board", daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stopping.set()
        self._wake_w.send(b"x")
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        self._wake_r.close()
        self._wake_w.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def send(self, data: bytes, stream: int = STREAM_SENSORY) -> None:
        """Send a container as soon as the line is free."""
        self._out.put(bytes([stream]) + data)
        self._wake_w.send(b"x")

    def send_raw(self, data: bytes) -> None:
        """Put bytes on the line that are no frame."""
        self._out.put(b"\xff" + data)
        self._wake_w.send(b"x")

    def wait_until_sent(self) -> None:
        """Wait until everything handed in so far has been put on the line."""
        done = threading.Event()
        self._out.put(done)
        self._wake_w.send(b"x")
        assert done.wait(DEADLINE_S)

    def wait_for(self, event: int, times: int = 1) -> None:
        """Wait until the link has reported `event` so many times."""
        while times:
            times -= bool(self._seen.get(timeout=DEADLINE_S) & event)

    def log(self, level: int, text: bytes) -> None:
        with self._lock:
            assert self.link.log(level, text) == 0

    def _ticks(self) -> int:
        return int(time.monotonic() * 1000) & 0x3FFFFFFF

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self.line.fileno(), selectors.EVENT_READ)
        selector.register(self._wake_r, selectors.EVENT_READ)
        waiting: bytes | threading.Event | None = None
        with selector:
            while not self._stopping.is_set():
                for key, _ in selector.select(0.005):
                    if key.fileobj is self._wake_r:
                        self._wake_r.recv(4096)
                    elif not self.deaf.is_set():
                        self._receive(self._read())
                if self.mute.is_set():
                    continue
                with self._lock:
                    self._seen.put(self.link.tick(self._ticks()))
                while True:
                    self._flush()
                    if waiting is None:
                        if self._out.empty():
                            break
                        waiting = self._out.get()
                    if not self._put(waiting):
                        break
                    waiting = None
                with self._lock:
                    if self.link.may_switch():  # a terminal carries at every rate
                        self.link.resume(self._ticks())

    def _receive(self, data: bytes) -> None:
        at = 0
        while True:
            with self._lock:
                events = self.link.receive(data, at, len(data), self._ticks())
            if events == END:
                return
            at = self.link.index
            self._seen.put(events)
            if events & EV_DATA:
                self.frames.put((self.link.stream, bytes(self.link.rx.buf[: self.link.length])))
            if events & EV_UP:
                self.up.set()

    def _read(self) -> bytes:
        try:
            return self.line.read(4096)
        except OSError:  # the bridge has closed its end, or the test has hung up
            self._stopping.wait(0.005)
            return b""

    def _flush(self) -> None:
        link = self.link
        while link.pending():
            try:
                count = self.line.write(memoryview(link.framer.tx)[link.tx_pos : link.tx_len])
            except OSError:
                return
            if not count:
                return
            link.written(count)

    def _put(self, item: bytes | threading.Event) -> bool:
        """Put one item on the line; False when it has to wait."""
        if isinstance(item, threading.Event):
            item.set()
            return True
        if item[0] == 0xFF:
            rest = item[1:]
            while rest and not self._stopping.is_set():
                rest = rest[self.line.write(rest) :]
            return True
        if self.link.state != CONNECTED or self.link.pending():
            return False
        fbc = StaticFBC(bytearray(len(item) + 3))
        fbc.buf[: len(item) - 1] = item[1:]
        assert self.link.send(item[0], fbc, len(item) - 1, self._ticks()) > 0
        return True
