# SPDX-License-Identifier: Apache-2.0
"""Bring the engine to this machine, once.

The engine is a Linux x86-64 program inside the wheel feagi-core. It needs glibc 2.38; where the
machine's is older, Debian trixie's C and C++ libraries are unpacked beside it and the program is
started through their own loader. Nothing is installed into the system or the Python environment.

    $XDG_CACHE_HOME/feagi-io/engine/VERSION/    (~/.cache/... when the variable is not set)
        feagi                the program
        licenses/            of the wheel
        prefix/              trixie's libraries, only where they are needed

The folder appears complete or not at all: it is filled under another name and renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.engine.apt_source import derived_source
from tools.engine.errors import EngineUnavailableError

ENGINE_VERSION: Final = "2.6.10"
# What was tried is what runs: pip refuses another file of the same version.
WHEEL_SHA256: Final = "14ce61483ffd27e0f98d19bc6621267d5341325c62f0baae9cf0eafb5f5cdfb2"
LIBRARY_SUITE: Final = "trixie"
LIBRARY_PACKAGES: Final = ("libc6", "libstdc++6", "libgcc-s1")

_PROGRAM_IN_WHEEL: Final = "feagi/bin/linux-x86_64/feagi"
_LIBRARY_FOLDER: Final = Path("usr/lib/x86_64-linux-gnu")
_LOADER: Final = "ld-linux-x86-64.so.2"
_DOWNLOAD_DEADLINE_S: Final = 600.0
_PROBE_DEADLINE_S: Final = 10.0

_log = logging.getLogger("feagi_io.tools.engine")


@dataclass(frozen=True)
class Installation:
    """An engine that can be started: `command` opens every command line of it."""

    folder: Path
    command: tuple[str, ...]


def cache_folder() -> Path:
    """Where engines are kept, by version: below XDG_CACHE_HOME or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of the variable: a relative path is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "feagi-io" / "engine"


def find_or_install(cache: Path | None = None) -> Installation:
    """Return the engine, fetching it first if this machine has none yet.

    The first call takes pip and, on an older Debian, apt to their servers; later ones need no
    network. Several processes may call it at once: one fetches, the others wait.
    Raises EngineUnavailableError with the reason when the engine cannot be had.
    """
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise EngineUnavailableError(
            f"the engine is run on Linux x86-64 only; this is {sys.platform} {platform.machine()}"
        )
    return install(cache or cache_folder(), fetch_wheel, fetch_libraries)


def install(
    cache: Path,
    fetch_wheel: Callable[[Path], Path],
    fetch_libraries: Callable[[Path, Path], None],
) -> Installation:
    """Return the engine below `cache`; fill the folder with the two functions if it is missing.

    `fetch_wheel(folder)` returns the path of the wheel it put there, `fetch_libraries(folder,
    prefix)` unpacks the libraries below `prefix` and may use `folder` for what it downloads.
    """
    target = cache / ENGINE_VERSION
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(cache / f"{ENGINE_VERSION}.lock"):
            if not target.exists():
                _fill(target, fetch_wheel, fetch_libraries)
    return Installation(target, _command(target))


def _fill(
    target: Path,
    fetch_wheel: Callable[[Path], Path],
    fetch_libraries: Callable[[Path, Path], None],
) -> None:
    _log.info("installing the FEAGI engine %s into %s", ENGINE_VERSION, target)
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as name:
        folder = Path(name)
        made = folder / "made"
        made.mkdir()
        _unpack_wheel(fetch_wheel(folder), made)
        if not _runs(_command(made)):
            fetch_libraries(folder, made / "prefix")
            if not _runs(_command(made)):
                raise EngineUnavailableError(
                    f"the engine {ENGINE_VERSION} does not start on this machine, not even with "
                    f"the libraries of Debian {LIBRARY_SUITE}"
                )
        made.rename(target)


def _command(folder: Path) -> tuple[str, ...]:
    program = str(folder / "feagi")
    libraries = folder / "prefix" / _LIBRARY_FOLDER
    if not libraries.exists():
        return (program,)
    return (str(libraries / _LOADER), "--library-path", str(libraries), program)


def _runs(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(
            [*command, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _unpack_wheel(wheel: Path, target: Path) -> None:
    """The program and the licences; the rest of the wheel is Python that nothing here uses."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if _PROGRAM_IN_WHEEL not in names:
            raise EngineUnavailableError(f"{wheel.name} holds no {_PROGRAM_IN_WHEEL}")
        program = target / "feagi"
        with archive.open(_PROGRAM_IN_WHEEL) as source, program.open("wb") as sink:
            shutil.copyfileobj(source, sink)
        program.chmod(0o755)
        licenses = target / "licenses"
        licenses.mkdir()
        for name in names:
            if "/licenses/" in name and not name.endswith("/"):
                (licenses / Path(name).name).write_bytes(archive.read(name))


def fetch_wheel(folder: Path) -> Path:
    """Download the wheel with pip into `folder`, checked against its known SHA-256."""
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"feagi-core=={ENGINE_VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8"
    )
    pip = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]
    what = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(requirements)]
    _run([*pip, "download", "--quiet", "--retries", "1", "--dest", str(folder), *what])
    return next(folder.glob("feagi_core-*.whl"))


def fetch_libraries(folder: Path, prefix: Path) -> None:
    """Download the libraries with apt into `folder` and unpack them below `prefix`.

    apt works on folders of its own in here: the machine's sources, lists, package cache and
    installed packages are neither changed nor locked, and root is not needed.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise EngineUnavailableError(f"{tool} is missing; it fetches the engine's libraries")
    source = derived_source(LIBRARY_SUITE)
    for name in ("sources", "lists/partial", "cache/archives/partial", "debs"):
        (folder / name).mkdir(parents=True)
    (folder / "sources/derived.sources").write_text(source.as_deb822(), encoding="utf-8")
    configuration = folder / "apt.conf"
    configuration.write_text(_apt_configuration(folder), encoding="utf-8")
    apt = ["apt-get", "-q", "-c", str(configuration)]
    _run([*apt, "update"], cwd=folder / "debs")
    _run([*apt, "download", *LIBRARY_PACKAGES], cwd=folder / "debs")
    for package in sorted((folder / "debs").glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(prefix)])


def _apt_configuration(folder: Path) -> str:
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": folder / "sources",
        "Dir::State::Lists": folder / "lists",
        "Dir::State::Status": "/dev/null",
        "Dir::Cache": folder / "cache",
        "Dir::Log": folder,
        "Acquire::Languages": "none",
        "Acquire::Retries": 1,
        "APT::Architecture": "amd64",
        "APT::Update::Error-Mode": "any",
        # Root's apt would change to a user that cannot write into a private folder.
        "APT::Sandbox::User": "",
    }
    # What the machine does after its own updates is none of this one's business.
    hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke")
    lines = [f"#clear {name};" for name in (*hooks, "APT::Update::Post-Invoke-Success")]
    return "\n".join([*lines, *(f'{name} "{value}";' for name, value in settings.items())]) + "\n"


def _run(command: list[str], cwd: Path | None = None) -> None:
    shown = " ".join([Path(command[0]).name, *command[1:3]])
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DOWNLOAD_DEADLINE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineUnavailableError(
            f"'{shown} ...' did not end within {_DOWNLOAD_DEADLINE_S:.0f} s"
        ) from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = [line for line in lines if line.startswith(("E:", "ERROR:"))] or lines
        raise EngineUnavailableError(
            f"the FEAGI engine {ENGINE_VERSION} is not in the cache ({cache_folder()}) and could "
            "not be fetched, for which a network is needed once: "
            f"'{shown} ...' ended with {done.returncode}: {' / '.join(said[-2:])}"
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
