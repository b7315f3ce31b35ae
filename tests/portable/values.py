# SPDX-License-Identifier: Apache-2.0
"""Values to voxels and back on either interpreter, against the table of feagi_wire.xyzp."""

from checks import Numbers, done, eq, ok

from feagi_wire import E_CAPACITY, E_RANGE, END, OK, StaticFBC, ValueDecoder, ValueEncoder, check

AREA = b"iagp\x01\x00\x00\x00"


def voxels_of(encoder: ValueEncoder) -> "list[tuple[int, int]]":
    """x and z of the voxels an encoder writes; y and potential are always 0 and 1.0."""
    fbc = StaticFBC(bytearray(76 + 16 * encoder.max_voxels()))
    check(fbc.begin(0, 1))
    eq(encoder.write(fbc, AREA), OK, "write")
    n = check(fbc.end())
    check(fbc.parse(n))
    found = []
    for i in range(fbc.next_area()):
        check(fbc.get(i))
        eq((fbc.y, fbc.q16), (0, 65536), "y and potential")
        found.append((fbc.x, fbc.z))
    return found


def read(decoder: ValueDecoder, voxels: "list[tuple[int, int]]") -> "list[int]":
    """The values after a frame with these voxels."""
    fbc = StaticFBC(bytearray(76 + 16 * len(voxels)))
    check(fbc.begin(0, 1))
    check(fbc.begin_area(AREA, len(voxels)))
    for x, z in voxels:
        check(fbc.add(x, 0, z, 0.5))
    check(fbc.end_area())
    check(fbc.parse(check(fbc.end())))
    decoder.read(fbc, fbc.next_area())
    eq(fbc.next_area(), END, "END")
    return list(decoder.values)


def written(value: int, resolution: int, signed: bool, fractional: bool) -> "list[tuple[int, int]]":
    """Voxels of one channel with this value."""
    encoder = ValueEncoder(1, resolution, signed, fractional)
    eq(encoder.set(0, value), OK, "set")
    return voxels_of(encoder)


def measured() -> None:
    """What the real library wrote and read with a resolution of 8."""
    for value, z in ((0, 7), (0.126, 6), (0.25, 6), (0.5, 4), (0.75, 2), (0.9, 0), (1, 0)):
        eq(written(int(value * 65535 + 0.5), 8, False, False), [(0, z)], ("linear", value))
    for value, zs in (
        (0.5, (0,)), (0.75, (0, 1)), (0.9, (0, 1, 2, 5, 6)), (1, tuple(range(8))), (0, (7,)),
    ):  # fmt: skip
        got = written(min(65535, int(value * 65536)), 8, False, True)
        eq(got, [(0, z) for z in zs], ("fractional", value))
    eq(written(0, 8, True, False), [(0, 7), (1, 7)], "signed zero fires both")
    eq(written(0, 8, True, True), [(0, 7), (1, 7)], "signed zero fires both")
    eq(written(32767, 8, True, False), [(0, 0)], "+1")
    eq(written(-32767, 8, True, False), [(1, 0)], "-1")
    eq(written(-16384, 8, True, True), [(1, 0)], "-0.5")
    decoder = ValueDecoder(2, 8, True)
    for z, value in ((0, 32767), (7, -32767)):
        eq(read(decoder, [(0, z)])[0], value, ("signed linear", z))
    ok(abs(read(decoder, [(0, 3)])[0] - 32767 * 0.142857) <= 1, "z 3")
    eq(read(decoder, [(0, 2), (0, 4)])[0] - read(decoder, [(0, 4), (0, 2)])[0], 0, "any order")
    before = read(decoder, [(0, 1)])
    eq(read(decoder, []), before, "an empty area keeps the last value")
    eq((decoder.seen[0], decoder.seen[1]), (0, 0), "nothing seen")
    eq(read(decoder, [(2, 0), (5, 0), (0, 8)]), before, "what was not declared is ignored")
    eq(decoder.ignored, 3, "and counted")


def round_trips() -> None:
    """Back to the value, within the step of the resolution."""
    r = Numbers(11)
    for resolution in (2, 3, 8, 10, 100, 16384):
        step = 65535 // (resolution - 1) + 1
        for _ in range(40):
            value = r.below(65536)
            decoder = ValueDecoder(1, resolution)
            back = read(decoder, written(value, resolution, False, False))[0]
            ok(abs(back - value) <= step, ("linear", resolution, value, back))
    for resolution in (1, 4, 8, 16):
        for _ in range(40):
            value = r.below(65536)
            total = sum(65536 >> (1 + z) for _, z in written(value, resolution, False, True))
            if value:
                eq(total, value >> (16 - resolution) << (16 - resolution), "binary digits")
    encoder = ValueEncoder(5, 8, True)
    for c in range(5):
        eq(encoder.set(c, (c - 2) * 10000), OK, "set")
    eq([x for x, _ in voxels_of(encoder)], [1, 3, 4, 5, 6, 8], "negative, negative, zero, positive")


def limits() -> None:
    """Ranges, channels, resolutions and room."""
    unsigned, signed = ValueEncoder(2, 8), ValueEncoder(2, 8, True)
    for channel, value in ((-1, 0), (2, 0), (0, -1), (0, 65536)):
        eq(unsigned.set(channel, value), E_RANGE, ("unsigned", channel, value))
    for channel, value in ((0, -32768), (0, 32768), (2, 0)):
        eq(signed.set(channel, value), E_RANGE, ("signed", channel, value))
    for encoder in (ValueEncoder(3, 4), ValueEncoder(3, 1, True), ValueEncoder(2, 16, True, True)):
        for value in (0, 1, 32767):
            for c in range(encoder.channels):
                encoder.set(c, value)
            ok(len(voxels_of(encoder)) <= encoder.max_voxels(), "max_voxels")
    for channels, resolution, fractional in (
        (0, 8, False), (16385, 8, False), (1, 0, False), (1, 16385, False), (1, 17, True),
    ):  # fmt: skip
        for kind in (ValueEncoder, ValueDecoder):
            try:
                kind(channels, resolution, False, fractional)
            except ValueError:
                continue
            ok(False, ("refused", channels, resolution, fractional))
    fbc = StaticFBC(bytearray(76))
    check(fbc.begin(0, 1))
    eq(unsigned.write(fbc, AREA), E_CAPACITY, "no room")
    # the largest sums stay within 31 bits
    decoder = ValueDecoder(1, 16384)
    eq(read(decoder, [(0, 16383)] * 3000), [0], "many voxels")
    eq(read(ValueDecoder(1, 1), [(0, 0)]), [65535], "a single level")
    decoder = ValueDecoder(1, 16, True, True)
    eq(read(decoder, [(0, 0)] * 3), [32767], "no more than 1")
    eq(read(decoder, [(1, 0)] * 3), [-32767], "no less than -1")


measured()
round_trips()
limits()
done("values")
