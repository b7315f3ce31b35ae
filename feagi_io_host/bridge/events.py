# SPDX-License-Identifier: Apache-2.0
"""What the board bridge tells its listeners, in the thread of the board's line."""

from __future__ import annotations

from dataclasses import dataclass

from feagi_io_host.bridge.declaration import BoardDeclaration
from feagi_io_host.core.errors import FeagiDataError, FeagiIOError
from feagi_io_host.core.signal import FeagiSignal


@dataclass(frozen=True, slots=True)
class BoardUp:
    """A session with a board is up (again). `agent_id` is 48 bytes."""

    port: str
    agent_id: bytes
    declaration: BoardDeclaration


@dataclass(frozen=True, slots=True)
class BoardDown:
    """A session has ended, or is silent and treated as ended. `reason` is for people."""

    port: str
    agent_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class BoardLog:
    """A message from the board itself; `level` as in Python's logging."""

    port: str
    agent_id: bytes
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class BoardProblem:
    """Something is wrong on a line, told once per cause. The error's text has the next step."""

    port: str
    error: FeagiIOError | FeagiDataError


@dataclass(frozen=True, slots=True)
class BridgeSignals:
    """The signals of a bridge, shared by its links."""

    board_up: FeagiSignal[BoardUp]
    board_down: FeagiSignal[BoardDown]
    board_log: FeagiSignal[BoardLog]
    problem: FeagiSignal[BoardProblem]
