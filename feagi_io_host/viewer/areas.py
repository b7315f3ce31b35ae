# SPDX-License-Identifier: Apache-2.0
"""The cortical areas of a brain, as a page needs them: names, kinds and sizes.

A source declares what it knows. What fires without having been declared gets its name from its
cortical id, and the size of what was seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.unit_table import UNIT_TABLE
from feagi_io_host.viewer.protocol import text

MAX_AREAS: Final = 4096
MAX_SIDE: Final = 65535  # a u16 on the wire
MAX_VOLUME: Final = 1 << 32  # a voxel's place in its area is a u32
MAX_NAME: Final = 64

Size = tuple[int, int, int]
"""Width, height and depth in voxels."""

_KINDS: Final = {ord("i"): "sensor", ord("o"): "motor", ord("_"): "core"}
_CORE_NAMES: Final = {b"___death": "Death", b"___power": "Power", b"___fatig": "Fatigue"}
_UNITS: Final = {kind.code.encode(): kind for kind in UNIT_TABLE}


@dataclass(frozen=True, slots=True)
class KnownArea:
    """What a source knows of an area. Without a name it is made from the id."""

    cortical_id: CorticalID
    size: Size = (1, 1, 1)
    name: str | None = None


@dataclass(slots=True)
class Area:
    """An area on show; `slot` is its place in the table."""

    slot: int
    cortical_id: CorticalID
    name: str
    kind: str
    size: Size

    def as_json(self) -> dict[str, Any]:
        """As the page gets it."""
        width, height, depth = self.size
        return {
            "id": self.cortical_id.as_base_64(),
            "name": self.name,
            "kind": self.kind,
            "width": width,
            "height": height,
            "depth": depth,
        }


def name_of(cortical_id: CorticalID) -> str:
    """What people call an area: its unit, group and sub-unit, or the letters of its id."""
    raw = bytes(cortical_id)
    kind = _UNITS.get(raw[:4])
    if kind is None:
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in raw)
        return _CORE_NAMES.get(raw) or letters.strip("_. ") or letters
    group = raw[6] | raw[7] << 8
    sub_unit = raw[4] >> 4
    return f"{kind.name} {group}" + (f".{sub_unit}" if len(kind.areas) > 1 else "")


class AreaTable:
    """Every area that was declared or has fired, 4096 at most. Belongs to one thread.

    `revision` grows with every change, `epoch` when the table was emptied: places in it mean
    something else from then on.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.epoch = 0
        self._areas: list[Area] = []
        self._by_id: dict[bytes, Area] = {}
        self._text: tuple[int, str] | None = None

    def __len__(self) -> int:
        return len(self._areas)

    def __getitem__(self, slot: int) -> Area:
        return self._areas[slot]

    def clear(self) -> None:
        """Forget them all: another brain begins."""
        self._areas.clear()
        self._by_id.clear()
        self.revision += 1
        self.epoch += 1

    def declare(self, areas: Iterable[KnownArea]) -> None:
        """Take up what a source knows. Sizes only grow; what is impossible is cut."""
        for known in areas:
            area = self.area_of(known.cortical_id)
            if area is None:
                return
            if known.name:
                name = "".join(c if c.isprintable() else "?" for c in known.name[:MAX_NAME])
                if name != area.name:
                    area.name = name
                    self.revision += 1
            self.grow(area, known.size)

    def area_of(self, cortical_id: CorticalID) -> Area | None:
        """The area of that id, a new one where there was none; None when the table is full."""
        area = self._by_id.get(cortical_id)
        if area is None and len(self._areas) < MAX_AREAS:
            kind = _KINDS.get(cortical_id[0], "other")
            area = Area(len(self._areas), cortical_id, name_of(cortical_id), kind, (1, 1, 1))
            self._areas.append(area)
            self._by_id[bytes(cortical_id)] = area
            self.revision += 1
        return area

    def grow(self, area: Area, size: Size) -> bool:
        """Make an area at least so large; false, and nothing changes, when it cannot be."""
        now = area.size
        if size[0] <= now[0] and size[1] <= now[1] and size[2] <= now[2]:
            return True
        width, height, depth = (max(new, old) for new, old in zip(size, now, strict=True))
        if max(width, height, depth) > MAX_SIDE or width * height * depth > MAX_VOLUME:
            return False
        area.size = (width, height, depth)
        self.revision += 1
        return True

    def text(self) -> str:
        """The message `areas`, made once for each revision."""
        if self._text is None or self._text[0] != self.revision:
            message = text("areas", areas=[area.as_json() for area in self._areas])
            self._text = (self.revision, message)
        return self._text[1]
