# SPDX-License-Identifier: Apache-2.0
"""package.json names every portable file once, from where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import mip_package


def make_package(root: Path) -> Path:
    folder = root / "bits"
    (folder / "drivers").mkdir(parents=True)
    for name in ("b.py", "a.py", "_casts.py", "drivers/uart.py", "py.typed"):
        (folder / name).write_text("")
    return folder


def test_lists_what_runs_on_a_board(tmp_path: Path) -> None:
    assert json.loads(mip_package.package_json(make_package(tmp_path), "1.2.3")) == {
        "urls": [
            ["bits/a.py", "a.py"],
            ["bits/b.py", "b.py"],
            ["bits/drivers/uart.py", "drivers/uart.py"],
        ],
        "deps": [],
        "version": "1.2.3",
    }


def test_check_tells_a_stale_file_from_a_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_package(tmp_path)
    monkeypatch.setattr(mip_package, "ROOT", tmp_path)
    monkeypatch.setattr(mip_package, "PACKAGES", (folder,))
    monkeypatch.setattr(mip_package, "project_version", lambda: "1.2.3")
    assert mip_package.main(["--check"]) == 1
    assert not (folder / "package.json").exists()
    assert mip_package.main([]) == 0
    assert mip_package.main(["--check"]) == 0
    (folder / "new.py").write_text("")
    assert mip_package.main(["--check"]) == 1


def test_the_version_is_the_projects() -> None:
    assert mip_package.project_version().count(".") == 2
