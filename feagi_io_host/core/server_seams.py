# SPDX-License-Identifier: Apache-2.0
"""What a RegistrationServer is set to, what it asks of others, and what it tells them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered
from feagi_io_host.core.messages import (
    AgentConfiguration,
    ConnectionProtocol,
    Endpoint,
    HealthReport,
)
from feagi_io_host.core.rate_limit import Rate

PEER_RATE: Final = Rate(per_s=50.0, burst=100)  # an agent sends one message a second
NEWCOMER_RATE: Final = Rate(per_s=100.0, burst=200)  # a hundred agents back after a restart


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a peer may ask of the server. Raises ConfigError for limits that let nobody in."""

    unregistered_bytes: int = 1024
    registered_bytes: int = 1 << 20
    unregistered_depth: int = 8  # a registration request is nested 5 levels deep
    registered_depth: int = 64
    takeover_s: float = 2.0
    peer_rate: Rate = PEER_RATE
    newcomer_rate: Rate = NEWCOMER_RATE
    remembered_peers: int = 4096

    def __post_init__(self) -> None:
        for name in ("unregistered_bytes", "registered_bytes", "unregistered_depth",
                     "registered_depth", "remembered_peers"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not 0.0 <= self.takeover_s < float("inf"):
            raise ConfigError(f"takeover_s is {self.takeover_s}; 0 or more is needed")


class Ignored(enum.Enum):
    """Why a message got no answer."""

    OVERSIZED = "oversized"
    TOO_OFTEN = "too often"
    UNREADABLE = "unreadable"
    OUT_OF_PLACE = "out of place"  # in this state of the session; a doubled registration too
    NO_BRAIN = "no brain to ask"
    BRAIN_FAILED = "brain failed"


class EndpointAllocator(Protocol):
    """Hands out where the data streams of an agent go. Called in the server's thread."""

    def allocate(
        self, agent_id: bytes, capability: AgentCapabilities, protocol: ConnectionProtocol
    ) -> Endpoint | None:
        """Where one stream of one agent goes; None when there is no place to be had.

        `protocol` is what the agent has asked for; another one is given to who can do both.
        """

    def free(self, agent_id: bytes, capability: AgentCapabilities, endpoint: Endpoint) -> None:
        """Take back what `allocate` gave."""


class BrainControl(Protocol):
    """What agents may ask the brain over the control channel. What raises is logged, and the agent
    gets no answer."""

    def health(self) -> HealthReport:
        """How the brain is."""

    def timestep_s(self) -> float:
        """Seconds a burst takes."""

    def change_timestep(self, agent_id: bytes, timestep_s: float) -> bool:
        """Let a burst take so long from now on; false to refuse. `timestep_s` is above 0."""


@dataclass(frozen=True, slots=True)
class AgentConfigured:
    """An agent has said which units it has. Not sending the reply tells it that they cannot be
    had, as an engine's silence does."""

    agent_id: bytes
    configuration: AgentConfiguration


@dataclass(frozen=True, slots=True)
class PeerOffered:
    """An agent has described its end of a peer connection; whoever carries its streams so is to
    answer, when it can."""

    agent_id: bytes
    sdp: str


ServerEvent = AgentRegistered | AgentDisconnected | AgentConfigured | PeerOffered


@dataclass(frozen=True, slots=True)
class ServerOutcome:
    """What one message led to. Act on the events in order, then send the reply: an agent uses
    its endpoints as soon as it has it."""

    reply: bytes | None = None
    events: tuple[ServerEvent, ...] = ()
