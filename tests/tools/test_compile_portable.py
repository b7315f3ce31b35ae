# SPDX-License-Identifier: Apache-2.0
"""mpy-cross sees every file: bytecode once, native code per architecture, errors by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tools import compile_portable
from tools.compile_portable import ARCHITECTURES, BYTECODE, compile_all, table

PLAIN = "def f(x):\n    return x + 1\n"
VIPER = "import micropython\n\n@micropython.viper\ndef f(x: int) -> int:\n    return x + 1\n"


@pytest.fixture
def package(tmp_path: Path, require: Callable[[str], ModuleType | str]) -> Path:
    require("mpy-cross")
    folder = tmp_path / "bits"
    folder.mkdir()
    (folder / "plain.py").write_text(PLAIN)
    (folder / "viper.py").write_text(VIPER)
    return folder


def test_bytecode_once_and_native_per_architecture(package: Path) -> None:
    results = compile_all((package,), root=package.parent)
    assert [(r.file, r.target) for r in results] == [
        ("bits/plain.py", BYTECODE),
        *[("bits/viper.py", architecture) for architecture in ARCHITECTURES],
    ]
    assert all(r.size > 0 and not r.error for r in results)
    assert "total" in table(results)


def test_what_does_not_compile_is_named(package: Path) -> None:
    (package / "bad.py").write_text("def f(:\n")
    (package / "wide.py").write_text(VIPER.replace("x + 1", "x + 1 << 40 | 0x7FFFFFFFFF"))
    errors = {r.file for r in compile_all((package,), root=package.parent) if r.error}
    assert errors == {"bits/bad.py", "bits/wide.py"}


def test_json_holds_files_and_totals(
    package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = compile_all((package,), root=package.parent)
    monkeypatch.setattr(compile_portable, "compile_all", lambda opt: results)
    assert compile_portable.main(["--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["totals"][BYTECODE] == results[0].size
    assert len(answer["files"]) == len(results)


def test_nothing_to_compile_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compile_portable, "compile_all", lambda opt: [])
    assert compile_portable.main([]) == 1
    assert "no portable file" in capsys.readouterr().err
