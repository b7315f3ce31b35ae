# SPDX-License-Identifier: Apache-2.0
"""An agent's end of one stream over WebSocket, beside a control link of another system.

The library's protocol on a socket of our own that never waits: who turns it polls its descriptor.
What comes is not checked here: the agent verifies each container anyhow.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque
from typing import Final

from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from feagi_io_host.core.container import BytesLike
from feagi_io_host.core.errors import ClosedError, ConfigError, PortError, RemoteError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.websocket.address import WebSocketAddress
from feagi_io_host.transports.websocket.client_line import ClientSettings
from feagi_io_host.transports.websocket.line import MAX_FRAGMENTS, Message, library_log

# While something waits to be written, or the handshake is under way, nothing readable tells of it.
_TRY_AGAIN_S: Final = 0.002
_READ_BYTES: Final = 256 << 10
# So many reads in a row; then the other streams have their turn.
_FAIR_SHARE: Final = 16


def websocket_stream_end(
    url: str, stream: StreamType, *, max_frame_bytes: int, **settings: object
) -> WebSocketStreamEnd:
    """The end of what `url`, a `ws://`, stands for; `settings` as ClientSettings has them.

    Raises RemoteError for what is no such URL or when nobody is there, PortError when the system
    has nothing left. An encrypted stream is for agents that register over `wss://`.
    """
    try:
        address = WebSocketAddress.of(url)
    except ConfigError as error:
        raise RemoteError(f"{stream.value} stream: {error}") from None
    if address.secure:
        raise RemoteError(
            f"{stream.value} stream at {url[:80]!r}: an agent has to register over wss:// for that"
        )
    made = ClientSettings(**settings)  # type: ignore[arg-type]
    return WebSocketStreamEnd(address, stream, max_frame_bytes, made)


class WebSocketStreamEnd:
    """The StreamEnd. Connection and handshake come by and by, as it is turned."""

    def __init__(
        self,
        address: WebSocketAddress,
        stream: StreamType,
        max_frame_bytes: int,
        settings: ClientSettings,
    ) -> None:
        self._address = address
        self._settings = settings
        self._protocol = ClientProtocol(
            parse_uri(address.url),
            max_size=1024 if stream is StreamType.SENSORY else max_frame_bytes,
            logger=library_log,
        )
        self._parts: list[Message] = []
        self._messages: deque[BytesLike] = deque()
        self._out: deque[memoryview] = deque()
        self._closed = False
        now_s = time.monotonic()
        self._open_by_s = now_s + settings.open_timeout_s
        self._heard_at_s = now_s
        self._pinged_at_s: float | None = None
        self._socket = self._connect()
        self._protocol.send_request(self._protocol.connect())
        self._out.extend(memoryview(data) for data in self._protocol.data_to_send())

    def _connect(self) -> socket.socket:
        """A socket on its way to the server; what becomes of it the first use of it tells."""
        address = self._address
        try:
            family, kind, protocol, _, where = socket.getaddrinfo(
                address.connect_to, address.port, type=socket.SOCK_STREAM
            )[0]
        except OSError as error:
            raise RemoteError(f"{address.origin} cannot be found: {error}") from error
        try:
            raw = socket.socket(family, kind, protocol)
        except OSError as error:
            raise PortError(f"no socket for {address.origin}: {error}") from error
        try:
            raw.setblocking(False)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(BlockingIOError):
                raw.connect(where)
        except OSError as error:
            raw.close()
            raise RemoteError(f"{address.origin} cannot be connected: {error}") from error
        return raw

    def fileno(self) -> int:
        """Readable when `take` has something or the other end is gone."""
        return self._socket.fileno()

    def take(self) -> BytesLike | None:
        """The next frame that came, or None. Raises ClosedError when the other end is gone."""
        for _ in range(_FAIR_SHARE):
            if self._messages:
                return self._messages.popleft()
            if not self._read():
                break
        return self._messages.popleft() if self._messages else None

    def send(self, fbc: SharedFBC) -> bool:
        """Send a frame, masked and so copied. False while the one before has not left; ClosedError
        when the other end is gone."""
        self._flush()
        if self._out or self._protocol.state is not State.OPEN:
            return False
        self._protocol.send_binary(fbc.view)
        self._queue()
        return True

    def tend(self, now_s: float) -> float | None:
        """Write what waits, and look whether the other end is there; when to be called again."""
        self._flush()
        if self._protocol.state is State.CONNECTING:
            if now_s >= self._open_by_s:
                raise ClosedError(
                    f"{self._address.origin}: no answer within {self._settings.open_timeout_s} s"
                )
            return now_s + _TRY_AGAIN_S if self._out else self._open_by_s
        if self._out:
            return now_s + _TRY_AGAIN_S
        due_s = self._heard_at_s + self._settings.ping_interval_s
        if self._pinged_at_s is not None:
            due_s = self._pinged_at_s + self._settings.ping_timeout_s
            if now_s >= due_s:
                silent_s = now_s - self._heard_at_s
                raise ClosedError(f"no sign of life for {silent_s:.1f} s")
        elif now_s >= due_s:
            self._pinged_at_s = now_s
            self._protocol.send_ping(b"")
            self._queue()
            return now_s + self._settings.ping_timeout_s
        return due_s

    def counters(self) -> dict[str, int]:
        """Nothing is lost here: what does not come has not been sent."""
        return {}

    def close(self) -> None:
        """Say so, as far as that can be done at once, and let go of the socket."""
        if self._closed:
            return
        self._closed = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            with contextlib.suppress(ClosedError):
                self._queue()
        self._socket.close()
        self._messages.clear()
        self._out.clear()

    # -- inside -------------------------------------------------------------------------------

    def _read(self) -> bool:
        """Read once; whether there may be more."""
        if self._closed:
            raise ClosedError("this end is closed")
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ClosedError(f"{self._address.origin}: {error}") from error
        self._heard_at_s = time.monotonic()
        self._pinged_at_s = None
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._collect(event)
        self._queue()
        if self._protocol.handshake_exc is not None:
            raise ClosedError(f"{self._address.origin}: {self._protocol.handshake_exc}")
        if self._protocol.state in (State.CLOSING, State.CLOSED) and not self._messages:
            raise ClosedError(f"{self._address.origin}: {self._why_lost()}")
        return True

    def _collect(self, part: Frame) -> None:
        if part.opcode is Opcode.TEXT or len(self._parts) >= MAX_FRAGMENTS:
            code = CloseCode.UNSUPPORTED_DATA
            self._protocol.fail(code, "binary messages only, one FBC in each, in few pieces")
        elif part.opcode in (Opcode.BINARY, Opcode.CONT):
            # The library has seen to it that the sum is within the limit.
            self._parts.append(part.data)
            if part.fin:
                whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
                self._messages.append(whole)
                self._parts.clear()

    def _why_lost(self) -> str:
        received = self._protocol.close_rcvd
        sent = self._protocol.close_sent
        if sent is not None and not self._protocol.close_rcvd_then_sent:
            return f"the server broke a rule and was left with {sent.code}: {sent.reason!r}"
        if received is not None:
            return f"the server has closed the stream with {received.code}: {received.reason!r}"
        return "the connection has ended"

    def _queue(self) -> None:
        """What the protocol wants sent, then as much of it as can leave now."""
        self._out.extend(memoryview(data) for data in self._protocol.data_to_send() if data)
        self._flush()

    def _flush(self) -> None:
        while self._out:
            try:
                sent = self._socket.send(self._out[0])
            except BlockingIOError:
                return
            except OSError as error:
                raise ClosedError(f"{self._address.origin}: {error}") from error
            rest = self._out[0][sent:]
            if rest:
                self._out[0] = rest
            else:
                self._out.popleft()
