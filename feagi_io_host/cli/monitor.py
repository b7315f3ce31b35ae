# SPDX-License-Identifier: Apache-2.0
"""`feagi-io bridge`: boards on their ports, watched without a brain or as agents of an engine."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from feagi_io_host.bridge import (
    BoardBridge,
    BoardDown,
    BoardLog,
    BoardProblem,
    BoardUp,
    EngineRelay,
    EngineStateChanged,
)
from feagi_io_host.cli.describe import first_voxels
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.types import CorticalID
from feagi_io_host.pns import PNS

_SHOWN_VOXELS = 6


def sensed_text(container: FeagiByteContainer) -> str:
    """The areas of a sensory frame in a few words: id, then x:z of the first voxels."""
    voxels = first_voxels(container)
    if voxels is None:
        return "no voxels"
    words = []
    for cortical_id, arrays in voxels:
        x, _, z, _ = arrays.borrow_xyzp_vectors()
        shown = " ".join(
            f"{a}:{b}" for a, b in zip(x[:_SHOWN_VOXELS], z[:_SHOWN_VOXELS], strict=True)
        )
        more = len(x) - _SHOWN_VOXELS
        words.append(f"{area_text(cortical_id)} {shown}" + (f" +{more}" if more > 0 else ""))
    return ", ".join(words)


def area_text(cortical_id: CorticalID) -> str:
    """Unit code and group of an input or output area, the raw bytes of others."""
    raw = cortical_id.as_bytes()
    if cortical_id.is_input or cortical_id.is_output:
        return f"{raw[:4].decode('ascii', 'replace')}{int.from_bytes(raw[6:8], 'little')}"
    return repr(raw)[2:-1]


class BridgeMonitor:
    """A PNS and a bridge, and a line for everything that happens on them.

    With `feagi`, an address such as tcp://127.0.0.1:30001, the boards are agents of that engine;
    `token` is what it wants of them. Raises ConfigError for addresses that cannot be.
    """

    def __init__(
        self,
        ports: Iterable[str],
        *,
        baud: int,
        max_baud: int,
        reset: bool,
        say: Callable[[str], None],
        feagi: str | None = None,
        token: bytes | None = None,
    ) -> None:
        self._say = say
        self._pns = PNS()
        # An engine has a new command for each burst: what waits behind it is stale.
        self._bridge = BoardBridge(
            self._pns,
            ports,
            baud=baud,
            max_baud=max_baud,
            reset=reset,
            supersede_motor=feagi is not None,
        )
        self._relay = None if feagi is None else EngineRelay(self._bridge, feagi, token=token)
        self._newest: dict[bytes, str] = {}
        self._pns.sensory_data_received.connect(self._on_sensory)
        self._bridge.board_up.connect(self._on_up)
        self._bridge.board_down.connect(self._on_down)
        self._bridge.board_log.connect(self._on_log)
        self._bridge.problem.connect(self._on_problem)
        if self._relay is not None:
            self._relay.state_changed.connect(self._on_engine)
            self._relay.problem.connect(self._on_problem)

    def run(
        self, stop: threading.Event, seconds: float | None, *, quiet: bool
    ) -> list[dict[str, Any]]:
        """Watch until `stop` or for `seconds`; the bridge's status as it was at the end, with the
        relay's row of each port as `engine`."""
        until_s = None if seconds is None else time.monotonic() + seconds
        with self._pns, self._relay or contextlib.nullcontext(), self._bridge:
            while True:
                pause_s = 1.0 if until_s is None else min(1.0, until_s - time.monotonic())
                if pause_s <= 0.0 or stop.wait(pause_s):
                    return self._status()
                if not quiet:
                    for line in self._status():
                        self._say(self._line(line))

    def _status(self) -> list[dict[str, Any]]:
        rows = () if self._relay is None else self._relay.status()
        engines = {row["port"]: row for row in rows}
        return [{**line, "engine": engines.get(line["port"])} for line in self._bridge.status()]

    def _line(self, status: dict[str, Any]) -> str:
        board = status["board"]
        if board is None:
            return f"{status['port']}: {status['state']}, no board heard of yet"
        link, rtt, engine = status["link"], status["rtt"], status["engine"]
        above = "" if engine is None else (
            f"engine {engine['state']}  up {engine['sensory']}  down {engine['motor']}  "
        )  # fmt: skip
        return (
            f"{status['port']}: {board['name']} {status['state']}  "
            f"sensory {status['sensory']}  lost {link['lost']}  CRC {link['crc_errors']}  "
            f"RTT {rtt['p50_ms']:.1f}/{rtt['p99_ms']:.1f} ms  {above}"
            f"{self._newest.get(bytes.fromhex(board['agent_id']), '')}"
        )

    def _on_sensory(self, data: SensoryData) -> None:
        self._newest[data.agent_id] = sensed_text(data.fbc.container)

    def _on_up(self, event: BoardUp) -> None:
        board = event.declaration
        units = [
            f"{area_text(unit.cortical_id)} ({unit.channels} channels, {unit.resolution} levels)"
            for unit in (*board.sensors, *board.motors)
        ]
        self._say(f"{event.port}: {board.name} up, {board.firmware}: {', '.join(units)}")

    def _on_down(self, event: BoardDown) -> None:
        self._say(f"{event.port}: down: {event.reason}")

    def _on_log(self, event: BoardLog) -> None:
        self._say(f"{event.port}: board says: {event.text}")

    def _on_problem(self, event: BoardProblem) -> None:
        self._say(f"{event.port}: {event.error}")

    def _on_engine(self, event: EngineStateChanged) -> None:
        self._say(f"{event.port}: engine: {event.state.value}: {event.reason}")
