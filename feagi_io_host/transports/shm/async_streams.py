# SPDX-License-Identifier: Apache-2.0
"""The streams of one agent through shared memory, each with a task of its own.

AsyncStreamFeed     motor or visualization: from the agent's channel into a ring of the host's
AsyncSensoryIntake  sensory: out of a ring that the agent creates

They may be made in any thread; `start` and `stop` belong to the event loop. A frame is copied in
the loop, which takes the time of one memcpy. The twin is `streams`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError, DeliveryTimeoutError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.loop_side import loop_side
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.transports.shm.header import SegmentShape
from feagi_io_host.transports.shm.intake import SensoryGate
from feagi_io_host.transports.shm.ring import RingWriter
from feagi_io_host.transports.shm.streams import sensory_name

_log = logging.getLogger("feagi_io.shm")

# How long a wait lasts before the task looks whether the agent has left.
_LOOK_AROUND_S: Final = 0.1
# So many frames in a row; then the other tasks of the loop have their turn.
_FAIR_SHARE: Final = 16


class Watch:
    """Waits for one of some descriptors; a wait that is over leaves nothing in the loop."""

    __slots__ = ("_woken",)

    def __init__(self) -> None:
        self._woken: asyncio.Future[None] | None = None

    async def wait(self, fds: tuple[int, ...], timeout_s: float) -> None:
        """Until one of them is readable, `wake` is called, or so many seconds have passed."""
        loop = asyncio.get_running_loop()
        self._woken = woken = loop.create_future()
        timer = loop.call_later(timeout_s, self.wake)
        try:
            for fd in fds:
                loop.add_reader(fd, self.wake)
            await woken
        finally:
            self._woken = None
            timer.cancel()
            for fd in fds:
                loop.remove_reader(fd)

    def wake(self) -> None:
        """End the wait. Only in the loop."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)


class AsyncStreamFeed:
    """Writes what comes out of an agent's channel into a ring. `url` is for the agent.

    A frame is taken from the channel only while a reader is there, so that what nobody can receive
    yet waits in the channel, under the delivery table.
    """

    def __init__(self, stream: StreamType, shape: SegmentShape, folder: Path) -> None:
        """Raises LocalError where there is no shared memory, or none left."""
        self._stream = stream
        self._ring = RingWriter(shape, folder=folder)
        self._watch = Watch()
        self._worker: AsyncWorker | None = None

    @property
    def url(self) -> str:
        """`shm://<name>`."""
        return self._ring.url

    def start(self, agent: AttachedAgent, on_end: Callable[[], object]) -> None:
        """Feed the ring until the agent is closed; then `on_end()`.

        Raises LocalError for a channel that no event loop drains.
        """
        channel = loop_side(agent, self._stream).awaited

        async def run(stopping: asyncio.Event) -> None:
            delivered = 0
            try:
                while not stopping.is_set():
                    if self._ring.serve():
                        fbc = await channel.get(_LOOK_AROUND_S)
                        if fbc is not None:
                            with fbc:
                                await self._deliver(agent, fbc, stopping)
                            delivered += 1
                            if delivered % _FAIR_SHARE == 0:
                                await asyncio.sleep(0)
                    elif channel.closed:
                        return
                    elif self._ring.is_unlinked():
                        agent.close("its shared memory was removed by somebody")
                    else:
                        await self._watch.wait((self._ring.fileno(),), _LOOK_AROUND_S)
            except ClosedError:
                return  # the agent was detached: the ordinary end
            finally:
                self._ring.close()
                on_end()

        name = f"feagi-io-shm-{channel.name}"
        self._worker = AsyncWorker(name, run, wake=self._watch.wake)
        self._worker.start()

    async def stop(self, timeout_s: float) -> None:
        """End the task and remove the ring. Raises StopTimeoutError."""
        if self._worker is not None:
            await self._worker.stop(timeout_s)
        self._ring.close()  # of a task that never began

    def discard(self) -> None:
        """Remove a ring that was not started. From any thread."""
        self._ring.close()

    async def _deliver(self, agent: AttachedAgent, fbc: SharedFBC, stopping: asyncio.Event) -> None:
        """Write a frame, however long that takes, as long as the agent is attached."""
        counters = agent.counters[self._stream]
        if len(fbc) > self._ring.shape.payload_bytes:
            counters.count_dropped("too large")
            return
        in_order = self._stream is StreamType.MOTOR
        while not (stopping.is_set() or agent.closed):
            room = self._ring.room_filenos() if in_order else ()
            try:
                if self._ring.write(fbc.view):
                    agent.sent_to_wire(self._stream, fbc)
                    return
                # The reader has gone; perhaps one comes.
                await self._watch.wait((self._ring.fileno(),), _LOOK_AROUND_S)
            except DeliveryTimeoutError:
                # It does not read: as long as the ring is full, this goes on.
                await self._watch.wait(room, _LOOK_AROUND_S)
            except LocalError as error:
                if isinstance(error, ClosedError):
                    break
                _log.warning("%s frame not sent: %s", self._stream.value, error)
                counters.count_dropped("no memory")
                return
        counters.count_dropped("closed")


class AsyncSensoryIntake(SensoryGate):
    """A SensoryGate with a task."""

    def __init__(self, max_frame_bytes: int, folder: Path) -> None:
        """Raises LocalError when there is no place to listen at."""
        super().__init__(max_frame_bytes, folder)
        self._watch = Watch()
        self._worker: AsyncWorker | None = None

    def start(self, agent: AttachedAgent, on_end: Callable[[], object]) -> None:
        """Submit what comes until the agent is closed; then `on_end()`."""

        async def run(stopping: asyncio.Event) -> None:
            try:
                while not (stopping.is_set() or agent.closed):
                    await self._watch.wait((self.fileno(),), _LOOK_AROUND_S)
                    self.attend(agent, 0.0)
            except ClosedError:
                return  # the agent was detached in the middle
            finally:
                self.close()
                on_end()

        self._worker = AsyncWorker(sensory_name(agent), run, wake=self._watch.wake)
        self._worker.start()

    async def stop(self, timeout_s: float) -> None:
        """Stop listening and wait for the task. Raises StopTimeoutError."""
        if self._worker is not None:
            await self._worker.stop(timeout_s)
        self.close()  # of a task that never began

    def discard(self) -> None:
        """Stop listening where nothing was started. From any thread."""
        self.close()
