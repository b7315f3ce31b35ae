# SPDX-License-Identifier: Apache-2.0
"""Segments and sockets that processes left behind when they were killed."""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from pathlib import Path
from typing import Final

from feagi_io_host.core.errors import RemoteError
from feagi_io_host.transports.shm.header import MAGIC, read_header
from feagi_io_host.transports.shm.locks import ByteLocks
from feagi_io_host.transports.shm.names import NAME, SHM_FOLDER, SOCKET_SUFFIX

_log = logging.getLogger("feagi_io.shm")

# A socket is bound a moment before it listens; one that is refused and older than this is dead.
_SOCKET_GRACE_S: Final = 5.0


def remove_stale(folder: Path = SHM_FOLDER) -> list[str]:
    """Remove this user's segments and sockets whose creators are dead; their names."""
    removed = []
    for entry in list(os.scandir(folder)):
        name = entry.name.removesuffix(SOCKET_SUFFIX)
        if not NAME.fullmatch(name):
            continue
        path = Path(entry.path)
        try:
            dead = _socket_is_dead(path) if name != entry.name else _segment_is_dead(path, name)
            if dead:
                path.unlink()
                removed.append(entry.name)
                path.with_name(name + SOCKET_SUFFIX).unlink(missing_ok=True)
        except OSError as error:
            # Removed by another process at the same time, or not ours to look into.
            _log.debug("left %s alone: %s", path, error)
    if removed:
        _log.info("removed shared memory of dead processes: %s", ", ".join(removed))
    return removed


def _segment_is_dead(path: Path, name: str) -> bool:
    # Not blocking: anybody may put a pipe of such a name there.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    locks = ByteLocks(fd, 0)
    try:
        facts = os.fstat(fd)
        if facts.st_uid != os.geteuid() or not stat.S_ISREG(facts.st_mode):
            return False
        if os.pread(fd, len(MAGIC), 0) != MAGIC or locks.creator_lives():
            return False
        try:
            return not read_header(fd, name)[1].is_here()
        except RemoteError:  # another version of the library made it, and is dead
            return True
    finally:
        locks.close()


def _socket_is_dead(path: Path) -> bool:
    """Of a socket without a segment: whether it was left by the host of a sensory stream."""
    facts = os.lstat(path)
    if facts.st_uid != os.geteuid() or not stat.S_ISSOCK(facts.st_mode):
        return False
    if os.path.exists(str(path).removesuffix(SOCKET_SUFFIX)):
        return False
    return time.time() - facts.st_mtime > _SOCKET_GRACE_S and _nobody_listens(path)


def _nobody_listens(path: Path) -> bool:
    """Whether a connection is refused; it finds listeners in every container that shares it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False
