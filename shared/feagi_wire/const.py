# SPDX-License-Identifier: Apache-2.0
"""Numbers of the wire format, in one place for both interpreters.

Source: the shipped engine (feagi-core 2.6.10) and library (feagi-rust-py-libs 0.0.120),
see docs/wire-format.md. All integers on the wire are little-endian.
"""

# The FEAGI byte container (FBC).
FBC_VERSION = 4
AGENT_ID_BYTES = 48
HEADER_BYTES = 52  # version u8, increment counter u16, struct count u8, agent id
STRUCT_JSON = 1
STRUCT_XYZP = 11
STRUCT_VERSION = 1  # of both kinds of struct
AREA_RECORD_BYTES = 16  # cortical id 8 bytes, u32 offset from struct start, u32 length
VOXEL_BYTES = 16  # u32 x, u32 y, u32 z, f32 p as structure of arrays
CORTICAL_ID_BYTES = 8
MAX_STRUCTS = 255
MAX_AREAS = 65535
JSON_MAX_DEPTH = 127  # serde_json refuses the 128th level

# The largest integer a 32-bit MicroPython holds without allocating. Coordinates above it
# travel through the array calls only.
SMALL_INT_MAX = 0x3FFFFFFF

# Streams, numbered as they stand in a link frame.
STREAM_CONTROL = 0
STREAM_SENSORY = 1
STREAM_MOTOR = 2
STREAM_VISUALIZATION = 3
STREAMS = 4
