# SPDX-License-Identifier: Apache-2.0
"""Lobby: the connections of a server that have not become anything yet, and what they may do.

A connection begins as a stranger. On the path of control it may send some small messages until it
has registered; on the path of a stream it is that stream's at once. There is room for so many
strangers; then the one that has been there longest has to go, so that who floods the server only
keeps out those who are as slow as the flood.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode

from feagi_io_host.transports.websocket.line import Line

# A browser with cookies sends some kilobytes.
MAX_HANDSHAKE_BYTES: Final = 16 << 10
# Messages of one that is not registered; a registration takes one.
MAX_STRANGE_MESSAGES: Final = 64


class ServerLine(ServerConnection, Line):
    """The server's side of a connection."""

    def __init__(self, lobby: Lobby, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._lobby = lobby
        self._over: asyncio.Future[None] = self.loop.create_future()
        self.opened_at_s = self.loop.time()
        self.strange_messages = 0
        self._shaking_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For the loop: somebody has connected."""
        super().connection_made(transport)
        self._lobby.enter(self)

    def data_received(self, data: bytes) -> None:
        """For the loop: bytes have come."""
        if self.request is None:
            # The library bounds lines and their number, a megabyte in all, for anybody.
            self._shaking_bytes += len(data)
            if self._shaking_bytes > MAX_HANDSHAKE_BYTES:
                self.transport.abort()
                return
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """For the loop: the connection is gone."""
        self._lobby.forget(self)
        super().connection_lost(exc)

    def end(self, code: int, reason: str) -> None:
        """Close, with a code of RFC 6455 section 7.4 and words for people; once."""
        if self.is_open:
            self._lobby.ended[int(code)] += 1
        super().end(code, reason)

    def ended(self) -> None:
        """The line is to be closed: the library sees to it, within its deadline."""
        if not self._over.done():
            self._over.set_result(None)

    async def wait_until_over(self) -> None:
        """Until the line is to be closed."""
        await self._over


class Lobby:
    """Belongs to its event loop. `on_lost(line)` is called for each that is gone."""

    def __init__(self, most_strangers: int, register_timeout_s: float) -> None:
        self._most_strangers = most_strangers
        self._register_timeout_s = register_timeout_s
        self._strangers: dict[ServerLine, None] = {}  # in the order in which they came
        self.lines: set[ServerLine] = set()
        self.ended: Counter[int] = Counter()
        self._closed = False
        self.crowded = 0
        self.not_found = 0
        self.bad_origins = 0

    def close(self, code: int, reason: str) -> None:
        """End all of them; who connects from here on is cut off."""
        self._closed = True
        for line in tuple(self.lines):
            line.end(code, reason)

    def make(self, *args: Any, **settings: Any) -> ServerLine:
        """For the library: a connection."""
        return ServerLine(self, *args, **settings)

    def enter(self, line: ServerLine) -> None:
        """Somebody has connected."""
        self.lines.add(line)
        if self._closed:  # accepted in the moment of the end
            line.transport.abort()
            return
        self._strangers[line] = None
        if len(self._strangers) > self._most_strangers:
            self.crowded += 1
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.transport.abort()

    def forget(self, line: ServerLine) -> None:
        """A connection is gone."""
        self.lines.discard(line)
        self._strangers.pop(line, None)

    def know(self, line: ServerLine) -> None:
        """This one has shown who it is."""
        self._strangers.pop(line, None)

    def estrange(self, line: ServerLine) -> None:
        """The agent of this one has left; it may register again, in good time."""
        if line in self.lines and line.is_open:
            line.opened_at_s = line.loop.time()
            line.strange_messages = 0
            self._strangers[line] = None

    def hear_stranger(self, line: ServerLine) -> bool:
        """A message of one that is not registered; false when there were too many."""
        line.strange_messages += 1
        if line.strange_messages > MAX_STRANGE_MESSAGES:
            line.end(
                CloseCode.POLICY_VIOLATION,
                f"{MAX_STRANGE_MESSAGES} messages without a registration",
            )
            return False
        return True

    def look_around(self, tend: Callable[[ServerLine], object]) -> None:
        """End those that did not register in time; `tend` is called with every one."""
        for line in tuple(self._strangers):
            waited_s = line.loop.time() - line.opened_at_s
            if waited_s > self._register_timeout_s and line.is_open:
                line.end(CloseCode.POLICY_VIOLATION, f"not registered within {waited_s:.1f} s")
        for line in tuple(self.lines):
            tend(line)

    def counters(self) -> dict[str, Any]:
        """`crowded`: strangers that had to go; `not_found` and `bad_origins`: refused in the
        handshake; `ended`: by close code, connections that the server has closed; `connections`
        now."""
        return {
            "crowded": self.crowded,
            "not_found": self.not_found,
            "bad_origins": self.bad_origins,
            "ended": {str(code): count for code, count in sorted(self.ended.items())},
            "connections": len(self.lines),
        }
