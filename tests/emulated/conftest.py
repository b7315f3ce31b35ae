# SPDX-License-Identifier: Apache-2.0
"""Emulated boards for the tests, with the portable packages on them.

Where an emulator cannot be had the tests are skipped with the reason; with CI=true they fail. The
first run builds the firmware.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.micropython import ROOT
from tools.compile_portable import find_mpy_cross
from tools.emulation import (
    Cortex,
    EmulatedBoard,
    EmulatorUnavailableError,
    Pico,
    cortex_m3_firmware,
    pico_firmware,
)
from tools.emulation.romfs import write_romfs
from tools.emulation.tree import write_tree

SCRIPTS = ROOT / "tests" / "portable"
PROGRAMS = Path(__file__).resolve().parent / "programs"
ARCHITECTURE = "armv7m"
BUILD_AND_RUN_S = 500
INSTRUCTION_NS_LOG2 = 3  # 8 ns: a Pico's 125 MHz


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Room for the first build, which happens in a fixture."""
    for item in items:
        if {"cortex_m3", "pico"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(BUILD_AND_RUN_S))


@dataclass(frozen=True)
class Deployment:
    """What a board gets: `folder` with both packages, `sizes` of their files in bytes."""

    folder: Path
    sizes: dict[str, int]


@pytest.fixture(scope="session")
def cortex_m3() -> Path:
    """The firmware of the Cortex-M3, built on the first run."""
    try:
        return cortex_m3_firmware()
    except EmulatorUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def packages(cortex_m3: Path, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Both portable packages, compiled."""
    folder = tmp_path_factory.mktemp("board")
    return Deployment(folder, write_tree(folder, ARCHITECTURE))


def deploy(board: EmulatedBoard, packages: Deployment) -> None:
    folders = [str(packages.folder / name) for name in ("feagi_wire", "feagi_io_mcu")]
    board.mpremote("cp", "-r", *folders, ":", timeout_s=100)


@pytest.fixture
def blank(cortex_m3: Path) -> Iterator[Cortex]:
    """A board as it leaves the factory."""
    with Cortex(firmware=cortex_m3, console="tcp") as board:
        yield board


@pytest.fixture(scope="module")
def board(cortex_m3: Path, packages: Deployment) -> Iterator[Cortex]:
    """A board with the memory of a Pico and both packages, shared by the tests of a module: an
    emulator takes most of a core, whatever the board does.

    Its clock counts instructions, so that times measured there do not depend on this machine.
    """
    with Cortex(firmware=cortex_m3, instruction_ns_log2=INSTRUCTION_NS_LOG2) as board:
        deploy(board, packages)
        for program in sorted(PROGRAMS.glob("*.py")):
            board.mpremote("cp", str(program), f":{program.name}")
        yield board


@pytest.fixture(scope="module")
def large_board(
    cortex_m3: Path, packages: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cortex]:
    """A board with memory to spare; both packages and the portable test scripts in its ROMFS."""
    tree = tmp_path_factory.mktemp("rom")
    shutil.copytree(packages.folder, tree, dirs_exist_ok=True)
    folder = tree / "lib"
    folder.mkdir()
    for script in sorted(SCRIPTS.glob("*.py")):
        out = str(folder / f"{script.stem}.mpy")
        # -O0: asserts stay in, and name their lines
        command = [find_mpy_cross(), "-O0", "-s", script.name, "-o", out, str(script)]
        subprocess.run(command, check=True, timeout=30)
    image = tmp_path_factory.mktemp("image") / "romfs.img"
    write_romfs(tree, image)
    with Cortex(firmware=cortex_m3, romfs=image, heap_bytes=2_000_000) as board:
        yield board


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pico]:
    """A Pico with both packages in its flash, shared by the tests."""
    try:
        firmware = pico_firmware()
        board = Pico(firmware=firmware)
    except EmulatorUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("pico")
    sizes = write_tree(folder, "armv6m")
    with board:
        deploy(board, Deployment(folder, sizes))
        for program in sorted(PROGRAMS.glob("*.py")):
            board.mpremote("cp", str(program), f":{program.name}")
        yield board
