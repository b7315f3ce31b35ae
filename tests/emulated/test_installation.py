# SPDX-License-Identifier: Apache-2.0
"""What is fetched and built once: all of it or nothing, and errors that say what to do."""

from __future__ import annotations

import tarfile
import threading
from pathlib import Path

import pytest

from tools.emulation import EmulatorUnavailableError, firmware, packages
from tools.emulation.cache import cache_folder, filled
from tools.emulation.packages import Prefix, fetch_sources, run, unpack_programs
from tools.emulation.tree import write_tree


def test_cache_follows_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "feagi-io/emulation"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache/feagi-io/emulation"


def test_a_folder_is_filled_once_by_whoever_comes_first(tmp_path: Path) -> None:
    calls: list[Path] = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "file").write_text("made")

    target = tmp_path / "deep" / "target"
    threads = [threading.Thread(target=filled, args=(target, fill)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert (filled(target, fill) / "file").read_text() == "made"


def test_a_folder_that_could_not_be_filled_is_not_there(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("")
        raise EmulatorUnavailableError("no network")

    target = tmp_path / "target"
    with pytest.raises(EmulatorUnavailableError, match="no network"):
        filled(target, fill)
    assert [path.name for path in tmp_path.iterdir()] == ["target.lock"]


def test_without_apt_the_error_is_the_line_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        EmulatorUnavailableError, match=r"apt-get.*sudo apt install qemu-system-arm make"
    ):
        unpack_programs(tmp_path / "prefix", ["qemu-system-arm", "make"])
    with pytest.raises(EmulatorUnavailableError, match="or a filled cache from elsewhere"):
        fetch_sources(tmp_path / "sources", "trixie", ["micropython"], [])


def test_a_program_of_the_machine_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "qemu-system-arm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(firmware, "unpack_programs", None)
    firmware.find_qemu.cache_clear()
    try:
        found = firmware.find_qemu()
    finally:
        firmware.find_qemu.cache_clear()
    assert found.need("qemu-system-arm") == str(program)
    assert "LD_LIBRARY_PATH" not in set(found.environment()) - set(Prefix().environment())
    with pytest.raises(EmulatorUnavailableError, match="make is not on this machine; install it"):
        found.need("make")


def test_programs_of_a_prefix_find_their_libraries(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/tool").write_text("")
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    prefix = Prefix(tmp_path)
    assert prefix.program("tool") == str(tmp_path / "usr/bin/tool")
    environment = prefix.environment()
    assert environment["LD_LIBRARY_PATH"] == str(tmp_path / "usr/lib/x86_64-linux-gnu")
    assert environment["PATH"].startswith(str(tmp_path / "usr/bin"))


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(EmulatorUnavailableError, match=r"ended with 3: E: gone; do this"):
        run(["sh", "-c", "echo noise; echo E: gone; exit 3"], "do this", log=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "noise\nE: gone\n"
    with pytest.raises(EmulatorUnavailableError, match="do this"):
        run([str(tmp_path / "nothing")], "do this")


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_DEADLINE_S", 0.1)
    with pytest.raises(EmulatorUnavailableError, match="timed out"):
        run(["sleep", "60"], "do this")


def test_other_sources_than_expected_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def bring(folder: Path, *_: object) -> None:
        (folder / "micropython_1.30.0+ds.orig.tar.xz").write_bytes(b"")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(firmware, "fetch_sources", bring)
    with pytest.raises(EmulatorUnavailableError, match=r"1\.25\.0 and brought .*1\.30\.0"):
        firmware.micropython_tarball()


def test_a_tarball_cannot_write_outside(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("")
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        archive.add(tmp_path / "evil", arcname="../outside")
    if not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no filters for tarballs")
    with pytest.raises(tarfile.OutsideDestinationError):
        firmware.unpack_tarball(tmp_path / "evil.tar", tmp_path / "in")
    assert not (tmp_path / "outside").exists()


def test_the_digest_is_of_every_file_of_the_port(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = firmware.port_digest(tmp_path)
    (tmp_path / "b").write_text("")
    second = firmware.port_digest(tmp_path)
    (tmp_path / "a").write_text("2")
    assert len({first, second, firmware.port_digest(tmp_path)}) == 3


def test_what_mpy_cross_says_against_a_file_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sources = {"feagi_wire/wrong.py": "match = 1\nmatch match:\n case 1: pass\n"}
    monkeypatch.setattr("feagi_io_host.boards.board_tree.board_sources", lambda: sources)
    with pytest.raises(EmulatorUnavailableError, match=r"feagi_wire/wrong\.py(.|\n)*SyntaxError"):
        write_tree(tmp_path / "out", "armv6m")
