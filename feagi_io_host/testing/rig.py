# SPDX-License-Identifier: Apache-2.0
"""Rigs: one face for transports of both paradigms, so that each check is written once.

A rig makes transports and connects far ends to them. `AsyncRig` runs the coroutines in an event
loop of its own; to the checks both look like threads and calls.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.nonblocking.transport import NonBlockingTransport
from feagi_io_host.testing.host import StandInHost

B = TypeVar("B", bound=BlockingTransport)
N = TypeVar("N", bound=NonBlockingTransport)
T = TypeVar("T")

# Longer than any deadline inside a call: only a hang takes so long.
CALL_TIMEOUT_S = 30.0


class Peer(Protocol):
    """The far end of a transport: an agent that sends and receives."""

    @property
    def agent_id(self) -> bytes:
        """48 bytes."""

    def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send a frame; bytes may be anything."""

    def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame, with a lease; None after `timeout_s`; ClosedError when closed."""

    def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The newest visualization frame; otherwise as `receive_motor`."""

    def close(self) -> None:
        """Leave."""


class AsyncPeer(Protocol):
    """The same, awaited."""

    @property
    def agent_id(self) -> bytes:
        """48 bytes."""

    async def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send a frame; bytes may be anything."""

    async def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame, with a lease; None after `timeout_s`; ClosedError when closed."""

    async def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The newest visualization frame; otherwise as `receive_motor`."""

    async def close(self) -> None:
        """Leave."""


class TransportFace(ABC):
    """A transport of either paradigm, called from threads."""

    max_frame_bytes: int

    @abstractmethod
    def start(self) -> None:
        """`start` of the transport."""

    @abstractmethod
    def stop(self, timeout_s: float = 5.0) -> None:
        """`stop` of the transport."""

    @abstractmethod
    def publish_motor(self, agent_id: bytes | None, fbc: SharedFBC) -> None:
        """`publish_motor` of the transport."""

    @abstractmethod
    def publish_visualization(self, fbc: SharedFBC) -> None:
        """`publish_visualization` of the transport."""

    @abstractmethod
    def connect(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
    ) -> Peer:
        """A far end, connected."""

    @abstractmethod
    def after_fork(self, fbc: SharedFBC) -> list[str]:
        """In a forked child: publish and stop; what went wrong, a line each."""


class Rig(ABC):
    """Makes transports. Close it after all of them."""

    @abstractmethod
    def transport(self, host: StandInHost) -> TransportFace:
        """A transport, not yet started, whose agents are attached to `host`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what the rig itself holds."""


class BlockingRig(Rig, Generic[B]):
    """`make(host)` gives a transport, `connect(transport, descriptor, capabilities, agent_id)` a
    far end of it."""

    def __init__(
        self,
        make: Callable[[StandInHost], B],
        connect: Callable[[B, AgentDescriptor, AgentCapabilities, bytes | None], Peer],
    ) -> None:
        self._make = make
        self._connect = connect

    def transport(self, host: StandInHost) -> TransportFace:
        """A transport, not yet started."""
        return _BlockingFace(self._make(host), self._connect)

    def close(self) -> None:
        """Nothing to let go of."""


class _BlockingFace(TransportFace, Generic[B]):
    def __init__(
        self,
        transport: B,
        connect: Callable[[B, AgentDescriptor, AgentCapabilities, bytes | None], Peer],
    ) -> None:
        self.max_frame_bytes = transport.max_frame_bytes
        self._transport = transport
        self._connect = connect

    def start(self) -> None:
        self._transport.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        self._transport.stop(timeout_s)

    def publish_motor(self, agent_id: bytes | None, fbc: SharedFBC) -> None:
        self._transport.publish_motor(agent_id, fbc)

    def publish_visualization(self, fbc: SharedFBC) -> None:
        self._transport.publish_visualization(fbc)

    def connect(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
    ) -> Peer:
        return self._connect(self._transport, descriptor, capabilities, agent_id)

    def after_fork(self, fbc: SharedFBC) -> list[str]:
        faults = []
        for name, call in (
            ("publish_motor", partial(self._transport.publish_motor, None)),
            ("publish_visualization", self._transport.publish_visualization),
        ):
            try:
                call(fbc)
            except Exception as error:
                if not isinstance(error, ClosedError):
                    faults.append(f"{name} raised {error!r}")
            else:
                faults.append(f"{name} took a frame")
        self._transport.stop(1.0)
        return faults


class AsyncRig(Rig, Generic[N]):
    """As BlockingRig, with `connect` awaited. Has an event loop of its own, `runtime`."""

    def __init__(
        self,
        make: Callable[[StandInHost], N],
        connect: Callable[
            [N, AgentDescriptor, AgentCapabilities, bytes | None], Awaitable[AsyncPeer]
        ],
    ) -> None:
        self.runtime = Runtime()
        self._make = make
        self._connect = connect

    def transport(self, host: StandInHost) -> AsyncFace[N]:
        """A transport, not yet started."""
        return AsyncFace(self.runtime, self._make(host), self._connect)

    def close(self) -> None:
        """End the event loop."""
        self.runtime.close()


class AsyncFace(TransportFace, Generic[N]):
    """A NonBlockingTransport for threads; the `transport` itself is for the rig's loop."""

    def __init__(
        self,
        runtime: Runtime,
        transport: N,
        connect: Callable[
            [N, AgentDescriptor, AgentCapabilities, bytes | None], Awaitable[AsyncPeer]
        ],
    ) -> None:
        self.max_frame_bytes = transport.max_frame_bytes
        self.transport = transport
        self.runtime = runtime
        self._connect = connect

    def start(self) -> None:
        """`start` of the transport."""
        self.runtime.call(self.transport.start(), CALL_TIMEOUT_S)

    def stop(self, timeout_s: float = 5.0) -> None:
        """`stop` of the transport."""
        self.runtime.call(self.transport.stop(timeout_s), CALL_TIMEOUT_S)

    def publish_motor(self, agent_id: bytes | None, fbc: SharedFBC) -> None:
        """`publish_motor` of the transport."""
        self.runtime.call(self.transport.publish_motor(agent_id, fbc), CALL_TIMEOUT_S)

    def publish_visualization(self, fbc: SharedFBC) -> None:
        """`publish_visualization` of the transport."""
        self.runtime.call(self.transport.publish_visualization(fbc), CALL_TIMEOUT_S)

    def connect(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
    ) -> PeerFace:
        """A far end, connected."""
        connecting = self.connect_in_loop(descriptor, capabilities, agent_id)
        return PeerFace(self.runtime, self.runtime.call(connecting, CALL_TIMEOUT_S))

    async def connect_in_loop(
        self,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        agent_id: bytes | None = None,
    ) -> AsyncPeer:
        """A far end, connected, for the rig's loop."""
        return await self._connect(self.transport, descriptor, capabilities, agent_id)

    def after_fork(self, fbc: SharedFBC) -> list[str]:
        """In a forked child: publish and stop; what went wrong, a line each."""
        faults = []
        for name, coroutine in (
            ("publish_motor", self.transport.publish_motor(None, fbc)),
            ("publish_visualization", self.transport.publish_visualization(fbc)),
        ):
            try:
                asyncio.run(coroutine)
            except Exception as error:
                if not isinstance(error, ClosedError):
                    faults.append(f"{name} raised {error!r}")
            else:
                faults.append(f"{name} took a frame")
        asyncio.run(self.transport.stop(1.0))
        return faults

    def cut_off(self, make: Callable[[], Coroutine[Any, Any, T]], steps: int) -> tuple[bool, Any]:
        """Run a coroutine, cancel it after `steps` turns of the loop: (done before, result)."""

        async def run() -> tuple[bool, Any]:
            task = asyncio.get_running_loop().create_task(make())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            try:
                return True, await task
            except asyncio.CancelledError:
                return False, None

        return self.runtime.call(run(), CALL_TIMEOUT_S)


class PeerFace:
    """An AsyncPeer for threads; the `peer` itself is for the rig's loop."""

    def __init__(self, runtime: Runtime, peer: AsyncPeer) -> None:
        self.peer = peer
        self.agent_id = peer.agent_id
        self._runtime = runtime

    def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send a frame; bytes may be anything."""
        self._runtime.call(self.peer.send_sensory(frame), CALL_TIMEOUT_S)

    def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame."""
        return self._runtime.call(self.peer.receive_motor(timeout_s), CALL_TIMEOUT_S)

    def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The newest visualization frame."""
        return self._runtime.call(self.peer.receive_visualization(timeout_s), CALL_TIMEOUT_S)

    def close(self) -> None:
        """Leave."""
        self._runtime.call(self.peer.close(), CALL_TIMEOUT_S)
