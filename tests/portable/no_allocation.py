# SPDX-License-Identifier: Apache-2.0
"""The hot paths of a board with the heap locked: an allocation anywhere is a MemoryError.

Writer, reader, pool, frames, values and the link of both ends through a whole life: meeting, data,
losses, damage, outage, the end of the session and a new one. What runs under the lock uses nothing
but what was made before it; each scene runs once unlocked first, for imports and attribute caches.
Where the kernels themselves allocate (`kernels.ALLOCATES`) the scenes run without the lock.
"""

import sys
from array import array

from checks import done, ok

from feagi_wire import (
    E_CAPACITY,
    E_ID,
    E_RANGE,
    E_STATE,
    END,
    STREAM_CONTROL,
    STREAM_MOTOR,
    STREAM_SENSORY,
    FbcPool,
    Framer,
    StaticFBC,
    ValueDecoder,
    ValueEncoder,
    kernels,
)
from feagi_wire.board_link import BoardLink
from feagi_wire.const import (
    CONNECTED,
    EV_ACK,
    EV_DATA,
    EV_DOWN,
    EV_FAILSAFE,
    EV_HELLO,
    EV_LOG,
    EV_LOST,
    EV_MOTOR,
    EV_NAK,
    EV_RTT,
    EV_UP,
    EV_VERSION,
    TICKS_MASK,
)
from feagi_wire.framing import frame_bytes
from feagi_wire.host_link import HostLink
from feagi_wire.kernels import copy8
from feagi_wire.link import Link

try:
    from micropython import heap_lock, heap_unlock
except ImportError:

    def heap_lock() -> None:
        """CPython has no heap to lock."""

    def heap_unlock() -> int:
        """CPython has no heap to lock."""
        return 0


MYPY = False
if MYPY:
    from collections.abc import Callable

AREA = b"iagp\x01\x00\x00\x00"
OTHER = b"omot\x05\x00\x00\x00"
AGENT_ID = bytes(range(48))
SIZE = 320
GARBAGE = b"\x00\x01garbage\x00\x05\x01\x02\x00\x03\x01\x00\xff\xff>>> \r\n\x00"

# what a scene found; a bytearray cell, because a new int object above small ones would allocate
bad = bytearray(1)


def expect(condition: bool, number: int) -> None:
    """Note the first expectation that failed."""
    if not condition and bad[0] == 0:
        bad[0] = number


writer = StaticFBC(bytearray(SIZE))
reader = StaticFBC(bytearray(SIZE))
xs, ys, zs = array("I", [1, 2, 3]), array("I", [4, 5, 6]), array("I", [0xFFFFFFFF, 8, 9])
ps = array("f", [0.5, 1.5, -2.0])
rx, ry, rz, rp = array("I", [0] * 8), array("I", [0] * 8), array("I", [0] * 8), array("f", [0] * 8)
lo, hi = array("H", [0] * 16), array("H", [0] * 16)
key = bytearray(8)


def container_scene() -> None:
    """Write, read, and every refusal on the way."""
    w = writer
    expect(w.begin(1, 3, AGENT_ID) == 0, 1)
    expect(w.begin_area(AREA, 4) == 0, 2)
    for i in range(3):
        expect(w.add(i, i, 2 * i, 1.0) == i, 3)
    expect(w.add(-1, 0, 0, 1.0) == E_RANGE, 4)
    expect(w.put(1, 3, 4, 5, 2.0) == 0, 5)
    expect(w.end_area() == 0, 6)
    expect(w.begin_area(b"bad", 1) == E_ID, 7)
    expect(w.begin_area(OTHER, 3) == 0, 8)
    expect(w.put_arrays(xs, ys, zs, ps, 3) == 0, 9)
    expect(w.end() == E_STATE, 10)
    expect(w.end_area() == 0, 11)
    expect(w.begin_area(OTHER, 9999) == E_CAPACITY, 12)
    expect(w.begin_area(OTHER, 0) == 0, 13)
    expect(w.end_area() == 0, 14)
    n = w.end()
    r = reader
    copy8(r.buf, 0, w.buf, 0, n)
    expect(r.parse(n) == 3, 15)
    areas = 0
    while True:
        m = r.next_area()
        if m == END:
            break
        areas += 1
        for i in range(m):
            rc = r.get(i)
            expect(rc == 0 or rc == E_RANGE, 16)
            expect(r.x + r.y + r.z >= 0 and r.q16 != 1, 17)
        expect(r.read_arrays(rx, ry, rz, rp) == m, 18)
        expect(r.scan_q16(lo, hi, 16) == m, 19)
        expect(not r.area_id_is(AGENT_ID), 20)
        expect(r.area_id_into(key) == 0, 21)
    expect(areas == 3, 22)
    # every truncation and some damage
    for cut in range(n):
        expect(r.parse(cut) < 0, 23)
    for at in range(n):
        before = r.buf[at]
        r.buf[at] = 255 - before
        if r.parse(n) >= 0:
            m = r.next_area()
            while m != END:
                for i in range(m):
                    r.get(i)
                m = r.next_area()
        r.buf[at] = before


pool = FbcPool(3, 64)


def pool_scene() -> None:
    """More in than fits, more out than is there."""
    for _ in range(10):
        for i in range(4):
            fbc = pool.acquire()
            expect((fbc is None) == (i == 3), 30)
            if fbc is not None:
                expect(pool.commit(fbc) == 0, 31)
        expect(pool.commit(writer) == E_STATE, 32)
        expect(len(pool) == 3, 33)
        fbc = pool.peek()
        while fbc is not None:
            expect(pool.release(fbc) == 0, 34)
            fbc = pool.peek()


framer = Framer(bytearray(frame_bytes(300)), bytearray(320), 3)
payload = bytes(i * 7 & 255 for i in range(300))


def frame_scene() -> None:
    """Round trip, damage, oversize, noise."""
    f = framer
    n = f.encode(payload, 0, 300)
    expect(n > 300, 40)
    expect(f.feed(GARBAGE, len(GARBAGE)) != 0, 41)
    expect(feed_all(f, f.tx, n) == 300, 42)
    for at in range(0, n, 7):
        f.tx[at] ^= 85
        feed_all(f, f.tx, n)
        f.tx[at] ^= 85
    expect(feed_all(f, f.tx, n) == 300, 43)
    expect(f.encode(payload, 1, 300) == E_RANGE, 44)
    f.begin()
    expect(f.add(payload, 0, 300) == 300, 45)
    expect(f.add(payload, 0, 300) == E_CAPACITY, 46)


def feed_all(f: Framer, data: bytearray, n: int) -> int:
    """The size of the last good frame."""
    i = 0
    size = 0
    while True:
        rc = f.feed(data, n, i)
        if rc == END:
            return size
        if rc > 0:
            size = rc
        i = f.index


encoders = (
    ValueEncoder(2, 8), ValueEncoder(1, 8, True), ValueEncoder(1, 8, False, True),
    ValueEncoder(1, 4, True, True),
)  # fmt: skip
decoders = (
    ValueDecoder(2, 8), ValueDecoder(1, 8, True), ValueDecoder(1, 8, False, True),
    ValueDecoder(1, 4, True, True),
)  # fmt: skip


def value_scene() -> None:
    """All codings, values over their whole range."""
    for v in range(-32767, 32768, 5461):
        for k in range(4):
            e = encoders[k]
            expect(e.set(0, v if e.signed else v + 32767) == 0, 50)
            expect(e.set(0, 99999) == E_RANGE, 51)
            expect(writer.begin(0, 1) == 0, 52)
            expect(e.write(writer, AREA) == 0, 53)
            expect(writer.parse(writer.end()) == 1, 54)
            # a fraction below the last digit has no voxel, as in the real library
            expect(decoders[k].read(writer, writer.next_area()) >= 0, 55)


class Side:
    """One end of the link, its clock and what it saw."""

    def __init__(self, host: bool) -> None:
        self.per = 1000 if host else 1
        self.base = TICKS_MASK - 700 * self.per
        tx = bytearray(frame_bytes(SIZE))
        rx = StaticFBC(bytearray(SIZE))
        self.link: Link = HostLink(tx, rx, self.per) if host else BoardLink(tx, rx, b'{"n":1}')
        self.now = 0
        self.seen = 0

    def turn(self) -> None:
        """A millisecond later: watch the deadlines."""
        now = self.base
        # never beyond 2**30: the sum of a tick and a span is wrapped before it is made
        if now > TICKS_MASK - self.per:
            now -= TICKS_MASK
            now -= 1
        now += self.per
        self.base = now
        self.now = now
        self.seen |= self.link.tick(now)

    def take(self, data: "bytes | bytearray", start: int, n: int) -> None:
        """Receive bytes, and read what they bring."""
        link = self.link
        i = start
        while True:
            ev = link.receive(data, i, n, self.now)
            if ev == END:
                return
            i = link.index
            self.seen |= ev
            if ev & EV_DATA:
                m = link.rx.next_area()
                while m != END:
                    for k in range(m):
                        link.rx.get(k)
                    m = link.rx.next_area()


host = Side(True)
board = Side(False)
small = StaticFBC(bytearray(SIZE))
request = StaticFBC(bytearray(SIZE))
spare = StaticFBC(bytearray(SIZE))
saw = array("i", [0, 0])

GOOD = 0
CUT = 1
DAMAGED = 2
TWICE = 3
NOISY = 4
ECHO = 5


def exchange(ms: int, how: int) -> None:
    """That many milliseconds of data in both directions over a line in that state."""
    for t in range(ms):
        if t % 10 == 0:
            host.link.send(STREAM_MOTOR, small, small.length, host.now)
            board.link.send(STREAM_SENSORY, small, small.length, board.now)
        if t % 50 == 25:
            board.link.send(STREAM_CONTROL, request, request.length, board.now)
        if t % 70 == 35:
            board.link.log(20, b"still here")
        host.turn()
        board.turn()
        pass_on(host, board, how, t)
        pass_on(board, host, how, t)


def pass_on(source: Side, target: Side, how: int, t: int) -> None:
    """What one end wrote goes to the other, in two writes."""
    link = source.link
    n = link.pending()
    if n == 0:
        return
    tx = link.framer.tx
    at = link.tx_pos
    if how == DAMAGED and t % 3:
        tx[at + t % n] ^= 1 + t % 255
    if how == NOISY:
        target.take(GARBAGE, 0, len(GARBAGE))
    if how == ECHO:
        source.take(tx, at, at + n)
    if how != CUT:
        half = n >> 1
        target.take(tx, at, at + half)
        target.take(tx, at + half, at + n)
        if how == TWICE:
            target.take(tx, at, at + n)
    link.written(n >> 1)
    link.written(n - (n >> 1))


def ready() -> bool:
    """Whether both ends are connected."""
    return host.link.state == CONNECTED and board.link.state == CONNECTED


def link_scene() -> None:
    """A whole life, and a second one."""
    exchange(3000, GOOD)
    expect(ready(), 60)
    exchange(300, NOISY)
    exchange(300, TWICE)
    exchange(300, ECHO)
    exchange(600, DAMAGED)
    exchange(1000, GOOD)
    expect(ready(), 61)
    exchange(1500, CUT)  # LOST
    exchange(1000, GOOD)
    expect(ready(), 62)
    exchange(6000, CUT)  # the session ends
    expect(not ready(), 63)
    exchange(3000, GOOD)
    expect(ready(), 64)
    expect(board.link.send(STREAM_MOTOR, small, SIZE, board.now) == E_CAPACITY, 65)
    board.link.swap_rx(spare)
    board.link.swap_rx(board_rx)
    board.link.bye(1)
    exchange(20, GOOD)
    exchange(4000, GOOD)
    expect(ready(), 66)
    board.take(OTHER_WELCOME, 0, len(OTHER_WELCOME))
    host.take(OTHER_HELLO, 0, len(OTHER_HELLO))
    exchange(3000, GOOD)
    expect(ready(), 67)
    # a request that nobody answers
    host.link.lost_ms = board.link.lost_ms = 5000
    exchange(3000, CUT)
    host.link.lost_ms = board.link.lost_ms = 800
    exchange(3000, GOOD)
    expect(ready(), 68)
    saw[0] |= host.seen
    saw[1] |= board.seen


def framed(data: bytes) -> bytes:
    """A frame, for injection."""
    f = Framer(bytearray(frame_bytes(len(data))), bytearray(8))
    return bytes(f.tx[: f.encode(data, 0, len(data))])


OTHER_WELCOME = framed(b"\x02\x08\x09\x00\x09\x04\x01\x00" + bytes(60))
OTHER_HELLO = framed(b"\x01\x00\x00\x01\x09\x04\x00\x00\x00\x02{}")
board_rx = board.link.rx


def locked(scene: "Callable[[], None]", name: str) -> None:
    """Run a scene twice: as it is, then with the heap locked."""
    for lock in (False, True):
        bad[0] = 0
        if lock and not kernels.ALLOCATES:
            heap_lock()
            try:
                scene()
            finally:
                heap_unlock()
        else:
            scene()
        ok(bad[0] == 0, (name, "locked" if lock else "free", "expectation", bad[0]))


def lock_works() -> None:
    """The lock itself, or all of the above proves nothing."""
    if sys.implementation.name != "micropython":
        return
    cell: "list[object]" = [None]
    heap_lock()
    try:
        try:
            cell[0] = bytearray(100)
        finally:
            heap_unlock()
    except MemoryError:
        return
    ok(False, "a locked heap refuses")


for part in (small, request):
    part.begin(0, 1)
    part.begin_area(OTHER, 2)
    part.add(0, 0, 3, 1.0)
    part.add(1, 0, 4, 1.0)
    part.end_area()
    part.end()

lock_works()
locked(container_scene, "container")
locked(pool_scene, "pool")
locked(frame_scene, "frames")
locked(value_scene, "values")
locked(link_scene, "link")
WANTED = EV_UP | EV_LOST | EV_DOWN | EV_DATA | EV_RTT | EV_VERSION
ok(saw[0] & WANTED == WANTED and saw[0] & (EV_HELLO | EV_LOG) == EV_HELLO | EV_LOG, "host events")
wanted = WANTED | EV_FAILSAFE | EV_MOTOR | EV_ACK | EV_NAK
ok(saw[1] & wanted == wanted, ("board events", saw[1], wanted))
done("no_allocation")
