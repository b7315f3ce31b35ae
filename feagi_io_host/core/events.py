# SPDX-License-Identifier: Apache-2.0
"""What travels through the signals between bodies, the PNS and a brain.

An event lends its container for the time of the callback. A listener that keeps it longer
calls `fbc.retain()` inside the callback and `fbc.release()` when it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.types import AgentDescriptor


@dataclass(frozen=True, slots=True)
class SensoryData:
    """One sensory frame of one agent. `received_at_s` is the PNS's monotonic clock."""

    agent_id: bytes
    fbc: SharedFBC
    received_at_s: float


@dataclass(frozen=True, slots=True)
class MotorCommand:
    """One motor frame for one agent, or for every agent that receives motor data (None)."""

    agent_id: bytes | None
    fbc: SharedFBC


@dataclass(frozen=True, slots=True)
class VisualizationReady:
    """Everything that fired in burst number `burst`."""

    fbc: SharedFBC
    burst: int


@dataclass(frozen=True, slots=True)
class AgentRegistered:
    """An agent has joined. `agent_id` is 48 bytes."""

    agent_id: bytes
    descriptor: AgentDescriptor


@dataclass(frozen=True, slots=True)
class AgentDisconnected:
    """An agent has left or was lost. `reason` is for people."""

    agent_id: bytes
    reason: str


class BodySignals(Protocol):
    """What a burst engine listens to. The PNS provides it; so can a test or a player.

    `registered_agents` are those attached now, for an engine that connects later than they did.
    """

    @property
    def sensory_data_received(self) -> FeagiSignal[SensoryData]: ...

    @property
    def agent_registered(self) -> FeagiSignal[AgentRegistered]: ...

    @property
    def agent_disconnected(self) -> FeagiSignal[AgentDisconnected]: ...

    @property
    def registered_agents(self) -> tuple[AgentRegistered, ...]: ...


class BrainSignals(Protocol):
    """What a PNS listens to. A burst engine provides it."""

    @property
    def visualization_ready(self) -> FeagiSignal[VisualizationReady]: ...

    @property
    def motor_commands(self) -> FeagiSignal[MotorCommand]: ...
