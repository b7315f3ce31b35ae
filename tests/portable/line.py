# SPDX-License-Identifier: Apache-2.0
"""Two ends of the link on a line that can be bad, with a clock of its own.

Every container sent says who sent it, in which session and as which one, so that each delivery
can be checked against what the link promises; a broken promise raises AssertionError. The clocks
of both ends start shortly before they wrap at 2**30.
"""

from feagi_wire import END, STREAM_CONTROL, STREAM_MOTOR, STREAM_SENSORY, StaticFBC, check
from feagi_wire.board_link import BoardLink
from feagi_wire.const import (
    CONNECTED,
    EV_ACK,
    EV_DATA,
    EV_DOWN,
    EV_FAILSAFE,
    EV_HELLO,
    EV_LOST,
    EV_MOTOR,
    EV_NAK,
    EV_UP,
    TICKS_MASK,
)
from feagi_wire.framing import frame_bytes
from feagi_wire.host_link import HostLink
from feagi_wire.link import Link

MYPY = False
if MYPY:
    from collections.abc import Callable

    Fault = Callable[[bytes], bytes]

AREA = b"omot\x05\x00\x00\x00"
SIZE = 256
DECLARATION = b'{"name":"test"}'


class LineEnd:
    """One program with one end of the link; `restart` is a reset of its machine."""

    def __init__(self, host: bool, wrap_in_ms: int) -> None:
        self.host = host
        self.per = 1000 if host else 1
        self.base = TICKS_MASK + 1 - wrap_in_ms * self.per
        self.life = -1
        self.number = 0
        self.events: "list[int]" = []
        self.delivered: "list[tuple[int, int, int]]" = []  # stream, life of the sender, number
        self.acked: "list[int]" = []
        self.control_out = -1
        self.restart(0)

    def restart(self, epoch: int) -> None:
        """Start the program anew, as after a reset: nothing of the old one is left."""
        self.life += 1
        tx = bytearray(frame_bytes(SIZE))
        rx = StaticFBC(bytearray(SIZE))
        self.link: Link = (
            HostLink(tx, rx, self.per, epoch) if self.host else BoardLink(tx, rx, DECLARATION)
        )
        self.link.agent_id[:] = bytes((self.life,)) * 48
        self.out = StaticFBC(bytearray(SIZE))
        self.session: "tuple[int, int]" = (0, 0)  # epoch, and how often it was entered
        self.in_session = 0
        self.counted = (0, 0)
        self.last_motor_ms = -1
        self.fresh = False
        self.control_out = -1

    def ticks(self, ms: int) -> int:
        """This end's clock."""
        return (self.base + ms * self.per) & TICKS_MASK

    def send(self, stream: int, ms: int) -> int:
        """Send the next numbered container; the code of `Link.send`."""
        link = self.link
        if stream == STREAM_CONTROL and self.control_out >= 0:
            return 0
        fbc = StaticFBC(bytearray(SIZE)) if stream == STREAM_CONTROL else self.out
        index = self.in_session + 1
        check(fbc.begin(self.number, 1))
        check(fbc.begin_area(AREA, 1))
        check(fbc.add(self.number, self.life * 65536 + index, link.epoch, 1.0))
        check(fbc.end_area())
        rc = link.send(stream, fbc, check(fbc.end()), self.ticks(ms))
        if rc > 0:
            if stream == STREAM_CONTROL:
                self.control_out = self.number
            else:
                self.in_session = index
            self.number += 1
        return rc

    def saw(self, ev: int, ms: int) -> None:
        """Check and remember event bits."""
        link = self.link
        if ev:
            self.events.append(ev)
        if ev & (EV_DOWN | EV_HELLO) or link.epoch != self.session[0]:
            self.session = (link.epoch, self.session[1] + 1)
            self.in_session = 0
            self.counted = (link.received, link.lost)
        if ev & (EV_DOWN | EV_NAK):
            self.control_out = -1
        if ev & EV_ACK:
            self.acked.append(self.control_out)
            self.control_out = -1
        if ev & EV_MOTOR:
            assert not self.fresh, "EV_MOTOR while commands were fresh"
            self.fresh = True
        if ev & EV_FAILSAFE:
            assert self.fresh, "EV_FAILSAFE twice for one silence"
            assert ms - self.last_motor_ms > link.motor_timeout_ms - 2, "EV_FAILSAFE too early"
            self.fresh = False
        if ev & EV_DATA:
            self.took(ms)
        assert not (ev & EV_UP and ev & EV_LOST), "up and lost at once"

    def took(self, ms: int) -> None:
        """Check a delivery."""
        link = self.link
        fbc = link.rx
        assert link.state == CONNECTED, "data outside a session"
        assert fbc.next_area() == 1
        assert fbc.area_id_is(AREA)
        assert fbc.get(0) == 0
        assert fbc.z == link.epoch, "data of another session"
        life, index = fbc.y >> 16, fbc.y & 65535
        got = (link.stream, life, fbc.x)
        for stream, old_life, number in self.delivered[-1:]:
            if stream == got[0]:
                assert (life, fbc.x) > (old_life, number), "out of order, or twice"
        assert got not in self.delivered, "delivered twice"
        self.delivered.append(got)
        if link.stream != STREAM_CONTROL:
            received, lost = self.counted
            if self.plain_session():
                assert link.received - received + link.lost - lost == index, (
                    "sent = received + lost"
                )
        if link.stream == STREAM_MOTOR:
            self.last_motor_ms = ms

    def plain_session(self) -> bool:
        """Whether the gaps counted are of the one data stream alone."""
        return not any(stream == STREAM_CONTROL for stream, _, _ in self.delivered)


class Line:
    """A board and a host, a byte queue each way, and a fault that spoils what crosses."""

    def __init__(self, wrap_in_ms: int = 500) -> None:
        self.ms = 0
        self.host = LineEnd(True, wrap_in_ms)
        self.board = LineEnd(False, wrap_in_ms)
        self.ways = [bytearray(), bytearray()]
        self.data_ms = 10
        self.control_ms = 0

    def step(self, fault: "Fault | None" = None) -> None:
        """A millisecond passes: data falls due, both ends tick, the line carries bytes."""
        self.ms += 1
        ms = self.ms
        for end, stream in ((self.host, STREAM_MOTOR), (self.board, STREAM_SENSORY)):
            if self.data_ms and ms % self.data_ms == 0:
                end.send(stream, ms)
            if self.control_ms and ms % self.control_ms == 0:
                end.send(STREAM_CONTROL, ms)
        for k, end in enumerate((self.host, self.board)):
            link = end.link
            end.saw(link.tick(end.ticks(ms)), ms)
            n = link.pending()
            if n:
                piece = bytes(link.framer.tx[link.tx_pos : link.tx_len])
                link.written(n)
                self.ways[k] += fault(piece) if fault is not None else piece
        for k, end in enumerate((self.board, self.host)):
            self.carry(end, self.ways[k])
            self.ways[k] = bytearray()
        board = self.board
        if board.fresh:
            silence = ms - board.last_motor_ms
            assert silence <= board.link.motor_timeout_ms + 2, "no EV_FAILSAFE in a silence"

    def carry(self, end: LineEnd, data: bytearray) -> None:
        """Hand bytes to an end."""
        at = 0
        while at < len(data):
            ev = end.link.receive(data, at, len(data), end.ticks(self.ms))
            if ev == END:
                break
            at = end.link.index
            end.saw(ev, self.ms)

    def run(self, ms: int, fault: "Fault | None" = None) -> None:
        """Many steps."""
        for _ in range(ms):
            self.step(fault)

    def both_connected(self) -> bool:
        """Whether a session is up on both ends, and the same one."""
        a, b = self.host.link, self.board.link
        return a.state == CONNECTED and b.state == CONNECTED and a.epoch == b.epoch

    def recover(self, limit_ms: int = 3000) -> int:
        """Good line until both ends are connected; how long that took."""
        start = self.ms
        while not self.both_connected():
            assert self.ms - start < limit_ms, "not connected in time"
            self.step()
        return self.ms - start
