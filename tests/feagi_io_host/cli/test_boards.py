# SPDX-License-Identifier: Apache-2.0
"""`feagi-io boards`: what it prints and how it ends. Ports are made up here, because this machine
has no boards; the commands on real MicroPython are in tests/emulated."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from feagi_io_host.boards import load_boards
from feagi_io_host.boards.deploy import Progress
from feagi_io_host.boards.ear import AgentHeard, Ear
from feagi_io_host.boards.ports import PortFacts
from feagi_io_host.cli import board_ports
from feagi_io_host.cli.app import app
from feagi_io_host.cli.board_deploy import BarView, LineView, choose_view
from feagi_io_host.cli.board_dev import Tail
from feagi_io_host.core.errors import PortPermissionError

PICO = PortFacts("/dev/ttyACM0", 0x2E8A, 5, "e6614103e7", "Board in FS mode")
SECOND = PortFacts("/dev/ttyACM1", 0x2E8A, 5, "e6614103e8", "Board in FS mode")
DISK = PortFacts("", 0x2E8A, 3, "E0C9125B0D9B", "RP2 Boot")


def feagi_io(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["boards", *arguments])


@pytest.fixture
def two_picos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_ports, "port_facts", lambda: [PICO, SECOND, DISK])
    monkeypatch.setattr(
        board_ports,
        "access_error",
        lambda path: (
            PortPermissionError("user x may not open it: root:dialout, mode 660")
            if path == SECOND.device
            else None
        ),
    )
    monkeypatch.setattr(board_ports, "udev_rule", lambda path: 'SUBSYSTEM=="tty", TAG+="uaccess"')


def test_list_names_boards_serial_numbers_and_problems(two_picos: None) -> None:
    done = feagi_io("list", "--no-ask")
    assert done.exit_code == 0
    assert "/dev/ttyACM0  2e8a:0005  serial number e6614103e7  Board in FS mode" in done.stdout
    assert "board: rp2040-pico or" in done.stdout
    assert "problem: user x may not open it: root:dialout" in done.stdout
    assert "no port  2e8a:0003" in done.stdout
    assert "in its boot loader" in done.stdout


def test_list_as_json(two_picos: None) -> None:
    done = feagi_io("list", "--no-ask", "--json")
    first, second, disk = json.loads(done.stdout)
    assert (first["port"], first["vid"], first["serial_number"]) == (
        "/dev/ttyACM0", 0x2E8A, "e6614103e7",
    )  # fmt: skip
    assert "rp2040-pico" in first["boards"]
    assert first["runs"] is None
    assert second["udev"].startswith("SUBSYSTEM")
    assert (disk["port"], disk["runs"]) == (None, "bootloader")


def test_no_port_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board_ports, "port_facts", lambda: [])
    assert "no serial port: plug a board in" in feagi_io("list").stdout


def test_deploy_never_guesses_and_says_what_to_do(two_picos: None) -> None:
    done = feagi_io("deploy", "--board", "rp2040-pico")
    assert done.exit_code == 1
    assert "2 ports may be a rp2040-pico: /dev/ttyACM0" in done.stderr
    assert "--port" in done.stderr
    assert "e6614103e8" in done.stderr
    done = feagi_io("reset", "--board", "rp2040-pico", "--port", SECOND.device)
    assert done.exit_code == 1
    assert "root:dialout" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--board", "rp2040-pica"], 2, "did you mean 'rp2040-pico'?"),
        (["--board", "unix"], 2, "feagi-io boards emulate PROGRAM"),
        (["--board", "rp2040-pico", "--port", "/dev/there-is-none"], 1, "no port /dev/there-is-n"),
        ([], 2, "--board"),
    ],
)
def test_wrong_usage(arguments: list[str], status: int, says: str) -> None:
    done = feagi_io("deploy", *arguments)
    assert done.exit_code == status
    assert says in done.stderr


def test_boot_loaders_are_found_among_usb_devices(tmp_path: Path) -> None:
    for name, vid, pid in (("1-1", "2e8a", "0003"), ("1-2", "2e8a", "0005"), ("1-3", "zz", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "idVendor").write_text(f"{vid}\n")
        (tmp_path / name / "idProduct").write_text(f"{pid}\n")
    (tmp_path / "1-1" / "serial").write_text("E0C9\n")
    (tmp_path / "usb1").mkdir()
    assert board_ports.boot_loaders(load_boards(), tmp_path) == [
        PortFacts("", 0x2E8A, 3, "E0C9", "")
    ]
    assert board_ports.boot_loaders(load_boards(), tmp_path / "none") == []


def test_a_board_that_moves_is_found_by_its_serial_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [PICO]
    monkeypatch.setattr(board_ports, "port_facts", lambda: ports)
    monkeypatch.setattr(board_ports, "access_error", lambda path: None)
    port, locate = board_ports.locator(board_ports.known_board("rp2040-pico"), None)
    assert (port, locate()) == ("/dev/ttyACM0", "/dev/ttyACM0")
    ports[:] = []
    assert locate() is None
    ports[:] = [SECOND, PortFacts("/dev/ttyACM5", 0x2E8A, 5, PICO.serial_number)]
    assert locate() == "/dev/ttyACM5"


def test_a_named_port_without_a_number_is_where_it_is(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    try:
        link = tmp_path / "board"
        link.symlink_to(os.ttyname(terminal))
        # held by this very process, which the check would rightly refuse
        facts = board_ports._named(str(link), [PortFacts(os.ttyname(terminal))])
        assert facts.device == os.ttyname(terminal)
        assert board_ports._named("/dev/x", []) == PortFacts("/dev/x")
    finally:
        os.close(controller)
        os.close(terminal)


def test_who_answered_in_words() -> None:
    ear = Ear()
    assert board_ports.who_answered(ear)[0] == "unknown"
    ear.listen(b"tick\r\n")
    assert "neither REPL nor agent (6 bytes)" in board_ports.who_answered(ear)[1]
    ear.listen(b">>> ")
    assert board_ports.who_answered(ear) == ("REPL", "a REPL")
    ear.agent = AgentHeard(2, 4, None, "another version")
    assert board_ports.who_answered(ear) == (
        "agent", "feagi-io agent of another version: link 2, container 4",
    )  # fmt: skip
    ear.agent = AgentHeard(1, 4, None, "no name")
    assert "its declaration is refused: no name" in board_ports.who_answered(ear)[1]


def steps() -> list[Progress]:
    return [
        Progress("a.mpy", 768, 1000, 768, 1500),
        Progress("a.mpy", 1000, 1000, 1000, 1500),
        Progress("a.mpy", 1000, 1000, 1000, 1500),
        Progress("b.mpy", 500, 500, 1500, 1500),
    ]


def test_progress_is_a_line_a_file_or_bars() -> None:
    console = Console(record=True, width=100, force_terminal=False)
    with LineView(console) as view:
        for step in steps():
            view.show(step)
    lines = console.export_text().splitlines()
    assert lines == ["  a.mpy  1000 bytes  (1000 of 1500)", "  b.mpy  500 bytes  (1500 of 1500)"]

    console = Console(record=True, width=100, force_terminal=True)
    with BarView(console) as view:
        for step in steps():
            view.show(step)
    text = console.export_text()
    assert "all files" in text
    assert "b.mpy  500 bytes" in text


def test_bars_need_a_terminal_and_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(choose_view(quiet=True)) is LineView
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert type(choose_view(quiet=False)) is BarView
    monkeypatch.setenv("NO_COLOR", "1")
    assert type(choose_view(quiet=False)) is LineView


def test_the_tail_shows_text_and_counts_frames() -> None:
    written: list[str] = []
    tail = Tail(written.append)
    tail.take(b"hello\r\nw\xc3\xb6rl")
    tail.take(b"d\r\n\x00\x05\x01\x88\x11\xff\x9a\x00more\r\n")
    assert "".join(written) == "hello\nw\xf6rld\nmore\n"
    assert tail.frames == 1
