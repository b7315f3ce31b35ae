# SPDX-License-Identifier: Apache-2.0
"""The viewer's benchmark in a real Chromium. Speed is judged where it is run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feagi_io_host.bench.browser import Browser
from feagi_io_host.bench.viewer import SIZES, run
from feagi_io_host.core.errors import MissingPartError, RemoteError

if TYPE_CHECKING:
    from tools.browser import Chromium


@pytest.mark.slow
def test_a_row_for_each_size(
    chromium: Chromium, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = run(quick=True, browser=chromium.path, environment=chromium.environment)
    assert [row.name for row in rows] == [f"viewer, {size:,} neurons" for size in SIZES]
    for row, size in zip(rows, SIZES, strict=True):
        assert row.ours_s is not None
        assert row.reference_s is not None
        assert 0 < row.reference_s <= row.ours_s * 1.5
        assert row.met is (row.ours_s <= 1 / 29)
        assert f" of {size:,} voxels drawn" in row.note
    assert "1,000 of 1,000" in rows[0].note
    assert list(tmp_path.iterdir()) == []  # the profile went with the browser


def test_without_a_browser_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="apt install chromium"):
        Browser("about:blank", str(tmp_path / "none"))


def test_a_program_that_is_no_browser_is_told(tmp_path: Path) -> None:
    program = tmp_path / "ends"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    with (
        pytest.raises(RemoteError, match="ended with status 7"),
        Browser("about:blank", str(program)),
    ):
        pass
