# SPDX-License-Identifier: Apache-2.0
"""`feagi-io boards deploy` and `reset`: progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from feagi_io_host.boards.board_file import FORMS, Board
from feagi_io_host.boards.console import BoardConsole
from feagi_io_host.boards.deploy import Deployment, DeployReport
from feagi_io_host.boards.deploy import Progress as Sent
from feagi_io_host.boards.ear import Ear
from feagi_io_host.boards.hear import hear_after_reset
from feagi_io_host.boards.payload import BoardFile, package_files, program_file
from feagi_io_host.cli.board_ports import known_board, locator, who_answered
from feagi_io_host.core.errors import ConfigError, LinkVersionError
from feagi_wire.const import FBC_VERSION, LINK_VERSION

_TRACEBACK: Final = b"Traceback (most recent call last)"


class LineView(contextlib.AbstractContextManager["LineView", None]):
    """A line for each file that is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._done: set[str] = set()

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Something happened."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, sent: Sent) -> None:
        """Bytes arrived."""
        if sent.sent == sent.size and sent.path not in self._done:
            self._done.add(sent.path)
            self.say(f"  {sent.path}  {sent.size} bytes  ({sent.total_sent} of {sent.total})")


class BarView(LineView):
    """A bar for the file that is being sent and one for all of them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
            transient=True,
        )
        self._file = self._bars.add_task("", total=None, visible=False)
        self._all = self._bars.add_task("all files", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, sent: Sent) -> None:
        """Bytes arrived."""
        self._bars.update(
            self._file,
            description=sent.path,
            completed=sent.sent,
            total=sent.size,
            visible=True,
        )
        self._bars.update(self._all, completed=sent.total_sent, total=sent.total, visible=True)
        super().show(sent)


def choose_view(quiet: bool) -> LineView:
    """Bars on a terminal, lines elsewhere, with NO_COLOR and (on standard error) with `quiet`."""
    if quiet:
        return LineView(Console(stderr=True))
    console = Console()
    if console.is_terminal and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return BarView(console)
    return LineView(console)


class DeployCommand:
    """One board and what is to go there.

    Raises ConfigError for a board that is not known, PortError for a port that cannot be used,
    MissingExtraError or LocalError for what cannot be compiled, before the board is touched.
    """

    def __init__(
        self,
        board: str,
        port: str | None,
        *,
        program: Path | None,
        return_s: float,
        patience: float,
        quiet: bool,
        form: str | None = None,
    ) -> None:
        self._board = in_form(known_board(board), form)
        self.port, self.locate = locator(self._board, port)
        self._program = program
        self._return_s = return_s
        self._patience = patience
        self._view = choose_view(quiet)

    def files(self) -> tuple[list[BoardFile], list[BoardFile]]:
        """What the board shall have as files, the program last, and in its read-only file system,
        as the sources are now."""
        packages = package_files(self._board.deploy)
        program = [] if self._program is None else [program_file(self._program)]
        return (
            (program, packages)
            if self._board.deploy.form == "romfs"
            else ([*packages, *program], [])
        )

    def deployment(self, say: Callable[[str], None], *, dry_run: bool = False) -> Deployment:
        """A deployment of the files as they are now."""
        files, rom = self.files()
        return Deployment(
            self._board,
            files,
            self.locate,
            rom=rom,
            say=say,
            progress=self._view.show,
            return_s=self._return_s,
            slowness=self._patience,
            dry_run=dry_run,
        )

    def run(
        self, *, dry_run: bool, reset: bool, hello_s: float, link_port: str | None, baud: int
    ) -> dict[str, Any]:
        """Deploy, reset, wait for the agent; the result for `--json`, `good` when all is well."""
        with self._view as view:
            report = self.deployment(view.say, dry_run=dry_run).run(reset=reset)
            view.say(_summary(report))
            result = _as_json(report)
            if dry_run or not reset:
                return result
            locate = self.locate if link_port is None else lambda: link_port
            ear = hear_after_reset(
                locate, hello_s * self._patience, baud=baud, slowness=self._patience
            )
            runs, detail = who_answered(ear)
            result |= {"runs": runs, "detail": detail}
            if ear.agent is not None:
                view.say(f"answers: {detail}")
                if not ear.agent.speaks_ours:
                    raise LinkVersionError(
                        f"the agent on the board speaks link {ear.agent.link_version} and "
                        f"container {ear.agent.container_version}, this host {LINK_VERSION} and "
                        f"{FBC_VERSION}: its program imports other packages than those deployed "
                        "to /feagi_wire and /feagi_io_mcu (frozen ones?); remove them or use a "
                        "firmware without"
                    )
            else:
                view.say(_silence(ear, link_port))
                result["good"] = self._program is None or _TRACEBACK not in ear.text
        return result


def in_form(board: Board, form: str | None) -> Board:
    """The board with another form of deployment, None for its own. Raises ConfigError for a form
    that there is none of, or that needs an architecture which the board's file does not name."""
    if form is None or form == board.deploy.form:
        return board
    if form not in FORMS:
        raise ConfigError(f"form is {form!r}; there are {', '.join(FORMS)}")
    architecture = board.deploy.architecture
    if form == "viper" and not architecture:
        raise ConfigError(f"{board.name} names no architecture for machine code; --form plain")
    deploy = replace(
        board.deploy,
        form=form,
        architecture=architecture if form in ("viper", "romfs") else "",
    )
    return replace(board, deploy=deploy)


def _summary(report: DeployReport) -> str:
    would = "would send" if report.dry_run else "sent"
    text = (
        f"{would} {len(report.sent)} files ({report.sent_bytes} bytes), kept {len(report.kept)}, "
        f"{'would remove' if report.dry_run else 'removed'} {len(report.removed)}, "
        f"{report.seconds:.1f} s"
    )
    if report.dry_run:
        lines = [f"  send   {path}" for path in report.sent]
        text = "\n".join([text, *lines, *(f"  remove {path}" for path in report.removed)])
    return text + (f"; the board was away {report.resumed} times" if report.resumed else "")


def _silence(ear: Ear, link_port: str | None) -> str:
    if _TRACEBACK in ear.text:
        said = ear.text[ear.text.index(_TRACEBACK) :].decode(errors="replace").partition(">>> ")[0]
        return f"main.py ended:\n{said.strip()}"
    if ear.prompt:
        return (
            "no agent: the board shows its prompt, main.py does not start one or is not there; "
            "deploy a program: --program FILE (examples/board_rover_pico.py is one)"
        )
    if link_port is None:
        return (
            "no agent on the REPL's port: if main.py talks on another line (UartDriver), name the "
            "host's end of that: --link-port"
        )
    return f"no agent at {link_port}: is it wired to the line that main.py uses, at this baud?"


def _as_json(report: DeployReport) -> dict[str, Any]:
    return {
        "board": report.board,
        "port": report.port,
        "firmware": str(report.firmware),
        "sent": report.sent,
        "sent_bytes": report.sent_bytes,
        "kept": len(report.kept),
        "removed": report.removed,
        "resumed": report.resumed,
        "seconds": round(report.seconds, 3),
        "dry_run": report.dry_run,
        "runs": None,
        "detail": None,
        "good": True,
    }


def reset_board(board: str, port: str | None, patience: float) -> str:
    """Start a board anew; its port. Raises as DeployCommand, and ReplBusyError."""
    where, _ = locator(known_board(board), port)
    with BoardConsole(where, slowness=patience) as console:
        console.take_over()
        console.reset()
    return where
