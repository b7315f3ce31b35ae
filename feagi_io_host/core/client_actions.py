# SPDX-License-Identifier: Apache-2.0
"""What a RegistrationClient is set to, and what it wants done: its timing, states and actions."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.messages import (
    Endpoint,
    HealthReport,
    PeerAnswer,
    PeerRefusal,
    TimestepChangeAnswer,
    TimestepReport,
)


@dataclass(frozen=True, slots=True)
class ClientTiming:
    """Deadlines and waits in seconds. Raises ConfigError for numbers that do not fit.

    `connect_timeout_s` bounds the first registration (None: no bound), `max_refusals` how often
    in a row an invalid request is tried again.
    """

    answer_timeout_s: float = 3.0
    backoff_first_s: float = 0.25
    backoff_limit_s: float = 5.0
    connect_timeout_s: float | None = 30.0
    max_refusals: int = 5
    configuration_timeout_s: float = 3.0
    settle_s: float = 1.0
    leave_timeout_s: float = 1.0

    def __post_init__(self) -> None:
        for name in ("answer_timeout_s", "backoff_first_s", "backoff_limit_s", "settle_s",
                     "configuration_timeout_s", "leave_timeout_s"):  # fmt: skip
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; a number above 0 is needed")
        if self.connect_timeout_s is not None and not self.connect_timeout_s > 0.0:
            raise ConfigError(
                f"connect_timeout_s is {self.connect_timeout_s}; a number above 0, or None for no "
                "limit, is needed"
            )
        if self.max_refusals < 0:
            raise ConfigError(f"max_refusals is {self.max_refusals}; 0 or more is needed")


class AgentState(enum.Enum):
    """What a user sees of an agent."""

    INACTIVE = "inactive"
    PENDING = "pending"
    """On its way in or out."""
    ACTIVE_WAITING = "active, no data"
    ACTIVE_HAS_DATA = "active, data to be read"
    ERRORED = "errored"
    """Given up; the change of state says why. `connect` tries anew."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """Drop the control connection with all that waits in it, and open another."""


@dataclass(frozen=True, slots=True)
class EndSession:
    """Drop the control connection once what was sent has left it, or shortly after."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send one message over the control connection."""

    data: bytes


@dataclass(frozen=True, slots=True)
class OpenStreams:
    """Open the data streams: one endpoint for each capability that was asked for."""

    agent_id: bytes
    endpoints: Mapping[AgentCapabilities, Endpoint]


@dataclass(frozen=True, slots=True)
class CloseStreams:
    """Close the data streams; their endpoints are not ours any more."""


@dataclass(frozen=True, slots=True)
class ConfigurationSettled:
    """The configuration was acknowledged, or refused by silence. A refused one is not sent
    again."""

    accepted: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to what was sent with `ask`."""

    message: HealthReport | TimestepReport | TimestepChangeAnswer


@dataclass(frozen=True, slots=True)
class PeerAnswered:
    """The answer to an offer that the link has sent for its streams."""

    answer: PeerAnswer | PeerRefusal


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The agent's state is another one; `reason` is for people."""

    before: AgentState
    after: AgentState
    reason: str


ClientAction = (
    NewSession
    | EndSession
    | Send
    | OpenStreams
    | CloseStreams
    | ConfigurationSettled
    | Answered
    | PeerAnswered
    | StateChanged
)
