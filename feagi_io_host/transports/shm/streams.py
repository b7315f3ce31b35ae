# SPDX-License-Identifier: Apache-2.0
"""The streams of one agent through shared memory, each with a thread of its own.

StreamFeed     motor or visualization: from the agent's channel into a ring that the host creates
SensoryIntake  sensory: out of a ring that the agent creates

Both hold what they made from `offer` on; `start` hands it to the thread, `stop` or the end of the
agent takes it away. The twin is `async_streams`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError, DeliveryTimeoutError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.shm.header import SegmentShape
from feagi_io_host.transports.shm.intake import SensoryGate
from feagi_io_host.transports.shm.ring import RingWriter

_log = logging.getLogger("feagi_io.shm")

# How long a wait lasts before the thread looks whether the agent has left.
_LOOK_AROUND_S: Final = 0.1


class StreamFeed:
    """Writes what comes out of an agent's channel into a ring. `url` is for the agent.

    A frame is taken from the channel only while a reader is there, so that what nobody can receive
    yet waits in the channel, under the delivery table.
    """

    def __init__(self, stream: StreamType, shape: SegmentShape, folder: Path) -> None:
        """Raises LocalError where there is no shared memory, or none left."""
        self._stream = stream
        self._ring = RingWriter(shape, folder=folder)
        self._worker: Worker | None = None

    @property
    def url(self) -> str:
        """`shm://<name>`."""
        return self._ring.url

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._worker is not None

    def start(self, agent: AttachedAgent, on_end: Callable[[], object]) -> None:
        """Feed the ring until the agent is closed; then `on_end()`, in the thread."""
        channel = agent.motor if self._stream is StreamType.MOTOR else agent.visualization

        def run(stopping: threading.Event) -> None:
            try:
                while not stopping.is_set():
                    if self._ring.serve():
                        fbc = channel.get(_LOOK_AROUND_S)
                        if fbc is not None:
                            with fbc:
                                self._deliver(agent, fbc, stopping)
                    elif channel.closed:
                        return
                    elif self._ring.is_unlinked():
                        agent.close("its shared memory was removed by somebody")
                    else:
                        self._ring.serve(_LOOK_AROUND_S)
            except ClosedError:
                return  # the agent was detached or the ring closed: the ordinary ends
            finally:
                self._ring.close()
                on_end()

        self._worker = _started(Worker(f"feagi-io-shm-{channel.name}", run, wake=self._ring.close))

    def stop(self, timeout_s: float) -> None:
        """Remove the ring and wait for the thread. Raises StopTimeoutError."""
        self._ring.close()
        if self._worker is not None:
            self._worker.stop(timeout_s)

    def _deliver(self, agent: AttachedAgent, fbc: SharedFBC, stopping: threading.Event) -> None:
        """Write a frame, however long that takes, as long as the agent is attached."""
        counters = agent.counters[self._stream]
        if len(fbc) > self._ring.shape.payload_bytes:
            counters.count_dropped("too large")
            return
        while not (stopping.is_set() or agent.closed):
            try:
                if self._ring.write(fbc.view, _LOOK_AROUND_S):
                    agent.sent_to_wire(self._stream, fbc)
                    return
                self._ring.serve(_LOOK_AROUND_S)  # the reader has gone; perhaps one comes
            except DeliveryTimeoutError:
                continue  # it does not read: as long as the ring is full, this goes on
            except LocalError as error:
                if isinstance(error, ClosedError):
                    break
                _log.warning("%s frame not sent: %s", self._stream.value, error)
                counters.count_dropped("no memory")
                return
        counters.count_dropped("closed")


class SensoryIntake(SensoryGate):
    """A SensoryGate with a thread."""

    def __init__(self, max_frame_bytes: int, folder: Path) -> None:
        """Raises LocalError when there is no place to listen at."""
        super().__init__(max_frame_bytes, folder)
        self._worker: Worker | None = None

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._worker is not None

    def start(self, agent: AttachedAgent, on_end: Callable[[], object]) -> None:
        """Submit what comes until the agent is closed; then `on_end()`, in the thread."""

        def run(stopping: threading.Event) -> None:
            try:
                while not (stopping.is_set() or agent.closed):
                    self.attend(agent, _LOOK_AROUND_S)
            except ClosedError:
                return  # the agent was detached in the middle
            finally:
                self.close()
                on_end()

        self._worker = _started(Worker(sensory_name(agent), run, wake=self.wake))

    def stop(self, timeout_s: float) -> None:
        """Stop listening and wait for the thread. Raises StopTimeoutError."""
        if self._worker is None:
            self.close()
        else:
            self._worker.stop(timeout_s)


def sensory_name(agent: AttachedAgent) -> str:
    """For the thread or task of an agent's sensory stream."""
    return f"feagi-io-shm-{agent.descriptor.agent_name} {agent.agent_id[:4].hex()} sensory"


def _started(worker: Worker) -> Worker:
    try:
        worker.start()
    except RuntimeError as error:  # the system has no thread left
        raise LocalError(f"no thread for {worker.name}: {error}") from error
    return worker
