# SPDX-License-Identifier: Apache-2.0
"""What the portable packages take of a board, file by file, weighed on the emulated Cortex-M3.

    python -m tools.budgets [--json]

Counted is what `write_board_tree` puts on an ordinary board: feagi_wire and feagi_io_mcu without
the host's end of the link, the demo and drivers of other lines than the UART. Weighed is a program
that imports Agent and UartDriver, declares a sensor and a motor and starts, with two buffers of
1020 bytes: heap in use after a collection, less what was in use before. Three ways to carry the
packages: `.mpy` files in the board's file system, the same in ROMFS, and frozen into the firmware.

Heap of a file: what its import adds when those it needs are already loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from feagi_io_host.boards import BoardSources, board_sources, is_deployed, write_board_tree
from tools.emulation import Cortex, EmulatorUnavailableError, cortex_m3_firmware
from tools.emulation.romfs import install_from_romfs, write_romfs

ARCHITECTURE: Final = "armv7m"
POOL: Final = (2, 1020)  # with the checksum behind it a buffer is 1 KB
# What the project wants of itself: bytes of bytecode, of heap from files, of heap in place.
GOALS: Final = {"plain": 24 * 1024, "files": 16 * 1024, "romfs": 8 * 1024, "frozen": 8 * 1024}
# What it takes today and a little room, kept by tests/emulated: files as bytecode and with viper,
# heap of a started agent in each way.
LIMITS: Final = {
    "plain": 25_700,
    "viper": 28_400,
    "files": 38_500,
    "files, viper": 40_600,
    "romfs": 22_800,
    "frozen": 17_100,
}

_WEIGH: Final = """
import gc
def heap():
    gc.collect()
    return gc.mem_alloc()
a = b = c = 0
heap()
heap()
a = heap()
from feagi_io_mcu import Agent, UartDriver
b = heap() - a
agent = Agent(UartDriver(1), "weighed"{buffers})
agent.sensor("iinf")
agent.motor("omot")
agent.start()
c = heap() - a
print(b, c)
"""
# In the order of their needs, so that each one's heap is its own.
_MODULES: Final = (
    *("feagi_wire", "feagi_wire.errors", "feagi_wire.cortical_id", "feagi_wire.kernels"),
    *("feagi_wire.views", "feagi_wire.container", "feagi_wire.framing", "feagi_wire.link"),
    *("feagi_wire.board_link", "feagi_wire.xyzp", "feagi_io_mcu", "feagi_io_mcu._port"),
    *("feagi_io_mcu.drivers.base", "feagi_io_mcu.drivers.uart", "feagi_io_mcu.transport"),
    "feagi_io_mcu.agent",
)
_WEIGH_MODULES: Final = """
import gc
def heap():
    gc.collect()
    return gc.mem_alloc()
heap()
for name in {modules}:
    gc.collect()
    before = heap()
    __import__(name)
    print(name, heap() - before)
"""


@dataclass
class Budgets:
    """All in bytes: `mpy` and `mpy_viper` per file, heap per way the packages are carried."""

    mpy: dict[str, int]
    mpy_viper: dict[str, int]
    imported: dict[str, int] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)
    modules: dict[str, dict[str, int]] = field(default_factory=dict)
    usual: int = 0
    """Heap of an agent with the buffers it has unless told otherwise, with viper, from files."""

    @property
    def flash(self) -> dict[str, int]:
        """Bytes of all files, in bytecode and with the loops in machine code."""
        return {"plain": sum(self.mpy.values()), "viper": sum(self.mpy_viper.values())}

    @property
    def totals(self) -> dict[str, int]:
        """What LIMITS are for."""
        return {**self.flash, **self.started}


def measure() -> Budgets:
    """Compile and weigh. EmulatorUnavailableError when there is no board to weigh on."""
    with tempfile.TemporaryDirectory(prefix="feagi-io-budgets-") as name:
        work = Path(name)
        budgets = Budgets(
            write_board_tree(work / "plain"),
            write_board_tree(work / "viper", form="viper", architecture=ARCHITECTURE),
        )
        buffers = f", pool_size={POOL[0]}, max_fbc_size={POOL[1]}"
        for way in ("files", "files, viper", "romfs", "frozen"):
            with _carrying(way, work) as board:
                said = board.mpremote("exec", _WEIGH.format(buffers=buffers))
                imported, started = said.split()
                budgets.imported[way], budgets.started[way] = int(imported), int(started)
                said = board.mpremote("exec", _WEIGH_MODULES.format(modules=_MODULES))
                pairs = (line.split() for line in said.splitlines() if line.strip())
                budgets.modules[way] = {module: int(heap) for module, heap in pairs}
                if way == "files, viper":
                    said = board.mpremote("exec", _WEIGH.format(buffers=""))
                    budgets.usual = int(said.split()[1])
    return budgets


@contextmanager
def _carrying(way: str, work: Path) -> Iterator[Cortex]:
    """A board that has the packages in this way."""
    image = work / "romfs.img"
    write_romfs(work / ("viper" if way.endswith("viper") else "plain"), image)
    if way == "frozen":
        with Cortex(console="tcp", firmware=frozen_firmware()) as board:
            yield board
    else:
        with Cortex(console="tcp", romfs=image) as board:
            if way != "romfs":
                install_from_romfs(board)
            yield board


def frozen_firmware() -> Path:
    """The Cortex-M3's firmware with an ordinary board's files frozen in, built when missing."""
    sources = BoardSources(board_sources())
    files = {file: sources.text(file) for file in sources.files if is_deployed(file, "plain")}
    return cortex_m3_firmware(files)


def table(budgets: Budgets) -> str:
    """The report as text."""
    ways = tuple(budgets.started)
    lines = [f"{'file':<30} {'.mpy':>6} {'viper':>6} " + " ".join(f"{w:>12}" for w in ways)]
    heap = {_file_of(m): m for m in _MODULES}
    for file in sorted({*budgets.mpy, *budgets.mpy_viper}):
        each = (budgets.modules[way].get(heap.get(file, ""), "") for way in ways)
        lines.append(
            f"{file:<30} {budgets.mpy.get(file, ''):>6} {budgets.mpy_viper.get(file, ''):>6} "
            + " ".join(f"{cell:>12}" for cell in each)
        )
    flash = budgets.flash
    for what, plain, viper, cells in (
        ("all files", flash["plain"], flash["viper"], {}),
        ("heap, Agent imported", "", "", budgets.imported),
        ("heap, agent started", "", "", budgets.started),
        ("goal", GOALS["plain"], "", {way: GOALS[way.partition(",")[0]] for way in ways}),
    ):
        row = " ".join(f"{cells.get(way, ''):>12}" for way in ways)
        lines.append(f"{what:<30} {plain:>6} {viper:>6} {row}".rstrip())
    lines.append(f"{'with the usual buffers':<30} {'':>6} {'':>6} {'':>12} {budgets.usual:>12}")
    return "\n".join(lines)


def _file_of(module: str) -> str:
    path = module.replace(".", "/")
    return f"{path}.mpy" if "/" in path else f"{path}/__init__.mpy"


def main(argv: list[str] | None = None) -> int:
    """Measure and report; 2 when there is no emulator or compiler."""
    parser = argparse.ArgumentParser(prog="python -m tools.budgets", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    try:
        budgets = measure()
    except EmulatorUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps({**asdict(budgets), "flash": budgets.flash, "goals": GOALS}))
    else:
        print(table(budgets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
