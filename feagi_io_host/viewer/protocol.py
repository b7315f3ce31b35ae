# SPDX-License-Identifier: Apache-2.0
"""What viewer and page say to each other, version 1: texts, the header of a frame, close codes.

docs/viewer.md has the whole of it. Nothing here knows a socket or a clock.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

PROTOCOL: Final = 1
LIVE_PATH: Final = "/live"

WRONG_PROTOCOL: Final = 4400
WRONG_TOKEN: Final = 4401
LATE: Final = 4408
FULL: Final = 4429

MAX_MESSAGE_BYTES: Final = 4096
MAX_UNDER_WAY: Final = 2
"""Frames that a page has not said to be on its screen yet."""
LEAST_VOXELS: Final = 1024
"""A page that can draw fewer gets so many."""

WHOLE_FBC: Final = 1
COMPACT: Final = 2
FLAG_WHOLE: Final = 1
FLAG_THINNED: Final = 2

_HEADER: Final = struct.Struct("<BBHIdII")
HEADER_BYTES: Final = _HEADER.size  # 24
_MOST_COUNTED: Final = (1 << 32) - 1


class PageError(Exception):
    """A page said what it may not; `code` is the close code that answers it."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a page."""

    protocol: int
    token: str


@dataclass(frozen=True, slots=True)
class Shown:
    """Frame number `sequence` is on the screen; drawing it took `frame_ms` milliseconds."""

    sequence: int
    frame_ms: float


@dataclass(frozen=True, slots=True)
class Detail:
    """How many voxels the page can draw; None is all."""

    max_voxels: int | None


@dataclass(frozen=True, slots=True)
class Control:
    """`what` is pause, resume or step."""

    what: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The page wants its frames over WebRTC, and describes its end."""

    sdp: str


PageMessage = Hello | Shown | Detail | Control | Offer


def parse(message: str | bytes) -> PageMessage:
    """What a page has said. Raises PageError, whose words say what came instead."""
    if not isinstance(message, str):
        raise PageError(1003, f"{len(message)} bytes came; a page sends texts only")
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        raise PageError(1008, f"a text of {len(message)} characters that is no JSON") from None
    if not isinstance(value, dict):
        raise PageError(1008, f"a {type(value).__name__} came; an object is expected")
    kind = value.get("type")
    match kind:
        case "hello":
            token = value.get("token")
            if not isinstance(token, str):
                raise PageError(1008, "hello without a token")
            return Hello(_whole(value, "protocol"), token)
        case "shown":
            return Shown(_whole(value, "sequence"), _milliseconds(value, "frame_ms"))
        case "detail":
            unbounded = "max_voxels" in value and value["max_voxels"] is None
            return Detail(None if unbounded else max(_whole(value, "max_voxels"), LEAST_VOXELS))
        case "pause" | "resume" | "step":
            return Control(kind)
        case "peer":
            sdp = value.get("sdp")
            if not isinstance(sdp, str):
                raise PageError(1008, "peer without an sdp")
            return Offer(sdp)
    raise PageError(
        1008, f"type {str(kind)[:40]!r}; hello, shown, detail, pause, resume, step, peer"
    )


def _whole(value: Mapping[str, Any], name: str) -> int:
    number = value.get(name)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _MOST_COUNTED:
        raise PageError(1008, f"{name} is {str(number)[:40]}; 0 to {_MOST_COUNTED} are possible")
    return number


def _milliseconds(value: Mapping[str, Any], name: str) -> float:
    number = value.get(name)
    if not isinstance(number, int | float) or isinstance(number, bool):
        raise PageError(1008, f"{name} is {str(number)[:40]}; a number is expected")
    try:
        time_ms = float(number)
    except OverflowError:
        time_ms = math.inf
    if not 0.0 <= time_ms < math.inf:
        raise PageError(1008, f"{name} is {str(number)[:40]}; 0 or more and finite is possible")
    return time_ms


def text(kind: str, /, **values: Any) -> str:
    """A message for a page. Numbers that JSON has no word for become null."""
    return json.dumps(_plain({"type": kind, **values}), allow_nan=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return value


def frame_header(
    kind: int, flags: int, sequence: int, emitted_ms: float, fired: int, voxels: int
) -> bytes:
    """The 24 bytes before the body of a frame; `emitted_ms` is Unix time in milliseconds."""
    return _HEADER.pack(
        kind,
        flags,
        0,
        sequence & _MOST_COUNTED,
        emitted_ms,
        min(fired, _MOST_COUNTED),
        min(voxels, _MOST_COUNTED),
    )
