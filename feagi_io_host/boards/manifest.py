# SPDX-License-Identifier: Apache-2.0
"""What a deployment has to do: the files that a board shall have against those that it has.

The manifest on the board says what an earlier deployment put there, so that files which a newer
release has no more can be removed. It is never believed about a file that exists: digests are
taken from the files themselves, on the board.

Pure: no board, no clock.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from feagi_io_host.boards.board_tree import BOARD_PACKAGES
from feagi_io_host.boards.payload import BoardFile

MANIFEST_PATH: Final = "feagi-io.json"
TEMPORARY: Final = ".new"
FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 1 << 15
_MAX_FILES: Final = 500
_DIGEST_CHARS: Final = 64
_MODULES: Final = (".py", ".mpy")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a deployment left: release, board, versions of link and container, path to digest."""

    release: str
    board: str
    wire: tuple[int, int]
    files: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> bytes:
        """As it stands on the board."""
        data = {
            "format": FORMAT,
            "release": self.release,
            "board": self.board,
            "wire": list(self.wire),
            "files": dict(sorted(self.files.items())),
        }
        return json.dumps(data, separators=(",", ":")).encode()


def parse_manifest(text: bytes) -> Manifest | None:
    """The manifest in these bytes of a board; None when they are none, whatever they are."""
    if len(text) > MAX_MANIFEST_BYTES:
        return None
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        return None
    wire, files = data.get("wire"), data.get("files")
    release, board = data.get("release"), data.get("board")
    if not isinstance(release, str) or not isinstance(board, str):
        return None
    if not isinstance(wire, list) or len(wire) != 2 or not all(type(n) is int for n in wire):
        return None
    if not isinstance(files, dict) or len(files) > _MAX_FILES or not _sound(files):
        return None
    return Manifest(release, board, (wire[0], wire[1]), files)


def _sound(files: dict[str, Any]) -> bool:
    return all(
        _is_ours(path) and isinstance(digest, str) and len(digest) == _DIGEST_CHARS
        for path, digest in files.items()
    )


def _is_ours(path: str) -> bool:
    """Whether it lies in one of our packages, by a plain path: a manifest that was tampered with
    shall not have other files removed."""
    parts = path.split("/")
    return len(parts) > 1 and parts[0] in BOARD_PACKAGES and not {"", ".", ".."} & set(parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order: `send` under temporary names, put those and what an interrupted
    deployment left there (`staged`) in place, `remove`, write the manifest. `keep`: as it is."""

    send: tuple[BoardFile, ...]
    staged: tuple[BoardFile, ...]
    keep: tuple[BoardFile, ...]
    remove: tuple[str, ...]

    @property
    def send_bytes(self) -> int:
        """Bytes to send."""
        return sum(file.size for file in self.send)


def make_plan(
    wanted: Iterable[BoardFile],
    found: Mapping[str, str],
    before: Manifest | None,
    modules: Iterable[str] = (),
) -> Plan:
    """`found`: path to digest of files on the board, "" where none was taken. `modules`: paths of
    all sources of our packages.

    Sent is what is missing or differs. Removed is what an earlier deployment put there and this
    one does not; half-sent files; and modules of ours that came by other means (mip, mpremote cp):
    MicroPython prefers x.py to x.mpy, and two releases do not fit together.
    """
    keep = []
    send = []
    staged = []
    paths = set()
    temporary = set()
    for file in wanted:
        paths.add(file.path)
        if found.get(file.path) == file.sha256:
            keep.append(file)
        elif found.get(file.path + TEMPORARY) == file.sha256:
            staged.append(file)
            temporary.add(file.path + TEMPORARY)
        else:
            send.append(file)
            temporary.add(file.path + TEMPORARY)
    ours = {_module(path) for path in (*paths, *modules) if _is_ours(path)}
    obsolete = set(before.files if before is not None else ()) - paths
    obsolete |= {
        path
        for path in found
        if path not in paths | temporary
        and (path.removesuffix(TEMPORARY) != path or (_is_ours(path) and _module(path) in ours))
    }
    return Plan(
        tuple(send),
        tuple(staged),
        tuple(keep),
        tuple(sorted(obsolete & set(found))),
    )


def _module(path: str) -> str:
    name = PurePosixPath(path)
    return str(name.with_suffix("")) if name.suffix in _MODULES else path
