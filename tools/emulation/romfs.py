# SPDX-License-Identifier: Apache-2.0
"""The image of a read-only file system, as MicroPython 1.25 and later mount it at /rom.

Bytecode and texts of `.mpy` files are used where they lie in the image and take no heap. The format
is written by mpremote's own module, the same that `mpremote romfs build` uses.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from tools.emulation.errors import EmulatorUnavailableError


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
