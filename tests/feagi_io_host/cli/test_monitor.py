# SPDX-License-Identifier: Apache-2.0
"""`feagi-io bridge --feagi`: a played board, the command in a process, a PNS for an engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feagi_io_host.core.pool import SharedFBC
from tests.feagi_io_host.bridge.played_board import DEADLINE_S, MOTOR, PlayedBoard, PtyLine
from tests.feagi_io_host.bridge.test_board import BODY, SENSED, frame, received
from tests.feagi_io_host.bridge.test_engine_relay import ROVER, TOKEN, Brain

MOVE = frame({MOTOR: [(0, 5)]}, 42)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "feagi_io_host.cli", "bridge", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=30, check=False
    )


@pytest.fixture
def brain() -> Iterator[Brain]:
    made = Brain(token=TOKEN)
    yield made
    made.stop()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN.hex() + "\n")
    return path


@pytest.mark.parametrize("as_json", [True, False])
def test_a_board_becomes_an_agent_of_the_engine(
    brain: Brain, token_file: Path, as_json: bool
) -> None:
    line = PtyLine()
    options = ["--port", line.address, "--feagi", brain.url, "--token-file", str(token_file)]
    with (
        PlayedBoard(line, ROVER) as board,
        subprocess.Popen(
            command(*options, *(["--json"] if as_json else [])),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        try:
            agent = brain.agent()
            assert brain.transport.wait_until_subscribed(agent.agent_id, DEADLINE_S)
            with SharedFBC.from_bytes(MOVE) as fbc:
                brain.pns.publish_motor(agent.agent_id, fbc)
            # what the board gets says that the agent is up
            assert received(board)[BODY] == MOVE[BODY]
            board.send(SENSED)
            assert brain.sensed.get(timeout=DEADLINE_S)[0] == agent.agent_id
        finally:
            process.terminate()
            out, err = process.communicate(timeout=30)
    line.close()
    assert process.returncode == 0, err
    assert TOKEN.hex() not in out + err
    assert brain.left.get(timeout=DEADLINE_S).reason == "left: 'closed'"
    if not as_json:
        assert "engine: up: registered and configured" in out
        return
    (status,) = json.loads(out)
    engine: dict[str, Any] = status["engine"]
    assert (engine["state"], engine["engine"]) == ("up", brain.url)
    assert (engine["sensory"], engine["motor"], engine["registrations"]) == (1, 1, 1)


def test_without_an_engine_it_fails(tmp_path: Path) -> None:
    gone = Brain()
    gone.stop()
    done = run("--port", "/dev/no-such-port", "--feagi", gone.url, "--seconds", "0.2", "--json")
    assert done.returncode == 1
    (status,) = json.loads(done.stdout)
    assert status["engine"]["state"] == "no board"


def test_without_feagi_there_is_no_engine() -> None:
    done = run("--port", "/dev/no-such-port", "--seconds", "0.2", "--json")
    assert json.loads(done.stdout)[0]["engine"] is None


def test_a_token_is_for_an_engine(token_file: Path) -> None:
    done = run("--port", "/dev/no-such-port", "--token-file", str(token_file))
    assert done.returncode == 2
    assert "--feagi" in done.stderr


def test_addresses_and_tokens_that_cannot_be(tmp_path: Path) -> None:
    done = run("--port", "/dev/no-such-port", "--feagi", "tcp://127.0.0.1")
    assert done.returncode == 2
    assert "feagi-io: " in done.stderr
    short = tmp_path / "short"
    short.write_bytes(b"12345")
    done = run(
        "--port", "/dev/no-such-port", "--feagi", "tcp://127.0.0.1:1", "--token-file", str(short)
    )
    assert done.returncode == 2
    assert "has 5 bytes; expected 32" in done.stderr
