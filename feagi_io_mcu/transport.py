# SPDX-License-Identifier: Apache-2.0
"""RTOSTransport: containers over a driver, through the link, in static buffers.

Every container lives in one of `pool_size` buffers made at initialisation: one is being received
into, and each inbound stream that has brought something keeps its newest. A newer frame of the
same stream takes the place of one not yet polled, counted in `link.superseded`: for a set-point
the newest is the only one worth having.
"""

from feagi_wire.board_link import BoardLink
from feagi_wire.const import (
    COMPACT_SAVES,
    E_CAPACITY,
    E_FULL,
    E_TIMEOUT,
    END,
    EV_BYE,
    EV_DATA,
    HELLO_BYTES,
    LINK_HEADER,
    STREAMS,
    WELCOME_BYTES,
)
from feagi_wire.container import StaticFBC
from feagi_wire.framing import frame_bytes
from feagi_wire.kernels import copy8
from feagi_wire.link import ticks_diff

from ._port import sleep_ms, ticks
from .config import CHUNK_BYTES, DEFAULT_TIMEOUT_TICKS, FBC_POOL_SIZE, MAX_FBC_SIZE
from .drivers.base import RTOSDriver

# bytes handled in one pump, so that a flooded line cannot keep the control loop from its turn
_ROUNDS = 16


class RTOSTransport:
    """One end of the link over a driver. `declaration`: the JSON that HELLO carries.

    Containers up to `max_fbc_size` bytes are received; up to `max_send` are sent, 0 for the same.
    """

    def __init__(
        self,
        driver: RTOSDriver,
        declaration: bytes = b"{}",
        max_fbc_size: int = MAX_FBC_SIZE,
        pool_size: int = FBC_POOL_SIZE,
        max_send: int = 0,
    ) -> None:
        if pool_size < 2:
            raise ValueError("pool_size: at least 2, got %d" % pool_size)
        self.driver = driver
        self.max_fbc_size = max_fbc_size
        # of the container that is sent, without what the link leaves out; of HELLO; of WELCOME's
        # size, which the link asks for
        longest = (max_send or max_fbc_size) - COMPACT_SAVES
        longest = max(longest, len(declaration) + HELLO_BYTES, WELCOME_BYTES)
        self.tx = bytearray(frame_bytes(longest + LINK_HEADER))
        # the checksum is decoded behind the container
        self._pool = [StaticFBC(bytearray(max_fbc_size + 4)) for _ in range(pool_size)]
        self._free = pool_size - 1
        self.link = BoardLink(self.tx, self._pool[self._free], declaration)
        self.link.max_baud = driver.max_baud
        self._inbox: "list[StaticFBC | None]" = [None] * STREAMS
        self._fresh = bytearray(STREAMS)
        self._chunk = bytearray(CHUNK_BYTES)
        self._at = 0
        self._n = 0
        self.dropped = 0  # frames of a stream for which no buffer was left
        driver.init()

    def pump(self) -> int:
        """Move what can be moved without waiting; the link's event bits."""
        now = ticks()
        link = self.link
        frames = link.framer.frames
        ev = link.tick(now)
        for _ in range(_ROUNDS):
            if self._at >= self._n:
                self._at = 0
                self._n = self.driver.read_some(self._chunk)
                if self._n <= 0:
                    self._n = 0
                    break
            while True:
                rc = link.receive(self._chunk, self._at, self._n, now)
                if rc == END:
                    self._at = self._n
                    break
                self._at = link.index
                ev |= rc
                if rc & EV_DATA:
                    self._keep(link.stream)
        if ev & EV_BYE:
            self.driver.release()
        elif link.framer.frames != frames:
            self.driver.claim()
        for _ in range(3):
            self.flush()
            if link.pending():
                break
            ev |= link.tick(now)
        if self.driver.max_baud:
            self.driver.keep_rate(link, ev, now)
        return ev

    def flush(self) -> int:
        """Write of the out-buffer what the line takes; the bytes still waiting."""
        link = self.link
        left = link.pending()
        while left:
            done = self.driver.write_some(self.tx, link.tx_pos, left)
            if done <= 0:
                break
            link.written(done)
            left = link.pending()
        return left

    def _keep(self, stream: int) -> None:
        link = self.link
        kept = self._inbox[stream]
        if kept is None:
            if self._free == 0:
                self.dropped = (self.dropped + 1) & 0xFFFF
                return
            self._free -= 1
            kept = self._pool[self._free]
        elif self._fresh[stream]:
            link.superseded = (link.superseded + 1) & 0xFFFF
        self._inbox[stream] = link.swap_rx(kept)
        self._fresh[stream] = 1

    def poll(self, stream: int) -> "StaticFBC | None":
        """The newest container of a stream, parsed and ready to be read, or None.

        It stays untouched until the next `pump`, `send_blocking` or `recv_blocking`.
        """
        if not self._fresh[stream]:
            return None
        self._fresh[stream] = 0
        return self._inbox[stream]

    def send(self, stream: int, fbc: StaticFBC) -> int:
        """Start sending a finished container: bytes on their way, or a code of Link.send."""
        rc = self.link.send(stream, fbc, fbc.length, ticks())
        if rc > 0:
            self.flush()
        return rc

    def send_blocking(
        self, stream: int, fbc: StaticFBC, timeout_ticks: int = DEFAULT_TIMEOUT_TICKS
    ) -> int:
        """Send a container whole: bytes on the line, or E_TIMEOUT, E_STATE, E_CAPACITY, E_RANGE."""
        until = ticks() + timeout_ticks
        rc = self.send(stream, fbc)
        while rc == E_FULL or (rc > 0 and self.link.pending()):
            if ticks_diff(ticks(), until) >= 0:
                return E_TIMEOUT
            self.pump()
            if rc == E_FULL:
                rc = self.send(stream, fbc)
            elif self.link.pending():
                sleep_ms(1)
        return rc

    def recv_blocking(
        self, stream: int, fbc: StaticFBC, timeout_ticks: int = DEFAULT_TIMEOUT_TICKS
    ) -> int:
        """Wait for a container of a stream and copy it into `fbc`, parsed.

        Its length in bytes, or E_TIMEOUT, or E_CAPACITY when it does not fit.
        """
        until = ticks() + timeout_ticks
        while True:
            got = self.poll(stream)
            if got is not None:
                n = got.length
                if n > len(fbc.buf):
                    return E_CAPACITY
                copy8(fbc.buf, 0, got.buf, 0, n)
                rc = fbc.parse(n)
                return n if rc >= 0 else rc
            self.pump()
            if self._fresh[stream]:
                continue
            if ticks_diff(ticks(), until) >= 0:
                return E_TIMEOUT
            sleep_ms(1)

    def close(self) -> None:
        """Give the line back. The host notices by silence unless `link.bye` was pumped before."""
        self.driver.deinit()
