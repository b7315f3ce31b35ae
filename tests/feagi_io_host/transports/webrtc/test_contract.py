# SPDX-License-Identifier: Apache-2.0
"""Streams over WebRTC keep the transport contract and that of cancellation, in a loop and for
threads.

Agents register over WebSocket, and all their streams are carried over WebRTC. The contract wants
each frame to arrive: over loopback they do, also of streams without retransmission.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing import (
    AsyncRig,
    BlockingRig,
    CancellationContract,
    Rig,
    StandInHost,
    TransportContract,
)
from feagi_io_host.testing.rig import PeerFace
from tests.feagi_io_host.transports.webrtc.peer import Served, WebRtcPeer
from tests.feagi_io_host.transports.websocket.peer import DEADLINE_S

MAX_FRAME_BYTES = 4096
# No pause before the same descriptor may take over, and no rate that a quick test would meet.
LIMITS = ServerLimits(takeover_s=0.0, peer_rate=Rate(per_s=1e6, burst=1_000_000))


class WatchedTransport(Served):
    """Its far ends, which live in this process too, go when they have seen that it has gone."""

    def __init__(self, host: StandInHost) -> None:
        super().__init__(host, limits=LIMITS, max_frame_bytes=MAX_FRAME_BYTES)
        self.peers: list[WebRtcPeer] = []
        self._home = os.getpid()

    async def stop(self, timeout_s: float = 5.0) -> None:
        await super().stop(timeout_s)
        while self.peers and self._home == os.getpid():
            await self.peers[-1].wait_until_cut_off()
            await self.peers[-1].close()
            self.peers.pop()


class Arriving:
    """An agent id is the server's to choose: who asks for one again comes with its descriptor."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._descriptors: dict[bytes, AgentDescriptor] = {}

    async def connect(
        self,
        transport: WatchedTransport,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
    ) -> WebRtcPeer:
        known = None if agent_id is None else self._descriptors.get(agent_id)
        if known is None:
            known = replace(descriptor, agent_name=f"{descriptor.agent_name} {next(self._numbers)}")
        peer = await WebRtcPeer.connect(
            transport.control_url, known, capabilities, max_frame_bytes=MAX_FRAME_BYTES
        )
        # From here on the transport sees to it, also when this is cancelled.
        transport.peers.append(peer)
        self._descriptors[peer.agent_id] = known
        for old in tuple(transport.peers):
            if old.agent_id == agent_id and old is not peer:
                await old.wait_until_cut_off()
        assert await transport.webrtc.wait_until_connected(peer.agent_id, DEADLINE_S)
        return peer


class InThreads:
    """The transport as a program without an event loop has it: by its handle."""

    def __init__(self, host: StandInHost, runtime: Runtime) -> None:
        self.max_frame_bytes = MAX_FRAME_BYTES
        self._runtime = runtime
        self._transport = WatchedTransport(host)
        self._handle = TransportHandle(self._transport)
        self.start = self._handle.start
        self.stop = self._handle.stop
        self.publish_motor = self._handle.publish_motor
        self.publish_visualization = self._handle.publish_visualization

    def connect(self, arriving: Arriving, *who: Any) -> PeerFace:
        connecting = arriving.connect(self._transport, *who)
        return PeerFace(self._runtime, self._runtime.call(connecting, DEADLINE_S))


class TestWebRtc(TransportContract):
    BUFFERED_FRAMES = 2000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving().connect)
        yield rig
        rig.close()


class TestWebRtcCancelled(CancellationContract):
    BUFFERED_FRAMES = 2000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving().connect)
        yield rig
        rig.close()


class TestWebRtcInThreads(TransportContract):
    BUFFERED_FRAMES = 2000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        arriving, runtime = Arriving(), Runtime()
        make: Any = partial(InThreads, runtime=runtime)
        rig = BlockingRig(make, lambda transport, *who: transport.connect(arriving, *who))
        yield rig
        rig.close()
        runtime.close()
