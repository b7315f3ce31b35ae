# SPDX-License-Identifier: Apache-2.0
"""StreamPublisher: one outbound stream of one agent, from its channel to its connection.

A frame is taken from the channel only when the connection has room, so that what cannot leave yet
waits in the channel, under the delivery table: of visualization the newest frame, of motor all in
order. A frame that is published in the loop itself while nothing waits is sent there and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.loop_side import loop_side
from feagi_io_host.nonblocking.runtime import AsyncWorker

# How long a wait lasts before the task looks whether the agent has gone.
_LOOK_AROUND_S: Final = 0.25
# So many frames in a row; then the other tasks of the loop have their turn.
_FAIR_SHARE: Final = 16


class FrameLine(Protocol):
    """What frames of one stream leave by. Belongs to the event loop."""

    on_room: Callable[[], object]
    """Called when the frame before has left."""

    @property
    def has_room(self) -> bool:
        """Whether a frame can be sent now."""

    def send_frame(self, fbc: SharedFBC) -> None:
        """Send a frame, when there is room. The lease is the line's."""


class StreamPublisher:
    """Sends what comes out of `agent`'s channel for `stream`, in a task of its own.

    `backend` is the transport's name. `on_end()` is called once, when the channel was closed.
    Raises LocalError for a channel that no event loop drains.
    """

    def __init__(
        self,
        agent: AttachedAgent,
        stream: StreamType,
        backend: str,
        max_frame_bytes: int,
        on_end: Callable[[], object],
    ) -> None:
        self.connected = asyncio.Event()
        self._agent = agent
        self._stream = stream
        self._newest_wins = stream is StreamType.VISUALIZATION
        self._side = loop_side(agent, stream)
        self._channel = self._side.awaited
        self._counters = agent.counters[stream]
        self._max_frame_bytes = max_frame_bytes
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._line: FrameLine | None = None
        self._holding = False
        self._moved: asyncio.Future[None] | None = None
        self._worker = AsyncWorker(f"feagi-io-{backend}-{self._channel.name}", self._run)

    def start(self) -> None:
        """Start the task."""
        self._worker.start()
        self._side.send_now = self._send_now

    async def stop(self, timeout_s: float) -> None:
        """Wait for the task; the channel is closed by now. Raises StopTimeoutError."""
        await self._worker.stop(timeout_s)

    def lead_to(self, line: FrameLine | None) -> None:
        """Send over this connection from now on; None: wait for one."""
        self._line = line
        if line is None:
            self.connected.clear()
        else:
            line.on_room = self._look
            self.connected.set()
        self._look()

    async def _run(self, stopping: asyncio.Event) -> None:
        sent = 0
        try:
            while not stopping.is_set():
                if not self._has_room:
                    if self._channel.closed:
                        return
                    await self._wait()
                    continue
                fbc = await self._channel.get()
                if fbc is None:
                    continue
                self._holding = True
                await self._deliver(fbc, stopping)
                self._holding = False
                sent += 1
                if sent % _FAIR_SHARE == 0:
                    await asyncio.sleep(0)
        except ClosedError:
            return  # the agent was detached: the ordinary end
        except Exception:
            self._agent.close(f"its {self._stream.value} stream failed")
            raise
        finally:
            self._side.send_now = None
            self._on_end()

    async def _deliver(self, fbc: SharedFBC, stopping: asyncio.Event) -> None:
        """Send a frame, however long that takes, as long as the agent is attached."""
        while not self._try_to_send(fbc):
            # The connection has ended while the channel was waited for.
            try:
                await self._wait()
            except BaseException:
                self._drop(fbc)
                raise
            if stopping.is_set() or self._channel.closed:
                self._drop(fbc)
                return
            if self._newest_wins:
                fbc = self._newer(fbc)

    @property
    def _has_room(self) -> bool:
        return self._line is not None and self._line.has_room

    def _send_now(self, fbc: SharedFBC) -> bool:
        """For the channel: send a frame in this very call, if it is its turn."""
        if (
            asyncio._get_running_loop() is not self._loop
            or self._holding
            or len(self._channel)
            or self._channel.closed
        ):
            return False
        return self._try_to_send(fbc)

    def _try_to_send(self, fbc: SharedFBC) -> bool:
        """Send a frame if there is room; its lease is the connection's then."""
        line = self._line
        if line is None or not line.has_room:
            return False
        if len(fbc) > self._max_frame_bytes:
            self._counters.count_dropped("too large")
            fbc.release()
            return True
        with fbc.retain():  # the connection may be done with it at once
            line.send_frame(fbc)
            self._agent.sent_to_wire(self._stream, fbc)
        return True

    def _newer(self, fbc: SharedFBC) -> SharedFBC:
        try:
            newer = self._channel.get_nowait()
        except ClosedError:
            return fbc
        if newer is None:
            return fbc
        self._counters.count_dropped("replaced")
        fbc.release()
        return newer

    def _drop(self, fbc: SharedFBC) -> None:
        self._counters.count_dropped("closed")
        fbc.release()

    def _look(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    async def _wait(self) -> None:
        """Until there is room or another connection, or for a while."""
        self._moved = moved = self._loop.create_future()
        timer = self._loop.call_later(_LOOK_AROUND_S, self._look)
        try:
            await moved
        finally:
            timer.cancel()
            self._moved = None
