# SPDX-License-Identifier: Apache-2.0
"""EngineRelay: the boards of a bridge as agents of a FEAGI engine.

board <-> BoardBridge <-> PNS <-> EngineRelay: one agent per board <-> engine, or another PNS
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.bridge.board import BoardBridge
from feagi_io_host.bridge.engine_agent import (
    MANUFACTURER,
    BoardAgent,
    EngineAddress,
    EngineStateChanged,
    RelaySignals,
)
from feagi_io_host.bridge.events import BoardDown, BoardProblem, BoardUp
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError, ConfigError, StopTimeoutError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.messages import AUTH_TOKEN_BYTES
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.signal import FeagiSignal, SignalHandle
from feagi_io_host.core.types import AgentDescriptor

DEFAULT_ENGINE: Final = "tcp://127.0.0.1:30001"
# An engine that has loaded a genome has forgotten its agents and says nothing: only heartbeats
# tell, within 2 s.
HEARTBEAT: Final = HeartbeatTiming(interval_s=0.5, answer_timeout_s=0.5, max_unanswered=3)


class EngineRelay:
    """Registers every board of `bridge` that comes up as an agent at `registration`, configures
    it with the units that the board declares, and carries its frames: what it senses goes up, the
    newest motor frame comes down.

    A board that goes is deregistered. An engine that goes, or loads a genome, is waited for and
    told everything again; meanwhile the board gets no motor frames and goes fail-safe. Nothing
    else should send the boards motor frames.

    `token` is 32 bytes, for a server that wants one. `heartbeat` is how soon a silent engine is
    noticed. `settings` are further arguments for the connection of each agent. Signals, emitted
    in threads of the relay: `state_changed`, a board stands otherwise with its engine; `problem`,
    each cause once per board.

    Start it before the bridge or after it. Raises ConfigError for an address or a token that
    cannot be one.
    """

    def __init__(
        self,
        bridge: BoardBridge,
        registration: str = DEFAULT_ENGINE,
        *,
        token: bytes | None = None,
        heartbeat: HeartbeatTiming = HEARTBEAT,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if token is not None and len(token) != AUTH_TOKEN_BYTES:
            raise ConfigError(f"token of {len(token)} bytes; {AUTH_TOKEN_BYTES} are needed")
        self.registration = registration
        self.state_changed: FeagiSignal[EngineStateChanged] = FeagiSignal("state_changed")
        self.problem: FeagiSignal[BoardProblem] = FeagiSignal("problem")
        self.pool = BufferPool()
        self._bridge = bridge
        engine = EngineAddress(registration, token, heartbeat, dict(settings or {}))
        # Made and let go: an address that cannot be one is to be told here, not in a thread.
        FeagiAgent(
            AgentDescriptor(MANUFACTURER, "probe", 1),
            AgentCapabilities(0),
            registration,
            token=token,
            **engine.settings,
        )
        signals = RelaySignals(self.state_changed, self.problem)
        self._agents = {
            port: BoardAgent(port, bridge.pns, engine, signals, self.pool) for port in bridge.ports
        }
        self._connections: list[tuple[FeagiSignal[Any], SignalHandle]] = []
        self._stopped = False

    def start(self) -> None:
        """Begin; does nothing when started before. ClosedError after `stop`."""
        if self._stopped:
            raise ClosedError("the relay was stopped; make a new one")
        if self._connections:
            return
        for agent in self._agents.values():
            agent.start()
        bridge = self._bridge
        sensed = bridge.pns.sensory_data_received
        self._connections = [
            (bridge.board_up, bridge.board_up.connect(self._on_up)),
            (bridge.board_down, bridge.board_down.connect(self._on_down)),
            (sensed, sensed.connect(self._on_sensory)),
        ]
        for event in bridge.boards_up:
            self._on_up(event)

    def stop(self, timeout_s: float = 8.0) -> None:
        """Deregister every board and end, within `timeout_s` seconds in all.

        May be called more than once. Raises StopTimeoutError naming the ports that are held up;
        the others have ended even then.
        """
        self._stopped = True
        for signal, handle in self._connections:
            signal.disconnect(handle)
        self._connections = []
        deadline_s = time.monotonic() + timeout_s
        for agent in self._agents.values():
            agent.ask_to_stop()  # all before any is waited for
        late = []
        for agent in self._agents.values():
            try:
                agent.stop(max(deadline_s - time.monotonic(), 0.0))
            except StopTimeoutError:
                late.append(agent.port)
        if late:
            raise StopTimeoutError(
                f"{len(late)} of {len(self._agents)} boards were not taken from "
                f"{self.registration} within {timeout_s} s: {', '.join(late)}"
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def status(self) -> list[dict[str, Any]]:
        """A plain dictionary per port: `port`, `state` (no board, waiting for the engine, up,
        refused), `engine`, `board`, `registrations`, frames carried (`sensory`, `motor`,
        `visualization`) and dropped (`sensory_dropped`, `motor_dropped`), `last_problem`."""
        return [agent.status() for agent in self._agents.values()]

    def _on_up(self, event: BoardUp) -> None:
        self._agents[event.port].board_up(event)

    def _on_down(self, event: BoardDown) -> None:
        self._agents[event.port].board_down(event)

    def _on_sensory(self, data: SensoryData) -> None:
        for agent in self._agents.values():
            if agent.sense(data.agent_id, data.fbc):
                return
