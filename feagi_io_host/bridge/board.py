# SPDX-License-Identifier: Apache-2.0
"""BoardBridge: any number of boards on their lines, each an agent of the PNS."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from feagi_io_host.bridge.board_link import BoardLink
from feagi_io_host.bridge.events import BoardDown, BoardLog, BoardProblem, BoardUp, BridgeSignals
from feagi_io_host.bridge.rates import MAX_BAUD
from feagi_io_host.bridge.settings import AgentIds, LinkSettings
from feagi_io_host.core.errors import ConfigError, StopTimeoutError
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.pns import PNS
from feagi_io_host.transports.registry import line_transport

# With a slower beat the board is given so many of them before it counts as lost.
_BEATS_TO_LOSE = 4
_LEAST_LOST_MS = 800


class BoardBridge:
    """Carries frames between boards and a PNS, and finds every board again that goes away.

    `ports` are device paths, pseudo terminals, socket://host:port or udp://address:port (an
    address of this machine, to which the board sends); `reset` pulses the control lines at the
    first opening so that boards with an automatic reset start anew.

    `beat_ms` is how often both ends show that they are alive and measure the round trip,
    `lost_ms` the silence after which a board counts as lost (four beats and at least 800 ms
    unless given), `motor_timeout_ms` the silence after which the board goes fail-safe.
    `supersede_motor`: of several motor frames waiting for one board only the newest is sent, the
    others are counted; otherwise all are, in order. `max_baud`: the highest baud rate that a serial
    line is taken to, if its board can follow and the line carries; 0 for none (docs/board-link.md).

    Signals, emitted in the thread of the board's line: `board_up`, `board_down`, `board_log`,
    `problem` (each cause once). A session that is lost or ends closes the agent in the PNS and
    drops the motor frames queued for it; when it is up again the same agent id is attached anew.

    Raises ConfigError for no port, a port named twice, or times that cannot work.
    """

    def __init__(
        self,
        pns: PNS,
        ports: Iterable[str | os.PathLike[str]],
        *,
        baud: int = 115200,
        reset: bool = False,
        beat_ms: int = 200,
        lost_ms: int | None = None,
        motor_timeout_ms: int = 300,
        supersede_motor: bool = False,
        max_container: int = 32768,
        max_baud: int = MAX_BAUD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(ports, (str, os.PathLike)):
            raise ConfigError(f"ports is {ports!r}; a list of ports is needed: [{str(ports)!r}]")
        names = [os.fspath(port) for port in ports]
        if not names:
            raise ConfigError("no port given; name at least one, such as /dev/ttyACM0")
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ConfigError(f"named twice among {len(names)} ports: {', '.join(doubled)}")
        settings = LinkSettings(
            beat_ms=beat_ms,
            lost_ms=max(_LEAST_LOST_MS, _BEATS_TO_LOSE * beat_ms) if lost_ms is None else lost_ms,
            motor_timeout_ms=motor_timeout_ms,
            supersede_motor=supersede_motor,
            max_container=max_container,
            max_baud=max_baud,
        )
        self.board_up: FeagiSignal[BoardUp] = FeagiSignal("board_up")
        self.board_down: FeagiSignal[BoardDown] = FeagiSignal("board_down")
        self.board_log: FeagiSignal[BoardLog] = FeagiSignal("board_log")
        self.problem: FeagiSignal[BoardProblem] = FeagiSignal("problem")
        self.pns = pns
        self.pool = BufferPool()
        self._links: dict[str, BoardLink] = {}
        signals = BridgeSignals(self.board_up, self.board_down, self.board_log, self.problem)
        ids = AgentIds()
        for name in names:
            link = BoardLink(
                name, pns, signals, settings=settings, ids=ids, pool=self.pool, clock=clock
            )
            link.line = line_transport(name, link, baud=baud, reset=reset, clock=clock)
            self._links[name] = link

    def start(self) -> None:
        """Begin to look for the boards; does nothing when started before. A port that is not
        there or not free is reported by `problem` and tried again. ClosedError after `stop`."""
        for link in self._links.values():
            link.line.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Say goodbye to the boards and close every line, within `timeout_s` seconds in all.

        May be called more than once. Raises StopTimeoutError naming the lines that are held up;
        the others are closed even then.
        """
        deadline_s = time.monotonic() + timeout_s
        held = []
        for link in self._links.values():
            try:
                # All are asked before any is waited for, so that the goodbyes run side by side.
                link.line.stop(0.0)
            except StopTimeoutError:
                held.append(link)
        for link in tuple(held):
            try:
                link.line.stop(max(deadline_s - time.monotonic(), 0.0))
                held.remove(link)
            except StopTimeoutError:
                continue
        if held:
            raise StopTimeoutError(
                f"{len(held)} of {len(self._links)} lines did not close within {timeout_s} s: "
                f"{', '.join(link.port for link in held)}; is a listener not returning?"
            )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def ports(self) -> tuple[str, ...]:
        """The lines of this bridge, as they were named."""
        return tuple(self._links)

    @property
    def boards_up(self) -> tuple[BoardUp, ...]:
        """The boards whose session is up now, as `board_up` told of them."""
        events = (link.board for link in self._links.values())
        return tuple(event for event in events if event is not None)

    def status(self) -> list[dict[str, Any]]:
        """A plain dictionary per line: `port`, `state` (CLOSED, WAITING, OFFERED, CONNECTED,
        LOST), `board`, counters of frames and sessions, `link` and `peer` counters, `rtt`
        (`p50_ms`, `p99_ms`, ...), `clock_offset_ms` (board minus host), `last_problem`."""
        return [link.status() for link in self._links.values()]
