# SPDX-License-Identifier: Apache-2.0
"""One face for agents of both paradigms, so that each check is written once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.client_actions import AgentState, StateChanged
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.messages import HealthReport
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.nonblocking.runtime import Runtime

CALL_TIMEOUT_S = 30.0


class AgentFace(Protocol):
    """What the tests use of an agent."""

    pool: BufferPool
    state: AgentState
    agent_id: bytes

    def connect(self, timeout_s: float | None = 30.0) -> None: ...
    def configure(self, details: Any, timeout_s: float | None = 15.0) -> None: ...
    def close(self, timeout_s: float = 5.0) -> None: ...
    def send_sensory(self, frame: Any) -> None: ...
    def receive_motor(self, timeout_s: float | None = None) -> FeagiByteContainer | None: ...
    def receive_visualization(
        self, timeout_s: float | None = None
    ) -> FeagiByteContainer | None: ...
    def health(self, timeout_s: float = 3.0) -> HealthReport: ...
    def timestep(self, timeout_s: float = 3.0) -> float: ...
    def change_timestep(self, timestep_s: float, timeout_s: float = 3.0) -> bool: ...
    def on_state_change(self, callback: Callable[[StateChanged], object]) -> Any: ...
    def counters(self) -> dict[str, Any]: ...


class AsyncFace:
    """An AsyncFeagiAgent for threads: each coroutine runs in the loop of `runtime`."""

    WAITING = frozenset(
        {"connect", "configure", "close", "send_sensory", "receive_motor"}
        | {"receive_visualization", "health", "timestep", "change_timestep"}
    )

    def __init__(self, runtime: Runtime, agent: AsyncFeagiAgent) -> None:
        self.agent = agent
        self.runtime = runtime

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.agent, name)
        if name not in self.WAITING:
            return member

        def call(*args: Any, **more: Any) -> Any:
            return self.runtime.call(member(*args, **more), CALL_TIMEOUT_S)

        return call


def face(agent: FeagiAgent | AsyncFeagiAgent, runtime: Runtime | None) -> Any:
    """The agent itself, or its face for threads."""
    if isinstance(agent, FeagiAgent):
        return agent
    assert runtime is not None
    return AsyncFace(runtime, agent)
