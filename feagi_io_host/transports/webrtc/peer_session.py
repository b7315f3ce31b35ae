# SPDX-License-Identifier: Apache-2.0
"""PeerSession: one agent that has streams over WebRTC, and the connection that they share.

served      its streams wait in their channels; an offer may come
connecting  the offer was taken
connected   frames go both ways. When the connection is lost the agent is detached: the brain is
            told, and what of motor may not have arrived is counted

A newer offer takes the place of the one before, whatever has become of that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Final

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError, FeagiDataError
from feagi_io_host.core.messages import PeerAnswer, PeerRefusal
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.publisher import StreamPublisher
from feagi_io_host.transports.webrtc.description import Description
from feagi_io_host.transports.webrtc.peer_line import LOSSES, PeerLine
from feagi_io_host.transports.webrtc.settings import WebRtcSettings

_log = logging.getLogger("feagi_io.webrtc")

LOST: Final = "lost on the way"
_UNDELIVERED: Final = "lost with its connection"
# Connections of one agent that are being let go of; who offers faster has to wait.
_MAX_CLOSING: Final = 2

Answer = Callable[[PeerAnswer | PeerRefusal], object]


class PeerSession:
    """Belongs to the event loop. `counted` is the transport's. `on_end(session)` is called when
    the agent was detached; for one with nothing but sensory somebody has to look."""

    def __init__(
        self,
        agent: AttachedAgent,
        settings: WebRtcSettings,
        max_frame_bytes: int,
        counted: Counter[str],
        on_end: Callable[[PeerSession], object],
    ) -> None:
        self.agent = agent
        self.connected = asyncio.Event()
        self.closing: dict[asyncio.Task[None], PeerLine] = {}
        """What is left of former connections."""
        self._settings = settings
        self._max_frame_bytes = max_frame_bytes
        self._counted = counted
        self._on_end = on_end
        self._publishers: dict[StreamType, StreamPublisher] = {}
        self._senses = False
        self._lost_frames = 0
        self._line: PeerLine | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def publishers(self) -> tuple[StreamPublisher, ...]:
        """The tasks of its outbound streams."""
        return tuple(self._publishers.values())

    def serve(self, stream: StreamType) -> None:
        """Carry a stream from here on. Raises LocalError for a channel that no loop drains."""
        if stream is StreamType.SENSORY:
            self._senses = True
            return
        publisher = StreamPublisher(
            self.agent, stream, "webrtc", self._max_frame_bytes, lambda: self._on_end(self)
        )
        publisher.start()
        self._publishers[stream] = publisher

    # -- a connection -------------------------------------------------------------------------

    def take_offer(self, offer: Description, answer: Answer) -> None:
        """Make a connection with who has made the offer."""
        if len(self.closing) >= _MAX_CLOSING:
            self._counted["offers_too_often"] += 1
            answer(PeerRefusal("connections of before are still being closed; offer again later"))
            return
        self._drop_line()
        line = PeerLine(
            self._settings,
            sends=tuple(self._publishers),
            receives=(StreamType.SENSORY,) if self._senses else (),
            max_frame_bytes=self._max_frame_bytes,
        )
        line.on_open = lambda: self._open(line)
        line.on_lost = lambda reason: self._lose(line, reason)
        line.on_frame = self._take
        self._line = line
        task = asyncio.get_running_loop().create_task(
            self._answer(line, offer, answer), name="feagi-io-webrtc-answer"
        )
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, line: PeerLine, offer: Description, answer: Answer) -> None:
        try:
            text = await line.answer(offer)
        except (OSError, FeagiDataError) as error:  # ConnectionError is an OSError
            self._counted["offers_failed"] += 1
            _log.warning("no WebRTC connection can be made: %s", error)
            if self._line is line:
                self._drop_line()
            answer(PeerRefusal(str(error)[:200]))
            return
        answer(PeerAnswer(text))

    def _open(self, line: PeerLine) -> None:
        if self._line is not line:
            return
        self._counted["opened"] += 1
        self._lost_frames = 0
        for stream, publisher in self._publishers.items():
            publisher.lead_to(line.lines[stream])
        self.connected.set()

    def _lose(self, line: PeerLine, reason: str) -> None:
        """A connection has ended that was not to end."""
        if self._line is not line:
            return
        was_open = self.connected.is_set()
        self._counted["lost" if was_open else "not_opened"] += 1
        if line.lost_motor:
            self.agent.counters[StreamType.MOTOR].count_undelivered(_UNDELIVERED, line.lost_motor)
        name = self.agent.descriptor.agent_name
        _log.log(
            logging.WARNING if line.lost_motor else logging.INFO,
            "WebRTC connection of agent %r: %s; %d motor frames may not have arrived",
            name,
            reason,
            line.lost_motor,
        )
        self._drop_line()
        if was_open:
            self.agent.close(f"its WebRTC connection is lost: {reason}")

    def _drop_line(self) -> None:
        line, self._line = self._line, None
        self.connected.clear()
        for publisher in self._publishers.values():
            publisher.lead_to(None)
        if line is None:
            return
        self.note_losses(line)
        line.end()
        task = asyncio.get_running_loop().create_task(
            line.wait_until_gone(), name="feagi-io-webrtc-closing"
        )
        self.closing[task] = line
        task.add_done_callback(self.closing.pop)

    # -- frames -------------------------------------------------------------------------------

    def _take(self, stream: StreamType, data: memoryview) -> None:
        counters = self.agent.counters[stream]
        try:
            fbc = SharedFBC.from_bytes(data)
        except FeagiDataError as error:
            counters.count_sent(len(data))
            counters.count_dropped("damaged")
            _log.debug("sensory frame dropped: %s", error)
            return
        with fbc:
            try:
                self.agent.submit_sensory(fbc)
            except ClosedError:
                _log.debug("a sensory frame of an agent that is leaving")

    def note_losses(self, line: PeerLine | None = None) -> None:
        """Count the sensory frames that did not arrive whole."""
        line = self._line if line is None else line
        if line is None or not self._senses:
            return
        counted = line.counters(StreamType.SENSORY)
        lost = sum(counted.get(name, 0) for name in LOSSES)
        if lost > self._lost_frames:
            self.agent.counters[StreamType.SENSORY].count_never_came(LOST, lost - self._lost_frames)
        self._lost_frames = lost

    # -- the end ------------------------------------------------------------------------------

    def end(self) -> None:
        """Let go of the connection; the agent is closed by now."""
        self._drop_line()

    def cut(self) -> None:
        """After `end`: wait for no other end."""
        for line in self.closing.values():
            line.cut()

    async def wait_until_gone(self) -> None:
        """After `end`: until nothing is left of any connection."""
        tasks = (*self.closing, *self._answering)
        if tasks:
            await asyncio.wait(tasks)
