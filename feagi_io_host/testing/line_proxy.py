# SPDX-License-Identifier: Apache-2.0
"""LineImpairmentProxy: a bad wire between a bridge and a board whose line is socket://host:port.

    with LineImpairmentProxy("127.0.0.1", port, seed=7) as wire:
        bridge = BoardBridge(pns, [wire.url])
        wire.back = LineFaults(corrupt=0.01)  # what the board says; `towards` is what it hears

The fate of the n-th byte of one direction of a connection depends on the seed and n alone: who
sends the same sees the same again.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import threading
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Final, Literal, Self

from feagi_io_host.core.errors import ClosedError, ConfigError, StopTimeoutError

Direction = Literal["towards", "back"]

_CHUNK: Final = 4096
_MOST_WAITING: Final = 1 << 16  # bytes held back by a stall or a slow end; then nothing is read
_CONNECT_S: Final = 5.0
_STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class LineFaults:
    """How bad one direction is: the shares of bytes that are left out (`drop`), changed
    (`corrupt`), and put in from nowhere (`insert`). Raises ConfigError outside 0 to 1."""

    drop: float = 0.0
    corrupt: float = 0.0
    insert: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{field.name} is {value}; 0 to 1 needed")


class LineImpairmentProxy:
    """Passes the bytes of one TCP connection at a time on to `host:port` and back, badly.

    `towards` and `back` may be set while it runs, and `say` puts bytes of a stranger into either
    direction. `stall` holds everything back until `go_on`; `cut` ends the connection as a plug that
    is pulled does, and the next one is let in. What was done to bytes is counted.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        towards: LineFaults | None = None,
        back: LineFaults | None = None,
        seed: int = 0,
    ) -> None:
        self.towards = towards or LineFaults()
        self.back = back or LineFaults()
        self._target = (host, port)
        self._seed = seed
        self._lock = threading.Lock()
        self._counters: dict[Direction, dict[str, int]] = {
            "towards": dict.fromkeys(("passed", "dropped", "corrupted", "inserted"), 0),
            "back": dict.fromkeys(("passed", "dropped", "corrupted", "inserted"), 0),
        }
        self._front = socket.create_server(("127.0.0.1", 0))
        self._front.setblocking(False)
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._ends: dict[Direction, _Way] = {}
        self._said: list[tuple[Direction, bytes]] = []
        self._cut_wanted = False
        self._stalled = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="line impairment proxy", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The line to open instead."""
        return f"socket://127.0.0.1:{self._front.getsockname()[1]}"

    def counters(self) -> dict[Direction, dict[str, int]]:
        """Per direction: bytes `passed`, `dropped`, `corrupted`, `inserted`."""
        with self._lock:
            return {way: dict(counts) for way, counts in self._counters.items()}

    def say(self, way: Direction, data: bytes) -> None:
        """Put bytes into one direction, between those that pass. Lost without a connection."""
        if self._stopping:
            raise ClosedError("the proxy was stopped")
        with self._lock:
            self._said.append((way, bytes(data)))
        self._wake()

    def stall(self) -> None:
        """Let nothing pass until `go_on`."""
        self._stalled = True

    def go_on(self) -> None:
        """End a stall; what was held back comes in one piece."""
        self._stalled = False
        self._wake()

    def cut(self) -> None:
        """End the connection at both ends."""
        self._cut_wanted = True
        self._wake()

    def stop(self) -> None:
        """End the proxy. May be called more than once."""
        if self._stopping:
            return
        self._stopping = True
        self._wake()
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            raise StopTimeoutError(f"line proxy did not end within {_STOP_S} s")
        os.close(self._wake_read)
        os.close(self._wake_write)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- the thread ---------------------------------------------------------------------------

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._front, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            try:
                while not self._stopping:
                    self._watch(selector)
                    for key, events in selector.select():
                        if key.fd == self._wake_read:
                            os.read(self._wake_read, _CHUNK)
                        elif key.fileobj is self._front:
                            self._accept(selector)
                        else:
                            self._move(selector, key.data, events)
                    self._attend(selector)
            finally:
                self._hang_up(selector)
                self._front.close()

    def _attend(self, selector: selectors.BaseSelector) -> None:
        """What was asked for by `cut` and `say`."""
        if self._cut_wanted:
            self._cut_wanted = False
            self._hang_up(selector)
        with self._lock:
            said, self._said = self._said, []
        for way, data in said:
            if way in self._ends:
                self._ends[way].waiting += data

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            near, _ = self._front.accept()
        except BlockingIOError:
            return
        self._hang_up(selector)
        try:
            far = socket.create_connection(self._target, _CONNECT_S)
        except OSError:
            near.close()
            return
        for line in (near, far):
            line.setblocking(False)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ends = {
            "towards": _Way("towards", near, far, random.Random(f"{self._seed} towards")),
            "back": _Way("back", far, near, random.Random(f"{self._seed} back")),
        }
        for way in self._ends.values():
            # Each socket is watched once: read for its own way, written for the other one.
            selector.register(way.source, selectors.EVENT_READ, way.name)

    def _watch(self, selector: selectors.BaseSelector) -> None:
        for way in self._ends.values():
            other = self._ends["back" if way.name == "towards" else "towards"]
            events = 0
            if len(way.waiting) < _MOST_WAITING:
                events |= selectors.EVENT_READ
            if other.waiting and not self._stalled:
                events |= selectors.EVENT_WRITE
            # Nothing to watch for is not allowed: then its end is noticed when bytes move again.
            if events:
                try:
                    selector.modify(way.source, events, way.name)
                except KeyError:
                    selector.register(way.source, events, way.name)
            else:
                with contextlib.suppress(KeyError):
                    selector.unregister(way.source)

    def _move(self, selector: selectors.BaseSelector, name: Direction, events: int) -> None:
        if name not in self._ends:
            return  # hung up by what came before it
        way = self._ends[name]
        other = self._ends["back" if name == "towards" else "towards"]
        try:
            if events & selectors.EVENT_READ:
                data = way.source.recv(_CHUNK)
                if not data:
                    self._hang_up(selector)
                    return
                self._spoil(way, data)
            if events & selectors.EVENT_WRITE and other.waiting:
                sent = other.target.send(other.waiting)
                del other.waiting[:sent]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._hang_up(selector)

    def _spoil(self, way: _Way, data: bytes) -> None:
        faults = self.towards if way.name == "towards" else self.back
        chance = way.random.random
        counts = dict.fromkeys(("passed", "dropped", "corrupted", "inserted"), 0)
        for byte in data:
            # Four throws a byte, whatever becomes of it: its fate hangs on its place alone.
            inserted, dropped, corrupted, change = chance(), chance(), chance(), chance()
            if inserted < faults.insert:
                way.waiting.append(int(change * 256))
                counts["inserted"] += 1
            if dropped < faults.drop:
                counts["dropped"] += 1
                continue
            if corrupted < faults.corrupt:
                byte ^= 1 + int(change * 255)
                counts["corrupted"] += 1
            way.waiting.append(byte)
            counts["passed"] += 1
        with self._lock:
            for reason, count in counts.items():
                self._counters[way.name][reason] += count

    def _hang_up(self, selector: selectors.BaseSelector) -> None:
        for way in self._ends.values():
            with contextlib.suppress(KeyError):
                selector.unregister(way.source)
            way.source.close()
        self._ends = {}


class _Way:
    """One direction of the connection there is: `waiting` are the bytes on their way."""

    def __init__(
        self,
        name: Direction,
        source: socket.socket,
        target: socket.socket,
        chance: random.Random,
    ) -> None:
        self.name = name
        self.source = source
        self.target = target
        self.random = chance
        self.waiting = bytearray()
