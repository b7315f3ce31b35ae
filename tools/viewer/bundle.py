# SPDX-License-Identifier: Apache-2.0
"""Bundling by esbuild, with three and uPlot from npm.

The packages are kept in `programs/viewer-LOCK/` of the cache (see `tools.emulation.cache`), where
LOCK is of the lock file's content: a new lock file fetches anew. Nothing is written into the tree.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.browser.chromium import BrowserUnavailableError
from tools.emulation.cache import cache_folder, filled
from tools.emulation.errors import EmulatorUnavailableError
from tools.emulation.packages import run

HERE: Final = Path(__file__).resolve().parent
SOURCES: Final = HERE / "src"
ASSETS: Final = HERE.parent.parent / "feagi_io_host" / "viewer" / "assets"

_LOCKED: Final = ("package.json", "package-lock.json")
# The first line of a file says the licence, and this one is of three owners.
_BANNER: Final = (
    "/* SPDX-License-Identifier: Apache-2.0 AND MIT */\n"
    "/* Made by `python -m tools.viewer`. three.js and uPlot: see LICENSES.txt. */"
)
_OWNERS: Final = (("three", "three.js"), ("uplot", "uPlot"))


@dataclass(frozen=True)
class Toolchain:
    """Node, and a folder with the packages of the lock file."""

    node: str
    modules: Path


def find_toolchain() -> Toolchain:
    """Node of this machine and the packages of the cache, fetched when missing (11 MB).

    Raises BrowserUnavailableError with what to install.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise BrowserUnavailableError(
            "the viewer's page is bundled with Node.js 18 or newer and npm: sudo apt install "
            "nodejs npm"
        )

    def fill(folder: Path) -> None:
        for name in _LOCKED:
            shutil.copyfile(HERE / name, folder / name)
        # The program of esbuild is a package of its own: no script has to run.
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        run(command, "npm and a network are needed once", cwd=folder)

    lock = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in _LOCKED)).hexdigest()
    try:
        folder = filled(cache_folder() / "programs" / f"viewer-{lock[:16]}", fill)
    except EmulatorUnavailableError as error:
        raise BrowserUnavailableError(f"packages of the viewer's page: {error}") from None
    return Toolchain(node, folder / "node_modules")


def bundle(toolchain: Toolchain) -> dict[str, bytes]:
    """Make the page: content by file name. The same sources give the same bytes.

    Raises BrowserUnavailableError with esbuild's message where it cannot be made.
    """
    made = {
        "index.html": (SOURCES / "index.html").read_bytes(),
        "LICENSES.txt": _licences(toolchain.modules).encode(),
    }
    with tempfile.TemporaryDirectory(prefix="feagi-viewer-") as name:
        for entry, kind in (("main.mjs", "js"), ("viewer.css", "css")):
            target = Path(name) / f"viewer.{kind}"
            command = [
                toolchain.node,
                str(toolchain.modules / "esbuild/bin/esbuild"),
                str(SOURCES / entry),
                "--bundle",
                "--minify",
                "--format=iife" if kind == "js" else "--loader:.css=css",
                "--target=es2022",
                "--charset=utf8",
                "--legal-comments=none",
                "--log-level=warning",
                f"--banner:{kind}={_BANNER}",
                f"--outfile={target}",
            ]
            # The packages lie outside the tree.
            env = {**os.environ, "NODE_PATH": str(toolchain.modules)}
            try:
                run(command, "the viewer's page could not be bundled", env=env)
            except EmulatorUnavailableError as error:
                raise BrowserUnavailableError(str(error)) from None
            made[target.name] = target.read_bytes()
    return made


def _licences(modules: Path) -> str:
    parts = [
        "viewer.js and viewer.css hold the following beside feagi-io itself (Apache-2.0).\n",
    ]
    for package, title in _OWNERS:
        text = (modules / package / "LICENSE").read_text(encoding="utf-8")
        parts.append(f"{title}\n{'=' * len(title)}\n\n{text.strip()}\n")
    return "\n".join(parts)
