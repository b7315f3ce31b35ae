# SPDX-License-Identifier: Apache-2.0
"""ClientEnds: those streams of an agent that do not go over ZMQ, beside the sockets that do.

A server may give an agent that has asked for it a stream over UDP or in shared memory. Its end, a
`core.agent_link.StreamEnd`, is polled by its descriptor and by a clock. An end that is gone for
good means what the end of the control connection means: the agent registers again.

The sensory end is used under the turn of the SensorySender, for whoever hands a frame in sends it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from feagi_io_host.core.agent_link import LinkParty, StreamEnd
from feagi_io_host.core.errors import FeagiDataError, FeagiIOError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.client_sensory import SensorySender

# So many messages of one stream in a row; then the others have their turn.
FAIR_SHARE: Final = 16

# Called with an endpoint, a stream and `max_frame_bytes`.
MakeEnd = Callable[..., StreamEnd]
Hook = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class EndMaker:
    """Opens ends, of what was asked for alone: an address comes from the server, and may stand for
    anything on this machine.

    `protocol` is what the agent asks for its streams over, `make` opens an end of it.
    """

    protocol: ConnectionProtocol = ConnectionProtocol.ZMQ
    make: MakeEnd | None = None

    def open(self, endpoint: Endpoint, stream: StreamType, max_frame_bytes: int) -> StreamEnd:
        """An end of `stream`. Raises FeagiDataError for one that was not asked for, and what `make`
        raises."""
        if self.make is None or endpoint.protocol is not self.protocol:
            raise FeagiDataError(
                f"the {stream.value} stream is given over {endpoint.protocol.value}; "
                f"{self.protocol.value} was asked for"
            )
        return self.make(endpoint, stream, max_frame_bytes=max_frame_bytes)


@dataclass(frozen=True, slots=True)
class _Held:
    """One end. `guard` is held by who uses it."""

    stream: StreamType
    protocol: ConnectionProtocol
    end: StreamEnd
    descriptor: int
    guard: contextlib.AbstractContextManager[Any]


class ClientEnds:
    """The ends of one agent. Belongs to the link's thread or task.

    `opened` and `closing` are called with each descriptor, after and before.
    """

    def __init__(
        self,
        party: LinkParty,
        sensory: SensorySender,
        maker: EndMaker,
        max_frame_bytes: int,
        opened: Hook,
        closing: Hook,
    ) -> None:
        self._party = party
        self._sensory = sensory
        self._maker = maker
        self._max_frame_bytes = max_frame_bytes
        self._opened = opened
        self._closing = closing
        self._held: dict[int, _Held] = {}
        self._counted: dict[StreamType, Counter[str]] = {}  # of ends that are closed
        self._failure: str | None = None
        self._more = False
        self.descriptors: tuple[int, ...] = ()
        """What is to be polled; another tuple whenever that has changed."""
        self.due_s: float | None = None
        """When `tend` has something to do by itself, on time.monotonic."""

    def open(self, endpoint: Endpoint, stream: StreamType) -> None:
        """Open an end at `endpoint`. Raises FeagiDataError and FeagiIOError."""
        end = self._maker.open(endpoint, stream, self._max_frame_bytes)
        try:
            descriptor = end.fileno()
            self._opened(descriptor)
        except BaseException:
            end.close()
            raise
        is_sensory = stream is StreamType.SENSORY
        guard: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if is_sensory:
            guard = self._sensory.turn
            self._sensory.lead_to(end)
        self._held[descriptor] = _Held(stream, endpoint.protocol, end, descriptor, guard)
        self.descriptors = tuple(self._held)

    @property
    def has_work(self) -> bool:
        """Whether a turn would find something to do that no descriptor and no clock tells of."""
        return self._more or self._failure is not None

    def hear(self, descriptor: int) -> bool:
        """Something waits at this descriptor. True: it was frames, and they were taken; False: a
        turn is due."""
        held = self._held.get(descriptor)
        if held is None:
            return False
        self._take(held)
        # What comes to the sensory end may have made room there.
        return held.stream is not StreamType.SENSORY and not self.has_work

    def take_all(self) -> None:
        """Take what waits at each of them."""
        self._more = False
        for held in tuple(self._held.values()):
            self._take(held)

    def tend(self, now_s: float) -> None:
        """Have each do what is due by itself, and tell the agent what they have counted."""
        gone = self._sensory.gone
        due_s = None
        for held in tuple(self._held.values()):
            if gone is not None and held.stream is StreamType.SENSORY:
                self._lose(held, gone)
                continue
            try:
                with held.guard:
                    next_s = held.end.tend(now_s)
                    if held.stream is StreamType.SENSORY:
                        self._sensory.end_due_s = next_s
            except FeagiIOError as error:
                self._lose(held, error)
                continue
            if next_s is not None:
                due_s = next_s if due_s is None else min(due_s, next_s)
            self._party.stream_end_counted(held.stream, self._counters_of(held))
        self.due_s = due_s

    def take_failure(self) -> str | None:
        """Why the agent has to register again, once; None when it has not."""
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> None:
        """Close them all."""
        for held in tuple(self._held.values()):
            self._let_go(held)
        self._more = False
        self._failure = self.due_s = None

    # -- inside -------------------------------------------------------------------------------

    def _take(self, held: _Held) -> None:
        try:
            for _ in range(FAIR_SHARE):
                with held.guard:
                    frame = held.end.take()
                if frame is None:
                    return
                if held.stream is StreamType.SENSORY:
                    self._count(held.stream, Counter(unexpected=1))
                else:
                    self._party.frame_received(held.stream, frame)
        except FeagiIOError as error:
            self._lose(held, error)
        else:
            self._more = True

    def _lose(self, held: _Held, error: FeagiIOError) -> None:
        if self._failure is None:
            self._failure = (
                f"the {held.stream.value} stream over {held.protocol.value} has ended: {error}"
            )
        self._let_go(held)

    def _let_go(self, held: _Held) -> None:
        counters = self._counters_of(held)
        self._counted[held.stream] = counters
        self._party.stream_end_counted(held.stream, counters)
        del self._held[held.descriptor]
        self.descriptors = tuple(self._held)
        self._closing(held.descriptor)
        if held.stream is StreamType.SENSORY:
            self._sensory.lead_to(None)  # closes it
        else:
            held.end.close()

    def _counters_of(self, held: _Held) -> Counter[str]:
        """Of this end and of those before it, together."""
        with held.guard:
            counters = Counter(held.end.counters())
        counters.update(self._counted.get(held.stream, {}))
        return counters

    def _count(self, stream: StreamType, more: Counter[str]) -> None:
        self._counted.setdefault(stream, Counter()).update(more)
