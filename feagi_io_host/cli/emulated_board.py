# SPDX-License-Identifier: Apache-2.0
"""An emulated microcontroller for the demo: `python -m tools.emulation` in a process of its own.

The tool builds firmware from sources and belongs to the source tree, not to the installed package;
without a source tree around it the demo says so.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final

from feagi_io_host.boards.board_tree import package_folder
from feagi_io_host.core.errors import (
    ConfigError,
    MissingPartError,
    PortError,
    StopTimeoutError,
)

# A first start fetches sources and compiles the firmware.
READY_S: Final = 600.0
_LOOK_S: Final = 0.2
_STOP_S: Final = 5.0
_READY: Final = "Ctrl-C ends it."
_UNAVAILABLE: Final = 2  # exit status of the tool
_LOG_LINES: Final = 40
# QEMU hands a UART about 5000 bytes a second: a hundred motor frames of 53 would be too many.
BURSTS_PER_S: Final = 50.0
_PROGRAMS: Final = {
    # 115200 baud carry no more than about 100 of these frames a second.
    "qemu-mps2-an385": (
        "from feagi_io_mcu import UartDriver\n"
        "from feagi_io_mcu.cart_pole import CartPole\n"
        "cart = CartPole(UartDriver(1), period_ms=20)\n"
        "while True:\n"
        "    cart.step()\n"
    ),
}
_TOO_SLOW: Final = {
    "rp2040-pico": "its emulator lives an eighth of a second in a second, and this host's "
    "deadlines are real ones",
}


class EmulatedBoard:
    """The demo's board `name` in an emulator. `path` is the near end of its UART; like UnixBoard it
    is started again under the same path.

    `stop`: set, a start under way ends. Raises ConfigError for a board that cannot be emulated for
    this, MissingPartError outside a source tree.
    """

    def __init__(self, name: str, stop: threading.Event) -> None:
        if name not in _PROGRAMS:
            why = f"; {name}: {_TOO_SLOW[name]}" if name in _TOO_SLOW else ""
            raise ConfigError(
                f"board {name!r} cannot balance the pole here; unix, {', '.join(_PROGRAMS)} can"
                f"{why}"
            )
        self._root = package_folder("feagi_io_host").parent
        if not (self._root / "tools" / "emulation" / "__main__.py").is_file():
            raise MissingPartError(
                f"board {name!r} is emulated by a tool of the source tree, which is not installed "
                "with the package; in a checkout: make boards-emulated, then "
                f".venv/bin/feagi-io demo --board {name}"
            )
        self._name = name
        self._stop = stop
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="feagi-io-board-")
        self._program = Path(self._folder.name, "main.py")
        self._program.write_text(_PROGRAMS[name])
        self._output = Path(self._folder.name, "output")
        self.path = str(Path(self._folder.name, "port"))
        self.starts = 0

    @property
    def running(self) -> bool:
        """Whether the emulator is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How the emulator ended, None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Switch the board on, put the packages and the program on it, and wait until it runs.

        Raises MissingPartError when the emulator cannot be had here, PortError when it does not
        come up.
        """
        self.kill()
        command = [
            *(sys.executable, "-m", "tools.emulation", "--board", self._name),
            *("--program", str(self._program), "--port", self.path),
            # What this machine does besides is no gust of wind on the pole.
            "--steady",
        ]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours, and ends it in its turn
            )
        self.starts += 1
        deadline_s = time.monotonic() + READY_S
        while _READY not in self.last_words():
            status = self.exit_status
            if status == _UNAVAILABLE:
                raise MissingPartError(f"board {self._name!r}: {self.last_words()}")
            if status is not None:
                raise PortError(
                    f"board {self._name!r} ended with status {status}: {self.last_words()}"
                )
            if time.monotonic() > deadline_s:
                raise PortError(
                    f"board {self._name!r} is not up after {READY_S:.0f} s: {self.last_words()}"
                )
            if self._stop.wait(_LOOK_S):
                return

    def kill(self, timeout_s: float = _STOP_S) -> None:
        """Switch the board off; its tool removes the port's name."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)
            raise StopTimeoutError(
                f"emulator process {process.pid} did not end within {timeout_s} s of SIGTERM"
            ) from None

    def last_words(self) -> str:
        """The last lines of what the emulator wrote."""
        try:
            text = self._output.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-_LOG_LINES:])

    def close(self) -> None:
        """Switch it off and remove what it left."""
        try:
            self.kill()
        finally:
            self._folder.cleanup()

    def __enter__(self) -> EmulatedBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
