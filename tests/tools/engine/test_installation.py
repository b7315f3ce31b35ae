# SPDX-License-Identifier: Apache-2.0
"""Installing: complete or not at all, once, and with a reason when it cannot be done."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import pytest

from tools.engine import ENGINE_VERSION, EngineUnavailableError
from tools.engine.installation import cache_folder, fetch_wheel, install

LOADER = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
RUNS = "#!/bin/sh\nexit 0\n"
# Takes the program as its last but one argument, as the loader of a C library does.
LOADS = "#!/bin/sh\nexit 0\n"
TOO_OLD = "#!/bin/sh\necho 'GLIBC_2.38 not found' >&2; exit 1\n"


class Server:
    """Stands in for pip and apt; counts what is fetched."""

    def __init__(self, program: str, loader: str = LOADS) -> None:
        self.program = program
        self.loader = loader
        self.fetched: list[str] = []

    def wheel(self, folder: Path) -> Path:
        self.fetched.append("wheel")
        path = folder / "feagi_core.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("feagi/bin/linux-x86_64/feagi", self.program)
            archive.writestr("feagi/bin/windows-x86_64/feagi.exe", "MZ")
            archive.writestr("feagi_core.dist-info/licenses/LICENSE", "Apache")
        return path

    def libraries(self, folder: Path, prefix: Path) -> None:
        self.fetched.append("libraries")
        path = prefix / LOADER
        path.parent.mkdir(parents=True)
        path.write_text(self.loader)
        path.chmod(0o755)


def test_a_new_machine_needs_no_libraries(tmp_path: Path) -> None:
    server = Server(RUNS)
    for _ in range(2):
        found = install(tmp_path, server.wheel, server.libraries)
    assert server.fetched == ["wheel"]
    assert found.command == (str(tmp_path / ENGINE_VERSION / "feagi"),)
    files = {path.name for path in found.folder.rglob("*") if path.is_file()}
    assert files == {"feagi", "LICENSE"}


def test_an_old_machine_starts_it_through_the_loader(tmp_path: Path) -> None:
    server = Server(TOO_OLD)
    for _ in range(2):
        found = install(tmp_path, server.wheel, server.libraries)
    assert server.fetched == ["wheel", "libraries"]
    loader = tmp_path / ENGINE_VERSION / "prefix" / LOADER
    assert found.command == (
        *(str(loader), "--library-path", str(loader.parent)),
        str(tmp_path / ENGINE_VERSION / "feagi"),
    )


def test_a_failure_leaves_nothing_and_the_next_call_tries_again(tmp_path: Path) -> None:
    server = Server(TOO_OLD, loader=TOO_OLD)
    with pytest.raises(EngineUnavailableError, match="does not start on this machine"):
        install(tmp_path, server.wheel, server.libraries)
    assert [path.name for path in tmp_path.iterdir()] == [f"{ENGINE_VERSION}.lock"]
    server.loader = LOADS
    install(tmp_path, server.wheel, server.libraries)
    assert server.fetched == ["wheel", "libraries"] * 2


def test_a_wheel_without_the_program(tmp_path: Path) -> None:
    def wheel(folder: Path) -> Path:
        path = folder / "other.whl"
        zipfile.ZipFile(path, "w").close()
        return path

    with pytest.raises(EngineUnavailableError, match=r"other\.whl holds no feagi/bin"):
        install(tmp_path, wheel, Server(RUNS).libraries)


def test_callers_at_the_same_time_fetch_once(tmp_path: Path) -> None:
    server = Server(RUNS)
    both = threading.Barrier(2)

    def call() -> None:
        both.wait(10)
        install(tmp_path, server.wheel, server.libraries)

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert server.fetched == ["wheel"]


def test_a_download_that_fails_is_told_with_what_the_tool_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\necho 'WARNING: retrying' >&2\necho 'ERROR: no such thing' >&2\nexit 7\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(fake))
    with pytest.raises(EngineUnavailableError, match=r"network .* ended with 7: ERROR: no such"):
        fetch_wheel(tmp_path)


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "feagi-io" / "engine"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "feagi-io" / "engine"
