# SPDX-License-Identifier: Apache-2.0
"""A board that is a process: MicroPython's Unix port with a pseudo terminal for a UART.

The process holds the far end as its standard input and output; `path` is the near end, opened by
the bridge like any serial port. A restarted board comes back under the same path, as a USB board
does under /dev/serial/by-id.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import tty
from pathlib import Path
from types import TracebackType

from feagi_io_host.boards.board_tree import BOARD_PACKAGES, package_folder
from feagi_io_host.core.errors import LocalError, MissingExtraError, StopTimeoutError

# run_main() is the whole interpreter; it takes the command line that follows
_INTERPRETER = "import sys; from micropython_unix import run_main; sys.exit(run_main(sys.argv))"
_LOG_BYTES = 4096
CART_POLE = "feagi_io_mcu.cart_pole"


class UnixBoard:
    """Runs a board program on MicroPython's Unix port: a module's name or a path ending in .py.

    `path`: where the port shall appear; None for a name of its own in a temporary folder. `heap`
    is the size a board's heap would have. Raises MissingExtraError when the interpreter is not
    installed, LocalError for no such program or a system without pseudo terminals.
    """

    def __init__(
        self, program: str = CART_POLE, path: str | None = None, heap: str = "256K"
    ) -> None:
        if sys.platform == "win32":
            raise LocalError("the emulated board needs pseudo terminals; run it on Linux or WSL")
        if importlib.util.find_spec("micropython_unix") is None:
            raise MissingExtraError("MicroPython's Unix port", "demo")
        if program.endswith(".py"):
            if not Path(program).is_file():
                raise LocalError(f"no board program at {program}")
            self._program = [str(Path(program).resolve())]
        else:
            self._program = ["-m", program]
        if path is not None and os.path.lexists(path) and not os.path.islink(path):
            raise LocalError(f"{path} exists and is no link: give another name for the port")
        self._heap = heap
        self._folder = tempfile.TemporaryDirectory(prefix="feagi-io-board-")
        self._near = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr = Path(self._folder.name, "stderr")
        self.path = path or os.path.join(self._folder.name, "tty")
        self.starts = 0

    @property
    def pid(self) -> int:
        """The running process, 0 for none."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How the process ended (negative: by that signal), None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start (or restart) the process behind a fresh terminal at `path`."""
        self.kill()
        far, near = os.openpty()
        # raw from the first byte on: a cooked terminal would echo the host's frames back at it
        tty.setraw(near)
        folders = dict.fromkeys(str(package_folder(name).parent) for name in BOARD_PACKAGES)
        environment = dict(os.environ, MICROPYPATH=":".join([*folders, ".frozen"]))
        try:
            with open(self._stderr, "wb") as errors:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _INTERPRETER, "-X", f"heapsize={self._heap}",
                     *self._program],
                    stdin=far, stdout=far, stderr=errors, env=environment,
                    cwd=self._folder.name, start_new_session=True,
                )  # fmt: skip
        except BaseException:
            os.close(near)
            raise
        finally:
            os.close(far)
        # This end stays open here so that the board sees a hang-up only when this program is gone,
        # not each time the bridge reopens the port.
        self._near = near
        self.starts += 1
        fresh = self.path + ".new"
        os.symlink(os.ttyname(near), fresh)
        os.replace(fresh, self.path)

    def kill(self, timeout_s: float = 2.0) -> None:
        """End the process at once, as pulling the plug does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                raise StopTimeoutError(
                    f"board process {process.pid} did not end within {timeout_s} s of SIGKILL"
                ) from None
        if self._near >= 0:
            os.close(self._near)
            self._near = -1

    def last_words(self) -> str:
        """The end of what the process wrote to its standard error."""
        try:
            with open(self._stderr, "rb") as errors:
                errors.seek(max(0, self._stderr.stat().st_size - _LOG_BYTES))
                return errors.read().decode(errors="replace").strip()
        except OSError:
            return ""

    def close(self) -> None:
        """End the process and remove the terminal's name."""
        try:
            self.kill()
        finally:
            if os.path.islink(self.path):
                os.unlink(self.path)
            self._folder.cleanup()

    def __enter__(self) -> UnixBoard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
