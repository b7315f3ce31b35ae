# SPDX-License-Identifier: Apache-2.0
"""Chromium without a screen.

It comes from the machine or, where that has none, as Debian packages of the machine's own release
in a private prefix: `programs/chromium-RELEASE/` of the cache (see `tools.emulation.cache`). Root
is not needed, and nothing is installed.

WebGL runs in software, by the SwiftShader that is in the package.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tools.emulation.errors import EmulatorUnavailableError
from tools.emulation.firmware import programs

_PACKAGES: Final = ("chromium", "fonts-dejavu-core")
# Of 350 MB: what only makers of graphics drivers use.
_LEFT_OUT: Final = ("./usr/lib/chromium/libVkICD*", "./usr/lib/chromium/libVkLayer*")
_PROGRAM: Final = Path("usr/lib/chromium/chromium")
_FONTS: Final = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir>/usr/share/fonts</dir>
  <dir>{folder}/usr/share/fonts</dir>
  <cachedir>{folder}/font-cache</cachedir>
</fontconfig>
"""

# No sandbox: it needs rights that a container has not, and the pages are our own. The rest keeps
# the browser from the network by itself.
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)


class BrowserUnavailableError(RuntimeError):
    """No Chromium can be had on this machine; the message says what to do."""


@dataclass(frozen=True)
class Chromium:
    """Where the browser is, and the environment that it runs in."""

    path: str
    environment: Mapping[str, str]
    flags: tuple[str, ...] = FLAGS


@functools.cache
def find_chromium() -> Chromium:
    """Chromium of this machine, or else of the cache, fetched when missing (110 MB).

    Raises BrowserUnavailableError with the line that installs it.
    """
    own = shutil.which("chromium")
    if own is not None:
        return Chromium(own, MappingProxyType(dict(os.environ)))
    if platform.system() != "Linux":
        raise BrowserUnavailableError("no program chromium on this machine; install Chromium")
    try:
        prefix = programs("chromium", _PACKAGES, _LEFT_OUT)
    except EmulatorUnavailableError as error:
        raise BrowserUnavailableError(f"Chromium: {error}") from None
    folder = prefix.folder
    assert folder is not None
    environment = prefix.environment()
    # A library of the sound server lies in a folder of its own.
    sound = map(str, folder.glob("usr/lib/*-linux-gnu/pulseaudio"))
    environment["LD_LIBRARY_PATH"] = os.pathsep.join([environment["LD_LIBRARY_PATH"], *sound])
    environment["FONTCONFIG_FILE"] = str(_fonts(folder))
    return Chromium(str(folder / _PROGRAM), MappingProxyType(environment))


def _fonts(folder: Path) -> Path:
    """The configuration by which both the machine's fonts and those of the prefix are found."""
    file = folder / "fonts.conf"
    if not file.exists():
        written = folder / f"fonts.conf.{os.getpid()}"
        written.write_text(_FONTS.format(folder=folder), encoding="utf-8")
        written.replace(file)  # another process may read it meanwhile
    return file
