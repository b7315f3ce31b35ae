# SPDX-License-Identifier: Apache-2.0
"""The link on either interpreter: one scene for each promise, then long runs on a bad line."""

from checks import Numbers, done, eq, ok
from line import DECLARATION, SIZE, Line, LineEnd

from feagi_wire import (
    E_CAPACITY,
    E_FULL,
    E_RANGE,
    E_SHORT,
    E_STATE,
    END,
    STREAM_CONTROL,
    STREAM_MOTOR,
    Framer,
    StaticFBC,
    frame_bytes,
)
from feagi_wire.board_link import BoardLink
from feagi_wire.const import (
    ACK,
    BEAT,
    BYE_REFUSED,
    BYE_STOPPED,
    BYE_VERSION,
    CONNECTED,
    DATA,
    EV_BYE,
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
    FROM_HOST,
    HELLO,
    LOST,
    OFFERED,
    TICKS_MASK,
    WAITING,
    WELCOME,
)
from feagi_wire.link import ticks_diff

MYPY = False
if MYPY:
    from collections.abc import Callable


def connected_line(data_ms: int = 0) -> Line:
    """A line whose ends have met; no data unless asked for."""
    line = Line()
    line.data_ms = data_ms
    line.recover()
    return line


def all_events(end: LineEnd) -> int:
    """Every event bit an end has seen since the last call."""
    seen = 0
    for ev in end.events:
        seen |= ev
    end.events = []
    return seen


def frame(payload: bytes) -> bytes:
    """A frame as any sender would make it."""
    f = Framer(bytearray(frame_bytes(len(payload))), bytearray(8))
    return bytes(f.tx[: f.encode(payload, 0, len(payload))])


def inject(line: Line, end: LineEnd, payload: bytes) -> int:
    """Let an end receive a frame past the checks of the line; the events of it."""
    data = frame(payload)
    seen = 0
    at = 0
    while True:
        ev = end.link.receive(data, at, len(data), end.ticks(line.ms))
        if ev == END:
            return seen
        seen |= ev
        at = end.link.index


def silent(_piece: bytes) -> bytes:
    """The fault of a line that is cut."""
    return b""


def ticks() -> None:
    """Differences on the circle."""
    for a, b, d in (
        (5, 3, 2), (3, 5, -2), (0, TICKS_MASK, 1), (TICKS_MASK, 0, -1), (7, 7, 0),
        (1 << 29, 0, -(1 << 29)), ((1 << 29) - 1, 0, (1 << 29) - 1),
    ):  # fmt: skip
        eq(ticks_diff(a, b), d, ("ticks_diff", a, b))


def meeting() -> None:
    """HELLO, WELCOME, settings, round trips, logs, and the clocks wrap meanwhile."""
    line = Line()
    host, board = line.host.link, line.board.link
    host.beat_ms, host.lost_ms, host.motor_timeout_ms = 100, 450, 90
    took = line.recover()
    ok(took < 50, "at once")
    ok(all_events(line.host) & (EV_HELLO | EV_UP) == EV_HELLO | EV_UP, "host events")
    ok(all_events(line.board) & EV_UP, "board events")
    eq((board.beat_ms, board.lost_ms, board.motor_timeout_ms), (100, 450, 90), "settings")
    ok(bytes(board.agent_id) == bytes(48), "agent id")
    eq((host.peer_max, board.peer_max), (SIZE - 4, SIZE - 4), "container limits")
    line.run(2000)
    ok(line.both_connected(), "through the wrap of both clocks")
    ok(0 <= host.rtt <= 3000 and 0 <= board.rtt <= 3, "round trips in ticks of each end")
    ok(all_events(line.host) & EV_RTT, "EV_RTT")
    eq((host.lost, board.lost, host.stale, board.stale), (0, 0, 0, 0), "nothing lost")
    eq(len(line.board.delivered) > 150 and len(line.host.delivered) > 150, True, "data flows")
    eq(board.log(20, b"hello"), 0, "log")
    eq(board.log(20, bytes(300)), E_CAPACITY, "a message too long")
    texts = []
    for _ in range(5):
        line.step()
        if all_events(line.host) & EV_LOG:
            a, b = host.log_span
            texts.append((host.rx.buf[a - 1], bytes(host.rx.buf[a:b])))
    eq(texts, [(20, b"hello")], "the message")
    for _ in range(3):
        span = host.hello_span
        ok(span[0] > 0, "span")
    board2 = LineEnd(False, 100)
    eq(board2.link.send(1, board2.out, 60, 0), E_STATE, "no session yet")


def declaration() -> None:
    """The host sees the declaration as the board wrote it."""
    line = Line()
    host = line.host
    while True:
        line.step()
        if all_events(host) & EV_HELLO:
            break
    a, b = host.link.hello_span
    eq(bytes(host.link.rx.buf[a:b]), DECLARATION, "declaration")


def silence() -> None:
    """A cut line: fail-safe first, LOST, then the session ends; it resumes when mended."""
    line = connected_line(10)
    line.run(200)
    all_events(line.board)
    all_events(line.host)
    line.run(400, silent)
    board, host = line.board.link, line.host.link
    eq(all_events(line.board) & (EV_FAILSAFE | EV_LOST), EV_FAILSAFE, "fail-safe before LOST")
    line.run(500, silent)
    eq((board.state, host.state), (LOST, LOST), "LOST")
    eq(all_events(line.board) & (EV_FAILSAFE | EV_LOST), EV_LOST, "EV_LOST, no second fail-safe")
    epoch = host.epoch
    ok(line.recover() < 1000, "resumes")
    eq(host.epoch, epoch, "the same session")
    line.run(100)
    ok(all_events(line.board) & (EV_UP | EV_MOTOR) == EV_UP | EV_MOTOR, "up and moving again")
    ok(board.lost > 50, "what the outage swallowed is counted")
    line.run(5000, silent)
    eq((board.state, host.state), (WAITING, WAITING), "the session is over")
    ok(all_events(line.host) & EV_DOWN, "EV_DOWN")
    ok(line.recover() < 3000, "a new session")
    ok(host.epoch != epoch, "of another epoch")


def restarts() -> None:
    """Either side starts anew at any time."""
    line = connected_line(7)
    for turn in range(12):
        line.run(100 + 37 * turn)
        end = line.board if turn & 1 else line.host
        end.restart(turn * 25)
        ok(line.recover() < 3000, "again")
        line.run(60)
        ok(len(end.delivered) > 0, "data")


def goodbye() -> None:
    """BYE ends the session on both sides at once, and nobody asks straight back."""
    line = connected_line()
    all_events(line.host)
    line.board.link.bye(BYE_STOPPED)
    line.run(2)
    eq((line.board.link.state, line.host.link.state), (WAITING, WAITING), "both are waiting")
    ok(all_events(line.host) & (EV_BYE | EV_DOWN) == EV_BYE | EV_DOWN, "host events")
    ok(all_events(line.board) & EV_DOWN, "board event")
    eq(line.host.link.bye_reason, BYE_STOPPED, "reason")
    line.recover()


def refusal() -> None:
    """A board turned away is told so, and does not flood the line."""
    line = Line()
    line.data_ms = 0
    said = [0]
    hellos = 0

    def count(piece: bytes) -> bytes:
        said[0] += 1
        return piece

    for _ in range(4000):
        line.step(count)
        if all_events(line.host) & EV_HELLO:
            hellos += 1
            line.host.link.refuse(line.host.ticks(line.ms))
    eq(line.board.link.bye_reason, BYE_REFUSED, "reason")
    ok(all_events(line.board) & EV_BYE, "told")
    ok(hellos <= 40 and said[0] <= 120, ("frames in four seconds", hellos, said[0]))
    eq(line.board.link.state, WAITING, "no session")


def versions() -> None:
    """Another link or container version: an event that says so, no session."""
    for at in (4, 5):
        payload = bytearray(b"\x01\x00\x00\x01\x01\x04\x00\x00\xff\x00{}")
        payload[at] = 9
        line = connected_line()
        eq(inject(line, line.host, bytes(payload)), EV_VERSION | EV_DOWN, "host")
        eq((line.host.link.peer_link, line.host.link.peer_fbc)[at - 4], 9, "which")
        eq(line.host.link.state, WAITING, "no session")
        welcome = bytearray(4 + 64)
        welcome[0:8] = bytes((WELCOME, FROM_HOST, 9, 0, 1, 4, 1, 0))
        welcome[8:16] = bytes((200, 0, 0, 3, 44, 1, 0, 1))
        welcome[at] = 9
        board = LineEnd(False, 900)
        eq(inject(line, board, bytes(welcome)), EV_VERSION, "board")
        board.saw(board.link.tick(board.ticks(line.ms)), line.ms)
        f = Framer(bytearray(8), bytearray(SIZE))
        link = board.link
        eq(f.feed(link.framer.tx, link.tx_len), 5, "a goodbye")
        eq((f.rx[0], f.rx[4]), (8, BYE_VERSION), "that says why")


def strange_frames() -> None:
    """What is not for us or not known is skipped, counted, and changes nothing."""
    line = connected_line()
    end, link = line.host, line.host.link
    e = link.epoch

    def counted(payload: bytes, name: str) -> None:
        before = getattr(link, name)
        eq(inject(line, end, payload), 0, ("no event", name, payload))
        eq(getattr(link, name), before + 1, (name, payload))
        eq(link.state, CONNECTED, "still connected")

    data = b"\0\0\0"
    for kind in (0, 10, 15):
        counted(bytes((kind, 1, e, 1)) + data, "unknown")
    for flag in (0x40, 0x80, 0xC0):
        counted(bytes((DATA | flag, 1, e, 1)) + data, "unknown")
    for stream in (4, 7):
        counted(bytes((DATA, stream, e, 1)) + data, "unknown")
    counted(bytes((DATA, 1 | FROM_HOST, e, 1)) + data, "echoed")
    counted(bytes((DATA, 1, e % 255 + 1, 1)) + data, "foreign")
    counted(bytes((DATA, 1, 0, 1)) + data, "foreign")
    counted(bytes((DATA, 1, e, 1)) + b"\0\0", "malformed")
    counted(bytes((BEAT, 0, e, 0)) + bytes(19), "malformed")
    counted(bytes((ACK, 0, e, 0)) + b"\0\0", "malformed")
    counted(bytes((7, 0, e, 0)), "malformed")
    counted(bytes((9, 0, e, 0)) + b"\0\0\0", "malformed")
    counted(bytes((WELCOME, 0, e, 0)) + bytes(64), "malformed")
    counted(bytes((HELLO, 0, 0, 0)) + bytes(5), "malformed")
    counted(bytes((ACK, 0, e, 0)) + b"\x63\0\0", "stale")
    counted(b"\1\2\3", "malformed")
    counted(bytes((8, 0, e % 255 + 1, 0, 1)), "foreign")
    # compatible flags are ignored
    eq(inject(line, end, bytes((DATA | 0x30, 1, e, 1)) + data), EV_DATA, "compatible flags")
    counted(bytes((DATA, 1, e, 1)) + data, "stale")
    counted(bytes((DATA, 1 | 0xF0, e, 0xFF)) + data, "stale")
    eq(link.lost, 0, "nothing lost so far")
    eq(inject(line, end, bytes((DATA, 1, e, 5)) + data), EV_DATA, "a gap")
    eq(link.lost, 3, "is counted")
    # a container that does not parse: counted, no event
    counted(bytes((DATA, 1, e, 6)) + b"\0\0\1", "malformed")
    # a time that cannot be: the answer to no question of ours
    counted(bytes((BEAT, 0, e, 0, 1, 0, 255, 255, 255, 255)) + bytes(14), "malformed")


def bad_welcome() -> None:
    """Settings that would flood the line or lose every session are refused."""
    for beat, lost, motor in ((0, 800, 300), (200, 200, 300), (200, 0, 300), (200, 800, 0)):
        board = LineEnd(False, 900)
        line = Line()
        board.link.tick(board.ticks(1))
        board.link.discard()
        payload = bytes((WELCOME, FROM_HOST, 7, 0, 1, 4, 1, 0, beat & 255, beat >> 8, lost & 255,
                         lost >> 8, motor & 255, motor >> 8)) + bytes(54)  # fmt: skip
        eq(inject(line, board, payload), 0, "no event")
        eq((board.link.malformed, board.link.state, board.link.epoch), (1, WAITING, 0), "refused")
        good = payload[:8] + b"\xc8\0\x20\3\x2c\1" + payload[14:]
        inject(line, board, good)
        eq((board.link.state, board.link.epoch), (OFFERED, 7), "a good one is taken")


def stale_motor() -> None:
    """An old or repeated command never counts as fresh, not even after an outage."""
    line = connected_line()
    board = line.board.link
    e = board.epoch

    def motor(seq: int) -> bytes:
        high = (seq >> 4) & 0xF0
        return bytes((DATA, STREAM_MOTOR | FROM_HOST | high, e, seq & 255)) + LINE_DATA

    eq(inject(line, line.board, motor(10)) & (EV_DATA | EV_MOTOR), EV_DATA | EV_MOTOR, "fresh")
    line.board.fresh, line.board.last_motor_ms = True, line.ms
    for seq in (10, 9, 1, 0, 4095, 2059):
        eq(inject(line, line.board, motor(seq)), 0, ("stale", seq))
    line.run(1000, silent)
    eq(board.state, LOST, "LOST")
    ok(board.failsafe, "fail-safe")
    eq(inject(line, line.board, motor(11)) & EV_DATA, 0, "not trusted before the second frame")
    eq(inject(line, line.board, motor(10)) & EV_DATA, 0, "repeated after the outage")
    eq(board.state, CONNECTED, "but the line is alive")
    eq(inject(line, line.board, motor(4000)) & EV_DATA, 0, "old after the outage")
    ok(board.failsafe, "still fail-safe")
    eq(inject(line, line.board, motor(3000)) & EV_DATA, EV_DATA, "after a long outage")
    eq(inject(line, line.board, motor(2999)) & EV_DATA, 0, "then the old rule again")


LINE_DATA = b"\0\0\1\4\0\0\0\x0b\1\0\0"


def control() -> None:
    """Requests are answered, repeated until they are, and delivered once."""
    line = connected_line()
    host, board = line.host, line.board
    ok(host.send(STREAM_CONTROL, line.ms) > 0, "send")
    eq(host.link.send(STREAM_CONTROL, host.out, 60, 0), E_FULL, "the line is busy")
    line.run(3)
    eq((len(host.acked), len(board.delivered)), (1, 1), "answered")
    # the answer is lost: asked again, not delivered again
    host.send(STREAM_CONTROL, line.ms)
    line.step(lambda piece: piece)
    for _ in range(50):
        line.step(silent)
    eq(host.link.send(STREAM_CONTROL, host.out, 60, 0), E_FULL, "one at a time")
    line.run(400)
    eq((len(host.acked), len(board.delivered)), (2, 2), "once")
    # what cannot be parsed is refused, as often as it is asked
    eq(answer_of(line, b"\0\0\1"), [(6, -E_SHORT)], "NAK with the code")
    eq(answer_of(line, b"\0\0\1"), [(6, -E_SHORT)], "NAK again for the same request")
    # never answered: EV_NAK after ten beats
    host.send(STREAM_CONTROL, line.ms)
    all_events(host)
    start = line.ms
    host.link.lost_ms = 60000
    while not all_events(host) & EV_NAK:
        line.step(silent)
        ok(line.ms - start < 2200, "in time")
    ok(line.ms - start >= 2000, "after ten beats")
    eq(host.link.nak_code, -11, "timed out")


def answer_of(line: Line, data: bytes) -> "list[tuple[int, int]]":
    """Kind and code of what the board answers to request 9 with this content."""
    host, board = line.host.link, line.board
    payload = bytes((DATA, FROM_HOST, host.epoch, 9)) + data
    inject(line, board, payload)
    found = []

    def spy(piece: bytes) -> bytes:
        f = Framer(bytearray(8), bytearray(SIZE))
        if f.feed(piece, len(piece)) == 7 and not f.rx[1] & FROM_HOST:
            found.append((f.rx[0], f.rx[6]))
        return piece

    for _ in range(3):
        line.step(spy)
    return found


def limits() -> None:
    """Sizes that do not fit are refused where they arise."""
    line = connected_line()
    link, out = line.host.link, line.host.out
    eq(link.send(1, out, SIZE - 3, 0), E_CAPACITY, "more than the peer takes")
    eq(link.send(1, out, 51, 0), E_RANGE, "no container")
    eq(link.send(4, out, 60, 0), E_RANGE, "stream")
    eq(link.send(-1, out, 60, 0), E_RANGE, "stream")
    ok(link.send(1, StaticFBC(bytearray(SIZE)), SIZE - 4, 0) > 0, "exactly what it takes")
    eq(link.send(1, out, 60, 0), E_FULL, "the line is busy")
    small = StaticFBC(bytearray(100))
    link.discard()
    eq(link.send(1, small, 104, 0), E_CAPACITY, "longer than its own buffer")
    eq(link.pending(), 0, "nothing to write")
    oversize = frame(bytes((DATA, 1, link.epoch, 1)) + bytes(1 + i % 255 for i in range(400)))
    line.carry(line.host, bytearray(oversize))
    eq((link.framer.oversize, link.state), (1, CONNECTED), "too long to receive")
    for tx, rx, text in (
        (frame_bytes(68) - 1, 256, b""), (frame_bytes(68), 116, b""),
        (frame_bytes(110) - 1, 256, bytes(100)),
    ):  # fmt: skip
        try:
            BoardLink(bytearray(tx), StaticFBC(bytearray(rx)), text)
        except ValueError as error:
            ok("at least" in str(error), "says how many bytes are needed")
        else:
            ok(False, "buffers too small")
    least = LineEnd(False, 10)
    least.link = BoardLink(bytearray(frame_bytes(110)), StaticFBC(bytearray(117)), bytes(100))
    host = LineEnd(True, 10)
    line.host, line.board = host, least
    line.ways = [bytearray(), bytearray()]
    line.recover()
    eq(host.link.length, 106, "a declaration as long as tx takes")


def spoil(r: Numbers, percent: int) -> "Callable[[bytes], bytes]":
    """A fault that hits that many of a hundred pieces, in any of eight ways."""
    held = [b""]

    def fault(piece: bytes) -> bytes:
        piece = held[0] + piece
        held[0] = b""
        if r.below(100) >= percent:
            return piece
        at = r.below(len(piece))
        how = r.below(8)
        if how == 0:
            return b""
        if how == 1:
            return piece + piece
        if how == 2:
            return piece[:at] + bytes((r.below(256),)) + piece[at + 1 :]
        if how == 3:
            return piece[:at]
        if how == 4:
            return piece[:at] + bytes(r.data(1 + r.below(9))) + piece[at:]
        if how == 5:
            return piece[at:]
        if how == 6:
            held[0] = piece  # late, together with the next
            return b""
        return b"\r\n>>> " + piece

    return fault


def bad_lines() -> None:
    """Losses, damage, repetition, delay and restarts in any order; every promise holds."""
    for seed in range(1, 7):
        r = Numbers(seed * 104729)
        line = Line(200 + r.below(3000))
        line.data_ms = 3 + r.below(20)
        line.control_ms = 50 if seed & 1 else 0
        for _ in range(8):
            for _ in range(r.below(3)):
                (line.host if r.below(2) else line.board).restart(r.below(256))
                line.run(r.below(50))
            line.run(r.below(1200), spoil(r, 10 + r.below(90)))
            if r.below(3) == 0:
                line.run(r.below(5000), silent)
        line.recover()
        before = len(line.host.delivered), len(line.board.delivered)
        line.run(200)
        ok(len(line.host.delivered) > before[0], "sensors after all that")
        ok(len(line.board.delivered) > before[1], "motors after all that")
        for sender, receiver in ((line.host, line.board), (line.board, line.host)):
            got = [number for stream, _, number in receiver.delivered if stream == STREAM_CONTROL]
            for number in sender.acked:
                ok(number in got, "what was acknowledged was delivered")


ticks()
meeting()
declaration()
silence()
restarts()
goodbye()
refusal()
versions()
strange_frames()
bad_welcome()
stale_motor()
control()
limits()
bad_lines()
done("session")
