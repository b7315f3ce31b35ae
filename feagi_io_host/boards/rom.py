# SPDX-License-Identifier: Apache-2.0
"""Packages as one image of a read-only file system, mounted at /rom by MicroPython 1.25 and later.

Bytecode and names are used where they lie in flash, so that the packages take about half the heap
that they take as files. The image has no names to rename: its head is written last, so that an
interrupted write leaves none, and the next deployment writes it anew.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable
from typing import Final

from feagi_io_host.boards.console import (
    CHUNK_BYTES,
    HASH_S,
    WRITE_S,
    BoardCodeError,
    BoardConsole,
    romfs_image,
)
from feagi_io_host.boards.payload import BoardFile
from feagi_io_host.core.errors import RemoteError

ROM_PATH: Final = "/rom"
_MOST_AT_ONCE: Final = 65_536  # more is no unit of any flash that is written
_ERASE_S: Final = 30.0

# What the code below uses. `_rom` is b"" where a firmware could have an image and has no room.
_TOOLS: Final = """\
from binascii import a2b_base64 as _a, hexlify
from hashlib import sha256
import vfs
_io = vfs.rom_ioctl
_rom = memoryview(_io(2, 0)) if _io(1) > 0 else b''
def _same(n):
    return hexlify(sha256(_rom[:n]).digest()).decode()
"""


def build_rom(files: Iterable[BoardFile]) -> BoardFile:
    """The image that holds `files`, as a file by the name of its place."""
    return BoardFile(ROM_PATH, romfs_image({file.path: file.data for file in files}))


def has_rom(console: BoardConsole, image: BoardFile) -> bool:
    """Whether the board holds this image. Raises RemoteError, with the way out, where it cannot."""
    try:
        console.run(_TOOLS)
        room = int(console.run("print(len(_rom))"))
    except (BoardCodeError, ValueError):
        raise RemoteError(
            "the board's firmware has no ROMFS: it needs MicroPython 1.25 or newer, built with a "
            "partition for it; deploy as files instead: --form viper or --form plain"
        ) from None
    if room < image.size:
        raise RemoteError(
            f"the image has {image.size} bytes and the board's ROMFS {room}; deploy as files "
            "instead: --form viper or --form plain"
        )
    return console.run(f"print(_same({image.size}))", HASH_S).strip() == image.sha256


def write_rom(console: BoardConsole, image: BoardFile, sent: Callable[[int], None]) -> None:
    """Write it, after `has_rom`; `sent` is told how many bytes are there. RemoteError with what
    the board said when it does not take it, or holds other bytes then."""
    least = _number(console, f"_io(3, 0, {image.size})", _ERASE_S)
    if not 0 <= least <= _MOST_AT_ONCE:
        raise RemoteError(f"the board refuses to erase its ROMFS (answer {least})")
    least = max(least, 1)
    step = max(CHUNK_BYTES // least, 1) * least
    done = 0
    # The head goes last: an image without one is none.
    for at in (*range(step, image.size, step), 0):
        chunk = image.data[at : at + step]
        padded = chunk + bytes(-len(chunk) % least)
        data = binascii.b2a_base64(padded, newline=False)
        code = _number(console, f"_io(4, 0, {at}, _a({data!r})) or 0", WRITE_S)
        if code < 0:
            raise RemoteError(f"the board refuses byte {at} of its ROMFS (error {-code})")
        done += len(chunk)
        sent(done)
    console.run("_io(5, 0)", WRITE_S)
    digest = console.run(f"print(_same({image.size}))", HASH_S).strip()
    if digest != image.sha256:
        raise RemoteError(
            f"the board's ROMFS holds other bytes than were sent (digest {digest[:16]}..., sent "
            f"{image.sha256[:16]}...): its flash or its line is damaged; deploy again"
        )


def _number(console: BoardConsole, code: str, timeout_s: float) -> int:
    said = console.run(f"print({code})", timeout_s).strip()
    try:
        return int(said)
    except ValueError:
        raise RemoteError(
            f"the board answers {said[:80]!r} when asked to erase or write its ROMFS; a number was "
            "expected"
        ) from None
