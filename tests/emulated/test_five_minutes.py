# SPDX-License-Identifier: Apache-2.0
"""README's way from an unopened Pico to a moving motor, command by command, on an emulated one."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from tests.micropython import ROOT
from tools.emulation import Pico

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

FEAGI_IO = [sys.executable, "-c", "from feagi_io_host.cli import main; main()"]
PORT = "/dev/ttyACM0"
TIMEOUT_S = 180
LOST_MS = 20_000


def commands() -> list[list[str]]:
    """The commands as README prints them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- test: five minutes -->\n\s*```sh\n(.*?)```", text, re.DOTALL)
    assert found
    return [shlex.split(line) for line in found[1].splitlines() if line.strip()]


def test_the_first_command_installs_what_the_others_need() -> None:
    first = commands()[0]
    assert first[:2] == ["pip", "install"]
    extras = re.fullmatch(r"\.\[([\w,]+)\]", first[2])
    assert extras
    with (ROOT / "pyproject.toml").open("rb") as file:
        known = tomllib.load(file)["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) == {"cli", "boards"} <= set(known)


def test_from_an_unopened_pico_to_a_moving_motor(blank_pico: Pico, tmp_path: Path) -> None:
    board = blank_pico
    board.mpremote("exec", "pass")  # the first boot makes the file system
    listing, deploying, brain = commands()[1:]

    def feagi_io(command: list[str], *more: str) -> str:
        assert command[0] == "feagi-io"
        words = command[1:]
        done = subprocess.run(
            [*FEAGI_IO, *words, *more], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # An emulated port is in no list of USB devices, and all is slower there.
    console = ("--port", board.console)
    assert "Raspberry Pi Pico with RP2040" in feagi_io(listing, *console)
    said = feagi_io(deploying, *console, "--patience", "8")
    assert "feagi-io agent 'rover' on micropython 1.25.0 rp2" in said

    assert brain[0] == "python"
    # A second of that chip takes many here: with the usual patience every session would end, and
    # the brain would have forgotten what it saw before the next frame.
    program = (ROOT / brain[1]).read_text(encoding="utf-8")
    for usual, slow in (
        ("[sys.argv[1]])", f"[sys.argv[1]], lost_ms={LOST_MS})"),
        ("rate_hz=50", "rate_hz=4"),
    ):
        assert usual in program
        program = program.replace(usual, slow)
    patient = tmp_path / "patient.py"
    patient.write_text(program)
    host = subprocess.Popen(
        [sys.executable, str(patient), *(word.replace(PORT, board.console) for word in brain[2:])],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    watchdog = threading.Timer(60.0, host.kill)
    watchdog.start()
    try:
        assert host.stdout is not None
        assert host.stdin is not None
        while (line := host.stdout.readline().strip()) != "wheels turn":
            assert line, "the brain ended"
        host.stdin.close()
        assert host.wait(timeout=20) == 0
        host.stdout.close()
    finally:
        watchdog.cancel()
        watchdog.join()
        host.kill()
        host.wait()
