# SPDX-License-Identifier: Apache-2.0
"""StaticFBC and FbcPool on either interpreter: round trips, misuse, and hostile bytes.

The kernels of a board check no bounds. So every order of calls is tried, and containers damaged
anywhere are read to the end: what this file proves on a board is that it does not crash.
"""

from array import array

from checks import Numbers, done, eq, ok

from feagi_wire import (
    E_CAPACITY,
    E_FULL,
    E_ID,
    E_RANGE,
    E_SHORT,
    E_STATE,
    E_VERSION,
    END,
    OK,
    SMALL_INT_MAX,
    FbcPool,
    FeagiWireError,
    StaticFBC,
    check,
    id_is_valid,
    pack_unit_id,
)

AREA = b"iinf\x01\x00\x00\x00"
OTHER = b"omot\x05\x00\x00\x00"


def filled(areas: int = 2, voxels: int = 3, room: int = 400) -> StaticFBC:
    """A finished container."""
    fbc = StaticFBC(bytearray(room))
    check(fbc.begin(7, areas))
    for a in range(areas):
        check(fbc.begin_area(AREA if a & 1 == 0 else OTHER, voxels))
        for i in range(voxels):
            check(fbc.add(i, a, 2 * i, 1.5 * i))
        check(fbc.end_area())
    check(fbc.end())
    return fbc


def writer_and_reader() -> None:
    """What was written is read; areas with fewer voxels than announced leave no gap."""
    for voxels in range(5):
        for room in range(voxels, voxels + 4):
            fbc = StaticFBC(bytearray(56 + 4 + 16 * 2 + 16 * (voxels + room + 1)))
            eq(fbc.begin(65536 + 258, 2, bytes(range(48))), OK, "begin")
            eq(fbc.begin_area(AREA, room), OK, "begin_area")
            for i in range(voxels):
                eq(fbc.add(i, i + 10, SMALL_INT_MAX, 0.25), i, "add")
            eq(fbc.end_area(), OK, "end_area")
            eq(fbc.begin_area(OTHER, 1), OK, "begin_area")
            eq(fbc.put(0, 1, 2, 3, -2.5), OK, "put")
            eq(fbc.put(0, 4, 2, 3, -2.5), OK, "put again")
            eq(fbc.end_area(), OK, "end_area")
            n = 92 + 16 * (voxels + 1)
            eq(fbc.end(), n, "end")
            eq((fbc.length, fbc.counter), (n, 258), "length and counter")
            eq(bytes(fbc.buf[4:52]), bytes(range(48)), "agent id")
            eq(fbc.parse(n), 2, "parse")
            eq(fbc.next_area(), voxels, "voxels")
            ok(fbc.area_id_is(AREA) and not fbc.area_id_is(OTHER), "id")
            for i in range(voxels):
                eq(fbc.get(i), OK, "get")
                eq((fbc.x, fbc.y, fbc.z, fbc.q16), (i, i + 10, SMALL_INT_MAX, 16384), "voxel")
            eq(fbc.next_area(), 1, "second area")
            lo = array("H", bytes(12))
            hi = array("H", bytes(12))
            eq(fbc.scan_q16(lo, hi, 6), 1, "scan_q16")
            eq((lo[4], hi[4]), (0x8000, 0xFFFD), "-2.5")
            eq(fbc.scan_q16(lo, hi, 4), 0, "x beyond the planes")
            eq(fbc.scan_q16(lo, hi, 7), E_CAPACITY, "planes too small")
            eq(fbc.next_area(), END, "END")


def capacities() -> None:
    """Exactly enough room does; four bytes less are refused where they are missing."""
    need = 56 + 4 + 16 + 32
    fbc = StaticFBC(bytearray(need))
    eq((fbc.begin(0, 1), fbc.begin_area(AREA, 2)), (OK, OK), "just enough")
    fbc = StaticFBC(bytearray(need - 4))
    eq((fbc.begin(0, 1), fbc.begin_area(AREA, 2)), (OK, E_CAPACITY), "no room for the voxels")
    eq(fbc.begin_area(AREA, SMALL_INT_MAX), E_CAPACITY, "a great many voxels")
    eq(fbc.begin_area(AREA, 1), OK, "fewer do")
    fbc = StaticFBC(bytearray(72))
    eq(fbc.begin(0, 1), E_CAPACITY, "no room for the records")
    eq(fbc.end(), E_STATE, "nothing begun")
    eq(fbc.begin(0, 0), OK, "no areas")
    eq(fbc.end(), 60, "the shortest container with voxels")
    for n in range(60):
        eq(StaticFBC(bytearray(n)).begin(0, 0), E_CAPACITY, "too small for any")


def misuse() -> None:
    """Every call in a wrong order or out of range has its code and changes nothing."""
    fbc = StaticFBC(bytearray(400))
    xs = array("I", [1, 2, 3])
    ps = array("f", [1, 2, 3])
    eq(fbc.end(), E_STATE, "end before begin")
    eq(fbc.end_area(), E_STATE, "end_area before begin")
    eq(fbc.begin_area(AREA, 1), E_STATE, "begin_area before begin")
    eq(fbc.add(0, 0, 0, 1.0), E_FULL, "add before begin")
    eq(fbc.put_arrays(xs, xs, xs, ps, 1), E_FULL, "put_arrays before begin")
    eq(fbc.next_area(), END, "next_area before parse")
    eq(fbc.get(0), E_FULL, "get before parse")
    eq(fbc.read_arrays(xs, xs, xs, ps), E_STATE, "read_arrays before parse")
    eq(fbc.scan_q16(array("H", [0]), array("H", [0]), 1), E_STATE, "scan_q16 before parse")
    eq(fbc.begin(0, -1), E_RANGE, "areas")
    eq(fbc.begin(0, 65536), E_RANGE, "areas")
    eq(fbc.begin(0, 1, b"short"), E_RANGE, "agent id")
    eq(fbc.end(), E_STATE, "not begun after a refusal")
    eq(fbc.begin(0, 1), OK, "begin")
    eq(fbc.end(), E_STATE, "areas missing")
    eq(fbc.begin_area(b"short", 1), E_ID, "id of 5 bytes")
    eq(fbc.begin_area(b"xinf\0\0\0\0", 1), E_ID, "id of no kind")
    eq(fbc.begin_area(AREA, -1), E_RANGE, "voxels")
    eq(fbc.begin_area(AREA, 2), OK, "begin_area")
    eq(fbc.begin_area(AREA, 2), E_STATE, "one open already")
    eq(fbc.end(), E_STATE, "still open")
    eq(fbc.put(1, 0, 0, 0, 1.0), E_FULL, "a gap")
    eq(fbc.put(-1, 0, 0, 0, 1.0), E_FULL, "before the first")
    for bad in (-1, SMALL_INT_MAX + 1, 1 << 32):
        eq(fbc.add(bad, 0, 0, 1.0), E_RANGE, "x")
        eq(fbc.add(0, bad, 0, 1.0), E_RANGE, "y")
        eq(fbc.add(0, 0, bad, 1.0), E_RANGE, "z")
    eq(fbc.put_arrays(xs, xs, xs, ps, 3), E_FULL, "more than announced")
    eq(fbc.put_arrays(xs, xs, xs, ps, -1), E_FULL, "fewer than none")
    eq(fbc.put_arrays(xs, array("I", [1]), xs, ps, 2), E_RANGE, "an array too short")
    eq(fbc.put_arrays(xs, xs, xs, bytearray(7), 2), E_RANGE, "bytes too few")
    eq(fbc.put_arrays(xs, xs, xs, ps, 2), OK, "put_arrays")
    eq(fbc.add(0, 0, 0, 1.0), E_FULL, "full")
    eq(fbc.end_area(), OK, "end_area")
    eq(fbc.end_area(), E_STATE, "end_area twice")
    eq(fbc.begin_area(AREA, 0), E_STATE, "more areas than announced")
    n = fbc.end()
    eq(n, 108, "end")
    before = bytes(fbc.buf)
    eq(fbc.parse(n), 1, "parse")
    eq(fbc.next_area(), 2, "next_area")
    # a reader is no writer, whatever was written before
    eq(fbc.add(0, 0, 0, 1.0), E_FULL, "add while reading")
    eq(fbc.put(0, 0, 0, 0, 1.0), E_FULL, "put while reading")
    eq(fbc.put_arrays(xs, xs, xs, ps, 2), E_FULL, "put_arrays while reading")
    eq(fbc.end_area(), E_STATE, "end_area while reading")
    eq(fbc.begin_area(AREA, 1), E_STATE, "begin_area while reading")
    eq(fbc.end(), E_STATE, "end while reading")
    eq(bytes(fbc.buf), before, "nothing was written")
    # and a writer no reader
    eq(fbc.parse(n), 1, "parse")
    eq(fbc.next_area(), 2, "next_area")
    eq(fbc.begin(0, 1), OK, "begin")
    eq(fbc.get(0), E_FULL, "get while writing")
    eq(fbc.next_area(), END, "next_area while writing")
    eq(fbc.begin_area(AREA, 20), OK, "begin_area")
    eq(fbc.get(0), E_FULL, "get while writing an area")
    eq(fbc.read_arrays(xs, xs, xs, ps), E_STATE, "read_arrays while writing")
    # a second parse forgets the first
    fbc = filled()
    eq(fbc.parse(fbc.length), 2, "parse")
    eq(fbc.next_area(), 3, "next_area")
    eq(fbc.parse(51), E_SHORT, "too short")
    eq((fbc.next_area(), fbc.get(0), fbc.length), (END, E_FULL, 0), "nothing left to read")
    eq(fbc.parse(401), E_CAPACITY, "more than the buffer holds")
    eq(fbc.parse(-1), E_SHORT, "less than nothing")


def hostile() -> None:
    """Containers damaged anywhere are refused with a code, or read without leaving them."""
    r = Numbers(99)
    codes = {}
    xs, ys, zs = array("I", bytes(64)), array("I", bytes(64)), array("I", bytes(64))
    ps = array("f", bytes(64))
    lo, hi = array("H", bytes(256)), array("H", bytes(256))
    for turn in range(3000):
        source = filled(1 + r.below(3), r.below(4))
        length = source.length
        if turn & 1:
            buf = bytearray(length)  # the container ends where the buffer ends
            buf[:] = source.buf[:length]
        else:
            buf = bytearray(400)
            buf[:length] = source.buf[:length]
        for _ in range(r.below(4)):
            at = 48 + r.below(length - 48) if r.below(4) else r.below(4)
            buf[at] = r.below(256) if r.below(2) else r.below(20)
        if r.below(4) == 0:
            length = r.below(length + 1)
        fbc = StaticFBC(buf)
        rc = fbc.parse(length)
        codes[rc if rc < 0 else 0] = 1
        areas = 0
        while True:
            n = fbc.next_area()
            if n == END:
                break
            areas += 1
            ok(0 <= n <= length >> 4, "voxels within the container")
            for i in range(n):
                ok(fbc.get(i) in (OK, E_RANGE), "get")
            ok(fbc.read_arrays(xs, ys, zs, ps) in (n, E_CAPACITY), "read_arrays")
            ok(0 <= fbc.scan_q16(lo, hi, 128) <= n, "scan_q16")
        eq(areas, rc if rc > 0 else 0, "as many areas as promised")
        for index in range(3):
            try:
                fbc.json_value(index)
            except FeagiWireError as error:
                ok(error.code < 0, "a code")
    ok(len(codes) >= 6, "damage of many sorts")
    ok(E_VERSION in codes, "the version among it")


def ids() -> None:
    """Cortical ids of input and output units."""
    out = bytearray(8)
    eq(pack_unit_id(out, b"opse", 1, 2, 256, 3), OK, "pack_unit_id")
    eq(bytes(out), b"opse\x21\x03\x00\x01", "its bytes")
    eq(id_is_valid(out), OK, "valid")
    for first in range(256):
        eq(id_is_valid(bytes((first,))), OK if first in b"_cmiog" else E_ID, "first byte")
    for unit in (b"xinf", b"inf", b"iinfx", b"_pow"):
        eq(pack_unit_id(out, unit, 1), E_ID, "unit")
    for numbers in ((12, 0, 0, 0), (-1, 0, 0, 0), (1, 16, 0, 0), (1, 0, 65536, 0), (1, 0, 0, 4)):
        eq(pack_unit_id(out, b"iinf", *numbers), E_RANGE, numbers)


def pools() -> None:
    """A ring is first in, first out, never hands out what is in use, and refuses strangers."""
    r = Numbers(3)
    stranger = StaticFBC(bytearray(60))
    for count in (1, 2, 3, 127):
        pool = FbcPool(count, 60)
        held: "list[int]" = []
        number = 0
        eq(pool.commit(stranger), E_STATE, "commit of a stranger")
        eq(pool.release(stranger), E_STATE, "release of a stranger")
        for _ in range(600):
            if r.below(2):
                fbc = pool.acquire()
                eq(fbc is None, len(held) == count, "full")
                if fbc is not None:
                    ok(pool.acquire() is fbc, "the same until commit")
                    eq(pool.release(fbc), E_STATE, "not committed yet")
                    fbc.counter = number
                    held.append(number)
                    number += 1
                    eq(pool.commit(fbc), OK, "commit")
            else:
                fbc = pool.peek()
                eq(fbc is None, not held, "empty")
                if fbc is not None:
                    eq(fbc.counter, held.pop(0), "the oldest first")
                    eq(pool.release(fbc), OK, "release")
            eq(len(pool), len(held), "containers in the ring")
    for count in (0, 128):
        try:
            FbcPool(count, 60)
        except ValueError:
            continue
        ok(False, "1 to 127 containers")


writer_and_reader()
capacities()
misuse()
hostile()
ids()
pools()
done("containers")
