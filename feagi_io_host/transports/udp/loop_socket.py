# SPDX-License-Identifier: Apache-2.0
"""LoopSocket: one UDP socket in an event loop, for everything that a server sends and receives."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

from feagi_io_host.core.datagram import MAX_DATAGRAM_BYTES
from feagi_io_host.core.errors import PortBusyError, PortError, PortPermissionError
from feagi_io_host.core.fragment import Burst
from feagi_io_host.transports.udp.address import resolve
from feagi_io_host.transports.udp.ladder import BurstReceiver, BurstSender, Pacer, Probe
from feagi_io_host.transports.udp.sockets import forbid_ip_fragments, size_buffer
from feagi_io_host.transports.udp.vectors import Address

_log = logging.getLogger("feagi_io.udp")

# So many calls to the system in a row; then others in the loop have their turn.
_FAIR_SHARE: Final = 8
_SHORTEST_SLEEP_S: Final = 5e-4
_ERRORS: Final = {errno.EADDRINUSE: PortBusyError, errno.EACCES: PortPermissionError}


class LoopSocket:
    """Bound at `host:port` (0: any free port). `came(receiver, now_s)` is called, in the loop, with
    what has arrived. Raises PortError when it cannot be had."""

    def __init__(
        self,
        host: str,
        port: int,
        rungs: Probe,
        buffer_bytes: int,
        came: Callable[[BurstReceiver, float], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        family, address = resolve(host, port)
        self._clock = clock
        self._came = came
        self._rungs = rungs
        self._loop = asyncio.get_running_loop()
        self._room: asyncio.Future[None] | None = None
        self._closed = False
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self.socket.setblocking(False)
            self.socket.bind(address)
            size_buffer(self.socket, "receive", buffer_bytes)
            size_buffer(self.socket, "send", buffer_bytes)
            forbid_ip_fragments(self.socket)
            self.receiver = BurstReceiver(self.socket, rungs.receive, MAX_DATAGRAM_BYTES)
            self._loop.add_reader(self.socket.fileno(), self._read)
        except OSError as error:
            self.socket.close()
            kind = _ERRORS.get(error.errno or 0, PortError)
            raise kind(f"udp://{host}:{port} cannot be used: {error.strerror}") from error
        except BaseException:
            self.socket.close()
            raise
        self.port = int(self.socket.getsockname()[1])

    def sender(self, pacer: Pacer) -> BurstSender:
        """A sender through this socket, for one receiver."""
        return BurstSender(self.socket, self._rungs.send, pacer)

    async def send(
        self, sender: BurstSender, burst: Burst, to: Address | None, deadline_s: float
    ) -> bool:
        """Send a burst; False when it was not out at the time `deadline_s`.

        Raises PortError for what the system refuses.
        """
        sender.begin(burst, to)
        try:
            while (pause_s := sender.step(self._clock())) is not None:
                left_s = deadline_s - self._clock()
                if left_s <= 0.0 or self._closed:
                    return False
                if pause_s:
                    # A loop sleeps for a millisecond or not at all.
                    await asyncio.sleep(0.0 if pause_s < _SHORTEST_SLEEP_S else pause_s)
                else:
                    await self._wait_for_room(left_s)
        finally:
            if not sender.idle:
                sender.cut_off()
        return True

    def say(self, datagram: bytes, to: Address) -> None:
        """Send one datagram if that can be done now; who waits for it asks again."""
        with contextlib.suppress(OSError):
            self.socket.sendto(datagram, to)

    def close(self) -> None:
        """Let go; may be called more than once."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self.socket.fileno())
        self._has_room()
        self.socket.close()

    async def _wait_for_room(self, left_s: float) -> None:
        if self._room is None:
            self._room = self._loop.create_future()
            self._loop.add_writer(self.socket.fileno(), self._has_room)
        await asyncio.wait({self._room}, timeout=left_s)

    def _has_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            self._loop.remove_writer(self.socket.fileno())
            room.set_result(None)

    def _read(self) -> None:
        for _ in range(_FAIR_SHARE):
            try:
                if not self.receiver.receive():
                    return
            except PortError:
                _log.exception("UDP socket given up")
                self._loop.remove_reader(self.socket.fileno())
                return
            self._came(self.receiver, self._clock())
            if not self.receiver.full:
                return
