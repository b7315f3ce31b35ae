# SPDX-License-Identifier: Apache-2.0
"""The golden vectors: containers with what the real library makes of them."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays

VECTORS = Path(__file__).resolve().parents[2] / "vectors"


@dataclass(frozen=True)
class Vector:
    """One file of bytes and the account of it."""

    name: str
    data: bytes
    account: dict[str, Any]


def vectors(kind: str) -> list[Vector]:
    """All vectors of the folder `kind`, by name."""
    found = []
    for path in sorted((VECTORS / kind).glob("*.json")):
        packed = path.with_suffix(".bin.gz")
        data = (
            gzip.decompress(packed.read_bytes())
            if packed.exists()
            else path.with_suffix(".bin").read_bytes()
        )
        found.append(Vector(path.stem, data, json.loads(path.read_text(encoding="utf-8"))))
    return found


VALID = vectors("valid")
MALFORMED = vectors("malformed")


def read_voxels(container: FeagiByteContainer, index: int = 0) -> CorticalMappedXYZPNeuronVoxels:
    """Struct `index`, which has to be mapped voxels."""
    struct = container.try_create_new_struct_from_index(index)
    assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
    return struct


def read_json(container: FeagiByteContainer, index: int = 0) -> Any:
    """The value of struct `index`, which has to be JSON."""
    struct = container.try_create_new_struct_from_index(index)
    assert isinstance(struct, FeagiJSON)
    return struct.value


def neurons(count: int, seed: int = 0) -> NeuronVoxelXYZPArrays:
    """`count` different neurons from arrays of their own."""
    base = np.arange(count, dtype=np.uint32) + np.uint32(seed)
    return NeuronVoxelXYZPArrays.new_from_numpy(
        base, base * 3, base * 5, (base / 7).astype(np.float32)
    )


def area(index: int) -> bytes:
    """The 8 bytes of input area number `index`."""
    return b"iinf\x01\x00" + index.to_bytes(2, "little")


def mapped(areas: int, count: int, seed: int = 0) -> CorticalMappedXYZPNeuronVoxels:
    """`areas` areas of `count` neurons each."""
    voxels = CorticalMappedXYZPNeuronVoxels()
    for index in range(areas):
        voxels.insert(area(index), neurons(count, seed + index))
    return voxels
