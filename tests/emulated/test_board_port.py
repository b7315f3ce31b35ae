# SPDX-License-Identifier: Apache-2.0
"""`pytest --board-port PORT` runs the on-board tests on whatever is behind that port."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.micropython import ROOT
from tools.emulation import Cortex

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

CHOSEN = "obsolete_files or dry_run"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/emulated", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def test_the_same_tests_run_on_a_port(cortex_m3: Path) -> None:
    with Cortex(firmware=cortex_m3) as board:
        done = run(
            "-k", CHOSEN, "--board-port", board.console, "--board", board.name,
            "--board-link", board.uarts[1],
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    assert "starts emulators of its own" in done.stdout


def test_what_a_board_on_the_table_cannot_do_is_left_out_with_the_reason() -> None:
    done = run("--collect-only", "-q", "--board-port", "/dev/ttyACM0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on_uart" not in done.stdout
    for reason in (
        "is about no board",
        "presses the reset button",
        "starts emulators of its own",
        "talks over the board's UART: --board-link",
    ):
        assert f"tests: {reason}" in done.stdout
    assert "test_portable_script" in done.stdout
