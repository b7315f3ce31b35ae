# SPDX-License-Identifier: Apache-2.0
"""AgentRegistry: who is registered now, found by id, by connection and by descriptor.

Three rules hold at every moment, whoever calls from whichever thread: an agent id, a peer and a
descriptor each belong to at most one agent; there are never more agents than the limit; an agent
of which nothing was heard for the timeout is gone after the next `expire`.

Every operation takes one lock for a short time and costs the same however many agents there are;
`expire` looks only at agents that are due and at one that is not.
"""

from __future__ import annotations

import enum
import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ConfigError, UnknownHandleError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.types import AgentDescriptor

DEFAULT_MAX_AGENTS: Final = 64  # each may take three sockets and two threads
DEFAULT_TIMEOUT_S: Final = 30.0  # the engine's own

Peer = Hashable
"""What tells one control connection from another: a ZMQ identity, a WebSocket connection. Where
several servers share a registry, each makes its peers differ from those of the others."""


class Conflict(enum.Enum):
    """Why an agent cannot be added."""

    FULL = "the registry is full"
    AGENT_ID = "the agent id is taken"
    PEER = "the connection has registered an agent already"
    DESCRIPTOR = "an agent of this descriptor is registered"


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One registered agent. `agent_id` is 48 bytes; `endpoints` must not be changed."""

    agent_id: bytes
    peer: Peer
    descriptor: AgentDescriptor
    capabilities: AgentCapabilities
    protocol: ConnectionProtocol
    endpoints: Mapping[AgentCapabilities, Endpoint]
    registered_at_s: float


class _Entry:
    __slots__ = ("last_seen_s", "record")

    def __init__(self, record: AgentRecord) -> None:
        self.record = record
        self.last_seen_s = record.registered_at_s


class AgentRegistry:
    """The registered agents. Safe to use from several threads; time in seconds is handed in.

    Raises ConfigError unless `max_agents` is at least 1 and `timeout_s` above 0.
    """

    def __init__(
        self, *, max_agents: int = DEFAULT_MAX_AGENTS, timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> None:
        if max_agents < 1:
            raise ConfigError(f"max_agents is {max_agents}; at least 1 is needed")
        if not 0.0 < timeout_s < float("inf"):
            raise ConfigError(f"timeout_s is {timeout_s}; a number above 0 is needed")
        self.max_agents = max_agents
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        # In the order in which they were last heard of: the first one is the next to expire.
        self._by_id: OrderedDict[bytes, _Entry] = OrderedDict()
        self._by_peer: dict[Peer, _Entry] = {}
        self._by_descriptor: dict[AgentDescriptor, _Entry] = {}

    def add(self, record: AgentRecord) -> Conflict | None:
        """Add an agent; None when it is in, or the rule that keeps it out."""
        with self._lock:
            if record.agent_id in self._by_id:
                return Conflict.AGENT_ID
            if record.peer in self._by_peer:
                return Conflict.PEER
            if record.descriptor in self._by_descriptor:
                return Conflict.DESCRIPTOR
            if len(self._by_id) >= self.max_agents:
                return Conflict.FULL
            entry = _Entry(record)
            self._by_id[record.agent_id] = entry
            self._by_peer[record.peer] = entry
            self._by_descriptor[record.descriptor] = entry
            return None

    def remove(self, agent_id: bytes) -> AgentRecord | None:
        """Take an agent out; None when somebody else was quicker."""
        with self._lock:
            entry = self._by_id.get(agent_id)
            return None if entry is None else self._drop(entry)

    def touch(self, agent_id: bytes, now_s: float) -> bool:
        """Note that the agent was heard of; false when it is not registered.

        Carriers of data streams call this for what arrives there. What is sent to an agent is no
        sign of its life.
        """
        with self._lock:
            entry = self._by_id.get(agent_id)
            if entry is None:
                return False
            entry.last_seen_s = max(entry.last_seen_s, now_s)
            self._by_id.move_to_end(agent_id)
            return True

    def expire(self, now_s: float) -> tuple[AgentRecord, ...]:
        """Take out every agent not heard of for the timeout and return them, longest first."""
        gone = []
        with self._lock:
            while self._by_id:
                entry = next(iter(self._by_id.values()))
                # The same sum as in `next_expiry_s`: a difference may round to just below the
                # timeout, and who waits for that moment would find nothing to do at it.
                if now_s < entry.last_seen_s + self.timeout_s:
                    break
                gone.append(self._drop(entry))
        return tuple(gone)

    @property
    def next_expiry_s(self) -> float | None:
        """When `expire` may find the next one; None without agents."""
        with self._lock:
            if not self._by_id:
                return None
            return next(iter(self._by_id.values())).last_seen_s + self.timeout_s

    def get(self, agent_id: bytes) -> AgentRecord:
        """The agent of this id; UnknownHandleError when it is not registered."""
        with self._lock:
            entry = self._by_id.get(agent_id)
            if entry is None:
                raise UnknownHandleError(
                    f"no agent {agent_id[:4].hex()}... is registered; {len(self._by_id)} others are"
                )
            return entry.record

    def find_by_peer(self, peer: Peer) -> AgentRecord | None:
        """The agent that registered over this connection, if there is one."""
        with self._lock:
            entry = self._by_peer.get(peer)
            return None if entry is None else entry.record

    def find_by_descriptor(self, descriptor: AgentDescriptor) -> AgentRecord | None:
        """The agent of this descriptor, if there is one."""
        with self._lock:
            entry = self._by_descriptor.get(descriptor)
            return None if entry is None else entry.record

    def silent_for_s(self, agent_id: bytes, now_s: float) -> float:
        """Seconds since the agent was heard of; infinity when it is not registered."""
        with self._lock:
            entry = self._by_id.get(agent_id)
            if entry is None:
                return math.inf
            return max(now_s - entry.last_seen_s, 0.0)

    def records(self) -> tuple[AgentRecord, ...]:
        """Everybody, in the order in which they were last heard of, longest ago first."""
        with self._lock:
            return tuple(entry.record for entry in self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, agent_id: object) -> bool:
        return agent_id in self._by_id

    def _drop(self, entry: _Entry) -> AgentRecord:
        record = entry.record
        del self._by_id[record.agent_id]
        del self._by_peer[record.peer]
        del self._by_descriptor[record.descriptor]
        return record
