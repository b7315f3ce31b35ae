# SPDX-License-Identifier: Apache-2.0
"""The subcommands. Each imports what it needs when it runs, to keep `feagi-io --help` quick."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from feagi_io_host.cli.boards_app import boards_app
from feagi_io_host.cli.exits import FAILED, JsonOption, fail, named_errors
from feagi_io_host.cli.signals import stops_on_signal
from feagi_io_host.cli.viewing import (
    ControlOption,
    HostOption,
    NetworkOption,
    OpenOption,
    TokenOption,
    ViewOptions,
)

app = typer.Typer(
    name="feagi-io",
    help="FEAGI's peripheral nervous system: boards, brains and what runs between them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
bench_app = typer.Typer(help="Measure this machine: limit, peer and ours in one run.")
app.add_typer(bench_app, name="bench", no_args_is_help=True)
app.add_typer(boards_app, name="boards", no_args_is_help=True)
config_app = typer.Typer(help="The settings of a PNS.")
app.add_typer(config_app, name="config", no_args_is_help=True)


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to hold the pole.")] = 15.0,
    no_brain: Annotated[
        bool, typer.Option("--no-brain", help="The same without the brain: the pole falls.")
    ] = False,
    board: Annotated[
        str,
        typer.Option(help="The board: unix (a process), qemu-mps2-an385 (emulated)."),
    ] = "unix",
    view: Annotated[
        bool, typer.Option("--view", help="Show it in the browser, too; prints the URL.")
    ] = False,
    view_port: Annotated[int, typer.Option(help="Port of the viewer; 0 is any free one.")] = 0,
    view_host: HostOption = "127.0.0.1",
    open_to_network: NetworkOption = False,
    token: TokenOption = None,
    open_browser: OpenOption = False,
    control: ControlOption = False,
    json_output: JsonOption = False,
) -> None:
    """A MicroPython board balances a pole, because a brain on this machine sees and moves it.

    Exit status 0 when the pole still stands at the end, 1 when it fell.
    """
    options = ViewOptions(view_port, view_host, open_to_network, token, open_browser)
    _refuse_without_view(view, control, options)
    with named_errors(), ExitStack() as stack:
        from feagi_io_host.cli.demo.session import Demo
        from feagi_io_host.cli.demo.view import choose_view

        shown = choose_view(json_output)
        run = Demo(seconds=seconds, brain=not no_brain, say=shown.say, show=shown.show, board=board)
        stack.callback(run.board.close)  # also when there is no run
        stack.enter_context(stops_on_signal(run.stop))
        if view:
            stack.enter_context(
                run.viewer(options, lambda line: typer.echo(line, err=json_output), control=control)
            )
        with shown:
            result = run.run()
    if json_output:
        typer.echo(json.dumps(result.as_json()))
    else:
        typer.echo(result.summary())
    raise typer.Exit(0 if result.upright else FAILED)


def _refuse_without_view(view: bool, control: bool, options: ViewOptions) -> None:
    if not view and (control or options != ViewOptions()):
        raise typer.BadParameter("this is for --view", param_hint="an option of the viewer")


@app.command()
def bridge(
    port: Annotated[list[str], typer.Option(help="A board's port; may be given several times.")],
    baud: Annotated[int, typer.Option(min=300, help="Of UARTs; USB boards ignore it.")] = 115200,
    max_baud: Annotated[
        int, typer.Option(min=0, help="Highest rate for boards that can follow; 0: stay at --baud.")
    ] = 921600,
    reset: Annotated[bool, typer.Option("--reset", help="Pulse DTR at the first opening.")] = False,
    feagi: Annotated[
        str | None,
        typer.Option(help="Make each board an agent of this engine: tcp://127.0.0.1:30001."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="The token that the engine wants: 32 bytes or 64 digits.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End after so long instead of at Ctrl-C.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Talk to boards and show what they say and sense: a line per second and board.

    Without --feagi no brain is attached and motors stay fail-safe. With it every board is an
    agent of that engine, or of a `feagi-io serve`, with the units that it declares; a board or an
    engine that goes away is waited for. Exit status 0 when every board was connected at the end,
    to its engine too, 1 when one was not.
    """
    import threading

    if token_file is not None and feagi is None:
        raise typer.BadParameter("a token is for --feagi", param_hint="--token-file")
    with named_errors():
        from feagi_io_host.cli.monitor import BridgeMonitor
        from feagi_io_host.core.config import AuthSettings

        stop = threading.Event()
        monitor = BridgeMonitor(
            port,
            baud=baud,
            max_baud=max_baud,
            reset=reset,
            say=lambda text: typer.echo(text, err=json_output),
            feagi=feagi,
            token=AuthSettings(token_file).read_token(),
        )
        with stops_on_signal(stop):
            status = monitor.run(stop, seconds, quiet=json_output)
    if json_output:
        typer.echo(json.dumps(status))
    served = all(
        line["state"] == "CONNECTED" and (line["engine"] is None or line["engine"]["state"] == "up")
        for line in status
    )
    raise typer.Exit(0 if served else FAILED)


@app.command()
def serve(
    zmq_rest: Annotated[
        str | None, typer.Option(help="Where agents register: tcp://host:port.")
    ] = None,
    zmq_sensory: Annotated[str | None, typer.Option(help="Where their frames come in.")] = None,
    zmq_motor: Annotated[str | None, typer.Option(help="Where motor frames go out.")] = None,
    zmq_viz: Annotated[str | None, typer.Option(help="Where visualization goes out.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
    rate: Annotated[float, typer.Option(help="Bursts per second.")] = 100.0,
    wire: Annotated[
        list[str] | None,
        typer.Option(
            help="A reflex, SENSOR:MOTOR as UNIT[GROUP]/CHANNELS/STEPS, like "
            "iinf/2/8:omot/2/8; may be given several times. Without any, each agent's sensors "
            "drive its own motors, as it says that it has them."
        ),
    ] = None,
    status: Annotated[
        str, typer.Option(help="Port of the status page on 127.0.0.1; 0 for any, or none.")
    ] = "30002",
    view: Annotated[
        bool, typer.Option("--view", help="Show the brain in the browser; prints the URL.")
    ] = False,
    view_port: Annotated[int, typer.Option(help="Port of the viewer; 0 is any free one.")] = 0,
    view_host: HostOption = "127.0.0.1",
    open_to_network: NetworkOption = False,
    token: TokenOption = None,
    open_browser: OpenOption = False,
    control: ControlOption = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End after so long instead of at Ctrl-C.")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON, one object per line and event.")
    ] = False,
) -> None:
    """A PNS with the built-in brain, for agents to register with. A status line per second.

    Settings come from the file, then FEAGI_IO_*, then these options. `feagi-io agents` shows who
    is there.
    """
    import os
    import threading

    def say(line: str, data: dict[str, Any]) -> None:
        typer.echo(json.dumps(data) if json_output else line)

    port = None if status == "none" else _port(status)
    options = ViewOptions(view_port, view_host, open_to_network, token, open_browser)
    _refuse_without_view(view, control, options)
    with named_errors():
        from feagi_io_host.cli.serve import BrainServer
        from feagi_io_host.cli.wires import parse_wire
        from feagi_io_host.core.config import PNSConfig

        urls = {"rest": zmq_rest, "sensory": zmq_sensory, "motor": zmq_motor, "viz": zmq_viz}
        server = BrainServer(
            PNSConfig.from_sources(
                toml=config,
                environ=os.environ,
                arguments={f"zmq.{name}": url for name, url in urls.items()},
            ),
            rate_hz=rate,
            reflexes=[parse_wire(text) for text in wire or ()],
            status_port=port,
            say=say,
            view=options if view else None,
            control=control,
        )
        stop = threading.Event()
        with stops_on_signal(stop):
            last = server.run(stop, seconds)
    say("ended", {"event": "stopped", "telemetry": last})


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise typer.BadParameter(f"{text!r} is no port (0 to 65535) and not none")
    return int(text)


@app.command("view")
def view_brain(
    url: Annotated[
        str, typer.Argument(help="Where agents register: tcp://host:port or ws://host:port.")
    ] = "tcp://127.0.0.1:30001",
    status: Annotated[
        str | None,
        typer.Option(help="Status page of a `feagi-io serve`; http://127.0.0.1:30002 is tried."),
    ] = None,
    rest: Annotated[
        str | None,
        typer.Option(help="REST of a FEAGI engine; port 8000 of the same host is tried."),
    ] = None,
    brain_token_file: Annotated[
        Path | None, typer.Option(help="The token that the brain wants: 32 bytes or 64 digits.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the viewer; 0 is any free one.")] = 0,
    host: HostOption = "127.0.0.1",
    open_to_network: NetworkOption = False,
    token: TokenOption = None,
    open_browser: OpenOption = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="End after so long instead of at Ctrl-C.")
    ] = None,
) -> None:
    """Show a running brain in the browser: a `feagi-io serve`, or a FEAGI engine.

    The viewer is an agent of the brain that receives visualization. A brain that is not there, or
    goes away, is waited for.
    """
    import threading

    options = ViewOptions(port, host, open_to_network, token, open_browser)
    with named_errors():
        from feagi_io_host.cli.viewing import view_remote
        from feagi_io_host.core.config import AuthSettings

        stop = threading.Event()
        with stops_on_signal(stop):
            view_remote(
                url,
                options,
                stop,
                seconds,
                tell=typer.echo,
                brain_token=AuthSettings(brain_token_file).read_token(),
                status_url=status,
                rest_url=rest,
            )


@app.command()
def agents(
    url: Annotated[
        str, typer.Option(help="The status page of `feagi-io serve`, or a FEAGI engine's REST.")
    ] = "http://127.0.0.1:30002",
    once: Annotated[bool, typer.Option("--once", help="Print the table once and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print JSON, one object per look.")
    ] = False,
) -> None:
    """The agents of a running server: a live table, until Ctrl-C."""
    import threading

    with named_errors():
        from feagi_io_host.cli.agents import AgentsView, watch

        stop = threading.Event()
        with stops_on_signal(stop):
            watch(AgentsView(url), stop, interval, once=once, as_json=json_output)


@bench_app.command()
def codec(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Container encode and decode against memcpy and the real library."""
    with named_errors():
        from feagi_io_host.bench import codec as rows

        _print_rows(rows.run(quick=quick), json_output)


@bench_app.command()
def channels(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Bounded channels against a bare deque and the queues of the standard library."""
    with named_errors():
        from feagi_io_host.bench import channels as rows

        _print_rows(rows.run(quick=quick), json_output)


@bench_app.command()
def pns(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    json_output: JsonOption = False,
) -> None:
    """From a brain through the PNS to agents: latency, saturation, MB/s, memory, sharing."""
    with named_errors():
        from feagi_io_host.bench import pns as rows

        _print_rows(rows.run(quick=quick), json_output)


@bench_app.command("zmq")
def bench_zmq(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Frames over ZMQ against bare pyzmq."""
    with named_errors():
        from feagi_io_host.bench import zmq as rows

        _print_rows(rows.run(quick=quick), json_output)


@bench_app.command("webrtc")
def bench_webrtc(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Frames over WebRTC data channels against the library `aiortc` alone."""
    with named_errors():
        import feagi_io_host.transports.webrtc  # noqa: F401 - its error names the extra
        from feagi_io_host.bench import webrtc as rows

        _print_rows(rows.run(quick=quick), json_output)


@bench_app.command("websocket")
def bench_websocket(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Frames over WebSocket against the library `websockets` alone."""
    with named_errors():
        import feagi_io_host.transports.websocket  # noqa: F401 - its error names the extra
        from feagi_io_host.bench import websocket as rows

        _print_rows(rows.run(quick=quick), json_output)


@bench_app.command("udp")
def bench_udp(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    soak: Annotated[
        bool, typer.Option("--soak", help="30 s of 200,000 neurons, 100 bursts a second, too.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Bursts as datagrams against bare loops on the same system calls."""
    with named_errors():
        from feagi_io_host.bench import udp as rows

        _print_rows(rows.run(quick=quick, soak=soak), json_output)


@bench_app.command("shm")
def bench_shm(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer rounds, rougher figures.")] = False,
    soak: Annotated[
        bool, typer.Option("--soak", help="Also 30 s of bursts in each paradigm.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Shared memory against a bare copy and a bare wake-up; 1K to 1M neurons."""
    with named_errors():
        from feagi_io_host.bench import shm as rows

        _print_rows(rows.run(quick=quick, soak=soak), json_output)


@bench_app.command("viewer")
def bench_viewer(
    browser: Annotated[
        str | None, typer.Option("--browser", help="The browser's program; Chromium if not given.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Shorter, rougher figures.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Pictures a second of the viewer in a browser, and how old they are; 1K to 200K neurons."""
    with named_errors():
        import feagi_io_host.viewer  # noqa: F401 - its error names the extra
        from feagi_io_host.bench import viewer as rows

        _print_rows(rows.run(quick=quick, browser=browser), json_output)


def _print_rows(rows: list[Any], json_output: bool) -> None:
    from feagi_io_host.bench.runner import rows_as_json, rows_as_text

    typer.echo(json.dumps(rows_as_json(rows)) if json_output else rows_as_text(rows))


@app.command()
def decode(
    file: Annotated[Path, typer.Argument(help="A file with one container; - for standard input.")],
    json_output: JsonOption = False,
) -> None:
    """Say what a FEAGI byte container holds."""
    from feagi_io_host.core.container import FeagiByteContainer

    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        fail(error)
    with named_errors():
        container = FeagiByteContainer.new_empty()
        container.try_write_data_by_copy_and_verify(data)
        _print_container(container, json_output)


def _print_container(container: Any, json_output: bool) -> None:
    from feagi_io_host.cli.describe import container_as_data, container_as_text

    if json_output:
        typer.echo(json.dumps(container_as_data(container)))
    else:
        typer.echo(container_as_text(container))


@config_app.command("show")
def config_show(
    config: Annotated[Path | None, typer.Option(help="A TOML file with settings.")] = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value comes from.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Print every setting that a PNS started here would have: defaults, file, FEAGI_IO_*.

    What is printed is TOML and can be used as such a file.
    """
    import os

    with named_errors():
        from feagi_io_host.core.config import PNSConfig

        rows = PNSConfig.from_sources(toml=config, environ=os.environ).rows()
    if json_output:
        plain = {
            row.path: {"value": row.value, "origin": row.origin} if origin else row.value
            for row in rows
        }
        typer.echo(json.dumps(plain))
        return
    for row in rows:
        # A text in JSON's quotes is a TOML string; TOML has no word for "no value".
        line = f"{row.path} = {json.dumps(row.value)}"
        line = f"# {row.path} is not set" if row.value is None else line
        typer.echo(f"{line}  # {row.origin}" if origin else line)
