# SPDX-License-Identifier: Apache-2.0
"""An agent's end of its streams over WebRTC, beside its control link and in the loop of that.

The agent makes the offer, over control; an end that fails in any way is lost, and the link's user
registers again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.messages import Endpoint, PeerAnswer, PeerRefusal
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.webrtc.address import refuse_unless
from feagi_io_host.transports.webrtc.peer_line import PeerLine
from feagi_io_host.transports.webrtc.settings import WebRtcSettings


def webrtc_streams(
    endpoints: Mapping[StreamType, Endpoint],
    *,
    local_address: str,
    max_frame_bytes: int,
    on_offer: Callable[[str], object],
    on_frame: Callable[[StreamType, memoryview], object],
    on_room: Callable[[], object],
    on_lost: Callable[[str], object],
    **settings: Any,
) -> WebRtcStreams:
    """The PeerStreams for what a server has handed out. `local_address` is that of the control
    connection, at which this machine is offered unless `settings`, those of WebRtcSettings, say
    otherwise. Raises FeagiDataError for an endpoint that is none, ConfigError for the settings."""
    for stream, endpoint in endpoints.items():
        refuse_unless(endpoint.url, stream)
    made = WebRtcSettings.of({"addresses": (local_address,), **settings})
    line = PeerLine(
        made,
        sends=[stream for stream in endpoints if stream is StreamType.SENSORY],
        receives=[stream for stream in endpoints if stream is not StreamType.SENSORY],
        max_frame_bytes=max_frame_bytes,
    )
    line.on_frame = on_frame
    line.on_lost = on_lost
    for outbound in line.lines.values():
        outbound.on_room = on_room
    return WebRtcStreams(line, on_offer, on_lost)


class WebRtcStreams:
    """The PeerStreams. Begins to make its offer at once."""

    def __init__(
        self, line: PeerLine, on_offer: Callable[[str], object], on_lost: Callable[[str], object]
    ) -> None:
        self._line = line
        self._outbound = line.lines.get(StreamType.SENSORY)
        self._on_offer = on_offer
        self._on_lost = on_lost
        self._offering = asyncio.get_running_loop().create_task(
            self._offer(), name="feagi-io-webrtc-offer"
        )
        self._late: asyncio.TimerHandle | None = None

    @property
    def sends_sensory(self) -> bool:
        """Whether sensory frames go out here."""
        return self._outbound is not None

    @property
    def has_room(self) -> bool:
        """Whether a sensory frame can be sent now."""
        return self._outbound is not None and self._outbound.has_room

    def send_frame(self, fbc: SharedFBC) -> None:
        """Send a sensory frame, when there is room. The lease is the line's."""
        assert self._outbound is not None
        self._outbound.send_frame(fbc)

    def take_answer(self, answer: PeerAnswer | PeerRefusal) -> None:
        """What the server says to the offer."""
        if self._late is not None:
            self._late.cancel()
        if isinstance(answer, PeerRefusal):
            self._fail(f"the server makes no WebRTC connection: {answer.reason[:200]!r}")
            return
        try:
            self._line.take_answer(answer.sdp)
        except FeagiDataError as error:
            self._fail(f"the server's answer cannot be used: {error}")

    def counters(self, stream: StreamType) -> dict[str, int]:
        """What has come on a stream, and what did not."""
        return self._line.counters(stream)

    def end(self) -> None:
        """Let go of the connection; nothing is called any more."""
        if self._late is not None:
            self._late.cancel()
        self._line.end()

    def cut(self) -> None:
        """After `end`: do not wait for the other end."""
        self._line.cut()

    async def wait_until_gone(self) -> None:
        """After `end`: until nothing of it is left."""
        await asyncio.wait({self._offering})
        await self._line.wait_until_gone()

    async def _offer(self) -> None:
        try:
            text = await self._line.offer()
        except OSError as error:
            self._fail(f"no WebRTC connection can be offered: {error}")
            return
        if self._line.is_over:
            return
        limit_s = self._line.settings.connect_timeout_s
        self._late = asyncio.get_running_loop().call_later(
            limit_s, self._fail, f"the server did not answer the offer within {limit_s} s"
        )
        self._on_offer(text)

    def _fail(self, reason: str) -> None:
        if not self._line.is_over:
            self._line.end()
            self._on_lost(reason)
