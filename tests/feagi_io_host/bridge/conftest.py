# SPDX-License-Identifier: Apache-2.0
"""A PNS with a bridge, and what they tell, in queues."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from feagi_io_host.bridge import BoardBridge, BoardDown, BoardLog, BoardProblem, BoardUp
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered, SensoryData
from feagi_io_host.pns import PNS
from tests.feagi_io_host.bridge.played_board import DEADLINE_S, PtyLine


class SkippingClock:
    """The system's clock, and further on by what a test skips: silence without waiting for it."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def skip(self, seconds: float) -> None:
        self._ahead_s += seconds


class Rig:
    """A started PNS; `bridge` makes and starts a bridge. Everything is stopped in the end."""

    def __init__(self) -> None:
        self.pns = PNS()
        self.ups: queue.Queue[BoardUp] = queue.Queue()
        self.downs: queue.Queue[BoardDown] = queue.Queue()
        self.logs: queue.Queue[BoardLog] = queue.Queue()
        self.problems: queue.Queue[BoardProblem] = queue.Queue()
        self.registered: queue.Queue[AgentRegistered] = queue.Queue()
        self.disconnected: queue.Queue[AgentDisconnected] = queue.Queue()
        self.sensory: queue.Queue[tuple[bytes, bytes]] = queue.Queue()
        self.pns.agent_registered.connect(self.registered.put)
        self.pns.agent_disconnected.connect(self.disconnected.put)
        self.pns.sensory_data_received.connect(self._on_sensory)
        self.bridges: list[BoardBridge] = []

    def _on_sensory(self, data: SensoryData) -> None:
        self.sensory.put((data.agent_id, bytes(data.fbc.view)))

    def bridge(self, *ports: str, **settings: Any) -> BoardBridge:
        settings.setdefault("beat_ms", 20)
        # no test fails because the machine was busy for a moment
        settings.setdefault("lost_ms", 5000)
        made = BoardBridge(self.pns, ports, **settings)
        made.board_up.connect(self.ups.put)
        made.board_down.connect(self.downs.put)
        made.board_log.connect(self.logs.put)
        made.problem.connect(self.problems.put)
        self.bridges.append(made)
        made.start()
        return made

    def up(self) -> BoardUp:
        return self.ups.get(timeout=DEADLINE_S)

    def down(self) -> BoardDown:
        return self.downs.get(timeout=DEADLINE_S)

    def problem(self) -> BoardProblem:
        return self.problems.get(timeout=DEADLINE_S)

    def stop(self) -> None:
        for made in self.bridges:
            made.stop(DEADLINE_S)
        self.pns.stop(DEADLINE_S)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    made.pns.start()
    yield made
    made.stop()
    for bridge in made.bridges:
        assert bridge.pool.counters()["leased"] == 0


@pytest.fixture
def pty(request: pytest.FixtureRequest) -> Iterator[PtyLine]:
    line = PtyLine()
    yield line
    line.close()


@pytest.fixture
def new_pty(tmp_path: Any) -> Iterator[Callable[[], PtyLine]]:
    """Makes terminals that all have the same name, one after the other."""
    made: list[PtyLine] = []

    def make() -> PtyLine:
        made.append(PtyLine(str(tmp_path / "board")))
        return made[-1]

    yield make
    for line in made:
        line.close()
