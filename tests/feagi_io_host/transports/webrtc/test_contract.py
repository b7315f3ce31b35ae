# SPDX-License-Identifier: Apache-2.0
"""Streams over WebRTC keep the transport contract and that of cancellation, in a loop and for
threads.

Agents register over WebSocket, and all their streams are carried over WebRTC. The contract wants
each frame to arrive: over loopback they do, also of streams without retransmission.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing import (
    AsyncRig,
    BlockingRig,
    CancellationContract,
    Rig,
    StandInHost,
    TransportContract,
)
from tests.feagi_io_host.transports.rigs import (
    DEADLINE_S,
    LIMITS,
    MAX_FRAME_BYTES,
    Arriving,
    InThreads,
    Watched,
)
from tests.feagi_io_host.transports.webrtc.peer import Served, WebRtcPeer


class WatchedTransport(Watched, Served):
    def __init__(self, host: StandInHost) -> None:
        super().__init__(host, limits=LIMITS, max_frame_bytes=MAX_FRAME_BYTES)


async def connect(
    transport: WatchedTransport, descriptor: AgentDescriptor, capabilities: AgentCapabilities
) -> WebRtcPeer:
    return await WebRtcPeer.connect(
        transport.control_url, descriptor, capabilities, max_frame_bytes=MAX_FRAME_BYTES
    )


async def is_ready(transport: WatchedTransport, agent_id: bytes) -> bool:
    return await transport.webrtc.wait_until_connected(agent_id, DEADLINE_S)


class TestWebRtc(TransportContract):
    BUFFERED_FRAMES = 2000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving(connect, is_ready).connect)
        yield rig
        rig.close()


class TestWebRtcCancelled(CancellationContract):
    BUFFERED_FRAMES = 2000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving(connect, is_ready).connect)
        yield rig
        rig.close()


class TestWebRtcInThreads(TransportContract):
    BUFFERED_FRAMES = 2000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        arriving, runtime = Arriving(connect, is_ready), Runtime()
        rig = BlockingRig(
            lambda host: InThreads(WatchedTransport(host), runtime),
            lambda transport, *who: transport.connect(arriving, *who),
        )
        yield rig
        rig.close()
        runtime.close()
