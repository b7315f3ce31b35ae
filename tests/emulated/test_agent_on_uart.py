# SPDX-License-Identifier: Apache-2.0
"""Agent and UartDriver on a real machine.UART, against our bridge on the host."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from feagi_io_host.boards import write_board_tree
from tests.emulated.agent_host import DEADLINE_S, EYES, Host, counts, start_program
from tests.emulated.conftest import ARCHITECTURE, INSTRUCTION_NS_LOG2, PROGRAMS
from tools.emulation import Cortex, EmulatedBoard, PluggedBoard
from tools.emulation.romfs import install_from_romfs, write_romfs

pytestmark = [pytest.mark.micropython, pytest.mark.slow, pytest.mark.uart]


@pytest.fixture(scope="module")
def board(
    request: pytest.FixtureRequest,
    plugged: PluggedBoard | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[EmulatedBoard]:
    """A board with exactly what an ordinary one is given, its clock counting instructions."""
    tree = tmp_path_factory.mktemp("board") / "tree"
    architecture = plugged.architecture if plugged is not None else ARCHITECTURE
    # the program can drive the REPL's line as well
    drivers = ("uart", "stdio", "usb_cdc")
    write_board_tree(tree, form="viper", architecture=architecture, drivers=drivers)
    shutil.copy(PROGRAMS / "checked_agent.py", tree)
    if plugged is not None:
        names = sorted(str(path) for path in tree.iterdir())
        plugged.mpremote("cp", "-r", *names, ":", timeout_s=100)
        yield plugged
        return
    image = tree.with_suffix(".img")
    write_romfs(tree, image)
    firmware = request.getfixturevalue("cortex_m3")
    with Cortex(firmware=firmware, instruction_ns_log2=INSTRUCTION_NS_LOG2, romfs=image) as board:
        install_from_romfs(board)
        yield board


# A byte takes 87 us at 115200 baud; whoever waited for a frame of 558 bytes would need 48 ms.
# The board's clock counts instructions; still, on a busy machine more of the host's frames come in
# one step, and 5 ms become 20.
LONGEST_STEP_US = 35_000


def test_sensors_reach_the_host_and_motors_the_board(board: EmulatedBoard) -> None:
    start_program(board)
    with Host(next(iter(board.uarts.values()))) as host:
        up = host.ups.get(timeout=DEADLINE_S)
        assert up.declaration.name == "emulated"
        assert "micropython 1." in up.declaration.firmware
        assert [unit.cortical_id for unit in up.declaration.sensors] == [EYES]
        host.until(lambda voxels: len(voxels) == 32)
        # What the wheels are told is what the first two eyes see: full ahead, full back.
        host.move(0, 8)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (0, 7))
        host.move(8, 0)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (7, 0))
        (status,) = host.bridge.status()
        assert status["state"] == "CONNECTED"
        values, _, longest_us, steps, frames, late = counts(board)
    print(f"{steps} steps, longest {longest_us} us; {frames} frames, {late} late")
    assert values >= 4
    assert frames > 0
    assert longest_us < LONGEST_STEP_US, "a step waited for the line"


def test_a_host_that_goes_away_leaves_actuators_safe_and_finds_the_board_again(
    board: EmulatedBoard,
) -> None:
    start_program(board)
    with Host(next(iter(board.uarts.values()))) as host:
        host.ups.get(timeout=DEADLINE_S)
        host.move(0, 0)
        host.until(lambda voxels: voxels[0] == 0)
    with Host(next(iter(board.uarts.values()))) as host:
        host.ups.get(timeout=DEADLINE_S)
        host.until(lambda voxels: len(voxels) == 32)
        assert counts(board)[1] >= 1, "no fail-safe"


def test_a_reset_in_mid_frame_is_a_new_session(board: EmulatedBoard) -> None:
    start_program(board)
    with Host(next(iter(board.uarts.values()))) as host:
        host.ups.get(timeout=DEADLINE_S)
        host.until(lambda voxels: True)
        board.reset()
        start_program(board)
        host.ups.get(timeout=DEADLINE_S)
        host.until(lambda voxels: len(voxels) == 32)
    counts(board)
