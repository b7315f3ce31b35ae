# SPDX-License-Identifier: Apache-2.0
"""What a board says of itself is believed only within limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feagi_io_host.bridge.declaration import (
    MAX_DECLARATION_BYTES,
    BoardDeclaration,
    UnitDeclaration,
    parse_declaration,
)
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.units import DeclaredUnit, agent_configuration, cortical_ids_of


def unit(**changes: Any) -> dict[str, Any]:
    return {"u": "iagp", "t": 1, "s": 0, "g": 0, "f": 0, "n": 4, "r": 256, "c": 0, **changes}


def board(**changes: Any) -> dict[str, Any]:
    return {"name": "cart", "uid": "ab", "fw": "x 1", "sensors": [unit()], "motors": [], **changes}


def parsed(value: object) -> BoardDeclaration:
    return parse_declaration(json.dumps(value).encode())


def test_a_whole_declaration() -> None:
    motor = unit(u="omot", t=5, s=1, g=258, f=3, n=1, r=16, c=1)
    declaration = parsed(board(motors=[motor], viz=1, later="ignored"))
    assert declaration == BoardDeclaration(
        "cart",
        "ab",
        "x 1",
        (UnitDeclaration(CorticalID(b"iagp\x01\0\0\0"), 4, 256, False, False, True),),
        (UnitDeclaration(CorticalID(b"omot\x15\x03\x02\x01"), 1, 16, True, True, False),),
        True,
    )
    assert declaration.motor_areas == {CorticalID(b"omot\x15\x03\x02\x01")}


def test_the_least_a_board_can_say() -> None:
    assert parsed({"name": "b"}) == BoardDeclaration("b", "", "", (), ())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "is a list; an object is expected"),
        ({}, "has no name"),
        (board(name="n" * 65), r"name is 'nnnnn.*\(65 characters\); at most 64"),
        (board(name="caf\u00e9"), "printable ASCII"),
        (board(name="a\x1b[2J"), "printable ASCII"),
        (board(uid=7), "uid is a number"),
        (board(sensors={}), "sensors is an object; a list"),
        (board(sensors=[7]), r"sensors\[0\] is a number"),
        (board(sensors=[unit()] * 65), "declares 65 sensors; at most 64"),
        (
            board(sensors=[unit(g=g) for g in range(64)], motors=[unit(u="omot")]),
            "64 sensors and 1 motors; at most 64 units together",
        ),
        (board(sensors=[unit(), unit()]), r"sensors\[1\] is the same area as sensors\[0\]"),
        (board(sensors=[unit(u="omot")]), r"u is 'omot'; expected 4 ASCII letters .* with i"),
        (board(motors=[unit()]), r"motors\[0\]\.u is 'iagp'"),
        (board(sensors=[unit(u="i\u00e9gp")]), "expected 4 ASCII"),
        (board(sensors=[unit(u="iagpx")]), "expected 4 ASCII"),
        (board(sensors=[unit(t=12)]), r"sensors\[0\]\.t is 12; a whole number from 0 to 11"),
        (board(sensors=[unit(s=16)]), "s is 16"),
        (board(sensors=[unit(g=65536)]), "g is 65536"),
        (board(sensors=[unit(f=4)]), "f is 4"),
        (board(sensors=[unit(n=0)]), "n is 0; a whole number from 1 to 16384"),
        (
            board(sensors=[unit(g=0, n=16000), unit(g=1, n=385)]),
            "declares 16385 channels; at most 16384 in all its units together",
        ),
        (
            board(sensors=[unit(u="imis", t=10, n=2, w=1024, h=1024, r=256)]),
            "an area of 2048 x 1024 x 256 voxels; at most 268435456 together",
        ),
        (board(sensors=[unit(n=16385)]), "n is 16385"),
        (board(sensors=[unit(n=1e3)]), "n is 1000.0"),
        (board(sensors=[unit(n=True)]), "n is True"),
        (board(sensors=[unit(n=None)]), "n is missing or null"),
        (board(sensors=[unit(r=16385)]), "r is 16385"),
        (board(sensors=[unit(f=2, r=17)]), "r is 17; a fractional unit has at most 16"),
        (board(sensors=[unit(c=2)]), "c is 2"),
        (board(viz=2), "viz is 2"),
        (board(deep=[[[[[[[[1]]]]]]]]), "nested 9 levels deep; at most 8"),
    ],
)
def test_refused_with_what_came_and_what_was_expected(value: object, text: str) -> None:
    with pytest.raises(FeagiDataError, match=text):
        parsed(value)


def test_too_long_and_no_json() -> None:
    with pytest.raises(FeagiDataError, match="of 16385 bytes; at most 16384"):
        parse_declaration(bytes(MAX_DECLARATION_BYTES + 1))
    for text in (b"", b"{", b"\xff", b"NaN", b"[" * 5000):
        with pytest.raises(FeagiDataError):
            parse_declaration(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.just("b") | JSON,
            "sensors": st.lists(st.fixed_dictionaries(dict.fromkeys(unit(), JSON)) | JSON) | JSON,
            "viz": JSON,
        },
    )
)
def test_whatever_comes_only_our_error_is_raised(value: dict[str, Any]) -> None:
    try:
        declaration = parsed(value)
    except FeagiDataError:
        return
    assert declaration.name


def declared(sensors: list[Any] | None = None, motors: list[Any] | None = None) -> BoardDeclaration:
    return parsed(board(sensors=sensors or [], motors=motors or []))


def test_units_for_an_engine() -> None:
    declaration = declared(
        [
            unit(),
            unit(u="iinf", g=1, f=2, n=2, r=8),
            unit(u="idgp", t=0, n=3, r=1),
            unit(u="irim", t=7, s=0, n=1, r=8, c=1),
            unit(u="irim", t=7, s=2, n=1, r=8, c=1),
            unit(u="irim", t=7, s=0, g=1, n=1, r=16, c=1),
            unit(u="imis", t=10, n=3, r=16),
        ],
        [
            unit(u="omot", t=5, n=2, r=9, c=1),
            unit(u="opse", t=1, s=0, n=4, r=8),
            unit(u="opse", t=1, s=1, f=1, n=4, r=8),
            unit(u="opse", t=1, s=2, n=4, r=8),
            unit(u="ogaz", t=1, s=1, n=1, r=10),
            unit(u="ogaz", t=2, s=0, n=1, r=8),
        ],
    )
    units = declaration.declared_units()
    assert units == (
        DeclaredUnit("iagp", channels=4, resolution=256),
        DeclaredUnit("iinf", 1, channels=2, resolution=8, fractional=True),
        DeclaredUnit("idgp", channels=3),
        DeclaredUnit("irim", resolution=8),
        DeclaredUnit("irim", 1, resolution=16),
        DeclaredUnit("imis", channels=3, dims=(1, 1, 16)),
        DeclaredUnit("omot", channels=2, resolution=9),
        DeclaredUnit("opse", channels=4, resolution=8),
        DeclaredUnit("ogaz", resolution=(8, 10)),
    )
    areas = cortical_ids_of(agent_configuration(units))
    assert {u.cortical_id for u in declaration.sensors} < set(areas.sensors)
    assert declaration.motor_areas == set(areas.motors)


def test_no_units_for_an_engine() -> None:
    assert declared().declared_units() == ()


@pytest.mark.parametrize(
    ("sensor", "why"),
    [
        (unit(u="ixyz"), "no unit has the code 'ixyz'"),
        (unit(u="iinv"), "did you mean 'iinf'"),
        (unit(u="iinf", t=5), "flags are 0500; Infrared has 0100"),
        (unit(u="iinf", s=1), "flags are 1100; Infrared has 0100"),
        (unit(u="idgp", t=0, f=1), "flags are 0001; DigitalGPIO has 0000"),
        (unit(u="iinf", c=1), "Infrared is unsigned"),
        (unit(u="iimg", t=9, r=3), "needs width and height"),
        (unit(u="isvi", t=9), "needs more than a declared unit says"),
        (unit(u="imis", t=10, f=2, r=8), "flags are 0a02; MiscData has 0a00"),
    ],
)
def test_what_an_engine_cannot_be_told(sensor: dict[str, Any], why: str) -> None:
    with pytest.raises(FeagiDataError) as caught:
        declared([unit(), sensor]).declared_units()
    assert f"board 'cart' declares what an agent configuration cannot tell: b'{sensor['u']}" in str(
        caught.value
    )
    assert why in str(caught.value)
    assert "b'iagp" not in str(caught.value)


def test_every_such_unit_is_named() -> None:
    with pytest.raises(FeagiDataError) as caught:
        declared(
            [unit(u="ixyz"), unit(u="iimg", t=9)],
            [
                unit(u="opse", n=4, r=8),
                unit(u="opse", s=2, n=3, r=8),
                unit(u="opse", g=1, n=4, r=8),
                unit(u="opse", g=1, s=2, n=4, r=16),
            ],
        ).declared_units()
    message = str(caught.value)
    assert "ixyz" in message
    assert "iimg" in message
    assert "channels of one unit are [3, 4]" in message
    assert "resolutions of one unit are [8, 16]" in message
