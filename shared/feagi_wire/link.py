# SPDX-License-Identifier: Apache-2.0
"""The session between a board and its host, bytes and ticks in, frames and events out.

This module is long because the session is one thing: its table, its frames and its deadlines are
read together, and a second module would cost a board 300 bytes of memory for nothing.

No sockets, clocks or allocation after `__init__` in here. The same class runs on both ends.

Frame payload (framing.py adds COBS and CRC-32), 4 bytes of header first:

    0  kind (low 4 bits) and flags: 0x10 0x20 compatible, 0x40 0x80 incompatible
    1  stream (low 3 bits), 0x08 = sent by the host, high 4 bits of the sequence number
    2  epoch: the session, 1..255, handed out by the host; 0 = no session yet
    3  low 8 bits of the sequence number, counted per direction and stream

An unknown kind is skipped and counted, and so is a frame with an unknown incompatible flag;
unknown compatible flags are ignored. A frame with our own direction bit came back by an echo.

| kind    | payload after the header                                                           |
|---------|------------------------------------------------------------------------------------|
| HELLO   | board: link version, FBC version, 2 reserved, max container u16, JSON declaration; |
|         | host: nothing, it asks for a HELLO                                                 |
| WELCOME | link version, FBC version, hello number answered, 1 reserved, beat ms u16, lost ms |
|         | u16, motor timeout ms u16, max container u16, host ticks ms u32, agent id 48       |
| DATA    | compact FBC: the container without version byte and agent id                       |
| BEAT    | flags (1 = answer), frames queued, sender's stamp u32, answerer's ticks ms u32,    |
|         | frames sent u16, received u16, dropped u16, CRC errors u16, resyncs u16            |
| ACK NAK | request number u16, code u8: answers DATA of the control stream                    |
| LOG     | level u8, UTF-8 text                                                               |
| BYE     | reason u8                                                                          |

One table drives both ends:

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

from .const import AGENT_ID_BYTES, FBC_VERSION, HEADER_BYTES, STREAM_CONTROL, STREAM_MOTOR, STREAMS
from .container import StaticFBC
from .errors import E_CAPACITY, E_FULL, E_RANGE, E_STATE, E_TIMEOUT, END, OK
from .framing import CRC_BYTES, Framer, frame_bytes
from .kernels import copy8, u32

LINK_VERSION = 1
LINK_HEADER = 4
COMPACT_SAVES = HEADER_BYTES - 3  # version byte and agent id
# a frame is decoded this far into the buffer, so that the struct table of a compact container
# lands on its place in a full one and nothing has to be moved
RX_START = HEADER_BYTES - 3 - LINK_HEADER

HELLO = 1
WELCOME = 2
DATA = 3
BEAT = 4
ACK = 5
NAK = 6
LOG = 7
BYE = 8

FROM_HOST = 0x08
INCOMPATIBLE = 0xC0

WAITING = 0
OFFERED = 1
CONNECTED = 2
LOST = 3
STATE_NAMES = ("WAITING", "OFFERED", "CONNECTED", "LOST")

IN_OFFER = 0
IN_ALIVE = 1
IN_SILENCE = 2
IN_BYE = 3
TABLE = (
    bytes((OFFERED, OFFERED, OFFERED, OFFERED)),
    bytes((WAITING, CONNECTED, CONNECTED, CONNECTED)),
    bytes((WAITING, WAITING, LOST, WAITING)),
    bytes((WAITING, WAITING, WAITING, WAITING)),
)

# Events: bits, several may come at once.
EV_UP = 1  # a session is connected (again)
EV_LOST = 2  # silence; the session may still come back
EV_DOWN = 4  # the session is over
EV_DATA = 8  # a container stands in `rx` (stream in .stream)
EV_RTT = 16  # .rtt holds a new round trip, in ticks
EV_ACK = 32  # the control request was taken
EV_NAK = 64  # the control request was refused (.nak_code) or never answered (E_TIMEOUT)
EV_FAILSAFE = 128  # no fresh motor command for the motor timeout
EV_MOTOR = 256  # motor commands are fresh again
EV_HELLO = 512  # host: a declaration stands in `rx` (hello_span); answered with WELCOME
EV_VERSION = 1024  # the other end speaks another version (.peer_link, .peer_fbc)
EV_LOG = 2048  # host: a message stands in `rx` (log_span)
EV_BYE = 4096  # the other end said goodbye (.bye_reason)

BYE_STOPPED = 1
BYE_VERSION = 2
BYE_REFUSED = 3

MAX_HELLO_MS = 2000
_HELLO_BYTES = 6  # before the declaration
_WELCOME_BYTES = 16 + AGENT_ID_BYTES
# A number at most this far behind the newest is an old frame, even after an outage.
_RECENT = 256
TICKS_MASK = 0x3FFFFFFF
_HALF = 0x1FFFFFFF
SEQ_MASK = 0xFFF


def ticks_diff(a: int, b: int) -> int:
    """a - b on the 30-bit tick circle, negative when a lies before b."""
    d = (a - b) & TICKS_MASK
    if d > _HALF:
        d -= TICKS_MASK
        d -= 1
    return d


class Link:
    """One end of the session. `host` says which; `tx` is the out-buffer, `rx` the container that
    frames are decoded into. Ticks are integers modulo 2**30, `ticks_per_ms` of them a millisecond
    (1 on a board; 1000 on a host, which measures round trips in microseconds).

    Feed received bytes to `receive` until it returns END, call `tick` often, and write out
    tx[tx_pos:tx_len] whenever `pending()`, telling `written(n)`.

    Counters: sent, received, lost (gaps in sequence), stale, foreign (other epoch), unknown,
    echoed, malformed; and those of `framer`. ValueError for buffers that cannot take the frames
    every session needs, or a `tx` that cannot take the declaration.
    """

    def __init__(
        self,
        host: bool,
        tx: bytearray,
        rx: StaticFBC,
        ticks_per_ms: int = 1,
        epoch: int = 0,
        declaration: "bytes | None" = None,
    ) -> None:
        longest = _WELCOME_BYTES
        if declaration is not None and _HELLO_BYTES + len(declaration) > longest:
            longest = _HELLO_BYTES + len(declaration)
        need = frame_bytes(LINK_HEADER + longest)
        if len(tx) < need:
            raise ValueError("link: tx of %d bytes, at least %d are needed" % (len(tx), need))
        need = RX_START + LINK_HEADER + _WELCOME_BYTES + CRC_BYTES
        if len(rx.buf) < need:
            raise ValueError("link: rx of %d bytes, at least %d are needed" % (len(rx.buf), need))
        self.host = host
        self.rx = rx
        self.framer = Framer(tx, rx.buf, RX_START)
        self.ticks_per_ms = ticks_per_ms
        self.state = WAITING
        self.epoch = epoch & 255
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
        # counters
        self.sent = self.received = self.lost = self.stale = 0
        self.foreign = self.unknown = self.echoed = self.malformed = self.superseded = 0
        # out
        self.tx_len = 0
        self.tx_pos = 0
        self._hdr = bytearray(LINK_HEADER)
        self._body = bytearray(20 + AGENT_ID_BYTES)
        self._hello = declaration
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
        self._log: "bytes | None" = None
        self._log_level = 0
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
        if self.tx_len:
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
        self._begin(DATA, stream, seq)
        f.add(buf, 1, 3)
        if f.add(buf, HEADER_BYTES, length - HEADER_BYTES) < 0:
            return E_CAPACITY
        self._tx_seq[stream] = seq
        return self._finish()

    def log(self, level: int, text: bytes) -> int:
        """Board: send a short message when the line is free; the newest wins. OK or E_CAPACITY."""
        if frame_bytes(LINK_HEADER + 1 + len(text)) > len(self.framer.tx):
            return E_CAPACITY
        self._log = text
        self._log_level = level
        return OK

    def bye(self, reason: int) -> None:
        """Say goodbye and end the session, with the next `tick` that finds the line free.

        Then stop calling `tick`, or the two ends introduce themselves again.
        """
        self._bye_due = reason
        self._welcome_due = self._answer_due = self._hello_due = False

    def _begin(self, kind: int, stream: int, seq: int) -> None:
        h = self._hdr
        h[0] = kind
        h[1] = (stream | FROM_HOST if self.host else stream) | (seq >> 4) & 0xF0
        h[2] = self.epoch
        h[3] = seq & 255
        self.framer.begin()
        self.framer.add(h, 0, LINK_HEADER)

    def _finish(self) -> int:
        rc = self.framer.finish()
        if rc > 0:
            self.tx_len = rc
            self.tx_pos = 0
        return rc

    def _simple(self, kind: int, seq: int, n: int) -> None:
        """A frame of `_body[0:n]`."""
        self._begin(kind, 0, seq)
        self.framer.add(self._body, 0, n)
        self._finish()

    def _next_frame(self, now: int) -> None:
        """Encode the most urgent control frame, if any and if the buffer is free."""
        if self.tx_len:
            return
        b = self._body
        if self._bye_due:
            b[0] = self._bye_due
            self._bye_due = 0
            self._simple(BYE, 0, 1)
        elif self._hello_due:
            self._hello_due = False
            self._last_hello = now
            if self.host:
                self._begin(HELLO, 0, 0)
                self._finish()
            elif self._hello is not None:
                self._hello_no = (self._hello_no + 1) & 255
                pack_into("<BBHH", b, 0, LINK_VERSION, FBC_VERSION, 0, self.max_container())
                self._begin(HELLO, 0, self._hello_no)
                self.framer.add(b, 0, _HELLO_BYTES)
                self.framer.add(self._hello, 0, len(self._hello))
                self._finish()
        elif self._welcome_due:
            self._welcome_due = False
            pack_into(
                "<BBBBHHHHI", b, 0, LINK_VERSION, FBC_VERSION, self._hello_no, 0, self.beat_ms,
                self.lost_ms, self.motor_timeout_ms, self.max_container(), now // self.ticks_per_ms,
            )  # fmt: skip
            copy8(b, 16, self.agent_id, 0, AGENT_ID_BYTES)
            self._simple(WELCOME, 0, _WELCOME_BYTES)
        elif self._ack_due:
            pack_into("<HB", b, 0, self._ack_no, self._ack_code)
            kind = self._ack_due
            self._ack_due = 0
            self._simple(kind, 0, 3)
        elif self._answer_due:
            self._answer_due = False
            self._beat(1, now)
        elif self._request_due and self._request is not None and self.state == CONNECTED:
            self._request_due = False
            self._tx_seq[0] = (self._request_no - 1) & SEQ_MASK
            self._send_data(STREAM_CONTROL, self._request.buf, self._request.length)
        elif (
            self.state == OFFERED or self.state == CONNECTED or self.state == LOST
        ) and ticks_diff(now, self._last_beat) >= self.beat_ms * self.ticks_per_ms:
            # a host may not beat before the board took the epoch: OFFERED there waits for ALIVE
            if not (self.host and self.state == OFFERED):
                self._last_beat = now
                self._beat(0, now)
        elif self._log is not None and self.state == CONNECTED:
            self._begin(LOG, 0, 0)
            b[0] = self._log_level
            self.framer.add(b, 0, 1)
            self.framer.add(self._log, 0, len(self._log))
            self._log = None
            self._finish()

    def _beat(self, answer: int, now: int) -> None:
        b = self._body
        q = self.queued
        f = self.framer
        pack_into(
            "<BBIIHHHHH", b, 0, answer, q if q < 255 else 255, now, now // self.ticks_per_ms,
            self.sent & 0xFFFF, self.received & 0xFFFF, (self.stale + self.superseded) & 0xFFFF,
            f.crc_errors & 0xFFFF, (f.resyncs + f.oversize) & 0xFFFF,
        )  # fmt: skip
        if answer:
            copy8(b, 2, self._answer_stamp, 0, 4)
        self._simple(BEAT, 0, 20)

    # -- in -----------------------------------------------------------------------------------

    def receive(self, chunk: "bytes | bytearray | memoryview", start: int, n: int, now: int) -> int:
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
        if kind < DATA or kind > LOG or stream >= STREAMS:
            self.unknown += 1
            return 0
        if epoch != self.epoch or epoch == 0 or self.state == WAITING:
            self.foreign += 1
            if self.host and self.state == WAITING:
                # a board in a session we know nothing of: ask it to introduce itself, once per
                # interval
                if ticks_diff(now, self._last_hello) > 100 * self.ticks_per_ms:
                    self._hello_due = True
            return 0
        ev = self._alive(now)
        if kind == DATA:
            ev |= self._on_data(stream, seq, n, now)
        elif kind == BEAT:
            ev |= self._on_beat(n, now)
        elif kind == LOG and n >= 1:
            self.length = n
            ev |= EV_LOG
        elif kind != LOG and n >= 3:
            ev |= self._on_ack(kind)
        else:
            self.malformed += 1
        return ev

    @property
    def index(self) -> int:
        """Where in the chunk the last `receive` stopped."""
        return self.framer.index

    @property
    def hello_span(self) -> "tuple[int, int]":
        """Host, after EV_HELLO: start and end of the board's JSON declaration in rx.buf."""
        return RX_START + LINK_HEADER + _HELLO_BYTES, RX_START + LINK_HEADER + self.length

    @property
    def log_span(self) -> "tuple[int, int]":
        """Host, after EV_LOG: start and end of the message in rx.buf; the level stands before."""
        return RX_START + LINK_HEADER + 1, RX_START + LINK_HEADER + self.length

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
        b = self.rx.buf
        at = RX_START + LINK_HEADER
        if not self.host:
            # the host lost us, or has just come up: whatever session there was is over
            self._hello_due = True
            return self._enter(TABLE[IN_BYE][self.state], now)
        if n < _HELLO_BYTES:
            self.malformed += 1
            return 0
        self.peer_link = b[at]
        self.peer_fbc = b[at + 1]
        if self.peer_link != LINK_VERSION or self.peer_fbc != FBC_VERSION:
            self._bye_due = BYE_VERSION
            return EV_VERSION | self._enter(WAITING, now)
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

    def refuse(self, now: int) -> int:
        """Host: after EV_HELLO, turn the board away instead of welcoming it. Event bits."""
        self._welcome_due = False
        self._bye_due = BYE_REFUSED
        return self._enter(WAITING, now)

    def _new_epoch(self) -> None:
        self.epoch = self.epoch % 255 + 1
        self._reset_session()

    def _reset_session(self) -> None:
        # both ends count from 0, so that frames lost before the first one count as lost
        for i in range(STREAMS):
            self._tx_seq[i] = 0
            self._rx_seq[i] = 0
            self._rx_gap[i] = 0
        self._request = None
        self._ack_due = 0
        self._answer_due = False

    def _on_welcome(self, n: int, epoch: int, now: int) -> int:
        b = self.rx.buf
        at = RX_START + LINK_HEADER
        if self.host or n < _WELCOME_BYTES or epoch == 0:
            self.malformed += 1
            return 0
        self.peer_link = b[at]
        self.peer_fbc = b[at + 1]
        if self.peer_link != LINK_VERSION or self.peer_fbc != FBC_VERSION:
            self._bye_due = BYE_VERSION
            return EV_VERSION | self._enter(WAITING, now)
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
        self._last_beat = now - self.beat_ms * self.ticks_per_ms & TICKS_MASK
        return self._enter(TABLE[IN_OFFER][self.state], now)

    def _on_bye(self, epoch: int, now: int) -> int:
        if self.state != WAITING and epoch and epoch != self.epoch:
            self.foreign += 1
            return 0
        self.bye_reason = self.rx.buf[RX_START + LINK_HEADER]
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
        if state == CONNECTED:
            self._last_rx = now
            if self.host:
                # beat at once: the board is waiting for a first sign of the session
                self._last_beat = now - self.beat_ms * self.ticks_per_ms & TICKS_MASK
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
        at = RX_START + LINK_HEADER
        low = b[at]
        high = b[at + 1]
        structs = b[at + 2]
        copy8(b, 4, self.agent_id, 0, AGENT_ID_BYTES)
        b[0] = FBC_VERSION
        b[1] = low
        b[2] = high
        b[3] = structs
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
        if n < 20:
            self.malformed += 1
            return 0
        b = self.rx.buf
        at = RX_START + LINK_HEADER
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
        at = RX_START + LINK_HEADER
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
                if self._hello_wait < MAX_HELLO_MS and not self.host:
                    self._hello_wait *= 2
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
