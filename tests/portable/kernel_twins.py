# SPDX-License-Identifier: Apache-2.0
"""The implementations of the kernels against each other, over inputs that look random.

On MicroPython the machine code of `_viper` (where the firmware has the emitter) against `_plain`;
on CPython `_plain` against `_slices`, and against `_viper` run as Python with stand-ins for its
syntax.
"""

import sys
from array import array

from checks import Numbers, count, done, eq, ok

# not `from feagi_wire import _plain`: MicroPython asks only the package's __getattr__ for it
import feagi_wire._plain as _plain
import feagi_wire._slices as _slices
from feagi_wire.framing import crc_table
from feagi_wire.views import view

MYPY = False
if MYPY:
    from typing import Any

NAMES = [
    "copy16",
    "copy8",
    "equal8",
    "u32",
    "voxel",
    "scan_q16",
    "crc32_update",
    "cobs_encode",
    "cobs_decode",
]


def viper_module() -> "Any":
    """`_viper`, as machine code where it can be, as Python on CPython; None without emitter."""
    if sys.implementation.name == "micropython":
        try:
            import feagi_wire._viper as _viper
        except (ImportError, SyntaxError, ValueError):
            return None
        return _viper
    import builtins

    class Decorators:
        """What `import micropython` finds."""

        viper = staticmethod(lambda function: function)

    sys.modules["micropython"] = Decorators  # type: ignore[assignment]
    for cast in ("ptr8", "ptr16", "ptr32"):
        setattr(builtins, cast, lambda buf: buf)
    import feagi_wire._viper as _viper

    return _viper


def others() -> "list[tuple[str, Any]]":
    """What `_plain` is compared with."""
    found: "list[tuple[str, Any]]" = []
    viper = viper_module()
    if viper is not None:
        for name in NAMES:
            ok(hasattr(viper, name), "_viper has " + name)
        found.append(("viper", viper))
    if sys.implementation.name != "micropython":
        found.append(("slices", _slices))
    return found


def outcome(module: "Any", name: str, seed: int) -> object:
    """Run one kernel on inputs drawn from `seed`; everything it returned and wrote."""
    r = Numbers(seed)
    kernel = getattr(module, name)
    if name == "copy16":
        a = array("H", [r.below(65536) for _ in range(40)])
        n = r.below(20)
        start = r.below(20)
        view_a = view(a, "H", 40)
        # overlapping towards the front, as closing a gap does
        kernel(view_a, r.below(start + 1), view_a, start, n)
        return list(a)
    if name == "copy8":
        b = r.data(60)
        n = r.below(30)
        start = r.below(30)
        kernel(b, r.below(start + 1), b, start, n)
        return b
    if name == "equal8":
        p = r.data(30)
        q = bytearray(p)
        if r.below(2):
            q[r.below(30)] ^= 1
        n = r.below(16)
        at = r.below(14)
        return kernel(p, at, q, at, n), kernel(p, 0, q, 1, n)
    if name == "u32":
        b = r.data(12)
        if r.below(2):
            b[3] = 62 + r.below(4)
        return [kernel(b, i) for i in range(9)]
    if name == "voxel":
        return voxel_outcome(kernel, r)
    if name == "scan_q16":
        return scan_outcome(kernel, r)
    if name == "crc32_update":
        state = bytearray(b"\xff\xff\xff\xff")
        b = r.data(50)
        cut = r.below(50)
        kernel(crc_table(), b, 0, cut, state)
        kernel(crc_table(), b, cut, 50 - cut, state)
        return state
    if name == "cobs_encode":
        return encode_outcome(kernel, r)
    return decode_outcome(kernel, r)


# f32 with every exponent, by its upper half: subnormal, normal, infinite, not a number
def potential(r: Numbers, b: bytearray, o: int) -> None:
    """Put an f32 whose exponent is anywhere into b[o:o+4]."""
    exponent = (0, 1, 102, 103, 110, 111, 126, 127, 133, 134, 140, 141, 254, 255)[r.below(14)]
    b[o] = r.below(256) if r.below(2) else 0
    b[o + 1] = r.below(256) if r.below(2) else 0
    b[o + 2] = (exponent & 1) << 7 | (r.below(128) if r.below(2) else 0)
    b[o + 3] = r.below(2) << 7 | exponent >> 1


def voxel_outcome(kernel: "Any", r: Numbers) -> object:
    """Three voxels at any alignment."""
    o = r.below(4)
    b = r.data(o + 48)
    for i in range(3):
        potential(r, b, o + 36 + 4 * i)
        for plane in range(3):
            b[o + 12 * plane + 4 * i + 3] &= 63
    if r.below(3) == 0:
        b[o + 4 * r.below(9) + 3] = 64 + r.below(192)
    found = []
    for i in range(3):
        out = array("i", [0, 0, 0, 0])
        rc = kernel(b, o + 4 * i, 12, out)
        found.append((rc, list(out) if rc == 0 else None))
    return found


def scan_outcome(kernel: "Any", r: Numbers) -> object:
    """Up to eight voxels with x around the size of the planes."""
    n = r.below(9)
    o = r.below(4)
    b = r.data(o + 16 * n)
    for i in range(n):
        for k in range(4):
            b[o + 4 * i + k] = 0
        b[o + 4 * i + (r.below(4) if r.below(4) == 0 else 0)] = r.below(12)
        potential(r, b, o + 12 * n + 4 * i)
    size = r.below(10)
    lo = array("H", [7] * 12)
    hi = array("H", [9] * 12)
    return kernel(b, o, n, lo, hi, size), list(lo), list(hi)


def encode_outcome(kernel: "Any", r: Numbers) -> object:
    """A frame from several pieces, with runs long enough for full blocks."""
    registers = array("H", [0] * 9)
    st = view(registers, "H", 9)
    st[0], st[1], st[2] = 1, 2, 1
    out = bytearray(1400)
    for _ in range(1 + r.below(4)):
        n = r.below(300)
        b = bytearray(n + 3)
        for i in range(n + 3):
            b[i] = 1 + r.below(255)
        for _ in range(r.below(4)):
            b[r.below(n + 3)] = 0
        kernel(b, r.below(4), out, n, st)
    return list(registers), out


def decode_outcome(kernel: "Any", r: Numbers) -> object:
    """Frames cut and broken anywhere, into room that may not do."""
    registers = array("H", [0] * 9)
    st = view(registers, "H", 9)
    start = r.below(8)
    cap = start + r.below(400)
    out = bytearray(cap)
    st[4] = start
    st[7] = cap
    trail = []
    for _ in range(3):
        b = bytearray(r.below(400))
        low = r.below(2)
        for i in range(len(b)):
            b[i] = r.below(256) if r.below(8) == 0 else low + r.below(8)
        if b:
            b[0] = 255 if r.below(2) else b[0]
        i = 0
        while i >= 0:
            i = kernel(b, i, out, len(b), st)
            trail.append((i, list(registers)))
            if i >= 0:
                st[4] = start
                st[8] = 0
    return trail, out


def main() -> None:
    """Every kernel of every other implementation."""
    for other, module in others():
        for name in NAMES:
            if not hasattr(module, name):
                continue  # _slices has only what C does faster
            for seed in range(1, 120):
                expected = outcome(_plain, name, seed * 7919)
                eq(outcome(module, name, seed * 7919), expected, (other, name, seed))


main()
ok(count[0] or len(others()) == 0, "something was compared")
done("kernel_twins")
