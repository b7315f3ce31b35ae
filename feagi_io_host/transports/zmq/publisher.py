# SPDX-License-Identifier: Apache-2.0
"""StreamPublisher: one outbound stream of one agent, from its channel to its socket.

It takes a frame from the channel only when a subscriber is there and the one before has gone, so
that what nobody can receive yet waits in the channel, under the delivery table.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.carrier import AttachedAgent, FrameChannel
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.common import send_frame
from feagi_io_host.transports.zmq.slots import Slot

# How long a wait lasts before the thread looks whether it should end or the subscriber left.
_LOOK_AROUND_S: Final = 0.1
# To everything: the byte that says what, and an empty topic.
_SUBSCRIBE: Final = b"\x01"
_UNSUBSCRIBE: Final = b"\x00"


class StreamPublisher:
    """Sends what comes out of `agent`'s channel for `stream`, in a thread of its own.

    The slot is its own from here on. `on_end(publisher)` is called by its thread when the
    channel was closed and the socket is closed as well.
    """

    def __init__(
        self,
        agent: AttachedAgent,
        stream: StreamType,
        slot: Slot,
        max_frame_bytes: int,
        on_end: Callable[[StreamPublisher], object],
    ) -> None:
        self.subscribed = threading.Event()
        self._agent = agent
        self._newest_wins = stream is StreamType.VISUALIZATION
        self._channel: FrameChannel = agent.visualization if self._newest_wins else agent.motor
        self._counters = agent.counters[stream]
        self._slot = slot
        self._socket = slot.socket
        self._max_frame_bytes = max_frame_bytes
        self._on_end = on_end
        self._subscribers = 0
        self._in_flight: deque[tuple[zmq.MessageTracker, SharedFBC]] = deque()
        self._worker = Worker(f"feagi-io-zmq-{self._channel.name}", self._run)

    def start(self) -> None:
        """Start the thread."""
        self._socket.setsockopt(zmq.SNDTIMEO, int(_LOOK_AROUND_S * 1000))
        self._worker.start()

    def stop(self, timeout_s: float) -> None:
        """Wait for the thread; the channel is closed by now. Raises StopTimeoutError."""
        self._worker.stop(timeout_s)

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                self._see_subscriptions()
                self._give_back_sent()
                if not self._subscribers:
                    if self._channel.closed:
                        return
                    self._socket.poll(int(_LOOK_AROUND_S * 1000), zmq.POLLIN)
                    continue
                fbc = self._channel.get(_LOOK_AROUND_S)
                if fbc is not None:
                    self._deliver(fbc, stopping)
        except ClosedError:
            return  # the agent was detached: the ordinary end
        finally:
            self._slot.close()
            while self._in_flight:
                self._in_flight.popleft()[1].release()
            self._on_end(self)

    def _deliver(self, fbc: SharedFBC, stopping: threading.Event) -> None:
        """Send a frame, however long that takes, as long as the agent is attached."""
        while True:
            if len(fbc) > self._max_frame_bytes:
                self._counters.count_dropped("too large")
                fbc.release()
                return
            # A subscriber may have left while this thread waited for the frame; without one the
            # socket would swallow it.
            self._see_subscriptions()
            if self._subscribers:
                try:
                    tracker = send_frame(self._socket, fbc)
                except zmq.Again:
                    pass  # the subscriber does not read: as long as it is full, this goes on
                else:
                    self._keep_until_sent(tracker, fbc)
                    return
            else:
                self._socket.poll(int(_LOOK_AROUND_S * 1000), zmq.POLLIN)
            if stopping.is_set() or self._channel.closed:
                self._counters.count_dropped("closed")
                fbc.release()
                return
            if self._newest_wins:
                fbc = self._newer(fbc)

    def _newer(self, fbc: SharedFBC) -> SharedFBC:
        try:
            newer = self._channel.get(0.0)
        except ClosedError:
            return fbc
        if newer is None:
            return fbc
        self._counters.count_dropped("replaced")
        fbc.release()
        return newer

    def _keep_until_sent(self, tracker: zmq.MessageTracker | None, fbc: SharedFBC) -> None:
        if tracker is None:
            fbc.release()
        else:
            self._in_flight.append((tracker, fbc))

    def _give_back_sent(self) -> None:
        while self._in_flight and self._in_flight[0][0].done:
            self._in_flight.popleft()[1].release()

    def _see_subscriptions(self) -> None:
        while int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            message = self._socket.recv(zmq.DONTWAIT, copy=False)
            # Topics are no part of this wire: who subscribes to less than everything gets nothing,
            # and what else a subscriber may say is not for us.
            told = message.bytes if len(message) == 1 else b""
            if told == _SUBSCRIBE:
                self._subscribers += 1
            elif told == _UNSUBSCRIBE and self._subscribers:
                self._subscribers -= 1
        if self._subscribers:
            self.subscribed.set()
        else:
            self.subscribed.clear()
