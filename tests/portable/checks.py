# SPDX-License-Identifier: Apache-2.0
"""What the portable test scripts share: counted checks, numbers that look random, and the lock of
the heap where nothing may allocate.

A script is run as a program, on either interpreter. It ends with a line `PORTABLE OK <name>
<backend> <checks>` and status 0, or with `FAIL` or a traceback and another status.
"""

import sys

from feagi_wire import kernels

try:
    from micropython import heap_lock, heap_unlock
except ImportError:

    def heap_lock() -> None:
        """CPython has no heap to lock."""

    def heap_unlock() -> int:
        """CPython has no heap to lock."""
        return 0


if kernels.ALLOCATES:
    # The plain kernels allocate on MicroPython and say so; the rest of a script still holds.
    def heap_lock() -> None:
        """Not promised with these kernels."""

    def heap_unlock() -> int:
        """Not promised with these kernels."""
        return 0


count = [0]


def eq(got: object, expected: object, what: object) -> None:
    """Count a check; end the program when `got` is not what was expected."""
    count[0] += 1
    if got != expected:
        print("FAIL", what, "got", repr(got)[:200], "expected", repr(expected)[:200])
        sys.exit(1)


def ok(condition: object, what: object) -> None:
    """Count a check; end the program when the condition does not hold."""
    eq(bool(condition), True, what)


class Numbers:
    """The same numbers on every interpreter and every run (a 31-bit shift register)."""

    def __init__(self, seed: int) -> None:
        self.state = seed & 0x3FFFFFFF or 1

    def below(self, n: int) -> int:
        """A number from 0 to n - 1, for n up to 2**30."""
        s = self.state
        s ^= (s << 13) & 0x3FFFFFFF
        s ^= s >> 17
        s ^= (s << 5) & 0x3FFFFFFF
        self.state = s
        return s % n

    def data(self, n: int) -> bytearray:
        """n bytes, a quarter of them zero."""
        out = bytearray(n)
        for i in range(n):
            if self.below(4):
                out[i] = self.below(256)
        return out


def done(name: str) -> None:
    """Print the closing line."""
    print("PORTABLE OK", name, kernels.BACKEND, count[0])
