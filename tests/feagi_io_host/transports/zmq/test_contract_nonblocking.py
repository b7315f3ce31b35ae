# SPDX-License-Identifier: Apache-2.0
"""AsyncZmqTransport keeps the transport contract, and that of cancellation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.testing import (
    AsyncRig,
    CancellationContract,
    Rig,
    StandInHost,
    TransportContract,
)
from feagi_io_host.transports.zmq import AsyncZmqTransport, SocketOptions
from tests.feagi_io_host.transports.zmq.async_peer import AsyncZmqPeer
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S

MAX_FRAME_BYTES = 4096
# The system's own buffers hold 100,000 of the contract's small frames; the smallest it gives some
# hundred.
KERNEL_BUFFER_BYTES = 4096
# No pause before the same descriptor may take over, and no rate that a quick test would meet.
LIMITS = ServerLimits(takeover_s=0.0, peer_rate=Rate(per_s=1e6, burst=1_000_000))


class WatchedTransport(AsyncZmqTransport):
    """Its far ends, which live in this process too, go when they have seen that it has gone."""

    def __init__(self, host: StandInHost) -> None:
        super().__init__(
            host,
            control_port=0,
            limits=LIMITS,
            max_frame_bytes=MAX_FRAME_BYTES,
            options=SocketOptions(
                kernel_buffer_bytes=KERNEL_BUFFER_BYTES, motor_frames=2, sensory_frames=2
            ),
        )
        self.peers: list[AsyncZmqPeer] = []
        self._home = os.getpid()

    async def stop(self, timeout_s: float = 5.0) -> None:
        await super().stop(timeout_s)
        while self.peers and self._home == os.getpid():
            await self.peers[-1].wait_until_cut_off()
            await self.peers[-1].close()
            self.peers.pop()


class ZmqRig(AsyncRig[WatchedTransport]):
    """An agent id is the server's to choose: who asks for one again comes with its descriptor."""

    def __init__(self) -> None:
        super().__init__(WatchedTransport, self._connect_peer)
        self._numbers = count(1)
        self._descriptors: dict[bytes, AgentDescriptor] = {}

    async def _connect_peer(
        self,
        transport: WatchedTransport,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
    ) -> AsyncZmqPeer:
        known = None if agent_id is None else self._descriptors.get(agent_id)
        if known is None:
            known = replace(descriptor, agent_name=f"{descriptor.agent_name} {next(self._numbers)}")
        peer = await AsyncZmqPeer.connect(
            transport.control_url, known, capabilities, MAX_FRAME_BYTES, KERNEL_BUFFER_BYTES
        )
        # From here on the transport sees to it, also when this is cancelled.
        transport.peers.append(peer)
        self._descriptors[peer.agent_id] = known
        for old in tuple(transport.peers):
            if old.agent_id == agent_id and old is not peer:
                await old.wait_until_cut_off()
        assert await transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
        return peer


class TestZmq(TransportContract):
    BUFFERED_FRAMES = 4000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = ZmqRig()
        yield rig
        rig.close()


class TestZmqCancelled(CancellationContract):
    BUFFERED_FRAMES = 4000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = ZmqRig()
        yield rig
        rig.close()
