# SPDX-License-Identifier: Apache-2.0
"""Verification of a whole container: header, table, structs, areas, JSON text.

Accepts what the shipped library accepts (gaps, any order of areas, areas that share data, several
XYZP structs, bytes after the last struct), with these exceptions:

- area data that overlaps the area records is refused,
- structs shorter than 2 bytes and XYZP structs shorter than their records are refused, where the
  library panics or puts the refusal off until the struct is read,
- one bad struct refuses the whole container, where the library refuses only that struct.

Layout, little-endian: version u8, counter u16, struct count u8, agent id 48 bytes, u32 length of
each struct, the structs. Measured on feagi-rust-py-libs 0.0.120, see docs/wire-format.md.
"""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from feagi_io_host.core.errors import (
    ContainerTooShortError,
    ContainerVersionError,
    CorticalIDError,
    StructCorruptError,
    StructTypeError,
    StructVersionError,
)
from feagi_io_host.core.json_struct import value_from_text
from feagi_io_host.core.types import FeagiByteStructureType
from feagi_io_host.core.voxels import AreaRecord
from feagi_wire.const import (
    AREA_RECORD_BYTES,
    FBC_VERSION,
    HEADER_BYTES,
    STRUCT_JSON,
    STRUCT_VERSION,
    STRUCT_XYZP,
    VOXEL_BYTES,
)
from feagi_wire.cortical_id import KINDS

COUNT_AT: Final = 3  # position of the struct count
STRUCT_HEADER_BYTES: Final = 2  # type and version
XYZP_HEADER_BYTES: Final = 4  # type, version, u16 area count
LENGTH_BYTES: Final = 4  # of one entry of the length table

_OLD_HEADER_BYTES: Final = 12  # of sources that say version 4 with an 8-byte agent id
_AREA_COUNT: Final = struct.Struct("<H")
_RECORD: Final = struct.Struct("<8sII")
_VOXEL_MASK: Final = VOXEL_BYTES - 1


class JsonEntry(NamedTuple):
    """A verified JSON struct and its value."""

    value: Any
    struct_type: FeagiByteStructureType = FeagiByteStructureType.JSON


class XyzpEntry(NamedTuple):
    """A verified XYZP struct: where the voxels of each area lie."""

    start: int  # first byte of the struct, counted from the container's first byte
    records: list[AreaRecord]
    struct_type: FeagiByteStructureType = FeagiByteStructureType.NEURON_CATEGORICAL_XYZP


StructEntry = JsonEntry | XyzpEntry


def verify(data: memoryview) -> list[StructEntry]:
    """Check every byte that decides how `data` (format B) is read; return its structs in order.

    Raises a FeagiDataError of the fitting kind for anything that is no valid container, and
    nothing else whatever the bytes are.
    """
    size = len(data)
    if size < HEADER_BYTES:
        raise ContainerTooShortError(
            f"container of {size} bytes; its header alone has {HEADER_BYTES}{_old_layout(data)}"
        )
    if data[0] != FBC_VERSION:
        raise ContainerVersionError(
            f"container of {size} bytes has version {data[0]}; only {FBC_VERSION} is spoken here"
        )
    count = data[COUNT_AT]
    start = HEADER_BYTES + LENGTH_BYTES * count
    if size < start:
        raise ContainerTooShortError(
            f"container of {size} bytes announces {count} structs; header and length table alone "
            f"need {start}{_old_layout(data)}"
        )
    entries: list[StructEntry] = []
    for length in struct.unpack_from(f"<{count}I", data, HEADER_BYTES):
        if start + length > size:
            raise ContainerTooShortError(
                f"struct {len(entries)} reaches from byte {start} to {start + length}; "
                f"the container has {size} bytes{_old_layout(data)}"
            )
        entries.append(_entry(data, start, length, len(entries)))
        start += length
    return entries


def _entry(data: memoryview, start: int, length: int, index: int) -> StructEntry:
    if length < STRUCT_HEADER_BYTES:
        raise StructCorruptError(
            f"struct {index} has {length} bytes; the least is {STRUCT_HEADER_BYTES}"
            f"{_old_layout(data)}"
        )
    kind = data[start]
    if kind not in (STRUCT_XYZP, STRUCT_JSON):
        raise StructTypeError(
            f"struct {index} at byte {start} has type {kind}; {STRUCT_JSON} (JSON) and "
            f"{STRUCT_XYZP} (XYZP) exist{_old_layout(data)}"
        )
    version = data[start + 1]
    if version != STRUCT_VERSION:
        raise StructVersionError(
            f"struct {index} of type {kind} has version {version}; "
            f"only {STRUCT_VERSION} is spoken here"
        )
    if kind == STRUCT_JSON:
        return JsonEntry(value_from_text(data[start + STRUCT_HEADER_BYTES : start + length]))
    return XyzpEntry(start, _area_records(data, start, length, index))


def _area_records(data: memoryview, start: int, length: int, index: int) -> list[AreaRecord]:
    if length < XYZP_HEADER_BYTES:
        raise StructCorruptError(
            f"XYZP struct {index} has {length} bytes; the least is {XYZP_HEADER_BYTES}"
        )
    areas: int = _AREA_COUNT.unpack_from(data, start + 2)[0]
    body = XYZP_HEADER_BYTES + AREA_RECORD_BYTES * areas
    if body > length:
        raise StructCorruptError(
            f"XYZP struct {index} of {length} bytes announces {areas} areas; "
            f"their records alone end at byte {body}"
        )
    table = data[start + XYZP_HEADER_BYTES : start + body]
    records: list[AreaRecord] = list(_RECORD.iter_unpack(table))
    # The first bytes of all ids at once; what is left after taking the good ones out is bad.
    # This loop and line are most of the time that receiving a container takes.
    if bytes(table[::AREA_RECORD_BYTES]).translate(None, KINDS):
        _check_areas(records, body, length, index)
    for _, offset, used in records:
        if offset < body or used & _VOXEL_MASK or offset + used > length:
            _check_areas(records, body, length, index)
            break
    return records


def _check_areas(records: list[AreaRecord], body: int, length: int, index: int) -> None:
    """Check area by area and say which rule is broken by which; slower than finding that one is."""
    for raw, offset, used in records:
        if raw[0] not in KINDS:
            raise CorticalIDError(
                f"XYZP struct {index}: cortical id {raw!r} opens with byte {raw[0]}; "
                f"it must be one of {KINDS.decode()}"
            )
        if used & _VOXEL_MASK:
            raise StructCorruptError(
                f"XYZP struct {index}: area {raw!r} has {used} bytes of voxels; "
                f"a multiple of {VOXEL_BYTES} is needed"
            )
        if offset + used > length:
            raise StructCorruptError(
                f"XYZP struct {index}: voxels of area {raw!r} reach from byte {offset} to "
                f"{offset + used}; the struct has {length}"
            )
        if used and offset < body:
            raise StructCorruptError(
                f"XYZP struct {index}: voxels of area {raw!r} begin at byte {offset}, inside the "
                f"area records, which end at byte {body}"
            )


def _old_layout(data: memoryview) -> str:
    """A hint for the error when the lengths fit the layout with an 8-byte agent id."""
    size = len(data)
    if size < _OLD_HEADER_BYTES or data[0] != FBC_VERSION:
        return ""
    count = data[COUNT_AT]
    start = _OLD_HEADER_BYTES + LENGTH_BYTES * count
    if start > size or (count == 0 and size > start):
        return ""
    for length in struct.unpack_from(f"<{count}I", data, _OLD_HEADER_BYTES):
        if (
            length < STRUCT_HEADER_BYTES
            or start + length > size
            or data[start] not in (STRUCT_JSON, STRUCT_XYZP)
        ):
            return ""
        start += length
    return (
        "; the lengths fit the older layout of version 4 with an 8-byte agent id: "
        "the sender must write the 48-byte one"
    )
