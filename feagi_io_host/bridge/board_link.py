# SPDX-License-Identifier: Apache-2.0
"""BoardLink: one line, the session on it, and the agent that the PNS sees.

Threads. The line's own thread calls everything that receives and watches the time, and alone
acts on what happens: it attaches the agent, closes its session, emits the events. While a session
is up, one more thread per outbound stream takes frames from the session's channel, stages the
next one here and flushes the line. `_lock` guards the link and the staged frames; nothing is
emitted and nothing waits for another thread while it is held.

Order on the line: control, then motor, then visualization.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from feagi_io_host.bridge.declaration import BoardDeclaration, parse_declaration
from feagi_io_host.bridge.diagnosis import LineDiagnosis
from feagi_io_host.bridge.events import BoardDown, BoardLog, BoardProblem, BoardUp, BridgeSignals
from feagi_io_host.bridge.outbound import OutboundFrames
from feagi_io_host.bridge.rates import RateKeeper
from feagi_io_host.bridge.screening import Screen, ScreenCounters
from feagi_io_host.bridge.settings import AgentIds, LinkCounters, LinkSettings
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import (
    ClosedError,
    FeagiDataError,
    FeagiIOError,
    LinkVersionError,
    PortPermissionError,
    RemoteError,
)
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.telemetry import LatencyHistogram
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.pns import PNS, AgentSession
from feagi_io_host.transports.endpoint import LineTransport
from feagi_wire.const import (
    BYE_REFUSED,
    BYE_STOPPED,
    BYE_VERSION,
    CRC_BYTES,
    END,
    EV_BYE,
    EV_DATA,
    EV_DOWN,
    EV_HELLO,
    EV_LOG,
    EV_LOST,
    EV_RTT,
    EV_UP,
    EV_VERSION,
    FBC_VERSION,
    LINK_HEADER,
    LINK_VERSION,
    STREAM_SENSORY,
    TICKS_MASK,
    WAITING,
)
from feagi_wire.container import StaticFBC
from feagi_wire.framing import frame_bytes
from feagi_wire.host_link import STATE_NAMES, HostLink
from feagi_wire.link import ticks_diff

_log = logging.getLogger("feagi_io.bridge")

TICKS_PER_MS: Final = 1000
MANUFACTURER: Final = "feagi-io board"
# What a frame of 65535 bytes can carry, whatever its bytes are.
LARGEST_CONTAINER: Final = 65000
REOPEN_AFTER_S: Final = 10.0
UDEV_S: Final = 1.0
LOG_CHARS: Final = 200
NO_BYE: Final = 0
CLOSED: Final = "CLOSED"
_PEER_COUNTERS: Final = ("sent", "received", "dropped", "crc_errors", "resyncs")
_UNDECLARED: Final = "undeclared"
_DELIMITERS: Final = memoryview(bytes(2))
_OFFSET_SAMPLES: Final = 16


class BoardLink:
    """The host's end of one board's link; a LineParty for the transport of its line.

    `line` has to be set to that transport before it is started. `clock` gives seconds that never
    go back.
    """

    line: LineTransport

    def __init__(
        self,
        port: str,
        pns: PNS,
        signals: BridgeSignals,
        *,
        settings: LinkSettings,
        ids: AgentIds,
        pool: BufferPool,
        clock: Callable[[], float],
    ) -> None:
        self.port = port
        self.counters = LinkCounters()
        self.rtt = LatencyHistogram()
        self.board: BoardUp | None = None
        """Whose session is up; None when none is."""
        self._pns = pns
        self._signals = signals
        self._settings = settings
        self._ids = ids
        self._pool = pool
        self._clock = clock
        self._lock = threading.Lock()
        room = settings.max_container + CRC_BYTES
        tx = bytearray(frame_bytes(LARGEST_CONTAINER + LINK_HEADER))
        self._tx_view = memoryview(tx).toreadonly()
        self._outbound = OutboundFrames(
            port,
            self._lock,
            self.counters,
            largest=LARGEST_CONTAINER,
            supersede_motor=settings.supersede_motor,
            flush=self._flush,
        )
        self._link = HostLink(
            tx,
            StaticFBC(bytearray(room + (-room % 4))),
            TICKS_PER_MS,
            # Each run begins at another epoch: what a board still sends from a session with an
            # earlier run is then foreign, not fresh.
            epoch=int(clock() * 1000) & 255,
        )
        self._link.beat_ms = settings.beat_ms
        self._link.lost_ms = settings.lost_ms
        self._link.motor_timeout_ms = settings.motor_timeout_ms
        self._late_events = 0  # of ticks in other threads
        self._preamble = 0  # delimiters still to be sent before anything else
        self._discards = 0
        self._given_at = 0  # `_discards` when the last bytes were handed out
        self._declaration: BoardDeclaration | None = None
        self._refusal: FeagiDataError | None = None
        self._session: AgentSession | None = None
        self._screen: Screen | None = None  # of the session, or of the last one
        self._agent_id = bytes(48)
        self._is_open = False
        self._told: set[str] = set()
        self._forbidden_since_s: float | None = None
        self._last_problem = ""
        self._heard_s = 0.0
        self._good_frames = 0
        self._diagnosis = LineDiagnosis(port)
        self._offsets: deque[tuple[int, int]] = deque(maxlen=_OFFSET_SAMPLES)
        self._rates = RateKeeper(0, 0)  # of the line that opens first
        self._idle_s = min(max(settings.beat_ms / 4000.0, 0.005), 0.05)

    # -- called by the line's thread ------------------------------------------------------------

    def line_opened(self) -> None:
        """See LineParty."""
        now_s = self._clock()
        if self._rates.base != self.line.baud:
            self._rates = RateKeeper(self.line.baud, self._settings.max_baud)
        with self._lock:
            self._is_open = True
            self.counters.openings += 1
            link = self._link
            self._discard()
            # Ends whatever the board's side of the line still takes for half a frame.
            self._preamble = len(_DELIMITERS)
            link.framer.set_rx(link.rx.buf)  # and here a half received one is forgotten
            self._diagnosis.start(now_s, link.framer.frames, link.echoed)
            self._heard_s = now_s
        self._forbidden_since_s = None
        self._told -= {name for name in self._told if name.startswith("port:")}

    def line_failed(self, error: FeagiIOError) -> None:
        """See LineParty."""
        if isinstance(error, PortPermissionError):
            # A port that has just been plugged in belongs to root until udev has been there.
            now_s = self._clock()
            if self._forbidden_since_s is None:
                self._forbidden_since_s = now_s
            if now_s - self._forbidden_since_s < UDEV_S:
                return
        else:
            self._forbidden_since_s = None
        self._report(f"port:{type(error).__name__}", error)

    def line_closed(self, error: FeagiIOError | None) -> None:
        """See LineParty."""
        with self._lock:
            self._is_open = False
            # The board may still be in its session when the line comes back at once, but nobody
            # knows what was lost on the way: it starts anew.
            events = self._end_link(NO_BYE)
            self._rates.closed()
        reason = "the line was closed" if error is None else "the line is gone"
        self._act(events | EV_DOWN, reason)
        self._ids.give_up(self.port)
        if error is not None:
            self._report(f"port:{type(error).__name__}", error)

    def line_closing(self) -> None:
        """See LineParty."""
        with self._lock:
            if self._link.state != WAITING:
                self._link.bye(BYE_STOPPED)
        self._end_session("the bridge stops")

    def wants_reopening(self) -> bool:
        """See LineParty."""
        if self._session is not None or self._clock() - self._heard_s < REOPEN_AFTER_S:
            return False
        self._heard_s = self._clock()
        return True

    def receive(self, chunk: memoryview) -> None:
        """See LineParty."""
        link = self._link
        size = len(chunk)
        if self._session is None:
            self._diagnosis.take(chunk)
        at = 0
        while True:
            with self._lock:
                late, self._late_events = self._late_events, 0
                events = link.receive(chunk, at, size, self._ticks())
                if events == END:
                    self._late_events = late
                    break
                at = link.index
                if events & (EV_LOST | EV_DOWN):
                    self._discard()
                if events & EV_HELLO:
                    self._on_hello()
                baud = self._rate_after(late | events)
            self._set_baud(baud)
            if late:
                self._act(late)
            if events:
                self._act(events)
        if link.framer.frames != self._good_frames:
            self._good_frames = link.framer.frames
            self._heard_s = self._clock()

    def poll(self) -> float:
        """See LineParty."""
        with self._lock:
            events = self._late_events | self._tick()
            self._late_events = 0
            baud = self._rate_after(events)
            session = self._session
            too_large, self._outbound.too_large = self._outbound.too_large, None
        self._set_baud(baud)
        if events:
            self._act(events)
        if session is not None:
            if session.closed and self._session is session:
                with self._lock:
                    more = self._end_link(BYE_STOPPED) | EV_DOWN
                    baud = self._rate_after(more)
                self._set_baud(baud)
                self._act(more, "the PNS closed the agent's session")
        elif self._is_open:
            link = self._link
            framer = link.framer
            finding = self._diagnosis.judge(
                self._clock(),
                framer.frames,
                link.echoed,
                framer.crc_errors + framer.resyncs + framer.oversize,
            )
            if finding is not None:
                self._report(*finding)
        if too_large is not None:
            self._report_too_large(*too_large)
        return self._idle_s

    def status(self) -> dict[str, Any]:
        """State, counters and figures as plain data."""
        with self._lock:
            link, framer = self._link, self._link.framer
            session = self._session
            declaration = self._declaration
            offset = min(self._offsets)[1] if self._offsets else None
            return {
                "port": self.port,
                "state": STATE_NAMES[link.state] if self._is_open else CLOSED,
                "board": None
                if declaration is None
                else {
                    "name": declaration.name,
                    "uid": declaration.uid,
                    "firmware": declaration.firmware,
                    "agent_id": self._agent_id.hex(),
                    "max_container": link.peer_max,
                    "sensors": len(declaration.sensors),
                    "motors": len(declaration.motors),
                },
                **asdict(self.counters),
                "refused": asdict(
                    ScreenCounters() if self._screen is None else self._screen.sensory
                ),
                "link": {
                    "sent": link.sent,
                    "received": link.received,
                    "lost": link.lost,
                    "stale": link.stale,
                    "foreign": link.foreign,
                    "unknown": link.unknown,
                    "echoed": link.echoed,
                    "malformed": link.malformed,
                    "crc_errors": framer.crc_errors,
                    "resyncs": framer.resyncs,
                    "oversize": framer.oversize,
                },
                "peer": dict(
                    zip(_PEER_COUNTERS, link.peer_counters.tolist(), strict=True),
                    queued=link.peer_queue,
                ),
                "motor_queued": 0 if session is None else len(session.motor),
                "baud": {
                    "now": self._rates.current,
                    "changes": self._rates.changes,
                    "failures": self._rates.failures,
                },
                "rtt": self.rtt.snapshot(),
                "clock_offset_ms": offset,
                "last_problem": self._last_problem,
            }

    # -- called by whoever flushes the line -----------------------------------------------------

    def next_bytes(self) -> memoryview:
        """See LineParty."""
        with self._lock:
            link = self._link
            self._given_at = self._discards
            if self._preamble:
                return _DELIMITERS[: self._preamble]
            if not link.pending():
                self._late_events |= self._tick()
                if not link.pending():
                    self._outbound.encode(link, self._ticks())
            return self._tx_view[link.tx_pos : link.tx_len]

    def bytes_written(self, count: int) -> None:
        """See LineParty."""
        with self._lock:
            if self._preamble:
                self._preamble -= count
            elif self._given_at == self._discards:
                self._link.written(count)
            # else the frame was discarded while it was being written; what stands in the buffer
            # now is another one

    def _flush(self) -> None:
        self.line.flush()

    def _set_baud(self, baud: int) -> None:
        """Take the line to the rate that `_rate_after` gave, without the lock."""
        if not baud:
            return
        if not self.line.set_baud(baud):
            with self._lock:
                baud = self._rates.not_set(self._clock())
            if baud:  # it may have come from yet another rate, where the board will not be
                self.line.set_baud(baud)
            return
        _log.info("%s: %d baud", self.port, baud)

    # -- with the lock held ---------------------------------------------------------------------

    def _ticks(self) -> int:
        return int(self._clock() * (1000 * TICKS_PER_MS)) & TICKS_MASK

    def _tick(self) -> int:
        link = self._link
        if not self._is_open:
            return 0
        session = self._session
        if session is not None:
            link.queued = len(session.motor)
        busy = link.pending()
        events = link.tick(self._ticks())
        if busy and events & (EV_LOST | EV_DOWN):
            # The frame that was being written belongs to a session that is over. (Without a
            # frame, `tick` may have encoded a new one, which has to stay.)
            self._discard()
        return events

    def _rate_after(self, events: int) -> int:
        """The baud rate that the line is to have now, 0 for the one it has."""
        return self._rates.step(self._link, events, self._clock(), self._ticks())

    def _discard(self) -> None:
        self._discards += 1
        self._link.discard()

    def _end_link(self, reason: int) -> int:
        """End the session on the link, telling the board `reason` unless that is NO_BYE."""
        self._discard()
        events = self._link.refuse(self._ticks())
        # Also puts the next HELLO off to its interval: a board that is turned away again and
        # again is asked at that pace, not at the line's.
        self._link.bye(reason)
        return events

    def _on_hello(self) -> None:
        link = self._link
        start, end = link.hello_span
        try:
            declaration = parse_declaration(memoryview(link.rx.buf)[start:end])
        except FeagiDataError as error:
            self._declaration = None
            self._refusal = error
            self._end_link(BYE_REFUSED)
            return
        self._declaration = declaration
        self._agent_id = self._ids.claim(self.port, declaration.name, declaration.uid)
        link.agent_id[:] = self._agent_id

    # -- acting on events, in the line's thread, without the lock ---------------------------------

    def _act(self, events: int, reason: str = "") -> None:
        if events & EV_VERSION:
            self._report_version(
                f"board on {self.port} speaks link {self._link.peer_link} and container "
                f"{self._link.peer_fbc}"
            )
        if events & EV_BYE:
            why = self._link.bye_reason
            reason = f"the board said goodbye (reason {why})"
            if why == BYE_VERSION:
                self._report_version(f"board on {self.port} refuses our versions")
        if events & (EV_LOST | EV_DOWN):
            if events & EV_LOST:
                self.line.drop_output()
                reason = f"no frame for {self._settings.lost_ms} ms"
            self._end_session(reason or "the board started anew")
            if events & (EV_DOWN | EV_HELLO) == EV_DOWN:
                self._ids.give_up(self.port)
        if events & EV_HELLO and self._refusal is not None:
            refusal, self._refusal = self._refusal, None
            self._report(f"declaration:{refusal}", refusal)
        if events & EV_UP:
            self._begin_session()
        if events & EV_RTT:
            self._on_rtt()
        if events & EV_DATA:
            self._on_data()
        if events & EV_LOG:
            self._on_log()

    def _report_version(self, what: str) -> None:
        self._report(
            f"version:{what}",
            LinkVersionError(
                f"{what}; this host speaks link {LINK_VERSION} and container {FBC_VERSION}: "
                "deploy the feagi_wire and feagi_io_mcu that belong to this feagi-io to the board"
            ),
        )

    def _report(self, cause: str, error: FeagiIOError | FeagiDataError) -> None:
        """Tell a problem once per cause, until a session has been up in between."""
        self._last_problem = str(error)
        if cause in self._told:
            return
        self._told.add(cause)
        _log.warning("%s", error, extra={"port": self.port})
        self._signals.problem.emit(BoardProblem(self.port, error))

    def _report_too_large(self, stream: StreamType, size: int) -> None:
        most = min(self._link.peer_max or LARGEST_CONTAINER, LARGEST_CONTAINER)
        self._report(
            f"too large:{stream.value}",
            RemoteError(
                f"{stream.value} frame of {size} bytes is too large for the board on "
                f"{self.port}, which takes containers of at most {most}; dropped and counted. "
                "Give its agent a larger max_fbc_size, or it fewer or smaller areas"
            ),
        )

    def _begin_session(self) -> None:
        declaration = self._declaration
        if declaration is None or self._session is not None:
            return
        capabilities = AgentCapabilities(0)
        if declaration.sensors:
            capabilities |= AgentCapabilities.SEND_SENSOR_DATA
        if declaration.motors:
            capabilities |= AgentCapabilities.RECEIVE_MOTOR_DATA
        if declaration.visualization:
            capabilities |= AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
        agent_id = self._agent_id
        try:
            agent = self._pns.attach_agent(
                AgentDescriptor(MANUFACTURER, declaration.name, 1),
                capabilities,
                agent_id,
                motor_areas=declaration.motor_areas,
            )
        except ClosedError as error:
            with self._lock:
                self._end_link(BYE_STOPPED)
            self._report("pns", error)
            return
        screen = Screen(declaration, self._pool)
        self.counters.sessions += 1
        self._told.clear()
        with self._lock:
            self._screen = screen
            self._session = agent
        self._outbound.begin(
            agent, screen, motor=bool(declaration.motors), shown=declaration.visualization
        )
        _log.info("board %s is up on %s", declaration.name, self.port)
        self.board = BoardUp(self.port, agent_id, declaration)
        self._signals.board_up.emit(self.board)

    def _end_session(self, reason: str) -> None:
        with self._lock:
            session, self._session = self._session, None
            if session is None:
                return
            self.board = None
            link = self._link
            self._diagnosis.start(self._clock(), link.framer.frames, link.echoed)
            self._heard_s = self._clock()
        self._outbound.end(session, reason)
        _log.info("board %s on %s is down: %s", session.descriptor.agent_name, self.port, reason)
        self._signals.board_down.emit(BoardDown(self.port, session.agent_id, reason))

    def _on_rtt(self) -> None:
        link = self._link
        self.rtt.record(link.rtt / (1e3 * TICKS_PER_MS))
        here_ms = int(self._clock() * 1000) & TICKS_MASK
        there_ms = link.peer_ticks_ms + link.rtt // (2 * TICKS_PER_MS)
        self._offsets.append((link.rtt, ticks_diff(there_ms & TICKS_MASK, here_ms)))

    def _on_log(self) -> None:
        session = self._session
        link = self._link
        start, end = link.log_span
        if session is None or end < start:
            return
        self.counters.logs += 1
        level = link.rx.buf[start - 1]
        text = bytes(link.rx.buf[start:end]).decode("utf-8", "replace")
        # whatever a board sends ends up on somebody's terminal
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        self._signals.board_log.emit(BoardLog(self.port, session.agent_id, level, text[:LOG_CHARS]))

    def _on_data(self) -> None:
        session, screen = self._session, self._screen
        link = self._link
        if session is None or screen is None or link.stream != STREAM_SENSORY:
            self.counters.unexpected += 1
            return
        self.counters.sensory += 1
        try:
            fbc = screen.take_sensory(memoryview(link.rx.buf)[: link.length])
        except FeagiDataError as error:
            self.counters.sensory_damaged += 1
            self._report("sensory", error)
            return
        refused = screen.sensory
        if refused.voxels_refused or refused.areas_refused or refused.frames_refused:
            self._report_refused(refused)
        if fbc is None:
            return
        with fbc:
            try:
                session.submit_sensory(fbc)
            except ClosedError:
                _log.debug("%s: sensory frame for a session that was closed", self.port)

    def _report_refused(self, refused: ScreenCounters) -> None:
        declaration = self._declaration
        if declaration is None or _UNDECLARED in self._told:
            return
        declared = ", ".join(
            f"{bytes(unit.cortical_id)!r} {unit.channels} channels x {unit.resolution}"
            for unit in declaration.sensors
        )
        self._report(
            _UNDECLARED,
            RemoteError(
                f"board {declaration.name} on {self.port} sends what it has not declared "
                f"({refused.areas_refused} areas, {refused.voxels_refused} voxels so far, dropped "
                f"and counted); declared: {declared or 'no sensor'}. Declare the sensor with the "
                "channels and resolution it uses"
            ),
        )
