# SPDX-License-Identifier: Apache-2.0
"""Neuron voxels as numpy arrays, and the mapping from cortical areas to them.

On the wire the voxels of one area are a structure of arrays: n times u32 x, n times u32 y,
n times u32 z, n times f32 p, little-endian. Voxels that came off the wire are therefore one piece
of memory ("packed") and travel on with a single copy; voxels from a user's arrays are four.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from feagi_io_host.core.errors import CorticalIDError, VoxelArrayError
from feagi_io_host.core.types import CorticalID, FeagiByteStructureType
from feagi_wire.const import VOXEL_BYTES

U8Array = npt.NDArray[np.uint8]
U32Array = npt.NDArray[np.uint32]
F32Array = npt.NDArray[np.float32]
XYZP = tuple[U32Array, U32Array, U32Array, F32Array]

# Fixed as little-endian: on the wire's machines this is the native type, nothing is converted.
U32: Final = np.dtype("<u4")
F32: Final = np.dtype("<f4")


def xyzp_views(packed: U32Array, count: int) -> XYZP:
    """Views of x, y, z and p into `packed`, which holds 4 * count little-endian words."""
    return (
        packed[:count],
        packed[count : 2 * count],
        packed[2 * count : 3 * count],
        packed[3 * count :].view(F32),
    )


class NeuronVoxelXYZPArrays:
    """Neurons of one cortical area: x, y, z (u32) and potential p (f32), each of shape (n,).

    Holds the arrays it was made from and copies none of them: who changes them changes it.
    """

    __slots__ = ("_count", "_packed", "_parts", "_xyzp")

    _count: int
    _packed: U8Array | U32Array | None  # 16 * n bytes in one piece, when there is one
    _xyzp: XYZP | None  # made on demand from _packed
    _parts: tuple[U32Array, ...] | None  # the same as u32 words, in wire order

    def __init__(self) -> None:
        """No neurons. See `new_from_numpy` and `new_with_length`."""
        self._count = 0
        self._packed = np.zeros(0, U32)
        self._xyzp = None
        self._parts = None

    @classmethod
    def new_from_numpy(
        cls, x: U32Array, y: U32Array, z: U32Array, p: F32Array
    ) -> NeuronVoxelXYZPArrays:
        """Voxels over the caller's arrays, without a copy.

        x, y, z are uint32, p is float32, all of shape (n,). Raises VoxelArrayError for another
        dtype, another shape or unequal lengths.
        """
        for name, array, dtype in (("x", x, U32), ("y", y, U32), ("z", z, U32), ("p", p, F32)):
            if not isinstance(array, np.ndarray):
                raise VoxelArrayError(f"{name} is {type(array).__name__}, not a numpy array")
            if array.dtype != dtype:
                raise VoxelArrayError(
                    f"{name} has dtype {array.dtype}; it must be {dtype.name}: "
                    f"{name}.astype(numpy.{dtype.name})"
                )
            if array.ndim != 1:
                raise VoxelArrayError(f"{name} has shape {array.shape}; it must be one row")
        count = len(x)
        if not count == len(y) == len(z) == len(p):
            raise VoxelArrayError(
                f"arrays of unequal length: x {count}, y {len(y)}, z {len(z)}, p {len(p)}"
            )
        self = cls.__new__(cls)
        self._count = count
        self._packed = None
        self._xyzp = (x, y, z, p)
        self._parts = (x, y, z, p.view(U32))
        return self

    @classmethod
    def new_with_length(cls, count: int) -> NeuronVoxelXYZPArrays:
        """`count` voxels of zeros to be written through `borrow_xyzp_vectors`.

        Their memory is one piece in wire order, so encoding them is a single copy.
        """
        if count < 0:
            raise VoxelArrayError(f"{count} voxels; there cannot be fewer than 0")
        return cls._from_packed(np.zeros(4 * count, U32), count)

    @classmethod
    def _from_packed(cls, packed: U8Array | U32Array, count: int) -> NeuronVoxelXYZPArrays:
        """Over 16 * count bytes of wire data. Private: nothing is checked here."""
        self = cls.__new__(cls)
        self._count = count
        self._packed = packed
        self._xyzp = None
        self._parts = None
        return self

    def borrow_xyzp_vectors(self) -> XYZP:
        """Views (x, y, z, p) of shape (n,): uint32 three times and float32; nothing is copied.

        Views of received data are read-only.
        """
        xyzp = self._xyzp
        if xyzp is None:
            xyzp = self._xyzp = xyzp_views(self.wire_parts()[0], self._count)
        return xyzp

    def wire_parts(self) -> tuple[U32Array, ...]:
        """The voxels as u32 words in wire order: one array of 4n when packed, else four of n."""
        parts = self._parts
        if parts is None:
            packed = self._packed
            assert packed is not None
            parts = self._parts = (packed.view(U32),)
        return parts

    def copy(self) -> NeuronVoxelXYZPArrays:
        """Voxels of the same values in memory of their own, packed and writable."""
        packed = np.zeros(4 * self._count, U32)
        if self._count:
            np.concatenate(self.wire_parts(), out=packed)
        return NeuronVoxelXYZPArrays._from_packed(packed, self._count)

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        """Same neurons in the same order, bit for bit (so a NaN equals itself)."""
        if not isinstance(other, NeuronVoxelXYZPArrays):
            return NotImplemented
        if self._count != other._count:
            return False
        return all(
            np.array_equal(mine.view(U32), theirs.view(U32))
            for mine, theirs in zip(
                self.borrow_xyzp_vectors(), other.borrow_xyzp_vectors(), strict=True
            )
        )

    __hash__ = None  # type: ignore[assignment]  # the arrays may be changed

    def __repr__(self) -> str:
        return f"<NeuronVoxelXYZPArrays of {self._count} neurons>"


# One area of a verified XYZP struct: cortical id, offset of its voxels from the struct's first
# byte, their length in bytes. As on the wire: nothing is made of an area that no one reads.
AreaRecord = tuple[bytes, int, int]


class EncodePlan(NamedTuple):
    """What an encoder needs of mapped voxels, worked out once for as long as they keep shape."""

    ids: tuple[CorticalID, ...]
    counts: tuple[int, ...]
    parts: list[U32Array]  # all voxel words in wire order
    owners: list[object]  # memory the parts look at, to notice a source inside the target


class CorticalMappedXYZPNeuronVoxels:
    """Voxels of several cortical areas, in the order in which the areas were inserted.

    Read off a container it is lazy: arrays come into being when they are first asked for.
    """

    __slots__ = ("_areas", "_frame", "_plan", "_records", "_start")

    _areas: dict[CorticalID, NeuronVoxelXYZPArrays] | None  # None while still lazy
    _frame: U8Array | None
    _start: int
    _records: list[AreaRecord]
    _plan: EncodePlan | None

    byte_structure_type: Final = FeagiByteStructureType.NEURON_CATEGORICAL_XYZP

    def __init__(self, mappings: Mapping[CorticalID, NeuronVoxelXYZPArrays] | None = None) -> None:
        self._areas = {}
        self._frame = None
        self._start = 0
        self._records = []
        self._plan = None
        for cortical_id, arrays in (mappings or {}).items():
            self.insert(cortical_id, arrays)

    @classmethod
    def _from_records(
        cls, frame: U8Array, start: int, records: list[AreaRecord]
    ) -> CorticalMappedXYZPNeuronVoxels:
        """Lazily over verified records of the struct that begins at byte `start` of `frame`.

        Private: nothing is checked here.
        """
        self = cls.__new__(cls)
        self._areas = None
        self._frame = frame
        self._start = start
        self._records = records
        self._plan = None
        return self

    def _own_areas(self) -> dict[CorticalID, NeuronVoxelXYZPArrays]:
        areas = self._areas
        if areas is None:
            frame = self._frame
            assert frame is not None
            start = self._start
            new = NeuronVoxelXYZPArrays._from_packed
            make_id = CorticalID.trusted
            # A later record of the same area replaces an earlier one, as in the real library.
            areas = self._areas = {
                make_id(raw): new(
                    frame[start + offset : start + offset + used], used // VOXEL_BYTES
                )
                for raw, offset, used in self._records
            }
            self._frame = None
            self._records = []
        return areas

    @property
    def mappings(self) -> Mapping[CorticalID, NeuronVoxelXYZPArrays]:
        """The areas as a read-only mapping; change them with insert, remove and clear."""
        return MappingProxyType(self._own_areas())

    def insert(self, cortical_id: CorticalID | bytes, arrays: NeuronVoxelXYZPArrays) -> None:
        """Set the voxels of one area, replacing those it had.

        Raises CorticalIDError for bytes that are no cortical id, VoxelArrayError for anything
        but NeuronVoxelXYZPArrays.
        """
        if not isinstance(arrays, NeuronVoxelXYZPArrays):
            raise VoxelArrayError(
                f"voxels come as NeuronVoxelXYZPArrays, not as {type(arrays).__name__}"
            )
        if not isinstance(cortical_id, CorticalID):
            cortical_id = CorticalID(cortical_id)
        self._own_areas()[cortical_id] = arrays
        self._plan = None

    def remove(self, cortical_id: CorticalID | bytes) -> NeuronVoxelXYZPArrays:
        """Take one area out and return its voxels; CorticalIDError when it is not here."""
        arrays = self._own_areas().pop(cortical_id, None)  # type: ignore[arg-type]
        if arrays is None:
            raise CorticalIDError(f"no voxels of area {cortical_id!r} among these {len(self)}")
        self._plan = None
        return arrays

    def clear(self) -> None:
        """Take all areas out."""
        self._areas = {}
        self._frame = None
        self._start = 0
        self._records = []
        self._plan = None

    def count_neurons(self) -> int:
        """Neurons of all areas together."""
        return sum(len(arrays) for arrays in self._own_areas().values())

    def encode_plan(self) -> EncodePlan:
        """Ids, neuron counts and voxel words in wire order, for an encoder; kept until changed."""
        plan = self._plan
        if plan is None:
            parts: list[U32Array] = []
            counts = []
            areas = self._own_areas()
            for arrays in areas.values():
                counts.append(arrays._count)
                parts += arrays.wire_parts()
            owners = {id(base): base for part in parts if (base := part.base) is not None}
            plan = self._plan = EncodePlan(
                tuple(areas), tuple(counts), parts, list(owners.values())
            )
        return plan

    def __getitem__(self, cortical_id: CorticalID | bytes) -> NeuronVoxelXYZPArrays:
        """The voxels of one area; KeyError when it is not here."""
        return self._own_areas()[cortical_id]  # type: ignore[index]

    def __contains__(self, cortical_id: object) -> bool:
        return cortical_id in self._own_areas()

    def __len__(self) -> int:
        return len(self._own_areas())

    def __iter__(self) -> Iterator[tuple[CorticalID, NeuronVoxelXYZPArrays]]:
        return iter(self._own_areas().items())

    def __eq__(self, other: object) -> bool:
        """Same areas with the same neurons, whatever the order of the areas."""
        if not isinstance(other, CorticalMappedXYZPNeuronVoxels):
            return NotImplemented
        return self._own_areas() == other._own_areas()

    __hash__ = None  # type: ignore[assignment]  # areas come and go

    def __repr__(self) -> str:
        return f"<CorticalMappedXYZPNeuronVoxels of {len(self)} areas>"
