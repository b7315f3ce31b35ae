# SPDX-License-Identifier: Apache-2.0
"""The buffer a container is written into: grows by replacement, remembers its last layout.

Encoding the same areas with the same numbers of neurons again leaves header, table and records
standing and only copies voxels (or nothing, when they are written in place).
"""

from __future__ import annotations

import operator
import struct
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np

from feagi_io_host.core.errors import ContainerLimitError, FeagiDataError
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.verify import LENGTH_BYTES, STRUCT_HEADER_BYTES, XYZP_HEADER_BYTES
from feagi_io_host.core.voxels import U32, XYZP, EncodePlan, U8Array, U32Array, xyzp_views
from feagi_wire.const import (
    AREA_RECORD_BYTES,
    FBC_VERSION,
    HEADER_BYTES,
    MAX_AREAS,
    MAX_STRUCTS,
    STRUCT_VERSION,
    STRUCT_XYZP,
    VOXEL_BYTES,
)

COUNTER_AT: Final = 1
AGENT_ID_AT: Final = 4
COUNTER_MASK: Final = 0xFFFF
MAX_STRUCT_BYTES: Final = 0xFFFF_FFFF  # what the length table can say

_COUNTER: Final = struct.Struct("<H")
_START: Final = struct.Struct("<BHB")  # version, counter, struct count
_XYZP_HEADER: Final = struct.Struct("<BBH")
_RECORD: Final = struct.Struct("<8sII")

_EMPTY: Final = bytes([FBC_VERSION]) + bytes(HEADER_BYTES - 1)

AreaLayout = Sequence[tuple[CorticalID | bytes, int]]
XYZPViews = Mapping[CorticalID, XYZP]


class FrameBuffer:
    """Memory for one container at a time. Never resized in place, so no view ever dangles."""

    __slots__ = ("_cached_views", "_counts", "_data", "_ids", "_layout", "_views", "mem", "root")

    def __init__(self, capacity: int = HEADER_BYTES) -> None:
        """`capacity` bytes, at least a header's worth, holding an empty container."""
        self._forget_layout()
        self._take(np.zeros(max(capacity, HEADER_BYTES), np.uint8))
        self.mem[0] = FBC_VERSION

    def _take(self, root: U8Array) -> None:
        self.root = root
        self.mem = root.data

    def _forget_layout(self) -> None:
        self._ids: tuple[CorticalID, ...] | None = None
        self._counts: tuple[int, ...] = ()
        self._layout: tuple[tuple[CorticalID, int], ...] | None = None
        self._views: XYZPViews | None = None
        self._data: U32Array | None = None
        self._cached_views = 0

    @property
    def capacity(self) -> int:
        """Bytes allocated."""
        return len(self.root)

    def replace(self, capacity: int) -> None:
        """Go on in new memory with the same header; views of the old memory stay as they are."""
        root = np.zeros(max(capacity, HEADER_BYTES), np.uint8)
        root[:HEADER_BYTES] = self.root[:HEADER_BYTES]
        self._forget_layout()
        self._take(root)

    def ensure(self, size: int) -> None:
        """Room for `size` bytes; grows at least twofold so that growing stays rare."""
        if size > len(self.root):
            self.replace(max(size, 2 * len(self.root)))

    def shrink(self, size: int) -> None:
        """Give memory beyond `size` bytes back, keeping those bytes."""
        if size < len(self.root):
            old = self.root
            self.replace(size)
            self.root[:size] = old[:size]

    def outstanding_views(self) -> int:
        """How many arrays and memoryviews made by others still look at this memory.

        Counted by references: whoever looks at the memory, a frame in flight inside a socket
        library included, keeps the array `root` alive. The buffer's own cached views are not
        counted.
        """
        return sys.getrefcount(self.root) - _IDLE_REFERENCES - self._cached_views

    def set_counter(self, counter: int) -> None:
        """Write the increment counter, modulo 65536."""
        _COUNTER.pack_into(self.mem, COUNTER_AT, counter & COUNTER_MASK)

    def reset(self) -> None:
        """An empty container without agent id again. A remembered layout stays standing."""
        self.mem[:HEADER_BYTES] = _EMPTY

    def load(self, data: U8Array) -> int:
        """Copy a whole verified container in; returns its size. `data` may lie in this buffer."""
        size = len(data)
        self._forget_layout()
        self.ensure(size)
        np.copyto(self.root[:size], data)
        return size

    def begin(self, counter: int, lengths: Sequence[int]) -> int:
        """Write header and length table for structs of these lengths; returns the total size.

        Raises ContainerLimitError above 255 structs or 4 GiB - 1 in one of them.
        """
        count = len(lengths)
        if count > MAX_STRUCTS:
            raise ContainerLimitError(f"{count} structs; one container holds {MAX_STRUCTS}")
        if count and max(lengths) > MAX_STRUCT_BYTES:
            raise ContainerLimitError(
                f"a struct of {max(lengths)} bytes; the most is {MAX_STRUCT_BYTES}"
            )
        self._forget_layout()
        total = HEADER_BYTES + LENGTH_BYTES * count + sum(lengths)
        self.ensure(total)
        _START.pack_into(self.mem, 0, FBC_VERSION, counter & COUNTER_MASK, count)
        struct.pack_into(f"<{count}I", self.mem, HEADER_BYTES, *lengths)
        return total

    def put_bytes(self, start: int, kind: int, body: bytes) -> int:
        """Write struct header and body at `start`; returns where the next struct starts."""
        mem = self.mem
        mem[start] = kind
        mem[start + 1] = STRUCT_VERSION
        end = start + STRUCT_HEADER_BYTES + len(body)
        mem[start + STRUCT_HEADER_BYTES : end] = body
        return end

    def put_records(
        self, start: int, ids: Sequence[CorticalID], counts: Sequence[int]
    ) -> tuple[int, int]:
        """Write header and area records of an XYZP struct at `start`.

        Voxels follow without gaps in the order of `ids`. Returns where they start and end, in
        bytes from the container's first one.
        """
        mem = self.mem
        _XYZP_HEADER.pack_into(mem, start, STRUCT_XYZP, STRUCT_VERSION, len(ids))
        at = start + XYZP_HEADER_BYTES
        offset = XYZP_HEADER_BYTES + AREA_RECORD_BYTES * len(ids)
        first = start + offset
        pack_into = _RECORD.pack_into
        for cortical_id, count in zip(ids, counts, strict=True):
            used = VOXEL_BYTES * count
            pack_into(mem, at, cortical_id, offset, used)
            at += AREA_RECORD_BYTES
            offset += used
        return first, start + offset

    def put_voxels(self, start: int, plan: EncodePlan) -> int:
        """Write a whole XYZP struct at `start`; returns where the next one starts."""
        first, end = self.put_records(start, plan.ids, plan.counts)
        if end > first:
            # One call for all areas: each call into numpy costs as much as copying 4 KB.
            np.concatenate(plan.parts, out=self.root[first:end].view(U32))
        return end

    def _lay_out(self, ids: tuple[CorticalID, ...], counts: tuple[int, ...], counter: int) -> None:
        """Header and records of a container of one XYZP struct, remembered for next time."""
        if len(ids) > MAX_AREAS:
            raise ContainerLimitError(f"{len(ids)} areas; one struct holds {MAX_AREAS}")
        total = self.begin(counter, [xyzp_struct_bytes(counts)])
        start = HEADER_BYTES + LENGTH_BYTES
        first, _ = self.put_records(start, ids, counts)
        self._data = self.root[first:total].view(U32)
        self._cached_views = 1
        self._ids = ids
        self._counts = counts

    def write_voxels(self, plan: EncodePlan, counter: int) -> int:
        """Write a container of one XYZP struct; returns its size."""
        root = self.root
        for owner in plan.owners:
            if owner is root:
                # The source lies in this very buffer: writing here would eat it.
                self.replace(len(root))
                break
        if plan.ids == self._ids and plan.counts == self._counts:
            _START.pack_into(self.mem, 0, FBC_VERSION, counter & COUNTER_MASK, 1)
        else:
            self._lay_out(plan.ids, plan.counts, counter)
        data = self._data
        assert data is not None
        if plan.parts and len(data):
            np.concatenate(plan.parts, out=data)
        return self._size_of_layout()

    def _size_of_layout(self) -> int:
        ids = self._ids
        data = self._data
        assert ids is not None
        assert data is not None
        return (
            HEADER_BYTES
            + LENGTH_BYTES
            + XYZP_HEADER_BYTES
            + AREA_RECORD_BYTES * len(ids)
            + data.nbytes
        )

    def reserve(self, layout: AreaLayout, counter: int) -> tuple[int, XYZPViews]:
        """Lay out one XYZP struct to be filled in place; returns size and views by area.

        The same layout again costs a comparison and a counter.
        """
        if self._layout is not None and tuple(layout) == self._layout:
            _START.pack_into(self.mem, 0, FBC_VERSION, counter & COUNTER_MASK, 1)
        else:
            areas = _checked_layout(layout)
            ids = tuple(areas)
            counts = tuple(areas.values())
            if ids == self._ids and counts == self._counts:
                _START.pack_into(self.mem, 0, FBC_VERSION, counter & COUNTER_MASK, 1)
            else:
                self._lay_out(ids, counts, counter)
            data = self._data
            assert data is not None
            views = {}
            at = 0
            for cortical_id, count in areas.items():
                views[cortical_id] = xyzp_views(data[at : at + 4 * count], count)
                at += 4 * count
            self._views = MappingProxyType(views)
            self._cached_views = 1 + 4 * len(views)
            self._layout = tuple(areas.items())
        assert self._views is not None
        return self._size_of_layout(), self._views


def xyzp_struct_bytes(counts: Sequence[int]) -> int:
    """Length of an XYZP struct whose areas have so many neurons each."""
    return XYZP_HEADER_BYTES + AREA_RECORD_BYTES * len(counts) + VOXEL_BYTES * sum(counts)


def _checked_layout(layout: AreaLayout) -> dict[CorticalID, int]:
    areas: dict[CorticalID, int] = {}
    for raw, number in layout:
        cortical_id = raw if isinstance(raw, CorticalID) else CorticalID(raw)
        try:
            count = operator.index(number)
        except TypeError:
            raise FeagiDataError(
                f"area {cortical_id!r}: {number!r} is no number of neurons"
            ) from None
        if count < 0:
            raise FeagiDataError(f"area {cortical_id!r}: {count} neurons; 0 is the least")
        if cortical_id in areas:
            raise FeagiDataError(f"area {cortical_id!r} stands twice in the layout")
        areas[cortical_id] = count
    return areas


def _idle_references() -> int:
    """References to `root` that a buffer nobody looks at holds, as this interpreter counts."""
    buffer = FrameBuffer()
    return sys.getrefcount(buffer.root)


_IDLE_REFERENCES: Final = _idle_references()
