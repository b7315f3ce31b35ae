# SPDX-License-Identifier: Apache-2.0
"""Numbers of the wire format and of the link, in one place for both interpreters.

What a board gets has them written in (`feagi_io_host.boards.board_source`): there this module is
loaded only by a program that names it.

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

# Data types of cortical areas (low nibble of byte 4 of the id). 12 to 15 are not assigned.
BOOLEAN = 0
PERCENTAGE = 1
PERCENTAGE_2D = 2
PERCENTAGE_3D = 3
PERCENTAGE_4D = 4
SIGNED_PERCENTAGE = 5
SIGNED_PERCENTAGE_2D = 6
SIGNED_PERCENTAGE_3D = 7
SIGNED_PERCENTAGE_4D = 8
CARTESIAN_PLANE = 9
MISC = 10
POSE_ESTIMATION = 11

# Flags (byte 5 of the id); else absolute and linear.
INCREMENTAL = 1
FRACTIONAL = 2

# Streams, numbered as they stand in a link frame.
STREAM_CONTROL = 0
STREAM_SENSORY = 1
STREAM_MOTOR = 2
STREAM_VISUALIZATION = 3
STREAMS = 4

# The board link. Frame payload (framing.py adds COBS and CRC-32), 4 bytes of header first:
#
#     0  kind (low 4 bits) and flags: 0x10 0x20 compatible, 0x40 0x80 incompatible
#     1  stream (low 3 bits), 0x08 = sent by the host, high 4 bits of the sequence number
#     2  epoch: the session, 1..255, handed out by the host; 0 = no session yet
#     3  low 8 bits of the sequence number, counted per direction and stream
#
# An unknown kind is skipped and counted, and so is a frame with an unknown incompatible flag;
# unknown compatible flags are ignored. A frame with our own direction bit came back by an echo.
#
# | kind    | payload after the header                                                           |
# |---------|------------------------------------------------------------------------------------|
# | HELLO   | board: link version, FBC version, highest baud / 100 u16 (0: it has one only), max |
# |         | container u16, JSON declaration; host: nothing, it asks for a HELLO                |
# | WELCOME | link version, FBC version, hello number answered, 1 reserved, beat ms u16, lost ms |
# |         | u16, motor timeout ms u16, max container u16, host ticks ms u32, agent id 48       |
# | DATA    | compact FBC: the container without version byte and agent id                       |
# | BEAT    | flags (1 = answer), frames queued, sender's stamp u32, answerer's ticks ms u32,    |
# |         | frames sent u16, received u16, dropped u16, CRC errors u16, resyncs u16            |
# | ACK NAK | request number u16, code u8: answers DATA of the control stream                    |
# | LOG     | level u8, UTF-8 text                                                               |
# | BYE     | reason u8                                                                          |
# | RATE    | baud u32. Host: go there; board: I will once this is out, or 0: I will not         |
#
# More in docs/board-link.md.
LINK_VERSION = 1
LINK_HEADER = 4
CRC_BYTES = 4
HELLO = 1
WELCOME = 2
DATA = 3
BEAT = 4
ACK = 5
NAK = 6
LOG = 7
BYE = 8
RATE = 9
FROM_HOST = 0x08
INCOMPATIBLE = 0xC0
HELLO_BYTES = 6  # of a HELLO, before the declaration
WELCOME_BYTES = 64
BEAT_BYTES = 20
RATE_BYTES = 4
COMPACT_SAVES = 49  # version byte and agent id, which a compact container does without
# A frame is decoded this far into the buffer, so that the struct table of a compact container
# lands on its place in a full one and nothing has to be moved.
RX_START = 45
RX_PAYLOAD = 49  # after the link's header

# States of a session, and what moves it from one to the next.
WAITING = 0
OFFERED = 1
CONNECTED = 2
LOST = 3
IN_OFFER = 0
IN_ALIVE = 1
IN_SILENCE = 2
IN_BYE = 3

# Events of a link: bits, several may come at once.
EV_UP = 1  # a session is connected (again)
EV_LOST = 2  # silence; the session may still come back
EV_DOWN = 4  # the session is over
EV_DATA = 8  # a container stands in `rx` (stream in .stream)
EV_RTT = 16  # .rtt holds a new round trip, in ticks
EV_ACK = 32  # the control request was taken
EV_NAK = 64  # the control request was refused (.nak_code) or never answered (E_TIMEOUT)
EV_FAILSAFE = 128  # no fresh motor command for the motor timeout
EV_MOTOR = 256  # motor commands are fresh again
EV_HELLO = 512  # host: a declaration stands in `rx` (hello_span); answered with WELCOME
EV_VERSION = 1024  # the other end speaks another version (.peer_link, .peer_fbc)
EV_LOG = 2048  # host: a message stands in `rx` (log_span)
EV_BYE = 4096  # the other end said goodbye (.bye_reason)
EV_RATE = 8192  # host: the board has answered (.rate: what it goes to, 0 for no)

BYE_STOPPED = 1
BYE_VERSION = 2
BYE_REFUSED = 3

# Ticks and sequence numbers run in circles.
TICKS_MASK = 0x3FFFFFFF
SEQ_MASK = 0xFFF
MAX_HELLO_MS = 2000

# What a call answers: OK, a number that is of use, or one of the negative codes (errors.check).
OK = 0
E_CAPACITY = -1  # does not fit into the buffer that was handed in
E_STATE = -2  # calls in the wrong order
E_FULL = -3  # more voxels than announced, or the out-buffer is still being written
E_SHORT = -4  # truncated: fewer bytes than the header or table promises
E_VERSION = -5  # container, struct or link version is not the one spoken here
E_TYPE = -6  # unknown struct type or frame kind
E_CORRUPT = -7  # offsets, lengths or text disagree with each other
E_ID = -8  # no possible cortical id
E_RANGE = -9  # a number outside what this field or this board can hold
E_CRC = -10  # a frame was damaged on the line
E_TIMEOUT = -11  # the deadline passed first
END = -100  # nothing more: an answer, not an error
