# SPDX-License-Identifier: Apache-2.0
"""How a host or another transport, in whatever thread, hands streams and frames to a loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from feagi_io_host.core.carrier import AttachedAgent, FrameChannel
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.channels import AsyncBoundedChannel, ThreadSide

T = TypeVar("T")


class LoopSide(ThreadSide[SharedFBC]):
    """The host's side of a channel that a loop drains; `awaited` is the loop's side.

    `send_now` is asked first, whether it sends the frame in this very call; when it says True the
    lease is its own.
    """

    __slots__ = ("awaited", "send_now")

    def __init__(self, awaited: AsyncBoundedChannel[SharedFBC]) -> None:
        super().__init__(awaited)
        self.awaited = awaited
        self.send_now: Callable[[SharedFBC], bool] | None = None

    def put(self, item: SharedFBC, timeout_s: float | None = None) -> None:
        """Hand a frame over; see `AsyncBoundedChannel.put`."""
        send_now = self.send_now
        if send_now is None or not send_now(item):
            super().put(item, timeout_s)

    def try_put(self, item: SharedFBC) -> bool:
        """Hand a frame over if there is room; see `AsyncBoundedChannel.try_put`."""
        send_now = self.send_now
        return (send_now is not None and send_now(item)) or super().try_put(item)


def loop_channel(
    rule: DeliveryRule, *, on_drop: Callable[[SharedFBC], object], name: str
) -> FrameChannel:
    """The ChannelMaker of a carrier in an event loop."""
    return LoopSide(AsyncBoundedChannel[SharedFBC].for_rule(rule, on_drop=on_drop, name=name))


def loop_side(agent: AttachedAgent, stream: StreamType) -> LoopSide:
    """The agent's channel for an outbound stream. Raises LocalError when no event loop drains
    it."""
    side = agent.motor if stream is StreamType.MOTOR else agent.visualization
    if not isinstance(side, LoopSide):
        raise LocalError(
            f"{side.name} is a {type(side).__name__}, which no event loop drains; attach the agent "
            "with the carrier's own `channel`"
        )
    return side


class Arrivals(Generic[T]):
    """Brings things from any thread into `loop`, where `take` is called with each."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[T], object]) -> None:
        self._loop = loop
        self._take = take
        self._lock = threading.Lock()
        self._waiting: deque[T] = deque()
        self._closed = False

    def hand_over(self, arrival: T) -> bool:
        """Hand one over, from any thread; when False it stays the caller's: nobody takes it."""
        with self._lock:
            if self._closed:
                return False
            try:
                self._loop.call_soon_threadsafe(self._take_all)
            except RuntimeError:  # the loop was closed before the transport was stopped
                return False
            self._waiting.append(arrival)
        return True

    def close(self) -> tuple[T, ...]:
        """Take no more; those that were not taken yet are the caller's."""
        with self._lock:
            self._closed = True
            left = tuple(self._waiting)
            self._waiting.clear()
        return left

    def _take_all(self) -> None:
        with self._lock:
            arrived = tuple(self._waiting)
            self._waiting.clear()
        for arrival in arrived:
            self._take(arrival)
