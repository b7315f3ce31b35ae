# SPDX-License-Identifier: Apache-2.0
"""What a board says of itself in its HELLO, parsed and checked before anything is believed.

    {"name": "cart", "uid": "e6614c31", "fw": "micropython 1.29.0 rp2", "viz": 0,
     "sensors": [{"u": "iagp", "t": 1, "s": 0, "g": 0, "f": 0, "n": 4, "r": 256, "c": 0}],
     "motors": [...]}

    u  4-letter code of the unit         n  channels
    t  data type, 0 to 11                r  resolution (depth), voxels per channel
    s  sub-unit, 0 to 15                 c  1: values are signed
    g  group, 0 to 65535                 f  flags: 1 incremental, 2 fractional
    w  width and                         h  height of a channel of plain voxels, 1 if missing

`uid`, `fw` and `viz` (1: send me the visualization) may be missing; keys not named here are
ignored, so that a newer board can talk to an older host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.json_struct import value_from_text
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.unit_table import AXES, RESOLUTIONS, Form, UnitKind, kind_by_code
from feagi_io_host.core.units import DeclaredUnit, areas_of_kind
from feagi_wire.const import (
    CARTESIAN_PLANE,
    FRACTIONAL,
    INCREMENTAL,
    MISC,
    OK,
    POSE_ESTIMATION,
)
from feagi_wire.cortical_id import pack_unit_id

MAX_DECLARATION_BYTES: Final = 16384
MAX_DEPTH: Final = 8
MAX_UNITS: Final = 64
MAX_CHANNELS: Final = 16384  # of all units together: an engine is told each one by one
MAX_VOXELS: Final = 1 << 28  # of an area: an engine makes a neuron of each
MAX_RESOLUTION: Final = 16384
MAX_RESOLUTION_FRACTIONAL: Final = 16  # binary places; more than a board's value has
MAX_TEXT_CHARS: Final = 64

_UNIT_CHARS: Final = 4
# Key of a unit -> least and greatest value.
_FIELDS: Final[Mapping[str, tuple[int, int]]] = {
    "t": (0, POSE_ESTIMATION),
    "s": (0, 15),
    "g": (0, 65535),
    "f": (0, 3),
    "n": (1, MAX_CHANNELS),
    "r": (1, MAX_RESOLUTION),
    "c": (0, 1),
}


@dataclass(frozen=True, slots=True)
class UnitDeclaration:
    """One area of a unit: it holds voxels x < `columns`, y < `height`, z < `resolution`.

    `width` and `height` are more than 1 for plain voxels only.
    """

    cortical_id: CorticalID
    channels: int
    resolution: int
    signed: bool
    fractional: bool
    is_sensor: bool
    width: int = 1
    height: int = 1

    @property
    def columns(self) -> int:
        """Columns of all channels: one for each value, two where it is signed, one for either
        sign."""
        axes = AXES.get(self.cortical_id[4] & 15, 1)
        return self.channels * self.width * axes * (2 if self.signed else 1)


@dataclass(frozen=True, slots=True)
class BoardDeclaration:
    """A board: its name, what it senses and what it moves. `uid` and `firmware` may be ""."""

    name: str
    uid: str
    firmware: str
    sensors: tuple[UnitDeclaration, ...]
    motors: tuple[UnitDeclaration, ...]
    visualization: bool = False

    @property
    def motor_areas(self) -> frozenset[CorticalID]:
        """The areas that may be sent to the board."""
        return frozenset(unit.cortical_id for unit in self.motors)

    def declared_units(self) -> tuple[DeclaredUnit, ...]:
        """The same for the agent configuration of an engine, sensors first.

        Areas that belong to one unit and group become one unit, with all its areas even where the
        board has declared only some. Raises FeagiDataError, naming every unit that a configuration
        cannot tell and why; none is left out in silence.
        """
        parts: dict[tuple[str, int, bool, bool], list[UnitDeclaration]] = {}
        faults = []
        for unit in (*self.sensors, *self.motors):
            try:
                parts.setdefault(_unit_of(unit), []).append(unit)
            except FeagiDataError as error:
                faults.append(f"{bytes(unit.cortical_id)!r}: {error}")
        found = []
        for (code, group, incremental, fractional), areas in parts.items():
            try:
                found.append(_gathered(kind_by_code(code), group, incremental, fractional, areas))
            except (ConfigError, FeagiDataError) as error:
                names = ", ".join(repr(bytes(area.cortical_id)) for area in areas)
                faults.append(f"{names}: {error}")
        if faults:
            raise FeagiDataError(
                f"board {self.name!r} declares what an agent configuration cannot tell: "
                f"{'; '.join(faults)}"
            )
        return tuple(found)


def _unit_of(unit: UnitDeclaration) -> tuple[str, int, bool, bool]:
    """Code, group, incremental and fractional of the unit that an area belongs to."""
    area = unit.cortical_id
    kind = kind_by_code(area[:_UNIT_CHARS].decode())
    group = int.from_bytes(area[6:8], "little")
    # Areas with a fixed handling of their own say nothing about the unit's.
    free = any(known.change is None for known in kind.areas)
    incremental = free and bool(area[5] & INCREMENTAL)
    known = areas_of_kind(kind, group, incremental=incremental, fractional=unit.fractional)
    if area not in known:
        expected = " ".join(f"{k[4]:02x}{k[5]:02x}" for k in known)
        raise FeagiDataError(
            f"data type, sub-unit and flags are {area[4]:02x}{area[5]:02x}; {kind.name} has "
            f"{expected}"
        )
    if unit.signed != kind.signed:
        raise FeagiDataError(f"{kind.name} is {'' if kind.signed else 'un'}signed")
    return kind.code, group, incremental, unit.fractional


def _gathered(
    kind: UnitKind, group: int, incremental: bool, fractional: bool, areas: list[UnitDeclaration]
) -> DeclaredUnit:
    channels = {area.channels for area in areas}
    if len(channels) > 1:
        raise FeagiDataError(f"channels of one unit are {sorted(channels)}; they have to agree")
    steps = [area.resolution for area in areas]
    resolution: int | tuple[int, ...] | None = None
    dims = None
    if kind.form is Form.VOLUME:
        dims = (areas[0].width, areas[0].height, steps[0])
    elif kind.form is Form.GAZE and len(areas) == RESOLUTIONS[Form.GAZE]:
        # its areas have a resolution each, told in the order of the sub-units
        resolution = tuple(a.resolution for a in sorted(areas, key=lambda a: a.cortical_id[4] >> 4))
    elif kind.form in RESOLUTIONS:
        if len(set(steps)) > 1:
            raise FeagiDataError(f"resolutions of one unit are {steps}; they have to agree")
        resolution = steps[0]
    elif kind.form is Form.PLANE:
        raise FeagiDataError(f"{kind.name} needs width and height, which a board does not declare")
    return DeclaredUnit(
        kind.code, group, channels.pop(), resolution,
        fractional=fractional, incremental=incremental, dims=dims,
    )  # fmt: skip


def parse_declaration(text: bytes | bytearray | memoryview) -> BoardDeclaration:
    """The declaration in a HELLO's JSON text.

    Raises FeagiDataError, with what came and what was expected, for anything that is not within
    the limits of this module.
    """
    if len(text) > MAX_DECLARATION_BYTES:
        raise FeagiDataError(
            f"board declaration of {len(text)} bytes; at most {MAX_DECLARATION_BYTES} are read"
        )
    value = value_from_text(text)
    depth = _depth(value)
    if depth > MAX_DEPTH:
        raise FeagiDataError(
            f"board declaration is nested {depth} levels deep; at most {MAX_DEPTH}"
        )
    if not isinstance(value, dict):
        raise FeagiDataError(f"board declaration is {_kind(value)}; an object is expected")
    name = _text(value, "name")
    if not name:
        raise FeagiDataError("board declaration has no name; give the board's agent one")
    sensors = _units(value, "sensors", is_sensor=True)
    motors = _units(value, "motors", is_sensor=False)
    if len(sensors) + len(motors) > MAX_UNITS:
        raise FeagiDataError(
            f"board {name!r} declares {len(sensors)} sensors and {len(motors)} motors; "
            f"at most {MAX_UNITS} units together"
        )
    channels = sum(unit.channels for unit in (*sensors, *motors))
    if channels > MAX_CHANNELS:
        raise FeagiDataError(
            f"board {name!r} declares {channels} channels; at most {MAX_CHANNELS} in all its units "
            "together"
        )
    return BoardDeclaration(
        name,
        _text(value, "uid"),
        _text(value, "fw"),
        sensors,
        motors,
        _number(value, "viz", 0, 1, "board declaration") == 1 if "viz" in value else False,
    )


def _units(value: Mapping[str, Any], key: str, *, is_sensor: bool) -> tuple[UnitDeclaration, ...]:
    rows = value.get(key, [])
    if not isinstance(rows, list):
        raise FeagiDataError(f"board declaration: {key} is {_kind(rows)}; a list is expected")
    if len(rows) > MAX_UNITS:
        raise FeagiDataError(f"board declares {len(rows)} {key}; at most {MAX_UNITS}")
    units: dict[CorticalID, int] = {}
    found = []
    for index, row in enumerate(rows):
        unit = _unit(row, f"{key}[{index}]", is_sensor=is_sensor)
        if unit.cortical_id in units:
            raise FeagiDataError(
                f"board declaration: {key}[{index}] is the same area as "
                f"{key}[{units[unit.cortical_id]}] ({bytes(unit.cortical_id)!r}); "
                "give each unit its own group"
            )
        units[unit.cortical_id] = index
        found.append(unit)
    return tuple(found)


def _unit(row: object, place: str, *, is_sensor: bool) -> UnitDeclaration:
    if not isinstance(row, dict):
        raise FeagiDataError(f"board declaration: {place} is {_kind(row)}; an object is expected")
    code = row.get("u")
    letter = "i" if is_sensor else "o"
    if (
        not isinstance(code, str)
        or not code.isascii()
        or len(code) != _UNIT_CHARS
        or code[0] != letter
    ):
        raise FeagiDataError(
            f"board declaration: {place}.u is {str(code)[:20]!r}; expected {_UNIT_CHARS} ASCII "
            f"letters that begin with {letter}, such as {'iinf' if is_sensor else 'omot'}"
        )
    numbers = {
        field: _number(row, field, low, high, place) for field, (low, high) in _FIELDS.items()
    }
    width, height = (
        _number(row, field, 1, MAX_RESOLUTION, place) if field in row else 1 for field in "wh"
    )
    if width * height > 1 and numbers["t"] not in (MISC, CARTESIAN_PLANE):
        raise FeagiDataError(
            f"board declaration: {place} is {width} x {height} a channel; data type "
            f"{numbers['t']} is 1 x 1"
        )
    fractional = bool(numbers["f"] & FRACTIONAL)
    if fractional and numbers["r"] > MAX_RESOLUTION_FRACTIONAL:
        raise FeagiDataError(
            f"board declaration: {place}.r is {numbers['r']}; a fractional unit has at most "
            f"{MAX_RESOLUTION_FRACTIONAL}"
        )
    out = bytearray(8)
    rc = pack_unit_id(out, code.encode(), numbers["t"], numbers["s"], numbers["g"], numbers["f"])
    if rc != OK:
        raise FeagiDataError(f"board declaration: {place} names no cortical area (code {rc})")
    unit = UnitDeclaration(
        CorticalID(out),
        numbers["n"],
        numbers["r"],
        bool(numbers["c"]),
        fractional,
        is_sensor,
        width,
        height,
    )
    if unit.columns * height * unit.resolution > MAX_VOXELS:
        raise FeagiDataError(
            f"board declaration: {place} is an area of {unit.columns} x {height} x "
            f"{unit.resolution} voxels; at most {MAX_VOXELS} together"
        )
    return unit


def _number(row: Mapping[str, Any], field: str, low: int, high: int, place: str) -> int:
    value = row.get(field)
    # bool is an int in Python and not in JSON
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        came = value if isinstance(value, (int, float)) else _kind(value)
        raise FeagiDataError(
            f"board declaration: {place}.{field} is {came}; a whole number from {low} to {high} "
            "is expected"
        )
    return value


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key, "")
    if (
        not isinstance(text, str)
        or len(text) > MAX_TEXT_CHARS
        or not text.isascii()
        or (text and not text.isprintable())
    ):
        came = f"{text[:20]!r} ({len(text)} characters)" if isinstance(text, str) else _kind(text)
        raise FeagiDataError(
            f"board declaration: {key} is {came}; at most {MAX_TEXT_CHARS} printable ASCII "
            "characters are expected"
        )
    return text


def _depth(value: object) -> int:
    """Levels of arrays and objects; the parser has bounded them, so this may recurse."""
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _kind(value: object) -> str:
    """What a JSON value is, for a message."""
    if value is None:
        return "missing or null"
    names: dict[type, str] = {
        dict: "an object", list: "a list", str: "text", bool: "true or false"
    }  # fmt: skip
    return names.get(type(value), "a number")
