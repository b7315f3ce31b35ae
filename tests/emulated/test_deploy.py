# SPDX-License-Identifier: Apache-2.0
"""Deploying to a real MicroPython with the real mpremote, and everything that gets in its way."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from feagi_io_host.boards import load_board
from feagi_io_host.boards.console import (
    BoardCodeError,
    BoardConsole,
    ConsoleLostError,
    ReplBusyError,
)
from feagi_io_host.boards.deploy import BoardFullError, Deployment, Progress
from feagi_io_host.boards.hear import hear
from feagi_io_host.boards.manifest import MANIFEST_PATH
from feagi_io_host.boards.mpy import FirmwareMismatchError
from feagi_io_host.boards.payload import BoardFile, package_files
from feagi_io_host.core.errors import PortNotFoundError, RemoteError
from tools.emulation import Cortex, EmulatedBoard, PluggedBoard

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

BOARD = load_board("qemu-mps2-an385")  # any other takes FILES as well


def module(name: str, size: int, seed: int = 0) -> BoardFile:
    """A file of one of our packages; what is in it does not matter here."""
    return BoardFile(f"feagi_wire/{name}.py", bytes((seed + i) % 251 for i in range(size)))


FILES = [module("one", 3000), module("two", 5000), module("three", 200)]


class Cable:
    """A console's line that can be pulled out after so many bytes, and put back in."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("socket://").partition(":")
        self._far = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self.cut_after: int | None = None
        self.cuts = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(self._far, timeout=5)
            far.settimeout(None)
            self._ends += [near, far]
            for one, other, counted in ((near, far, True), (far, near, False)):
                thread = threading.Thread(target=self._move, args=(one, other, counted))
                self._threads.append(thread)
                thread.start()

    def _move(self, one: socket.socket, other: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(256):
                if counted and self.cut_after is not None:
                    self.cut_after -= len(data)
                    if self.cut_after < 0:
                        self.cut_after = None
                        self.cuts += 1
                        break
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for end in self._ends:
            end.close()


@pytest.fixture(scope="module")
def bare(request: pytest.FixtureRequest, plugged: PluggedBoard | None) -> Iterator[EmulatedBoard]:
    """A board without packages, shared by these tests: each begins with `wiped`."""
    with plugged or Cortex(firmware=request.getfixturevalue("cortex_m3")) as board:
        yield board


@pytest.fixture
def wiped(bare: EmulatedBoard) -> EmulatedBoard:
    """The same without anything that a deployment or one of these tests puts there."""
    with BoardConsole(bare.console) as console:
        console.take_over()
        console.run(
            "import os\n"
            "def rm(p):\n"
            " for e in list(os.ilistdir(p)):\n"
            "  q = p + '/' + e[0]\n"
            "  if e[1] & 0x4000:\n"
            "   rm(q)\n"
            "   os.rmdir(q)\n"
            "  else:\n"
            "   os.remove(q)\n"
            "for p in ('feagi_wire', 'feagi_io_mcu'):\n"
            " try:\n"
            "  rm(p)\n"
            "  os.rmdir(p)\n"
            " except OSError: pass\n"
            "for p in ('feagi-io.json', 'feagi-io.json.new', 'main.py', 'ballast'):\n"
            " try: os.remove(p)\n"
            " except OSError: pass"
        )
    return bare


def deployed(board: EmulatedBoard, files: list[BoardFile], **options: object) -> Deployment:
    return Deployment(BOARD, files, lambda: board.console, **options)  # type: ignore[arg-type]


def read(board: EmulatedBoard, *paths: str) -> list[bytes]:
    with BoardConsole(board.console) as console:
        console.take_over()
        code = f"for p in {paths!r}: print(open(p, 'rb').read().hex())"
        return [bytes.fromhex(line) for line in console.run(code).split()]


def differing(board: EmulatedBoard, files: list[BoardFile]) -> list[str]:
    """Paths of those that are other on the board."""
    there = read(board, *(file.path for file in files))
    return [file.path for file, data in zip(files, there, strict=True) if file.data != data]


def listed(board: EmulatedBoard, folder: str = "") -> set[str]:
    with BoardConsole(board.console) as console:
        console.take_over()
        return set(console.run(f"import os; print(*os.listdir({folder!r}))").split())


def test_what_is_there_is_not_sent_again_and_a_damaged_file_is(wiped: EmulatedBoard) -> None:
    shown: list[Progress] = []
    first = deployed(wiped, FILES, progress=shown.append).run(reset=False)
    assert sorted(first.sent) == sorted(file.path for file in FILES)
    assert first.sent_bytes == sum(file.size for file in FILES)
    assert first.firmware.version >= (1, 20)
    assert differing(wiped, FILES) == []
    last = shown[-1]
    assert (last.sent, last.total_sent) == (last.size, last.total)
    assert [p.total_sent for p in shown] == sorted(p.total_sent for p in shown)

    with BoardConsole(wiped.console) as console:
        console.take_over()
        # of the same size, under a manifest that still says that all is well
        console.run("f = open('feagi_wire/two.py', 'r+b'); f.seek(99); f.write(b'?'); f.close()")
    again = deployed(wiped, FILES).run(reset=False)
    assert again.sent == ["feagi_wire/two.py"]
    assert len(again.kept) == 2
    assert deployed(wiped, FILES).run(reset=False).sent == []


def test_obsolete_files_go_and_others_stay(wiped: EmulatedBoard) -> None:
    deployed(wiped, [*FILES, module("old", 50)]).run(reset=False)
    with BoardConsole(wiped.console) as console:
        console.take_over()
        console.run(
            "for n in ('mine.py', 'one.mpy', 'half.mpy.new'): open('feagi_wire/' + n, 'w').close()"
        )
    report = deployed(wiped, FILES).run(reset=False)
    assert report.removed == [
        "feagi_wire/half.mpy.new", "feagi_wire/old.py", "feagi_wire/one.mpy",
    ]  # fmt: skip
    assert listed(wiped, "feagi_wire") == {"one.py", "two.py", "three.py", "mine.py"}
    assert json.loads(read(wiped, MANIFEST_PATH)[0])["board"] == BOARD.name


def test_a_dry_run_changes_nothing(wiped: EmulatedBoard) -> None:
    report = deployed(wiped, FILES, dry_run=True).run()
    assert len(report.sent) == 3
    assert report.sent_bytes == sum(file.size for file in FILES)
    assert "feagi_wire" not in listed(wiped)


def test_unplugged_in_mid_file_the_old_files_stay_and_the_rest_follows(blank: Cortex) -> None:
    files = [module("one", 1500), module("two", 2500), module("three", 200)]
    old = [module("one", 1500, 7), module("two", 2500, 7)]
    deployed(blank, old).run(reset=False)
    cable = Cable(blank.console)
    try:
        said: list[str] = []
        seen: list[Progress] = []
        cut_in = files[1].path

        def watch(progress: Progress) -> None:
            seen.append(progress)
            if progress.path == cut_in and 0 < progress.sent < progress.size and not cable.cuts:
                cable.cut_after = 100

        plugged = True
        broken = Deployment(
            BOARD, files, lambda: cable.port if plugged else None, progress=watch, return_s=0.2
        )

        def unplug(text: str) -> None:
            nonlocal plugged
            plugged = False

        broken._say = unplug
        with pytest.raises(PortNotFoundError, match="only what is missing is sent"):
            broken.run(reset=False)
        assert cable.cuts == 1
        assert differing(blank, old) == [], "half of a release was put in place"

        report = Deployment(BOARD, files, lambda: cable.port, say=said.append).run(reset=False)
        assert files[0].path not in report.sent
        assert report.sent == [files[1].path, files[2].path]
        assert report.resumed == 0

        # and a board that comes back by itself needs no second run
        newer = [module("one", 1200, 1), module("two", 1200, 2)]
        cut_in = newer[1].path
        cable.cuts = 0
        report = Deployment(BOARD, newer, lambda: cable.port, say=said.append, progress=watch).run(
            reset=False
        )
        assert cable.cuts == 1
        assert report.resumed == 1
        assert sorted(report.sent) == [file.path for file in newer]
        assert any("waiting up to 30 s" in text for text in said)
    finally:
        cable.close()
    assert differing(blank, newer) == []


@pytest.mark.emulator("presses the reset button")
def test_reset_in_mid_file_is_gone_through(wiped: EmulatedBoard) -> None:
    pressed: list[str] = []

    def press(progress: Progress) -> None:
        if not pressed and progress.sent > 2000:
            pressed.append(progress.path)
            wiped.reset()

    report = deployed(wiped, FILES, progress=press).run(reset=False)
    assert pressed
    assert report.resumed == 1
    assert differing(wiped, FILES) == []


def test_a_manifest_of_somebody_else_is_no_harm(wiped: EmulatedBoard) -> None:
    with BoardConsole(wiped.console) as console:
        console.take_over()
        evil = {"format": 1, "files": {"../ballast": "0" * 64}, "wire": [1, 4]}
        console.run(f"f = open({MANIFEST_PATH!r}, 'w'); f.write({json.dumps(evil)!r}); f.close()")
        console.run("open('ballast', 'w').close()")
    report = deployed(wiped, FILES[2:]).run(reset=False)
    assert report.removed == []
    assert "ballast" in listed(wiped)


@pytest.mark.emulator("writes a flash full")
def test_a_full_file_system_is_told_and_nothing_half_is_left(wiped: EmulatedBoard) -> None:
    with BoardConsole(wiped.console) as console:
        console.take_over()
        console.run(
            "import os\nb = bytes(32768)\nf = open('ballast', 'wb')\ns = os.statvfs('/')\n"
            "n = s[0] * s[3] - 24576\n"
            "while n > 0: n -= f.write(b if n > 32768 else b[:n])\n"
            "f.close()",
            60,
        )
    files = [module(f"large{number}", 9000, number) for number in range(3)]
    with pytest.raises(BoardFullError, match=r"large\d\.py \(9000 bytes\) does not fit: .* free"):
        deployed(wiped, files).run(reset=False)
    left = listed(wiped, "feagi_wire")
    assert not any(name.endswith(".py") for name in left), left
    with BoardConsole(wiped.console) as console:
        console.take_over()
        console.run("import os; os.remove('ballast')")
    report = deployed(wiped, files).run(reset=False)
    assert len(report.kept) == len(left), "what had come whole is used"


@pytest.mark.emulator("is about the emulated chip")
def test_machine_code_for_another_chip_is_refused_before_anything_is_sent(
    wiped: EmulatedBoard,
) -> None:
    deploy = dataclasses.replace(BOARD.deploy, architecture="xtensawin")
    with pytest.raises(FirmwareMismatchError, match=r"machine code for xtensawin, .* armv7em"):
        deployed(wiped, package_files(deploy)).run()
    with pytest.raises(FirmwareMismatchError, match=r"which is no esp32-s3"):
        Deployment(load_board("esp32-s3"), FILES, lambda: wiped.console).run()
    assert "feagi_wire" not in listed(wiped)


AGENT = """\
from feagi_io_mcu import Agent, UsbCdcDriver
agent = Agent(UsbCdcDriver(), "on the REPL's line")
agent.sensor("iinf")
while True:
    agent.step(1)
"""
DEAF = "import micropython, time\nmicropython.kbd_intr(-1)\nwhile True: time.sleep_ms(50)\n"


@pytest.mark.emulator("is about the emulated console")
def test_an_agent_on_the_repls_line_gives_it_back(wiped: EmulatedBoard) -> None:
    files = [*package_files(BOARD.deploy), BoardFile("main.py", AGENT.encode())]
    deployed(wiped, files).run()
    with BoardConsole(wiped.console) as console:
        ear = hear(console, 10)
        assert ear.agent is not None
        assert ear.agent.declaration is not None
        assert ear.agent.declaration.name == "on the REPL's line"
        assert ear.agent.speaks_ours
    report = deployed(wiped, files[:-1]).run(reset=False)
    assert report.sent == []
    assert len(report.kept) == len(files) - 1


@pytest.mark.emulator("presses the reset button")
def test_a_program_that_never_gives_the_line_back_is_told(wiped: EmulatedBoard) -> None:
    with BoardConsole(wiped.console) as console:
        console.take_over()
        console.start(DEAF)
    with BoardConsole(wiped.console) as console:
        assert not hear(console, 1).prompt, "it was disturbed"
    with pytest.raises(ReplBusyError, match="press its reset button"):
        deployed(wiped, FILES, slowness=0.3).run()
    wiped.reset()


def test_code_that_raises_and_boards_that_go_away(wiped: EmulatedBoard, cortex_m3: Path) -> None:
    with BoardConsole(wiped.console) as console:
        console.take_over()
        with pytest.raises(BoardCodeError, match="ZeroDivisionError") as caught:
            console.run("1 / 0")
        assert "Traceback" in caught.value.traceback
        assert isinstance(caught.value, RemoteError)
    with pytest.raises(PortNotFoundError, match="boards list"):
        BoardConsole("/dev/there-is-none")
    with Cortex(firmware=cortex_m3, console="pty") as other:
        console = BoardConsole(other.console)
        console.take_over()
    with console, pytest.raises(ConsoleLostError, match="is gone"):
        console.run("pass")
