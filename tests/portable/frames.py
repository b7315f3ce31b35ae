# SPDX-License-Identifier: Apache-2.0
"""Frames on either interpreter: round trips, and what one bad byte, noise and misuse cost."""

from checks import Numbers, done, eq, ok

from feagi_wire import (
    E_CAPACITY,
    E_CRC,
    E_RANGE,
    E_STATE,
    END,
    Framer,
    frame_bytes,
)

NOISE = b"\r\nMicroPython v1.29 on board\r\n>>> import main\r\n\x1b[2J\xff\xfe\x80"


def payloads() -> "list[bytes]":
    """Lengths and contents around the 254 bytes of a COBS block."""
    r = Numbers(5)
    found = [b"\0", b"\1", b"\0\0\0\0\0", b"\xff" * 7]
    for n in (249, 250, 251, 253, 254, 255, 504, 508, 600):
        found.append(bytes(1 + i % 255 for i in range(n)))
        found.append(bytes(n))
        found.append(bytes(r.data(n)))
    return found


def received(framer: Framer, line: "bytes | bytearray", step: int) -> "list[bytes]":
    """Feed a line in chunks of `step` bytes; the payloads that arrived."""
    found = []
    start = framer.rx_start
    for at in range(0, len(line), step):
        chunk = line[at : at + step]
        i = 0
        while True:
            rc = framer.feed(chunk, len(chunk), i)
            if rc == END:
                break
            if rc > 0:
                found.append(bytes(framer.rx[start : start + rc]))
            else:
                ok(rc in (E_CRC, E_CAPACITY), "a code of feed")
            i = framer.index
    return found


def encoded(framer: Framer, payload: bytes) -> bytes:
    """The frame of a payload, with what every frame promises checked."""
    n = framer.encode(payload, 0, len(payload))
    ok(0 < n <= frame_bytes(len(payload)), "frame length")
    frame = bytes(framer.tx[:n])
    eq((frame[0], frame[-1], frame[1:-1].find(b"\0")), (0, 0, -1), "zeros only around a frame")
    return frame


def round_trips() -> None:
    """Each payload alone and all of them after one another, in chunks of any size."""
    everything = payloads()
    out = Framer(bytearray(frame_bytes(600)), bytearray(8))
    line = b""
    for payload in everything:
        frame = encoded(out, payload)
        into = Framer(bytearray(16), bytearray(3 + len(payload) + 4), 3)
        eq(received(into, frame, 700), [payload], "into a buffer that just does")
        small = Framer(bytearray(16), bytearray(len(payload) + 3))
        eq(received(small, frame, 700), [], "into one a byte too small")
        eq(small.oversize, 1, "counted")
        if len(payload) > 1:
            eq(received(small, encoded(out, b"x"), 700), [b"x"], "and the next one comes")
        line += frame
        # in pieces: header and body, cut anywhere
        cut = len(payload) // 3
        out.begin()
        eq(out.add(payload, 0, cut), cut, "add")
        eq(out.add(payload, cut, len(payload) - cut), len(payload) - cut, "add")
        eq(bytes(out.tx[: out.finish()]), frame, "pieces make the same frame")
    for step in (1, 2, 7, 64, len(line)):
        into = Framer(bytearray(16), bytearray(700))
        eq(received(into, line, step) == everything, True, "all payloads")
        eq((into.frames, into.crc_errors, into.resyncs, into.oversize), (len(everything), 0, 0, 0),
           "counters")  # fmt: skip


def tight_buffers() -> None:
    """`frame_bytes` is enough for any payload, and a byte less is refused before it is written."""
    for n in (1, 10, 249, 250, 251, 504, 505):
        worst = bytes([1]) * n
        exact = Framer(bytearray(frame_bytes(n)), bytearray(8))
        ok(exact.encode(worst, 0, n) > 0, "frame_bytes is enough")
        tight = Framer(bytearray(frame_bytes(n) - 1), bytearray(8))
        eq(tight.encode(worst, 0, n), E_CAPACITY, "a byte less is not")
        eq(tight.finish(), E_STATE, "nothing to finish after that")


def misuse() -> None:
    """Calls out of order and out of bounds are refused: kernels on a board check nothing."""
    f = Framer(bytearray(64), bytearray(64))
    eq(f.finish(), E_STATE, "finish before begin")
    eq(f.add(b"abc", 0, 3), E_STATE, "add before begin")
    f.begin()
    eq(f.add(b"abc", 1, 3), E_RANGE, "beyond the end")
    f.begin()
    eq(f.add(b"abc", -1, 2), E_RANGE, "before the start")
    f.begin()
    eq(f.add(b"abc", 0, -1), E_RANGE, "less than nothing")
    ok(f.encode(b"abc", 0, 3) > 0, "usable again")
    eq(f.finish(), E_STATE, "finish twice")
    eq(f.feed(b"abc", 99), END, "more than the chunk holds")
    eq(f.index, 3, "stops at its end")
    for n in (65536, 70000):
        for make in (
            lambda n=n: Framer(bytearray(n), bytearray(8)),
            lambda n=n: Framer(bytearray(8), bytearray(n)),
            lambda n=n: f.set_rx(bytearray(n)),
        ):
            try:
                make()
            except ValueError as error:
                ok(str(n) in str(error), "says how many bytes")
            else:
                ok(False, "65535 bytes at most")


def one_bad_byte() -> None:
    """Damage, loss and insertion of one byte at every place: at most one frame is missing."""
    out = Framer(bytearray(64), bytearray(8))
    sent = [b"first\0frame", b"\0\0\0", b"third"]
    line = b"".join(encoded(out, payload) for payload in sent)
    for i in range(len(line)):
        spoilt = [line[:i] + line[i + 1 :]]
        for value in (0, 1, 255, line[i] ^ 1, line[i] ^ 128):
            spoilt.append(line[:i] + bytes((value,)) + line[i + 1 :])
            spoilt.append(line[:i] + bytes((value,)) + line[i:])
        for bad in spoilt:
            found = received(Framer(bytearray(16), bytearray(32)), bad, 5)
            missing = list(sent)
            for payload in found:
                ok(payload in missing, "nothing that was not sent")
                missing.remove(payload)
            ok(len(missing) <= 1, ("at most one frame", i, bad))
    # cut off at any place: only what was not whole is missing, and the next frame is read
    ends = [i + 1 for i in range(len(line)) if line[i] == 0][1::2]
    for i in range(len(line) + 1):
        whole = sum(1 for end in ends if end <= i)
        into = Framer(bytearray(16), bytearray(32))
        eq(received(into, line[:i], 9), sent[:whole], "whole frames")
        eq(received(into, line, 9)[-3:], sent, "and what follows a truncated one")


def noise() -> None:
    """Text of a prompt or a bootloader between frames costs counters and no frame."""
    out = Framer(bytearray(64), bytearray(8))
    sent = [b"one", b"two\0", b"three"]
    line = NOISE
    for payload in sent:
        line += encoded(out, payload) + NOISE
    into = Framer(bytearray(16), bytearray(40))
    eq(received(into, line, 6), sent, "all frames through noise")
    eq(into.frames, 3, "frames")
    ok(into.crc_errors + into.resyncs + into.oversize == 3, "noise is counted")


round_trips()
tight_buffers()
misuse()
one_bad_byte()
noise()
done("frames")
