# SPDX-License-Identifier: Apache-2.0
"""Make the `package.json` of both portable packages, or check that they are current.

    python -m tools.mip_package [--check]

MicroPython's package installer (`mip` on a board, `mpremote mip install` from a host) reads the
file: "urls" pairs the path on the board with the source, here relative to the `package.json`
itself, so that it works from a clone, a tag or a mirror alike. "version" is that of feagi-io.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "shared" / "feagi_wire", ROOT / "feagi_io_mcu")
# What only a type checker reads has no business in a board's flash.
TYPING_ONLY = frozenset({"_casts.py"})


def package_json(folder: Path, version: str) -> str:
    """Return the text of `package.json` for the package in `folder`: every .py file that runs."""
    urls = []
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).as_posix()
        if path.name not in TYPING_ONLY:
            urls.append([f"{folder.name}/{inside}", inside])
    return json.dumps({"urls": urls, "deps": [], "version": version}, indent=2) + "\n"


def project_version() -> str:
    """Return the version that pyproject.toml states."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    if not isinstance(version, str):
        raise TypeError(f"project.version in pyproject.toml is {version!r}, expected text")
    return version


def main(argv: list[str] | None = None) -> int:
    """Write or check both files; 0 when they are current, 1 when one is not."""
    parser = argparse.ArgumentParser(prog="mip_package", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    check = parser.parse_args(argv).check
    version = project_version()
    status = 0
    for folder in PACKAGES:
        target = folder / "package.json"
        wanted = package_json(folder, version)
        current = target.read_text(encoding="utf-8") if target.exists() else None
        if current == wanted:
            continue
        if check:
            what = "missing" if current is None else "stale"
            print(f"mip_package: {target.relative_to(ROOT)} is {what}; run: make generate")
            status = 1
        else:
            target.write_text(wanted, encoding="utf-8")
            print(f"mip_package: wrote {target.relative_to(ROOT)}")
    return status


if __name__ == "__main__":
    sys.exit(main())
