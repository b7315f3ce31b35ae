# SPDX-License-Identifier: Apache-2.0
"""Whether there is shared memory here, and what its pieces are called."""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path
from typing import Final

from feagi_io_host.core.errors import LocalError, RemoteError

if sys.platform != "win32":  # there the room says why it cannot be used
    import fcntl

SHM_FOLDER: Final = Path("/dev/shm")
SCHEME: Final = "shm://"
PREFIX: Final = "feagi-io-"
SOCKET_SUFFIX: Final = ".sock"
MOST_NAME_BYTES: Final = len(PREFIX) + 10 + 1 + 32
NAME: Final = re.compile(PREFIX + r"[0-9]{1,10}-[0-9a-f]{32}")


def why_unavailable(folder: Path = SHM_FOLDER) -> str | None:
    """Why shared memory cannot be used here, with what to do; None when it can."""
    if not sys.platform.startswith("linux"):
        return f"shared memory needs Linux, this is {sys.platform}; use ZMQ over ipc:// or tcp://"
    if not (hasattr(os, "eventfd") and hasattr(fcntl, "F_OFD_SETLK")):
        return "this Python was built without eventfd or file locks; use ZMQ over ipc:// or tcp://"
    if not folder.is_dir():
        return f"there is no {folder}; mount a tmpfs there or use ZMQ over ipc:// or tcp://"
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"user {os.geteuid()} may not write to {folder}; use ZMQ over ipc:// or tcp://"
    return None


def refuse_if_unavailable(folder: Path = SHM_FOLDER) -> None:
    """Raise LocalError where `why_unavailable` has a reason."""
    reason = why_unavailable(folder)
    if reason is not None:
        raise LocalError(reason)


def new_name() -> str:
    """A name that nobody can guess. It begins with the process that made it, for people and tests
    who look into the folder; nothing here relies on that."""
    return f"{PREFIX}{os.getpid()}-{secrets.token_hex(16)}"


def name_from_url(url: str) -> str:
    """The name in `shm://<name>`; RemoteError for anything else: it is part of a path."""
    if url.startswith(SCHEME) and NAME.fullmatch(url[len(SCHEME) :]):
        return url[len(SCHEME) :]
    raise RemoteError(
        f"{url[:80]!r} names no shared memory; expected {SCHEME}{PREFIX}<pid>-<32 hex digits>"
    )
