# SPDX-License-Identifier: Apache-2.0
"""What README prints is what stands in examples/, and it runs as printed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FEAGI_IO = [sys.executable, "-c", "from feagi_io_host.cli import main; main()"]
MAX_LINES = 10


def code_lines(text: str) -> list[str]:
    """Lines that a person has to type: imports and statements, not blanks and comments."""
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", ["board_rover.py", "host_rover.py"])
def test_readme_prints_the_examples(name: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = (ROOT / "examples" / name).read_text()
    body = example.split("\n", 1)[1].strip("\n")
    assert body in [block.strip("\n") for block in blocks]


@pytest.mark.parametrize("name", ["board_rover.py", "host_rover.py"])
def test_the_examples_are_about_ten_lines(name: str) -> None:
    lines = code_lines((ROOT / "examples" / name).read_text())
    assert len(lines) <= MAX_LINES + 2, "\n".join(lines)


@pytest.mark.slow
@pytest.mark.micropython
def test_the_two_programs_run_as_printed(require: Callable[[str], Any], tmp_path: Path) -> None:
    """Board and brain meet, the wheels turn; the board starts first and the brain ends first."""
    require("micropython_unix")
    port = tmp_path / "rover"
    board = subprocess.Popen(
        [*FEAGI_IO, "boards", "emulate", "examples/board_rover.py", "--port", str(port)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert board.stdout is not None
        assert str(port) in board.stdout.readline()
        host = subprocess.Popen(
            [sys.executable, "examples/host_rover.py", str(port)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        # a deadline for the lines below: nothing said means killed, and an empty line
        watchdog = threading.Timer(20.0, host.kill)
        watchdog.start()
        try:
            assert host.stdout is not None
            assert host.stdin is not None
            said = set()
            while "wheels turn" not in said:
                line = host.stdout.readline()
                assert line, f"the host program ended; it had said {said}"
                said.add(line.strip())
            host.stdin.close()
            assert host.wait(timeout=10) == 0
            host.stdout.close()
        finally:
            watchdog.cancel()
            watchdog.join()
            host.kill()
            host.wait()
    finally:
        board.send_signal(signal.SIGINT)
        try:
            assert board.wait(timeout=10) == 0
        finally:
            board.kill()
            board.wait()
            board.stdout.close()
    assert not port.is_symlink(), "the port's name goes with the board"
