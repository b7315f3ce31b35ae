# SPDX-License-Identifier: Apache-2.0
"""Small checks on parsed JSON from outside; each raises FeagiDataError with what came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from feagi_io_host.core.errors import FeagiDataError

T = TypeVar("T")


def kind_of(value: object) -> str:
    """What a JSON value is, for a message to people."""
    if value is None:
        return "missing or null"
    names: dict[type, str] = {
        dict: "an object", list: "a list", str: "text", bool: "true or false"
    }  # fmt: skip
    return names.get(type(value), "a number")


def depth_of(value: object) -> int:
    """Levels of lists and objects. The parser has bounded them, so this may recurse."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def member(value: object, key: str, kind: type[T]) -> T:
    """Member `key` of the object `value`, which has to be of `kind`."""
    if not isinstance(value, Mapping):
        raise FeagiDataError(f"{kind_of(value)} where an object with {key} is expected")
    found: Any = value.get(key)
    # bool is an int in Python and not in JSON
    if not isinstance(found, kind) or (kind is not bool and isinstance(found, bool)):
        raise FeagiDataError(f"{key} is {kind_of(found)}; {kind.__name__} is expected")
    return found


def whole(value: object, name: str, most: int) -> int:
    """`value`, which has to be a whole number from 0 to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        came = value if type(value) in (int, float) else kind_of(value)
        raise FeagiDataError(f"{name} is {came}; a whole number from 0 to {most} is expected")
    return value
