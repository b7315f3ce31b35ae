# SPDX-License-Identifier: Apache-2.0
"""`feagi-io config show`: what it prints, in which forms, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from feagi_io_host.cli.app import app
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.settings import ENVIRONMENT_PREFIX

SETTINGS_TEXT = '[limits]\nmax_agents = 7\n[auth]\ntoken_file = "some \\"where\\""\n'


def show(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(app, ["config", "show", *arguments], env=environ)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith(ENVIRONMENT_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "feagi-io.toml"
    path.write_text(SETTINGS_TEXT)
    return str(path)


def test_what_is_printed_is_a_file_that_says_the_same(file: str, tmp_path: Path) -> None:
    done = show("--config", file, FEAGI_IO_ZMQ_REST="tcp://0.0.0.0:40001")
    assert done.exit_code == 0
    again = tmp_path / "again.toml"
    again.write_text(done.stdout)
    printed = PNSConfig.from_toml(again)
    assert printed == PNSConfig.from_sources(
        toml=file, environ={"FEAGI_IO_ZMQ_REST": "tcp://0.0.0.0:40001"}
    )
    assert (printed.limits.max_agents, printed.zmq.rest) == (7, "tcp://0.0.0.0:40001")
    assert printed.auth.token_file == Path('some "where"')
    assert "# delivery.motor.deadline_s is not set\n" in done.stdout


def test_origins(file: str, tmp_path: Path) -> None:
    done = show("--origin", "--config", file, FEAGI_IO_LIMITS_CHANNEL_CAPACITY="9")
    lines = done.stdout.splitlines()
    assert f"limits.max_agents = 7  # file {file}" in lines
    variable = "FEAGI_IO_LIMITS_CHANNEL_CAPACITY"
    assert f"limits.channel_capacity = 9  # environment {variable}" in lines
    assert 'zmq.motor = "tcp://127.0.0.1:5564"  # default' in lines
    assert "# delivery.motor.deadline_s is not set  # default" in lines
    again = tmp_path / "again.toml"
    again.write_text(done.stdout)
    assert PNSConfig.from_toml(again).limits.channel_capacity == 9


def test_json_is_one_object(file: str) -> None:
    plain = json.loads(show("--json", "--config", file).stdout)
    assert plain == {row.path: row.value for row in PNSConfig.from_toml(file).rows()}
    told = json.loads(show("--json", "--origin", "--config", file).stdout)
    assert told["limits.max_agents"] == {"value": 7, "origin": f"file {file}"}
    assert told["auth.token_file"]["value"] == 'some "where"'
    assert told["zmq.viz"]["origin"] == "default"


def test_refusals_are_one_line_and_status_2(tmp_path: Path) -> None:
    done = show("--config", str(tmp_path / "none.toml"))
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("feagi-io: ")
    assert "none.toml" in done.stderr
    done = show(FEAGI_IO_ZMQ_RESST="tcp://127.0.0.1:1")
    assert done.exit_code == 2
    assert "did you mean 'FEAGI_IO_ZMQ_REST'" in done.stderr
