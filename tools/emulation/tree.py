# SPDX-License-Identifier: Apache-2.0
"""The two portable packages as a board gets them, every file of them."""

from __future__ import annotations

from pathlib import Path

from feagi_io_host.boards import write_board_tree
from feagi_io_host.core.errors import LocalError
from tools.emulation.errors import EmulatorUnavailableError


def write_tree(folder: Path, architecture: str) -> dict[str, int]:
    """Compile the packages into `folder`; file, relative to it, to its size in bytes.

    `architecture`: of files with viper code, as mpy-cross names it (armv6m, armv7m, ...); the
    others become bytecode, which is the same everywhere. Raises EmulatorUnavailableError without
    mpy-cross, or with what it said against a file.
    """
    try:
        return write_board_tree(folder, architecture=architecture, whole=True)
    except LocalError as error:
        raise EmulatorUnavailableError(str(error)) from None
