# SPDX-License-Identifier: Apache-2.0
"""StreamPublisher: one outbound stream of one agent, from its channel to its socket.

A frame is sent by the thread that publishes it, as long as the wire is free: waking another
thread takes as long as the whole way to a receiver. What that thread cannot do at once is the
worker's: what waits for a subscriber or for room, what is to be compressed, and looking around.

  1. Every frame goes through the channel, under the delivery table. Who holds `_turn` takes
     frames out and sends them, so that the order of the channel is the order on the wire; a zmq
     socket may be used by several threads if they take turns.
  2. Who publishes never waits for the turn, nor for the socket. What it leaves behind it tells
     the worker; the worker looks into the channel after each time it was told.
  3. A frame that was taken out and could not be sent yet is `_head`, the next in turn.
  4. A frame is taken out only when a subscriber is there, so that what nobody can receive yet
     waits in the channel.
  5. A frame that is to be packed or timed is left to the worker, and what comes behind it too.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.carrier import AttachedAgent, FrameChannel
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import ClosedError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.common import send_message
from feagi_io_host.transports.zmq.packing import AS_IT_IS, StreamPacker
from feagi_io_host.transports.zmq.slots import Slot
from feagi_io_host.transports.zmq.wire_form import Subscriptions, topic_of, with_topic

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike

# How long a wait lasts before the thread looks whether it should end or the subscriber left.
_LOOK_AROUND_S: Final = 0.1


class WireChannel(BoundedChannel[SharedFBC]):
    """A channel that tells its publisher at once, in the thread that has put a frame in."""

    __slots__ = ("_publisher",)

    _publisher: StreamPublisher | None

    @classmethod
    def make(
        cls, rule: DeliveryRule, *, on_drop: Callable[[SharedFBC], object], name: str
    ) -> FrameChannel:
        """The ChannelMaker."""
        channel = cls(rule.capacity, rule.on_full, on_drop=on_drop, name=name)
        channel._publisher = None
        return channel

    def lead_to(self, publisher: StreamPublisher) -> None:
        """From here on frames are this publisher's."""
        self._publisher = publisher

    def put(self, item: SharedFBC, timeout_s: float | None = None) -> None:
        """Hand a frame over, and send it if the wire is free; see BoundedChannel."""
        super().put(item, timeout_s)
        if self._publisher is not None:
            self._publisher.send_now()

    def try_put(self, item: SharedFBC) -> bool:
        """Hand a frame over if there is room, and send it if the wire is free."""
        taken = super().try_put(item)
        if taken and self._publisher is not None:
            self._publisher.send_now()
        return taken

    def close(self) -> None:
        """Close for good; the publisher ends."""
        super().close()
        if self._publisher is not None:
            self._publisher.wake()


class StreamPublisher:
    """Sends what comes out of `agent`'s channel for `stream`, which must be a WireChannel.

    The slot is its own from `start` on. `on_end(publisher)` is called by its worker when the
    channel was closed and the socket is closed as well. With `topics` each message begins with
    the stream's name; `packer` packs for receivers that can unpack, one of the two only. Raises
    LocalError for another channel.
    """

    def __init__(
        self,
        agent: AttachedAgent,
        stream: StreamType,
        slot: Slot,
        max_frame_bytes: int,
        on_end: Callable[[StreamPublisher], object],
        *,
        topics: bool = False,
        packer: StreamPacker | None = None,
    ) -> None:
        self.subscribed = threading.Event()
        self.agent = agent
        self._stream = stream
        self._newest_wins = stream is StreamType.VISUALIZATION
        channel = agent.visualization if self._newest_wins else agent.motor
        if not isinstance(channel, WireChannel):
            raise LocalError(
                f"{channel.name}: a {type(channel).__name__}; attach agents with the carrier's "
                "`channel` for the streams that it is to serve"
            )
        self._channel = channel
        self._counters = agent.counters[stream]
        self._slot = slot
        self._socket = slot.socket
        self._max_frame_bytes = max_frame_bytes
        self._on_end = on_end
        self._pid = os.getpid()
        self._turn = threading.Lock()
        self._wake = threading.Event()
        self._worker = Worker(f"feagi-io-zmq-{channel.name}", self._run)
        # From here on: who holds the turn.
        self._ended = False
        self._topics = topics
        self._packer = packer
        self._subscribers = Subscriptions(
            self._socket, topic=topic_of(stream) if topics else b"", packs=packer is not None
        )
        self._head: SharedFBC | None = None
        self._plan = AS_IT_IS
        self._message: BytesLike | None = None  # of the head, once it was put into form
        self._in_flight: deque[tuple[zmq.MessageTracker, SharedFBC]] = deque()

    def start(self) -> None:
        """Start the worker. Raises RuntimeError when the system has no thread left."""
        self._socket.setsockopt(zmq.SNDTIMEO, int(_LOOK_AROUND_S * 1000))
        self._worker.start()
        self._channel.lead_to(self)
        self._wake.set()  # for frames that came before this publisher was known

    def stop(self, timeout_s: float) -> None:
        """Wait for the worker; the channel is closed by now. Raises StopTimeoutError."""
        self._worker.stop(timeout_s)

    def wake(self) -> None:
        """Let the worker look around."""
        if os.getpid() == self._pid:
            self._wake.set()

    def send_now(self) -> None:
        """Send what waits in the channel as far as that needs no waiting; the worker does the
        rest."""
        # In a forked child the socket is the parent's, and nobody holds or gives the turn.
        if os.getpid() != self._pid:
            return
        done = False
        if self._turn.acquire(blocking=False):
            try:
                done = self._ended or self._send(zmq.DONTWAIT)
            except ClosedError:
                done = True  # detached meanwhile: the frames have been dropped and counted
            except zmq.ZMQError:
                done = False  # the worker meets it as well, and reports it
            finally:
                self._turn.release()
        if not done:
            self._wake.set()

    # -- the worker ---------------------------------------------------------------------------

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not (stopping.is_set() or self._channel.closed):
                with self._turn:
                    self._see_subscriptions()
                    done = self._send(0)
                    if not self._subscribers:
                        self._socket.poll(int(_LOOK_AROUND_S * 1000), zmq.POLLIN)
                        continue
                if done:
                    self._wake.wait(_LOOK_AROUND_S)
                    self._wake.clear()
        except ClosedError:
            return  # the agent was detached: the ordinary end
        except BaseException:
            self.agent.close(f"its {self._stream.value} stream failed")
            raise
        finally:
            self._end()

    def _end(self) -> None:
        with self._turn:
            self._ended = True
            self._slot.close()
            if self._head is not None:
                self._counters.count_dropped("closed")
                self._head.release()
                self._head = None
            while self._in_flight:
                self._in_flight.popleft()[1].release()
        self._on_end(self)

    # -- who holds the turn -------------------------------------------------------------------

    def _send(self, flags: int) -> bool:
        """Send what waits; true when nothing is left. Raises ClosedError with the channel."""
        self._give_back_sent()
        while True:
            if self._head is None and not len(self._channel):
                return True
            # A subscriber may have left since the last frame; without one the socket would
            # swallow this one.
            self._see_subscriptions()
            if not self._subscribers:
                return False
            fbc = self._take()
            if fbc is None:
                continue
            if self._plan and flags & zmq.DONTWAIT:
                return False
            try:
                tracker = self._send_one(fbc, flags)
            except zmq.Again:
                return False  # the subscriber does not read
            own_memory = self._message is None
            self._head = self._message = None
            self.agent.sent_to_wire(self._stream, fbc)
            if tracker is not None and own_memory:
                self._in_flight.append((tracker, fbc))
            else:
                fbc.release()

    def _send_one(self, fbc: SharedFBC, flags: int) -> zmq.MessageTracker | None:
        if self._plan:
            return self._send_planned(fbc)
        if self._topics:
            if self._message is None:
                self._message = with_topic(self._stream, fbc.view)
            return send_message(self._socket, self._message, flags)
        return send_message(self._socket, fbc.view, flags)

    def _send_planned(self, fbc: SharedFBC) -> zmq.MessageTracker | None:
        """For the worker: pack and time as planned, as long as all who listen can unpack."""
        assert self._packer is not None
        if not self._subscribers.all_unpack:
            self._message = None
        elif self._plan.pack and self._message is None:
            packed = self._packer.pack(fbc.view)
            if isinstance(packed, bytes):
                self._message = packed
        message = fbc.view if self._message is None else self._message
        if self._plan.time:
            return self._packer.send_timed(self._socket, message)
        return send_message(self._socket, message)

    def _take(self) -> SharedFBC | None:
        """The next frame, which is `_head` until it is sent; None when it had to be dropped."""
        fbc = self._head
        if fbc is not None and not (self._newest_wins and len(self._channel)):
            return fbc
        newer = self._channel.get(0.0)
        if newer is None:  # it is being replaced at this moment
            return fbc
        if fbc is not None:
            self._counters.count_dropped("replaced")
            fbc.release()
        self._head, self._message = newer, None
        size_bytes = len(newer)
        if size_bytes > self._max_frame_bytes:
            self._counters.count_dropped("too large")
            self._head = None
            newer.release()
        elif self._packer is not None:
            unpacked = self._subscribers.all_unpack
            self._plan = self._packer.plan(size_bytes) if unpacked else AS_IT_IS
        return self._head

    def _give_back_sent(self) -> None:
        while self._in_flight and self._in_flight[0][0].done:
            self._in_flight.popleft()[1].release()

    def _see_subscriptions(self) -> None:
        if self._subscribers.look():
            if self._subscribers:
                self.subscribed.set()
            else:
                self.subscribed.clear()
