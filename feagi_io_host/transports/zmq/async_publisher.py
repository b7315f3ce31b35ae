# SPDX-License-Identifier: Apache-2.0
"""AsyncStreamPublisher: one outbound stream of one agent, from its channel to its socket.

It takes a frame from the channel only when a subscriber is there and the one before has gone, so
that what nobody can receive yet waits in the channel, under the delivery table. A frame that is
published in the loop itself while nothing waits is sent there and then, without waking the task.
The twin of `publisher`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.loop_side import loop_side
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.transports.zmq.async_socket import SocketWatch
from feagi_io_host.transports.zmq.common import send_message
from feagi_io_host.transports.zmq.packing import AS_IT_IS, Plan, StreamPacker, send_tracked
from feagi_io_host.transports.zmq.slots import Slot
from feagi_io_host.transports.zmq.wire_form import Subscriptions, topic_of, with_topic

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike

# How long a wait lasts before the task looks whether it should end.
_LOOK_AROUND_S: Final = 0.1
# So many frames in a row; then the other tasks of the loop have their turn.
_FAIR_SHARE: Final = 16


class AsyncStreamPublisher:
    """Sends what comes out of `agent`'s channel for `stream`, in a task of its own.

    The slot is its own from `start` on. `on_end(publisher)` is called once, when the channel was
    closed and the socket is closed as well. With `topics` each message begins with the stream's
    name; `packer` packs, in a thread of `beside`, for receivers that can unpack, one of the two
    only. Raises LocalError for a channel of another kind.
    """

    def __init__(
        self,
        agent: AttachedAgent,
        stream: StreamType,
        slot: Slot,
        max_frame_bytes: int,
        on_end: Callable[[AsyncStreamPublisher], object],
        *,
        topics: bool = False,
        packer: StreamPacker | None = None,
        beside: Executor | None = None,
    ) -> None:
        self.subscribed = asyncio.Event()
        self.agent = agent
        self._stream = stream
        self._newest_wins = stream is StreamType.VISUALIZATION
        self._side = loop_side(agent, stream)
        self._channel = self._side.awaited
        self._counters = agent.counters[stream]
        self._slot = slot
        self._socket = slot.socket
        self._max_frame_bytes = max_frame_bytes
        self._on_end = on_end
        self._topics = topics
        self._packer = packer
        self._beside = beside
        self._subscribers = Subscriptions(
            self._socket, topic=topic_of(stream) if topics else b"", packs=packer is not None
        )
        self._delivering = False
        self._in_flight: deque[tuple[zmq.MessageTracker, SharedFBC]] = deque()
        self._collecting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._watch: SocketWatch | None = None
        self._timing: tuple[zmq.MessageTracker, int] | None = None
        self._moved: asyncio.Future[None] | None = None
        self._closed = False
        self._worker = AsyncWorker(f"feagi-io-zmq-{self._channel.name}", self._run)

    def start(self) -> None:
        """Start the task. Raises what SocketWatch raises; the slot stays the caller's then."""
        self._socket.setsockopt(zmq.SNDTIMEO, 0)
        self._watch = SocketWatch(self._socket, self._look)
        self._worker.start()
        self._side.send_now = self._send_now

    async def stop(self, timeout_s: float) -> None:
        """Wait for the task; the channel is closed by now. Raises StopTimeoutError."""
        await self._worker.stop(timeout_s)
        self._close()  # for a task that was cancelled before it began

    async def _run(self, stopping: asyncio.Event) -> None:
        sent = 0
        try:
            while not stopping.is_set():
                if not self._subscribers:
                    if self._channel.closed:
                        return
                    await self._wait(_LOOK_AROUND_S)
                    continue
                fbc = await self._channel.get()
                if fbc is None:
                    continue
                self._delivering = True
                await self._deliver(fbc, stopping)
                self._delivering = False
                sent += 1
                if sent % _FAIR_SHARE == 0:
                    await asyncio.sleep(0)
        except ClosedError:
            return  # the agent was detached: the ordinary end
        except Exception:
            self.agent.close(f"its {self._stream.value} stream failed")
            raise
        finally:
            self._close()

    async def _deliver(self, fbc: SharedFBC, stopping: asyncio.Event) -> None:
        """Send a frame, however long that takes, as long as the agent is attached."""
        message, plan = self._form(fbc)
        while True:
            if len(fbc) > self._max_frame_bytes:
                self._counters.count_dropped("too large")
                fbc.release()
                return
            try:
                # A subscriber may have left since this was last looked at; without one the socket
                # would swallow the frame.
                self._see_subscriptions()
                if plan.pack and message is None and self._subscribers.all_unpack:
                    message = await self._pack(fbc)
                    continue  # others may have come meanwhile
                if self._subscribers and self._try_to_send(fbc, message, timed=plan.time):
                    break
                # Not looked at between the try and this wait: what has changed meanwhile ends it.
                await self._wait(_LOOK_AROUND_S)
            except BaseException:
                self._drop(fbc)
                raise
            if stopping.is_set() or self._channel.closed:
                self._drop(fbc)
                return
            if self._newest_wins and (newer := self._newer(fbc)) is not fbc:
                fbc = newer
                message, plan = self._form(fbc)
        # Sending may have taken away the descriptor's message that somebody came or went.
        self._see_subscriptions()
        if self._timing is not None:
            await self._time(*self._timing)

    def _form(self, fbc: SharedFBC) -> tuple[BytesLike | None, Plan]:
        """The frame's message, if that is another than its bytes, and what is planned with it."""
        if self._topics:
            return with_topic(self._stream, fbc.view), AS_IT_IS
        if self._packer is not None and self._subscribers.all_unpack:
            return None, self._packer.plan(len(fbc))
        return None, AS_IT_IS

    async def _pack(self, fbc: SharedFBC) -> BytesLike:
        """The frame packed, or its own bytes where that does not pay; in a thread."""
        assert self._packer is not None
        return await self._loop.run_in_executor(self._beside, self._packer.pack, fbc.view)

    async def _time(self, tracker: zmq.MessageTracker, size_bytes: int) -> None:
        assert self._packer is not None
        self._timing = None
        await self._loop.run_in_executor(self._beside, self._packer.time, tracker, size_bytes)

    def _send_now(self, fbc: SharedFBC) -> bool:
        """For the channel: send a frame in this very call, if it is its turn."""
        if (
            asyncio._get_running_loop() is not self._loop
            or self._delivering
            or len(self._channel)
            or self._channel.closed
            or len(fbc) > self._max_frame_bytes
        ):
            return False
        try:
            self._see_subscriptions()
            if not self._subscribers or (self._packer is not None and self._subscribers.all_unpack):
                return False
            message = with_topic(self._stream, fbc.view) if self._topics else None
            sent = self._try_to_send(fbc, message)
        except zmq.ZMQError:
            return False  # the task meets it as well, and reports it
        if sent:
            self._see_subscriptions()
        return sent

    def _try_to_send(
        self, fbc: SharedFBC, message: BytesLike | None, *, timed: bool = False
    ) -> bool:
        """Send a frame if there is room; it is given back then, now or later."""
        packed = self._packer is not None and message is not None
        if message is None or (packed and not self._subscribers.all_unpack):
            message = fbc.view
        try:
            send = send_tracked if timed else send_message
            tracker = send(self._socket, message)
        except zmq.Again:
            return False  # the subscriber does not read: as long as it is full, this goes on
        if timed and tracker is not None:
            self._timing = tracker, memoryview(message).nbytes
        self.agent.sent_to_wire(self._stream, fbc)
        # Whether the message is the frame's own memory or one of its own: a lease does no harm.
        if tracker is None:
            fbc.release()
        else:
            self._in_flight.append((tracker, fbc))
            self._give_back_sent()
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

    def _give_back_sent(self) -> None:
        while self._in_flight and self._in_flight[0][0].done:
            self._in_flight.popleft()[1].release()
        if self._in_flight and self._collecting is None:
            self._collecting = self._loop.call_later(_LOOK_AROUND_S, self._collect)

    def _collect(self) -> None:
        self._collecting = None
        self._give_back_sent()

    def _look(self) -> bool:
        """For the watch: something has happened at the socket."""
        self._see_subscriptions()
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)
        return False

    async def _wait(self, timeout_s: float) -> None:
        """Until something happens at the socket, `timeout_s` seconds at most."""
        self._moved = moved = self._loop.create_future()
        timer = self._loop.call_later(timeout_s, self._look)
        try:
            await moved
        finally:
            timer.cancel()
            self._moved = None

    def _see_subscriptions(self) -> None:
        if not self._subscribers.look():
            return
        if self._subscribers:
            self.subscribed.set()
        else:
            self.subscribed.clear()
        if self._watch is not None:
            self._watch.again()  # there may be more of them

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._side.send_now = None
        if self._collecting is not None:
            self._collecting.cancel()
        if self._watch is not None:
            self._watch.close()
        self._slot.close()
        while self._in_flight:
            self._in_flight.popleft()[1].release()
        self._on_end(self)
