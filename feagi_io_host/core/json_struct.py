# SPDX-License-Identifier: Apache-2.0
"""The JSON struct (type 1): text to value and back, by the rules of the real library's parser.

The engine reads JSON with serde_json. Python's own parser lets through what serde_json refuses,
so a text could pass here and fail there. The differences closed here, one number each, referred
to below:

    1  NaN, Infinity and -Infinity
    2  numbers above the largest f64 (1e400)
    3  lone surrogates written as escapes ("\\ud800")
    4  more than 127 levels of arrays and objects
    5  whole numbers outside i64 and u64 become f64, and -0 is the f64 -0.0
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from feagi_io_host.core.errors import FeagiDataError, StructCorruptError
from feagi_wire.const import JSON_MAX_DEPTH

_I64_MIN: Final = -(1 << 63)
_U64_MAX: Final = (1 << 64) - 1
_SHORT_DIGITS: Final = 18  # so many characters always fit into i64
_LONG_DIGITS: Final = 20  # the most characters an i64 or u64 is written with

# Every escape of a text that is known to be JSON: a good pair, a surrogate alone, any other.
_ESCAPES: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)
# Strings are skipped whole so that brackets inside them do not count.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


class FeagiJSON:
    """One JSON value as a struct of a container. Two are equal when their values are."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FeagiJSON) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]  # the value may be changed

    def __repr__(self) -> str:
        return f"FeagiJSON({self.value!r})"


def _refuse_constant(name: str) -> NoReturn:
    raise StructCorruptError(f"JSON knows no {name}")  # case 1


def _number_from_text(text: str) -> float:
    number = float(text)
    if math.isinf(number):  # case 2
        raise StructCorruptError(
            f"JSON number {text[:24]} ({len(text)} characters) is out of range of f64"
        )
    return number


def _whole_from_text(text: str) -> int | float:
    if text == "-0":  # case 5
        return -0.0
    if len(text) <= _SHORT_DIGITS:
        return int(text)
    if len(text) <= _LONG_DIGITS and _I64_MIN <= (number := int(text)) <= _U64_MAX:
        return number
    return _number_from_text(text)


_DECODER: Final = json.JSONDecoder(
    parse_float=_number_from_text, parse_int=_whole_from_text, parse_constant=_refuse_constant
)


def _check_depth(text: str) -> None:
    """Case 4. `text` must be valid JSON: then the pattern walks it once, in linear time."""
    if text.count("[") + text.count("{") <= JSON_MAX_DEPTH:
        return
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        kind = match.lastindex
        if kind == 1:
            depth += 1
            deepest = max(deepest, depth)
        elif kind == 2:  # the second group, a closing bracket
            depth -= 1
    if deepest > JSON_MAX_DEPTH:
        raise StructCorruptError(
            f"JSON is nested {deepest} levels deep; {JSON_MAX_DEPTH} are allowed"
        )


def value_from_text(data: bytes | bytearray | memoryview) -> Any:
    """Parse the text of a JSON struct (everything after its two header bytes).

    Raises StructCorruptError for anything the real library's parser refuses.
    """
    size = len(data)
    try:
        text = str(data, "utf-8")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise StructCorruptError(
            f"JSON text of {size} bytes is not UTF-8 from byte {error.start} on"
        ) from None
    except json.JSONDecodeError as error:
        raise StructCorruptError(f"JSON text of {size} bytes: {error}") from None
    except RecursionError:
        raise StructCorruptError(
            f"JSON is nested too deep; {JSON_MAX_DEPTH} levels are allowed"
        ) from None
    if "\\u" in text:
        for match in _ESCAPES.finditer(text):
            if match.group(1):  # case 3
                raise StructCorruptError(
                    f"JSON text has a lone surrogate {match.group(1)} at character {match.start()}"
                )
    _check_depth(text)
    return value


def text_from_value(value: Any) -> bytes:
    """Compact JSON with sorted keys, as the real library writes it.

    Raises FeagiDataError when the value has no JSON form that the other side would accept.
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        data = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FeagiDataError(
            f"{type(value).__name__} has no JSON form: {str(error)[:200]}"
        ) from None
    value_from_text(data)  # depth and range: what we would refuse to read we do not write
    return data
