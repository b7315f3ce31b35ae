# SPDX-License-Identifier: Apache-2.0
"""TCP sockets that servers listen on, bound before the server is made of them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping

from feagi_io_host.core.errors import PortBusyError, PortError


def bound_socket(
    address: str, port: int, buffers: Mapping[int, int] | None = None
) -> socket.socket:
    """A TCP socket bound to an address or name of this machine, port 0 for any free one.

    `buffers`: SO_SNDBUF and SO_RCVBUF to bytes; connections inherit them. Raises OSError.
    """
    family, _, _, _, where = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # elsewhere it would let two programs have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option, size_bytes in (buffers or {}).items():
            bound.setsockopt(socket.SOL_SOCKET, option, size_bytes)
        bound.bind(where)
    except BaseException:
        bound.close()
        raise
    return bound


def server_socket(
    who: str,
    address: str,
    port: int,
    buffers: Mapping[int, int] | None = None,
    advice: str = "",
) -> socket.socket:
    """The same for a server that messages call `who`; `advice` is what they end with. Raises
    PortBusyError and PortError."""
    try:
        return bound_socket(address, port, buffers)
    except OSError as error:
        fault = PortBusyError if error.errno == errno.EADDRINUSE else PortError
        raise fault(
            f"{who} cannot listen at {address} port {port}: {error.strerror or error}{advice}"
        ) from error
