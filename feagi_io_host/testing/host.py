# SPDX-License-Identifier: Apache-2.0
"""StandInHost: what a transport attaches its agents to in a test, with nothing behind it.

It keeps what it is told and emits nothing by itself, so that each frame can be followed. Sensory
frames wait in the session's channel until the test takes them, as when a brain is slow.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping

from feagi_io_host.blocking.session import AgentSession, thread_channel
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import ChannelMaker
from feagi_io_host.core.delivery import DELIVERY_TABLE, DeliveryRule
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_wire.const import AGENT_ID_BYTES


class StandInHost:
    """Takes agents of transports of both paradigms. `delivery` is the delivery table.

    `came` and `left` are the agents that were attached and detached (with the reason), in order.
    """

    def __init__(self, delivery: Mapping[StreamType, DeliveryRule] = DELIVERY_TABLE) -> None:
        self.delivery = delivery
        self.came: list[bytes] = []
        self.left: list[tuple[bytes, str]] = []
        self._lock = threading.Lock()
        self._by_id: dict[bytes, AgentSession] = {}
        self._submitted = threading.Event()

    def attach_agent(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
        channel: ChannelMaker = thread_channel,
    ) -> AgentSession:
        """Let an agent in; see `core.carrier.AgentHost`."""
        session = AgentSession(
            secrets.token_bytes(AGENT_ID_BYTES) if agent_id is None else agent_id,
            descriptor,
            capabilities,
            None if motor_areas is None else frozenset(motor_areas),
            delivery=self.delivery,
            clock=lambda: 0.0,
            on_sensory=self._submitted.set,
            on_close=self._detach,
            channel=channel,
        )
        with self._lock:
            old = self._by_id.get(session.agent_id)
        if old is not None:
            old.close("replaced by a new session of the same agent")
        with self._lock:
            self._by_id[session.agent_id] = session
            self.came.append(session.agent_id)
        return session

    @property
    def sessions(self) -> tuple[AgentSession, ...]:
        """The agents attached now."""
        with self._lock:
            return tuple(self._by_id.values())

    def take_sensory(self, agent_id: bytes, timeout_s: float = 5.0) -> bytes | None:
        """A copy of the agent's oldest sensory frame; None when `timeout_s` passed without one."""
        with self._lock:
            session = self._by_id.get(agent_id)
        if session is None:
            raise ClosedError(f"agent {agent_id[:4].hex()}... is not attached")
        taken: list[bytes] = []

        def keep(data: SensoryData) -> None:
            taken.append(bytes(data.fbc.view))

        signal: FeagiSignal[SensoryData] = FeagiSignal("sensory")
        signal.connect(keep)
        deadline_s = time.monotonic() + timeout_s
        while True:
            # Cleared before looking: a frame that arrives from here on sets it again.
            self._submitted.clear()
            if session.deliver_one(signal):
                return taken[0]
            left_s = deadline_s - time.monotonic()
            if left_s <= 0.0:
                return None
            self._submitted.wait(left_s)

    def _detach(self, session: AgentSession, reason: str) -> None:
        with self._lock:
            if self._by_id.get(session.agent_id) is not session:
                return
            del self._by_id[session.agent_id]
            self.left.append((session.agent_id, reason))
        session.close_channels()
