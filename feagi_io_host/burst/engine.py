# SPDX-License-Identifier: Apache-2.0
"""BurstEngine: what a brain is to the PNS; and the timetable of its bursts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.events import BodySignals, MotorCommand, VisualizationReady
from feagi_io_host.core.signal import FeagiSignal


class BurstEngine(ABC):
    """A brain that fires in bursts.

    It listens to a PNS after `connect_to_pns`, and is heard through its two signals, to which
    `PNS.connect_to_burst_engine` connects. Frames in the signals are lent for the time of the
    callback; a listener that keeps one retains it.
    """

    def __init__(self) -> None:
        self.visualization_ready: FeagiSignal[VisualizationReady] = FeagiSignal(
            "visualization_ready"
        )
        self.motor_commands: FeagiSignal[MotorCommand] = FeagiSignal("motor_commands")

    @abstractmethod
    def connect_to_pns(self, pns: BodySignals) -> None:
        """Listen to the sensory data and the coming and going of the agents of `pns`."""

    @abstractmethod
    def start(self) -> None:
        """Begin to fire; does nothing when already started."""

    @abstractmethod
    def stop(self, timeout_s: float = 5.0) -> None:
        """End within `timeout_s` seconds, or raise StopTimeoutError. May be called again."""


class BurstTimetable:
    """When bursts are due: a fixed grid from `start_s` on, in seconds of any clock.

    The grid never moves, so lateness of one burst does not shift the next ones. A burst that
    begins more than half a period after its time counts as late. Grid points that a long
    burst (or a sleeping machine) has run over are skipped and counted, not made up for.
    Raises ConfigError for a rate that is not a positive number.
    """

    __slots__ = ("_due_index", "_start_s", "late_bursts", "period_s", "skipped_bursts")

    def __init__(self, rate_hz: float, start_s: float) -> None:
        if not (math.isfinite(rate_hz) and rate_hz > 0.0):
            raise ConfigError(f"rate is {rate_hz} bursts per second; it must be above 0")
        self.period_s = 1.0 / rate_hz
        self.late_bursts = 0
        self.skipped_bursts = 0
        self._start_s = start_s
        self._due_index = 0

    @property
    def due_s(self) -> float:
        """When the next burst is due."""
        return self._start_s + self._due_index * self.period_s

    def restart(self, start_s: float) -> None:
        """Begin a new grid at `start_s`, after a pause for example; the counters stay."""
        self._start_s = start_s
        self._due_index = 0

    def change_rate(self, rate_hz: float, start_s: float) -> None:
        """Begin a new grid of another rate at `start_s`; the counters stay. Raises ConfigError as
        the constructor does."""
        self.period_s = BurstTimetable(rate_hz, start_s).period_s
        self.restart(start_s)

    def begin(self, now_s: float) -> float:
        """A burst begins now. Returns by how many seconds it is late; never below 0."""
        lateness_s = max(now_s - self.due_s, 0.0)
        if lateness_s > self.period_s / 2:
            self.late_bursts += 1
        self._due_index += 1
        return lateness_s

    def end(self, now_s: float) -> int:
        """The burst has ended. Returns how many grid points it made pass unused."""
        passed = math.floor((now_s - self.due_s) / self.period_s)
        if passed <= 0:
            return 0
        self._due_index += passed
        self.skipped_bursts += passed
        return passed
