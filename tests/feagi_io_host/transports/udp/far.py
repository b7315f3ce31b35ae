# SPDX-License-Identifier: Apache-2.0
"""The far end of a stream over UDP, turned by whoever waits for it; a transport and its loop."""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.compression import CompressionSettings
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.handles import TransportHandle
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.udp import UdpInvitation, UdpStreamEnd, UdpTransport, udp_stream_end

SENSE = AgentCapabilities.SEND_SENSOR_DATA
VIEW = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
DEADLINE_S = 10.0
_TURN_S = 0.02


def frame(counter: int, chars: int = 0) -> SharedFBC:
    """A frame with this increment counter; with a JSON text of so many characters."""
    container = FeagiByteContainer.new_empty()
    if chars:
        container.overwrite_byte_data_with_single_struct_data(FeagiJSON("x" * chars), counter)
    else:
        container.set_increment_counter_state(counter)
    return SharedFBC.adopt(container)


def counter_of(data: Any) -> int:
    """The increment counter in a frame's bytes."""
    return int.from_bytes(bytes(data[1:3]), "little")


class Far:
    """One stream end. `take` and `until` turn it as a link would."""

    def __init__(self, url: str, stream: StreamType, **more: Any) -> None:
        settings = {"max_frame_bytes": 1 << 20, **more}
        self.end: UdpStreamEnd = udp_stream_end(url, stream, **settings)
        self._came_meanwhile: deque[Any] = deque()

    def turn(self, wait_s: float = _TURN_S) -> Any:
        """One turn: what was there, or None."""
        data = self.end.take()
        if data is not None:
            return data
        self.end.tend(time.monotonic())
        select.select([self.end], [], [], wait_s)
        return self.end.take()

    def take(self, timeout_s: float = DEADLINE_S) -> Any:
        """The next frame; None when `timeout_s` passed first."""
        if self._came_meanwhile:
            return self._came_meanwhile.popleft()
        until_s = time.monotonic() + timeout_s
        while (data := self.turn()) is None and time.monotonic() < until_s:
            pass
        return data

    def until(self, true: Callable[[], object]) -> None:
        """Turn until something is true; fails when it never is. Frames that come meanwhile are
        kept for `take`."""
        until_s = time.monotonic() + DEADLINE_S
        while not true():
            assert time.monotonic() < until_s, "it never came true"
            if (data := self.turn()) is not None:
                self._came_meanwhile.append(data)

    def welcome(self) -> Far:
        """Turn until the server knows where we are."""
        self.until(lambda: self.end.welcomed)
        return self

    def send(self, fbc: SharedFBC) -> None:
        """Send a sensory frame, lease included, as soon as there is room."""
        with fbc:
            self.until(lambda: self.end.send(fbc))

    def close(self) -> None:
        """Let go."""
        self.end.close()


class Running:
    """A UdpTransport that runs in the process's loop thread, and far ends of it."""

    def __init__(self, compression: CompressionSettings | None = None, **settings: Any) -> None:
        self.host = StandInHost()
        self.transport = UdpTransport(
            self.host, settings=settings, compression=compression, max_frame_bytes=1 << 20
        )
        self.handle = TransportHandle(self.transport)
        self.handle.start()
        self.far: list[Far] = []

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine in the transport's loop."""
        runtime = self.handle._runtime
        assert runtime is not None
        return runtime.call(coroutine, DEADLINE_S)

    def admit(
        self, capabilities: AgentCapabilities = SENSE | VIEW, agent_id: bytes | None = None
    ) -> UdpInvitation:
        """Let an agent in."""
        invitation: UdpInvitation = self.call(self.transport.admit(ROVER, capabilities, agent_id))
        return invitation

    def open(self, url: str, stream: StreamType, **more: Any) -> Far:
        """A far end, closed with all this."""
        far = Far(url, stream, **more)
        self.far.append(far)
        return far

    def viewer(self, invitation: UdpInvitation | None = None) -> Far:
        """The visualization end of an agent, known to the server."""
        url = (invitation or self.admit(VIEW)).endpoints[VIEW]
        return self.open(url, StreamType.VISUALIZATION).welcome()

    def sensor(self, invitation: UdpInvitation | None = None) -> Far:
        """The sensory end of an agent, known to the server."""
        url = (invitation or self.admit(SENSE)).endpoints[SENSE]
        return self.open(url, StreamType.SENSORY).welcome()

    def show(self, counter: int, chars: int = 0) -> None:
        """Publish a visualization frame."""
        with frame(counter, chars) as fbc:
            self.handle.publish_visualization(fbc)

    def row(self, stream: str) -> dict[str, Any]:
        """What the transport counts for its only session of a stream."""
        (row,) = [row for row in self.transport.counters()["sessions"] if row["stream"] == stream]
        return dict(row)

    def close(self) -> None:
        """Stop everything."""
        for far in self.far:
            far.close()
        self.handle.stop()
        for session in self.host.sessions:
            session.close()
