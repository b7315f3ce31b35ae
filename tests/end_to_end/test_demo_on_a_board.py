# SPDX-License-Identifier: Apache-2.0
"""The main job with a microcontroller for a board: an emulated Cortex-M3 on its UART."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from feagi_io_host.cli import emulated_board
from feagi_io_host.core.errors import ConfigError, MissingPartError
from tests.end_to_end.test_demo import run_demo
from tools.emulation import EmulatorUnavailableError, cortex_m3_firmware

BOARD = "qemu-mps2-an385"


@pytest.fixture
def firmware() -> None:
    """Built here once, if need be, and not within the demo's time."""
    try:
        cortex_m3_firmware()
    except EmulatorUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.micropython
@pytest.mark.timeout(500)
@pytest.mark.usefixtures("firmware")
def test_the_brain_holds_the_pole_of_a_microcontroller() -> None:
    done = run_demo("--board", BOARD, "--seconds", "4", "--json", timeout_s=120.0)
    assert done.returncode == 0, (done.stdout, done.stderr)
    report = json.loads(done.stdout)
    assert report["upright"] is True
    assert report["interpreter"].startswith("micropython 1.25.0 qemu")
    assert report["board_restarts"] == 0
    assert report["motor"] > 100


def test_a_board_that_cannot_be_emulated_for_this_is_wrong_usage() -> None:
    with pytest.raises(ConfigError, match="rp2040-pico: its emulator lives an eighth"):
        emulated_board.EmulatedBoard("rp2040-pico", threading.Event())
    with pytest.raises(ConfigError, match="'toaster' cannot balance the pole here; unix, qemu"):
        emulated_board.EmulatedBoard("toaster", threading.Event())


def test_an_installed_package_says_where_the_tool_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(emulated_board, "package_folder", lambda _: tmp_path / "feagi_io_host")
    with pytest.raises(MissingPartError, match="in a checkout: make boards-emulated"):
        emulated_board.EmulatedBoard(BOARD, threading.Event())
