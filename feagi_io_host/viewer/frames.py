# SPDX-License-Identifier: Apache-2.0
"""Frames on their way from a brain to pages: the newest one, and what is made of it once for all.

emitting thread     NewestFrame.put: a lease, a swap, nothing else
the viewer's loop   Picture: what is in it, and its forms by level and by what a page had
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.voxels import XYZP, CorticalMappedXYZPNeuronVoxels
from feagi_io_host.viewer.areas import Area, AreaTable
from feagi_io_host.viewer.compact import Body, Kept, Packed, encode, pack

MOST_UNTHINNED: Final = 20_000
"""Up to so many neurons a frame goes out as it was emitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Emitted:
    """A frame, with a lease that belongs to the holder. `number` counts from 1; `at_ms` is Unix
    time."""

    number: int
    fbc: SharedFBC
    at_ms: float


class NewestFrame:
    """Holds a lease of the newest frame, and of no other. Safe to use from several threads.

    `wake` is called, in the thread that emits, for the first frame after `wanted` was set.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._newest: Emitted | None = None
        self._wanted = False
        self._closed = False
        self._count = 0

    def put(self, fbc: SharedFBC, at_ms: float) -> None:
        """There is a newer frame. Never waits; the caller keeps its own lease."""
        with self._lock:
            if self._closed:
                return
            self._count += 1
            old, self._newest = self._newest, Emitted(self._count, fbc.retain(), at_ms)
            wanted, self._wanted = self._wanted, False
        if old is not None:
            old.fbc.release()
        if wanted:
            self._wake()

    def lease(self) -> Emitted | None:
        """The newest frame with one more lease, which is the caller's; None where there is none."""
        with self._lock:
            newest = self._newest
            if newest is not None:
                newest.fbc.retain()
            return newest

    def want(self, beyond: int) -> bool:
        """Ask to be woken for a frame after number `beyond`; true when there is one already."""
        with self._lock:
            self._wanted = self._count <= beyond
            return not self._wanted

    @property
    def count(self) -> int:
        """Frames that were emitted."""
        return self._count

    def forget(self) -> None:
        """Give the lease back; there is none until the next frame."""
        with self._lock:
            newest, self._newest = self._newest, None
        if newest is not None:
            newest.fbc.release()

    def close(self) -> None:
        """Give the lease back and take no more."""
        with self._lock:
            self._closed = True
            newest, self._newest = self._newest, None
        if newest is not None:
            newest.fbc.release()


class Picture:
    """One frame and the forms of it that pages get, each made when it is first needed and once.

    Takes over the lease of `emitted`; `close` gives it back. Areas that were not known before,
    and sizes that have grown, are in `table` afterwards.
    """

    def __init__(self, emitted: Emitted, table: AreaTable) -> None:
        self.number = emitted.number
        self.at_ms = emitted.at_ms
        self.epoch = table.epoch
        self._emitted = emitted
        self._table = table
        self._unthinned: bytes | None = None
        self._packed: Packed | None = None
        self._kept: dict[int, Kept] = {}
        self._bodies: dict[tuple[int, int], tuple[Kept | None, Body]] = {}
        self.fired = 0
        self._placed = True
        for area, (x, y, z, _) in self._parts():
            if len(x):
                top = (int(x.max()) + 1, int(y.max()) + 1, int(z.max()) + 1)
                if not table.grow(area, top):
                    self._placed = False

    def close(self) -> None:
        """Give the lease back. What was made of the frame stays."""
        self._emitted.fbc.release()

    def fits_unthinned(self, max_voxels: int | None) -> bool:
        """Whether a page that can draw so many voxels gets the frame as it was emitted."""
        most = MOST_UNTHINNED if max_voxels is None else min(max_voxels, MOST_UNTHINNED)
        return self._placed and self.fired <= most

    @property
    def unthinned(self) -> bytes:
        """The FBC as it was emitted."""
        if self._unthinned is None:
            self._unthinned = bytes(self._emitted.fbc.view)
        return self._unthinned

    def compact(self, max_voxels: int | None, before: Kept | None) -> tuple[Kept, Body]:
        """What a page that can draw so many voxels is to have on show, and the body that brings
        it there from `before`."""
        if self._packed is None:
            self._packed = pack(self._parts(), self._table, all_placed=self._placed)
        level = self._packed.level_for(max_voxels)
        kept = self._kept.get(level)
        if kept is None:
            kept = self._kept[level] = self._packed.kept(level)
        key = (level, id(before))
        made = self._bodies.get(key)
        if made is None:  # `before` is kept with it, so that its id stays its own
            made = self._bodies[key] = (before, encode(kept, before))
        return kept, made[1]

    def _parts(self) -> list[tuple[Area, XYZP]]:
        """The areas that have a place in the table, with views of their voxels."""
        found: list[tuple[Area, XYZP]] = []
        container = self._emitted.fbc.container
        fired = 0
        for index in range(container.try_get_number_contained_structures()):
            try:
                struct = container.try_create_new_struct_from_index(index)
            except FeagiDataError:
                continue  # a struct that the verification let through and nobody can read
            if not isinstance(struct, CorticalMappedXYZPNeuronVoxels):
                continue
            for cortical_id, arrays in struct:
                fired += len(arrays)
                area = self._table.area_of(cortical_id)
                if area is None:
                    self._placed = False
                else:
                    found.append((area, arrays.borrow_xyzp_vectors()))
        self.fired = fired
        return found
