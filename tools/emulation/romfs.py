# SPDX-License-Identifier: Apache-2.0
"""The image of a read-only file system, as MicroPython 1.25 and later mount it at /rom.

Bytecode and texts of `.mpy` files are used where they lie in the image and take no heap. The format
is written by mpremote's own module, the same that `mpremote romfs build` uses.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from tools.emulation.board import EmulatedBoard
from tools.emulation.errors import EmulatorUnavailableError

_INSTALL: Final = """
import os
def copy(source, target):
    for name, kind, *_ in os.ilistdir(source):
        if kind & 0x4000:
            try:
                os.mkdir(target + name)
            except OSError:
                pass
            copy(source + name + "/", target + name + "/")
        else:
            with open(source + name, "rb") as a, open(target + name, "wb") as b:
                b.write(a.read())
copy("/rom/", "/")
"""


def write_romfs(folder: Path, image: Path) -> int:
    """Write the files of `folder` as they are into `image`; its size in bytes.

    Raises EmulatorUnavailableError when mpremote is not installed.
    """
    try:
        writer = importlib.import_module("mpremote.romfs").VfsRomWriter()
    except ImportError:
        raise EmulatorUnavailableError(
            "mpremote is not installed: pip install 'feagi-io[boards]'"
        ) from None
    _add(writer, folder)
    return image.write_bytes(writer.finalise())


def _add(writer: Any, folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            writer.opendir(path.name)
            _add(writer, path)
            writer.closedir()
        else:
            writer.mkfile(path.name, path.read_bytes())


def install_from_romfs(board: EmulatedBoard) -> None:
    """Copy everything at /rom to the board's own file system, where it is found first.

    In a second, what `mpremote cp` takes half a minute for.
    """
    board.mpremote("exec", _INSTALL)
