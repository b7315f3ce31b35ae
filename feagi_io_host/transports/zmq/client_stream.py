# SPDX-License-Identifier: Apache-2.0
"""ClientStream: an agent's end of one data stream, opened again when the library gives it up; and
the addresses that an agent connects to.

libzmq connects again by itself after a connection has ended, but not after one that broke its
rules, by a message above the limit for example: that one is closed for good, and nothing more
would ever come. The two are told apart by the events of the socket: only after an ordinary end
does the library say that it tries again.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.transports.zmq.common import Role, SocketOptions, open_socket, receive_parts

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqContext, ZmqSocket

# As long as the library itself waits before it connects again.
REOPEN_AFTER_S: Final = 0.1

_URL: Final = re.compile(r"tcp://(\[[0-9A-Fa-f:.]{2,45}(?:%\w{1,15})?\]|[A-Za-z0-9._-]{1,253})"
                         r":([0-9]{1,5})")  # fmt: skip
_MAX_PORT: Final = 65535
# What a server that listens on all its addresses may say of itself.
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "[::]"})

_EVENT: Final = struct.Struct("=H")
_WATCHED: Final = zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED

Hook = Callable[["ZmqSocket"], object]


def host_and_port(url: str) -> tuple[str, int]:
    """The two parts of tcp://host:port; ConfigError for anything else."""
    match = _URL.fullmatch(url)
    if match is None or not 1 <= int(match[2]) <= _MAX_PORT:
        raise ConfigError(
            f"address {url[:80]!r}; tcp://host:port with a port from 1 to {_MAX_PORT} is needed"
        )
    return match[1], int(match[2])


def stream_url(url: str, server: str) -> str:
    """Where a stream is that the server `server` has handed out as `url`. ConfigError for what is
    no address."""
    host, port = host_and_port(url)
    if host in _UNSPECIFIED:
        host, _ = host_and_port(server)
    return f"tcp://{host}:{port}"


class ClientStream:
    """One data stream at `url`. `opened` and `closing` are called with each socket, after and
    before; `subscriptions` take the place of the role's own. Raises PortError and ConfigError as
    opening does."""

    def __init__(
        self,
        context: ZmqContext,
        role: Role,
        url: str,
        options: SocketOptions,
        max_frame_bytes: int,
        opened: Hook,
        closing: Hook,
        subscriptions: Sequence[bytes] = (),
    ) -> None:
        self._context = context
        self._role = role
        self._url = url
        self._options = options
        self._max_frame_bytes = max_frame_bytes
        self._opened = opened
        self._closing = closing
        self._subscriptions = subscriptions
        self.reopen_at_s: float | None = None
        """When `tend` opens it again; None as long as it does not have to."""
        self.reopened = 0
        self._open()

    def tend(self, now_s: float) -> bool:
        """See what became of the connection, and open it again when that is due: whether it
        was."""
        for event in self._events():
            ended = event == zmq.EVENT_DISCONNECTED
            self.reopen_at_s = now_s + REOPEN_AFTER_S if ended else None
        if self.reopen_at_s is None or now_s < self.reopen_at_s:
            return False
        self.reopen_at_s = None
        self.reopened += 1
        self.close()
        self._open()
        return True

    def close(self) -> None:
        """Close it, with all that waits in it."""
        self._closing(self.monitor)
        self._closing(self.socket)
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)

    def _open(self) -> None:
        socket = open_socket(self._context, self._role, self._options, self._max_frame_bytes)
        monitor: ZmqSocket | None = None
        try:
            socket.setsockopt(zmq.SNDTIMEO, 0)
            if self._subscriptions:
                socket.unsubscribe(b"")
            for beginning in self._subscriptions:
                socket.subscribe(beginning)
            monitor = socket.get_monitor_socket(_WATCHED)
            connect(socket, self._url)
            self._opened(socket)
            self._opened(monitor)
        except BaseException:
            self._closing(socket)
            if monitor is not None:
                socket.disable_monitor()
                monitor.close(0)
            socket.close(0)
            raise
        self.socket = socket
        self.monitor = monitor

    def _events(self) -> list[int]:
        found: list[int] = []
        with contextlib.suppress(zmq.Again):
            while True:
                head = receive_parts(self.monitor, 1)[0].bytes
                found.append(_EVENT.unpack_from(head)[0])
        return found


def connect(socket: ZmqSocket, url: str) -> None:
    """Begin to connect; ConfigError for an address that the library cannot read."""
    if "[" in url:
        socket.setsockopt(zmq.IPV6, 1)
    try:
        socket.connect(url)
    except zmq.ZMQError as error:
        raise ConfigError(f"{url} cannot be connected to: {error}") from error
