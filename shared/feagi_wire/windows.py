# SPDX-License-Identifier: Apache-2.0
"""Windows onto the four arrays that a caller hands to `put_arrays` and `read_arrays`."""

from .const import SMALL_INT_MAX
from .views import view

MYPY = False
if MYPY:
    from array import array
    from typing import Any

    Array = array[int] | array[float] | bytearray


def windows(xs: "Array", ys: "Array", zs: "Array", ps: "Array") -> "list[Any]":
    """The arrays, four windows in halves, the halves that all of them hold, four in bytes."""
    v: "list[Any]" = [xs, ys, zs, ps]
    least = SMALL_INT_MAX  # a typed window has no len() on a board
    for i in range(4):
        n = len(v[i]) * _item_bytes(v[i])
        v.append(view(v[i], "H", n >> 1))
        if n >> 1 < least:
            least = n >> 1
    v.append(least)
    for i in range(4):
        v.append(view(v[i], "B", len(v[i]) * _item_bytes(v[i])))
    return v


def _item_bytes(buf: "Array") -> int:
    """Bytes of one item of an array, bytearray or memoryview."""
    try:
        return buf.itemsize  # type: ignore[union-attr]
    except AttributeError:
        # MicroPython's array has no itemsize; its repr names the type code: array('I', [...])
        text = repr(buf[:0])
        if text.startswith("array("):
            kind = text[7]
            return 1 if kind in "bB" else 2 if kind in "hH" else 8 if kind in "qQd" else 4
        return 1
