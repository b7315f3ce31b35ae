# SPDX-License-Identifier: Apache-2.0
"""Executed on the board by tools/instructions.py: microseconds of each path, many times over.

Prints lines of name, microseconds, units (voxels or bytes). Each path runs once before it counts.
"""

import time
from array import array
from struct import pack_into, unpack_from

import feagi_wire._plain as plain
from feagi_wire.container import StaticFBC
from feagi_wire.framing import Framer, crc_table, frame_bytes

N = 200
BYTES = 1024
TURNS = 10
AREA = b"iagp\x01\x00\x00\x00"
FIRED = 1.0

xs = array("I", range(N))
ys = array("I", [0] * N)
zs = array("I", [i & 7 for i in range(N)])
ps = array("f", [FIRED] * N)
fbc = StaticFBC(bytearray(80 + 16 * N))
naive_buf = bytearray(80 + 16 * N)
low = array("H", [0] * N)
high = array("H", [0] * N)
values = array("i", [0] * N)
payload = bytes(i * 7 & 255 for i in range(BYTES))
framer = Framer(bytearray(frame_bytes(BYTES)), bytearray(BYTES + 8))


class _Slices:
    def __getitem__(self, key):
        return key


# where x, y, z and p of one area of N voxels lie in a container, and in the arrays' bytes
AT = 76
cut = _Slices()
places = [cut[AT + 4 * N * k : AT + 4 * N * (k + 1)] for k in range(4)]
sources = [bytes(memoryview(a)) for a in (xs, ys, zs, ps)]


def timed(name, path, units):
    """The time of TURNS calls of `path`."""
    path()
    start = time.ticks_us()
    for _ in range(TURNS):
        path()
    print(name, time.ticks_diff(time.ticks_us(), start), TURNS * units)


def encode_naive():
    """Four pack_into a voxel."""
    b = naive_buf
    for i in range(N):
        pack_into("<I", b, AT + 4 * i, xs[i])
        pack_into("<I", b, AT + 4 * (N + i), ys[i])
        pack_into("<I", b, AT + 4 * (2 * N + i), zs[i])
        pack_into("<f", b, AT + 4 * (3 * N + i), ps[i])


def encode_arrays():
    """A whole container of one area."""
    fbc.begin(1, 1)
    fbc.begin_area(AREA, N)
    fbc.put_arrays(xs, ys, zs, ps, N)
    fbc.end_area()
    fbc.end()


def encode_fixed():
    """The same area again in the container that stands: four copies to where they were."""
    b = fbc.buf
    b[places[0]] = sources[0]
    b[places[1]] = sources[1]
    b[places[2]] = sources[2]
    b[places[3]] = sources[3]


def decode_naive():
    """unpack_from for each number of each voxel, and Q16 of the potential."""
    b = fbc.buf
    for i in range(N):
        x = unpack_from("<I", b, AT + 4 * i)[0]
        unpack_from("<I", b, AT + 4 * (N + i))
        unpack_from("<I", b, AT + 4 * (2 * N + i))
        values[x] = int(unpack_from("<f", b, AT + 4 * (3 * N + i))[0] * 65536)


def decode_scan():
    """The potentials of the current area, spread over x."""
    fbc.scan_q16(low, high, N)


def container_out():
    """What a container costs besides its voxels."""
    fbc.begin(1, 1)
    fbc.begin_area(AREA, N)
    fbc.end_area()
    fbc.end()


def container_in():
    """What a container costs besides its voxels."""
    fbc.parse(fbc.length)
    fbc.next_area()


state = array("H", bytes(18))
crc = bytearray(4)
table = crc_table()


def frame_out_bytecode():
    """The loops of a frame as bytecode."""
    state[0] = 1
    state[1] = 2
    state[2] = 1
    plain.crc32_update(table, payload, 0, BYTES, crc)
    plain.cobs_encode(payload, 0, framer.tx, BYTES, state)


def frame_out():
    """A whole frame."""
    framer.encode(payload, 0, BYTES)


def frame_in_bytecode():
    """The loops of a frame as bytecode."""
    state[4] = state[5] = state[6] = 0
    state[7] = BYTES + 8
    plain.cobs_decode(framer.tx, 1, framer.rx, frame, state)
    plain.crc32_update(table, framer.rx, 0, BYTES + 4, crc)


def frame_in():
    """A whole frame."""
    framer.feed(framer.tx, frame)


timed("encode_naive", encode_naive, N)
timed("encode_arrays", encode_arrays, N)
expected = bytes(fbc.buf[AT : AT + 16 * N])
assert expected == bytes(naive_buf[AT : AT + 16 * N])
timed("encode_fixed", encode_fixed, N)
assert expected == bytes(fbc.buf[AT : AT + 16 * N])
timed("decode_naive", decode_naive, N)
timed("container_in", container_in, 1)
timed("decode_scan", decode_scan, N)
for i in range(N):
    assert values[i] == 65536 == low[i] | high[i] << 16
frame = framer.encode(payload, 0, BYTES)
timed("frame_out_bytecode", frame_out_bytecode, BYTES)
timed("frame_out", frame_out, BYTES)
timed("frame_in_bytecode", frame_in_bytecode, BYTES)
timed("frame_in", frame_in, BYTES)
assert framer.feed(framer.tx, frame) == BYTES
assert bytes(framer.rx[:BYTES]) == payload
timed("container_out", container_out, 1)
