# SPDX-License-Identifier: Apache-2.0
"""Node with the package ws, the WebSocket library of most servers and tools in JavaScript.

`programs/ws-VERSION/` of the cache (see `tools.emulation.cache`), fetched when missing.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.browser.chromium import BrowserUnavailableError
from tools.emulation.cache import cache_folder, filled
from tools.emulation.errors import EmulatorUnavailableError
from tools.emulation.packages import fetch_npm_package

WS_VERSION: Final = "8.23.0"
WS_INTEGRITY: Final = "sha512-" + (
    "wCkmX8QMOrKjgO8HW2WyDbTSGeqkocxgDzS9iR79rEAexty6/2qzilx3Ag8Tqf9ykop3irLKle0MtVn5qjVnoQ=="
)


@dataclass(frozen=True)
class NodeWs:
    """The interpreter, and the file to import `ws` from."""

    node: str
    module: Path


def find_node_ws() -> NodeWs:
    """Node of this machine and ws of the cache. Raises BrowserUnavailableError with what to
    install."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise BrowserUnavailableError(
            "ws runs in node; install Node.js 18 or newer with npm: sudo apt install nodejs npm"
        )

    def fill(folder: Path) -> None:
        fetch_npm_package(npm, folder, "ws", WS_VERSION, WS_INTEGRITY)

    try:
        folder = filled(cache_folder() / "programs" / f"ws-{WS_VERSION}", fill)
    except EmulatorUnavailableError as error:
        raise BrowserUnavailableError(f"ws: {error}") from None
    return NodeWs(node, folder / "node_modules/ws/wrapper.mjs")
