# SPDX-License-Identifier: Apache-2.0
"""The two portable packages as a board gets them: compiled, without what only a checker reads."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from tools.compile_portable import COMPILE_TIMEOUT_S, PACKAGES, ROOT, find_mpy_cross
from tools.emulation.errors import EmulatorUnavailableError
from tools.mip_package import TYPING_ONLY

_NATIVE: Final = re.compile(r"^\s*@micropython\.(viper|native|asm_\w+)\b", re.MULTILINE)
_LEFT_OUT: Final = TYPING_ONLY | {"main.py"}  # the template of a program is no part of a package


def write_tree(
    folder: Path, architecture: str, *, packages: tuple[Path, ...] = PACKAGES, opt: int = 3
) -> dict[str, int]:
    """Compile the packages into `folder`; file, relative to it, to its size in bytes.

    `architecture`: of files with viper or native code, as mpy-cross names it (armv6m, armv7m,
    ...); the others become bytecode, which is the same everywhere.
    Raises EmulatorUnavailableError without mpy-cross, or with what it said against a file.
    """
    try:
        mpy_cross = find_mpy_cross()
    except FileNotFoundError as error:
        raise EmulatorUnavailableError(str(error)) from None
    sizes = {}
    for package in packages:
        for source in sorted(package.rglob("*.py")):
            if source.name in _LEFT_OUT:
                continue
            inside = source.relative_to(package.parent).with_suffix(".mpy")
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            name = source.relative_to(ROOT).as_posix()
            command = [mpy_cross, f"-O{opt}", "-s", name, "-o", str(target)]
            if _NATIVE.search(source.read_text(encoding="utf-8")):
                command.append(f"-march={architecture}")
            done = subprocess.run(
                [*command, str(source)],
                capture_output=True,
                text=True,
                timeout=COMPILE_TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0:
                raise EmulatorUnavailableError(f"mpy-cross on {name}: {done.stderr.strip()}")
            sizes[inside.as_posix()] = target.stat().st_size
    return sizes
