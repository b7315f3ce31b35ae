# SPDX-License-Identifier: Apache-2.0
"""Frames for pages that cannot draw every voxel, or should not be sent every one of them again.

A voxel is one number, so that a whole frame is sorted, merged and compared at once:

    bit 0       free: tells two frames apart while they are compared
    bits 1-8    potential, 0 to 255 of the area's scale
    bits 9-40   place in its area: x + width * (y + height * z)
    bits 41-52  place of the area in the table

Scales are powers of two: a voxel that has not changed has the same number in the next frame.
Which voxels are left out at a level follows from their places alone, so that a picture does not
flicker, and what is on show at one level is on show at every finer one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feagi_io_host.core.voxels import XYZP, U32Array
from feagi_io_host.viewer.areas import Area, AreaTable, Size
from feagi_io_host.viewer.protocol import FLAG_THINNED, FLAG_WHOLE

U64Array = NDArray[np.uint64]

_VALUE_AT: Final = np.uint64(1)
_PLACE_AT: Final = np.uint64(9)
_SLOT_AT: Final = np.uint64(41)
_NEW: Final = np.uint64(1)
_VALUES: Final = 255

_AREA: Final = struct.Struct("<8sHHHHfII")
_COUNT: Final = struct.Struct("<HH")

# So few voxels of small areas, motors for example, stay at every level.
_SPARED: Final = 512
_ALWAYS: Final = 255
# Each level keeps 2^-1/4 of the one before, down to one voxel in 65536.
_LEVELS: Final = 64
_SCATTER: Final = np.uint32(2654435769)  # 2^32 over the golden ratio: neighbours fall far apart


def _level_table() -> NDArray[np.uint8]:
    shares = (np.arange(65536) + 1) / 65536
    return np.floor(-4.0 * np.log2(shares)).clip(0, _LEVELS).astype(np.uint8)


_LEVEL_OF: Final = _level_table()


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """The voxels of a frame that are kept at a level: sorted, each place once."""

    keys: U64Array
    scales: dict[int, float]
    sizes: dict[int, Size]
    ids: dict[int, bytes]
    epoch: int
    thinned: bool


class Body(NamedTuple):
    """What follows the header of a compact message."""

    flags: int
    voxels: int
    data: bytes


@dataclass(slots=True, eq=False)
class Packed:
    """All voxels of a frame that have a place in the table, at any level."""

    keys: U64Array
    levels: NDArray[np.uint8]
    scales: dict[int, float]
    sizes: dict[int, Size]
    ids: dict[int, bytes]
    epoch: int
    all_placed: bool
    _by_level: list[int] = field(default_factory=list)

    def level_for(self, max_voxels: int | None) -> int:
        """The finest level with at most so many voxels; the coarsest where none has so few."""
        if max_voxels is None or len(self.keys) <= max_voxels:
            return 0
        if not self._by_level:
            counts = np.bincount(self.levels, minlength=_ALWAYS + 1)
            self._by_level = np.cumsum(counts[::-1])[::-1].tolist()
        for level in range(1, _LEVELS):
            if self._by_level[level] <= max_voxels:
                return level
        return _LEVELS

    def kept(self, level: int) -> Kept:
        """The voxels at a level; 0 is all of them."""
        keys = self.keys if level == 0 else self.keys[self.levels >= level]
        thinned = not self.all_placed or len(keys) < len(self.keys)
        return Kept(keys, self.scales, self.sizes, self.ids, self.epoch, thinned)


def pack(
    parts: Iterable[tuple[Area, XYZP]], table: AreaTable, *, all_placed: bool = True
) -> Packed:
    """The voxels of a frame as sorted numbers.

    `parts` are areas of `table` and their x, y, z (uint32) and p (float32), each of shape (n,);
    nothing of them is kept. Voxels outside their area's size are left out. Of several in one
    place the highest potential counts; what is below 0 or no number is 0.
    """
    rows: list[U64Array] = []
    scales: dict[int, float] = {}
    sizes: dict[int, Size] = {}
    ids: dict[int, bytes] = {}
    for area, (x, y, z, p) in _joined(parts):
        width, height, depth = area.size
        inside = (x < width) & (y < height) & (z < depth)
        if not inside.all():
            all_placed = False
            x, y, z, p = x[inside], y[inside], z[inside], p[inside]
        if not len(x):
            continue
        scale = _scale(p)
        key = z.astype(np.uint64)
        key *= np.uint64(height)
        key += y
        key *= np.uint64(width)
        key += x
        key <<= np.uint64(8)
        with np.errstate(invalid="ignore", over="ignore"):
            value = np.nan_to_num(p, nan=0.0, posinf=scale, neginf=0.0) * np.float32(
                _VALUES / scale
            )
            key |= np.rint(value.clip(0, _VALUES, out=value)).astype(np.uint64)
        key <<= _VALUE_AT
        key |= np.uint64(area.slot) << _SLOT_AT
        rows.append(key)
        scales[area.slot] = scale
        sizes[area.slot] = area.size
        ids[area.slot] = bytes(area.cortical_id)
    keys = np.concatenate(rows) if rows else np.zeros(0, np.uint64)
    keys.sort()
    places = keys >> _PLACE_AT
    if len(keys):
        last = np.ones(len(keys), np.bool_)
        np.not_equal(places[1:], places[:-1], out=last[:-1])
        if not last.all():
            keys, places = keys[last], places[last]
    return Packed(keys, _levels(places, scales), scales, sizes, ids, table.epoch, all_placed)


def _joined(parts: Iterable[tuple[Area, XYZP]]) -> list[tuple[Area, XYZP]]:
    """Each area once: a container may have it in several structs."""
    found: dict[int, list[tuple[Area, XYZP]]] = {}
    for area, voxels in parts:
        found.setdefault(area.slot, []).append((area, voxels))
    return [
        (same[0][0], same[0][1])
        if len(same) == 1
        else (
            same[0][0],
            (
                np.concatenate([voxels[0] for _, voxels in same]),
                np.concatenate([voxels[1] for _, voxels in same]),
                np.concatenate([voxels[2] for _, voxels in same]),
                np.concatenate([voxels[3] for _, voxels in same]),
            ),
        )
        for same in found.values()
    ]


def _scale(p: NDArray[np.float32]) -> float:
    """The power of two at or above the highest finite potential."""
    finite = np.isfinite(p)
    highest = float(np.max(p, where=finite, initial=0.0))
    if highest <= 0.0:
        return 1.0
    mantissa, exponent = np.frexp(highest)
    power = int(exponent) - 1 if mantissa == 0.5 else int(exponent)
    return float(2.0 ** min(max(power, -64), 127))


def _levels(places: U64Array, scales: dict[int, float]) -> NDArray[np.uint8]:
    """Up to which level each voxel stays. `places` is sorted, so areas are runs."""
    scattered: U32Array = places.astype(np.uint32)
    scattered *= _SCATTER
    scattered >>= np.uint32(16)
    levels = _LEVEL_OF[scattered]
    if len(places) > _SPARED:
        slots = np.array(sorted(scales), np.uint64)
        starts = np.searchsorted(places, slots << np.uint64(32))
        lengths = np.diff(np.append(starts, len(places)))
        room = _SPARED
        for index in np.argsort(lengths, kind="stable").tolist():
            room -= int(lengths[index])
            if room < 0:
                break
            levels[starts[index] : starts[index] + lengths[index]] = _ALWAYS
    return levels


# -- bodies -------------------------------------------------------------------------------------


def encode(now: Kept, before: Kept | None) -> Body:
    """The body that brings a page from `before` to `now`; the whole where that is smaller, and
    where the page had nothing or something that cannot be compared."""
    thinned = FLAG_THINNED if now.thinned else 0
    if before is not None and _comparable(now, before):
        different = _difference(now.keys, before.keys)
        if different is not None:
            changed, gone = different
            sizes = {**before.sizes, **now.sizes}
            ids = {**before.ids, **now.ids}
            data = _serialised(changed, gone, now.scales, sizes, ids)
            return Body(thinned, len(changed), data)
    nothing = now.keys[:0]
    data = _serialised(now.keys, nothing, now.scales, now.sizes, now.ids)
    return Body(thinned | FLAG_WHOLE, len(now.keys), data)


def _comparable(now: Kept, before: Kept) -> bool:
    """Whether places mean the same in both, and potentials too."""
    return now.epoch == before.epoch and all(
        before.sizes[slot] == size and before.scales[slot] == now.scales[slot]
        for slot, size in now.sizes.items()
        if slot in before.sizes
    )


def _difference(now: U64Array, before: U64Array) -> tuple[U64Array, U64Array] | None:
    """What is new or has another potential, and what is gone; both sorted. None where telling that
    takes about as many bytes as telling all."""
    merged = np.concatenate([before, now | _NEW])
    merged.sort(kind="stable")  # two sorted runs: one pass
    voxels = merged >> _VALUE_AT
    same = np.zeros(len(merged) + 1, np.bool_)
    np.equal(voxels[1:], voxels[:-1], out=same[1:-1])
    both = int(np.count_nonzero(same))
    least = 5 * (len(now) - both) + 4 * max(len(before) - len(now), 0)
    if 10 * least >= 9 * 5 * len(now):
        return None  # before the dear part of the work
    rest = merged[~(same[1:] | same[:-1])]
    new = (rest & _NEW) == _NEW
    places = rest >> _PLACE_AT
    twice = np.zeros(len(rest) + 1, np.bool_)
    np.equal(places[1:], places[:-1], out=twice[1:-1])
    changed, gone = rest[new], rest[~new & ~(twice[1:] | twice[:-1])]
    return (changed, gone) if 5 * len(changed) + 4 * len(gone) < 5 * len(now) else None


def _serialised(
    changed: U64Array,
    gone: U64Array,
    scales: dict[int, float],
    sizes: dict[int, Size],
    ids: dict[int, bytes],
) -> bytes:
    slots = sorted(ids)
    starts = np.array(slots, np.uint64) << _SLOT_AT
    changed_at = [*np.searchsorted(changed, starts).tolist(), len(changed)]
    gone_at = [*np.searchsorted(gone, starts).tolist(), len(gone)]
    places = (changed >> _PLACE_AT).astype("<u4")
    values = (changed >> _VALUE_AT).astype(np.uint8)
    gone_places = (gone >> _PLACE_AT).astype("<u4")
    pieces: list[bytes | memoryview] = [b""]
    areas = 0
    for index, slot in enumerate(slots):
        first, end = changed_at[index], changed_at[index + 1]
        first_gone, end_gone = gone_at[index], gone_at[index + 1]
        count = end - first
        if not count and first_gone == end_gone:
            continue
        areas += 1
        pieces += (
            _AREA.pack(
                ids[slot], *sizes[slot], 0, scales.get(slot, 1.0), count, end_gone - first_gone
            ),
            places[first:end].data,
            values[first:end].data,
            bytes(-count % 4),
            gone_places[first_gone:end_gone].data,
        )
    pieces[0] = _COUNT.pack(areas, 0)
    return b"".join(pieces)
