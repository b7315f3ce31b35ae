# SPDX-License-Identifier: Apache-2.0
"""AsyncZmqTransport keeps the transport contract, and that of cancellation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.testing import (
    AsyncRig,
    CancellationContract,
    Rig,
    StandInHost,
    TransportContract,
)
from feagi_io_host.transports.zmq import AsyncZmqTransport, SocketOptions
from tests.feagi_io_host.transports.rigs import (
    DEADLINE_S,
    LIMITS,
    MAX_FRAME_BYTES,
    Arriving,
    Watched,
)
from tests.feagi_io_host.transports.zmq.async_peer import AsyncZmqPeer

# The system's own buffers hold 100,000 of the contract's small frames; the smallest it gives some
# hundred.
KERNEL_BUFFER_BYTES = 4096


class WatchedTransport(Watched, AsyncZmqTransport):
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


async def connect(
    transport: WatchedTransport, descriptor: AgentDescriptor, capabilities: AgentCapabilities
) -> AsyncZmqPeer:
    return await AsyncZmqPeer.connect(
        transport.control_url, descriptor, capabilities, MAX_FRAME_BYTES, KERNEL_BUFFER_BYTES
    )


async def is_ready(transport: WatchedTransport, agent_id: bytes) -> bool:
    return await transport.wait_until_subscribed(agent_id, DEADLINE_S)


class TestZmq(TransportContract):
    BUFFERED_FRAMES = 4000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving(connect, is_ready).connect)
        yield rig
        rig.close()


class TestZmqCancelled(CancellationContract):
    BUFFERED_FRAMES = 4000

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = AsyncRig(WatchedTransport, Arriving(connect, is_ready).connect)
        yield rig
        rig.close()
