# SPDX-License-Identifier: Apache-2.0
"""StaticFBC: a FEAGI byte container over a buffer that the caller brings.

Nothing is allocated after `__init__`, on either side and in any error. A writer makes a container
with one XYZP struct; the reader takes every container the real library takes, except that it
refuses area data overlapping the area records, structs shorter than their own header, and a
container of which any struct is bad (docs/wire-format.md lists these).

    writer   begin, then for each area begin_area, add or put or put_arrays, end_area; then end
    reader   parse, then next_area until END, and per area get, read_arrays or scan_q16

Coordinates given one by one are limited to 2**30 - 1 (what a 32-bit MicroPython holds without
allocating); put_arrays and read_arrays carry the full u32 range.
"""

from array import array
from struct import pack_into

from .const import (
    AGENT_ID_BYTES,
    E_CAPACITY,
    E_CORRUPT,
    E_FULL,
    E_ID,
    E_RANGE,
    E_SHORT,
    E_STATE,
    E_TYPE,
    E_VERSION,
    END,
    FBC_VERSION,
    HEADER_BYTES,
    OK,
    SMALL_INT_MAX,
    STRUCT_JSON,
)
from .cortical_id import id_is_valid
from .errors import check
from .kernels import copy8, copy16, equal8, scan_q16, u32, voxel
from .views import view

MYPY = False
if MYPY:
    from typing import Any

    Array = array[int] | array[float] | bytearray

_STRUCT = HEADER_BYTES + 4  # where a writer's only struct starts
_RECORDS = _STRUCT + 4


class StaticFBC:
    """One container over `buf` (bytearray, 4-aligned as every bytearray is).

    Attributes: buf, capacity (bytes), length (bytes of the container written or parsed),
    counter (u16 increment counter), and after `get` x, y, z (ints) and q16 (potential, Q16.16).
    """

    def __init__(self, buf: bytearray) -> None:
        n = len(buf) & ~3
        self.buf = buf
        self.capacity = n
        self.length = 0
        self.counter = 0
        self._i = view(buf, "I", n >> 2)
        self._f = view(buf, "f", n >> 2)
        self._h = view(buf, "H", n >> 1)
        # writer: announced areas, areas ended, write offset, announced and written voxels, and
        # where the area's x begin, in words; y, z and p follow, each announced voxels long
        # reader: structs, next struct and its offset, current area record, data, voxels, struct
        self._next_at = self._record = self._data = self._xyzp_at = self._x_at = 0
        self._room = -1
        self._forget()
        self._voxel = array("i", [0, 0, 0, 0])
        # windows onto the arrays last handed to put_arrays and read_arrays, see windows.py
        self._given: "list[Any] | None" = None
        self._taken: "list[Any] | None" = None

    # -- writer -----------------------------------------------------------------------------

    def begin(self, counter: int, areas: int, agent_id: "bytes | None" = None) -> int:
        """Open a container of `areas` areas. `agent_id`: 48 bytes, None for all zero."""
        self._forget()
        if areas < 0 or areas > 65535:
            return E_RANGE
        at = _RECORDS + 16 * areas
        if at > self.capacity:
            return E_CAPACITY
        if agent_id is None:
            agent_id = b""  # pack_into fills up with zeros
        elif len(agent_id) != AGENT_ID_BYTES:
            return E_RANGE
        counter &= 0xFFFF
        pack_into("<BHB48sIBBH", self.buf, 0, FBC_VERSION, counter, 1, agent_id, 0, 11, 1, areas)
        self.counter = counter
        self._announced = areas
        self._at = at
        return OK

    def begin_area(self, cortical_id: "bytes | bytearray", n: int) -> int:
        """Open an area of at most `n` voxels; fewer may be written."""
        if self._room >= 0 or self._ended >= self._announced:
            return E_STATE
        if n < 0:
            return E_RANGE
        if len(cortical_id) != 8 or id_is_valid(cortical_id) != OK:
            return E_ID
        at = self._at
        # compared by division: 16 * n may not fit a small integer
        if n > (self.capacity - at) >> 4:
            return E_CAPACITY
        pack_into("<8sII", self.buf, _RECORDS + 16 * self._ended, cortical_id, at - _STRUCT, 16 * n)
        self._room = n
        self._k = 0
        self._x_at = at >> 2
        return OK

    def add(self, x: int, y: int, z: int, p: float) -> int:
        """Append a voxel; its index, or E_FULL, or E_RANGE for a coordinate outside 0..2**30-1."""
        k = self._k
        rc = self.put(k, x, y, z, p)
        return k if rc == OK else rc

    def put(self, i: int, x: int, y: int, z: int, p: float) -> int:
        """Write voxel `i` (at most one beyond the last written). OK, E_FULL or E_RANGE."""
        n = self._room
        if i < 0 or i >= n or i > self._k:
            return E_FULL
        if x < 0 or y < 0 or z < 0 or x > SMALL_INT_MAX or y > SMALL_INT_MAX or z > SMALL_INT_MAX:
            return E_RANGE
        w = self._i
        at = self._x_at + i
        w[at] = x
        at += n
        w[at] = y
        at += n
        w[at] = z
        self._f[at + n] = p  # type: ignore[call-overload]
        if i == self._k:
            self._k = i + 1
        return OK

    def put_arrays(
        self,
        xs: "array[int] | bytearray",
        ys: "array[int] | bytearray",
        zs: "array[int] | bytearray",
        ps: "array[float] | bytearray",
        n: int,
    ) -> int:
        """Append n voxels from array('I') x, y, z and array('f') p (or bytes holding the same).

        The first call with new arrays makes windows onto them; calls with the same ones
        allocate nothing. OK, E_FULL, or E_RANGE when an array holds fewer than n items.
        """
        k = self._k
        room = self._room
        if n < 0 or k + n > room:
            return E_FULL
        v = self._given
        if v is None or v[0] is not xs or v[1] is not ys or v[2] is not zs or v[3] is not ps:
            from .windows import windows  # here: few boards have arrays

            v = self._given = windows(xs, ys, zs, ps)
        n2 = n + n
        if v[8] < n2:
            return E_RANGE
        h = self._h
        at = (self._x_at + k) * 2
        room += room
        copy16(h, at, v[4], 0, n2)
        at += room
        copy16(h, at, v[5], 0, n2)
        at += room
        copy16(h, at, v[6], 0, n2)
        copy16(h, at + room, v[7], 0, n2)
        self._k = k + n
        return OK

    def end_area(self) -> int:
        """Close the open area; closes the gaps when fewer voxels came than were announced."""
        n = self._room
        if n < 0:
            return E_STATE
        k = self._k
        if k < n:
            h = self._h
            k2 = k + k
            n += n
            at = self._x_at * 2
            d = at
            for _ in range(3):
                at += n
                d += k2
                copy16(h, d, h, at, k2)
            self._i[(_RECORDS + 12 + 16 * self._ended) >> 2] = 16 * k
        self._ended += 1
        self._at += 16 * k
        self._room = -1
        return OK

    def end(self) -> int:
        """Close the container: its length in bytes, or E_STATE while areas are missing or open."""
        if self._ended != self._announced or self._room >= 0 or self._at == 0:
            return E_STATE
        self._i[HEADER_BYTES >> 2] = self._at - _STRUCT
        self.length = self._at
        return self._at

    def _forget(self) -> None:
        # a reader's offsets must not outlive its bytes, nor a writer's: kernels check no bounds
        self.length = 0
        self._announced = 0
        self._ended = 0
        self._at = 0
        self._room = -1
        self._k = 0
        self._n = -1
        self._structs = 0
        self._next = 0
        self._left = 0

    # -- reader -----------------------------------------------------------------------------

    def parse(self, length: int) -> int:
        """Validate `buf[:length]` whole; the number of areas in all its structs, or a code.

        After OK every offset can be trusted. Texts of JSON structs are checked by `json_value`.
        """
        self._forget()
        b = self.buf
        if length > self.capacity and length > len(b):
            return E_CAPACITY
        if length < HEADER_BYTES:
            return E_SHORT
        if b[0] != FBC_VERSION:
            return E_VERSION
        structs = b[3]
        o = HEADER_BYTES + 4 * structs
        if o > length:
            return E_SHORT
        areas = 0
        j = HEADER_BYTES
        end = o
        while j < end:
            size = u32(b, j)
            j += 4
            if size < 0 or size > length - o:
                return E_SHORT
            if size < 2:
                return E_CORRUPT
            kind = b[o]
            if kind == 11:
                rc = self._parse_xyzp(o, size)
                if rc < 0:
                    return rc
                areas += rc
            elif kind != STRUCT_JSON:
                return E_TYPE
            elif b[o + 1] != 1:
                return E_VERSION
            elif size == 2:
                return E_CORRUPT
            o += size
        self._structs = structs
        self._next_at = end
        self.length = length
        self.counter = b[1] | b[2] << 8
        return areas

    def _parse_xyzp(self, o: int, size: int) -> int:
        b = self.buf
        if b[o + 1] != 1:
            return E_VERSION
        if size < 4:
            return E_CORRUPT
        areas = b[o + 2] | b[o + 3] << 8
        records = 4 + 16 * areas
        if records > size:
            return E_CORRUPT
        h = o + 4
        end = o + records
        while h < end:
            if id_is_valid(b, h) != OK:
                return E_ID
            at = u32(b, h + 8)
            n = u32(b, h + 12)
            if at < 0 or n < 0 or n & 15 or at > size or n > size - at:
                return E_CORRUPT
            if n and at < records:
                return E_CORRUPT
            h += 16
        return areas

    def next_area(self) -> int:
        """Go to the next area: its number of voxels, or END."""
        b = self.buf
        while self._left == 0:
            if self._next >= self._structs:
                self._n = -1
                return END
            o = self._next_at
            self._next_at = o + u32(b, HEADER_BYTES + 4 * self._next)
            self._next += 1
            if b[o] == 11:
                self._xyzp_at = o
                self._record = o - 12
                self._left = b[o + 2] | b[o + 3] << 8
        self._left -= 1
        r = self._record + 16
        self._record = r
        self._data = self._xyzp_at + u32(b, r + 8)
        n = u32(b, r + 12) >> 4
        self._n = n
        return n

    def area_id_is(self, cortical_id: "bytes | bytearray") -> bool:
        """Whether the current area bears this id (8 bytes)."""
        return equal8(self.buf, self._record, cortical_id, 0, 8) == 1

    def area_id_into(self, buf8: bytearray) -> int:
        """Copy the current area's id into `buf8[0:8]`."""
        copy8(buf8, 0, self.buf, self._record, 8)
        return OK

    def get(self, i: int) -> int:
        """Load voxel `i` of the current area into .x .y .z .q16. OK, E_FULL or E_RANGE."""
        n = self._n
        if i < 0 or i >= n:
            return E_FULL
        return voxel(self.buf, self._data + 4 * i, 4 * n, self._voxel)

    @property
    def x(self) -> int:
        """x of the voxel last loaded."""
        return self._voxel[0]

    @property
    def y(self) -> int:
        """y of the voxel last loaded."""
        return self._voxel[1]

    @property
    def z(self) -> int:
        """z of the voxel last loaded."""
        return self._voxel[2]

    @property
    def q16(self) -> int:
        """Potential of the voxel last loaded, as Q16.16 (65536 is 1.0), saturated."""
        return self._voxel[3]

    def read_arrays(
        self,
        xs: "array[int] | bytearray",
        ys: "array[int] | bytearray",
        zs: "array[int] | bytearray",
        ps: "array[float] | bytearray",
    ) -> int:
        """Copy the current area into array('I') x, y, z and array('f') p; its voxels.

        E_CAPACITY when an array is too small, E_STATE without a current area.
        """
        n = self._n
        if n < 0:
            return E_STATE
        v = self._taken
        if v is None or v[0] is not xs or v[1] is not ys or v[2] is not zs or v[3] is not ps:
            from .windows import windows

            v = self._taken = windows(xs, ys, zs, ps)
        n4 = n * 4
        if v[8] * 2 < n4:
            return E_CAPACITY
        o = self._data
        b = self.buf
        for i in range(9, 13):
            copy8(v[i], 0, b, o, n4)
            o += n4
        return n

    def scan_q16(self, lo: "array[int]", hi: "array[int]", size: int) -> int:
        """Spread the current area's potentials over x: lo[x], hi[x] = halves of Q16.16.

        `lo` and `hi`: array('H') of at least `size` items. Returns the voxels taken; those with
        x >= size are passed over. E_CAPACITY when a plane is shorter than `size`, E_STATE without
        a current area.
        """
        if self._n < 0:
            return E_STATE
        if size > len(lo) or size > len(hi):
            return E_CAPACITY
        return scan_q16(self.buf, self._data, self._n, lo, hi, size)

    def json_value(self, index: int) -> object:
        """The value of struct `index`, which must be JSON. Allocates; for control, not for data.

        Raises FeagiWireError: E_TYPE for no such struct or another type, and those of
        `json_text.json_text_value`.
        """
        if index < 0 or index >= self._structs:
            check(E_TYPE)
        b = self.buf
        o = HEADER_BYTES + 4 * self._structs
        for j in range(index):
            o += u32(b, HEADER_BYTES + 4 * j)
        size = u32(b, HEADER_BYTES + 4 * index)
        if b[o] != STRUCT_JSON:
            check(E_TYPE)
        # loaded here: few boards ever read JSON
        from .json_text import json_text_value

        return json_text_value(bytes(memoryview(b)[o + 2 : o + size]))
