# SPDX-License-Identifier: Apache-2.0
"""Picks the fastest kernels this interpreter can run.

| interpreter                     | kernels                          | allocates          |
|---------------------------------|----------------------------------|--------------------|
| MicroPython with viper          | `_viper`                         | nothing            |
| MicroPython without             | `_bytecode`                      | CRC: about 64 bytes a call |
| CPython                         | `_bytecode`, `_slices` over it   | does not matter    |

`ALLOCATES` tells whether the hot paths allocate here; `BACKEND` names the choice.
"""

import sys

MYPY = False
if MYPY:
    from ._bytecode import crc32_update as crc32_update
    from ._plain import scan_q16 as scan_q16
    from ._plain import u32 as u32
    from ._plain import voxel as voxel
    from ._slices import cobs_decode as cobs_decode
    from ._slices import cobs_encode as cobs_encode
    from ._slices import copy8 as copy8
    from ._slices import copy16 as copy16
    from ._slices import equal8 as equal8

    BACKEND = ""
elif sys.implementation.name == "micropython":
    try:
        from ._viper import *

        BACKEND = "viper"
    except (ImportError, SyntaxError, ValueError):
        # no emitter in this firmware, or a .mpy made for another chip
        from ._bytecode import *

        BACKEND = "plain"
else:
    from ._bytecode import *
    from ._slices import *

    BACKEND = "cpython"

ALLOCATES = BACKEND != "viper"
