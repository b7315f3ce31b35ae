# SPDX-License-Identifier: Apache-2.0
"""Streams, cortical ids, agent descriptors."""

from __future__ import annotations

import json
import pickle

import pytest

from feagi_io_host.core.errors import CorticalIDError, FeagiDataError
from feagi_io_host.core.types import (
    AgentDescriptor,
    CorticalID,
    FeagiByteStructureType,
    StreamType,
)
from tests.feagi_io_host.core.golden import VECTORS

INFRARED = b"iinf\x01\x00\x00\x00"


def test_stream_numbers_on_the_wire() -> None:
    assert {stream.name: stream.wire for stream in StreamType} == {
        "CONTROL": 0,
        "SENSORY": 1,
        "MOTOR": 2,
        "VISUALIZATION": 3,
    }
    assert all(StreamType.try_from_wire(stream.wire) is stream for stream in StreamType)
    with pytest.raises(FeagiDataError, match="number 4"):
        StreamType.try_from_wire(4)


def test_struct_types() -> None:
    assert [(kind.name, int(kind)) for kind in FeagiByteStructureType] == [
        ("JSON", 1),
        ("NEURON_CATEGORICAL_XYZP", 11),
    ]


def test_id_forms_of_the_real_library() -> None:
    one = CorticalID.try_from_bytes(INFRARED)
    assert one.as_base_64() == str(one) == "aWluZgEAAAA="
    assert one.as_u64() == 0x69696E6601000000
    assert one.as_bytes() == INFRARED
    assert type(one.as_bytes()) is bytes
    assert CorticalID.try_from_base_64("aWluZgEAAAA=") == one
    assert CorticalID.try_from_u64(0x69696E6601000000) == one
    assert CorticalID.try_from_bytes(memoryview(bytearray(INFRARED))) == one
    assert repr(one) == "CorticalID(b'iinf\\x01\\x00\\x00\\x00')"


def test_id_is_a_key_and_has_an_order() -> None:
    low, high = CorticalID(b"cfoo____"), CorticalID(INFRARED)
    assert sorted([high, low]) == [low, high]
    assert {high: 1}[CorticalID(INFRARED)] == 1
    assert {high: 1}[INFRARED] == 1  # type: ignore[index]  # equal to the plain bytes
    assert pickle.loads(pickle.dumps(high)) == high
    assert type(pickle.loads(pickle.dumps(high))) is CorticalID
    with pytest.raises(AttributeError):
        high.name = "x"  # type: ignore[attr-defined]


def test_id_direction() -> None:
    assert CorticalID(INFRARED).is_input
    assert not CorticalID(INFRARED).is_output
    motor = CorticalID(b"omot\x05\x00\x00\x00")
    assert motor.is_output
    assert not motor.is_input


@pytest.mark.parametrize("first", b"_cmiog")
def test_id_kinds_accepted(first: int) -> None:
    assert CorticalID(bytes([first]) + b"\xff" * 7)[0] == first


@pytest.mark.parametrize("first", sorted(set(range(256)) - set(b"_cmiog")))
def test_id_kinds_refused(first: int) -> None:
    with pytest.raises(CorticalIDError, match=f"byte {first};"):
        CorticalID(bytes([first]) + b"inf\x01\x00\x00\x00")


@pytest.mark.parametrize("size", [0, 7, 9])
def test_id_of_another_length(size: int) -> None:
    with pytest.raises(CorticalIDError, match=f"these are {size}"):
        CorticalID.try_from_bytes(b"i" * size)


@pytest.mark.parametrize("wrong", [8, "iinf____", [105] * 8, None])
def test_id_of_no_bytes(wrong: object) -> None:
    with pytest.raises(CorticalIDError, match="made of 8 bytes"):
        CorticalID(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "aWluZgEAAAA",
        "aWlu ZgEAAAA=",
        "",
        "!!!!",
        "aWluZgEAAAB=",
        "AAAAAAAAAAA=",
        "ä",
        "aWluZgEAAAA=\n",
    ],
)
def test_base64_refused(text: str) -> None:
    with pytest.raises(CorticalIDError):
        CorticalID.try_from_base_64(text)


@pytest.mark.parametrize("number", [-1, 0, 1 << 64])
def test_u64_refused(number: int) -> None:
    with pytest.raises(CorticalIDError):
        CorticalID.try_from_u64(number)


def test_every_id_of_the_real_device_list() -> None:
    devices = json.loads((VECTORS / "device_registrations.json").read_text(encoding="utf-8"))
    names = [
        name
        for device in devices.values()
        if isinstance(device, dict)
        for name in device.get("cortical_ids_hex", [])
    ]
    assert len(names) > 50
    for name in names:
        one = CorticalID(bytes.fromhex(name))
        assert one.is_input != one.is_output
        assert CorticalID.try_from_base_64(one.as_base_64()) == one


def test_descriptor_forms() -> None:
    one = AgentDescriptor("acme", "rover", 7)
    assert one.as_json() == {"manufacturer": "acme", "agent_name": "rover", "agent_version": 7}
    assert AgentDescriptor.try_from_json(one.as_json()) == one
    assert len({one, AgentDescriptor("acme", "rover", 7)}) == 1
    AgentDescriptor("m" * 128, "n" * 64, (1 << 32) - 1)


@pytest.mark.parametrize(
    ("manufacturer", "name", "version"),
    [
        ("", "rover", 1),
        ("acme", "", 1),
        ("m" * 129, "rover", 1),
        ("acme", "n" * 65, 1),
        ("äcme", "rover", 1),
        ("acme", "rover", 0),
        ("acme", "rover", 1 << 32),
        ("acme", "rover", True),
        ("acme", "rover", "1"),
        (None, "rover", 1),
    ],
)
def test_descriptor_refused(manufacturer: object, name: object, version: object) -> None:
    with pytest.raises(FeagiDataError):
        AgentDescriptor(manufacturer, name, version)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, [], {"agent_name": "rover"}])
def test_descriptor_of_other_json(value: object) -> None:
    with pytest.raises(FeagiDataError):
        AgentDescriptor.try_from_json(value)
