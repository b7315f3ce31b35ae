# SPDX-License-Identifier: Apache-2.0
"""What all emulated boards have: a life, a console for mpremote, UARTs for feagi-io."""

from __future__ import annotations

import abc
import importlib.util
import subprocess
import sys
from types import TracebackType
from typing import Final, Self

from tools.emulation.errors import BoardFailedError, EmulatorUnavailableError
from tools.emulation.process import STOP_TIMEOUT_S, EmulatorProcess

START_TIMEOUT_S: Final = 20.0
MPREMOTE_TIMEOUT_S: Final = 30.0


class EmulatedBoard(abc.ABC):
    """A microcontroller that is a process; `with` starts and closes it.

    Attributes: `name`, as in boards/; `console`, the address that `mpremote connect` takes;
    `uarts`, number to address, as BoardBridge takes them. Both addresses are there after `start`:
    socket://127.0.0.1:PORT or the path of a pseudo terminal.
    """

    name: str = ""
    # How much slower than the real one it may be: deadlines of programs that talk to it.
    slowness: float = 1.0

    def __init__(self, process: EmulatorProcess) -> None:
        self._process = process
        self.console = ""
        self.uarts: dict[int, str] = {}

    @abc.abstractmethod
    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Switch it on; its addresses are known and can be connected to when this returns.

        Raises BoardFailedError, with the end of the emulator's log, when it does not come up
        within `timeout_s`. Then it does not run.
        """

    @abc.abstractmethod
    def reset(self) -> None:
        """Press the reset button: whatever runs ends at once, the file system stays."""

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Switch it off, within `timeout_s` and a moment. What was in its memory is gone."""
        self._process.stop(timeout_s)
        self.console = ""
        self.uarts = {}

    def close(self) -> None:
        """Switch it off and remove what it left on this machine. May be called again."""
        self.stop()
        self._process.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process.running

    @property
    def pid(self) -> int | None:
        """The process id of the emulator; None while it is switched off."""
        return self._process.pid

    def log_tail(self, lines: int = 40) -> str:
        """The last lines that the emulator, not the board, wrote."""
        return self._process.log_tail(lines)

    def mpremote(self, *arguments: str, timeout_s: float = MPREMOTE_TIMEOUT_S) -> str:
        """Run `mpremote connect <console> ARGUMENTS` and return what it wrote.

        Raises BoardFailedError with its output when it fails or does not end within `timeout_s`
        (it waits for ever for a board that says nothing), EmulatorUnavailableError when mpremote
        is not installed.
        """
        if importlib.util.find_spec("mpremote") is None:
            raise EmulatorUnavailableError(
                "mpremote is not installed: pip install 'feagi-io[boards]'"
            )
        command = [sys.executable, "-m", "mpremote", "connect", self.console, *arguments]
        shown = "mpremote " + " ".join(arguments)[:80]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = (error.stdout or b"").decode(errors="replace")
            raise BoardFailedError(
                f"'{shown}' on {self.name} did not end within {timeout_s} s; it said:\n{said}"
            ) from None
        text = done.stdout.decode(errors="replace")
        if done.returncode != 0:
            raise BoardFailedError(
                f"'{shown}' on {self.name} ended with {done.returncode}; it said:\n{text}"
            )
        return text
