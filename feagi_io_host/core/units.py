# SPDX-License-Identifier: Apache-2.0
"""Units and agent configurations: what a body has, and which cortical areas that stands for.

    agent_configuration([DeclaredUnit("Infrared", channels=2)])  -> the JSON details
    declared_units(details)                                      -> the units again
    cortical_ids_of(details)                                     -> the areas of all of them

The ids follow from the unit, its index and its io_configuration_flags; the properties have no
part in them, as in the engine of feagi-core 2.6.10. The engine makes no area for a unit without
`frame_change_handling`; here it is absolute then, as the ids are that the real library derives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from feagi_io_host.core.agent_configuration import (
    INPUT_UNITS,
    MAX_CHANNELS,
    MAX_UNIT_INDEX,
    MAX_UNITS,
    OUTPUT_UNITS,
    check_configuration_details,
)
from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.json_shape import kind_of, member, whole
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.unit_table import (
    ABSOLUTE,
    COLOR_LAYOUTS,
    FRACTIONAL,
    FRAME_CHANGE,
    INCREMENTAL,
    LINEAR,
    POSE_SCHEMA,
    POSE_SCHEMA_SHIFT,
    POSE_SCHEMAS,
    POSITIONING,
    RESOLUTIONS,
    SIZED,
    Form,
    UnitKind,
    kind_by_code,
    kind_by_name,
    kind_of_unit,
)
from feagi_wire import const
from feagi_wire import cortical_id as wire
from feagi_wire.const import OK

DEFAULT_RESOLUTION: Final = 8
MAX_STEPS: Final = (1 << 32) - 1  # a voxel's coordinates are u32

_DIMS: Final = ("width", "height", "depth")
_GAMMA: Final = "Gamma"


@dataclass(frozen=True, slots=True)
class DeclaredUnit:
    """One unit of a body. `unit` is its name or 4-letter code, and is kept as the code.

    `resolution`: steps per channel; one number, or one for each that the unit has (direction and
    size of a Gaze, brightness, contrast and difference of DynamicImageProcessing). 8 if not given.
    `dims`: width, height and depth of a channel of pixels or of MiscData and its like, which have
    no resolution; the depth of a plane of pixels is its number of colour channels, 1 to 4.
    `signed` follows from the unit; where it is given it has to agree.

    Raises ConfigError for no such unit, with the nearest name, for numbers out of range and for
    what the unit cannot be.
    """

    unit: str
    group: int = 0
    channels: int = 1
    resolution: int | tuple[int, ...] | None = None
    signed: bool | None = None
    fractional: bool = False
    incremental: bool = False
    dims: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        try:
            kind = kind_of_unit(self.unit)
        except FeagiDataError as error:
            raise ConfigError(str(error)) from None
        if self.signed is not None and self.signed != kind.signed:
            raise ConfigError(
                f"{kind.name} is {'' if kind.signed else 'un'}signed; leave signed away"
            )
        object.__setattr__(self, "unit", kind.code)
        object.__setattr__(self, "signed", kind.signed)
        _number("group", self.group, 0, MAX_UNIT_INDEX)
        _number("channels", self.channels, 1, MAX_CHANNELS)
        if self.fractional and not kind.positioned:
            raise ConfigError(f"{kind.name} has no linear or fractional voxels")
        if self.incremental and kind.form is Form.BOOLEAN:
            raise ConfigError(f"{kind.name} is never incremental")
        self._size(kind)

    def _size(self, kind: UnitKind) -> None:
        count = RESOLUTIONS.get(kind.form)
        if count is not None:
            if self.dims is not None:
                raise ConfigError(f"{kind.name} has a resolution, not dims")
            object.__setattr__(self, "resolution", _steps(kind, self.resolution, count))
            return
        if self.resolution is not None:
            raise ConfigError(f"{kind.name} has no resolution")
        if kind.form in SIZED:
            if self.dims is None or len(self.dims) != len(_DIMS):
                raise ConfigError(f"dims is {self.dims}; {kind.name} needs width, height, depth")
            for name, number in zip(_DIMS, self.dims, strict=True):
                _number(name, number, 1, MAX_STEPS)
            if kind.form is Form.PLANE:
                _number("depth", self.dims[2], 1, len(COLOR_LAYOUTS))
            object.__setattr__(self, "dims", tuple(self.dims))
        elif kind.form is not Form.BOOLEAN:
            raise ConfigError(
                f"{kind.name} needs more than a declared unit says; give the details as JSON, as "
                "FEAGI's own client writes them"
            )
        elif self.dims is not None:
            raise ConfigError(f"{kind.name} has no dims")

    @property
    def kind(self) -> UnitKind:
        """Its line in the table of units."""
        return kind_by_code(self.unit)

    @property
    def cortical_ids(self) -> tuple[CorticalID, ...]:
        """Its areas, in the order of the sub-units."""
        return areas_of_kind(
            self.kind, self.group, incremental=self.incremental, fractional=self.fractional
        )


class UnitAreas(NamedTuple):
    """The cortical areas of an agent's units, each once, in the order of the configuration."""

    sensors: tuple[CorticalID, ...]
    motors: tuple[CorticalID, ...]


def areas_of_kind(
    kind: UnitKind, group: int, *, incremental: bool, fractional: bool, pose_schema: int = 0
) -> tuple[CorticalID, ...]:
    """The areas of one unit, in the order of its sub-units."""
    found = []
    for sub_unit, area in enumerate(kind.areas):
        data_type, flags = area.data_type, 0
        if incremental if area.change is None else area.change == INCREMENTAL:
            flags |= const.INCREMENTAL
            if area.incremental_data_type is not None:
                data_type = area.incremental_data_type
        if fractional and kind.positioned:
            flags |= const.FRACTIONAL
        if data_type == const.BOOLEAN:
            flags = 0
        packed = bytearray(8)
        rc = wire.pack_unit_id(packed, kind.code.encode(), data_type, sub_unit, group, flags)
        if rc != OK:
            raise FeagiDataError(f"{kind.name} of group {group} names no cortical area ({rc})")
        packed[5] |= pose_schema << POSE_SCHEMA_SHIFT
        found.append(CorticalID(packed))
    return tuple(found)


def cortical_ids_of(details: object) -> UnitAreas:
    """The areas that the details of an agent configuration stand for.

    Raises FeagiDataError for details of the wrong shape, for units or kinds of properties that do
    not exist (the engine leaves such a configuration without an answer) and for flags that
    have no meaning (it makes no areas then).
    """
    check_configuration_details(details)
    assert isinstance(details, Mapping)
    sides = []
    for side in (INPUT_UNITS, OUTPUT_UNITS):
        ids: dict[CorticalID, None] = {}
        for name, entries in details[side].items():
            kind = kind_by_name(name, is_sensor=side == INPUT_UNITS)
            for index, (unit, properties) in enumerate(entries):
                try:
                    _form_of(properties)
                    flags = unit["io_configuration_flags"]
                    areas = areas_of_kind(
                        kind,
                        unit["cortical_unit_index"],
                        incremental=_choice(flags, FRAME_CHANGE, (ABSOLUTE, INCREMENTAL)) == 1,
                        fractional=_choice(flags, POSITIONING, (LINEAR, FRACTIONAL)) == 1,
                        pose_schema=_choice(flags, POSE_SCHEMA, POSE_SCHEMAS)
                        if kind.form is Form.POSE
                        else 0,
                    )
                except FeagiDataError as error:
                    raise FeagiDataError(f"{name}[{index}]: {error}") from None
                ids.update(dict.fromkeys(areas))
        sides.append(tuple(ids))
    return UnitAreas(*sides)


# -- units to details -----------------------------------------------------------------------------


def agent_configuration(units: Iterable[DeclaredUnit]) -> dict[str, Any]:
    """The details of an agent configuration with these units, as FEAGI's own client writes them.

    One thing is added: `frame_change_handling` of a DigitalGPIO, without which the engine makes no
    area for it. Raises ConfigError for more units than a configuration may hold, and for two of
    one area.
    """
    sides: dict[str, dict[str, list[Any]]] = {INPUT_UNITS: {}, OUTPUT_UNITS: {}}
    taken: dict[CorticalID, DeclaredUnit] = {}
    for count, unit in enumerate(units, 1):
        if count > MAX_UNITS:
            raise ConfigError(f"more than {MAX_UNITS} units; an agent configuration ends there")
        kind = unit.kind
        for area in unit.cortical_ids:
            if area in taken:
                raise ConfigError(
                    f"two units of {kind.name} in group {unit.group} are one area "
                    f"{bytes(area)!r}; give each a group of its own"
                )
            taken[area] = unit
        side = sides[INPUT_UNITS if kind.is_sensor else OUTPUT_UNITS]
        side.setdefault(kind.name, []).append([_unit_json(unit, kind), _properties(unit, kind)])
    return {"feedbacks": {"registered_feedbacks": []}, **sides}


def _unit_json(unit: DeclaredUnit, kind: UnitKind) -> dict[str, Any]:
    flags = {FRAME_CHANGE: INCREMENTAL if unit.incremental else ABSOLUTE}
    if kind.positioned:
        flags[POSITIONING] = _positioning(unit)
    return {
        "cortical_unit_index": unit.group,
        "device_grouping": [
            {
                "channel_index_override": None,
                "device_properties": {},
                "friendly_name": None,
                "pipeline_stages": [],
            }
            for _ in range(unit.channels)
        ],
        "friendly_name": None,
        "io_configuration_flags": flags,
    }


def _properties(unit: DeclaredUnit, kind: UnitKind) -> Any:
    form = kind.form
    if form is Form.BOOLEAN:
        return form.value
    if unit.dims is not None:
        width, height, depth = unit.dims
        if form is Form.VOLUME:
            return {form.value: {"width": width, "height": height, "depth": depth}}
        return {
            form.value: {
                "image_resolution": {"width": width, "height": height},
                "color_channel_layout": COLOR_LAYOUTS[depth - 1],
                "color_space": _GAMMA,
            }
        }
    steps = unit.resolution
    several = steps if isinstance(steps, tuple) else (steps,) * RESOLUTIONS[form]
    values: list[Any] = [{"value": number} for number in several]
    values.append(_positioning(unit))
    if form is Form.PERCENTAGE:
        values += [kind.signed, f"D{kind.percentages}"]
    return {form.value: values}


def _positioning(unit: DeclaredUnit) -> str:
    return FRACTIONAL if unit.fractional else LINEAR


# -- details to units -----------------------------------------------------------------------------


def declared_units(details: object) -> tuple[DeclaredUnit, ...]:
    """The units of an agent configuration's details, in its order.

    Friendly names and what the agent does with its values on the way are not kept. Raises
    FeagiDataError as `cortical_ids_of` does, and for a unit that a DeclaredUnit cannot tell.
    """
    cortical_ids_of(details)
    assert isinstance(details, Mapping)
    return tuple(
        _declared(kind_by_name(name, is_sensor=side == INPUT_UNITS), entry, f"{name}[{index}]")
        for side in (INPUT_UNITS, OUTPUT_UNITS)
        for name, entries in details[side].items()
        for index, entry in enumerate(entries)
    )


def _declared(kind: UnitKind, entry: list[Any], place: str) -> DeclaredUnit:
    unit, properties = entry
    flags = unit["io_configuration_flags"]
    try:
        form = _form_of(properties)
        if form is not kind.form:
            raise FeagiDataError(
                f"properties are {form.value}; {kind.name} with {kind.form.value} is expected"
            )
        resolution, dims = _sizes(form, None if form is Form.BOOLEAN else properties[form.value])
        return DeclaredUnit(
            kind.code,
            unit["cortical_unit_index"],
            len(unit["device_grouping"]),
            resolution,
            fractional=kind.positioned and _choice(flags, POSITIONING, (LINEAR, FRACTIONAL)) == 1,
            incremental=form is not Form.BOOLEAN
            and _choice(flags, FRAME_CHANGE, (ABSOLUTE, INCREMENTAL)) == 1,
            dims=dims,
        )
    except (FeagiDataError, ConfigError) as error:
        raise FeagiDataError(f"{place}: {error}") from None


def _sizes(form: Form, values: Any) -> tuple[tuple[int, ...] | None, tuple[int, int, int] | None]:
    count = RESOLUTIONS.get(form)
    if count is not None:
        if not isinstance(values, list) or len(values) < count:
            came = f"{len(values)} values" if isinstance(values, list) else kind_of(values)
            raise FeagiDataError(f"{form.value} is {came}; a list with {count} sizes is expected")
        steps = [whole(member(v, "value", int), "value", MAX_STEPS) for v in values[:count]]
        return tuple(steps), None
    if form is Form.VOLUME:
        width, height, depth = (whole(member(values, n, int), n, MAX_STEPS) for n in _DIMS)
        return None, (width, height, depth)
    if form is Form.PLANE:
        size = member(values, "image_resolution", dict)
        width, height = (whole(member(size, n, int), n, MAX_STEPS) for n in _DIMS[:2])
        return None, (width, height, 1 + _choice(values, "color_channel_layout", COLOR_LAYOUTS))
    return None, None


# -- small checks ---------------------------------------------------------------------------------


def _form_of(properties: Any) -> Form:
    name = properties if isinstance(properties, str) else next(iter(properties))
    try:
        form = Form(name)
    except ValueError:
        form = None
    # only one kind of properties is a bare name
    if form is None or isinstance(properties, str) != (form is Form.BOOLEAN):
        raise FeagiDataError(
            f"no properties {str(name)[:64]!r}; there are {', '.join(f.value for f in Form)}"
        )
    return form


def _choice(values: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> int:
    """Which of the choices it is; the first where the key is missing."""
    value = values.get(key, choices[0])
    if value not in choices:
        came = repr(value[:64]) if isinstance(value, str) else kind_of(value)
        raise FeagiDataError(f"{key} is {came}; {', '.join(choices)} are known")
    return choices.index(value)


def _steps(
    kind: UnitKind, given: int | tuple[int, ...] | None, count: int
) -> int | tuple[int, ...]:
    """As one number where all are the same, so that equal units compare equal."""
    steps = DEFAULT_RESOLUTION if given is None else given
    several = tuple(steps) if isinstance(steps, (tuple, list)) else (steps,) * count
    if len(several) != count:
        raise ConfigError(f"{kind.name} has {count} resolutions, not {len(several)}")
    for number in several:
        _number("resolution", number, 1, MAX_STEPS)
    return several[0] if len(set(several)) == 1 else several


def _number(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{name} is {value!r}; a whole number from {low} to {high} is needed")
