# SPDX-License-Identifier: Apache-2.0
"""The session between a board and its host, bytes and ticks in, frames and events out.

`Link` is what both ends share: the table, data, beats, acknowledgements, deadlines. A board runs
`board_link.BoardLink`, which introduces itself; a host `host_link.HostLink`, which asks, welcomes
and hands out the sessions. No sockets, clocks or allocation after `__init__` in any of them.

This module is long because the session is one thing: its table, its frames and its deadlines are
read together.

Frames: const.py. One table drives both ends:

    input \\ state   WAITING    OFFERED     CONNECTED   LOST
    OFFER           OFFERED    OFFERED     OFFERED     OFFERED
    ALIVE           WAITING    CONNECTED   CONNECTED   CONNECTED
    SILENCE         WAITING    WAITING     LOST        WAITING
    BYE             WAITING    WAITING     WAITING     WAITING

OFFER is a HELLO at the host and a WELCOME at the board, ALIVE a frame of the session, SILENCE the
state's deadline passed.

WAITING: the board says HELLO, the host asks for it, each at its interval. LOST is left only after
two frames in a row (hysteresis), and ends the session when it lasts. Motor commands count as fresh
only inside a session, in sequence; `motor_timeout` without one raises EV_FAILSAFE once.
"""

from array import array
from struct import pack_into

from .const import (
    ACK,
    AGENT_ID_BYTES,
    BEAT,
    BEAT_BYTES,
    BYE,
    BYE_VERSION,
    COMPACT_SAVES,
    CONNECTED,
    CRC_BYTES,
    DATA,
    E_CAPACITY,
    E_FULL,
    E_RANGE,
    E_STATE,
    E_TIMEOUT,
    END,
    EV_ACK,
    EV_BYE,
    EV_DATA,
    EV_DOWN,
    EV_FAILSAFE,
    EV_LOST,
    EV_MOTOR,
    EV_NAK,
    EV_RTT,
    EV_UP,
    EV_VERSION,
    FBC_VERSION,
    FROM_HOST,
    HEADER_BYTES,
    HELLO,
    IN_ALIVE,
    IN_BYE,
    IN_SILENCE,
    INCOMPATIBLE,
    LINK_HEADER,
    LINK_VERSION,
    LOG,
    LOST,
    MAX_HELLO_MS,
    NAK,
    OFFERED,
    RATE,
    RATE_BYTES,
    RX_PAYLOAD,
    RX_START,
    SEQ_MASK,
    STREAM_CONTROL,
    STREAM_MOTOR,
    STREAMS,
    TICKS_MASK,
    WAITING,
    WELCOME,
    WELCOME_BYTES,
)
from .container import StaticFBC
from .framing import Framer, frame_bytes
from .kernels import copy8, u32

MYPY = False
if MYPY:
    Bytes = bytes | bytearray | memoryview

TABLE = (
    bytes((OFFERED, OFFERED, OFFERED, OFFERED)),
    bytes((WAITING, CONNECTED, CONNECTED, CONNECTED)),
    bytes((WAITING, WAITING, LOST, WAITING)),
    bytes((WAITING, WAITING, WAITING, WAITING)),
)

# A number at most this far behind the newest is an old frame, even after an outage.
_RECENT = 256
_HALF = 0x1FFFFFFF


def ticks_diff(a: int, b: int) -> int:
    """a - b on the 30-bit tick circle, negative when a lies before b."""
    d = (a - b) & TICKS_MASK
    if d > _HALF:
        d -= TICKS_MASK
        d -= 1
    return d


class Link:
    """One end of the session. `tx` is the out-buffer, `rx` the container that frames are decoded
    into. Ticks are integers modulo 2**30, `ticks_per_ms` of them a millisecond (1 on a board; 1000
    on a host, which measures round trips in microseconds). `longest`: bytes of the longest control
    frame, without header, that this end sends.

    Feed received bytes to `receive` until it returns END, call `tick` often, and write out
    tx[tx_pos:tx_len] whenever `pending()`, telling `written(n)`.

    Counters: sent, received, lost (gaps in sequence), stale, foreign (other epoch), unknown,
    echoed, malformed; and those of `framer`. ValueError for buffers that cannot take the frames
    every session needs.
    """

    host = False
    _hello_slower = 1  # how much longer each silence between two HELLOs is

    def __init__(self, tx: bytearray, rx: StaticFBC, ticks_per_ms: int, longest: int) -> None:
        need = frame_bytes(LINK_HEADER + longest)
        if len(tx) < need:
            raise ValueError("link: tx of %d bytes, at least %d are needed" % (len(tx), need))
        need = RX_PAYLOAD + WELCOME_BYTES + CRC_BYTES
        if len(rx.buf) < need:
            raise ValueError("link: rx of %d bytes, at least %d are needed" % (len(rx.buf), need))
        self.rx = rx
        self.framer = Framer(tx, rx.buf, RX_START)
        self.ticks_per_ms = ticks_per_ms
        self.state = WAITING
        self.epoch = 0
        # settings; the host's are told to the board by WELCOME
        self.beat_ms = 200
        self.lost_ms = 800
        self.motor_timeout_ms = 300
        self.agent_id = bytearray(AGENT_ID_BYTES)
        self.peer_max = 0
        # what the last event brought
        self.stream = 0
        self.length = 0
        self.rtt = -1
        self.peer_ticks_ms = 0
        self.peer_queue = 0
        self.peer_counters = array("H", [0] * 5)
        self.peer_link = LINK_VERSION
        self.peer_fbc = FBC_VERSION
        self.nak_code = 0
        self.bye_reason = 0
        self.failsafe = True
        self.queued = 0  # frames waiting above this link, told to the peer
        self.rate = 0  # baud that the line goes to, 0 for none; see resume
        # counters
        self.sent = self.received = self.lost = self.stale = 0
        self.foreign = self.unknown = self.echoed = self.malformed = self.superseded = 0
        # out
        self.tx_len = 0
        self.tx_pos = 0
        self._body = bytearray(LINK_HEADER + WELCOME_BYTES)  # of a control frame
        self._hello_no = 0
        self._hello_due = True
        self._hello_wait = 250
        self._welcome_due = False
        self._answer_due = False
        self._answer_stamp = bytearray(4)
        self._ack_due = 0
        self._ack_no = 0
        self._ack_code = 0
        self._ack_kind = ACK  # what the newest request was answered with, to say it again
        self._bye_due = 0
        self._holding = False  # between two rates of the line nothing goes out
        self._rate_due = False
        self._log: "bytes | None" = None
        # control request under way
        self._request: "StaticFBC | None" = None
        self._request_no = 0
        self._request_at = 0
        self._request_from = 0
        self._request_due = False
        # sequence numbers
        self._tx_seq = array("H", [0] * STREAMS)
        self._rx_seq = array("H", [0] * STREAMS)
        self._rx_gap = bytearray(STREAMS)  # 1: an outage lies behind, the gap may be long
        # times
        self._last_rx = 0
        self._entered = 0
        self._last_beat = 0
        self._last_motor = 0
        self._last_hello = 0
        self._alive_in_a_row = 0
        self._started = False

    # -- out ----------------------------------------------------------------------------------

    def pending(self) -> int:
        """Bytes of the out-buffer not yet written."""
        return self.tx_len - self.tx_pos

    def written(self, n: int) -> None:
        """So many bytes of tx[tx_pos:tx_len] went out."""
        self.tx_pos += n
        if self.tx_pos >= self.tx_len:
            self.tx_pos = self.tx_len = 0

    def discard(self) -> None:
        """Forget the frame in the out-buffer: the line it was meant for is gone."""
        self.tx_pos = self.tx_len = 0

    def send(self, stream: int, fbc: StaticFBC, length: int, now: int) -> int:
        """Put a container of `length` bytes into the out-buffer.

        Bytes to write, or E_STATE outside a session, E_FULL while the buffer is being written,
        E_CAPACITY when the frame fits neither it nor the peer. On the control stream `fbc` must
        stay unchanged until EV_ACK, EV_NAK or EV_DOWN; E_FULL while another request is under way.
        """
        if self.state != CONNECTED:
            return E_STATE
        if stream < 0 or stream >= STREAMS or length < HEADER_BYTES:
            return E_RANGE
        if self.tx_len or self._holding:
            return E_FULL
        if self.peer_max and length > self.peer_max:
            return E_CAPACITY
        if stream == STREAM_CONTROL:
            if self._request is not None:
                return E_FULL
            self._request_no = (self._tx_seq[0] + 1) & SEQ_MASK
        rc = self._send_data(stream, fbc.buf, length)
        if rc > 0:
            self.sent = (self.sent + 1) & TICKS_MASK
            if stream == STREAM_CONTROL:
                self._request = fbc
                self._request_at = now
                self._request_from = now
                fbc.length = length
        return rc

    def _send_data(self, stream: int, buf: bytearray, length: int) -> int:
        seq = (self._tx_seq[stream] + 1) & SEQ_MASK
        f = self.framer
        self._begin(DATA, stream, seq, 0)
        f.add(buf, 1, 3)
        if f.add(buf, HEADER_BYTES, length - HEADER_BYTES) < 0:
            return E_CAPACITY
        self._tx_seq[stream] = seq
        return self._finish()

    def may_switch(self) -> bool:
        """Whether the line is to go to `rate` and nothing of this end is left to be written."""
        return self._holding and not self._rate_due and self.tx_len == 0

    def resume(self, now: int) -> None:
        """The line is at its new rate, or stays at the old one. The next frame is a beat."""
        self.rate = 0
        self._holding = self._rate_due = False
        self.beat_now(now)

    def beat_now(self, now: int) -> None:
        """Beat with the next `tick`."""
        self._last_beat = now - self.beat_ms * self.ticks_per_ms & TICKS_MASK

    def bye(self, reason: int) -> None:
        """Say goodbye and end the session, with the next `tick` that finds the line free.

        Then stop calling `tick`, or the two ends introduce themselves again.
        """
        self._bye_due = reason
        self._welcome_due = self._answer_due = self._hello_due = False
        self._holding = self._rate_due = False

    def _begin(self, kind: int, stream: int, seq: int, n: int) -> None:
        """Open a frame; its payload begins with n bytes of `_body`, from LINK_HEADER on."""
        h = self._body
        h[0] = kind
        h[1] = (stream | FROM_HOST if self.host else stream) | (seq >> 4) & 0xF0
        h[2] = self.epoch
        h[3] = seq & 255
        self.framer.begin()
        self.framer.add(h, 0, LINK_HEADER + n)

    def _finish(self) -> int:
        rc = self.framer.finish()
        if rc > 0:
            self.tx_len = rc
            self.tx_pos = 0
        return rc

    def _simple(self, kind: int, seq: int, n: int) -> None:
        """A frame of n bytes of `_body`."""
        self._begin(kind, 0, seq, n)
        self._finish()

    def _next_frame(self, now: int) -> None:
        """Encode the most urgent control frame, if any and if the buffer is free."""
        b = self._body
        state = self.state
        if self.tx_len:
            return
        if self._rate_due:
            self._rate_due = False
            pack_into("<I", b, LINK_HEADER, self.rate)
            self._simple(RATE, 0, RATE_BYTES)
        elif self._holding:
            return
        elif self._bye_due:
            b[LINK_HEADER] = self._bye_due
            self._bye_due = 0
            self._simple(BYE, 0, 1)
        elif self._hello_due:
            self._hello_due = False
            self._last_hello = now
            self._hello()
        elif self._welcome_due:
            self._welcome_due = False
            self._welcome(now)
        elif self._ack_due:
            pack_into("<HB", b, LINK_HEADER, self._ack_no, self._ack_code)
            kind = self._ack_due
            self._ack_due = 0
            self._simple(kind, 0, 3)
        elif self._answer_due:
            self._answer_due = False
            self._beat(1, now)
        elif self._request_due and self._request is not None and state == CONNECTED:
            self._request_due = False
            self._tx_seq[0] = (self._request_no - 1) & SEQ_MASK
            self._send_data(STREAM_CONTROL, self._request.buf, self._request.length)
        # a host may not beat before the board took the epoch: OFFERED there waits for ALIVE
        elif (
            state > (OFFERED if self.host else WAITING)
            and ticks_diff(now, self._last_beat) >= self.beat_ms * self.ticks_per_ms
        ):
            self._last_beat = now
            self._beat(0, now)
        elif self._log is not None and state == CONNECTED:
            self._send_log(self._log)
            self._log = None

    def _hello(self) -> None:
        raise NotImplementedError

    def _welcome(self, now: int) -> None:
        """A board welcomes nobody."""

    def _send_log(self, text: bytes) -> None:
        """A host logs for itself."""

    def _beat(self, answer: int, now: int) -> None:
        b = self._body
        q = self.queued
        f = self.framer
        pack_into(
            "<BBIIHHHHH", b, LINK_HEADER, answer, q if q < 255 else 255, now,
            now // self.ticks_per_ms, self.sent & 0xFFFF, self.received & 0xFFFF,
            (self.stale + self.superseded) & 0xFFFF,
            f.crc_errors & 0xFFFF, (f.resyncs + f.oversize) & 0xFFFF,
        )  # fmt: skip
        if answer:
            copy8(b, LINK_HEADER + 2, self._answer_stamp, 0, 4)
        self._simple(BEAT, 0, BEAT_BYTES)

    # -- in -----------------------------------------------------------------------------------

    def receive(self, chunk: "Bytes", start: int, n: int, now: int) -> int:
        """Take chunk[start:n], at most to the end of one frame (`index` is where it stopped).

        END when the chunk is used up; else event bits, 0 for a frame that needs no attention.
        """
        size = self.framer.feed(chunk, n, start)
        if size == END:
            return END
        if size < 0:
            return 0
        if size < LINK_HEADER:
            self.malformed += 1
            return 0
        b = self.rx.buf
        head = b[RX_START + 1]
        if (head & FROM_HOST != 0) == self.host:
            self.echoed += 1
            return 0
        kind = b[RX_START]
        if kind & INCOMPATIBLE:
            self.unknown += 1
            return 0
        kind &= 15
        stream = head & 7
        epoch = b[RX_START + 2]
        seq = b[RX_START + 3] | (head & 0xF0) << 4
        n = size - LINK_HEADER
        if kind == HELLO:
            return self._on_hello(n, seq & 255, now)
        if kind == WELCOME:
            return self._on_welcome(n, epoch, now)
        if kind == BYE and n >= 1:
            return self._on_bye(epoch, now)
        if kind < DATA or (kind > LOG and kind != RATE) or stream >= STREAMS:
            self.unknown += 1
            return 0
        if epoch != self.epoch or epoch == 0 or self.state == WAITING:
            self.foreign += 1
            self._on_foreign(now)
            return 0
        ev = self._alive(now)
        if kind == DATA:
            ev |= self._on_data(stream, seq, n, now)
        elif kind == BEAT:
            ev |= self._on_beat(n, now)
        elif kind == LOG and n >= 1:
            ev |= self._on_log(n)
        elif kind == RATE and n >= RATE_BYTES:
            ev |= self._on_rate()
        elif kind < LOG and n >= 3:
            ev |= self._on_ack(kind)
        else:
            self.malformed += 1
        return ev

    @property
    def index(self) -> int:
        """Where in the chunk the last `receive` stopped."""
        return self.framer.index

    def max_container(self) -> int:
        """Bytes of the largest container `rx` can take; the checksum is decoded behind it."""
        n = len(self.rx.buf) - CRC_BYTES
        return n if n < 65535 else 65535

    def swap_rx(self, fbc: StaticFBC) -> StaticFBC:
        """Decode the next frames into `fbc`; returns the container filled so far."""
        old = self.rx
        self.rx = fbc
        self.framer.set_rx(fbc.buf)
        return old

    def _on_hello(self, n: int, number: int, now: int) -> int:
        raise NotImplementedError

    def _on_welcome(self, n: int, epoch: int, now: int) -> int:
        self.malformed += 1
        return 0

    def _on_log(self, n: int) -> int:
        self.unknown += 1
        return 0

    def _on_rate(self) -> int:
        raise NotImplementedError

    def _on_foreign(self, now: int) -> None:
        """Nothing to do for a board: its own HELLO is on its way."""

    def _speaks(self, now: int) -> int:
        """0 when HELLO or WELCOME names our versions; else the events that follow."""
        b = self.rx.buf
        self.peer_link = b[RX_PAYLOAD]
        self.peer_fbc = b[RX_PAYLOAD + 1]
        if self.peer_link == LINK_VERSION and self.peer_fbc == FBC_VERSION:
            return 0
        self._bye_due = BYE_VERSION
        return EV_VERSION | self._enter(WAITING, now)

    def _reset_session(self) -> None:
        # both ends count from 0, so that frames lost before the first one count as lost
        for i in range(STREAMS):
            self._tx_seq[i] = 0
            self._rx_seq[i] = 0
            self._rx_gap[i] = 0
        self._request = None
        self._ack_due = 0
        self._answer_due = False

    def _on_bye(self, epoch: int, now: int) -> int:
        if self.state != WAITING and epoch and epoch != self.epoch:
            self.foreign += 1
            return 0
        self.bye_reason = self.rx.buf[RX_PAYLOAD]
        return EV_BYE | self._enter(TABLE[IN_BYE][self.state], now)

    def _alive(self, now: int) -> int:
        self._last_rx = now
        if self.state == CONNECTED:
            return 0
        self._alive_in_a_row += 1
        if self.state == LOST and self._alive_in_a_row < 2:
            return 0
        return self._enter(TABLE[IN_ALIVE][self.state], now)

    def _enter(self, state: int, now: int) -> int:
        old = self.state
        self._entered = now
        self.state = state
        self._alive_in_a_row = 0
        if state == old:
            return 0
        self.rate = 0
        self._holding = self._rate_due = False
        if state == CONNECTED:
            self._last_rx = now
            if self.host:
                self.beat_now(now)  # the board is waiting for a first sign of the session
            self._hello_wait = 250
            if old == LOST:
                for i in range(STREAMS):
                    self._rx_gap[i] = 1
            return EV_UP
        if state == LOST:
            return EV_LOST
        ev = EV_DOWN if old == CONNECTED or old == LOST else 0
        if state == WAITING:
            self._welcome_due = False
            self._answer_due = False
            self._request = None
            self._hello_due = True
            self._last_hello = now
        return ev

    def _on_data(self, stream: int, seq: int, n: int, now: int) -> int:
        if self.state == LOST:
            # hysteresis: not trusted yet, and the sender will say it again
            self.stale += 1
            return 0
        if n < 3:
            self.malformed += 1
            return 0
        b = self.rx.buf
        ahead = (seq - self._rx_seq[stream]) & SEQ_MASK
        if stream == STREAM_CONTROL and ahead == 0:
            self._ack_due = self._ack_kind  # our answer was lost: say it again, deliver it once
            self._ack_no = seq
            return 0
        if ahead == 0 or ahead > (SEQ_MASK - _RECENT if self._rx_gap[stream] else SEQ_MASK >> 1):
            self.stale += 1
            return 0
        self.lost = (self.lost + ahead - 1) & TICKS_MASK
        self._rx_gap[stream] = 0
        self._rx_seq[stream] = seq
        b[0] = FBC_VERSION
        copy8(b, 1, b, RX_PAYLOAD, 3)
        copy8(b, 4, self.agent_id, 0, AGENT_ID_BYTES)
        self.length = n + COMPACT_SAVES
        self.stream = stream
        self.received = (self.received + 1) & TICKS_MASK
        rc = self.rx.parse(self.length)
        if stream == STREAM_CONTROL:
            self._ack_due = self._ack_kind = NAK if rc < 0 else ACK
            self._ack_no = seq
            self._ack_code = -rc & 255 if rc < 0 else 0
        if rc < 0:
            self.malformed += 1
            return 0
        if stream == STREAM_MOTOR:
            self._last_motor = now
            if self.failsafe:
                self.failsafe = False
                return EV_DATA | EV_MOTOR
        return EV_DATA

    def _on_beat(self, n: int, now: int) -> int:
        if n < BEAT_BYTES:
            self.malformed += 1
            return 0
        b = self.rx.buf
        at = RX_PAYLOAD
        self.peer_queue = b[at + 1]
        for i in range(5):
            self.peer_counters[i] = b[at + 10 + 2 * i] | b[at + 11 + 2 * i] << 8
        ticks_ms = u32(b, at + 6)
        if ticks_ms >= 0:
            self.peer_ticks_ms = ticks_ms
        if not b[at] & 1:
            copy8(self._answer_stamp, 0, b, at + 2, 4)
            self._answer_due = True
            return 0
        stamp = u32(b, at + 2)
        if stamp < 0:
            self.malformed += 1
            return 0
        rtt = ticks_diff(now, stamp)
        if rtt < 0 or rtt > 60000 * self.ticks_per_ms:
            self.stale += 1
            return 0
        self.rtt = rtt
        return EV_RTT

    def _on_ack(self, kind: int) -> int:
        b = self.rx.buf
        at = RX_PAYLOAD
        if self._request is None or (b[at] | b[at + 1] << 8) != self._request_no:
            self.stale += 1
            return 0
        self._request = None
        self._request_due = False
        if kind == ACK:
            return EV_ACK
        self.nak_code = -b[at + 2]
        return EV_NAK

    # -- time ---------------------------------------------------------------------------------

    def tick(self, now: int) -> int:
        """Watch the deadlines and encode the next control frame. Event bits."""
        per = self.ticks_per_ms
        ev = 0
        if not self._started:
            self._started = True
            self._entered = self._last_rx = self._last_motor = self._last_hello = now
        state = self.state
        if state == CONNECTED:
            if ticks_diff(now, self._last_rx) > self.lost_ms * per:
                ev = self._enter(TABLE[IN_SILENCE][state], now)
        elif state == WAITING:
            if ticks_diff(now, self._last_hello) > self._hello_wait * per:
                self._hello_due = True
                if self._hello_wait < MAX_HELLO_MS:
                    self._hello_wait *= self._hello_slower
                self._last_hello = now
        elif ticks_diff(now, self._entered) > (4 if state == LOST else 1) * self.lost_ms * per:
            ev = self._enter(TABLE[IN_SILENCE][state], now)
        if not self.failsafe and ticks_diff(now, self._last_motor) > self.motor_timeout_ms * per:
            self.failsafe = True
            ev |= EV_FAILSAFE
        if self._request is not None:
            # as a difference: the sum of a tick and a span may pass 2**30, which allocates
            if ticks_diff(now, self._request_from) > 10 * self.beat_ms * per:
                self._request = None
                self.nak_code = E_TIMEOUT
                ev |= EV_NAK
            elif ticks_diff(now, self._request_at) > self.beat_ms * per:
                self._request_at = now
                self._request_due = True
        leaving = self._bye_due and not self.tx_len
        self._next_frame(now)
        if leaving:
            ev |= self._enter(TABLE[IN_BYE][self.state], now)
            # whoever says goodbye does not ask the other end straight back
            self._hello_due = False
        return ev
