# SPDX-License-Identifier: Apache-2.0
"""RawPeer: the bytes of ZMTP 3.1 on a TCP socket, for what no ZMQ library would send."""

from __future__ import annotations

import socket as sockets
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 10.0
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
MORE = 0x01
LONG = 0x02
COMMAND = 0x04


def command(name: bytes, body: bytes = b"") -> bytes:
    """A command on the wire; short ones only."""
    content = bytes([len(name)]) + name + body
    return bytes([COMMAND, len(content)]) + content


def _head(size_bytes: int, *, more: bool) -> bytes:
    flags = MORE if more else 0
    if size_bytes < 256:
        return bytes([flags, size_bytes])
    return bytes([flags | LONG]) + struct.pack(">Q", size_bytes)


def part(size_bytes: int, *, more: bool) -> bytes:
    """One part of a message on the wire, all zeros."""
    return _head(size_bytes, more=more) + bytes(size_bytes)


def message(*contents: bytes) -> bytes:
    """A message of one part for each of `contents`."""
    wire = b""
    for number, content in enumerate(contents, 1):
        wire += _head(len(content), more=number < len(contents)) + content
    return wire


class RawPeer:
    """A connection to `url` that has said what socket it is (`DEALER`, `PUSH`, `SUB`)."""

    def __init__(self, url: str, kind: bytes) -> None:
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        self.line = sockets.create_connection((host, int(port)), PATIENCE_S)
        self.line.sendall(GREETING)
        self._read(len(GREETING))
        ready = b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
        self.line.sendall(command(b"READY", ready + b"\x08Identity" + bytes(4)))
        _, size = self._read(2)
        self._read(size)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.line.recv(size - len(data))
            assert piece, f"ended after {len(data)} of {size} bytes"
            data += piece
        return data

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.line.sendall(data)

    def receive(self) -> list[bytes]:
        """The next message, its parts; commands are let go."""
        parts: list[bytes] = []
        while True:
            (flags,) = self._read(1)
            size = int.from_bytes(self._read(8 if flags & LONG else 1), "big")
            content = self._read(size)
            if flags & COMMAND:
                continue
            parts.append(content)
            if not flags & MORE:
                return parts

    def flood(self, data: bytes, most_bytes: int) -> int:
        """Send `data` again and again until the other end has had enough; how much was sent."""
        sent = 0
        try:
            while sent < most_bytes:
                self.line.sendall(data)
                sent += len(data)
        except (ConnectionError, TimeoutError):
            pass
        return sent

    def is_shut(self) -> bool:
        """Whether the other end has ended the connection; what else it says is let go."""
        try:
            while self.line.recv(65536):
                pass
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """End it; once or more often."""
        self.line.close()


_FLOOD = """
import sys
from tests.feagi_io_host.transports.zmq.raw_peer import RawPeer, part
url, kind, size, most = sys.argv[1:]
one = part(int(size), more=True)
peer = RawPeer(url, kind.encode())
print(peer.flood(one * max(200_000 // len(one), 1), int(most)), flush=True)
peer.close()
"""


@contextmanager
def flooding(
    url: str, kind: str, part_bytes: int, most_bytes: int
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sends one message without end; it prints how many bytes it got rid of."""
    command_line = [sys.executable, "-c", _FLOOD, url, kind, str(part_bytes), str(most_bytes)]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
