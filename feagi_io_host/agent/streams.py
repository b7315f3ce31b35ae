# SPDX-License-Identifier: Apache-2.0
"""AgentStreams: the frames of one agent between its user and its link, and what became of them.

An inbox holds the newest frame of a stream. It is closed when the agent is closed or has given
up, so that nobody waits there for what cannot come; a new attempt opens new ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.core.container import BytesLike, FeagiByteContainer
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import ClosedError, FeagiDataError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.telemetry import StreamCounters
from feagi_io_host.core.types import StreamType

_log = logging.getLogger("feagi_io.agent")


class Inbox(Protocol):
    """The newest frame of a stream: a channel of either paradigm, as the link sees it."""

    def put(self, item: FeagiByteContainer, timeout_s: float | None = None) -> None:
        """Put a frame in the place of the one before. ClosedError when closed."""

    def close(self) -> None:
        """Close for good; who waits is woken."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def drops_by_reason(self) -> dict[str, int]:
        """Frames dropped so far, by reason."""

    def __len__(self) -> int:
        """Frames waiting now."""


class AgentStreams:
    """The data side of an agent; the frames' part of a LinkParty.

    `inbound` are the streams that the agent asked for, `make_inbox(stream)` makes the inbox of
    one. `sensory` is the row of the delivery table.
    """

    def __init__(
        self,
        name: str,
        inbound: Sequence[StreamType],
        make_inbox: Callable[[StreamType], Inbox],
        sensory: DeliveryRule,
    ) -> None:
        self.name = name
        self.counters = {
            stream: StreamCounters()
            for stream in (StreamType.SENSORY, StreamType.MOTOR, StreamType.VISUALIZATION)
        }
        self._end_counters: dict[StreamType, dict[str, int]] = {}
        self._make_inbox = make_inbox
        self._inboxes = {stream: make_inbox(stream) for stream in inbound}
        self._outbox: BoundedChannel[SharedFBC] = BoundedChannel.for_rule(
            sensory, on_drop=SharedFBC.release, name=f"{name} sensory"
        )

    # -- for users ----------------------------------------------------------------------------

    def inbox(self, stream: StreamType) -> Any:
        """The inbox of a stream, of the kind that `make_inbox` makes. Raises LocalError for one
        that the agent did not ask for."""
        inbox = self._inboxes.get(stream)
        if inbox is None:
            raise LocalError(
                f"agent {self.name} did not ask for {stream.value} frames; give the capability "
                "when you make it"
            )
        return inbox

    @property
    def has_data(self) -> bool:
        """Whether a received frame waits to be read."""
        return any(len(inbox) for inbox in self._inboxes.values())

    def rows(self) -> dict[str, dict[str, Any]]:
        """What became of the frames, per stream, as plain data."""
        rows = {}
        for stream, counters in self.counters.items():
            row: dict[str, Any] = dict(counters.snapshot())
            channel = self._outbox if stream is StreamType.SENSORY else self._inboxes.get(stream)
            row["queued"] = 0
            if channel is not None:
                row["queued"] = len(channel)
                for reason, frames in channel.drops_by_reason().items():
                    row["dropped"][reason] = row["dropped"].get(reason, 0) + frames
            if stream in self._end_counters:
                row["stream_end"] = dict(self._end_counters[stream])
            rows[stream.value] = row
        return rows

    # -- for the link -------------------------------------------------------------------------

    def frame_received(self, stream: StreamType, data: BytesLike) -> None:
        """A frame: verified, and put in the place of the one before."""
        counters = self.counters[stream]
        counters.count_sent(memoryview(data).nbytes)  # type: ignore[arg-type]
        container = FeagiByteContainer.new_empty()
        try:
            container.try_write_data_by_ownership_to_container_and_verify(data)
        except FeagiDataError as error:
            counters.count_dropped("damaged")
            _log.debug("%s frame dropped: %s", stream.value, error)
            return
        try:
            self._inboxes[stream].put(container)
        except ClosedError:
            return  # counted by the inbox

    def frame_refused(self, stream: StreamType, size_bytes: int) -> None:
        """Something that was no single message."""
        self.counters[stream].count_sent(size_bytes)
        self.counters[stream].count_dropped("damaged")

    def stream_end_counted(self, stream: StreamType, counters: Mapping[str, int]) -> None:
        """What the ends of a stream that goes over another system have counted so far."""
        self._end_counters[stream] = dict(counters)

    @property
    def has_sensory(self) -> bool:
        """Whether a sensory frame waits."""
        return bool(len(self._outbox))

    def next_sensory(self) -> SharedFBC | None:
        """The oldest frame to be sent."""
        if not len(self._outbox):
            return None
        try:
            return self._outbox.get_nowait()
        except ClosedError:
            return None

    def sensory_sent(self) -> None:
        """Count a frame that went out."""
        self.counters[StreamType.SENSORY].count_delivered()

    def sensory_dropped(self, reason: str) -> None:
        """Count a frame that was given up."""
        self.counters[StreamType.SENSORY].count_dropped(reason)

    # -- for the conversation -----------------------------------------------------------------

    def forget_sensory(self) -> None:
        """Drop what was meant for a session that has ended."""
        while (fbc := self.next_sensory()) is not None:
            fbc.release()
            self.sensory_dropped("not registered")

    def reopen_inboxes(self) -> None:
        """New inboxes in the place of closed ones; the drops of the old ones are kept."""
        for stream, old in tuple(self._inboxes.items()):
            if old.closed:
                for reason, frames in old.drops_by_reason().items():
                    self.counters[stream].count_dropped(reason, frames)
                self._inboxes[stream] = self._make_inbox(stream)

    def close_inboxes(self) -> None:
        """Wake everybody who waits for a frame."""
        for inbox in self._inboxes.values():
            inbox.close()
