# SPDX-License-Identifier: Apache-2.0
"""Each house rule refuses what breaks it and takes what keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_house import LICENCE, check

GOOD = f'# {LICENCE}\n"""A module."""\n'


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.py", '"""A module."""\n', "no 'SPDX"),
        ("a.py", "", "no 'SPDX"),
        ("Makefile", "all:\n", "no 'SPDX"),
        ("a.py", f"# {LICENCE}\n", "no module docstring"),
        ("a.py", GOOD + "def\n", "a.py:3:"),
        ("a.py", GOOD + "import shared.feagi_wire\n", "a.py:3: imports `shared`"),
        ("a.py", GOOD + "x = 1\nfrom shared import feagi_wire\n", "a.py:4: imports `shared`"),
        ("feagi_io_host/a.py", GOOD + "x = 1\n" * 600, "602 lines"),
    ],
)
def test_refuses(tmp_path: Path, name: str, text: str, fault: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert any(fault in line for line in check(tmp_path)), check(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", GOOD + "from multiprocessing import shared_memory\n"),
        ("run.sh", f"#!/bin/sh\n# {LICENCE}\n"),
        (
            "feagi_io_host/a.py",
            GOOD.replace("A module", "This module is long: x") + "x = 1\n" * 600,
        ),
        ("tests/test_a.py", GOOD + "x = 1\n" * 700),
        (".venv/a.py", ""),
        ("data.json", "{}"),
    ],
)
def test_takes(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert check(tmp_path) == []


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"# \xff\n")
    assert "not UTF-8" in check(tmp_path)[0]
