# SPDX-License-Identifier: Apache-2.0
"""StaticFBC under any bytes, and against the host's container: same verdict, same content."""

from __future__ import annotations

import gzip
import struct
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_wire import END, OK, FeagiWireError, StaticFBC, check
from feagi_wire.const import E_RANGE, E_TYPE
from tests.micropython import ROOT

VECTORS = ROOT / "tests" / "vectors"
FILES = sorted([*VECTORS.glob("*/*.bin"), *VECTORS.glob("*/*.bin.gz")])

U32 = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 0x3FFFFFFF, 0x40000000, 0xFFFFFFFF])
IDS = st.tuples(st.sampled_from(b"_cmiog"), st.binary(min_size=7, max_size=7)).map(
    lambda t: bytes([t[0]]) + t[1]
)
VOXELS = st.lists(st.tuples(U32, U32, U32, U32), max_size=5)
AREAS = st.lists(st.tuples(IDS, VOXELS), max_size=4, unique_by=lambda area: area[0])


def read_vector(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


SMALL = [data for data in map(read_vector, FILES) if len(data) < 2000]


def packed(areas: list[tuple[bytes, list[tuple[int, int, int, int]]]], counter: int) -> bytes:
    """A container by the book, from nothing of ours."""
    at = 4 + 16 * len(areas)
    records = data = b""
    for key, voxels in areas:
        records += struct.pack("<8sII", key, at + len(data), 16 * len(voxels))
        data += b"".join(struct.pack("<I", voxel[k]) for k in range(4) for voxel in voxels)
    body = struct.pack("<BBH", 11, 1, len(areas)) + records + data
    return struct.pack("<BHB48xI", 4, counter, 1, len(body)) + body


def portable(data: bytes, behind: bytes = b"") -> Any:
    """The content as StaticFBC tells it: counter and per struct a value or areas; or None."""
    fbc = StaticFBC(bytearray(data + behind))
    rc = fbc.parse(len(data))
    if rc < 0:
        assert fbc.next_area() == END
        return None
    areas = []
    while (n := fbc.next_area()) != END:
        key = bytearray(8)
        fbc.area_id_into(key)
        x, y, z, p = (array("I", bytes(4 * n)) for _ in range(4))
        assert fbc.read_arrays(x, y, z, p) == n  # type: ignore[arg-type]
        for i in range(n):
            rc_get = fbc.get(i)
            if max(x[i], y[i], z[i]) > 0x3FFFFFFF:
                assert rc_get == E_RANGE
            else:
                assert rc_get == OK
                assert (fbc.x, fbc.y, fbc.z) == (x[i], y[i], z[i])
        low, high = array("H", bytes(32)), array("H", bytes(32))
        assert fbc.scan_q16(low, high, 16) == sum(v < 16 for v in x)
        areas.append((bytes(key), list(x), list(y), list(z), list(p)))
    assert len(areas) == rc
    values = []
    for index in range(data[3]):
        try:
            values.append((index, repr(fbc.json_value(index))))
        except FeagiWireError as error:
            if error.code != E_TYPE:
                return None
    assert fbc.buf == data + behind
    return fbc.counter, values, areas


def host(data: bytes) -> Any:
    """The same as the host's container tells it."""
    container = FeagiByteContainer.new_empty()
    try:
        container.try_write_data_by_copy_and_verify(data)
    except FeagiDataError:
        return None
    values: list[tuple[int, str]] = []
    areas: list[Any] = []
    for index in range(container.try_get_number_contained_structures()):
        part = container.try_create_new_struct_from_index(index)
        if isinstance(part, FeagiJSON):
            values.append((index, repr(part.value)))
            continue
        for key, arrays in part:
            x, y, z, p = arrays.borrow_xyzp_vectors()
            bits = p.view(np.uint32) if p.flags.aligned else p.copy().view(np.uint32)
            areas.append((key.as_bytes(), x.tolist(), y.tolist(), z.tolist(), bits.tolist()))
    return container.get_increment_counter(), values, areas


def last_of_each(content: Any) -> Any:
    """Areas with the same id: the last one counts, in the place of the first."""
    if content is None:
        return None
    counter, values, areas = content
    return counter, values, list({area[0]: area for area in areas}.values())


def agree(data: bytes) -> Any:
    """Both verdicts and contents, checked to be the same; and blind to what lies behind."""
    ours = portable(data)
    assert portable(data, b"\xff" * 64) == ours
    assert portable(data, b"\x00" * 64) == ours
    theirs = host(data)
    assert (ours is None) == (theirs is None)
    if data and len(data) > 3 and data[3] == 1:
        assert last_of_each(ours) == last_of_each(theirs)
    return ours


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split("_")[0])
def test_vectors(path: Path) -> None:
    data = read_vector(path)
    if len(data) > 100_000:
        assert StaticFBC(bytearray(data)).parse(len(data)) == 1
        return
    assert (agree(data) is None) == (path.parent.name == "malformed")


@given(AREAS, st.integers(0, 65535))
def test_written_bytes_are_the_same(
    areas: list[tuple[bytes, list[tuple[int, int, int, int]]]], counter: int
) -> None:
    expected = packed(areas, counter)
    fbc = StaticFBC(bytearray(len(expected) + 16 * len(areas)))
    check(fbc.begin(counter, len(areas)))
    for key, voxels in areas:
        check(fbc.begin_area(key, len(voxels) + 1))  # room left over closes up
        x, y, z, p = (array("I", [voxel[k] for voxel in voxels]) for k in range(4))
        check(fbc.put_arrays(x, y, z, bytearray(p), len(voxels)))
        check(fbc.end_area())
    assert bytes(fbc.buf[: check(fbc.end())]) == expected
    written = FeagiByteContainer.new_empty()
    views = written.reserve_xyzp([(key, len(voxels)) for key, voxels in areas], counter)
    for (_, voxels), parts in zip(areas, views.values(), strict=True):
        for k, part in enumerate(parts):
            part.view(np.uint32)[:] = [voxel[k] for voxel in voxels]
    assert written.copy_out_as_byte_vector() == expected
    assert agree(expected) is not None


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    agree(data)
    agree(b"\x04\0\0" + data)


@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4),
    st.integers(-8, 8),
)
def test_damaged_vectors(data: bytes, changes: list[tuple[int, int]], longer: int) -> None:
    spoilt = bytearray(data)
    for at, value in changes:
        if spoilt:
            # half of the changes go where the structure is
            spoilt[at % min(len(spoilt), 100 if at & 1 else 2000)] = value
    agree(bytes(spoilt[: len(spoilt) + longer]) if longer < 0 else bytes(spoilt) + bytes(longer))


CHANGES = st.tuples(st.integers(48, 200), st.sampled_from([0, 1, 15, 16, 63, 64, 255]))


@given(AREAS, st.lists(CHANGES, min_size=1, max_size=3))
def test_damaged_tables(
    areas: list[tuple[bytes, list[tuple[int, int, int, int]]]], changes: list[tuple[int, int]]
) -> None:
    spoilt = bytearray(packed(areas, 1))
    for at, value in changes:
        spoilt[at % len(spoilt)] = value
    agree(bytes(spoilt))
