# SPDX-License-Identifier: Apache-2.0
"""The page's side of the frames, plainly: docs/viewer.md read with struct, a voxel at a time."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels

Voxel = tuple[bytes, int, int, int]
"""Cortical id, x, y, z."""


class Header(NamedTuple):
    """The 24 bytes before a body."""

    kind: int
    flags: int
    zero: int
    sequence: int
    at_ms: float
    fired: int
    voxels: int


def header_of(message: bytes) -> Header:
    return Header._make(struct.unpack_from("<BBHIdII", message))


@dataclass
class Shown:
    """What a page has on show, and the scale of each area in the message that told it last."""

    voxels: dict[Voxel, float] = field(default_factory=dict)
    scales: dict[bytes, float] = field(default_factory=dict)
    thinned: bool = False

    def take(self, message: bytes) -> Header:
        header = header_of(message)
        assert header.zero == 0
        if header.kind == 1:
            assert header.flags == 0
            self.voxels = fbc_voxels(message[24:])
            self.thinned = False
        else:
            assert header.kind == 2
            assert header.flags < 4
            if header.flags & 1:
                self.voxels = {}
            self.thinned = bool(header.flags & 2)
            assert self.take_body(message[24:]) == header.voxels
        return header

    def take_body(self, body: bytes) -> int:
        areas, zero = struct.unpack_from("<HH", body)
        assert zero == 0
        at, changed = 4, 0
        for _ in range(areas):
            area, width, height, depth, zero, scale, count, gone = struct.unpack_from(
                "<8sHHHHfII", body, at
            )
            assert zero == 0
            assert count or gone
            at += struct.calcsize("<8sHHHHfII")
            places = struct.unpack_from(f"<{count}I", body, at)
            at += 4 * count
            values = body[at : at + count]
            at += count + -count % 4
            assert at % 4 == 0
            for place, value in zip(places, values, strict=True):
                voxel = _voxel(area, place, width, height, depth)
                self.voxels[voxel] = value / 255 * scale
            for place in struct.unpack_from(f"<{gone}I", body, at):
                del self.voxels[_voxel(area, place, width, height, depth)]  # it was there
            at += 4 * gone
            self.scales[area] = scale
            changed += count
        assert at == len(body)
        return changed


def _voxel(area: bytes, place: int, width: int, height: int, depth: int) -> Voxel:
    assert place < width * height * depth
    return area, place % width, place // width % height, place // (width * height)


def fbc_voxels(data: bytes) -> dict[Voxel, float]:
    """The voxels of a container; of several in one place the highest potential."""
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_copy_and_verify(data)
    found: dict[Voxel, float] = {}
    for index in range(container.try_get_number_contained_structures()):
        voxels = container.try_create_new_struct_from_index(index)
        if not isinstance(voxels, CorticalMappedXYZPNeuronVoxels):
            continue
        for area, arrays in voxels:
            columns = [column.tolist() for column in arrays.borrow_xyzp_vectors()]
            for x, y, z, p in zip(*columns, strict=True):
                voxel = (bytes(area), x, y, z)
                known = found.get(voxel)
                if known is None or math.isnan(known) or p > known:
                    found[voxel] = p
    return found
