# SPDX-License-Identifier: Apache-2.0
"""The board's end of the link: it introduces itself and takes the session that the host offers."""

from struct import pack_into

from .const import (
    AGENT_ID_BYTES,
    E_CAPACITY,
    FBC_VERSION,
    HELLO,
    HELLO_BYTES,
    IN_BYE,
    IN_OFFER,
    LINK_HEADER,
    LINK_VERSION,
    LOG,
    OK,
    RX_PAYLOAD,
    WAITING,
    WELCOME_BYTES,
)
from .container import StaticFBC
from .framing import frame_bytes
from .kernels import copy8, u32
from .link import TABLE, Link


class BoardLink(Link):
    """See Link. `declaration`: the JSON that HELLO carries, of which `tx` takes a frame."""

    _hello_slower = 2

    def __init__(
        self, tx: bytearray, rx: StaticFBC, declaration: bytes = b"{}", ticks_per_ms: int = 1
    ) -> None:
        longest = HELLO_BYTES + len(declaration)
        Link.__init__(self, tx, rx, ticks_per_ms, max(longest, WELCOME_BYTES))
        self._declaration = declaration
        self._log_level = 0
        self.max_baud = 0  # the highest rate of the line, 0 where it has one only

    def log(self, level: int, text: bytes) -> int:
        """Send a short message when the line is free; the newest wins. OK or E_CAPACITY."""
        if frame_bytes(LINK_HEADER + 1 + len(text)) > len(self.framer.tx):
            return E_CAPACITY
        self._log = text
        self._log_level = level
        return OK

    def _send_log(self, text: bytes) -> None:
        self._body[LINK_HEADER] = self._log_level
        self._begin(LOG, 0, 0, 1)
        self.framer.add(text, 0, len(text))
        self._finish()

    def _hello(self) -> None:
        self._hello_no = (self._hello_no + 1) & 255
        room = self.max_container()
        rate = self.max_baud // 100
        if rate > 65535:
            rate = 65535
        pack_into("<BBHH", self._body, LINK_HEADER, LINK_VERSION, FBC_VERSION, rate, room)
        self._begin(HELLO, 0, self._hello_no, HELLO_BYTES)
        self.framer.add(self._declaration, 0, len(self._declaration))
        self._finish()

    def _on_hello(self, n: int, number: int, now: int) -> int:
        # the host lost us, or has just come up: whatever session there was is over
        self._hello_due = True
        return self._enter(TABLE[IN_BYE][self.state], now)

    def _on_welcome(self, n: int, epoch: int, now: int) -> int:
        b = self.rx.buf
        at = RX_PAYLOAD
        if n < WELCOME_BYTES or epoch == 0:
            self.malformed += 1
            return 0
        ev = self._speaks(now)
        if ev:
            return ev
        if (self._hello_no - b[at + 2]) & 255 > 3:
            self.stale += 1  # answers a HELLO of long ago
            return 0
        if self.state != WAITING and epoch == self.epoch:
            return self._alive(now)
        beat_ms = b[at + 4] | b[at + 5] << 8
        lost_ms = b[at + 6] | b[at + 7] << 8
        motor_timeout_ms = b[at + 8] | b[at + 9] << 8
        if beat_ms == 0 or lost_ms <= beat_ms or motor_timeout_ms == 0:
            self.malformed += 1  # would flood the line, or lose every session at once
            return 0
        self.epoch = epoch
        self._reset_session()
        self.beat_ms = beat_ms
        self.lost_ms = lost_ms
        self.motor_timeout_ms = motor_timeout_ms
        self.peer_max = b[at + 10] | b[at + 11] << 8
        copy8(self.agent_id, 0, b, at + 16, AGENT_ID_BYTES)
        self.beat_now(now)
        return self._enter(TABLE[IN_OFFER][self.state], now)

    def _on_rate(self) -> int:
        rate = u32(self.rx.buf, RX_PAYLOAD)
        good = 0 < rate <= self.max_baud
        self.rate = rate if good else 0
        self._holding = good
        self._rate_due = True
        return 0
