# SPDX-License-Identifier: Apache-2.0
"""Check what no linter checks: licence lines, module docstrings, module length.

    python -m tools.check_house

- The first line (or the second, under `#!`) of each file that has comments names the licence.
- Each Python module opens with a docstring.
- A library module of more than 600 lines says in its docstring why ("This module is long ...").
- Nothing imports the source root `shared` by name.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LICENCE = "SPDX-License-Identifier: Apache-2.0"
MAX_LINES = 600
REASON = "This module is long"
LIBRARY = ("feagi_io_host", "feagi_io_mcu", "shared")

_COMMENTED = frozenset(
    {".css", ".js", ".lua", ".mjs", ".py", ".pyi", ".rules", ".sh", ".toml", ".yaml", ".yml"}
)
_COMMENTED_NAMES = {"Makefile", "run", ".gitignore", ".gitattributes", ".editorconfig"}
_LEFT_OUT = {"__pycache__", "build", "dist", "node_modules", "vectors"}
_SHARED = re.compile(r"^\s*(from shared[\s.]|import shared\b)", re.MULTILINE)


def project_files(root: Path) -> Iterator[Path]:
    """Yield the project's own files that can hold a comment; caches and set-ups left out."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in _LEFT_OUT and (name[0] != "." or name == ".ci")
        )
        for name in sorted(names):
            path = Path(folder, name)
            if path.suffix in _COMMENTED or name in _COMMENTED_NAMES:
                yield path


def faults(path: Path, root: Path) -> list[str]:
    """Return what is wrong with one file, each as a sentence that opens with its place."""
    name = path.relative_to(root).as_posix()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return [f"{name}: not UTF-8 ({error.reason} at byte {error.start})"]
    lines = text.splitlines()
    found = []
    first = lines[1:2] if lines and lines[0].startswith("#!") else lines[:1]
    if not first or LICENCE not in first[0]:
        found.append(f"{name}:1: no '{LICENCE}' in the first line")
    if path.suffix not in (".py", ".pyi"):
        return found
    try:
        docstring = ast.get_docstring(ast.parse(text))
    except SyntaxError as error:
        return [*found, f"{name}:{error.lineno}: {error.msg}"]
    if not docstring:
        found.append(f"{name}:1: no module docstring")
    if name.startswith(LIBRARY) and len(lines) > MAX_LINES and REASON not in (docstring or ""):
        found.append(
            f"{name}: {len(lines)} lines; split it, or say why in the docstring ('{REASON} ...')"
        )
    # A second copy of the codec would not know the first one's exceptions. The linter bans it too,
    # but can be told to look away.
    for match in _SHARED.finditer(text):
        line = text.count("\n", 0, match.start(1)) + 1
        found.append(f"{name}:{line}: imports `shared`, a source root; import feagi_wire")
    return found


def check(root: Path = ROOT) -> list[str]:
    """Return every fault in the tree below `root`."""
    return [fault for path in project_files(root) for fault in faults(path, root)]


def main() -> int:
    """Print the faults; 0 when there are none, 1 otherwise."""
    found = check()
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
