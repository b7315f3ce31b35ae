# SPDX-License-Identifier: Apache-2.0
"""Residue: threads, descriptors and shared memory that something left behind."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# How long threads that were told to stop may take to end, all of them together, and how long
# descriptors are watched before they count as left behind.
THREAD_GRACE_S: Final = 1.0
_LOOK_S: Final = 0.01
_FDS: Final = Path("/proc/self/fd")
_SHM: Final = Path("/dev/shm")
# What this library names its segments and sockets: with the process that made them.
_SEGMENT: Final = re.compile(r"feagi-io-([0-9]+)-[0-9a-f]{32}(?:\.sock)?")


class Residue:
    """What the process holds at one moment; `since` says what has come on top of that.

    Descriptors and segments are seen where /proc/self/fd and /dev/shm exist. Of this library's
    segments those count that this process or a living one under it has made: others belong to
    programs that run beside it.
    """

    def __init__(self) -> None:
        self._threads = frozenset(threading.enumerate())
        self._fds = _open_fds()
        self._segments = _names(_SHM)

    def since(self) -> list[str]:
        """A line for each thread, descriptor and segment more than at the beginning."""
        deadline_s = time.monotonic() + THREAD_GRACE_S
        gc.collect()
        found = []
        for thread in frozenset(threading.enumerate()) - self._threads:
            thread.join(max(deadline_s - time.monotonic(), 0.0))
            if thread.is_alive():
                found.append(f"thread {thread.name!r}")
        found += [f"descriptor {fd} ({target})" for fd, target in self._fds_since()]
        found += [
            f"shared memory {_SHM / name}"
            for name in _names(_SHM) - self._segments
            if not _of_others(name)
        ]
        return found

    def _fds_since(self) -> list[tuple[str, str]]:
        """What each look finds until the deadline: another thread that reads a file at the moment
        of one look, as the guard of a running transport reads /proc, has left nothing behind."""
        deadline_s = time.monotonic() + THREAD_GRACE_S
        lasting = _open_fds().items() - self._fds.items()
        while lasting and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)
            lasting &= _open_fds().items()
        return sorted(lasting)


def _open_fds() -> dict[str, str]:
    found = {}
    for name in _names(_FDS):
        try:
            found[name] = os.readlink(_FDS / name)
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def _of_others(segment: str) -> bool:
    named = _SEGMENT.fullmatch(segment)
    return named is not None and os.getpid() not in _line_of(int(named[1]))


def _line_of(pid: int) -> Iterator[int]:
    """A living process, who started it, and so on up."""
    while pid > 0:
        yield pid
        try:
            pid = int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return


def _names(folder: Path) -> frozenset[str]:
    return frozenset(os.listdir(folder)) if folder.exists() else frozenset()
