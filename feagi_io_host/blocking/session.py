# SPDX-License-Identifier: Apache-2.0
"""AgentSession: one attached agent, with a bounded channel for each of its data streams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import ChannelMaker, FrameChannel
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import ClosedError, DeliveryTimeoutError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.telemetry import (
    LatencyHistogram,
    QueueMark,
    StreamCounters,
    stream_row,
)
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType

_log = logging.getLogger("feagi_io.blocking")

_OUTBOUND = (StreamType.MOTOR, StreamType.VISUALIZATION)
_DATA_STREAMS = (StreamType.SENSORY, *_OUTBOUND)


def thread_channel(
    rule: DeliveryRule, *, on_drop: Callable[[SharedFBC], object], name: str
) -> FrameChannel:
    """The ChannelMaker for carriers with threads."""
    return BoundedChannel[SharedFBC].for_rule(rule, on_drop=on_drop, name=name)


def _release_event(data: SensoryData) -> None:
    data.fbc.release()


class AgentSession:
    """One agent as long as it is attached. Made by `PNS.attach_agent`, for its carrier.

    `motor` and `visualization` are the frames for this agent; the carrier takes them and
    releases each one after it was sent. Both end with ClosedError when the session closes.
    `motor_areas`, if given, keeps motor frames away that hold none of these areas (frames
    without any area pass: they are the brain's sign of life). `channel` makes both channels; a
    carrier in an event loop gives its own kind.
    """

    def __init__(
        self,
        agent_id: bytes,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        motor_areas: frozenset[CorticalID] | None,
        *,
        delivery: Mapping[StreamType, DeliveryRule],
        clock: Callable[[], float],
        on_sensory: Callable[[], object],
        on_close: Callable[[AgentSession, str], object],
        channel: ChannelMaker = thread_channel,
    ) -> None:
        self.agent_id = agent_id
        self.descriptor = descriptor
        self.capabilities = capabilities
        self.motor_areas = motor_areas
        self.streams_elsewhere: frozenset[StreamType] = frozenset()
        self.counters: Mapping[StreamType, StreamCounters] = {
            stream: StreamCounters() for stream in _DATA_STREAMS
        }
        self.attached_at_s = clock()
        self.latency: Mapping[StreamType, LatencyHistogram] = {
            stream: LatencyHistogram() for stream in _DATA_STREAMS
        }
        self._marks = {stream: QueueMark() for stream in _DATA_STREAMS}
        self._capacity = {stream: delivery[stream].capacity for stream in _DATA_STREAMS}
        self._counts_delivered = {stream: stream is StreamType.SENSORY for stream in _DATA_STREAMS}
        self._clock = clock
        self._on_sensory = on_sensory
        self._on_close = on_close
        self._motor_deadline_s = delivery[StreamType.MOTOR].deadline_s or 0.0
        self._stalled = False
        name = f"{descriptor.agent_name} {agent_id[:4].hex()}"
        self._sensory: BoundedChannel[SensoryData] = BoundedChannel.for_rule(
            delivery[StreamType.SENSORY], on_drop=_release_event, name=f"{name} sensory"
        )
        self.motor: FrameChannel = channel(
            delivery[StreamType.MOTOR], on_drop=SharedFBC.release, name=f"{name} motor"
        )
        self.visualization: FrameChannel = channel(
            delivery[StreamType.VISUALIZATION],
            on_drop=SharedFBC.release,
            name=f"{name} visualization",
        )

    def submit_sensory(self, fbc: SharedFBC) -> None:
        """Hand a sensory frame to the brain. Never waits; the caller keeps its own lease.

        A frame of an agent without SEND_SENSOR_DATA is dropped and counted. Raises ClosedError
        after `close`.
        """
        counters = self.counters[StreamType.SENSORY]
        counters.count_sent(len(fbc))
        if AgentCapabilities.SEND_SENSOR_DATA not in self.capabilities:
            counters.count_dropped("not permitted")
            return
        self._sensory.put(SensoryData(self.agent_id, fbc.retain(), self._clock()))
        self._marks[StreamType.SENSORY].note(len(self._sensory))
        self._on_sensory()

    def narrow_motor(self, areas: Iterable[CorticalID] | None) -> None:
        """From here on only motor frames with one of these areas (None: all) are for the agent,
        and such without any area."""
        self.motor_areas = None if areas is None else frozenset(areas)

    def carried_elsewhere(self, stream: StreamType) -> None:
        """For the transport that let the agent in: another one carries this stream of it, and
        counts it. An agent that asked for another protocol gets its own transport's instead."""
        self.streams_elsewhere |= {stream}

    @property
    def time_to_wire(self) -> Mapping[StreamType, LatencyHistogram]:
        """Per outbound stream: from `PNS.publish_*` until the carrier has sent the frame."""
        return {stream: self.latency[stream] for stream in _OUTBOUND}

    def sent_to_wire(self, stream: StreamType, fbc: SharedFBC) -> None:
        """For the carrier: a frame of `motor` or `visualization` was handed to the wire just now.

        Counts it as delivered and records the time since the PNS was given the frame.
        """
        self._counts_delivered[stream] = True
        self.counters[stream].count_delivered()
        if fbc.emitted_at_s is not None:
            self.latency[stream].record(self._clock() - fbc.emitted_at_s)

    def close(self, reason: str = "closed by its carrier") -> None:
        """Detach the agent: frames still queued are dropped, waiting carriers are woken.

        Emits `agent_disconnected` the first time; does nothing after that.
        """
        self._on_close(self, reason)

    @property
    def closed(self) -> bool:
        """Whether the session has ended."""
        return self.motor.closed

    def snapshot(self) -> dict[str, Any]:
        """Per data stream what `stream_row` says of it, and its `latency`: for sensory from
        `submit_sensory` to the brain, for the others the time to the wire."""
        return {
            stream.value: {**row, "latency": self.latency[stream].snapshot()}
            for stream, row in self.rows().items()
        }

    def rows(self) -> dict[StreamType, dict[str, Any]]:
        """Per data stream what `stream_row` says of it."""
        channels: dict[StreamType, FrameChannel | BoundedChannel[SensoryData]] = {
            StreamType.SENSORY: self._sensory,
            StreamType.MOTOR: self.motor,
            StreamType.VISUALIZATION: self.visualization,
        }
        return {
            stream: stream_row(
                self.counters[stream],
                channel.drops_by_reason(),
                self._marks[stream],
                queued=len(channel),
                capacity=self._capacity[stream],
                counts_delivered=self._counts_delivered[stream],
            )
            for stream, channel in channels.items()
        }

    def deliver_one(self, signal: FeagiSignal[SensoryData]) -> bool:
        """For the PNS: emit the oldest waiting sensory frame; False when there is none."""
        try:
            data = self._sensory.get_nowait()
        except ClosedError:
            return False
        if data is None:
            return False
        self.counters[StreamType.SENSORY].count_delivered()
        self.latency[StreamType.SENSORY].record(self._clock() - data.received_at_s)
        try:
            signal.emit(data)
        finally:
            data.fbc.release()
        return True

    def close_channels(self) -> None:
        """For the PNS: drop what is queued, wake whoever waits."""
        self._sensory.close()
        self.motor.close()
        self.visualization.close()

    def offer_motor(self, fbc: SharedFBC) -> bool:
        """For the PNS: queue a motor frame if there is room.

        An agent that is leaving takes everything.
        """
        try:
            taken = self.motor.try_put(fbc.retain())
        except ClosedError:
            return True
        if taken:
            self._stalled = False
            self._marks[StreamType.MOTOR].note(len(self.motor))
        else:
            fbc.release()
        return taken

    def press_motor(self, fbc: SharedFBC) -> bool:
        """For the PNS: queue a motor frame, waiting for room up to the stream's deadline.

        One agent must not slow the brain down burst after burst: after a deadline has passed,
        the next frames do not wait until there is room again.
        """
        try:
            self.motor.put(fbc.retain(), 0.0 if self._stalled else self._motor_deadline_s)
        except ClosedError:
            return True
        except DeliveryTimeoutError:
            self._stalled = True
            return False
        self._stalled = False
        self._marks[StreamType.MOTOR].note(len(self.motor))
        return True

    def show(self, fbc: SharedFBC) -> None:
        """For the PNS: put a visualization frame in the place of the one before."""
        self.counters[StreamType.VISUALIZATION].count_sent(len(fbc))
        try:
            self.visualization.put(fbc.retain())
            self._marks[StreamType.VISUALIZATION].note(len(self.visualization))
        except ClosedError:
            _log.debug("visualization for %s, which is leaving", self.descriptor.agent_name)
