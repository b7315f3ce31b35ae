# SPDX-License-Identifier: Apache-2.0
"""The board files fit their schema, agree with the tools, and faults in them are named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from feagi_io_host.boards import (
    BOARDS_FOLDER,
    board_names,
    load_board,
    load_boards,
    udev_rules,
)
from feagi_io_host.boards.board_file import ARCHITECTURES
from feagi_io_host.core.errors import ConfigError
from feagi_io_mcu import config
from tools import compile_portable

ROOT = Path(__file__).resolve().parents[2]
EXPECTED = {
    "esp32-c3", "esp32-devkitc", "esp32-s3", "qemu-mps2-an385", "rp2040-pico", "rp2040-pico-w",
    "rp2350-pico2", "stm32-nucleo", "unix", "zephyr-generic",
}  # fmt: skip


def test_all_boards_are_there_and_read() -> None:
    assert set(board_names()) == EXPECTED
    boards = load_boards()
    assert [board.name for board in boards] == sorted(EXPECTED)
    pico = load_board("rp2040-pico")
    assert (pico.chip, pico.rtos, pico.deploy.architecture) == ("RP2040", "none", "armv6m")
    assert [(usb.vid, usb.pid) for usb in pico.usb] == [(0x2E8A, 5), (0x2E8A, 3)]
    assert (pico.uart[0].tx, pico.uart[0].rx, pico.uart[0].baud) == ("GP0", "GP1", 115200)


def test_architectures_are_those_that_are_compiled_for() -> None:
    assert compile_portable.ARCHITECTURES == ARCHITECTURES


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_numbers_of_a_board_make_sense(name: str) -> None:
    board = load_board(name)
    assert board.title
    assert board.source
    assert board.budget.heap_bytes < (board.heap_bytes or board.ram_bytes or 1 << 20)
    assert board.deploy.max_fbc_bytes <= config.MAX_FBC_SIZE
    assert 2 <= board.deploy.pool <= config.FBC_POOL_SIZE
    if board.rtos != "host":
        assert board.uart, "nothing to connect"
        assert board.ram_bytes >= 64 * 1024
        assert board.budget.flash_bytes < board.flash_bytes


def test_what_is_called_emulated_is_run_by_tests() -> None:
    """Only these are: more may be claimed when more is run."""
    assert {board.name for board in load_boards() if board.verified == "emulated"} == {
        "qemu-mps2-an385",
        "rp2040-pico",
        "unix",
    }


def test_the_table_of_the_document_is_that_of_the_files() -> None:
    text = (ROOT / "docs/emulated-boards.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \| (.+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert rows == [
        (board.name, board.chip, board.rtos, board.deploy.form, board.verified)
        for board in load_boards()
    ]


# -- faults -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(BOARDS_FOLDER / "rp2040-pico.toml", tmp_path)
    return tmp_path


def test_an_unknown_board_is_told_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no board 'rp2040pico'; did you mean 'rp2040-pico'"):
        load_board("rp2040pico")
    with pytest.raises(ConfigError, match=r"no board '\.\./boards/unix'"):
        load_board("../boards/unix")


def test_a_folder_without_boards_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no board files in"):
        load_boards(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("chip =", "chp =", "no key 'chp'; did you mean 'chip'"),
        ('chip = "RP2040"\n', "", "missing: chip"),
        ("baud = 115200", "bauds = 115200", r"no key 'uart\[0\].bauds'; did you mean 'baud'"),
        ("baud = 115200", 'baud = "fast"', r"uart\[0\].baud is 'fast'; it needs int"),
        ("baud = 115200", "baud = true", r"uart\[0\].baud is True; it needs int"),
        ("baud = 115200", "baud = 0", r"uart\[0\].baud is 0"),
        ("max_baud = 921600", "max_baud = 9600", "max_baud is 9600, less than baud, 115200"),
        ("ram_bytes = 270336", "ram_bytes = -1", "ram_bytes is -1; it cannot be negative"),
        ('rtos = "none"', 'rtos = "zephyr"', "rtos is 'zephyr'; did you mean 'Zephyr'"),
        ('form = "viper"', 'form = "fast"', "deploy.form is 'fast'; there are: viper"),
        ('form = "viper"', 'form = "plain"', "deploy.architecture says nothing"),
        ('"armv6m"', '"armv6"', "deploy.architecture is 'armv6'; did you mean 'armv6m'"),
        ("pool = 4", "pool = 1", "deploy.pool is 1; a transport needs at least 2"),
        ("pid = 0x0005", "pid = 0x10005", r"usb\[0\].pid is 0x10005"),
        ('tx = "GP0"\n', "", r"uart\[0\] names some pins; all of tx, rx or none"),
        ('tx = "GP0"', 'tx = "GP1"', r"uart\[0\] names one pin twice"),
        ('tx = "GP0"', 'tx = "GP0"\nscl = "GP9"', r"uart\[0\] has no pin scl; uart has tx, rx"),
        ("[budget]", "[[budget]]", r"budget is \[.*it is a table: \[budget\]"),
        ("[[usb]]\n", "[usb]\n", "usb"),
        ("title", "=", "Invalid"),
    ],
)
def test_a_fault_is_named(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "rp2040-pico.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        load_board("rp2040-pico", folder)
    assert str(path) in str(caught.value)


def test_bytes_that_are_no_text(folder: Path) -> None:
    (folder / "rp2040-pico.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"rp2040-pico\.toml"):
        load_board("rp2040-pico", folder)
    (folder / "rp2040-pico.toml").write_bytes(b"#" * 70_000)
    with pytest.raises(ConfigError, match="over 65536 bytes"):
        load_board("rp2040-pico", folder)


# -- udev ---------------------------------------------------------------------------------------


def test_udev_rules_hold_every_identity_once() -> None:
    boards = load_boards()
    text = udev_rules(boards)
    found = re.findall(r'idVendor\}=="([0-9a-f]{4})", ATTRS\{idProduct\}=="([0-9a-f]{4})"', text)
    expected = {(f"{usb.vid:04x}", f"{usb.pid:04x}") for board in boards for usb in board.usb}
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert "# rp2040-pico, rp2040-pico-w, rp2350-pico2\n" in text
    rules = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(line.startswith('SUBSYSTEM=="tty", ') for line in rules)
    assert all(line.count('"') % 2 == 0 for line in rules)
