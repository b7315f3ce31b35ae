# SPDX-License-Identifier: Apache-2.0
"""A peer that writes any bytes it likes, and a server for threads."""

from __future__ import annotations

import base64
import os
import socket
import struct
from typing import Any, Self

from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.websocket import WebSocketTransport

DEADLINE_S = 10.0
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10


def frame(
    head: int, payload: bytes = b"", *, masked: bool = True, length: bytes | None = None
) -> bytes:
    """A frame as a client sends it. `head` is its first byte; `length` replaces the true one."""
    mask = os.urandom(4) if masked else b""
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + struct.pack("!H", size)
        else:
            length = b"\x7f" + struct.pack("!Q", size)
    if masked:
        length = bytes([length[0] | 0x80]) + length[1:]
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return bytes([head]) + length + mask + payload


class RawPeer:
    """A TCP connection to a server of ours."""

    def __init__(self, url: str, receive_buffer: int | None = None) -> None:
        place, _, path = url.partition("://")[2].partition("/")
        self.place, self.path = place, f"/{path}"
        host, _, port = place.rpartition(":")
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(DEADLINE_S)
        self._socket.connect((host, int(port)))
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def end_writing(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def shake_hands(self, *more: str, **instead: str | None) -> tuple[int, str]:
        """The status and the head of the answer. `instead`: values of the usual headers, None for
        leaving one out."""
        usual = {
            "Host": self.place,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec_WebSocket_Version": "13",
            **instead,
        }
        lines = [f"{instead.get('method', 'GET')} {self.path} HTTP/1.1"]
        for name, value in usual.items():
            if value is not None and name != "method":
                lines.append(f"{name.replace('_', '-')}: {value}")
        self.write("\r\n".join([*lines, *more, "", ""]).encode())
        return self.answer()

    def answer(self) -> tuple[int, str]:
        """The status and the head of an HTTP answer; 0 when the connection ends without one."""
        while b"\r\n\r\n" not in self._read:
            if not self._more():
                return 0, ""
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        return int(head.split()[1]), head.decode()

    def next_frame(self) -> tuple[int, bytes] | None:
        """The first byte and the payload of the next frame that is no ping; None at the end."""
        while (read := self.any_frame()) is not None and read[0] == FIN | PING:
            pass
        return read

    def any_frame(self) -> tuple[int, bytes] | None:
        """The same, pings included."""
        head = self._exactly(2)
        if head is None:
            return None
        size = head[1]
        assert size < 128, "a server does not mask"
        if size > 125:
            wide = self._exactly(2 if size == 126 else 8)
            assert wide is not None
            size = int.from_bytes(wide, "big")
        payload = self._exactly(size)
        return None if payload is None else (head[0], payload)

    def close_code(self) -> int | None:
        """The code that the server closes with; None when it ends the connection without."""
        code = None
        while (read := self.next_frame()) is not None:
            if read[0] == FIN | CLOSE:
                code = int.from_bytes(read[1][:2], "big")
        return code

    def _exactly(self, size: int) -> bytes | None:
        while len(self._read) < size:
            if not self._more():
                return None
        data, self._read = self._read[:size], self._read[size:]
        return data

    def _more(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._read += data
        return bool(data)


class Served:
    """A WebSocketTransport in a thread's event loop, and its host."""

    def __init__(self, **settings: Any) -> None:
        self.host = StandInHost()
        self.transport = WebSocketTransport(self.host, port=0, **settings)
        self.handle = TransportHandle(self.transport)
        self.runtime = Runtime()
        try:
            self.handle.start()
        except BaseException:
            self.runtime.close()
            raise
        self.url = self.transport.control_url if self.transport._lets_in else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.stop()
        self.runtime.close()

    def call(self, coroutine: Any) -> Any:
        return self.runtime.call(coroutine, DEADLINE_S)
