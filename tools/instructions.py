# SPDX-License-Identifier: Apache-2.0
"""Instructions that a Cortex-M3 executes for the paths of the codec, ours beside naive code.

    python -m tools.instructions [--json]

One program on the emulated board runs them all, with the loops in machine code; the board's clock
counts instructions, so the figures are the same on every machine and in every run. Encoding is of a
whole container of one area of 200 voxels, decoding of its potentials to Q16.16; naive frames are
the same loops in bytecode, with 1024 bytes of payload.
Exit status 1 when one of ours takes more than its limit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tools.emulation import Cortex, EmulatorUnavailableError
from tools.emulation.romfs import write_romfs
from tools.emulation.tree import write_tree

PROGRAM: Final = Path(__file__).resolve().parent / "emulation/programs/instructions.py"
_NS_LOG2: Final = 3


@dataclass(frozen=True)
class Row:
    """One path: instructions per unit; those of the naive one and the most it may take, if any."""

    name: str
    unit: str
    instructions: float
    naive: float | None
    limit: int | None

    @property
    def met(self) -> bool:
        """Whether it keeps to its limit."""
        return self.limit is None or self.instructions <= self.limit


# Title, ours, the naive one, what is counted, the limit.
_ROWS: Final[tuple[tuple[str, str, str | None, str, int | None], ...]] = (
    ("encode, put_arrays", "encode_arrays", "encode_naive", "voxel", 450),
    ("encode, fixed layout", "encode_fixed", "encode_naive", "voxel", 180),
    ("decode, scan_q16", "decode_scan", "decode_naive", "voxel", 350),
    ("besides voxels, out", "container_out", None, "container", None),
    ("besides voxels, in", "container_in", None, "container", None),
    ("COBS and CRC-32 out", "frame_out", "frame_out_bytecode", "byte", 100),
    ("COBS and CRC-32 in", "frame_in", "frame_in_bytecode", "byte", 130),
)


def measure() -> list[Row]:
    """Run the program. EmulatorUnavailableError when there is no board to run it on."""
    with tempfile.TemporaryDirectory(prefix="feagi-io-instructions-") as name:
        work = Path(name)
        write_tree(work / "tree", "armv7m")
        write_romfs(work / "tree", work / "romfs.img")
        board = Cortex(
            console="tcp",
            instruction_ns_log2=_NS_LOG2,
            romfs=work / "romfs.img",
            heap_bytes=400_000,
        )
        with board:
            said = board.mpremote("run", str(PROGRAM), timeout_s=100)
    spent = {}
    for line in said.splitlines():
        if line.strip():
            path, us, units = line.split()
            spent[path] = int(us) * 1000 / (1 << _NS_LOG2) / int(units)
    return [
        Row(title, unit, spent[ours], None if naive is None else spent[naive], limit)
        for title, ours, naive, unit, limit in _ROWS
    ]


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = [f"{'path':<22} {'per':<9} {'naive':>7} {'ours':>7} {'limit':>6} {'ratio':>6}"]
    for row in rows:
        naive = "" if row.naive is None else f"{row.naive:.0f}"
        ratio = "" if row.naive is None else f"{row.naive / row.instructions:.1f}x"
        lines.append(
            f"{row.name:<22} {row.unit:<9} {naive:>7} {row.instructions:7.0f} "
            f"{row.limit or '':>6} {ratio:>6}{'' if row.met else '  over'}".rstrip()
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and report; 1 when a limit is passed, 2 when there is no emulator."""
    parser = argparse.ArgumentParser(prog="python -m tools.instructions", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON array")
    options = parser.parse_args(argv)
    try:
        rows = measure()
    except EmulatorUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps([asdict(row) for row in rows]) if options.json else table(rows))
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
