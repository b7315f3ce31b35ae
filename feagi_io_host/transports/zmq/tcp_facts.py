# SPDX-License-Identifier: Apache-2.0
"""What the system knows of a TCP connection, asked by the number of its descriptor.

The descriptors belong to libzmq. An object of Python's around one would close it some day, and a
duplicate would keep the connection open when libzmq has closed it; so the C library is asked, and
nothing here is held. A number may belong to something else by the time it is asked about: who asks
compares the addresses.

The number of bytes is `tcpi_bytes_received` of `struct tcp_info` (linux/tcp.h, since Linux 4.1).
"""

from __future__ import annotations

import ctypes
import os
import socket as sockets
import struct
import sys
from typing import Final

# The place of tcpi_bytes_received, a u64 behind 8 bytes, 24 u32 and 3 u64.
_RECEIVED: Final = struct.Struct("=128xQ")
_UNREAD: Final = struct.Struct("=i")
_NO_LINGER: Final = struct.pack("=ii", 1, 0)  # struct linger: close resets
_FIONREAD: Final = 0x541B  # asm-generic/ioctls.h; as termios has it, which Windows has not
_MOST_BYTES: Final = 256  # more than struct tcp_info and any address
_PAGE_BYTES: Final = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 0
_DESCRIPTORS: Final = "/proc/self/fd"
_MEMORY: Final = "/proc/self/statm"


class TcpFacts:
    """Asks. Belongs to one thread at a time, since answers come in memory of its own. Only for
    systems that `probe` finds fit."""

    def __init__(self) -> None:
        # Not CDLL, which lets other threads run at each call and may wait 5 ms to go on. Nothing
        # here waits.
        self._library = ctypes.PyDLL(None)
        self._memory = ctypes.create_string_buffer(_MOST_BYTES)
        self._told = memoryview(self._memory)
        self._size = ctypes.c_uint()
        # Numbers are passed several times as fast as objects; objects are kept alive above.
        self._memory_at = ctypes.c_void_p(ctypes.addressof(self._memory))
        self._size_at = ctypes.c_void_p(ctypes.addressof(self._size))
        self._getsockname = self._library.getsockname
        self._getpeername = self._library.getpeername
        self._getsockopt = self._library.getsockopt

    @classmethod
    def probe(cls) -> TcpFacts:
        """Raises OSError where the system does not tell what is asked here."""
        if not sys.platform.startswith("linux"):
            raise OSError(f"{sys.platform} does not tell how much a connection has received")
        facts = cls()
        with sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM) as probe:
            if facts.received_bytes(probe.fileno()) is None:
                raise OSError("this kernel's TCP_INFO has no number of bytes received")
        return facts

    def received_bytes(self, descriptor: int) -> int | None:
        """How many bytes the system has received; None for what is no TCP connection."""
        self._size.value = _MOST_BYTES
        if self._getsockopt(
            descriptor, sockets.IPPROTO_TCP, sockets.TCP_INFO, self._memory_at, self._size_at
        ):
            return None
        if self._size.value < _RECEIVED.size:
            return None
        (received,) = _RECEIVED.unpack_from(self._told)
        return int(received)

    def unread_bytes(self, descriptor: int) -> int:
        """How many of the bytes received nobody has read yet."""
        if self._library.ioctl(descriptor, ctypes.c_ulong(_FIONREAD), self._memory_at):
            return 0
        (unread,) = _UNREAD.unpack_from(self._told)
        return int(unread)

    def local(self, descriptor: int) -> bytes | None:
        """The address of this end, as a C `sockaddr`; None for what is no socket."""
        self._size.value = _MOST_BYTES
        if self._getsockname(descriptor, self._memory_at, self._size_at):
            return None
        return bytes(self._told[: self._size.value])

    def peer(self, descriptor: int) -> bytes | None:
        """The address of the other end; None for what is not connected."""
        self._size.value = _MOST_BYTES
        if self._getpeername(descriptor, self._memory_at, self._size_at):
            return None
        return bytes(self._told[: self._size.value])

    def shut(self, descriptor: int) -> None:
        """End a connection in both directions. Its owner finds it ended and closes it; at that
        moment the other end learns of it, whatever it is still about to send."""
        self._library.setsockopt(
            descriptor, sockets.SOL_SOCKET, sockets.SO_LINGER, _NO_LINGER, len(_NO_LINGER)
        )
        self._library.shutdown(descriptor, sockets.SHUT_RDWR)

    def descriptors(self) -> list[int]:
        """Every number that may be a descriptor of this process."""
        try:
            return [int(name) for name in os.listdir(_DESCRIPTORS)]
        except OSError:  # not even the one is left that looking takes
            return list(range(os.sysconf("SC_OPEN_MAX")))

    def resident_bytes(self) -> int:
        """Memory of this process, whoever took it; 0 when the system does not tell."""
        try:
            with open(_MEMORY, "rb") as told:
                return int(told.read().split()[1]) * _PAGE_BYTES
        except OSError:
            return 0


def port_of(address: bytes | None) -> int | None:
    """The port of an internet address; None for any other."""
    if address is None or len(address) < 8:
        return None
    (family,) = struct.unpack_from("=H", address)
    if family not in (sockets.AF_INET, sockets.AF_INET6):
        return None
    return int.from_bytes(address[2:4], "big")


def host_of(address: bytes) -> str:
    """The host of an internet address, to be read."""
    (family,) = struct.unpack_from("=H", address)
    if family == sockets.AF_INET6:
        return sockets.inet_ntop(sockets.AF_INET6, address[8:24])
    return sockets.inet_ntop(sockets.AF_INET, address[4:8])


def is_at(local: bytes, listener: bytes) -> bool:
    """Whether an end at `local` may have been accepted at `listener`: both the same address, or
    the listener on all of them."""
    if port_of(local) != port_of(listener):
        return False
    size = 24 if len(listener) > 16 else 8
    begin = 8 if size == 24 else 4
    host = listener[begin:size]
    return not any(host) or host == local[begin:size]
