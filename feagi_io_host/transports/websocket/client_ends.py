# SPDX-License-Identifier: Apache-2.0
"""LoopEnds: those streams of an agent that go over another system than its WebSocket control link.

A server may give an agent that has asked for it a stream in shared memory or over UDP, for example.
Its end, a `core.agent_link.StreamEnd`, is polled by its descriptor and by a clock. An end that is
gone for good means what the end of the control connection means: the agent registers again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.agent_link import LinkParty, StreamEnd
from feagi_io_host.core.errors import ConfigError, FeagiIOError, LocalError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType

# So many messages of one stream in a row; then the others have their turn.
_FAIR_SHARE: Final = 16

# Called with an endpoint, a stream and `max_frame_bytes`.
MakeEnd = Callable[..., StreamEnd]


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    stream: StreamType
    protocol: ConnectionProtocol
    end: StreamEnd
    descriptor: int


class LoopEnds:
    """The ends of one agent, all of `protocol`, opened by `make`. Belongs to the event loop.

    `on_lost(reason)` is called when one is gone.
    """

    def __init__(
        self,
        party: LinkParty,
        protocol: ConnectionProtocol,
        make: MakeEnd | None,
        max_frame_bytes: int,
        on_lost: Callable[[str], object],
    ) -> None:
        self._party = party
        self._protocol = protocol
        self._make = make
        self._max_frame_bytes = max_frame_bytes
        self._on_lost = on_lost
        self._held: dict[StreamType, _Held] = {}
        self._counted: dict[StreamType, Counter[str]] = {}  # of ends that are closed
        self._waiting: SharedFBC | None = None  # the sensory frame that there was no room for
        self.due_s: float | None = None
        """When `tend` has something to do by itself, on time.monotonic."""

    def open(self, endpoint: Endpoint, stream: StreamType) -> None:
        """Open an end at `endpoint`, of what was asked for alone: an address comes from the server,
        and may stand for anything on this machine. ConfigError for another, and what opening
        raises."""
        if self._make is None or endpoint.protocol is not self._protocol:
            raise ConfigError(
                f"the {stream.value} stream is given over {endpoint.protocol.value}; "
                f"{self._protocol.value} was asked for"
            )
        end = self._make(endpoint, stream, max_frame_bytes=self._max_frame_bytes)
        held = _Held(stream, endpoint.protocol, end, end.fileno())
        try:
            asyncio.get_running_loop().add_reader(held.descriptor, self._take, held)
        except OSError as error:
            end.close()
            raise LocalError(f"the system watches no more descriptors: {error}") from error
        self._held[stream] = held

    @property
    def sends_sensory(self) -> bool:
        """Whether sensory frames go out here."""
        return StreamType.SENSORY in self._held

    def send_sensory(self) -> None:
        """Send what the agent has to send; a frame that there is no room for waits until a newer
        one takes its place."""
        party = self._party
        while (held := self._held.get(StreamType.SENSORY)) is not None:
            fbc, self._waiting = self._waiting, None
            if party.has_sensory:
                newer = party.next_sensory()
                if newer is not None and fbc is not None:
                    party.sensory_dropped("replaced")
                    fbc.release()
                fbc = newer or fbc
            if fbc is None:
                return
            try:
                sent = held.end.send(fbc)
            except LocalError:
                party.sensory_dropped("too large")
                fbc.release()
                continue
            except FeagiIOError as error:
                party.sensory_dropped("closed")
                fbc.release()
                self._lose(held, error)
                return
            if not sent:
                self._waiting = fbc
                return
            party.sensory_sent()
            fbc.release()

    def tend(self) -> None:
        """Have each do what is due by itself, and tell the agent what they have counted."""
        now_s = time.monotonic()
        due_s = None
        for held in tuple(self._held.values()):
            try:
                next_s = held.end.tend(now_s)
            except FeagiIOError as error:
                self._lose(held, error)
                continue
            if next_s is not None:
                due_s = next_s if due_s is None else min(due_s, next_s)
            self._party.stream_end_counted(held.stream, self._counters_of(held))
        self.due_s = due_s

    def close(self) -> None:
        """Close them all."""
        for held in tuple(self._held.values()):
            self._let_go(held)
        self.due_s = None
        fbc, self._waiting = self._waiting, None
        if fbc is not None:
            self._party.sensory_dropped("closed")
            fbc.release()

    # -- inside -------------------------------------------------------------------------------

    def _take(self, held: _Held) -> None:
        """Take what frames there are; the loop calls again as long as more wait."""
        try:
            for _ in range(_FAIR_SHARE):
                frame = held.end.take()
                if frame is None:
                    return
                if held.stream is StreamType.SENSORY:
                    self._counted.setdefault(held.stream, Counter())["unexpected"] += 1
                else:
                    self._party.frame_received(held.stream, frame)
        except FeagiIOError as error:
            self._lose(held, error)

    def _lose(self, held: _Held, error: FeagiIOError) -> None:
        self._let_go(held)
        self._on_lost(
            f"the {held.stream.value} stream over {held.protocol.value} has ended: {error}"
        )

    def _let_go(self, held: _Held) -> None:
        if self._held.get(held.stream) is not held:
            return
        del self._held[held.stream]
        counters = self._counters_of(held)
        self._counted[held.stream] = counters
        self._party.stream_end_counted(held.stream, counters)
        asyncio.get_running_loop().remove_reader(held.descriptor)
        held.end.close()

    def _counters_of(self, held: _Held) -> Counter[str]:
        """Of this end and of those before it, together."""
        counters = Counter(held.end.counters())
        counters.update(self._counted.get(held.stream, {}))
        return counters
