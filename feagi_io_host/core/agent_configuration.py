# SPDX-License-Identifier: Apache-2.0
"""The shape of an agent configuration: which units an agent senses and moves with.

    {"feedbacks": {"registered_feedbacks": []},
     "input_units_and_encoder_properties": {"Infrared": [[unit, properties], ...]},
     "output_units_and_decoder_properties": {"RotaryMotor": [...]}}

    unit        {"cortical_unit_index": 0, "friendly_name": null,
                 "device_grouping": [one object per channel],
                 "io_configuration_flags": {...}}
    properties  one choice, such as {"Percentage": [{"value": 8}, "Linear", false, "D1"]}

The engine ignores a configuration that lacks a key or names a unit it does not know. Here only the
shape is checked; `core.units` knows the units.
"""

from __future__ import annotations

from typing import Final

from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.json_shape import kind_of, member, whole

INPUT_UNITS: Final = "input_units_and_encoder_properties"
OUTPUT_UNITS: Final = "output_units_and_decoder_properties"

# More than any body has; what makes a configuration cost time is bounded before it is used.
MAX_UNITS: Final = 1024
MAX_CHANNELS: Final = 16384  # of one unit
MAX_UNIT_NAME_CHARS: Final = 64
MAX_UNIT_INDEX: Final = 65535  # the group of a cortical id

_PAIR: Final = 2


def check_configuration_details(details: object) -> None:
    """Raise FeagiDataError, naming the place, when `details` has not the shape above."""
    feedbacks = member(details, "feedbacks", dict)
    member(feedbacks, "registered_feedbacks", list)
    units = 0
    for side in (INPUT_UNITS, OUTPUT_UNITS):
        for name, entries in member(details, side, dict).items():
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_UNIT_NAME_CHARS:
                raise FeagiDataError(
                    f"{side}: unit name {str(name)[:40]!r} has {len(str(name))} characters; "
                    f"1 to {MAX_UNIT_NAME_CHARS} are expected"
                )
            if not isinstance(entries, list):
                raise FeagiDataError(f"{name} is {kind_of(entries)}; a list of units is expected")
            units += len(entries)
            if units > MAX_UNITS:
                raise FeagiDataError(f"more than {MAX_UNITS} units in one agent configuration")
            for index, entry in enumerate(entries):
                _check_unit(entry, f"{name}[{index}]")


def _check_unit(entry: object, place: str) -> None:
    if not isinstance(entry, list) or len(entry) != _PAIR:
        came = f"a list of {len(entry)}" if isinstance(entry, list) else kind_of(entry)
        raise FeagiDataError(f"{place} is {came}; a pair of unit and properties is expected")
    unit, properties = entry
    try:
        whole(member(unit, "cortical_unit_index", int), "cortical_unit_index", MAX_UNIT_INDEX)
        channels = member(unit, "device_grouping", list)
        member(unit, "io_configuration_flags", dict)
    except FeagiDataError as error:
        raise FeagiDataError(f"{place}: {error}") from None
    if len(channels) > MAX_CHANNELS or not all(isinstance(channel, dict) for channel in channels):
        raise FeagiDataError(
            f"{place}: device_grouping has {len(channels)} entries; at most {MAX_CHANNELS} "
            "objects are expected"
        )
    if not isinstance(properties, str) and not (
        isinstance(properties, dict) and len(properties) == 1
    ):
        raise FeagiDataError(
            f"{place}: properties are {kind_of(properties)}; a name or an object with one key is "
            "expected"
        )
