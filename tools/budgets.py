# SPDX-License-Identifier: Apache-2.0
"""What the portable packages take of a board, file by file, weighed on the emulated Cortex-M3.

    python -m tools.budgets [--json]

Counted is what `write_board_tree` puts on an ordinary board: feagi_wire and feagi_io_mcu without
the host's end of the link, the demo and drivers of other lines than the UART. Weighed is a program
that imports Agent and UartDriver, declares a sensor and a motor and starts, with two buffers of
1020 bytes: heap in use after a collection, less what was in use before. Three ways to carry the
packages: `.mpy` files in the board's file system, the same in ROMFS, and frozen into the firmware.

The table above tells of each file what it would take were it a file of its own on the board,
which most are not (`feagi_io_host.boards.board_bundle`): heap is what its import adds when those
it needs are already loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from feagi_io_host.boards import board_texts, write_board_tree
from tools.emulation import Cortex, EmulatorUnavailableError, cortex_m3_firmware
from tools.emulation.romfs import install_from_romfs, write_romfs

ARCHITECTURE: Final = "armv7m"
POOL: Final = (2, 1020)  # with the checksum behind it a buffer is 1 KB
# What the project wants of itself: bytes of bytecode, of heap from files, of heap in place.
GOALS: Final = {"plain": 24 * 1024, "files": 16 * 1024, "romfs": 8 * 1024, "frozen": 8 * 1024}
# What it takes today and a little room, kept by tests/emulated: files as bytecode and with viper,
# heap of a started agent in each way.
LIMITS: Final = {
    "plain": 24_500,
    "viper": 27_300,
    "files": 36_000,
    "files, viper": 38_900,
    "romfs": 20_200,
    "frozen": 16_000,
}

# The ways to carry the packages, and the form they are in.
_WAYS: Final = {"files": "plain", "files, viper": "viper", "romfs": "plain", "frozen": "plain"}

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
    """All in bytes. `flash`: all files, in each form; `imported` and `started`: heap, by the way
    the packages are carried; `apart`: per file, were each a file of its own, (.mpy, heap from
    files, heap in ROMFS), heap None for what an agent does not load."""

    flash: dict[str, int]
    imported: dict[str, int]
    started: dict[str, int]
    usual: int
    """Heap of an agent with the buffers it has unless told otherwise, with viper, from files."""
    apart: dict[str, tuple[int, int | None, int | None]]

    @property
    def totals(self) -> dict[str, int]:
        """What LIMITS are for."""
        return {**self.flash, **self.started}


def measure() -> Budgets:
    """Compile and weigh. EmulatorUnavailableError when there is no board to weigh on."""
    with tempfile.TemporaryDirectory(prefix="feagi-io-budgets-") as name:
        work = Path(name)
        plain = write_board_tree(work / "plain")
        viper = write_board_tree(work / "viper", form="viper", architecture=ARCHITECTURE)
        sizes = write_board_tree(work / "apart", apart=True)
        flash = {"plain": sum(plain.values()), "viper": sum(viper.values())}
        budgets = Budgets(flash, {}, {}, 0, {})
        weigh = _WEIGH.format(buffers=f", pool_size={POOL[0]}, max_fbc_size={POOL[1]}")
        for way, form in _WAYS.items():
            with _carrying(way, work / form) as board:
                imported, started = board.mpremote("exec", weigh).split()
                budgets.imported[way], budgets.started[way] = int(imported), int(started)
                if form == "viper":
                    said = board.mpremote("exec", _WEIGH.format(buffers="")).split()
                    budgets.usual = int(said[1])
        heaps = {}
        for way in ("files", "romfs"):
            with _carrying(way, work / "apart") as board:
                said = board.mpremote("exec", _WEIGH_MODULES.format(modules=_MODULES)).split()
                heaps[way] = dict(zip(said[::2], map(int, said[1::2]), strict=True))
        module_of = {_file_of(module): module for module in _MODULES}
        for file, size in sorted(sizes.items()):
            module = module_of.get(file, "")
            budgets.apart[file] = (size, heaps["files"].get(module), heaps["romfs"].get(module))
    return budgets


@contextmanager
def _carrying(way: str, tree: Path) -> Iterator[Cortex]:
    """A board that has the packages in this way."""
    if way == "frozen":
        with Cortex(console="tcp", firmware=frozen_firmware()) as board:
            yield board
        return
    image = tree.with_suffix(".img")
    write_romfs(tree, image)
    with Cortex(console="tcp", romfs=image) as board:
        if way != "romfs":
            install_from_romfs(board)
        yield board


def frozen_firmware() -> Path:
    """The Cortex-M3's firmware with an ordinary board's files frozen in, built when missing."""
    return cortex_m3_firmware(board_texts())


def table(budgets: Budgets) -> str:
    """The report as text."""
    lines = [f"{'each file apart':<32} {'.mpy':>6} {'files':>13} {'romfs':>13}"]
    for file, cells in budgets.apart.items():
        size, *heaps = ("" if cell is None else cell for cell in cells)
        lines.append(f"{file:<32} {size:>6} {heaps[0]:>13} {heaps[1]:>13}".rstrip())
    lines.append(f"{'all files':<32} {sum(cells[0] for cells in budgets.apart.values()):>6}")
    flash = budgets.flash
    lines += [
        "",
        f"as deployed: {flash['plain']} bytes of .mpy, goal {GOALS['plain']}; "
        f"{flash['viper']} with viper",
        f"{'heap':<25} " + " ".join(f"{way:>13}" for way in _WAYS),
    ]
    goals = {way: GOALS[way.partition(",")[0]] for way in _WAYS}
    for what, row in (
        ("Agent imported", budgets.imported),
        ("agent started", budgets.started),
        ("goal", goals),
    ):
        lines.append(f"{what:<25} " + " ".join(f"{row[way]:>13}" for way in _WAYS))
    lines.append(f"with the usual buffers, viper, from files: {budgets.usual}")
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
        print(json.dumps({**asdict(budgets), "goals": GOALS}))
    else:
        print(table(budgets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
