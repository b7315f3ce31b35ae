# SPDX-License-Identifier: Apache-2.0
"""Line: one WebSocket connection of either side, on top of `websockets`, which does handshake,
framing, pongs and the closing handshake.

What is different from the library's own connection:

  1  A message is handed on in the turn of the loop that completes it, without a queue: whoever
     takes it never waits. So nothing is ever read ahead.
  2  A frame is sent from its own memory and keeps its lease until the last byte has left this
     process. One frame at a time: `has_room` says when the next may follow.
  3  Nothing that a peer makes us send (pongs, answers) is kept for it without bound.
  4  A peer that gives no sign of life is asked for one, and ended when none comes; also one that
     does not read, for which a ping could not even be sent.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.connection import Connection
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Event, State

from feagi_io_host.core.pool import SharedFBC

# What may wait for a peer beside the frame that is being sent: pongs and answers.
MAX_UNREAD_BYTES: Final = 256 << 10
# A message in more pieces than this is no honest one.
MAX_FRAGMENTS: Final = 4096
# Up to here header and frame go out in one piece: the copy costs less than a second call, and a
# second turn of the receiver.
_ONE_PIECE_BYTES: Final = 128 << 10

_BINARY_FIN: Final = 0x80 | Opcode.BINARY

# Nothing of the library's is of interest above debugging: every connection is logged there.
library_log = logging.getLogger("feagi_io.websocket.library")
library_log.setLevel(logging.WARNING)

Message = bytes | bytearray | memoryview


def frame_header(size_bytes: int) -> bytes:
    """The header of an unmasked binary frame, as a server sends it (RFC 6455, section 5.2)."""
    if size_bytes < 126:
        return struct.pack("!BB", _BINARY_FIN, size_bytes)
    if size_bytes < 65536:
        return struct.pack("!BBH", _BINARY_FIN, 126, size_bytes)
    return struct.pack("!BBQ", _BINARY_FIN, 127, size_bytes)


def _ignore(*_: Any) -> None:
    """Nobody wants to know."""


class Line(Connection):
    """Either side of a connection. Belongs to its event loop.

    `on_message(data)` is called with each binary message, `on_room()` when the frame before has
    left, `on_lost()` once at the end.
    """

    on_message: Callable[[Message], object] = staticmethod(_ignore)
    on_room: Callable[[], object] = staticmethod(_ignore)
    on_lost: Callable[[], object] = staticmethod(_ignore)

    def __init__(self, *args: Any, **settings: Any) -> None:
        # No queue, no pings of the library's, and a full buffer is one with anything in it.
        super().__init__(
            *args, **{**settings, "max_queue": None, "ping_interval": None, "write_limit": (0, 0)}
        )
        self._parts: list[Message] = []
        self._sending: SharedFBC | None = None
        self._sending_bytes = 0  # of the frame that is on its way
        self._ending = False
        self._heard_at_s = self.loop.time()
        self._pinged_at_s: float | None = None
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For the loop: a connection stands."""
        super().connection_made(transport)
        if self.transport.get_extra_info("ssl_object") is not None:
            # Where asyncio encrypts, a buffer with nothing in it would count as full.
            self.transport.set_write_buffer_limits(1, 0)

    # -- in -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """For the loop: bytes have come."""
        self._heard_at_s = self.loop.time()
        self._pinged_at_s = None
        super().data_received(data)
        if self.protocol.state in (State.CLOSING, State.CLOSED):
            self.ended()  # by the peer, or because it broke a rule
        else:
            self._refuse_unread()

    def process_event(self, event: Event) -> None:
        """For the library: a frame has come."""
        if self._ending or not isinstance(event, Frame):
            return
        if event.opcode is Opcode.TEXT:
            self.end(CloseCode.UNSUPPORTED_DATA, "binary messages only, one FBC in each")
        elif event.opcode is Opcode.BINARY and event.fin:
            self.on_message(event.data)
        elif event.opcode in (Opcode.BINARY, Opcode.CONT):
            self._collect(event)

    def _collect(self, part: Frame) -> None:
        # The library has seen to it that the sum is within the limit.
        self._parts.append(part.data)
        if part.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            self.on_message(whole)
        elif len(self._parts) >= MAX_FRAGMENTS:
            self.end(CloseCode.POLICY_VIOLATION, f"message in {MAX_FRAGMENTS} pieces or more")

    def limit_messages(self, most_bytes: int) -> None:
        """From here on larger messages end the connection, before memory is taken for them."""
        self.protocol.max_message_size = most_bytes

    # -- out ----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.protocol.state is State.OPEN and not self._ending

    @property
    def has_room(self) -> bool:
        """Whether a frame can be sent now: the one before has left."""
        return self.is_open and not self.paused

    def send_frame(self, fbc: SharedFBC) -> None:
        """Send a frame unmasked, as a server does, when there is room. The lease is the line's."""
        size = len(fbc)
        header = frame_header(size)
        self._sending = fbc
        self._sending_bytes = size
        if size <= _ONE_PIECE_BYTES:
            self.transport.write(header + fbc.view)
        else:
            self.transport.write(header)
            self.transport.write(fbc.view)
        if not self.paused:
            self._give_back()

    def send_masked(self, data: Message) -> None:
        """Send a frame as a client has to, when there is room; the memory is the caller's."""
        self._sending_bytes = len(data)
        self.protocol.send_binary(data)
        self.send_data()
        if not self.paused:
            self._give_back()

    def send_message(self, data: Message) -> None:
        """Send a message of some bytes, whether there is room or not."""
        self.protocol.send_binary(data)
        self.send_data()
        self._refuse_unread()

    def _refuse_unread(self) -> None:
        allowed = MAX_UNREAD_BYTES + self._sending_bytes
        if self.transport.get_write_buffer_size() > allowed and not self._ending:
            self._ending = True
            self.transport.abort()  # it would not read a reason either

    def resume_writing(self) -> None:
        """For the loop: everything has left."""
        super().resume_writing()
        self._give_back()
        if self.is_open:
            self.on_room()

    def _give_back(self) -> None:
        self._sending_bytes = 0
        fbc, self._sending = self._sending, None
        if fbc is not None:
            fbc.release()

    # -- life ---------------------------------------------------------------------------------

    def end(self, code: int, reason: str) -> None:
        """Close, with a code of RFC 6455 section 7.4 and words for people; once."""
        if self._ending:
            return
        self._ending = True
        self._parts.clear()
        if self.protocol.state is State.OPEN:
            self.protocol.send_close(code, reason.encode()[:120].decode(errors="ignore"))
            self.send_data()
        elif self.protocol.state is State.CONNECTING:
            self.transport.abort()
        self.ended()

    def ended(self) -> None:
        """For a subclass: the line is to be closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        """For the loop: the connection is gone."""
        super().connection_lost(exc)
        self._ending = True
        self._parts.clear()
        self._give_back()
        self.ended()
        self.on_lost()

    def tend(self, interval_s: float, timeout_s: float) -> None:
        """Ask for a sign of life when it is time, and end the connection when none came."""
        if not self.is_open:
            return
        now_s = self.loop.time()
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes < self._unsent_bytes:  # it reads, if slowly
            self._heard_at_s = now_s
            self._pinged_at_s = None
        self._unsent_bytes = unsent_bytes
        silent_s = now_s - self._heard_at_s
        if self._pinged_at_s is None:
            if silent_s >= interval_s:
                self._pinged_at_s = now_s
                self.protocol.send_ping(b"")
                self.send_data()
        elif now_s - self._pinged_at_s >= timeout_s:
            self.end(CloseCode.INTERNAL_ERROR, f"no sign of life for {silent_s:.1f} s")
            self.transport.abort()  # it would not take part in an orderly end
