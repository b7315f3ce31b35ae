# SPDX-License-Identifier: Apache-2.0
"""The portable scripts on CPython, on MicroPython, and on MicroPython without the viper emitter."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.micropython import ROOT, assert_passed, run_on_cpython, run_on_micropython

FOLDER = ROOT / "tests" / "portable"
SHARED = {"checks", "line", "machine_bus"}  # imported by the scripts
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if path.stem not in SHARED]
NAMES = [path.stem for path in SCRIPTS]
each = pytest.mark.parametrize("script", SCRIPTS, ids=NAMES)


def test_scripts_are_there() -> None:
    expected = {
        "blocks", "containers", "frames", "kernel_twins", "no_allocation", "session", "units",
        "values", "vectors",
    }  # fmt: skip
    assert expected <= set(NAMES)


@each
def test_on_cpython(script: Path) -> None:
    assert_passed(run_on_cpython(script), script, "cpython")


@pytest.mark.micropython
@each
def test_on_micropython(script: Path) -> None:
    assert_passed(run_on_micropython(script), script, "viper")


@pytest.fixture(scope="module")
def without_viper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a feagi_wire as firmware without the emitter sees it."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copytree(
        ROOT / "shared" / "feagi_wire",
        folder / "feagi_wire",
        ignore=shutil.ignore_patterns("_viper.py", "__pycache__"),
    )
    return folder


@pytest.mark.micropython
@each
def test_on_micropython_without_viper(script: Path, without_viper: Path) -> None:
    assert_passed(run_on_micropython(script, without_viper), script, "plain")


@pytest.mark.micropython
def test_a_failing_script_is_noticed(tmp_path: Path) -> None:
    script = tmp_path / "failing.py"
    script.write_text("from checks import done, eq\neq(1, 2, 'arithmetic')\ndone('failing')\n")
    shutil.copy(FOLDER / "checks.py", tmp_path)
    for run in (run_on_micropython, run_on_cpython):
        result = run(script)
        assert result.returncode == 1
        assert result.stdout.startswith("FAIL arithmetic got 1 expected 2")
