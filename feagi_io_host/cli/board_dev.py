# SPDX-License-Identifier: Apache-2.0
"""`feagi-io boards dev`: what is saved here runs there a moment later, and its output is seen."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from feagi_io_host.boards.board_tree import BOARD_PACKAGES, package_folder
from feagi_io_host.boards.console import BoardConsole, ConsoleLostError
from feagi_io_host.cli.board_deploy import DeployCommand
from feagi_io_host.core.errors import LocalError, PortNotFoundError

_LOOK_S: Final = 0.3
_READ_S: Final = 0.1
_RETURN_S: Final = 3600.0


class Tail:
    """What a board prints, without the frames of an agent that talks on the same line."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._rest = b""
        self.frames = 0

    def take(self, data: bytes) -> None:
        """Bytes of the board: text is written as it comes, at line ends; frames are counted."""
        *parts, self._rest = (self._rest + data).split(b"\0")
        for part in parts:
            if _is_text(part):
                self._print(part)
            else:
                self.frames += 1
        if _is_text(self._rest):
            self._print(self._rest)
            self._rest = b""

    def _print(self, part: bytes) -> None:
        if part:
            self._write(part.decode(errors="replace").replace("\r\n", "\n"))


def _is_text(part: bytes) -> bool:
    # The bytes of a frame end with a checksum: control characters or no UTF-8, or both.
    try:
        text = part.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and _is_text(part[: error.start])
    return all(char.isprintable() or char in "\r\n\t\x1b" for char in text)


class DevLoop:
    """One board, its sources, and the loop between them. Raises as DeployCommand does."""

    def __init__(
        self,
        board: str,
        port: str | None,
        *,
        program: Path | None,
        patience: float,
        write: Callable[[str], object] | None = None,
    ) -> None:
        self._command = DeployCommand(
            board, port, program=program, return_s=_RETURN_S, patience=patience, quiet=False
        )
        self._program = program
        self._patience = patience
        self._write = write if write is not None else _to_stdout
        self._seen: dict[Path, tuple[int, int]] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set: deploy, restart, show what is printed, deploy again on a change."""
        while not stop.is_set():
            self._seen = self._stamps()
            try:
                self._sync()
                self._follow(stop)
            except (ConsoleLostError, PortNotFoundError) as error:
                self._say(f"{error}; waiting for it to come back")
                while self._command.locate() is None and not stop.wait(_LOOK_S):
                    pass
                stop.wait(_LOOK_S)
            except LocalError as error:
                # A source that does not compile: the next save may mend it.
                self._say(str(error))
                while self._stamps() == self._seen and not stop.wait(_LOOK_S):
                    pass

    def _sync(self) -> None:
        report = self._command.deployment(lambda text: None).run(reset=False)
        self._say(f"{len(report.sent)} files sent, {len(report.removed)} removed; restarted")

    def _follow(self, stop: threading.Event) -> None:
        """Start the program and show what it prints, until something is saved or it goes away."""
        tail = Tail(self._write)
        port = self._command.locate()
        if port is None:
            raise PortNotFoundError("the board is not there")
        with BoardConsole(port, slowness=self._patience) as console:
            console.restart()
            looked_s = time.monotonic()
            while not stop.is_set():
                tail.take(console.read(_READ_S))
                if time.monotonic() - looked_s >= _LOOK_S:
                    looked_s = time.monotonic()
                    if self._stamps() != self._seen:
                        return

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        paths = [path for name in BOARD_PACKAGES for path in package_folder(name).rglob("*.py")]
        if self._program is not None:
            paths.append(self._program)
        found = {}
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                continue  # an editor is replacing it
            found[path] = (stat.st_mtime_ns, stat.st_size)
        return found

    def _say(self, text: str) -> None:
        self._write(f"-- {text}\n")


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
