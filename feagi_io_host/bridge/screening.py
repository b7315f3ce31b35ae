# SPDX-License-Identifier: Apache-2.0
"""What passes between a board and the brain: only what the board has declared, both ways.

A frame that keeps to the declaration passes as it is. Of any other, the rest that does keep to it
passes in a new frame; what was taken out is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from feagi_io_host.bridge.declaration import BoardDeclaration, UnitDeclaration
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays

# Up to so many voxels, lists are quicker to look through than arrays.
_FEW: Final = 64


@dataclass(slots=True)
class ScreenCounters:
    """What was taken out so far."""

    frames_refused: int = 0
    areas_refused: int = 0
    voxels_refused: int = 0


class Screen:
    """Screens the frames of one board. One thread per direction."""

    def __init__(self, declaration: BoardDeclaration, pool: BufferPool) -> None:
        self._sensors: Mapping[CorticalID, UnitDeclaration] = {
            unit.cortical_id: unit for unit in declaration.sensors
        }
        self._motors = declaration.motor_areas
        self._pool = pool
        self.sensory = ScreenCounters()
        self.motor = ScreenCounters()

    def take_sensory(self, data: memoryview) -> SharedFBC | None:
        """A board's frame as a leased container, or None when nothing of it may pass.

        Refused are areas that are no declared sensor, voxels with x at or beyond the columns, y at
        or beyond the height or z at or beyond the resolution that was declared, and potentials
        that are no finite number. Raises the FeagiDataError of a container that does not verify.
        """
        container = self._pool.acquire()
        try:
            container.try_write_data_by_copy_and_verify(data)
            kept, changed = self._screened(container)
            if kept is None:
                self.sensory.frames_refused += 1
                self._pool.discard(container)
                return None
            if changed:
                clean = self._written(kept, container)
                self._pool.discard(container)
                container = clean
        except BaseException:
            self._pool.discard(container)
            raise
        return self._pool.share(container)

    def _written(
        self, voxels: CorticalMappedXYZPNeuronVoxels, source: FeagiByteContainer
    ) -> FeagiByteContainer:
        """A leased container of these voxels with counter and agent id of `source`."""
        container = self._pool.acquire()
        try:
            container.set_agent_identifier(source.get_agent_identifier_bytes())
            container.overwrite_byte_data_with_single_struct_data(
                voxels, source.get_increment_counter()
            )
        except BaseException:
            self._pool.discard(container)
            raise
        return container

    def _screened(
        self, container: FeagiByteContainer
    ) -> tuple[CorticalMappedXYZPNeuronVoxels | None, bool]:
        """What may pass (None: nothing), and whether that is less than the whole frame."""
        voxels, changed = merged_voxels(container)
        if voxels is None:
            return None, True
        kept: dict[CorticalID, NeuronVoxelXYZPArrays] = {}
        for cortical_id, arrays in voxels:
            unit = self._sensors.get(cortical_id)
            if unit is None:
                self.sensory.areas_refused += 1
                self.sensory.voxels_refused += len(arrays)
                changed = True
                continue
            passed = _within(arrays, unit)
            if passed is not arrays:
                self.sensory.voxels_refused += len(arrays) - len(passed)
                changed = True
            kept[cortical_id] = passed
        if not changed:
            return voxels, False
        if not kept and len(voxels):
            return None, True
        return CorticalMappedXYZPNeuronVoxels(kept), True

    def cut_motor(self, fbc: SharedFBC) -> SharedFBC | None:
        """A motor frame with the board's declared areas only, with a lease for the caller.

        None when the frame holds areas and none of them is declared. Raises the FeagiDataError
        of a container that does not verify.
        """
        voxels, changed = merged_voxels(fbc.container)
        if voxels is None:
            self.motor.frames_refused += 1
            return None
        mappings = voxels.mappings
        foreign = [cortical_id for cortical_id in mappings if cortical_id not in self._motors]
        if not foreign and not changed:
            return fbc.retain()
        self.motor.areas_refused += len(foreign)
        if foreign and len(foreign) == len(mappings):
            self.motor.frames_refused += 1
            return None
        kept = CorticalMappedXYZPNeuronVoxels(
            {cid: arrays for cid, arrays in mappings.items() if cid in self._motors}
        )
        cut = self._pool.share(self._written(kept, fbc.container))
        cut.emitted_at_s = fbc.emitted_at_s
        return cut


def merged_voxels(
    container: FeagiByteContainer,
) -> tuple[CorticalMappedXYZPNeuronVoxels | None, bool]:
    """The voxels of all XYZP structs (None: there is no such struct), and whether the container
    holds anything besides one XYZP struct. A later struct's area replaces an earlier one's."""
    count = container.try_get_number_contained_structures()
    if count == 1:
        struct = container.try_create_new_struct_from_index(0)
        if isinstance(struct, CorticalMappedXYZPNeuronVoxels):
            return struct, False
        return None, True
    found: CorticalMappedXYZPNeuronVoxels | None = None
    for index in range(count):
        struct = container.try_create_new_struct_from_index(index)
        if isinstance(struct, CorticalMappedXYZPNeuronVoxels):
            if found is None:
                found = CorticalMappedXYZPNeuronVoxels()
            for cortical_id, arrays in struct:
                found.insert(cortical_id, arrays)
    return found, True


def _within(arrays: NeuronVoxelXYZPArrays, unit: UnitDeclaration) -> NeuronVoxelXYZPArrays:
    """The voxels inside the unit's area: the same object when all are."""
    if not len(arrays):
        return arrays
    width, height = unit.columns, unit.height
    x, y, z, p = arrays.borrow_xyzp_vectors()
    if len(arrays) <= _FEW:
        inside = (
            max(x.tolist()) < width
            and max(z.tolist()) < unit.resolution
            and max(y.tolist()) < height
            and all(map(math.isfinite, p.tolist()))
        )
    else:
        inside = bool(
            x.max() < width
            and z.max() < unit.resolution
            and y.max() < height
            and np.isfinite(p).all()
        )
    if inside:
        return arrays
    good = (x < width) & (y < height) & (z < unit.resolution) & np.isfinite(p)
    return NeuronVoxelXYZPArrays.new_from_numpy(x[good], y[good], z[good], p[good])
