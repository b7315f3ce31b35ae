# SPDX-License-Identifier: Apache-2.0
"""Typed windows over a buffer, made once at initialisation.

A store or load through such a window allocates nothing on MicroPython, where a slice or
`memoryview.cast` is not to be had. Keep the buffer referenced for as long as its window.
"""

MYPY = False
if MYPY:
    from array import array

    Buffer = bytearray | memoryview | array[int] | array[float]

try:
    import uctypes

    def view(buf: "Buffer", kind: str, n: int) -> "memoryview":
        """n items of `kind` ('B', 'H', 'I' or 'f') over `buf`, which starts 4-aligned."""
        if kind == "B":
            item = uctypes.UINT8
        elif kind == "H":
            item = uctypes.UINT16
        elif kind == "I":
            item = uctypes.UINT32
        else:
            item = uctypes.FLOAT32
        layout = {"a": (uctypes.ARRAY, item | n)}
        at = uctypes.addressof(buf)  # type: ignore[arg-type]
        return uctypes.struct(at, layout, uctypes.NATIVE).a  # type: ignore[no-any-return]

except ImportError:

    def view(buf: "Buffer", kind: str, n: int) -> "memoryview":
        """n items of `kind` ('B', 'H', 'I' or 'f') over `buf`."""
        size = 1 if kind == "B" else 2 if kind == "H" else 4
        return memoryview(buf).cast("B")[: n * size].cast(kind)  # type: ignore[call-overload,no-any-return]
