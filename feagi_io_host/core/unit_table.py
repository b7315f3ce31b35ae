# SPDX-License-Identifier: Apache-2.0
"""Every unit that FEAGI knows: its name, its areas, and how its properties are written.

    id of an area   code | data type + 16 * sub-unit | flags | group u16

The sub-unit is the place in `UnitKind.areas`. Two data types break the pattern of the flags: a
Boolean has none, and a PoseEstimation has its schema in bits 2 to 4 beside them. Some areas are
absolute or incremental whatever the unit is, and one is of another data type when it is
incremental.

Taken from the registrations that feagi-rust-py-libs 0.0.120 writes and the ids it derives from
them; the engine of feagi-core 2.6.10 makes the same areas.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from feagi_io_host.core.errors import FeagiDataError
from feagi_wire import const

FRAME_CHANGE: Final = "frame_change_handling"
POSITIONING: Final = "percentage_neuron_positioning"
POSE_SCHEMA: Final = "pose_schema"

ABSOLUTE: Final = "Absolute"
INCREMENTAL: Final = "Incremental"
LINEAR: Final = "Linear"
FRACTIONAL: Final = "Fractional"

# In the order of their numbers in the flags of a cortical id.
POSE_SCHEMAS: Final = (
    "HumanBody", "HumanHand", "HumanFace", "Quadruped", "Avian", "Arthropod", "Object6DoF",
    "Custom",
)  # fmt: skip
POSE_SCHEMA_SHIFT: Final = 2

# Of a CartesianPlane, by the number of its colour channels.
COLOR_LAYOUTS: Final = ("GrayScale", "RG", "RGB", "RGBA")


class Form(enum.Enum):
    """How the properties of a unit are written; the value is their name in the JSON."""

    PERCENTAGE = "Percentage"
    """[{"value": resolution}, positioning, signed, "D1" to "D4"]"""
    GAZE = "GazeProperties"
    """[{"value": of the direction}, {"value": of the size}, positioning]"""
    FILTER = "ImageFilteringSettings"
    """[{"value": ...} for brightness, contrast and difference, positioning]"""
    SERVO = "PositionalServo"
    """[{"value": resolution}, positioning]"""
    VOLUME = "MiscData"
    """{"width", "height", "depth"}"""
    PLANE = "CartesianPlane"
    """{"image_resolution": {"width", "height"}, "color_channel_layout", "color_space"}"""
    BOOLEAN = "Boolean"
    """no properties; the name stands alone"""
    SERVO_SPEED = "PositionalServoTargetSpeed"
    SEGMENTED = "SegmentedImageFrame"
    AUDIO = "AudioSpectrum"
    POSE = "PoseEstimation"
    ANGULAR = "AngularPointer"
    SPATIAL = "SpatialPointer"


# Values that a channel has, by the data type of its area; one where nothing else is said.
AXES: Final[Mapping[int, int]] = MappingProxyType(
    {
        const.PERCENTAGE_2D: 2, const.PERCENTAGE_3D: 3, const.PERCENTAGE_4D: 4,
        const.SIGNED_PERCENTAGE_2D: 2, const.SIGNED_PERCENTAGE_3D: 3,
        const.SIGNED_PERCENTAGE_4D: 4,
    }
)  # fmt: skip
# How many resolutions a form holds; the others are sized by their dimensions, or by more.
RESOLUTIONS: Final[Mapping[Form, int]] = MappingProxyType(
    {Form.PERCENTAGE: 1, Form.SERVO: 1, Form.GAZE: 2, Form.FILTER: 3}
)
# Forms of width, height and depth.
SIZED: Final = frozenset({Form.VOLUME, Form.PLANE})


@dataclass(frozen=True, slots=True)
class UnitArea:
    """One of the areas of a unit; `change` is None where the unit's own setting decides.

    `incremental_data_type` is the data type of the incremental kind, where it is another one.
    """

    data_type: int
    change: str | None = None
    incremental_data_type: int | None = None


@dataclass(frozen=True, slots=True)
class UnitKind:
    """A kind of unit. `code` are the first four bytes of its cortical ids."""

    name: str
    code: str
    form: Form
    areas: tuple[UnitArea, ...]
    signed: bool = False
    percentages: int = 1
    """Numbers a channel consists of: 1 to 4, "D1" to "D4" in the properties."""

    @property
    def is_sensor(self) -> bool:
        """Whether it is an input of the brain."""
        return self.code[0] == "i"

    @property
    def positioned(self) -> bool:
        """Whether its voxels can be linear or fractional."""
        return self.form in RESOLUTIONS or self.form in (
            Form.SERVO_SPEED, Form.ANGULAR, Form.SPATIAL
        )  # fmt: skip


_ONE: Final = UnitArea(const.PERCENTAGE)
_VOLUME: Final = UnitArea(const.MISC)
_PLANE: Final = UnitArea(const.CARTESIAN_PLANE)
_MOTION: Final = UnitArea(const.SIGNED_PERCENTAGE_3D)

UNIT_TABLE: Final = (
    UnitKind("Infrared", "iinf", Form.PERCENTAGE, (_ONE,)),
    UnitKind("Proximity", "ipro", Form.PERCENTAGE, (_ONE,)),
    UnitKind("Shock", "ishk", Form.PERCENTAGE, (_ONE,)),
    UnitKind("Battery", "ibat", Form.PERCENTAGE, (_ONE,)),
    UnitKind("Servo", "isvm", Form.PERCENTAGE, (_ONE,)),
    UnitKind("AnalogGPIO", "iagp", Form.PERCENTAGE, (_ONE,)),
    UnitKind("CountInput", "icnt", Form.PERCENTAGE, (_ONE,)),
    UnitKind("DigitalGPIO", "idgp", Form.BOOLEAN, (UnitArea(const.BOOLEAN),)),
    UnitKind(
        "CartesianPosition",
        "icpo",
        Form.PERCENTAGE,
        (UnitArea(const.PERCENTAGE_3D),),
        percentages=3,
    ),
    # accelerometer, gyroscope, magnetometer
    UnitKind("RawIMU", "irim", Form.PERCENTAGE, (_MOTION,) * 3, signed=True, percentages=3),
    UnitKind(
        "SmartIMU",
        "isim",
        Form.PERCENTAGE,
        (UnitArea(const.SIGNED_PERCENTAGE_4D),),
        signed=True,
        percentages=4,
    ),
    UnitKind("MiscData", "imis", Form.VOLUME, (_VOLUME,)),
    UnitKind("DepthMap", "idpt", Form.VOLUME, (_VOLUME,)),
    UnitKind("ObjectSegmentationInput", "iseg", Form.VOLUME, (_VOLUME,)),
    UnitKind("TextEnglishInput", "iten", Form.VOLUME, (_VOLUME,)),
    UnitKind("Vision", "iimg", Form.PLANE, (_PLANE,)),
    UnitKind("SegmentedVision", "isvi", Form.SEGMENTED, (_PLANE,) * 9),
    UnitKind("AudioInput", "iaud", Form.AUDIO, (_VOLUME,)),
    UnitKind(
        "RotaryMotor", "omot", Form.PERCENTAGE, (UnitArea(const.SIGNED_PERCENTAGE),), signed=True
    ),
    UnitKind("CountOutput", "ocnt", Form.PERCENTAGE, (_ONE,)),
    # where to, how far from here, how quickly
    UnitKind(
        "PositionalServo",
        "opse",
        Form.SERVO,
        (
            UnitArea(const.PERCENTAGE, ABSOLUTE),
            UnitArea(const.PERCENTAGE, INCREMENTAL),
            UnitArea(const.PERCENTAGE, ABSOLUTE),
        ),
    ),
    # direction, size
    UnitKind("Gaze", "ogaz", Form.GAZE, (UnitArea(const.PERCENTAGE_2D), _ONE)),
    UnitKind("DynamicImageProcessing", "oifs", Form.FILTER, (_ONE,)),
    UnitKind("MiscData", "omis", Form.VOLUME, (_VOLUME,)),
    UnitKind("ObjectSegmentation", "oseg", Form.VOLUME, (_VOLUME,)),
    UnitKind("TextEnglishOutput", "oten", Form.VOLUME, (_VOLUME,)),
    UnitKind("SimpleVisionOutput", "oimg", Form.PLANE, (_PLANE,)),
    UnitKind("AudioOutput", "oaud", Form.AUDIO, (_VOLUME,)),
    UnitKind("PoseEstimation", "opos", Form.POSE, (UnitArea(const.POSE_ESTIMATION),)),
    UnitKind("AngularPointer", "oang", Form.ANGULAR, (_MOTION,)),
    UnitKind(
        "SpatialPointer",
        "optr",
        Form.SPATIAL,
        (UnitArea(const.PERCENTAGE_3D, incremental_data_type=const.SIGNED_PERCENTAGE_3D),),
    ),
)

_BY_CODE: Final[Mapping[str, UnitKind]] = {kind.code: kind for kind in UNIT_TABLE}
_SENSORS: Final[Mapping[str, UnitKind]] = {kind.name: kind for kind in UNIT_TABLE if kind.is_sensor}
_MOTORS: Final[Mapping[str, UnitKind]] = {
    kind.name: kind for kind in UNIT_TABLE if not kind.is_sensor
}


def kind_by_name(name: str, *, is_sensor: bool) -> UnitKind:
    """The unit of that name among the inputs or the outputs of an agent configuration.

    Raises FeagiDataError, with the nearest name, when there is none.
    """
    kinds, others = (_SENSORS, _MOTORS) if is_sensor else (_MOTORS, _SENSORS)
    found = kinds.get(name)
    if found is None:
        side, other = ("input", "output") if is_sensor else ("output", "input")
        hint = f"it is an {other}" if name in others else _nearest(name, kinds)
        raise FeagiDataError(f"no {side} unit {name[:64]!r}; {hint}")
    return found


def kind_by_code(code: str) -> UnitKind:
    """The unit with a code of 4 letters; FeagiDataError, with the nearest code, when none has."""
    found = _BY_CODE.get(code)
    if found is None:
        raise FeagiDataError(f"no unit has the code {code[:16]!r}; {_nearest(code, _BY_CODE)}")
    return found


def kind_of_unit(unit: str) -> UnitKind:
    """The unit with this name or code.

    Raises FeagiDataError, with the nearest, when there is none, and for a name that an input and
    an output share.
    """
    sensor, motor = _SENSORS.get(unit), _MOTORS.get(unit)
    if sensor is not None and motor is not None:
        raise FeagiDataError(
            f"unit {unit!r} is an input and an output; say {sensor.code!r} or {motor.code!r}"
        )
    found = _BY_CODE.get(unit) or sensor or motor
    if found is None:
        raise FeagiDataError(
            f"no unit {unit[:64]!r}; {_nearest(unit, [*_SENSORS, *_MOTORS, *_BY_CODE])}"
        )
    return found


def _nearest(name: str, names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    # Compared without regard to case: a hint is of most use where only that is wrong.
    spelled = {text.lower(): text for text in known}
    close = difflib.get_close_matches(name.lower()[:64], spelled, 1, 0.5)
    if close:
        return f"did you mean {spelled[close[0]]!r}?"
    return f"there are {', '.join(known)}"
