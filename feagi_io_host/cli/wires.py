# SPDX-License-Identifier: Apache-2.0
"""The reflexes of `feagi-io serve`: from what agents say of their units, or from --wire.

    iinf/2/8:omot/2/8      two infrared channels of eight steps drive two motors of eight steps
    iinf3/2/8:omot1/2/8    the same for the units of group 3 and group 1

A sensor's channel drives the motor's channel of the same number; a sensor of one channel drives
them all. Unsigned sensors drive from rest to full ahead, signed ones from full astern to full
ahead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import numpy as np

from feagi_io_host.burst.wiring import Reflex, linear_weights
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.unit_table import Form
from feagi_io_host.core.units import DeclaredUnit

# What one arc may weigh, 4 MB, and how many there may be. An agent says its units without proof.
MAX_WEIGHTS: Final = 1 << 20
MAX_ARCS: Final = 64

_END: Final = re.compile(r"([A-Za-z]+)([0-9]{0,5})/([0-9]{1,6})/([0-9]{1,6})")


def parse_wire(text: str) -> Reflex:
    """The reflex of one --wire. Raises ConfigError saying what is wrong with which end."""
    ends = text.split(":")
    if len(ends) != 2:
        raise ConfigError(f"wire {text!r}: SENSOR:MOTOR is needed, as in iinf/2/8:omot/2/8")
    sensor, motor = (_end(text, end) for end in ends)
    for unit, needed, fits in (
        (sensor, "a sensor of one linear percentage", _can_sense(sensor)),
        (motor, "a motor of one signed linear percentage", _can_move(motor)),
    ):
        if not fits:
            raise ConfigError(f"wire {text!r}: {unit.kind.name} is not {needed}")
    return reflex_between(sensor, motor)


def _end(wire: str, text: str) -> DeclaredUnit:
    match = _END.fullmatch(text)
    if match is None:
        raise ConfigError(
            f"wire {wire!r}: {text!r} is not UNIT/CHANNELS/STEPS, as in iinf/2/8, with the "
            "number of the group behind the unit if it is not 0"
        )
    try:
        return DeclaredUnit(match[1], int(match[2] or 0), int(match[3]), int(match[4]))
    except ConfigError as error:
        raise ConfigError(f"wire {wire!r}: {error}") from None


def reflexes_between(units: Iterable[DeclaredUnit]) -> tuple[Reflex, ...]:
    """An arc from each sensor among `units` to each motor, as far as they can be wired.

    Several sensors share a motor out among themselves. Raises ConfigError for more than MAX_ARCS.
    """
    units = tuple(units)
    sensors = [unit for unit in units if _can_sense(unit)]
    motors = [unit for unit in units if _can_move(unit)]
    if len(sensors) * len(motors) > MAX_ARCS:
        raise ConfigError(
            f"{len(sensors)} sensors and {len(motors)} motors make {len(sensors) * len(motors)} "
            f"arcs; at most {MAX_ARCS} are wired: name those that matter by --wire"
        )
    gain = 1.0 / max(len(sensors), 1)
    return tuple(reflex_between(sensor, motor, gain) for sensor in sensors for motor in motors)


def reflex_between(sensor: DeclaredUnit, motor: DeclaredUnit, gain: float = 1.0) -> Reflex:
    """One arc; weights of shape (sensor channels, sensor steps, motor channels), float32.

    Raises ConfigError for more than MAX_WEIGHTS of them and for a motor of one step.
    """
    steps, targets = _steps(sensor), motor.channels
    count = sensor.channels * steps * targets
    if count > MAX_WEIGHTS:
        raise ConfigError(
            f"{sensor.channels} channels of {steps} steps to {targets} channels are {count} "
            f"weights; at most {MAX_WEIGHTS} are possible"
        )
    along_z = linear_weights(gain, steps, -1.0 if sensor.signed else 0.0, 1.0)
    weights = np.zeros((sensor.channels, steps, targets), np.float32)
    for target in range(targets):
        channel = 0 if sensor.channels == 1 else target
        if channel < sensor.channels:
            weights[channel, :, target] = along_z
    return Reflex(sensor.cortical_ids[0], motor.cortical_ids[0], weights, _steps(motor))


def _steps(unit: DeclaredUnit) -> int:
    resolution = unit.resolution
    return resolution if isinstance(resolution, int) else 0


def _is_plain(unit: DeclaredUnit) -> bool:
    """One absolute linear number per channel, in one area."""
    kind = unit.kind
    one_number = kind.form is Form.PERCENTAGE and kind.percentages == len(kind.areas) == 1
    return one_number and not unit.fractional and not unit.incremental


def _can_sense(unit: DeclaredUnit) -> bool:
    return unit.kind.is_sensor and _is_plain(unit)


def _can_move(unit: DeclaredUnit) -> bool:
    return not unit.kind.is_sensor and _is_plain(unit) and unit.kind.signed and _steps(unit) > 1
