# SPDX-License-Identifier: Apache-2.0
"""Emulated boards: real MicroPython on microcontrollers that are processes.

`Cortex()` is a Cortex-M3 in QEMU, `Pico()` a Raspberry Pi Pico in rp2040js;
`python -m tools.emulation` runs a board for people. Firmware is built from Debian's source packages
when first needed and kept outside the tree.
"""

from tools.emulation.board import EmulatedBoard
from tools.emulation.cortex import Cortex
from tools.emulation.errors import BoardFailedError, EmulatorUnavailableError
from tools.emulation.firmware import MICROPYTHON_VERSION, cortex_m3_firmware
from tools.emulation.pico import Pico
from tools.emulation.pico_firmware import pico_firmware
from tools.emulation.plugged import PluggedBoard

__all__ = [
    "MICROPYTHON_VERSION",
    "EmulatedBoard",
    "Cortex",
    "Pico",
    "PluggedBoard",
    "cortex_m3_firmware",
    "pico_firmware",
    "EmulatorUnavailableError",
    "BoardFailedError",
]
