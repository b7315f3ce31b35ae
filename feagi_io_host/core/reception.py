# SPDX-License-Identifier: Apache-2.0
"""Reception: what is done with control messages, whatever they come over and whoever waits.

    control message -> RegistrationServer -> events carried out -> the answer, to be sent
    silent agents and those that the host has detached -> let go

Nothing here waits. Belongs to one thread or event loop at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from feagi_io_host.core.agent_registry import Peer
from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import FeagiIOError
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.motor_narrowing import settle_configuration
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.core.server_seams import PeerOffered, ServerEvent

_log = logging.getLogger("feagi_io.core")

# Sweeps and agents that the host itself has detached are looked for this often.
LOOK_AROUND_S: Final = 0.25


class Served(Protocol):
    """One agent that is in, as its transport knows it."""

    @property
    def agent(self) -> AttachedAgent:
        """The agent."""


S = TypeVar("S", bound=Served)


class ReceptionOwner(Protocol[S]):
    """The transport, as its reception sees it. Called where the reception is."""

    def take_in(self, agent_id: bytes) -> S:
        """Attach a registered agent and serve its streams; FeagiIOError when it cannot be."""

    def let_go(self, served: S, reason: str) -> None:
        """Detach an agent and end what is the transport's own of it."""

    def accepts(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        """Whether the units of an agent can be had."""

    def now_s(self) -> float:
        """The time on the transport's clock."""


class Reception(Generic[S]):
    """Lets the agents of `owner` in and out as `server` decides. `on_offer(served, sdp)` is called
    for offers, which only a server that takes them has."""

    def __init__(
        self,
        owner: ReceptionOwner[S],
        server: RegistrationServer,
        *,
        on_offer: Callable[[S, str], object] | None = None,
    ) -> None:
        self._owner = owner
        self.server = server
        self._on_offer = on_offer
        self._served: dict[bytes, S] = {}

    @property
    def served(self) -> tuple[S, ...]:
        """The agents that are in."""
        return tuple(self._served.values())

    def longest_wait_s(self) -> float:
        """How long may be waited before `look_around` is due."""
        due_s = self.server.next_tick_s
        if due_s is None:
            return LOOK_AROUND_S
        return min(max(due_s - self._owner.now_s(), 0.0), LOOK_AROUND_S)

    def look_around(self) -> None:
        """Let go of agents that are silent and of those that the host has detached."""
        self._act(self.server.tick(self._owner.now_s()))
        for agent_id, served in tuple(self._served.items()):
            if served.agent.closed:
                self._act(self.server.dismiss(agent_id, "detached by the host"))

    def hear(self, peer: Peer, content: bytes | bytearray | memoryview) -> bytes | None:
        """One message of a peer; the answer to it, None where there is to be none."""
        self._let_go_if_detached(peer)
        outcome = self.server.receive(peer, content, self._owner.now_s())
        return outcome.reply if self._act(outcome.events) else None

    def is_in(self, peer: Peer) -> bool:
        """Whether an agent has registered over this peer."""
        return self.server.registry.find_by_peer(peer) is not None

    def heard_of(self, agent_id: bytes) -> None:
        """An agent has shown a sign of life on one of its streams."""
        self.server.registry.touch(agent_id, self._owner.now_s())

    def lose(self, peer: Peer, reason: str) -> None:
        """The connection of a peer has ended, and with it the agent that had registered there."""
        record = self.server.registry.find_by_peer(peer)
        if record is not None:
            self._act(self.server.dismiss(record.agent_id, reason))

    def close(self, reason: str) -> None:
        """Let go of every agent."""
        for agent_id in tuple(self._served):
            self._forget(agent_id, reason)

    def _let_go_if_detached(self, peer: Peer) -> None:
        """An agent that the host has detached learns of it by its next message at the latest."""
        record = self.server.registry.find_by_peer(peer)
        if record is None:
            return
        served = self._served.get(record.agent_id)
        if served is not None and served.agent.closed:
            self._act(self.server.dismiss(record.agent_id, "detached by the host"))

    def _act(self, events: Sequence[ServerEvent]) -> bool:
        """Carry out what the server decided; false when it must not be answered after all."""
        answer = True
        for event in events:
            if isinstance(event, AgentDisconnected):
                self._forget(event.agent_id, event.reason)
            elif isinstance(event, AgentRegistered):
                answer = self._welcome(event.agent_id)
            elif isinstance(event, PeerOffered):
                served = self._served.get(event.agent_id)
                if served is not None and self._on_offer is not None:
                    self._on_offer(served, event.sdp)
            else:
                served = self._served.get(event.agent_id)
                answer = served is not None and settle_configuration(
                    served.agent, event.configuration, self._owner.accepts
                )
        return answer

    def _welcome(self, agent_id: bytes) -> bool:
        try:
            self._served[agent_id] = self._owner.take_in(agent_id)
        except FeagiIOError as error:
            _log.warning("agent not taken in: %s", error)
            self._act(self.server.dismiss(agent_id, "not taken in"))
            return False
        return True

    def _forget(self, agent_id: bytes, reason: str) -> None:
        served = self._served.pop(agent_id, None)
        if served is not None:
            self._owner.let_go(served, reason)


def accepted_by(
    on_configured: Callable[[bytes, AgentConfiguration], bool] | None,
    agent_id: bytes,
    configuration: AgentConfiguration,
) -> bool:
    """What `on_configured` says of the units of an agent; yes where nobody is to be asked, no
    when it raises."""
    if on_configured is None:
        return True
    try:
        return on_configured(agent_id, configuration)
    except Exception:
        # One agent's units must not end the service for all.
        _log.exception("units of agent %s... refused", agent_id[:4].hex())
        return False
