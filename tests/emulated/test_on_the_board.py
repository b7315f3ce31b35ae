# SPDX-License-Identifier: Apache-2.0
"""The portable packages on a 32-bit microcontroller: deployed by mpremote, checked, weighed."""

from __future__ import annotations

import pytest

from feagi_io_host.boards import load_board
from tests.emulated.conftest import SCRIPTS, Deployment
from tools.emulation import Cortex

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

# Imported by the scripts; the vectors are a megabyte, which would take minutes to copy.
NOT_RUN = {"checks", "line", "vectors"}
NAMES = [path.stem for path in sorted(SCRIPTS.glob("*.py")) if path.stem not in NOT_RUN]

# What is not in the board's file, measured and a little room.
CONTAINER_HEAP_BYTES = 18_000
AGENT_HEAP_BYTES = 43_000

WEIGH = """
import gc
def heap():
    gc.collect()
    return gc.mem_alloc()
start = heap()
from feagi_wire.container import StaticFBC
print(heap() - start)
from feagi_io_mcu import Agent, UartDriver
print(heap() - start)
agent = Agent(UartDriver(1), "weighed")
agent.sensor("iinf")
agent.motor("omot")
agent.start()
print(heap() - start)
"""


@pytest.mark.parametrize("name", NAMES)
def test_portable_script(large_board: Cortex, name: str) -> None:
    said = large_board.mpremote("exec", f"import {name}", timeout_s=100)
    last = said.splitlines()[-1].split()
    assert last[:4] == ["PORTABLE", "OK", name, "viper"], said
    assert int(last[4]) > 0


def test_a_failing_script_would_be_noticed(large_board: Cortex) -> None:
    said = large_board.mpremote(
        "exec", "try:\n import checks; checks.eq(1, 2, 'x')\nexcept SystemExit as e: print(e)"
    )
    assert said.startswith("FAIL x got 1 expected 2")


def test_what_the_packages_weigh(board: Cortex, packages: Deployment) -> None:
    budget = load_board(board.name).budget
    wire = sum(size for name, size in packages.sizes.items() if name.startswith("feagi_wire/"))
    mcu = sum(packages.sizes.values()) - wire
    container, agent, started = map(int, board.mpremote("exec", WEIGH).split())
    print(f"feagi_wire {wire} B, feagi_io_mcu {mcu} B of .mpy")
    print(f"heap: container {container} B, agent imported {agent} B, started {started} B")
    assert wire + mcu <= budget.flash_bytes
    assert container <= CONTAINER_HEAP_BYTES
    assert agent <= AGENT_HEAP_BYTES
    assert started <= budget.heap_bytes
