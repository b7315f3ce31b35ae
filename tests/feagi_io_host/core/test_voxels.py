# SPDX-License-Identifier: Apache-2.0
"""Voxel arrays and the mapping from areas to them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from feagi_io_host.core.errors import CorticalIDError, VoxelArrayError
from feagi_io_host.core.types import CorticalID, FeagiByteStructureType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from tests.feagi_io_host.core.golden import area, mapped, neurons

U = np.zeros(3, np.uint32)
P = np.zeros(3, np.float32)


def test_arrays_are_borrowed_not_copied() -> None:
    x = np.arange(3, dtype=np.uint32)
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(x, U, U, P)
    assert len(arrays) == 3
    assert arrays.borrow_xyzp_vectors()[0] is x
    x[0] = 9
    assert arrays.borrow_xyzp_vectors()[0][0] == 9


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ((U.astype(np.int64), U, U, P), "x has dtype int64; it must be uint32"),
        ((U, U.astype(np.int32), U, P), "y has dtype int32"),
        ((U, U, U.astype(">u4"), P), "z has dtype >u4"),
        ((U, U, U, P.astype(np.float64)), "p has dtype float64; it must be float32"),
        ((U, U, U, U), "p has dtype uint32"),
        ((U.reshape(3, 1), U, U, P), r"x has shape \(3, 1\)"),
        (([1, 2, 3], U, U, P), "x is list"),
        ((U, U[:2], U, P), "x 3, y 2, z 3, p 3"),
    ],
)
def test_arrays_refused(given: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(VoxelArrayError, match=reason):
        NeuronVoxelXYZPArrays.new_from_numpy(*given)


def test_own_memory() -> None:
    arrays = NeuronVoxelXYZPArrays.new_with_length(4)
    x, y, z, p = arrays.borrow_xyzp_vectors()
    x[:], y[:], z[:], p[:] = 1, 2, 3, 0.5
    (packed,) = arrays.wire_parts()
    assert packed.tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [0x3F000000] * 4
    assert len(NeuronVoxelXYZPArrays()) == 0
    assert NeuronVoxelXYZPArrays().borrow_xyzp_vectors()[3].dtype == np.float32
    with pytest.raises(VoxelArrayError, match="-1"):
        NeuronVoxelXYZPArrays.new_with_length(-1)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_copy_is_apart(count: int) -> None:
    arrays = neurons(count)
    twin = arrays.copy()
    assert twin == arrays
    for view in twin.borrow_xyzp_vectors():
        view[:] = 1
        assert not any(np.shares_memory(view, part) for part in arrays.wire_parts())


def test_equality_is_bit_for_bit() -> None:
    nan = np.array([np.nan, -0.0, 1], np.float32)
    one = NeuronVoxelXYZPArrays.new_from_numpy(U, U, U, nan)
    assert one == NeuronVoxelXYZPArrays.new_from_numpy(U, U, U, nan.copy())
    assert one != NeuronVoxelXYZPArrays.new_from_numpy(U, U, U, np.abs(nan))
    assert one != neurons(2)
    assert one != "voxels"
    with pytest.raises(TypeError):
        hash(one)


def test_mapping() -> None:
    voxels = mapped(3, 4)
    assert len(voxels) == 3
    assert [key for key, _ in voxels] == [area(0), area(1), area(2)]
    assert all(isinstance(key, CorticalID) for key, _ in voxels)
    assert voxels.count_neurons() == 12
    assert area(1) in voxels
    assert area(7) not in voxels
    assert voxels.mappings[CorticalID(area(1))] is voxels[area(1)]
    assert voxels.byte_structure_type is FeagiByteStructureType.NEURON_CATEGORICAL_XYZP
    with pytest.raises(TypeError):
        voxels.mappings[CorticalID(area(1))] = neurons(1)  # type: ignore[index]
    with pytest.raises(KeyError):
        voxels[area(7)]


def test_insert_replaces_and_remove_returns() -> None:
    voxels = mapped(2, 4)
    new = neurons(1)
    voxels.insert(area(1), new)
    assert len(voxels) == 2
    assert voxels.remove(area(1)) is new
    with pytest.raises(CorticalIDError, match="among these 1"):
        voxels.remove(area(1))
    voxels.clear()
    assert len(voxels) == 0


def test_insert_refuses() -> None:
    voxels = CorticalMappedXYZPNeuronVoxels()
    with pytest.raises(CorticalIDError):
        voxels.insert(b"zzz", neurons(1))
    with pytest.raises(VoxelArrayError, match="not as tuple"):
        voxels.insert(area(0), (U, U, U, P))  # type: ignore[arg-type]
    assert len(voxels) == 0


def test_equality_forgets_the_order_of_areas() -> None:
    forward, backward = mapped(3, 2), CorticalMappedXYZPNeuronVoxels()
    for index in (2, 1, 0):
        backward.insert(area(index), forward[area(index)])
    assert forward == backward
    backward.insert(area(0), neurons(3))
    assert forward != backward
    assert forward != {}


def test_plan_is_kept_until_the_areas_change() -> None:
    voxels = mapped(2, 2)
    plan = voxels.encode_plan()
    assert voxels.encode_plan() is plan
    voxels.insert(area(5), neurons(1))
    assert voxels.encode_plan().counts == (2, 2, 1)
