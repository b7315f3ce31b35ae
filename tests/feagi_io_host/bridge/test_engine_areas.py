# SPDX-License-Identifier: Apache-2.0
"""Where the engine makes areas otherwise than a board uses them, and what is said of it."""

from __future__ import annotations

import pytest

from feagi_io_host.bridge import AreaMismatch, mismatched_areas
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.units import DeclaredUnit


@pytest.mark.parametrize(
    "unit",
    [
        DeclaredUnit("iinf", resolution=16),
        DeclaredUnit("ipro", channels=3, resolution=16),
        DeclaredUnit("iagp", channels=8, resolution=512),
        DeclaredUnit("idgp"),
        DeclaredUnit("omot", channels=4, resolution=9),
        DeclaredUnit("opse", channels=4),
        DeclaredUnit("irim", resolution=32),
        DeclaredUnit("imis", channels=3, dims=(1, 1, 16)),
        DeclaredUnit("iimg", dims=(32, 24, 3)),
        DeclaredUnit("ogaz", resolution=(1, 10)),
    ],
)
def test_areas_that_fit(unit: DeclaredUnit) -> None:
    assert mismatched_areas([unit]) == ()


@pytest.mark.parametrize(
    ("unit", "made", "needed"),
    [
        (DeclaredUnit("iinf", channels=2), (1, 8), (2, 1, 8)),
        (DeclaredUnit("idgp", channels=3), (1, 1), (3, 1, 1)),
        (DeclaredUnit("iagp", channels=9, resolution=4), (8, 4), (9, 1, 4)),
        (DeclaredUnit("omot", channels=1, resolution=255), (1, 9), (1, 1, 255)),
        (DeclaredUnit("omot", channels=2, resolution=8), (2, 9), (2, 1, 8)),
        (DeclaredUnit("ogaz", resolution=(1, 8)), (1, 10), (1, 1, 8)),
        (DeclaredUnit("omis", dims=(1, 1, 16)), (1, 1), (1, 1, 16)),
    ],
)
def test_areas_that_do_not(
    unit: DeclaredUnit, made: tuple[int, int], needed: tuple[int, int, int]
) -> None:
    (mismatch,) = mismatched_areas([DeclaredUnit("icnt"), unit])
    assert (mismatch.made_columns, mismatch.made_depth, mismatch.needed) == (*made, needed)
    assert mismatch.cortical_id in unit.cortical_ids


def test_the_words_hold_the_whole_request() -> None:
    mismatch = AreaMismatch(CorticalID(b"iinf\x01\x00\x03\x00"), "Infrared 3", 1, 8, (2, 1, 8))
    assert str(mismatch) == (
        "FEAGI's engine makes the area of Infrared 3 1 wide and 8 deep, the board uses 2 and 8; "
        "give it room each time a genome was loaded: PUT /v1/cortical_area/cortical_area "
        '{"cortical_id": "aWluZgEAAwA=", "cortical_dimensions": [2, 1, 8]}'
    )
