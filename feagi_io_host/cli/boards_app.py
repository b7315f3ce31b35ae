# SPDX-License-Identifier: Apache-2.0
"""`feagi-io boards`: what is plugged in, the packages onto a board, a board that is a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from feagi_io_host.cli.exits import FAILED, JsonOption, named_errors
from feagi_io_host.cli.signals import stops_on_signal

boards_app = typer.Typer(help="Boards, real or emulated.")

BoardOption = Annotated[
    str, typer.Option("--board", help="Its name, as `feagi-io boards list` says.")
]
PortOption = Annotated[
    str | None,
    typer.Option(help="Where its REPL is. Left out: the only board of that kind which is there."),
]
PatienceOption = Annotated[
    float, typer.Option(min=0.1, help="Multiplies all deadlines, for emulated boards.")
]
ProgramOption = Annotated[
    Path | None, typer.Option(help="A program of yours; becomes main.py on the board.")
]


@boards_app.command("list")
def list_boards(
    port: Annotated[
        list[str] | None,
        typer.Option(help="Look there, too: a device or socket://host:port. Several times."),
    ] = None,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask/--no-ask",
            help="Open each port and ask who is there. Opening resets some boards.",
        ),
    ] = True,
    json_output: JsonOption = False,
) -> None:
    """Every serial port: USB ids, serial number, which board it is, and what runs on it.

    Exit status 0, also when there is no board.
    """
    with named_errors():
        from feagi_io_host.cli.board_ports import as_json, as_text, look

        found = look(port or (), ask=ask)
    typer.echo(json.dumps([as_json(item) for item in found]) if json_output else as_text(found))


@boards_app.command()
def deploy(
    board: BoardOption,
    port: PortOption = None,
    program: ProgramOption = None,
    link_port: Annotated[
        str | None,
        typer.Option(help="Where the board's agent talks, if that is not its REPL's port."),
    ] = None,
    baud: Annotated[int, typer.Option(min=300, help="Of the agent's line.")] = 115200,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent and removed, and do nothing.")
    ] = False,
    reset: Annotated[
        bool, typer.Option("--reset/--no-reset", help="Start the board anew at the end.")
    ] = True,
    return_s: Annotated[
        float, typer.Option("--wait", min=0.0, help="Seconds that the board may be unplugged.")
    ] = 30.0,
    hello_s: Annotated[
        float, typer.Option("--hello", min=0.0, help="Seconds to wait for its agent after that.")
    ] = 10.0,
    form: Annotated[
        str | None,
        typer.Option(help="viper, plain, romfs or source, instead of what suits the board."),
    ] = None,
    patience: PatienceOption = 1.0,
    json_output: JsonOption = False,
) -> None:
    """Put feagi_wire and feagi_io_mcu on a board: what changed, checked there, whole or not at all.

    Then the board starts anew and its agent is waited for. Exit status 0 when the files are there
    and whoever answers is no agent of another version, 1 otherwise.
    """
    with named_errors():
        from feagi_io_host.cli.board_deploy import DeployCommand

        command = DeployCommand(
            board,
            port,
            program=program,
            return_s=return_s,
            patience=patience,
            quiet=json_output,
            form=form,
        )
        result = command.run(
            dry_run=dry_run, reset=reset, hello_s=hello_s, link_port=link_port, baud=baud
        )
    if json_output:
        typer.echo(json.dumps(result))
    raise typer.Exit(0 if result["good"] else FAILED)


@boards_app.command()
def dev(
    board: BoardOption,
    program: ProgramOption = None,
    port: PortOption = None,
    patience: PatienceOption = 1.0,
) -> None:
    """Watch the packages and the program, send what changes, restart it, show what it prints.

    A board that is unplugged is waited for. Until Ctrl-C.
    """
    import threading

    with named_errors():
        from feagi_io_host.cli.board_dev import DevLoop

        stop = threading.Event()
        loop = DevLoop(board, port, program=program, patience=patience)
        with stops_on_signal(stop):
            loop.run(stop)


@boards_app.command()
def reset(
    board: BoardOption,
    port: PortOption = None,
    patience: PatienceOption = 1.0,
) -> None:
    """Stop what runs on a board and start it anew, as its reset button would."""
    with named_errors():
        from feagi_io_host.cli.board_deploy import reset_board

        where = reset_board(board, port, patience)
    typer.echo(f"{board} at {where} starts anew")


@boards_app.command()
def emulate(
    program: Annotated[str, typer.Argument(help="A board program: a .py file or a module.")],
    port: Annotated[str, typer.Option(help="Where its serial port shall appear.")] = "./board",
    json_output: JsonOption = False,
) -> None:
    """Run a board program on MicroPython's Unix port, with a serial port to talk to it.

    Started again when it ends, as a board would be, until Ctrl-C.
    """
    import threading

    with named_errors():
        from feagi_io_host.cli.unix_board import UnixBoard

        stop = threading.Event()
        with UnixBoard(program, path=port) as board, stops_on_signal(stop):
            board.start()
            if json_output:
                typer.echo(json.dumps({"program": program, "port": port, "pid": board.pid}))
            else:
                typer.echo(f"board runs {program}; its port is {port}. Ctrl-C ends it.")
            while not stop.wait(0.2):
                if not board.running:
                    words = board.last_words()
                    if board.exit_status != 0 and words:
                        typer.echo(words, err=True)
                    typer.echo(
                        f"board ended with status {board.exit_status}; started again", err=True
                    )
                    if stop.wait(1.0):
                        break
                    board.start()
