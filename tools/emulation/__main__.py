# SPDX-License-Identifier: Apache-2.0
"""Run an emulated board until Ctrl-C.

python -m tools.emulation [--board NAME] [--program FILE] [--port PATH] [--bare]
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tools.emulation import (
    MICROPYTHON_VERSION,
    BoardFailedError,
    Cortex,
    EmulatedBoard,
    EmulatorUnavailableError,
    Pico,
)
from tools.emulation.tree import write_tree

_WATCH_S: Final = 0.5
_COPY_TIMEOUT_S: Final = 120.0
_INSTRUCTION_NS_LOG2: Final = 3  # 8 ns: a Pico's 125 MHz
# What viper code of the packages is compiled for.
_ARCHITECTURES: Final = {Cortex.name: "armv7m", Pico.name: "armv6m"}


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.emulation",
        description=f"Run MicroPython {MICROPYTHON_VERSION} on an emulated board until Ctrl-C.",
    )
    parser.add_argument("--board", choices=sorted(_ARCHITECTURES), default=Cortex.name)
    parser.add_argument("--program", type=Path, help="becomes main.py of the board")
    parser.add_argument(
        "--port", type=Path, help="a link to make to UART 1, such as ./board (qemu-mps2-an385)"
    )
    parser.add_argument(
        "--bare", action="store_true", help="do not put feagi_wire and feagi_io_mcu on it"
    )
    parser.add_argument(
        "--steady",
        action="store_true",
        help="the clock of qemu-mps2-an385 counts instructions and stands still while this "
        "machine has no time for it",
    )
    return parser.parse_args(argv)


def made(chosen: argparse.Namespace) -> EmulatedBoard:
    """The board, not started."""
    if chosen.board == Pico.name:
        return Pico()
    return Cortex(uarts="pty", instruction_ns_log2=_INSTRUCTION_NS_LOG2 if chosen.steady else None)


def fill(board: EmulatedBoard, program: Path | None, bare: bool) -> None:
    """Copy the packages and the program to the board, and start the program."""
    if not bare:
        with tempfile.TemporaryDirectory(prefix="feagi-board-tree-") as name:
            folder = Path(name)
            write_tree(folder, _ARCHITECTURES[board.name])
            packages = sorted(str(path) for path in folder.iterdir())
            board.mpremote("cp", "-r", *packages, ":", timeout_s=_COPY_TIMEOUT_S)
    if program is not None:
        copy = ("cp", str(program), ":main.py")
        board.mpremote(*copy, "+", "reset", timeout_s=_COPY_TIMEOUT_S)


def tell(board: EmulatedBoard, port: Path | None) -> None:
    """Say where it can be reached."""
    print(f"board {board.name}, process {board.pid}")
    print(f"  console  {board.console}  (mpremote connect {board.console})")
    for number, address in board.uarts.items():
        shown = f"{address} = {port}" if port is not None and number == 1 else address
        print(f"  UART {number}   {shown}")
    print(f"  to FEAGI: feagi-io bridge --port {port or next(iter(board.uarts.values()))}")
    print("Ctrl-C ends it.", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Run it; 0 after Ctrl-C or SIGTERM, 1 when the board fails, 2 when it cannot be had."""
    chosen = arguments(argv)
    # The first run fetches and builds: lines should say so.
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # A plain kill is to leave nothing behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    linked = False
    try:
        if chosen.program is not None and not chosen.program.is_file():
            raise EmulatorUnavailableError(f"--program {chosen.program}: no such file")
        if chosen.port is not None and chosen.board != Cortex.name:
            raise EmulatorUnavailableError(
                f"--port: the UART of {chosen.board} is a socket, which no link can name; leave it "
                "out and use the address that is told"
            )
        with made(chosen) as board:
            fill(board, chosen.program, chosen.bare)
            if chosen.port is not None:
                try:
                    chosen.port.symlink_to(board.uarts[1])
                except OSError as error:
                    raise EmulatorUnavailableError(
                        f"--port {chosen.port}: {error.strerror}; remove it or name another"
                    ) from None
                linked = True
            tell(board, chosen.port)
            while board.running:
                time.sleep(_WATCH_S)
            print(f"the emulator ended by itself:\n{board.log_tail()}")
            return 1
    except KeyboardInterrupt:
        print("\nended")
        return 0
    except BoardFailedError as error:
        print(error, file=sys.stderr)
        return 1
    except EmulatorUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        if linked:
            chosen.port.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
