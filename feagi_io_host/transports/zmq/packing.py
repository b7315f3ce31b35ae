# SPDX-License-Identifier: Apache-2.0
"""StreamPacker: LZ4 for one outbound stream, and how fast its link is.

A publisher asks for a plan when it takes a frame up. A frame that is to be packed or timed is
sent by the publisher's worker, any other by the thread that has published it.

The time of a link is that until the ZMQ library has handed a whole frame to the system. As long
as the system's buffers take it at once, the link is fast enough, whatever it is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.blocking.compression import FrameCompressor
from feagi_io_host.core.compression import CompressionMode, CompressionSettings

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike, ZmqSocket

# Of so many frames that might be packed, one is timed.
_TIMED_EVERY: Final = 16
# Longer is not waited for; a link that takes longer is slow enough to know.
_LONGEST_TIMING_S: Final = 0.1
# What it takes until the library's word reaches us, however fast the link is.
_WORD_S: Final = 5e-4


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with a frame beside sending it."""

    pack: bool = False
    time: bool = False

    def __bool__(self) -> bool:
        return self.pack or self.time


AS_IT_IS: Final = Plan()


class StreamPacker:
    """Decides frame by frame and packs. Belongs to who has the socket's turn."""

    def __init__(
        self, settings: CompressionSettings, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._compressor = FrameCompressor(settings, clock=clock)
        self._settings = settings
        self._clock = clock
        self._until_timed = 0

    def plan(self, size_bytes: int) -> Plan:
        """What is to be done with a frame of so many bytes, for receivers that can unpack."""
        settings = self._settings
        if settings.mode is CompressionMode.OFF or size_bytes < settings.threshold_bytes:
            return AS_IT_IS
        timed = False
        if settings.mode is CompressionMode.AUTO:
            timed = self._until_timed == 0
            self._until_timed = _TIMED_EVERY - 1 if timed else self._until_timed - 1
        return Plan(self._compressor.choice.wants(size_bytes), timed)

    def pack(self, frame: BytesLike) -> BytesLike:
        """A frame whose plan says so, packed; the same object where that has not paid."""
        return self._compressor.pack_chosen(frame)

    def send_timed(self, socket: ZmqSocket, message: BytesLike) -> zmq.MessageTracker:
        """Send a message and see how long its way out takes, 0.1 s at most.

        The memory is the library's until the tracker says otherwise. Raises zmq.Again after the
        socket's SNDTIMEO; nothing was timed then.
        """
        tracker = send_tracked(socket, message)
        self.time(tracker, memoryview(message).nbytes)
        return tracker

    def time(self, tracker: zmq.MessageTracker, size_bytes: int) -> None:
        """Wait until the frame that was sent right before is on its way, 0.1 s at most."""
        began_s = self._clock()
        with contextlib.suppress(zmq.NotDone):
            tracker.wait(_LONGEST_TIMING_S)
        seconds = self._clock() - began_s
        self._compressor.choice.link_took(size_bytes, max(seconds - _WORD_S, 1e-6))


def send_tracked(socket: ZmqSocket, message: BytesLike) -> zmq.MessageTracker:
    """Send a message of any size so that its way out can be timed. Raises zmq.Again as the socket
    does."""
    # pyzmq copies what is below its own threshold, and then knows nothing of the way out.
    frame = zmq.Frame(message, track=True, copy=False, copy_threshold=0)
    tracker = socket.send(frame, copy=False, track=True)
    assert tracker is not None
    return tracker
