# SPDX-License-Identifier: Apache-2.0
"""The areas that FEAGI's engine makes of a unit, where they are not what a board has declared.

The engine of feagi-core 2.6.10 makes some areas narrower or of another depth than the agent's
configuration asks for. Voxels outside an area are dropped in silence, and a motor whose area is
less deep than the board believes gets other values than the brain meant. Over REST the areas can
be given the size that the board uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.unit_table import AXES
from feagi_io_host.core.units import DeclaredUnit

AREA_PATH: Final = "/v1/cortical_area/cortical_area"

# Code -> for each sub-unit the columns of the whole area and its depth; None: as asked for.
# Measured with 1 and 3 channels of 8 and 16 steps, RotaryMotor with 1 to 255 steps.
_MADE: Final[Mapping[str, tuple[tuple[int | None, int | None], ...]]] = {
    "iinf": ((1, None),),
    "ishk": ((1, None),),
    "ibat": ((1, None),),
    "icnt": ((1, None),),
    "idgp": ((1, 1),),
    "idpt": ((1, None),),
    "iseg": ((1, None),),
    "iten": ((1, None),),
    "icpo": ((3, None),),
    "iagp": ((8, None),),
    "omot": ((None, 9),),
    "ogaz": ((None, 1), (None, 10)),  # the first 8 wide and 8 high
    "omis": ((None, 1),),
    "oseg": ((None, 1),),
}


@dataclass(frozen=True, slots=True)
class AreaMismatch:
    """An area that the engine makes too small for `needed`: columns, rows, depth."""

    cortical_id: CorticalID
    unit: str
    made_columns: int
    made_depth: int
    needed: tuple[int, int, int]

    @property
    def change(self) -> dict[str, object]:
        """The body of the PUT that gives the area the size needed."""
        return {
            "cortical_id": self.cortical_id.as_base_64(),
            "cortical_dimensions": list(self.needed),
        }

    def __str__(self) -> str:
        columns, _, depth = self.needed
        return (
            f"FEAGI's engine makes the area of {self.unit} {self.made_columns} wide and "
            f"{self.made_depth} deep, the board uses {columns} and {depth}; give it room each time "
            f"a genome was loaded: PUT {AREA_PATH} {json.dumps(self.change)}"
        )


def mismatched_areas(units: Iterable[DeclaredUnit]) -> tuple[AreaMismatch, ...]:
    """The areas of a board's units that the engine makes otherwise than the board uses them:
    not wide enough, or of another depth."""
    found = []
    for unit in units:
        for sub_unit, (made_columns, made_depth) in enumerate(_MADE.get(unit.unit, ())):
            needed = _size(unit, sub_unit)
            columns = needed[0] if made_columns is None else made_columns
            deep = needed[2] if made_depth is None else made_depth
            if columns >= needed[0] and deep == needed[2]:
                continue
            name = f"{unit.kind.name} {unit.group}"
            area = unit.cortical_ids[sub_unit]
            found.append(AreaMismatch(area, name, columns, deep, needed))
    return tuple(found)


def _size(unit: DeclaredUnit, sub_unit: int) -> tuple[int, int, int]:
    """Columns, rows and depth of the area that the board uses."""
    if unit.dims is not None:
        width, height, depth = unit.dims
        return unit.channels * width, height, depth
    steps = unit.resolution
    depth = steps[sub_unit] if isinstance(steps, tuple) else steps or 1
    data_type = unit.cortical_ids[sub_unit][4] & 15
    columns = unit.channels * AXES.get(data_type, 1)
    # Either sign of what is sensed has a column of its own.
    return 2 * columns if unit.signed and unit.kind.is_sensor else columns, 1, depth
