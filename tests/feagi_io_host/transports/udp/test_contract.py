# SPDX-License-Identifier: Apache-2.0
"""Streams over UDP keep the transport contract, and that of cancellation.

Two transports of this file let agents in and carry the motor stream, in this process; sensory and
visualization go over UDP, carried for them. The contract wants each frame of these two to arrive:
over loopback they do, as long as the receive buffer has room for what nobody reads yet, which the
contract's small frames never fill.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from feagi_io_host.blocking.session import thread_channel
from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AttachedAgent, FrameChannel
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import ClosedError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.transport import LoopAgent, NonBlockingTransport
from feagi_io_host.testing import (
    AsyncRig,
    BlockingRig,
    CancellationContract,
    Rig,
    StandInHost,
    TransportContract,
)
from feagi_io_host.transports.udp import UdpStreamEnd, UdpTransport, udp_stream_end
from tests.feagi_io_host.transports.udp.far import DEADLINE_S, SENSE, VIEW

MAX_FRAME_BYTES = 4096
_TURN_S = 0.02
_CARRIED = {SENSE: StreamType.SENSORY, VIEW: StreamType.VISUALIZATION}


def offered(udp: UdpTransport, agent_id: bytes, wanted: AgentCapabilities) -> dict[Any, str]:
    urls = {}
    for capability in _CARRIED:
        if capability in wanted:
            url = udp.offer(agent_id, capability)
            assert url is not None
            urls[capability] = url
    return urls


class Ends:
    """The stream ends of one agent, for whoever turns them."""

    def __init__(self, urls: dict[Any, str]) -> None:
        self._of = {
            capability: udp_stream_end(url, _CARRIED[capability], max_frame_bytes=MAX_FRAME_BYTES)
            for capability, url in urls.items()
        }

    @property
    def shown(self) -> UdpStreamEnd:
        return self._of[VIEW]

    @property
    def all(self) -> tuple[UdpStreamEnd, ...]:
        return tuple(self._of.values())

    def settle(self) -> bool:
        """One turn of each; whether the server knows where they are."""
        for end in self.all:
            end.take()
            end.tend(time.monotonic())
        return all(end.welcomed for end in self.all)

    def send(self, frame: SharedFBC | bytes) -> bool:
        """Send a sensory frame, if the agent has such a stream; whether that is done."""
        end = self._of.get(SENSE)
        if end is None:
            return True
        end.take()
        if isinstance(frame, SharedFBC):
            return end.send(frame)
        # A datagram without anything in it is no frame that anybody could have sent.
        return end.send_bytes(frame or b"\0")

    def close(self) -> None:
        for end in self.all:
            end.close()


# -- in threads ---------------------------------------------------------------------------------


class Threads(BlockingTransport):
    """Lets agents in; what it does not carry itself goes over UDP, in another thread's loop."""

    backend_name = "threads"

    def __init__(self, host: StandInHost) -> None:
        super().__init__(host, max_frame_bytes=MAX_FRAME_BYTES)
        self.udp = UdpTransport(host, max_frame_bytes=MAX_FRAME_BYTES)
        self._handle = TransportHandle(self.udp)

    def connect(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
    ) -> ThreadPeer:
        agent_id = agent_id or secrets.token_bytes(48)
        urls = offered(self.udp, agent_id, capabilities)
        agent = self._attach(descriptor, capabilities, agent_id, channel=self._channel)
        for capability in urls:
            self.udp.serve(agent, _CARRIED[capability])
        return ThreadPeer(self, agent, Ends(urls))

    def leave(self, agent: AttachedAgent) -> None:
        self._detach(agent, "left")

    def _channel(
        self, rule: DeliveryRule, *, on_drop: Callable[[SharedFBC], object], name: str
    ) -> FrameChannel:
        made = thread_channel if rule.stream is StreamType.MOTOR else self.udp.channel
        return made(rule, on_drop=on_drop, name=name)

    def _open(self) -> None:
        self._handle.start()

    def _close(self, timeout_s: float) -> None:
        self._handle.stop(timeout_s)


class ThreadPeer:
    def __init__(self, transport: Threads, agent: AttachedAgent, ends: Ends) -> None:
        self.agent_id = agent.agent_id
        self._transport = transport
        self._agent = agent
        self._ends = ends
        self._turn = threading.Lock()
        self._closed = False
        until_s = time.monotonic() + DEADLINE_S
        while not ends.settle():
            assert time.monotonic() < until_s
            select.select(ends.all, [], [], _TURN_S)

    def send_sensory(self, frame: SharedFBC | bytes) -> None:
        until_s = time.monotonic() + DEADLINE_S
        with self._turn:
            while not self._ends.send(frame):
                assert time.monotonic() < until_s

    def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        return self._agent.motor.get(timeout_s)

    def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._closed:
            with self._turn:
                data = self._ends.shown.take()
                if data is not None:
                    return SharedFBC.from_bytes(data)
                self._ends.shown.tend(time.monotonic())
            if until_s is not None and time.monotonic() >= until_s:
                return None
            select.select([self._ends.shown], [], [], _TURN_S)
        raise ClosedError("this end is closed")

    def close(self) -> None:
        self._closed = True
        self._transport.leave(self._agent)
        with self._turn:
            self._ends.close()


# -- in a loop ----------------------------------------------------------------------------------


class InLoop(NonBlockingTransport):
    """The same in an event loop, which the UDP transport shares."""

    backend_name = "loop"

    def __init__(self, host: StandInHost) -> None:
        super().__init__(host, max_frame_bytes=MAX_FRAME_BYTES)
        self.udp = UdpTransport(host, max_frame_bytes=MAX_FRAME_BYTES)

    async def connect(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None,
    ) -> LoopPeer:
        agent_id = agent_id or secrets.token_bytes(48)
        urls = offered(self.udp, agent_id, capabilities)
        carried = {StreamType.VISUALIZATION: self.udp.channel}
        agent = self._attach(descriptor, capabilities, agent_id, carried=carried)
        for capability in urls:
            self.udp.serve(agent.session, _CARRIED[capability])
        peer = LoopPeer(self, agent, Ends(urls))
        try:
            await peer.settle()
        except BaseException:
            await peer.close()
            raise
        return peer

    def leave(self, agent: LoopAgent) -> None:
        self._detach(agent, "left")

    async def _open(self) -> None:
        await self.udp.start()

    async def _close(self, timeout_s: float) -> None:
        await self.udp.stop(timeout_s)


class LoopPeer:
    def __init__(self, transport: InLoop, agent: LoopAgent, ends: Ends) -> None:
        self.agent_id = agent.session.agent_id
        self._transport = transport
        self._agent = agent
        self._ends = ends
        self._closed = asyncio.Event()

    async def settle(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not self._ends.settle():
                await asyncio.sleep(0.001)

    async def send_sensory(self, frame: SharedFBC | bytes) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not self._ends.send(frame):
                await asyncio.sleep(0.001)

    async def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        return await self._agent.motor.get(timeout_s)

    async def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._closed.is_set():
            data = self._ends.shown.take()
            if data is not None:
                return SharedFBC.from_bytes(data)
            self._ends.shown.tend(time.monotonic())
            if until_s is not None and time.monotonic() >= until_s:
                return None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), 0.002)
        raise ClosedError("this end is closed")

    async def close(self) -> None:
        self._closed.set()
        self._transport.leave(self._agent)
        self._ends.close()


# -- the contract -------------------------------------------------------------------------------


@pytest.fixture
def peers() -> Iterator[list[Any]]:
    """Far ends, closed in the end: their sockets are in this process, too."""
    made: list[Any] = []
    home = os.getpid()
    yield made
    if os.getpid() == home:
        for peer in made:
            with contextlib.suppress(LocalError):
                peer._ends.close()


def in_threads(peers: list[Any]) -> Rig:
    def connect(transport: Threads, *who: Any) -> ThreadPeer:
        peers.append(transport.connect(*who))
        return peers[-1]  # type: ignore[no-any-return]

    return BlockingRig(Threads, connect)


def in_a_loop(peers: list[Any]) -> Rig:
    async def connect(transport: InLoop, *who: Any) -> LoopPeer:
        peers.append(await transport.connect(*who))
        return peers[-1]  # type: ignore[no-any-return]

    return AsyncRig(InLoop, connect)


class TestUdp(TransportContract):
    # A stream end keeps the newest four; one is under way, one in the carrier's hands.
    BUFFERED_FRAMES = 8

    @pytest.fixture(params=[in_threads, in_a_loop])
    def rig(self, request: pytest.FixtureRequest, peers: list[Any]) -> Iterator[Rig]:
        rig: Rig = request.param(peers)
        yield rig
        rig.close()


class TestUdpCancelled(CancellationContract):
    BUFFERED_FRAMES = 8

    @pytest.fixture
    def rig(self, peers: list[Any]) -> Iterator[Rig]:
        rig = in_a_loop(peers)
        yield rig
        rig.close()
