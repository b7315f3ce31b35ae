# SPDX-License-Identifier: Apache-2.0
"""A network namespace: a loopback of its own, seen only by threads and processes put into it.

The namespace is made by a short-lived thread and held by a descriptor, so it outlives each engine
that runs in it: a restarted engine is found under the same addresses. Needs the right to make and
to enter one (root, as a rule).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Final

from tools.engine.errors import EngineUnavailableError

_CLONE_NEWNET: Final = 0x40000000  # <sched.h>
_SIOCGIFFLAGS: Final = 0x8913  # <linux/sockios.h>
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1
_OWN: Final = "/proc/thread-self/ns/net"


class NetworkNamespace:
    """A private network in which only the loopback exists, up. Close it after its engines."""

    def __init__(self) -> None:
        """Make one. Raises EngineUnavailableError where that is not permitted."""
        self._fd = -1
        failure: list[OSError] = []

        def make() -> None:
            # A namespace belongs to a thread: this one leaves the process's and then ends.
            try:
                _call("unshare", _CLONE_NEWNET)
                _loopback_up()
                self._fd = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                failure.append(error)

        thread = threading.Thread(target=make, name="namespace-maker")
        thread.start()
        thread.join()
        if failure:
            raise EngineUnavailableError(f"no network namespace of one's own here: {failure[0]}")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into the namespace for the length of the block.

        Sockets made, threads and processes started meanwhile belong to it for good.
        """
        if self._fd < 0:
            raise EngineUnavailableError("the network namespace is closed")
        back = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", self._fd, _CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", back, _CLONE_NEWNET)
        finally:
            os.close(back)

    def close(self) -> None:
        """Let go of it: the kernel removes it when the last process and socket in it are gone."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _call(name: str, *arguments: int) -> None:
    """unshare(2) or setns(2); the os module has them from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = bytearray(struct.pack("16sh14x", b"lo", 0))  # struct ifreq: name, flags
        fcntl.ioctl(handle, _SIOCGIFFLAGS, request)
        (flags,) = struct.unpack_from("h", request, 16)
        struct.pack_into("h", request, 16, flags | _IFF_UP)
        fcntl.ioctl(handle, _SIOCSIFFLAGS, request)
