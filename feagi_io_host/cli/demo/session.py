# SPDX-License-Identifier: Apache-2.0
"""Board, bridge, PNS and brain together: runs them, watches the pole, counts what happened.

What the demo knows of the pole it knows as any brain would: from the sensory voxels that came
over the link.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from feagi_io_host.bridge import BoardBridge, BoardDown, BoardLog, BoardUp
from feagi_io_host.burst.reflex import ReflexEngine
from feagi_io_host.cli.demo.brain import CHANNELS, RATE_HZ, SENSOR_AREA, pole_brain, sensed
from feagi_io_host.cli.describe import first_voxels
from feagi_io_host.cli.emulated_board import BURSTS_PER_S, EmulatedBoard
from feagi_io_host.cli.unix_board import UnixBoard
from feagi_io_host.cli.viewing import ViewOptions, viewing
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.pns import PNS

UNIX = "unix"
FELL_RAD = 0.48  # the angle sensor ends at 0.5
STALE_S = 0.5  # without news for so long, nobody knows whether the pole stands
BEAT_MS = 50  # often enough for a p99 within seconds
LOOK_S = 0.05
RATE_WINDOW_S = 1.0
FIRST_SIGN_S = 10.0


@dataclass(slots=True)
class DemoSnapshot:
    """The demo at one moment. Rates are per second, over the last whole second."""

    seconds: float = 0.0
    link: str = "WAITING"
    angle_rad: float = 0.0
    position_m: float = 0.0
    bursts_hz: float = 0.0
    sensory_hz: float = 0.0
    motor_hz: float = 0.0
    rtt_p50_ms: float = 0.0
    rtt_p99_ms: float = 0.0
    lost: int = 0


class PoleWatch:
    """Reads the pole's state off the sensory frames, in the PNS's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values = [0.0] * len(CHANNELS)
        self.frames = 0
        self.last_at_s: float | None = None
        self.fell_at_s: float | None = None
        self.interpreter = ""

    @property
    def angle_rad(self) -> float:
        """Newest angle, 0 is upright."""
        return self._values[0]

    @property
    def position_m(self) -> float:
        """Newest position of the cart, 0 is the middle of the track."""
        return self._values[2]

    def world(self) -> dict[str, Any] | None:
        """Cart and pole as a viewer gets them; None before the board was heard of."""
        if self.last_at_s is None:
            return None
        return {
            "kind": "cart_pole",
            "angle_rad": self.angle_rad,
            "position_m": self.position_m,
            "track_m": CHANNELS[2][2],
            "fell": self.fell_at_s is not None,
        }

    def fresh(self) -> bool:
        """Whether the board was heard of lately."""
        return self.last_at_s is not None and self._clock() - self.last_at_s < STALE_S

    def take(self, data: SensoryData) -> None:
        """Listener of the PNS's sensory_data_received."""
        voxels = first_voxels(data.fbc.container)
        if voxels is None or SENSOR_AREA not in voxels:
            return
        arrays = voxels[SENSOR_AREA]
        x, _, z, _ = arrays.borrow_xyzp_vectors()
        for channel, level in zip(x.tolist(), z.tolist(), strict=True):
            if channel < len(self._values):
                self._values[channel] = sensed(channel, level)
        self.frames += 1
        self.last_at_s = self._clock()
        if abs(self._values[0]) > FELL_RAD and self.fell_at_s is None:
            self.fell_at_s = self.last_at_s


@dataclass(slots=True)
class DemoResult:
    """How it ended."""

    upright: bool
    seconds: float
    fell_after_s: float | None
    bursts: int
    sensory: int
    motor: int
    lost: int
    rtt_p50_ms: float
    rtt_p99_ms: float
    board_restarts: int
    interpreter: str

    def as_json(self) -> dict[str, Any]:
        """Plain data for --json."""
        return {
            "upright": self.upright,
            "seconds": round(self.seconds, 3),
            "fell_after_s": None if self.fell_after_s is None else round(self.fell_after_s, 3),
            "bursts": self.bursts,
            "sensory": self.sensory,
            "motor": self.motor,
            "lost": self.lost,
            "rtt_ms": {"p50": round(self.rtt_p50_ms, 3), "p99": round(self.rtt_p99_ms, 3)},
            "board_restarts": self.board_restarts,
            "interpreter": self.interpreter,
        }

    def summary(self) -> str:
        """The same in a few lines."""
        if self.fell_after_s is not None:
            ending = f"the pole fell after {self.fell_after_s:.1f} s"
        elif self.upright:
            ending = f"the pole stood for {self.seconds:.1f} s"
        else:
            ending = f"after {self.seconds:.1f} s nobody knows: the board is silent"
        return (
            f"{ending}\n"
            f"  {self.bursts} bursts, {self.sensory} sensory and {self.motor} motor frames, "
            f"{self.lost} lost, {self.board_restarts} board restart(s)\n"
            f"  RTT p50 {self.rtt_p50_ms:.2f} ms, p99 {self.rtt_p99_ms:.2f} ms; "
            f"board: {self.interpreter or 'never heard of'}"
        )


class Demo:
    """The whole demo. `say` is called with one line for each thing that happens, and so is who
    connects to `said`. `board`: "unix", a process, or a board that can be emulated, by its name in
    boards/.

    `run` returns when `seconds` have passed since the pole was first seen, when it fell, or when
    `stop` is set. A board process that dies is started again, under the same name.
    """

    def __init__(
        self,
        *,
        seconds: float,
        brain: bool = True,
        say: Callable[[str], None] = lambda text: None,
        show: Callable[[DemoSnapshot], None] = lambda now: None,
        clock: Callable[[], float] = time.monotonic,
        board: str = UNIX,
    ) -> None:
        self.seconds = seconds
        self.stop = threading.Event()
        self.board: UnixBoard | EmulatedBoard = (
            UnixBoard() if board == UNIX else EmulatedBoard(board, self.stop)
        )
        self.pns = PNS()
        rate_hz = RATE_HZ if board == UNIX else BURSTS_PER_S
        self.engine: ReflexEngine | None = pole_brain(rate_hz) if brain else None
        self.bridge = BoardBridge(self.pns, [self.board.path], beat_ms=BEAT_MS)
        self.watch = PoleWatch(clock)
        self.said: FeagiSignal[str] = FeagiSignal("said")
        self.said.connect(say)
        self._say = self.said.emit
        self._show = show
        self._clock = clock
        self._seen_s: float | None = None

    @contextmanager
    def viewer(
        self, options: ViewOptions, tell: Callable[[str], object], *, control: bool
    ) -> Iterator[None]:
        """Show it in browsers for as long as this lasts; `tell` gets the URL."""
        from feagi_io_host.viewer import PNSSource

        source = PNSSource(
            self.pns,
            self.engine,
            title="A MicroPython board, a brain, a pole",
            name="demo",
            world=self.watch.world,
        )
        with viewing(source, options, tell, controls=self.engine if control else None) as viewer:
            if self.engine is not None:
                viewer.connect_to_burst_engine(self.engine)
            handle = self.said.connect(viewer.say)
            try:
                yield
            finally:
                self.said.disconnect(handle)

    def run(self) -> DemoResult:
        """Start everything, watch until the end, stop everything."""
        self.pns.sensory_data_received.connect(self.watch.take)
        self.bridge.board_up.connect(self._on_up)
        self.bridge.board_down.connect(self._on_down)
        self.bridge.board_log.connect(self._on_log)
        self.bridge.problem.connect(lambda problem: self._say(str(problem.error)))
        if self.engine is not None:
            self.engine.connect_to_pns(self.pns)
            self.pns.connect_to_burst_engine(self.engine)
        try:
            self.board.start()
            self.pns.start()
            if self.engine is not None:
                self.engine.start()
            self.bridge.start()
            self._watch_until_the_end()
            return self._result()
        finally:
            self._stop_everything()

    # -- what happened, from the bridge's threads ------------------------------------------------

    def _on_up(self, event: BoardUp) -> None:
        self.watch.interpreter = event.declaration.firmware
        self._say(f"board up: {event.declaration.name} on {event.declaration.firmware}")

    def _on_down(self, event: BoardDown) -> None:
        self._say(f"board down: {event.reason}")

    def _on_log(self, event: BoardLog) -> None:
        self._say(f"board says: {event.text}")

    # -- the loop ----------------------------------------------------------------------------------

    def _watch_until_the_end(self) -> None:
        """Look twenty times a second; restart the board when its process is gone."""
        begun_s = self._clock()
        last = DemoSnapshot()
        counted = (begun_s, 0, 0, 0)
        while not self.stop.wait(LOOK_S):
            now_s = self._clock()
            if not self.board.running:
                self._say(
                    f"board process ended with status {self.board.exit_status}; started again"
                )
                self.board.start()
            if self.watch.last_at_s is not None and self._seen_s is None:
                self._seen_s = now_s
            status = self._board_status()
            counts = (now_s, self._bursts(), self.watch.frames, status["motor_sent"])
            span_s = max(now_s - counted[0], 1e-3)
            if span_s >= RATE_WINDOW_S:
                rates = [(new - old) / span_s for new, old in zip(counts, counted, strict=True)]
                last.bursts_hz, last.sensory_hz, last.motor_hz = rates[1:]
                counted = counts
            last.seconds = self._elapsed_s()
            last.link = status["state"]
            last.angle_rad = self.watch.angle_rad
            last.position_m = self.watch.position_m
            last.rtt_p50_ms = status["rtt"]["p50_ms"]
            last.rtt_p99_ms = status["rtt"]["p99_ms"]
            last.lost = self._lost(status)
            self._show(replace(last))
            if self.watch.fell_at_s is not None or last.seconds >= self.seconds:
                return
            if self._seen_s is None and now_s - begun_s > FIRST_SIGN_S:
                self._say(
                    f"no sensory frame within {FIRST_SIGN_S:.0f} s of the start; the board's "
                    f"standard error: {self.board.last_words() or 'empty'}"
                )
                return

    def _elapsed_s(self) -> float:
        return 0.0 if self._seen_s is None else self._clock() - self._seen_s

    def _board_status(self) -> dict[str, Any]:
        return self.bridge.status()[0]

    def _bursts(self) -> int:
        return 0 if self.engine is None else self.engine.burst_count

    @staticmethod
    def _lost(status: dict[str, Any]) -> int:
        """Frames that were sent and did not arrive, as either end counted them."""
        peer = status["peer"]
        return int(status["link"]["lost"] + peer["crc_errors"] + peer["resyncs"])

    def _result(self) -> DemoResult:
        status = self._board_status()
        fell_at_s = self.watch.fell_at_s
        fell_after_s = None
        if fell_at_s is not None and self._seen_s is not None:
            fell_after_s = max(0.0, fell_at_s - self._seen_s)
        return DemoResult(
            upright=fell_at_s is None and self.watch.fresh(),
            seconds=self._elapsed_s(),
            fell_after_s=fell_after_s,
            bursts=self._bursts(),
            sensory=self.watch.frames,
            motor=status["motor_sent"],
            lost=self._lost(status),
            rtt_p50_ms=status["rtt"]["p50_ms"],
            rtt_p99_ms=status["rtt"]["p99_ms"],
            board_restarts=max(0, self.board.starts - 1),
            interpreter=self.watch.interpreter,
        )

    def _stop_everything(self) -> None:
        """In the order in which data flows; each step has its share of the two seconds."""
        with ExitStack() as stack:
            # what is pushed last runs first; each runs even when another fails
            stack.callback(self.board.close)
            stack.callback(self.pns.stop, 0.4)
            stack.callback(self.bridge.stop, 0.6)
            if self.engine is not None:
                stack.callback(self.engine.stop, 0.4)
