# SPDX-License-Identifier: Apache-2.0
"""What rigs of the contract suite share where the far ends of a transport live in the same loop."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from typing import Any

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing.rig import PeerFace

MAX_FRAME_BYTES = 4096
DEADLINE_S = 10.0
# No pause before the same descriptor may take over, and no rate that a quick test would meet.
LIMITS = ServerLimits(takeover_s=0.0, peer_rate=Rate(per_s=1e6, burst=1_000_000))


class Watched:
    """In front of a transport's class: its far ends go when they have seen that it has gone."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.peers: list[Any] = []
        self._home = os.getpid()

    async def stop(self, timeout_s: float = 5.0) -> None:
        await super().stop(timeout_s)  # type: ignore[misc]  # the transport's
        while self.peers and self._home == os.getpid():
            await self.peers[-1].wait_until_cut_off()
            await self.peers[-1].close()
            self.peers.pop()


class Arriving:
    """An agent id is the server's to choose: who asks for one again comes with its descriptor.

    `connect(transport, descriptor, capabilities)` makes a far end, `is_ready(transport, agent_id)`
    waits until it would get what is sent.
    """

    def __init__(
        self,
        connect: Callable[[Any, AgentDescriptor, AgentCapabilities], Awaitable[Any]],
        is_ready: Callable[[Any, bytes], Awaitable[bool]],
    ) -> None:
        self._connect = connect
        self._is_ready = is_ready
        self._numbers = count(1)
        self._descriptors: dict[bytes, AgentDescriptor] = {}

    async def connect(
        self,
        transport: Any,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
    ) -> Any:
        known = None if agent_id is None else self._descriptors.get(agent_id)
        if known is None:
            known = replace(descriptor, agent_name=f"{descriptor.agent_name} {next(self._numbers)}")
        peer = await self._connect(transport, known, capabilities)
        # From here on the transport sees to it, also when this is cancelled.
        transport.peers.append(peer)
        self._descriptors[peer.agent_id] = known
        for old in tuple(transport.peers):
            if old.agent_id == agent_id and old is not peer:
                await old.wait_until_cut_off()
        assert await self._is_ready(transport, peer.agent_id)
        return peer


class InThreads:
    """A transport as a program without an event loop has it: by its handle."""

    def __init__(self, transport: Any, runtime: Runtime) -> None:
        self.max_frame_bytes = MAX_FRAME_BYTES
        self._runtime = runtime
        self._transport = transport
        self._handle = TransportHandle(transport)
        self.start = self._handle.start
        self.stop = self._handle.stop
        self.publish_motor = self._handle.publish_motor
        self.publish_visualization = self._handle.publish_visualization

    def connect(self, arriving: Arriving, *who: Any) -> PeerFace:
        connecting = arriving.connect(self._transport, *who)
        return PeerFace(self._runtime, self._runtime.call(connecting, DEADLINE_S))
