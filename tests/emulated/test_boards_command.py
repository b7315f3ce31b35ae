# SPDX-License-Identifier: Apache-2.0
"""`feagi-io boards` as it is typed, on real MicroPython."""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from feagi_wire.board_link import BoardLink
from feagi_wire.const import LINK_HEADER
from feagi_wire.container import StaticFBC
from feagi_wire.framing import Framer
from tests.micropython import ROOT
from tools.emulation import Cortex

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

FEAGI_IO = [sys.executable, "-c", "from feagi_io_host.cli import main; main()", "boards"]
BOARD = ("--board", Cortex.name)
ROVER = """\
from feagi_io_mcu import Agent, UartDriver
agent = Agent(UartDriver(1), "rover")
agent.sensor("iinf")
while True:
    agent.step(1)
"""
STRANGER = """\
import machine, time
uart = machine.UART(1, 115200)
while True:
    uart.write({hello})
    time.sleep_ms(100)
"""
WAIT_S = 30


def hello_of(link_version: int) -> bytes:
    """The HELLO of a board, as it stands on the line."""
    declaration = b'{"name": "stranger"}'
    link = BoardLink(bytearray(200), StaticFBC(bytearray(256)), declaration)
    link.tick(0)
    framer = Framer(bytearray(200), bytearray(200))
    size = framer.feed(link.framer.tx, link.tx_len, 0)
    assert size > 0
    body = framer.rx[:size]
    body[LINK_HEADER] = link_version
    return bytes(framer.tx[: framer.encode(body, 0, size)])


def boards(*words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*FEAGI_IO, *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def named(cortex_m3: Path) -> Iterator[Cortex]:
    with Cortex(firmware=cortex_m3, uarts="pty") as board:
        yield board


def test_list_deploy_and_reset(named: Cortex, tmp_path: Path) -> None:
    port = ("--port", named.console)
    (found,) = json.loads(boards("list", "--json", *port).stdout)
    assert found["runs"] == "REPL"
    assert "mps2-an385" in found["detail"]

    (tmp_path / "rover.py").write_text(ROVER)
    program = ("--program", str(tmp_path / "rover.py"))
    done = boards("deploy", *BOARD, *port, *program, "--link-port", named.uarts[1])
    assert "main.py  " in done.stdout
    assert "answers: feagi-io agent 'rover' on micropython 1.25.0" in done.stdout

    board, line = json.loads(boards("list", "--json", *port, "--port", named.uarts[1]).stdout)
    assert line["runs"] == "agent"
    assert board["runs"] == "unknown", "it was disturbed"

    broken = tmp_path / "broken.py"
    broken.write_text("import nowhere\n")
    done = boards("deploy", *BOARD, *port, "--program", str(broken), "--json", status=1)
    result = json.loads(done.stdout)
    assert (result["sent"], result["good"], result["runs"]) == (["main.py"], False, "REPL")
    assert "no module named 'nowhere'" in done.stderr

    # Frozen packages of another release, say: whatever was deployed, the agent speaks their link.
    stranger = tmp_path / "stranger.py"
    stranger.write_text(STRANGER.format(hello=hello_of(link_version=9)))
    done = boards(
        "deploy", *BOARD, *port, "--program", str(stranger), "--link-port", named.uarts[1], status=1
    )
    assert "the agent on the board speaks link 9 and container 4, this host 1 and 4" in done.stderr
    assert "remove them or use a firmware without" in done.stderr

    assert "starts anew" in boards("reset", *BOARD, *port).stdout
    done = boards("deploy", "--board", "esp32-s3", *port, status=1)
    assert "which is no esp32-s3" in done.stderr


def test_packages_in_the_read_only_file_system(named: Cortex, tmp_path: Path) -> None:
    """Modules of ours beside the image would hide it, and so would their empty folders."""
    hiding = "import os\ntry: os.mkdir('feagi_wire')\nexcept OSError: pass\n"
    named.mpremote("exec", hiding + "open('feagi_wire/kernels.mpy', 'w').close()")
    port = ("--port", named.console)
    (tmp_path / "rover.py").write_text(ROVER)
    program = ("--program", str(tmp_path / "rover.py"), "--link-port", named.uarts[1])
    command = ("deploy", *BOARD, *port, "--form", "romfs", *program, "--json")
    assert "/rom" in json.loads(boards(*command, "--dry-run").stdout)["sent"]
    done = json.loads(boards(*command).stdout)
    assert done["sent"][0] == "/rom"
    assert done["runs"] == "agent"
    assert "feagi_wire/kernels.mpy" in done["removed"]
    where = "import feagi_wire; print(feagi_wire.__file__)"
    assert named.mpremote("exec", where).strip() == "/rom/feagi_wire/__init__.mpy"
    again = json.loads(boards(*command).stdout)
    assert (again["sent"], again["removed"], again["runs"]) == ([], [], "agent")


class Plug:
    """A port, `path`, that leads to a board's console while it is plugged in."""

    def __init__(self, console: str, path: Path) -> None:
        self.path = path
        self._console = os.open(console, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(self._console)
        self._thread: threading.Thread | None = None
        self.plug_in()

    def plug_in(self) -> None:
        master, slave = os.openpty()
        tty.setraw(slave)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)
        self._pull_r, self._pull_w = os.pipe()
        self._thread = threading.Thread(target=self._carry, args=(master, self._pull_r))
        self._thread.start()

    def unplug(self) -> None:
        os.close(self._pull_w)
        assert self._thread is not None
        self._thread.join()
        self.path.unlink()

    def close(self) -> None:
        self.unplug()
        os.close(self._console)

    def _carry(self, master: int, pull: int) -> None:
        poll = select.poll()
        for end in (master, self._console, pull):
            poll.register(end, select.POLLIN)
        while True:
            # without anybody who has it open, a pseudo terminal hangs up at every look
            ready = dict(poll.poll())
            if pull in ready:
                break
            if ready.get(self._console, 0) & select.POLLIN:
                os.write(master, os.read(self._console, 4096))
            if ready.get(master, 0) & select.POLLIN:
                os.write(self._console, os.read(master, 4096))
            elif ready.get(master, 0) & select.POLLHUP:
                select.select([pull], [], [], 0.01)
        os.close(master)
        os.close(pull)


def test_dev_sends_what_is_saved_shows_what_is_printed_and_waits_for_the_plug(
    named: Cortex, tmp_path: Path
) -> None:
    plug = Plug(named.console, tmp_path / "board")
    program = tmp_path / "main.py"
    program.write_text("print('first', 1)\n")
    loop = subprocess.Popen(
        [*FEAGI_IO, "dev", *BOARD, "--port", str(plug.path), "--program", str(program)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: queue.Queue[str] = queue.Queue()
    assert loop.stdout is not None
    reader = threading.Thread(target=lambda: [lines.put(line) for line in loop.stdout or ()])
    reader.start()

    def until(text: str) -> None:
        while text not in lines.get(timeout=WAIT_S):
            pass

    try:
        until("files sent")
        until("first 1")
        program.write_text("print('second', 2)\n")
        until("1 files sent")
        until("second 2")
        plug.unplug()
        until("waiting for it to come back")
        program.write_text("print('third', 3)\n")
        plug.plug_in()
        until("1 files sent")
        until("third 3")
        loop.send_signal(signal.SIGINT)
        assert loop.wait(WAIT_S) == 0
    finally:
        loop.kill()
        loop.wait()
        reader.join()
        loop.stdout.close()
        plug.close()
