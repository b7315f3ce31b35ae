# SPDX-License-Identifier: Apache-2.0
"""What differs between the interpreters, and nothing else."""

try:
    from time import sleep_ms, ticks_ms  # type: ignore[attr-defined]
except ImportError:  # CPython runs this package in tests
    from time import monotonic_ns, sleep

    def ticks_ms() -> int:
        """Milliseconds on a circle of unspecified size."""
        return monotonic_ns() // 1000000

    def sleep_ms(ms: int) -> None:
        """Sleep for so many milliseconds."""
        sleep(ms / 1000)


_MASK = 0x3FFFFFFF


def ticks() -> int:
    """Milliseconds modulo 2**30, the ticks that the link counts in."""
    return ticks_ms() & _MASK  # type: ignore[no-any-return]


__all__ = ["sleep_ms", "ticks"]
