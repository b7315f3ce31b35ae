# SPDX-License-Identifier: Apache-2.0
"""AsyncZmqPeer: a ZmqPeer for coroutines. It receives in the loop; what asks runs in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Self, TypeVar

import zmq

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.pool import SharedFBC
from tests.feagi_io_host.transports.zmq.peer import ZmqPeer

T = TypeVar("T")


def in_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Run `call` in a thread that has ended when the result is there, unlike those of a pool."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        thread.join()
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = call(), None
        except BaseException as raised:
            result, error = None, raised
        loop.call_soon_threadsafe(finish, result, error)

    thread = threading.Thread(target=run, name="async peer")
    thread.start()
    return done


class AsyncZmqPeer:
    """A registered agent in the event loop in which its server may run as well."""

    def __init__(self, peer: ZmqPeer) -> None:
        self.agent_id = peer.agent_id
        self.peer = peer
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False

    @classmethod
    async def connect(cls, *settings: Any) -> Self:
        """As ZmqPeer is made. When it is cancelled it has left again."""
        connecting = in_thread(lambda: ZmqPeer(*settings))
        try:
            return cls(await asyncio.shield(connecting))
        except asyncio.CancelledError:
            await in_thread((await connecting).close)
            raise

    async def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send a frame, then see whether the server is there."""
        await in_thread(lambda: self.peer.send_sensory(frame))

    async def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame."""
        return await self._receive(AgentCapabilities.RECEIVE_MOTOR_DATA, timeout_s)

    async def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next visualization frame."""
        return await self._receive(AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS, timeout_s)

    async def wait_until_cut_off(self) -> None:
        """Wait until the server has closed what it sends on; from then on this end is closed."""
        async with self._turn:
            await in_thread(self.peer.wait_until_cut_off)

    async def close(self) -> None:
        """Leave; who waits in `receive_*` is woken."""
        self._closed = True
        self._wake()
        async with self._turn:
            await in_thread(self.peer.close)

    async def _receive(
        self, capability: AgentCapabilities, timeout_s: float | None
    ) -> SharedFBC | None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + (1e6 if timeout_s is None else timeout_s)
        async with self._turn:
            stream, monitor = self.peer._streams[capability], self.peer._monitors[capability]
            while True:
                if self._closed or self.peer._cut_off:
                    raise ClosedError("this end is closed")
                # Without waiting, and cancelled only while nothing has been taken.
                if stream.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                    return SharedFBC.from_bytes(stream.recv())
                if monitor.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                    raise ClosedError("the other end is gone")
                if loop.time() >= deadline_s:
                    return None
                await self._wait((stream.fd, monitor.fd), deadline_s)

    async def _wait(self, descriptors: tuple[int, int], deadline_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_at(deadline_s, self._wake)
        for descriptor in descriptors:
            loop.add_reader(descriptor, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            for descriptor in descriptors:
                loop.remove_reader(descriptor)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
