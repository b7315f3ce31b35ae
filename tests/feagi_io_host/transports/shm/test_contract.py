# SPDX-License-Identifier: Apache-2.0
"""ShmTransport keeps the transport contract, in both paradigms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.testing import (
    AsyncRig,
    BlockingRig,
    CancellationContract,
    Rig,
    StandInHost,
    TransportContract,
)
from feagi_io_host.transports.shm import AsyncShmTransport, ShmAgent, ShmInvitation, ShmTransport

MAX_FRAME_BYTES = 4096
MOTOR_SLOTS = 3


class Far:
    """A ShmAgent whose leaving is told to the host, as a control channel would."""

    def __init__(
        self,
        transport: ShmTransport,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
    ) -> None:
        invitation = transport.admit(descriptor, capabilities, agent_id)
        self.agent_id = invitation.agent_id
        self._capabilities = capabilities
        self._transport = transport
        self._agent = ShmAgent(invitation.endpoints, max_frame_bytes=MAX_FRAME_BYTES)
        self.receive_motor = self._agent.receive_motor
        self.receive_visualization = self._agent.receive_visualization

    def send_sensory(self, frame: SharedFBC | bytes) -> None:
        if AgentCapabilities.SEND_SENSOR_DATA in self._capabilities:
            self._agent.send_sensory(frame)
        else:
            with pytest.raises(LocalError, match="ask for SEND_SENSOR_DATA"):
                self._agent.send_sensory(frame)

    def close(self) -> None:
        self._agent.close()
        self._transport.dismiss(self.agent_id)


class AsyncFar:
    """The same for a task."""

    def __init__(
        self,
        transport: AsyncShmTransport,
        capabilities: AgentCapabilities,
        invitation: ShmInvitation,
    ) -> None:
        self.agent_id = invitation.agent_id
        self._capabilities = capabilities
        self._transport = transport
        self._agent = ShmAgent(invitation.endpoints, max_frame_bytes=MAX_FRAME_BYTES)
        self.receive_motor = self._agent.receive_motor_async
        self.receive_visualization = self._agent.receive_visualization_async
        self.cut_off = self._agent.close

    async def send_sensory(self, frame: SharedFBC | bytes) -> None:
        if AgentCapabilities.SEND_SENSOR_DATA in self._capabilities:
            self._agent.send_sensory(frame)
        else:
            with pytest.raises(LocalError, match="ask for SEND_SENSOR_DATA"):
                self._agent.send_sensory(frame)

    async def close(self) -> None:
        self._agent.close()
        await self._transport.dismiss(self.agent_id)


@contextlib.contextmanager
def blocking_rig() -> Iterator[Rig]:
    far: list[Far] = []

    def connect(*arguments: object) -> Far:
        far.append(Far(*arguments))  # type: ignore[arg-type]
        return far[-1]

    def make(host: StandInHost) -> ShmTransport:
        return ShmTransport(host, max_frame_bytes=MAX_FRAME_BYTES, motor_slots=MOTOR_SLOTS)

    rig = BlockingRig(make, connect)
    yield rig
    for agent in far:
        with contextlib.suppress(LocalError):
            agent.close()
    rig.close()


@contextlib.contextmanager
def nonblocking_rig() -> Iterator[AsyncRig[AsyncShmTransport]]:
    far: list[AsyncFar] = []

    async def connect(
        transport: AsyncShmTransport,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
    ) -> AsyncFar:
        invitation = await transport.admit(descriptor, capabilities, agent_id)
        far.append(AsyncFar(transport, capabilities, invitation))
        return far[-1]

    def make(host: StandInHost) -> AsyncShmTransport:
        return AsyncShmTransport(host, max_frame_bytes=MAX_FRAME_BYTES, motor_slots=MOTOR_SLOTS)

    rig = AsyncRig(make, connect)
    yield rig
    for agent in far:
        agent.cut_off()
    rig.close()


class TestShm(TransportContract):
    BUFFERED_FRAMES = MOTOR_SLOTS + 1  # in the ring, and one in the thread's hands

    @pytest.fixture(params=[blocking_rig, nonblocking_rig])
    def rig(self, request: pytest.FixtureRequest) -> Iterator[Rig]:
        with request.param() as rig:
            yield rig


class TestShmCancelled(CancellationContract):
    BUFFERED_FRAMES = MOTOR_SLOTS + 1

    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        with nonblocking_rig() as rig:
            yield rig
