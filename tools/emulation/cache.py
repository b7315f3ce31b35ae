# SPDX-License-Identifier: Apache-2.0
"""Folders outside the tree that are filled once and appear complete or not at all.

$XDG_CACHE_HOME/feagi-io/emulation/ (~/.cache/... when the variable is not set). Several processes
may ask for one folder at once: the first fills it, the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


def cache_folder() -> Path:
    """Where programs, sources and firmware are kept: below XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of the variable: a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "feagi-io" / "emulation"


def filled(target: Path, fill: Callable[[Path], None]) -> Path:
    """Return `target`; if it is missing, `fill(folder)` fills an empty folder that becomes it.

    When `fill` raises, nothing is left behind and the error is passed on.
    """
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                _fill(target, fill)
    return target


def _fill(target: Path, fill: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as name:
        made = Path(name) / "made"
        made.mkdir()
        fill(made)
        made.rename(target)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
