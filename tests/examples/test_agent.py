# SPDX-License-Identifier: Apache-2.0
"""The example agent, run as printed: with the built-in brain, and with the real engine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from feagi_io_host.core.types import CorticalID
from tests.interop.conftest import TIMEOUT_S, engine, engine_installation
from tests.interop.test_serve import Served
from tools.engine import Engine

__all__ = ["engine", "engine_installation"]  # fixtures

ROOT = Path(__file__).resolve().parents[2]
INFRARED = CorticalID.try_from_bytes(b"iinf\x01\x00\x00\x00")
ROTARY_MOTOR = CorticalID.try_from_bytes(b"omot\x05\x00\x00\x00")
DEADLINE_S = 30


def run_example(url: str, steps: int) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "examples/agent.py", url, str(steps)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_with_the_built_in_brain(scheme: str, tmp_path: Path) -> None:
    served = Served(tmp_path / "feagi-io.toml")
    try:
        said = run_example(served.urls[scheme], 40)
    finally:
        status, *_ = served.end()
    assert status == 0
    depths = {int(z) for z in re.findall(r"wheel fires at z = \[(\d)\]", said)}
    assert len(depths) >= 3, said  # ahead and back, quick and slow
    assert said.rstrip().endswith("inactive: left")


@pytest.mark.timeout(TIMEOUT_S)
def test_with_the_real_engine(engine: Engine) -> None:
    engine.load_genome("barebones")
    # The first run makes the areas; then there is something to map.
    run_example(engine.registration_url, 1)
    engine.wait_for_areas(INFRARED, ROTARY_MOTOR)
    assert engine.map_areas(INFRARED, ROTARY_MOTOR) > 0
    assert "wheel fires at z" in run_example(engine.registration_url, 60)
