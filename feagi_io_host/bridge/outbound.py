# SPDX-License-Identifier: Apache-2.0
"""Frames on their way from the PNS to one board.

Each outbound stream has a thread that takes frames from the agent's channel and stages the next
one; whoever flushes the line encodes what is staged once the out-buffer is free, motor before
visualization. A stage holds one frame: the queue is the channel, where the delivery table rules.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from feagi_io_host.blocking.worker import Worker
from feagi_io_host.bridge.screening import Screen
from feagi_io_host.bridge.settings import LinkCounters
from feagi_io_host.core.carrier import FrameChannel
from feagi_io_host.core.errors import ClosedError, FeagiDataError, StopTimeoutError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.pns import AgentSession
from feagi_wire.const import E_CAPACITY, E_FULL
from feagi_wire.container import StaticFBC
from feagi_wire.link import Link

_log = logging.getLogger("feagi_io.bridge")

# In the order in which they go out.
STREAMS_OUT: Final = (StreamType.MOTOR, StreamType.VISUALIZATION)
_FEEDER_STOP_S: Final = 1.0
_STAGE_LOOK_S: Final = 1.0


class OutboundFrames:
    """The stages of one line, and the threads that fill them while a session is up.

    `lock` is the one that guards the line's link. `flush` is called without it after a frame was
    staged. `largest` is the size of the largest container that can be sent at all.
    """

    def __init__(
        self,
        port: str,
        lock: threading.Lock,
        counters: LinkCounters,
        *,
        largest: int,
        supersede_motor: bool,
        flush: Callable[[], object],
    ) -> None:
        self.largest = largest
        self.too_large: tuple[StreamType, int] | None = None
        self._port = port
        self._lock = lock
        self._counters = counters
        self._supersede_motor = supersede_motor
        self._flush = flush
        self._taken = threading.Condition(lock)
        self._stages: dict[StreamType, SharedFBC | None] = dict.fromkeys(STREAMS_OUT)
        self._session: AgentSession | None = None
        self._feeders: list[Worker] = []
        self._copy = StaticFBC(bytearray(largest))

    # -- the session, in the line's thread --------------------------------------------------------

    def begin(self, session: AgentSession, screen: Screen, *, motor: bool, shown: bool) -> None:
        """Carry the frames of a session that has come up: motor, visualization, both or none."""
        with self._lock:
            self._session = session
        if motor:
            self._feed(session, StreamType.MOTOR, session.motor, screen)
        if shown:
            self._feed(session, StreamType.VISUALIZATION, session.visualization, screen)

    def end(self, session: AgentSession, reason: str) -> None:
        """Close the session and drop all its frames, staged and queued, counted.

        A set-point of before a loss must not reach an actuator after it.
        """
        with self._lock:
            self._session = None
            for stream, fbc in self._stages.items():
                if fbc is not None:
                    self._stages[stream] = None
                    fbc.release()
                    self._drop(session, stream, "closed")
            self._taken.notify_all()
        before = session.motor.drops_by_reason().get("closed", 0)
        session.close(reason)
        queued = session.motor.drops_by_reason().get("closed", 0) - before
        with self._lock:
            self._count_dropped(StreamType.MOTOR, queued)
        feeders, self._feeders = self._feeders, []
        for feeder in feeders:
            try:
                feeder.stop(_FEEDER_STOP_S)
            except StopTimeoutError as error:
                _log.error("%s", error)

    # -- towards the line, with the lock held -----------------------------------------------------

    def encode(self, link: Link, now: int) -> None:
        """Put the most urgent staged frame into the link's out-buffer, which must be free.

        A frame that cannot be sent is dropped and counted; one that is too large is kept in
        `too_large` as (stream, bytes) until somebody reports it.
        """
        for stream, fbc in self._stages.items():
            if fbc is None:
                continue
            size = len(fbc)
            rc = E_CAPACITY
            if size <= self.largest:
                self._copy.buf[:size] = fbc.view
                rc = link.send(stream.wire, self._copy, size, now)
            if rc == E_FULL:
                return
            self._stages[stream] = None
            self._taken.notify_all()
            session = self._session
            if rc > 0:
                if session is not None:
                    session.sent_to_wire(stream, fbc)
                fbc.release()
                self._count_sent(stream)
                return
            fbc.release()
            if rc == E_CAPACITY:
                self._counters.too_large += 1
                self.too_large = (stream, size)
            self._drop(session, stream, "too large" if rc == E_CAPACITY else "closed")

    def _count_sent(self, stream: StreamType) -> None:
        if stream is StreamType.MOTOR:
            self._counters.motor_sent += 1
        else:
            self._counters.visualization_sent += 1

    def _drop(self, session: AgentSession | None, stream: StreamType, reason: str) -> None:
        """Count a frame that had left the channel, for the line and for the agent."""
        self._count_dropped(stream)
        if session is not None:
            session.counters[stream].count_dropped(reason)

    def _count_dropped(self, stream: StreamType, frames: int = 1) -> None:
        if stream is StreamType.MOTOR:
            self._counters.motor_dropped += frames
        else:
            self._counters.visualization_dropped += frames

    # -- a thread per stream ----------------------------------------------------------------------

    def _feed(
        self,
        session: AgentSession,
        stream: StreamType,
        channel: FrameChannel,
        screen: Screen,
    ) -> None:
        feeder = Worker(
            f"feagi-io-board-{stream.value} {self._port}",
            lambda stopping: self._feed_until_closed(session, stream, channel, screen),
            wake=channel.close,
        )
        self._feeders.append(feeder)
        feeder.start()

    def _feed_until_closed(
        self,
        session: AgentSession,
        stream: StreamType,
        channel: FrameChannel,
        screen: Screen,
    ) -> None:
        supersede = stream is StreamType.MOTOR and self._supersede_motor
        while supersede or self._wait_until_taken(session, stream):
            try:
                fbc = channel.get(None)  # ends when the session closes its channels
            except ClosedError:
                return
            if fbc is None:
                continue
            passed = self._passed(session, fbc, screen) if stream is StreamType.MOTOR else fbc
            if passed is None:
                continue
            if not self._stage(session, stream, passed):
                return
            self._flush()

    def _passed(self, session: AgentSession, fbc: SharedFBC, screen: Screen) -> SharedFBC | None:
        """The part of a motor frame that the board has declared; takes over the lease of `fbc`."""
        with fbc:
            try:
                passed = screen.cut_motor(fbc)
            except FeagiDataError as error:
                _log.debug("%s: motor frame that does not verify: %s", self._port, error)
                passed = None
        if passed is None:
            with self._lock:
                self._drop(session, StreamType.MOTOR, "undeclared")
        return passed

    def _wait_until_taken(self, session: AgentSession, stream: StreamType) -> bool:
        """Wait until the stage is empty; False when the session is over."""
        with self._lock:
            while self._session is session and self._stages[stream] is not None:
                # woken by each frame taken and by the session's end
                self._taken.wait(_STAGE_LOOK_S)
            return self._session is session

    def _stage(self, session: AgentSession, stream: StreamType, fbc: SharedFBC) -> bool:
        """Make `fbc` the next frame of `stream`; False (and it is dropped) after the session."""
        with self._lock:
            if self._session is not session:
                self._drop(session, stream, "closed")
                fbc.release()
                return False
            old, self._stages[stream] = self._stages[stream], fbc
            if old is not None:
                self._counters.motor_superseded += 1
                session.counters[stream].count_dropped("replaced")
                old.release()
            return True
