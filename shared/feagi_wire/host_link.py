# SPDX-License-Identifier: Apache-2.0
"""The host's end of the link: it asks for boards, welcomes them and numbers their sessions."""

from struct import pack_into

from .const import (
    AGENT_ID_BYTES,
    BYE_REFUSED,
    CONNECTED,
    E_STATE,
    EV_HELLO,
    EV_LOG,
    EV_RATE,
    FBC_VERSION,
    HELLO,
    HELLO_BYTES,
    IN_OFFER,
    LINK_HEADER,
    LINK_VERSION,
    OFFERED,
    OK,
    RX_PAYLOAD,
    WAITING,
    WELCOME,
    WELCOME_BYTES,
)
from .container import StaticFBC
from .kernels import copy8, u32
from .link import TABLE, Link, ticks_diff

STATE_NAMES = ("WAITING", "OFFERED", "CONNECTED", "LOST")


class HostLink(Link):
    """See Link. Sessions are numbered from `epoch` + 1 on."""

    host = True

    def __init__(self, tx: bytearray, rx: StaticFBC, ticks_per_ms: int = 1, epoch: int = 0) -> None:
        Link.__init__(self, tx, rx, ticks_per_ms, WELCOME_BYTES)
        self.epoch = epoch & 255
        self.peer_max_baud = 0

    def refuse(self, now: int) -> int:
        """Host: after EV_HELLO, turn the board away instead of welcoming it. Event bits."""
        self._welcome_due = False
        self._bye_due = BYE_REFUSED
        return self._enter(WAITING, now)

    def _hello(self) -> None:
        self._simple(HELLO, 0, 0)

    def _welcome(self, now: int) -> None:
        b = self._body
        pack_into(
            "<BBBBHHHHI", b, LINK_HEADER, LINK_VERSION, FBC_VERSION, self._hello_no, 0,
            self.beat_ms, self.lost_ms, self.motor_timeout_ms, self.max_container(),
            now // self.ticks_per_ms,
        )  # fmt: skip
        copy8(b, LINK_HEADER + 16, self.agent_id, 0, AGENT_ID_BYTES)
        self._simple(WELCOME, 0, WELCOME_BYTES)

    def _on_hello(self, n: int, number: int, now: int) -> int:
        b = self.rx.buf
        at = RX_PAYLOAD
        if n < HELLO_BYTES:
            self.malformed += 1
            return 0
        ev = self._speaks(now)
        if ev:
            return ev
        self.peer_max_baud = 100 * (b[at + 2] | b[at + 3] << 8)
        self.peer_max = b[at + 4] | b[at + 5] << 8
        self.length = n
        self._hello_no = number
        ev = EV_HELLO
        if self.state != OFFERED:
            self._new_epoch()
            ev |= self._enter(TABLE[IN_OFFER][self.state], now)
        else:
            self._entered = now
        self._welcome_due = True
        return ev

    def _new_epoch(self) -> None:
        self.epoch = self.epoch % 255 + 1
        self._reset_session()

    def _on_log(self, n: int) -> int:
        self.length = n
        return EV_LOG

    def _on_foreign(self, now: int) -> None:
        # a board in a session we know nothing of: ask it to introduce itself, once per interval
        if self.state == WAITING and ticks_diff(now, self._last_hello) > 100 * self.ticks_per_ms:
            self._hello_due = True

    def ask_rate(self, baud: int) -> int:
        """Ask the board to take its line to another rate. From here on nothing goes out until
        `resume`: after EV_RATE, or when none came. OK, or E_STATE outside a session and while
        another rate is being asked for."""
        if self.state != CONNECTED or self._holding:
            return E_STATE
        self.rate = baud
        self._holding = self._rate_due = True
        return OK

    def _on_rate(self) -> int:
        if not self._holding:
            self.stale += 1
            return 0
        self.rate = u32(self.rx.buf, RX_PAYLOAD)
        return EV_RATE

    @property
    def hello_span(self) -> "tuple[int, int]":
        """Host, after EV_HELLO: start and end of the board's JSON declaration in rx.buf."""
        return RX_PAYLOAD + HELLO_BYTES, RX_PAYLOAD + self.length

    @property
    def log_span(self) -> "tuple[int, int]":
        """Host, after EV_LOG: start and end of the message in rx.buf; the level stands before."""
        return RX_PAYLOAD + 1, RX_PAYLOAD + self.length
