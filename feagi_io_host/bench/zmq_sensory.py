# SPDX-License-Identifier: Apache-2.0
"""ZMQ benchmark, the way in: from FeagiAgent's `send_sensory` to a listener of the PNS.

Against a PUSH and a PULL socket with the same stations between them: the thread that reads the
socket hands what has come to a worker, as a transport to the PNS, and that one to who waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.agent.feagi_agent import FeagiAgent
from feagi_io_host.bench.lines import DEADLINE_S, PATIENT, descriptor, frame
from feagi_io_host.bench.runner import Case, Row, measure
from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.pns import PNS
from feagi_io_host.transports.zmq import ZmqTransport

if TYPE_CHECKING:
    Context = zmq.Context[zmq.Socket[bytes]]

_FRAMES: Final = 16  # the high-water mark of our sensory sockets
# Above it pyzmq's users are told not to copy.
_COPY_LIMIT_BYTES: Final = 64 << 10
_LOOK_AROUND_MS: Final = 100


class _Felt:
    """What has come at the far end: its size in bytes, for the one who waits."""

    def __init__(self) -> None:
        self._sizes: BoundedChannel[int] = BoundedChannel()
        self.note = self._sizes.put

    def wait(self) -> None:
        """Wait for the next frame. TimeoutError without one."""
        if self._sizes.get(DEADLINE_S) is None:
            raise TimeoutError(f"nothing felt within {DEADLINE_S} s")


class _AgentLine:
    """A FeagiAgent at a ZmqTransport, and a listener of its PNS."""

    def __init__(self, stack: ExitStack) -> None:
        self._felt = _Felt()
        pns = stack.enter_context(PNS(delivery=PATIENT))
        pns.sensory_data_received.connect(self._listen)
        transport = stack.enter_context(ZmqTransport(pns, control_port=0))
        self._agent = stack.enter_context(
            FeagiAgent(descriptor(), AgentCapabilities.SEND_SENSOR_DATA, transport.control_url)
        )

    def exchange(self, fbc: SharedFBC) -> None:
        """Send one, and wait until the listener has it."""
        self._agent.send_sensory(fbc)
        self._felt.wait()

    def _listen(self, event: SensoryData) -> None:
        self._felt.note(len(event.fbc))


class _BareLine:
    """Two sockets and two threads."""

    def __init__(self, stack: ExitStack) -> None:
        self._felt = _Felt()
        ours: Context = zmq.Context()
        stack.callback(ours.destroy, linger=0)
        theirs: Context = zmq.Context()
        stack.callback(theirs.destroy, linger=0)
        self._pull = theirs.socket(zmq.PULL)
        self._pull.setsockopt(zmq.RCVHWM, _FRAMES)
        port = self._pull.bind_to_random_port("tcp://127.0.0.1")
        self._push = ours.socket(zmq.PUSH)
        self._push.setsockopt(zmq.SNDHWM, _FRAMES)
        self._push.setsockopt(zmq.SNDTIMEO, int(DEADLINE_S * 1000))
        self._push.connect(f"tcp://127.0.0.1:{port}")
        self._sent: deque[zmq.MessageTracker] = deque()
        self._read: BoundedChannel[zmq.Frame] = BoundedChannel()
        for name, run in (("reader", self._take), ("worker", self._pass_on)):
            worker = Worker(f"feagi-io-bench-{name}", run, wake=self._read.close)
            worker.start()
            stack.callback(worker.stop, DEADLINE_S)

    def exchange(self, fbc: SharedFBC) -> None:
        """Send one, and wait until it has passed both threads."""
        while self._sent and self._sent[0].done:
            self._sent.popleft()
        if len(fbc) <= _COPY_LIMIT_BYTES:
            self._push.send(fbc.view)
        else:
            self._sent.append(self._push.send(fbc.view, copy=False, track=True))
        self._felt.wait()

    def _take(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            if self._pull.poll(_LOOK_AROUND_MS):
                self._read.put(self._pull.recv(copy=False))

    def _pass_on(self, stopping: threading.Event) -> None:
        try:
            while (message := self._read.get()) is not None:
                self._felt.note(len(message))
        except ClosedError:
            return  # it ends with the reader


def rows(sizes: Sequence[tuple[int, str, float]], quick: bool) -> list[Row]:
    """A row for each size: neurons, what the frame is called, what the ratio must reach."""
    found = []
    with ExitStack() as stack:
        ours, theirs = _AgentLine(stack), _BareLine(stack)
        for neurons, size, limit in sizes:
            with frame(neurons) as fbc:

                def send(fbc: SharedFBC = fbc) -> None:
                    ours.exchange(fbc)

                def reference(fbc: SharedFBC = fbc) -> None:
                    theirs.exchange(fbc)

                name = f"sensory, FeagiAgent to a PNS listener, {size}"
                case = Case(name, send, "pyzmq", f"<= {limit:g}x", reference, limit)
                found += measure([case], quick=quick)
    return found
