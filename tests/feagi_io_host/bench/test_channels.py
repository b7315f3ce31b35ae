# SPDX-License-Identifier: Apache-2.0
"""The channel benchmark: that each row is measured. How fast this machine is today is no test."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from feagi_io_host.cli.app import app
from tools.bench.__main__ import SUITES, main


def test_channel_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["channels", "--quick", "--json"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)
    named = {(row["name"], row["reference"]) for row in rows}
    assert len(named) == len(rows) == 9
    assert ("put+get", "bare deque") in named
    for row in rows:
        assert row["ours_s"] > 0
        assert row["reference_s"] > 0
        assert (row["met"] is None) == (row["limit"] == "-")


def test_each_suite_is_a_command() -> None:
    listed = CliRunner().invoke(app, ["bench", "--help"]).stdout
    for suite in SUITES:
        assert f" {suite} " in listed
    done = CliRunner().invoke(app, ["bench", "channels", "--quick"])
    assert done.exit_code == 0
    assert "put+get" in done.stdout
