# SPDX-License-Identifier: Apache-2.0
"""AsyncVirtualTransport: agents in this process, each used by the tasks of one event loop.

Nothing runs by itself: a frame moves when the agent sends or receives. So nothing is late either,
unless an Impairment says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost
from feagi_io_host.core.errors import ClosedError, FeagiDataError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel
from feagi_io_host.nonblocking.transport import (
    DEFAULT_MAX_FRAME_BYTES,
    LoopAgent,
    NonBlockingTransport,
)
from feagi_io_host.transports.virtual.patterns import NO_IMPAIRMENT, ImpairedLine, Impairments

_UNIMPAIRED: Impairments = MappingProxyType({})


class AsyncVirtualTransport(NonBlockingTransport):
    """Carries frames between a host and agents made by `connect`.

    `impairments` apply to each agent's streams separately. The twin is VirtualTransport.
    """

    backend_name = "virtual"

    def __init__(
        self,
        host: AgentHost,
        *,
        impairments: Impairments = _UNIMPAIRED,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    ) -> None:
        super().__init__(host, max_frame_bytes=max_frame_bytes)
        self._impairments = impairments

    async def connect(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
        *,
        motor_areas: Iterable[CorticalID] | None = None,
    ) -> AsyncVirtualAgent:
        """Attach an agent. An `agent_id` that is attached already takes over.

        Raises ClosedError when the transport or its host does not run, ConfigError for an id
        that is none.
        """
        agent = self._attach(descriptor, capabilities, agent_id, motor_areas=motor_areas)
        return AsyncVirtualAgent(self, agent, self._impairments)

    async def _open(self) -> None:
        """Nothing to take hold of."""

    async def _close(self, timeout_s: float) -> None:
        """Nothing to let go of: the agents' channels are closed."""


class AsyncVirtualAgent:
    """The far end of a virtual line. One task per stream at a time; `close` from any."""

    def __init__(
        self, transport: AsyncVirtualTransport, agent: LoopAgent, impairments: Impairments
    ) -> None:
        """For users: see `AsyncVirtualTransport.connect`."""
        self.agent_id = agent.session.agent_id
        self._transport = transport
        self._agent = agent
        self._session = agent.session
        self._lines: Mapping[StreamType, ImpairedLine] = {
            stream: ImpairedLine(impairments.get(stream, NO_IMPAIRMENT))
            for stream in (StreamType.SENSORY, StreamType.MOTOR, StreamType.VISUALIZATION)
        }

    async def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send what was sensed. Never waits; a SharedFBC stays the caller's.

        Bytes are taken for what came over a wire: verified by the transport, dropped and counted
        ("damaged") when they are no container. Raises LocalError for a frame above
        `max_frame_bytes`, ClosedError when either end is closed.
        """
        if self._session.closed:
            raise self._closed_error()
        if len(frame) > self._transport.max_frame_bytes:
            raise LocalError(
                f"sensory frame of {len(frame)} bytes; this virtual transport carries at most "
                f"{self._transport.max_frame_bytes}"
            )
        if isinstance(frame, SharedFBC):
            received = frame.retain()
        else:
            try:
                received = SharedFBC.from_bytes(bytes(frame))
            except FeagiDataError:
                counters = self._session.counters[StreamType.SENSORY]
                counters.count_sent(len(frame))
                counters.count_dropped("damaged")
                return
        line = self._lines[StreamType.SENSORY]
        line.feed(received)
        while (fbc := line.take()) is not None:
            with fbc:
                self._session.submit_sensory(fbc)

    async def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame, with a lease for the caller; None when `timeout_s` passed first.

        None waits for ever, 0 does not wait. Raises ClosedError when either end is closed. When
        it is cancelled no frame is lost.
        """
        return await self._receive(StreamType.MOTOR, self._agent.motor, timeout_s)

    async def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The newest visualization frame; otherwise as `receive_motor`."""
        return await self._receive(StreamType.VISUALIZATION, self._agent.visualization, timeout_s)

    async def close(self) -> None:
        """Leave the host: what is under way is dropped. May be called more than once."""
        self._transport._detach(self._agent, "agent closed its end")
        for line in self._lines.values():
            line.close()

    @property
    def closed(self) -> bool:
        """Whether either end has closed."""
        return self._session.closed

    def line_counters(self) -> dict[str, dict[str, int]]:
        """Per stream what the line did: frames `fed`, `lost`, `duplicated`."""
        return {stream.value: line.counters() for stream, line in self._lines.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _receive(
        self,
        stream: StreamType,
        channel: AsyncBoundedChannel[SharedFBC],
        timeout_s: float | None,
    ) -> SharedFBC | None:
        line = self._lines[stream]
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        while (out := line.take()) is None:
            left_s = None if deadline_s is None else max(deadline_s - loop.time(), 0.0)
            try:
                fbc = await channel.get(left_s)
            except ClosedError:
                line.close()
                raise self._closed_error() from None
            if fbc is None:
                return None
            if len(fbc) > self._transport.max_frame_bytes:
                self._session.counters[stream].count_dropped("too large")
                fbc.release()
            else:
                line.feed(fbc)
        return out

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"agent {self.agent_id[:4].hex()}... is closed; connect it again")
