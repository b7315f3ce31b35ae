# SPDX-License-Identifier: Apache-2.0
"""NonBlockingTransport: what every asyncio transport is, above the moving of bytes.

    agent -> transport -> AttachedAgent.submit_sensory  -> host     (never waits)
    host  -> LoopAgent.motor, .visualization            -> transport -> agent

The twin of `blocking.transport`. A host in any thread puts frames into the thread side of an
agent's channels, and the transport awaits them in its loop.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType, TracebackType
from typing import ClassVar, Final, Self

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost, AttachedAgent, ChannelMaker, FrameChannel
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LocalError,
    UnknownHandleError,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.loop_side import LoopSide

DEFAULT_MAX_FRAME_BYTES = 64 << 20
_LATE_CLOSE_S = 1.0
_NOT_CARRIED: Final[Mapping[StreamType, ChannelMaker]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, eq=False)
class LoopAgent:
    """An attached agent and the channels that its transport awaits: both, unless another
    transport carries one of the streams.

    `motor_deadline_s` is how long `publish_motor` waits for room in `motor`.
    """

    session: AttachedAgent
    channels: Mapping[StreamType, AsyncBoundedChannel[SharedFBC]]
    motor_deadline_s: float

    @property
    def motor(self) -> AsyncBoundedChannel[SharedFBC]:
        """Motor frames for the agent, in order. KeyError when another transport carries them."""
        return self.channels[StreamType.MOTOR]

    @property
    def visualization(self) -> AsyncBoundedChannel[SharedFBC]:
        """The newest visualization frame. KeyError when another transport carries them."""
        return self.channels[StreamType.VISUALIZATION]


class NonBlockingTransport(ABC):
    """Carries frames between agents and a host, in an event loop.

    A transport runs once: `start`, `stop`, no second start, all in one loop. After a fork the
    child's copy is closed; the parent's goes on. `max_frame_bytes` is the largest frame carried
    either way.

    A subclass moves the bytes: it attaches each agent by `_attach`, submits what it receives to
    the session it got, and drains the agent's `motor` and `visualization`.
    """

    backend_name: ClassVar[str]

    def __init__(self, host: AgentHost, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._host = host
        self._pid = os.getpid()
        self._life = asyncio.Lock()
        self._started = False
        self._stopped = False
        self._by_id: dict[bytes, LoopAgent] = {}

    # -- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take agents; does nothing when started before. Raises ClosedError after
        `stop`."""
        async with self._life:
            if self._stopped or self._pid != os.getpid():
                raise self._closed_error()
            if self._started:
                return
            # Before opening: the first agent may come while the rest is still being opened.
            self._started = True
            try:
                await self._open()
            except BaseException:
                self._started = False
                raise
            if self._was_stopped():  # meanwhile; `stop` does not wait for this
                await self._close(_LATE_CLOSE_S)
                raise self._closed_error()

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Detach every agent and end, within `timeout_s` seconds.

        May be called more than once. Raises StopTimeoutError naming what did not end.
        """
        if self._pid != os.getpid():
            return
        self._stopped = True
        agents = tuple(self._by_id.values())
        self._by_id.clear()
        for agent in agents:
            agent.session.close(f"{self.backend_name} transport stopped")
        await self._close(timeout_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def agents(self) -> tuple[AttachedAgent, ...]:
        """The agents that this transport speaks for now."""
        return tuple(a.session for a in self._by_id.values() if not a.session.closed)

    # -- towards the agents -------------------------------------------------------------------

    async def publish_visualization(self, fbc: SharedFBC) -> None:
        """Show a frame to every agent with RECEIVE_NEURON_VISUALIZATIONS. Never waits: what an
        agent has not taken yet is replaced and counted. The caller keeps its own lease.

        Raises ClosedError when the transport does not run, LocalError for a frame above
        `max_frame_bytes`.
        """
        self._refuse_unless_running()
        self._refuse_too_large(fbc)
        for session in self.agents:
            if AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS in session.capabilities:
                session.show(fbc)

    async def publish_motor(self, agent_id: bytes | None, fbc: SharedFBC) -> None:
        """Hand a motor frame to one agent, or (None) to every agent with RECEIVE_MOTOR_DATA.

        The caller keeps its own lease. Agents with room are served first, then full ones are
        waited for, together, up to the stream's deadline. Raises DeliveryTimeoutError naming who
        did not get the frame, UnknownHandleError for an id that is not here or takes no motor
        data, ClosedError when the transport does not run, LocalError for a frame above
        `max_frame_bytes`.
        """
        self._refuse_unless_running()
        self._refuse_too_large(fbc)
        full = []
        agents = self._motor_agents(agent_id)
        for agent in agents:
            agent.session.counters[StreamType.MOTOR].count_sent(len(fbc))
            if not agent.session.offer_motor(fbc):
                full.append(agent)
        if not full:
            return
        taken = await asyncio.gather(*(_press(agent, fbc) for agent in full))
        missed = [a.session.motor.name for a, done in zip(full, taken, strict=True) if not done]
        if missed:
            raise DeliveryTimeoutError(
                f"motor frame of {len(fbc)} bytes not taken in time by {len(missed)} of "
                f"{len(agents)} agents: {', '.join(missed)}; they are stuck or slow"
            )

    def _motor_agents(self, agent_id: bytes | None) -> tuple[LoopAgent, ...]:
        wanted = AgentCapabilities.RECEIVE_MOTOR_DATA
        agents = tuple(a for a in self._by_id.values() if not a.session.closed)
        if agent_id is None:
            return tuple(agent for agent in agents if wanted in agent.session.capabilities)
        found = tuple(agent for agent in agents if agent.session.agent_id == agent_id)
        if not found or wanted not in found[0].session.capabilities:
            raise UnknownHandleError(
                f"agent {agent_id[:4].hex()}... is not on this {self.backend_name} transport or "
                f"takes no motor data; {len(agents)} agents are here"
            )
        return found

    # -- for subclasses -----------------------------------------------------------------------

    @abstractmethod
    async def _open(self) -> None:
        """Take hold of sockets, tasks and the like. When it raises or is cancelled it has let go
        of them again and may be started again."""

    @abstractmethod
    async def _close(self, timeout_s: float) -> None:
        """Let go of them within `timeout_s` seconds or raise StopTimeoutError. The agents are
        closed by now. Called by each `stop`, also when `_open` never was."""

    def _attach(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
        carried: Mapping[StreamType, ChannelMaker] = _NOT_CARRIED,
    ) -> LoopAgent:
        """Attach an agent to the host. Raises what the host raises, ClosedError when stopped.

        `carried` makes the channels of streams that another transport drains.
        """
        self._refuse_unless_running()
        made: dict[StreamType, AsyncBoundedChannel[SharedFBC]] = {}
        deadlines_s: dict[StreamType, float] = {}

        def channel(
            rule: DeliveryRule, *, on_drop: Callable[[SharedFBC], object], name: str
        ) -> FrameChannel:
            deadlines_s[rule.stream] = rule.deadline_s or 0.0
            elsewhere = carried.get(rule.stream)
            if elsewhere is not None:
                return elsewhere(rule, on_drop=on_drop, name=name)
            awaited = AsyncBoundedChannel[SharedFBC].for_rule(rule, on_drop=on_drop, name=name)
            made[rule.stream] = awaited
            return self._thread_side(awaited)

        session = self._host.attach_agent(
            descriptor, capabilities, agent_id, motor_areas=motor_areas, channel=channel
        )
        agent = LoopAgent(session, made, deadlines_s[StreamType.MOTOR])
        if self._stopped:  # by a listener that heard of the agent
            session.close(f"{self.backend_name} transport stopped")
            raise self._closed_error()
        self._by_id[session.agent_id] = agent
        return agent

    def _detach(self, agent: LoopAgent, reason: str) -> None:
        """Detach an agent from the host; does nothing when it was detached before."""
        if self._by_id.get(agent.session.agent_id) is agent:
            del self._by_id[agent.session.agent_id]
        agent.session.close(reason)

    def _thread_side(self, awaited: AsyncBoundedChannel[SharedFBC]) -> FrameChannel:
        """The host's side of a channel: where a subclass can send what it is given at once."""
        return awaited.thread_side

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


async def _press(agent: LoopAgent, fbc: SharedFBC) -> bool:
    """Wait for room in one agent's motor channel; an agent that leaves takes everything."""
    awaited = agent.channels.get(StreamType.MOTOR)
    side = agent.session.motor
    if awaited is None and isinstance(side, LoopSide):  # another transport's, of an event loop too
        awaited = side.awaited
    if awaited is None:
        return await _press_in_thread(agent.session, fbc)
    try:
        await awaited.put(fbc.retain(), agent.motor_deadline_s)
    except ClosedError:
        return True
    except DeliveryTimeoutError:
        return False
    return True


async def _press_in_thread(session: AttachedAgent, fbc: SharedFBC) -> bool:
    """The same for a channel that another transport drains: perhaps only threads can wait."""
    lease = fbc.retain()

    def press() -> bool:
        with lease:
            return session.press_motor(lease)

    try:
        pressing = asyncio.get_running_loop().run_in_executor(None, press)
    except BaseException:
        lease.release()
        raise
    # Shielded: a call that is taken back before its thread begins would keep the lease for ever.
    return await asyncio.shield(pressing)
