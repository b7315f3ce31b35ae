# SPDX-License-Identifier: Apache-2.0
"""Writing a ROMFS, against flash that says and does what no emulated board can be made to: the code
for the board runs here, with a stand-in for its `vfs`. The real thing: tests/emulated."""

from __future__ import annotations

import contextlib
import io
import sys
import types
from typing import Any, Self, cast

import pytest

from feagi_io_host.boards import deploy, load_board
from feagi_io_host.boards.console import BoardCodeError, BoardConsole, ConsoleLostError
from feagi_io_host.boards.payload import BoardFile
from feagi_io_host.boards.rom import build_rom, has_rom, write_rom
from feagi_io_host.core.errors import RemoteError

ERASED = 0xFF


class Flash:
    """A board's console and its flash; it is unplugged before write number `writes`."""

    def __init__(self, least: object = 256, writes: int = 1000) -> None:
        self.rom = bytearray(range(256)) * 64
        self.port = "port"
        self.least = least
        self.writes = writes
        self.runs = True
        self._names: dict[str, Any] = {}

    def ioctl(self, what: int, _segment: int = 0, *more: Any) -> object:
        if what == 1:
            return 1
        if what == 2:
            return self.rom
        if what == 3:
            size = more[0] + -more[0] % 4096
            self.rom[:size] = bytes([ERASED]) * size
            return self.least
        if what == 4:
            at, data = more
            assert at % cast("int", self.least) == len(data) % cast("int", self.least) == 0
            if not self.writes:
                raise ConsoleLostError("unplugged")
            self.writes -= 1
            assert set(self.rom[at : at + len(data)]) <= {ERASED}, "written twice"
            self.rom[at : at + len(data)] = data
        return None

    def take_over(self) -> None:
        self.runs = False

    def restart(self) -> None:
        self.runs = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, code: str, timeout_s: float = 0.0) -> str:
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(code, self._names)
        except ConsoleLostError:
            raise
        except Exception as error:
            raise BoardCodeError("the board says no", str(error)) from None
        return said.getvalue()


@pytest.fixture
def image() -> BoardFile:
    return build_rom([BoardFile(f"package/{n}.mpy", bytes([n]) * 700) for n in range(5)])


def write(flash: Flash, image: BoardFile, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    vfs = types.ModuleType("vfs")
    vfs.rom_ioctl = flash.ioctl  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vfs", vfs)
    sent: list[int] = []
    console = cast("BoardConsole", flash)
    assert not has_rom(console, image)
    write_rom(console, image, sent.append)
    assert has_rom(console, image)
    return sent


@pytest.mark.parametrize("least", [1, 4, 256, 512, 4096])
def test_an_image_is_written(image: BoardFile, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    flash = Flash(least)
    sent = write(flash, image, monkeypatch)
    assert flash.rom[: image.size] == image.data
    assert sent == sorted(sent)
    assert sent[-1] == image.size


def test_an_image_that_is_not_whole_is_none(
    image: BoardFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for writes in range(-(-image.size // 768)):
        flash = Flash(writes=writes)
        with pytest.raises(ConsoleLostError):
            write(flash, image, monkeypatch)
        assert flash.rom[:4] == bytes([ERASED]) * 4, "a board would use what is there of it"


@pytest.mark.parametrize("least", [None, "nonsense", 1 << 30, -5])
def test_flash_that_answers_nonsense(
    image: BoardFile, least: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RemoteError, match="erase"):
        write(Flash(least), image, monkeypatch)


def test_a_dry_run_that_is_refused_leaves_the_board_running(
    image: BoardFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    flash = Flash()
    monkeypatch.setattr(deploy, "BoardConsole", lambda port, **_: flash)
    monkeypatch.setattr(flash, "run", lambda code, timeout_s=0.0: "nonsense")
    dry = deploy.Deployment(
        load_board("rp2040-pico"), [], lambda: "port", dry_run=True, rom=[image]
    )
    with pytest.raises(RemoteError, match="does not say what it runs"):
        dry.run()
    assert flash.runs
