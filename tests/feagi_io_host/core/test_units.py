# SPDX-License-Identifier: Apache-2.0
"""Units, agent configurations and cortical ids, against the vectors and the real library."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from feagi_io_host.core.agent_configuration import INPUT_UNITS, OUTPUT_UNITS
from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.unit_table import UNIT_TABLE, kind_by_code, kind_by_name, kind_of_unit
from feagi_io_host.core.units import (
    DeclaredUnit,
    agent_configuration,
    cortical_ids_of,
    declared_units,
)

HERE = Path(__file__).parent
DEVICES: dict[str, Any] = {
    name: device
    for name, device in json.loads(
        (HERE.parents[1] / "vectors" / "device_registrations.json").read_text(encoding="utf-8")
    ).items()
    if not name.startswith("_")
}
INFRARED = "sensor_Infrared_register group=0 absolute linear"
WORKER_TIMEOUT_S = 60


def details_of(name: str = INFRARED) -> dict[str, Any]:
    found: dict[str, Any] = copy.deepcopy(DEVICES[name]["registration"])
    return found


def ids_of(details: object) -> set[str]:
    areas = cortical_ids_of(details)
    return {bytes(area).hex() for area in (*areas.sensors, *areas.motors)}


@pytest.mark.parametrize("name", DEVICES)
def test_areas_of_the_vectors(name: str) -> None:
    device = DEVICES[name]
    assert ids_of(device["registration"]) == set(device["cortical_ids_hex"])
    areas = cortical_ids_of(device["registration"])
    assert bool(areas.sensors) == bool(device["registration"][INPUT_UNITS])
    assert bool(areas.motors) == bool(device["registration"][OUTPUT_UNITS])


@pytest.mark.parametrize("name", DEVICES)
def test_vectors_there_and_back(name: str) -> None:
    details = details_of(name)
    (unit,) = declared_units(details)
    assert {bytes(area).hex() for area in unit.cortical_ids} == ids_of(details)
    if unit.unit == "idgp":
        # the one thing that is added, for the engine's sake
        flags = details[INPUT_UNITS]["DigitalGPIO"][0][0]["io_configuration_flags"]
        flags["frame_change_handling"] = "Absolute"
    assert agent_configuration([unit]) == details
    assert declared_units(agent_configuration([unit])) == (unit,)


def test_a_vector_in_plain_words() -> None:
    (unit,) = declared_units(details_of("motor_gaze_register group=3 incremental fractional"))
    assert unit == DeclaredUnit(
        "Gaze", group=3, channels=2, resolution=8, incremental=True, fractional=True
    )
    assert unit.cortical_ids == (b"ogaz\x02\x03\x03\x00", b"ogaz\x11\x03\x03\x00")


@pytest.mark.oracle
def test_the_real_library_derives_the_same_areas(
    require: Callable[[str], ModuleType | str],
) -> None:
    require("feagi_rust_py_libs")
    ran = subprocess.run(
        [sys.executable, str(HERE / "units_worker.py")],
        capture_output=True,
        text=True,
        timeout=WORKER_TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    registrations = json.loads(ran.stdout)
    seen = set()
    told = set()
    for registration in registrations:
        details = registration["details"]
        assert ids_of(details) == set(registration["ids"]), registration["unit"]
        for side in (INPUT_UNITS, OUTPUT_UNITS):
            seen |= {kind_by_name(n, is_sensor=side == INPUT_UNITS).code for n in details[side]}
        try:
            (unit,) = declared_units(details)
        except FeagiDataError:
            continue
        told.add(unit.unit)
        again = agent_configuration([unit])
        if unit.unit != "idgp":
            assert again == details
    assert seen == {kind.code for kind in UNIT_TABLE}
    assert seen - told == {"isvi", "iaud", "oaud", "opos", "oang", "optr"}


def test_several_units_in_one_configuration() -> None:
    units = [
        DeclaredUnit("Infrared", channels=2),
        DeclaredUnit("iinf", group=1, resolution=16),
        DeclaredUnit("DigitalGPIO", channels=3),
        DeclaredUnit("omis", dims=(4, 3, 2)),
        DeclaredUnit("Vision", dims=(32, 24, 3)),
        DeclaredUnit("Gaze", resolution=(16, 4)),
    ]
    details = agent_configuration(units)
    AgentConfiguration(details)
    assert sorted(map(repr, declared_units(details))) == sorted(map(repr, units))
    areas = cortical_ids_of(details)
    assert areas.sensors == (
        b"iinf\x01\x00\x00\x00",
        b"iinf\x01\x00\x01\x00",
        b"idgp\x00\x00\x00\x00",
        b"iimg\x09\x00\x00\x00",
    )
    assert areas.motors == (
        b"omis\x0a\x00\x00\x00",
        b"ogaz\x02\x00\x00\x00",
        b"ogaz\x11\x00\x00\x00",
    )
    flags = details[INPUT_UNITS]["DigitalGPIO"][0][0]["io_configuration_flags"]
    assert flags == {"frame_change_handling": "Absolute"}


def test_no_unit_is_a_configuration_too() -> None:
    assert cortical_ids_of(agent_configuration([])) == ((), ())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"unit": "Infrarot"}, "did you mean 'Infrared'"),
        ({"unit": "infrared"}, "did you mean 'Infrared'"),
        ({"unit": "omut"}, "did you mean 'omot'"),
        ({"unit": "q"}, "there are "),
        ({"unit": "MiscData", "dims": (1, 1, 1)}, "'imis' or 'omis'"),
        ({"unit": "iinf", "group": 65536}, "group is 65536"),
        ({"unit": "iinf", "group": True}, "group is True"),
        ({"unit": "iinf", "channels": 0}, "channels is 0"),
        ({"unit": "iinf", "resolution": 0}, "resolution is 0"),
        ({"unit": "iinf", "resolution": (8, 8)}, "1 resolutions, not 2"),
        ({"unit": "Gaze", "resolution": (8, 8, 8)}, "2 resolutions, not 3"),
        ({"unit": "iinf", "signed": True}, "Infrared is unsigned"),
        ({"unit": "omot", "signed": False}, "RotaryMotor is signed"),
        ({"unit": "iinf", "dims": (1, 1, 8)}, "a resolution, not dims"),
        ({"unit": "imis"}, "needs width, height, depth"),
        ({"unit": "imis", "dims": (1, 2)}, "needs width, height, depth"),
        ({"unit": "imis", "dims": (4, 0, 2)}, "height is 0"),
        ({"unit": "imis", "dims": (4, 3, 2), "resolution": 8}, "no resolution"),
        ({"unit": "imis", "dims": (4, 3, 2), "fractional": True}, "linear or fractional"),
        ({"unit": "iimg", "dims": (4, 3, 5)}, "depth is 5; a whole number from 1 to 4"),
        ({"unit": "idgp", "fractional": True}, "linear or fractional"),
        ({"unit": "idgp", "incremental": True}, "never incremental"),
        ({"unit": "idgp", "dims": (1, 1, 1)}, "no dims"),
        ({"unit": "SegmentedVision"}, "give the details as JSON"),
        ({"unit": "AudioInput"}, "give the details as JSON"),
    ],
)
def test_units_that_cannot_be(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DeclaredUnit(**arguments)
    assert what in str(caught.value)


def test_one_area_twice() -> None:
    with pytest.raises(ConfigError, match="group 2 are one area"):
        agent_configuration([DeclaredUnit("iinf", 2), DeclaredUnit("Infrared", 2, channels=3)])
    # another area: fractional ones have an id of their own
    agent_configuration([DeclaredUnit("iinf", 2), DeclaredUnit("iinf", 2, fractional=True)])


def test_too_many_units() -> None:
    agent_configuration(DeclaredUnit("iinf", group) for group in range(1024))
    with pytest.raises(ConfigError, match="more than 1024 units"):
        agent_configuration(DeclaredUnit("iinf", group) for group in range(1025))


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets a value deep in the details of an infrared sensor; "" is the pair itself."""

    def apply(details: dict[str, Any]) -> None:
        target: Any = details[INPUT_UNITS]["Infrared"][0]
        keys: list[Any] = [int(k) if k.isdigit() else k for k in path.split(".")]
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return apply


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda d: d.pop("feedbacks"), "feedbacks is missing"),
        (lambda d: d[INPUT_UNITS].update(Infrarot=[]), "no input unit 'Infrarot'; did you mean"),
        (lambda d: d[INPUT_UNITS].update(RotaryMotor=[]), "'RotaryMotor'; it is an output"),
        (lambda d: d[OUTPUT_UNITS].update(Infrared=[]), "no output unit 'Infrared'; it is an"),
        (change("0.cortical_unit_index", 65536), "cortical_unit_index is 65536"),
        (change("1", {"Foo": []}), "Infrared[0]: no properties 'Foo'"),
        (change("1", "Percentage"), "Infrared[0]: no properties 'Percentage'"),
        (change("1", {"Boolean": []}), "Infrared[0]: no properties 'Boolean'"),
        (change("0.io_configuration_flags.frame_change_handling", "Maybe"), "is 'Maybe'; Absolute"),
        (change("0.io_configuration_flags.frame_change_handling", []), "is a list; Absolute"),
        (change("0.io_configuration_flags.percentage_neuron_positioning", 1), "is a number"),
    ],
)
def test_details_that_name_no_areas(spoil: Callable[[dict[str, Any]], object], what: str) -> None:
    details = details_of()
    spoil(details)
    for read in (cortical_ids_of, declared_units):
        with pytest.raises(FeagiDataError) as caught:
            read(details)
        assert what in str(caught.value)


@pytest.mark.parametrize(
    ("properties", "what"),
    [
        ({"MiscData": {"width": 4, "height": 3, "depth": 2}}, "Infrared with Percentage is exp"),
        ({"Percentage": []}, "Percentage is 0 values; a list with 1 sizes"),
        ({"Percentage": {}}, "Percentage is an object"),
        ({"Percentage": [8]}, "a number where an object with value"),
        ({"Percentage": [{"value": -1}]}, "value is -1"),
        ({"Percentage": [{"value": 0}]}, "resolution is 0"),
        ({"Percentage": [{"value": 1 << 32}]}, "value is 4294967296"),
    ],
)
def test_properties_that_tell_no_unit(properties: Any, what: str) -> None:
    details = details_of()
    change("1", properties)(details)
    with pytest.raises(FeagiDataError) as caught:
        declared_units(details)
    assert str(caught.value).startswith("Infrared[0]: ")
    assert what in str(caught.value)
    # the areas do not depend on them
    assert cortical_ids_of(details).sensors == (b"iinf\x01\x00\x00\x00",)


def test_missing_flags_are_absolute_and_linear() -> None:
    details = details_of("motor_rotary_motor_register group=3 incremental fractional")
    details[OUTPUT_UNITS]["RotaryMotor"][0][0]["io_configuration_flags"] = {}
    assert cortical_ids_of(details).motors == (b"omot\x05\x00\x03\x00",)


def test_table() -> None:
    assert len({kind.code for kind in UNIT_TABLE}) == len(UNIT_TABLE) == 31
    for kind in UNIT_TABLE:
        assert kind_by_code(kind.code) is kind
        assert kind_of_unit(kind.code) is kind
        assert kind_by_name(kind.name, is_sensor=kind.is_sensor) is kind
    with pytest.raises(FeagiDataError, match="did you mean 'iinf'"):
        kind_by_code("iinv")


def test_ids_are_cortical_ids() -> None:
    (area,) = DeclaredUnit("omot", 258).cortical_ids
    assert area == CorticalID(b"omot\x05\x00\x02\x01")
    assert area.is_output
