# SPDX-License-Identifier: Apache-2.0
"""The process of one emulator: started with a log, ended by its process id, never left behind.

Should this process itself be killed, a guard (a shell that waits for the end of a pipe) kills the
emulator and removes its folder.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tools.emulation.errors import BoardFailedError

STOP_TIMEOUT_S: Final = 5.0
POLL_S: Final = 0.01
_TAIL_BYTES: Final = 1 << 16
# Ends at a line (all is well) or at the end of the pipe (whoever held it is gone).
_GUARD: Final = 'read -r line || { kill -9 "$1"; rm -rf "$2"; }'


class EmulatorProcess:
    """A program with its output in a log file of a folder of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], name: str) -> None:
        """Nothing runs before `start`. `name` stands in messages."""
        self._command = list(command)
        self._environment = dict(environment)
        self._name = name
        self._temporary = tempfile.TemporaryDirectory(prefix="feagi-board-")
        self.folder = Path(self._temporary.name)
        self._log = self.folder / "emulator.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, extra: Sequence[str] = (), pass_fds: Sequence[int] = ()) -> None:
        """Start it with further arguments; these descriptors stay open in it."""
        if self._process is not None:
            raise BoardFailedError(f"{self._name} runs already, as process {self.pid}")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, *extra],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(pass_fds),
                # Ctrl-C in a terminal goes to everything in the foreground; this one is stopped.
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self._process.pid), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        """Whether it lives; false after it ended by itself, too."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id; None before `start` and after `stop`."""
        return None if self._process is None else self._process.pid

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Ask it to end (SIGTERM), kill it after `timeout_s`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()
        self._process = None
        if self._guard is not None:
            # Only after the guard has read the line is its end not the emulator's: the number may
            # be another process's by now.
            with contextlib.suppress(BrokenPipeError):
                self._guard.communicate(b"\n", timeout=STOP_TIMEOUT_S)
            self._guard = None

    def close(self) -> None:
        """Stop it and remove its folder. May be called again."""
        self.stop()
        self._temporary.cleanup()

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of what the emulator wrote; empty before the first start."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def wait_for_line(self, marker: str, timeout_s: float) -> str:
        """The first line of the log that opens with `marker`.

        Raises BoardFailedError, with the end of the log, when it does not come in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            for line in self.log_tail(1000).splitlines():
                if line.startswith(marker):
                    return line
            self.check_running()
            if time.monotonic() >= deadline_s:
                raise BoardFailedError(
                    f"{self._name} wrote no {marker!r} within {timeout_s} s; its log:\n"
                    f"{self.log_tail()}"
                )
            time.sleep(POLL_S)

    def check_running(self) -> None:
        """Raise BoardFailedError, with the end of the log, when it has ended by itself."""
        if self._process is None or self._process.poll() is not None:
            status = "before it was started" if self._process is None else self._process.returncode
            raise BoardFailedError(f"{self._name} ended with {status}; its log:\n{self.log_tail()}")
