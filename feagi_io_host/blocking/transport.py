# SPDX-License-Identifier: Apache-2.0
"""BlockingTransport: what every transport with threads is, above the moving of bytes.

    agent -> transport -> AttachedAgent.submit_sensory -> host
    host  -> AttachedAgent.motor, .visualization       -> transport -> agent

A PNS publishes to all its agents through their channels; `publish_motor` and
`publish_visualization` do the same for the agents of this transport alone.
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import ClassVar, Self

from feagi_io_host.blocking.session import thread_channel
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost, AttachedAgent, ChannelMaker
from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LocalError,
    StopTimeoutError,
    UnknownHandleError,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType

DEFAULT_MAX_FRAME_BYTES = 64 << 20
_LATE_CLOSE_S = 1.0


class BlockingTransport(ABC):
    """Carries frames between agents and a host, with threads or the caller's own.

    A transport runs once: `start`, `stop`, no second start. After a fork the child's copy is
    closed; the parent's goes on. `max_frame_bytes` is the largest frame carried either way.

    A subclass moves the bytes: it attaches each agent by `_attach`, submits what it receives to
    the agent it got, and drains that agent's `motor` and `visualization`.
    """

    backend_name: ClassVar[str]

    def __init__(self, host: AgentHost, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._host = host
        self._pid = os.getpid()
        self._life = threading.Lock()  # held by `start` and `stop`
        self._lock = threading.Lock()  # held for moments, guards the table of agents
        self._started = False
        self._stopped = False
        self._by_id: dict[bytes, AttachedAgent] = {}

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to take agents; does nothing when started before. Raises ClosedError after
        `stop`."""
        if self._pid != os.getpid():  # before the lock, which the fork may have caught held
            raise self._closed_error()
        with self._life:
            if self._stopped:
                raise self._closed_error()
            if self._started:
                return
            # Before opening: the first agent may come while the rest is still being opened.
            self._started = True
            try:
                self._open()
            except BaseException:
                self._started = False
                raise
            if self._was_stopped():  # meanwhile; `stop` has not waited for this
                self._close(_LATE_CLOSE_S)
                raise self._closed_error()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Detach every agent and end, within `timeout_s` seconds.

        May be called more than once. Raises StopTimeoutError naming what did not end.
        """
        if self._pid != os.getpid():
            return
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            self._stopped = True
            agents = tuple(self._by_id.values())
            self._by_id.clear()
        for agent in agents:
            agent.close(f"{self.backend_name} transport stopped")
        if not self._life.acquire(timeout=max(timeout_s, 0.0)):
            raise StopTimeoutError(
                f"{self.backend_name} transport is still opening {timeout_s} s after it was asked "
                "to stop; it closes by itself when it has opened"
            )
        try:
            self._close(max(deadline_s - time.monotonic(), 0.0))
        finally:
            self._life.release()

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

    @property
    def agents(self) -> tuple[AttachedAgent, ...]:
        """The agents that this transport speaks for now."""
        with self._lock:
            return tuple(agent for agent in self._by_id.values() if not agent.closed)

    # -- towards the agents -------------------------------------------------------------------

    def publish_visualization(self, fbc: SharedFBC) -> None:
        """Show a frame to every agent with RECEIVE_NEURON_VISUALIZATIONS. Never waits: what an
        agent has not taken yet is replaced and counted. The caller keeps its own lease.

        Raises ClosedError when the transport does not run, LocalError for a frame above
        `max_frame_bytes`.
        """
        self._refuse_unless_running()
        self._refuse_too_large(fbc)
        for agent in self.agents:
            if AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS in agent.capabilities:
                agent.show(fbc)

    def publish_motor(self, agent_id: bytes | None, fbc: SharedFBC) -> None:
        """Hand a motor frame to one agent, or (None) to every agent with RECEIVE_MOTOR_DATA.

        The caller keeps its own lease. Agents with room are served first, then full ones are
        waited for up to the stream's deadline. Raises DeliveryTimeoutError naming who did not
        get the frame, UnknownHandleError for an id that is not here or takes no motor data,
        ClosedError when the transport does not run, LocalError for a frame above
        `max_frame_bytes`.
        """
        self._refuse_unless_running()
        self._refuse_too_large(fbc)
        full = []
        agents = self._motor_agents(agent_id)
        for agent in agents:
            agent.counters[StreamType.MOTOR].count_sent(len(fbc))
            if not agent.offer_motor(fbc):
                full.append(agent)
        missed = [agent.motor.name for agent in full if not agent.press_motor(fbc)]
        if missed:
            raise DeliveryTimeoutError(
                f"motor frame of {len(fbc)} bytes not taken in time by {len(missed)} of "
                f"{len(agents)} agents: {', '.join(missed)}; they are stuck or slow"
            )

    def _motor_agents(self, agent_id: bytes | None) -> tuple[AttachedAgent, ...]:
        wanted = AgentCapabilities.RECEIVE_MOTOR_DATA
        agents = self.agents
        if agent_id is None:
            return tuple(agent for agent in agents if wanted in agent.capabilities)
        found = tuple(agent for agent in agents if agent.agent_id == agent_id)
        if not found or wanted not in found[0].capabilities:
            raise UnknownHandleError(
                f"agent {agent_id[:4].hex()}... is not on this {self.backend_name} transport or "
                f"takes no motor data; {len(agents)} agents are here"
            )
        return found

    # -- for subclasses -----------------------------------------------------------------------

    @abstractmethod
    def _open(self) -> None:
        """Take hold of sockets, threads and the like. When it raises it has let go of them again
        and may be started again."""

    @abstractmethod
    def _close(self, timeout_s: float) -> None:
        """Let go of them within `timeout_s` seconds or raise StopTimeoutError. The agents are
        closed by now. Called by each `stop`, also when `_open` never was."""

    def _attach(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
        channel: ChannelMaker = thread_channel,
    ) -> AttachedAgent:
        """Attach an agent to the host. Raises what the host raises, ClosedError when stopped.

        `channel` makes its channels, where a subclass or who carries a stream has its own kind.
        """
        self._refuse_unless_running()
        agent = self._host.attach_agent(
            descriptor, capabilities, agent_id, motor_areas=motor_areas, channel=channel
        )
        with self._lock:
            stopped = self._stopped
            if not stopped:
                self._by_id[agent.agent_id] = agent
        if stopped:
            agent.close(f"{self.backend_name} transport stopped")
            raise self._closed_error()
        return agent

    def _detach(self, agent: AttachedAgent, reason: str) -> None:
        """Detach an agent from the host; does nothing when it was detached before."""
        with self._lock:
            if self._by_id.get(agent.agent_id) is agent:
                del self._by_id[agent.agent_id]
        agent.close(reason)

    def _refuse_too_large(self, fbc: SharedFBC) -> None:
        if len(fbc) > self.max_frame_bytes:
            raise LocalError(
                f"frame of {len(fbc)} bytes; this {self.backend_name} transport carries at most "
                f"{self.max_frame_bytes}: send fewer areas per frame or raise max_frame_bytes"
            )

    def _was_stopped(self) -> bool:
        return self._stopped

    def _refuse_unless_running(self) -> None:
        if not self._started or self._stopped or self._pid != os.getpid():
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        state = "was stopped" if self._stopped else "was not started"
        if self._pid != os.getpid():
            state = f"belongs to process {self._pid}, which forked this one"
        return ClosedError(f"{self.backend_name} transport {state}; make and start a new one")
