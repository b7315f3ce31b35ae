# SPDX-License-Identifier: Apache-2.0
"""Debian packages in folders of one's own: programs of this release, sources of another.

apt works on private lists and a private cache, and what it fetches is unpacked below a prefix: the
machine's sources, lists and installed packages are neither changed nor locked, and root is not
needed. Programs unpacked that way find their libraries through LD_LIBRARY_PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tools.emulation.errors import EmulatorUnavailableError
from tools.engine.apt_source import derived_source
from tools.engine.errors import EngineUnavailableError

_DEADLINE_S: Final = 600.0
# What is in a package and nobody here reads.
_LEFT_OUT: Final = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info")


@dataclass(frozen=True)
class Prefix:
    """A folder with unpacked packages, or the machine itself (`folder` None)."""

    folder: Path | None = None

    def program(self, name: str) -> str | None:
        """The path of a program, of the prefix or else of the machine; None when it has none."""
        if self.folder is not None:
            path = self.folder / "usr/bin" / name
            if path.exists():
                return str(path)
        return shutil.which(name)

    def need(self, name: str) -> str:
        """The path of a program. Raises EmulatorUnavailableError when it is not there."""
        path = self.program(name)
        if path is None:
            where = "" if self.folder is None else f" and not in {self.folder}"
            raise EmulatorUnavailableError(f"{name} is not on this machine{where}; install it")
        return path

    def environment(self) -> dict[str, str]:
        """The environment in which programs of the prefix run: this process's and their paths."""
        env = dict(os.environ)
        if self.folder is not None:
            folders = [*self.folder.glob("usr/lib/*-linux-gnu"), *self.folder.glob("lib/*-linux-*")]
            env["LD_LIBRARY_PATH"] = os.pathsep.join(map(str, folders))
            env["PATH"] = f"{self.folder / 'usr/bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
        return env


def unpack_programs(prefix: Path, names: Sequence[str], left_out: Sequence[str] = ()) -> None:
    """Fetch packages of the machine's own release with what they need; unpack below `prefix`.

    `left_out`: patterns of paths in the packages that are not unpacked.
    Raises EmulatorUnavailableError with the line that installs them by hand.
    """
    by_hand = f"install them by hand: sudo apt install {' '.join(names)}"
    apt = _Apt(prefix / "apt", {}, by_hand)
    apt.run("update")
    apt.run("install", "--yes", "--no-install-recommends", "--download-only", *names)
    excluded = [f"--exclude={pattern}" for pattern in (*_LEFT_OUT, *left_out)]
    for package in sorted((prefix / "apt/cache/archives").glob("*.deb")):
        _unpack(package, prefix, excluded)
    shutil.rmtree(prefix / "apt")


def fetch_sources(folder: Path, suite: str, sources: Sequence[str], debs: Sequence[str]) -> None:
    """Put the original tarballs of source packages, and unpacked packages, into `folder`.

    They come from Debian `suite` on the mirror that this machine uses, checked by apt against the
    signature of the release. Raises EmulatorUnavailableError.
    """
    next_step = "a network and Debian's apt are needed once, or a filled cache from elsewhere"
    require_apt(next_step)
    try:
        source = derived_source(suite)
    except EngineUnavailableError as error:
        raise EmulatorUnavailableError(
            f"no source packages of Debian {suite}: {error}; {next_step}"
        ) from None
    (folder / "apt/parts").mkdir(parents=True)
    text = source.as_deb822().replace("Types: deb\n", "Types: deb deb-src\n")
    (folder / "apt/parts/derived.sources").write_text(text, encoding="utf-8")
    settings = {
        "Dir::Etc::SourceList": "/dev/null",
        "Dir::Etc::SourceParts": str(folder / "apt/parts"),
        "Dir::State::Status": "/dev/null",
        "APT::Update::Error-Mode": "any",
    }
    apt = _Apt(folder / "apt", settings, next_step)
    apt.run("update")
    if sources:
        apt.run("source", "--download-only", *sources, cwd=folder)
    if debs:
        apt.run("download", *debs, cwd=folder / "apt")
        for package in sorted((folder / "apt").glob("*.deb")):
            _unpack(package, folder, [])
    for left in (*folder.glob("*.dsc"), *folder.glob("*.debian.tar.*"), *folder.glob("*.asc")):
        left.unlink()
    shutil.rmtree(folder / "apt")


def fetch_npm_package(npm: str, folder: Path, name: str, version: str, integrity: str) -> None:
    """Put one npm package without dependencies into `folder`/node_modules, held to its known
    content by `integrity`. Raises EmulatorUnavailableError."""
    dependencies = {name: version}
    lock = {
        "name": "fetched",
        "lockfileVersion": 3,
        "packages": {
            "": {"dependencies": dependencies},
            f"node_modules/{name}": {"version": version, "integrity": integrity},
        },
    }
    manifest = {"name": "fetched", "private": True, "dependencies": dependencies}
    (folder / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "package-lock.json").write_text(json.dumps(lock), encoding="utf-8")
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    run(command, "npm and a network are needed once", cwd=folder)


def require_apt(next_step: str) -> None:
    """Raise EmulatorUnavailableError, ending in `next_step`, where there is no apt."""
    missing = [tool for tool in ("apt-get", "dpkg-deb", "tar") if shutil.which(tool) is None]
    if missing:
        raise EmulatorUnavailableError(f"{', '.join(missing)}: not on this machine; {next_step}")


class _Apt:
    """apt-get on folders of its own below `folder`."""

    def __init__(self, folder: Path, settings: Mapping[str, str], next_step: str) -> None:
        require_apt(next_step)
        self._next_step = next_step
        for name in ("lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        lines = {
            "Dir::State::Lists": str(folder / "lists"),
            "Dir::State::Extended_States": str(folder / "extended_states"),
            "Dir::Cache": str(folder / "cache"),
            "Dir::Log": str(folder),
            "Acquire::Languages": "none",
            "Acquire::Retries": "1",
            # Nothing is installed, so nobody has to be kept from installing meanwhile.
            "Debug::NoLocking": "true",
            # Root's apt would change to a user that cannot write into a private folder.
            "APT::Sandbox::User": "",
            **settings,
        }
        # What the machine does after its own updates is none of this one's business.
        hooks = ("APT::Update::Pre-Invoke", "APT::Update::Post-Invoke")
        text = [f"#clear {name};" for name in (*hooks, "APT::Update::Post-Invoke-Success")]
        self._configuration = folder / "apt.conf"
        self._configuration.write_text(
            "\n".join([*text, *(f'{name} "{value}";' for name, value in lines.items())]) + "\n",
            encoding="utf-8",
        )

    def run(self, *arguments: str, cwd: Path | None = None) -> None:
        command = ["apt-get", "-q", "-c", str(self._configuration), *arguments]
        run(command, self._next_step, cwd=cwd or self._configuration.parent)


def _unpack(package: Path, target: Path, excluded: Sequence[str]) -> None:
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as unpacked:
        assert unpacked.stdout is not None
        run(
            ["tar", "--extract", "--file=-", f"--directory={target}", *excluded],
            f"{package.name} cannot be unpacked into {target}",
            stdin=unpacked.stdout,
        )


def run(
    command: Sequence[str],
    next_step: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
    log: Path | None = None,
) -> str:
    """Run a program to its end and return what it wrote, which `log` also gets.

    Raises EmulatorUnavailableError, ending in `next_step`, when it fails.
    """
    shown = " ".join([Path(command[0]).name, *[word for word in command[1:] if "/" not in word]])
    try:
        done = subprocess.run(
            list(command),
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmulatorUnavailableError(f"'{shown}': {error}; {next_step}") from None
    if log is not None:
        log.write_text(done.stdout, encoding="utf-8")
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        said = [line for line in lines if line.startswith(("E:", "ERROR:")) or "error:" in line]
        raise EmulatorUnavailableError(
            f"'{shown}' ended with {done.returncode}: {' / '.join((said or lines)[-3:])}; "
            f"{next_step}"
        )
    return done.stdout
