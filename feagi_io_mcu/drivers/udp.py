# SPDX-License-Identifier: Apache-2.0
"""UdpDriver: datagrams to one host as a line, for boards with a network.

The network is the program's business: connect it first, and again when it is lost; until then
what is sent is gone, and the link finds the host again by itself when it is back.

    wlan = network.WLAN(network.STA_IF)
    ...
    agent = Agent(UdpDriver("192.168.1.10"), "rover")

On the host the line is `udp://192.168.1.10:5570`, an address of its own that boards send to.
"""

import socket

from feagi_wire.kernels import copy8

from .base import RTOSDriver

MYPY = False
if MYPY:
    from typing import Any

UDP_PORT = 5570
DATAGRAM_BYTES = 1400  # sent at most in one
# `readinto` goes on with the next datagram in what room is left, and cuts one off that does not
# fit. Three whole ones are a container of 4096 bytes; what is cut costs a frame, and is counted.
RX_BYTES = 3 * 1472
# Nobody there; where the heap is locked there is no room for that error, and it is the other. A
# tuple in the `except` itself would be made each time.
_REFUSED = (OSError, MemoryError)


class UdpDriver(RTOSDriver):
    """A UDP socket connected to the host. Nothing here waits.

    `errors` counts what the network did not take: no route, nobody there. With `local_port` the
    board comes back from the same place after a restart, and the host knows it at once instead of
    after two seconds.
    """

    def __init__(
        self, host: str, port: int = UDP_PORT, local_port: int = 0, rxbuf: int = RX_BYTES
    ) -> None:
        self.host = host
        self.port = port
        self.local_port = local_port
        self.errors = 0
        self._rx = bytearray(rxbuf)
        self._at = 0
        self._n = 0
        self._socket: "Any" = None

    def init(self) -> None:
        """Open the socket. OSError when the name cannot be looked up or the port is taken."""
        there = socket.getaddrinfo(self.host, self.port)[0][-1]
        s: "Any" = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if self.local_port:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(socket.getaddrinfo("0.0.0.0", self.local_port)[0][-1])
            s.connect(there)
            s.setblocking(False)
        except OSError:
            s.close()
            raise
        self._socket = s
        self._at = self._n = 0

    def deinit(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _fill(self) -> int:
        if self._at >= self._n:
            self._at = self._n = 0
            if self._socket is not None:
                try:
                    n = self._socket.readinto(self._rx)
                    if n:
                        self._n = n
                except _REFUSED:
                    self.errors = (self.errors + 1) & 0xFFFF
        return self._n - self._at

    def data_available(self) -> int:
        """Bytes that have come and were not read."""
        return self._fill()

    def read_some(self, buf: bytearray) -> int:
        """See RTOSDriver."""
        n = self._fill()
        if n > len(buf):
            n = len(buf)
        copy8(buf, 0, self._rx, self._at, n)
        self._at += n
        return n

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        """See RTOSDriver. What the network refuses counts as sent: lost, as on any network."""
        if self._socket is None:
            return 0
        if n > DATAGRAM_BYTES:
            n = DATAGRAM_BYTES
        try:
            done = self._socket.write(buf, start, n)
            return done if done else 0
        except _REFUSED:
            self.errors = (self.errors + 1) & 0xFFFF
            return n
