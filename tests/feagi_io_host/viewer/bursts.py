# SPDX-License-Identifier: Apache-2.0
"""Frames as a brain emits them, made for tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays

CUSTOM = CorticalID(b"cbig\x00\x00\x00\x00")
EYE = CorticalID(b"iinf\x01\x00\x00\x00")
WHEEL = CorticalID(b"omot\x05\x00\x00\x00")

Row = tuple[int, int, int, float]


def frame(*structs: Mapping[CorticalID, Iterable[Row]]) -> SharedFBC:
    """A container with a struct for each mapping of areas to (x, y, z, p)."""
    voxels = []
    for areas in structs:
        mapped = CorticalMappedXYZPNeuronVoxels()
        for area, rows in areas.items():
            table = list(rows)
            x, y, z = (np.array([row[i] for row in table], np.uint32) for i in range(3))
            p = np.array([row[3] for row in table], np.float32)
            mapped.insert(area, NeuronVoxelXYZPArrays.new_from_numpy(x, y, z, p))
        voxels.append(mapped)
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_multiple_struct_data(voxels, 0)
    return SharedFBC.adopt(container)


def big_frame(neurons: int, seed: int, *, area: CorticalID = CUSTOM) -> SharedFBC:
    """So many neurons at random in a cube of 100 x 100 x 100."""
    random = np.random.default_rng(seed)
    place = random.choice(1_000_000, neurons, replace=False).astype(np.uint32)
    potential = random.random(neurons).astype(np.float32)
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(
        place % 100, place // 100 % 100, place // 10_000, potential
    )
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(
        CorticalMappedXYZPNeuronVoxels({area: arrays}), 0
    )
    return SharedFBC.adopt(container)
