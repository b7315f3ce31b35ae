# SPDX-License-Identifier: Apache-2.0
"""What the codes mean, in words; loaded when the first error is raised."""

from .const import (
    E_CAPACITY,
    E_CORRUPT,
    E_CRC,
    E_FULL,
    E_ID,
    E_RANGE,
    E_SHORT,
    E_STATE,
    E_TIMEOUT,
    E_TYPE,
    E_VERSION,
)

TEXTS = {
    E_CAPACITY: "does not fit into the buffer; give a larger one",
    E_STATE: "calls out of order: begin, begin_area, add, end_area, end",
    E_FULL: "more voxels than announced, or the line is still busy",
    E_SHORT: "truncated: shorter than its header says",
    E_VERSION: "unsupported version (container 4, struct 1, link 1)",
    E_TYPE: "unknown struct type (1 JSON and 11 XYZP exist)",
    E_CORRUPT: "corrupt: offsets, lengths or text disagree",
    E_ID: "not a cortical id: 8 bytes, the first one of _ c m i o g",
    E_RANGE: "number out of range",
    E_CRC: "checksum mismatch: frame damaged on the line",
    E_TIMEOUT: "deadline passed",
}
