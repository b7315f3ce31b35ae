# SPDX-License-Identifier: Apache-2.0
"""Cortical ids: the 8 bytes that name an area of the brain.

The first byte decides the kind: `_` core, `c` custom, `m` memory, `i` input, `o` output,
`g` class. Input and output ids are laid out as

    [i|o] u u u | data type + 16 * sub-unit | flags | group u16

with flags bit 0 = incremental (else absolute) and bit 1 = fractional (else linear).
Measured on feagi-rust-py-libs 0.0.120; the shipped library checks nothing but the first byte.
"""

from .const import E_ID, E_RANGE, OK, POSE_ESTIMATION

KINDS = b"_cmiog"


def id_is_valid(buf: "bytes | bytearray | memoryview", start: int = 0) -> int:
    """OK when `buf[start]` opens a possible cortical id, E_ID else. Allocates nothing."""
    k = buf[start]
    if k == 95 or k == 99 or k == 109 or k == 105 or k == 111 or k == 103:  # _ c m i o g
        return OK
    return E_ID


def pack_unit_id(
    out: bytearray,
    unit: bytes,
    data_type: int,
    sub_unit: int = 0,
    group: int = 0,
    flags: int = 0,
) -> int:
    """Write the id of an input or output unit into `out[0:8]`.

    `unit` is its 4-letter code such as b"iinf" or b"omot". Returns OK, E_ID for a code that is
    neither input nor output, E_RANGE for a data type above 11, a sub-unit above 15, a group
    above 65535 or flags above 3.
    """
    if len(unit) != 4 or (unit[0] != 105 and unit[0] != 111):
        return E_ID
    if data_type < 0 or data_type > POSE_ESTIMATION or sub_unit < 0 or sub_unit > 15:
        return E_RANGE
    if group < 0 or group > 65535 or flags < 0 or flags > 3:
        return E_RANGE
    for i in range(4):
        out[i] = unit[i]
    out[4] = data_type | sub_unit << 4
    out[5] = flags
    out[6] = group & 255
    out[7] = group >> 8
    return OK
