# SPDX-License-Identifier: Apache-2.0
"""WebSocketTransport keeps the transport contract and that of cancellation, in a loop and for
threads."""

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
from feagi_io_host.transports.websocket import WebSocketTransport
from tests.feagi_io_host.transports.rigs import (
    DEADLINE_S,
    LIMITS,
    MAX_FRAME_BYTES,
    Arriving,
    InThreads,
    Watched,
)
from tests.feagi_io_host.transports.websocket.peer import WebSocketPeer

KERNEL_BUFFER_BYTES = 4096


class WatchedTransport(Watched, WebSocketTransport):
    def __init__(self, host: StandInHost) -> None:
        super().__init__(
            host,
            port=0,
            limits=LIMITS,
            max_frame_bytes=MAX_FRAME_BYTES,
            settings={"send_buffer_bytes": KERNEL_BUFFER_BYTES},
        )


async def connect(
    transport: WatchedTransport, descriptor: AgentDescriptor, capabilities: AgentCapabilities
) -> WebSocketPeer:
    return await WebSocketPeer.connect(
        transport.control_url,
        descriptor,
        capabilities,
        kernel_buffer_bytes=KERNEL_BUFFER_BYTES,
        max_frame_bytes=MAX_FRAME_BYTES,
    )


async def is_ready(transport: WatchedTransport, agent_id: bytes) -> bool:
    return await transport.wait_until_subscribed(agent_id, DEADLINE_S)


class TestWebSocket(TransportContract):
    BUFFERED_FRAMES = 4000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving(connect, is_ready).connect)
        yield rig
        rig.close()


class TestWebSocketCancelled(CancellationContract):
    BUFFERED_FRAMES = 4000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving(connect, is_ready).connect)
        yield rig
        rig.close()


class TestWebSocketInThreads(TransportContract):
    BUFFERED_FRAMES = 4000

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
