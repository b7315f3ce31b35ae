# SPDX-License-Identifier: Apache-2.0
"""ClientWire: one connection of an agent, from the wish for it to its end."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import CloseCode
from websockets.uri import parse_uri

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.transports.websocket.address import WebSocketAddress
from feagi_io_host.transports.websocket.line import Line, Message, library_log

# What waits for a connection that is being opened.
_MOST_UNSENT: Final = 16


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Deadlines in seconds, and for wss:// the file with the certificates of those who may vouch
    for the server (None: those that the system trusts). Raises ConfigError for what does not fit.

    After `ping_interval_s` without a sign of life a connection is asked for one; `ping_timeout_s`
    later it is given up.
    """

    open_timeout_s: float = 5.0
    close_timeout_s: float = 1.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 30.0
    authorities: Path | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.endswith("_s") and not 0.0 < getattr(self, field.name) < float("inf"):
                raise ConfigError(
                    f"{field.name} is {getattr(self, field.name)}; a number above 0 is needed"
                )

    def tls(self, address: WebSocketAddress) -> ssl.SSLContext | None:
        """The context for a server; ConfigError when the file cannot be used."""
        if not address.secure:
            return None
        try:
            return ssl.create_default_context(cafile=self.authorities)
        except OSError as error:  # SSLError is one
            raise ConfigError(f"certificates in {self.authorities}: {error}") from None


class ClientLine(ClientConnection, Line):
    """The client's side of a connection. The server closes it; if it does not, we do."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._cut: asyncio.TimerHandle | None = None
        self.gone: asyncio.Future[None] = self.loop.create_future()

    def ended(self) -> None:
        """The line is to be closed."""
        if self._cut is None and not self.gone.done():
            self._cut = self.loop.call_later(self.close_timeout or 0.0, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """For the loop: bytes have come."""
        super().data_received(data)
        if self.protocol.handshake_exc is not None and self.response is None:
            self.transport.abort()  # what comes is no answer; the library would wait for the end

    def connection_lost(self, exc: Exception | None) -> None:
        """For the loop: the connection is gone."""
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.cancel()
        self.gone.set_result(None)

    @property
    def why_lost(self) -> str:
        """For people, after the end."""
        sent, received = self.protocol.close_sent, self.protocol.close_rcvd
        if sent is not None and not self.protocol.close_rcvd_then_sent:
            return f"the server broke a rule and was left with {sent.code}: {sent.reason!r}"
        if received is not None:
            words = f": {received.reason[:80]!r}" if received.reason else ""
            return f"the server has closed the connection with {received.code}{words}"
        return "the connection has ended"


class ClientWire:
    """One connection to `address`, opened in a task. `on_message(data)` is called with what comes,
    `on_room()` when frames can be sent, `on_lost(reason)` once, unless `close` comes first."""

    def __init__(
        self,
        address: WebSocketAddress,
        settings: ClientSettings,
        tls: ssl.SSLContext | None,
        most_bytes: int,
        *,
        on_message: Callable[[Message], object],
        on_room: Callable[[], object],
        on_lost: Callable[[str], object],
    ) -> None:
        self._address = address
        self._settings = settings
        self._tls = tls
        self._most_bytes = most_bytes
        self._on_message = on_message
        self._on_room = on_room
        self._on_lost = on_lost
        self._unsent: deque[bytes] = deque()
        self._line: ClientLine | None = None
        self._opened = False
        self._over = False
        self._task = asyncio.get_running_loop().create_task(
            self._open(), name="feagi-io-websocket-connect"
        )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or could not be opened."""
        return self._over

    @property
    def has_room(self) -> bool:
        """Whether a frame can be sent now."""
        return self._opened and self._line is not None and self._line.has_room

    @property
    def local_address(self) -> str:
        """This machine's address as the server sees it, in numbers; loopback before the connection
        stands."""
        line = self._line
        name = line.transport.get_extra_info("sockname") if self._opened and line else None
        return str(name[0]) if name else "127.0.0.1"

    def send(self, data: bytes) -> None:
        """Send a control message: now, or when the connection stands."""
        if self._opened and self._line is not None:
            if self._line.is_open:
                self._line.send_message(data)
        elif len(self._unsent) < _MOST_UNSENT:
            self._unsent.append(data)

    def send_frame(self, data: Message) -> None:
        """Send a frame, when there is room."""
        assert self._line is not None
        self._line.send_masked(data)

    def tend(self) -> None:
        """Look whether the other end is there."""
        if self._opened and self._line is not None:
            self._line.tend(self._settings.ping_interval_s, self._settings.ping_timeout_s)

    def close(self) -> None:
        """End the connection; nothing is called any more."""
        self._over = True
        if not self._opened:
            self._task.cancel()
        elif self._line is not None:
            self._line.end(CloseCode.NORMAL_CLOSURE, "")

    def cut(self) -> None:
        """After `close`: do not wait for the other end."""
        if self._line is not None:
            self._line.transport.abort()

    async def wait_until_gone(self) -> None:
        """After `close`: until nothing of it is left."""
        await asyncio.wait({self._task})
        if self._line is not None:
            await asyncio.shield(self._line.gone)

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(self._settings.open_timeout_s):
                await self._dial()
        except (OSError, EOFError, WebSocketException) as error:  # TimeoutError is an OSError
            words = str(error) or f"no answer within {self._settings.open_timeout_s} s"
            self._lose(f"{self._address.origin} cannot be connected: {words}")
            return
        assert self._line is not None
        self._opened = True
        self._line.on_lost = lambda: self._lose(None)
        if not self._line.is_open:  # it has ended in the same turn of the loop
            if self._line.gone.done():
                self._lose(None)
            return
        self._line.on_room = self._on_room
        while self._unsent:
            self._line.send_message(self._unsent.popleft())
        self._on_room()

    async def _dial(self) -> None:
        address = self._address
        loop = asyncio.get_running_loop()

        def make() -> ClientLine:
            protocol = ClientProtocol(
                parse_uri(address.url), max_size=self._most_bytes, logger=library_log
            )
            line = ClientLine(protocol, close_timeout=self._settings.close_timeout_s)
            # Now: a frame may come together with the answer to the handshake.
            line.on_message = self._hear
            self._line = line
            return line

        tls: dict[str, Any] = {}
        if self._tls is not None:
            tls = {"ssl": self._tls, "server_hostname": address.connect_to}
        try:
            await loop.create_connection(make, address.connect_to, address.port, **tls)
            assert self._line is not None
            await self._line.handshake(user_agent_header=None)
        except BaseException:
            line = self._line
            if line is not None and not hasattr(line, "transport"):
                self._line = None  # nobody was there, or TLS has failed: it was never connected
            elif line is not None:
                line.transport.abort()
            raise

    def _hear(self, data: Message) -> None:
        if not self._over:
            self._on_message(data)

    def _lose(self, reason: str | None) -> None:
        if not self._over:
            self._over = True
            if reason is None:
                assert self._line is not None
                reason = self._line.why_lost
            self._on_lost(reason)
