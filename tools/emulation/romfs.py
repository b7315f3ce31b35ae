# SPDX-License-Identifier: Apache-2.0
"""The image of a read-only file system, as MicroPython 1.25 and later mount it at /rom.

Bytecode and texts of `.mpy` files are used where they lie in the image and take no heap. The format
is written by mpremote's own module, as for a deployment to a real board.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from feagi_io_host.core.errors import MissingExtraError
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
    """Write the files below `folder` as they are into `image`; its size in bytes.

    Raises EmulatorUnavailableError when mpremote is not installed.
    """
    try:
        from feagi_io_host.boards.console import romfs_image
    except MissingExtraError as error:
        raise EmulatorUnavailableError(str(error)) from None
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return image.write_bytes(romfs_image(files))


def install_from_romfs(board: EmulatedBoard) -> None:
    """Copy everything at /rom to the board's own file system, where it is found first.

    In a second, what `mpremote cp` takes half a minute for.
    """
    board.mpremote("exec", _INSTALL)
