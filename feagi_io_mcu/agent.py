# SPDX-License-Identifier: Apache-2.0
"""Agent: a board's sensors and motors, declared once and then moved by `step()`.

Everything is allocated when the agent starts (the first `step`, or `start`); from then on nothing
is, whatever happens on the line.
"""

import json
import sys

from feagi_wire.const import (
    CONNECTED,
    E_STATE,
    END,
    EV_DOWN,
    EV_FAILSAFE,
    EV_MOTOR,
    EV_UP,
    FRACTIONAL,
    INCREMENTAL,
    PERCENTAGE,
    SIGNED_PERCENTAGE,
    STREAM_MOTOR,
    STREAM_SENSORY,
)
from feagi_wire.container import StaticFBC
from feagi_wire.cortical_id import pack_unit_id
from feagi_wire.errors import check
from feagi_wire.link import ticks_diff
from feagi_wire.xyzp import ValueDecoder, ValueEncoder

from ._port import sleep_ms, ticks
from .config import FBC_POOL_SIZE, MAX_FBC_SIZE, PERIOD_MS
from .drivers.base import RTOSDriver
from .transport import RTOSTransport

MYPY = False
if MYPY:
    from collections.abc import Callable
    from typing import Any, Protocol

    class InputArea(Protocol):
        """What an agent needs of a sensor."""

        cortical_id: bytearray
        entry: dict[str, object]
        encoder: Any  # max_voxels(), write(fbc, cortical_id)
        only_changes: bool
        changed: bool

    class OutputArea(Protocol):
        """What an agent needs of a motor."""

        cortical_id: bytearray
        entry: dict[str, object]
        decoder: Any  # read(fbc, n); channels, seen, values
        on_value: Callable[[int, int], None] | None


# Units of one area whose voxels are one value per channel: code -> data type. Signed ones are
# those of SIGNED_PERCENTAGE. From the registrations of feagi-rust-py-libs 0.0.120.
UNITS = {
    "iinf": PERCENTAGE,
    "ipro": PERCENTAGE,
    "ishk": PERCENTAGE,
    "ibat": PERCENTAGE,
    "isvm": PERCENTAGE,
    "iagp": PERCENTAGE,
    "icnt": PERCENTAGE,
    "omot": SIGNED_PERCENTAGE,
    "ocnt": PERCENTAGE,
}


def _unit_entry(
    kind: str, unit: str, group: int, channels: int, resolution: int, flags: int
) -> "tuple[bytearray, bool, dict[str, object]]":
    """The id of a unit's area, whether its values are signed, and its line in the declaration."""
    if unit not in UNITS or unit[0] != kind:
        known = " ".join(sorted(u for u in UNITS if u[0] == kind))
        raise ValueError("unit %s is not one of: %s" % (unit, known))
    cortical_id = bytearray(8)
    check(pack_unit_id(cortical_id, unit.encode(), UNITS[unit], 0, group, flags))
    signed = UNITS[unit] == SIGNED_PERCENTAGE
    entry = {
        "u": unit, "t": UNITS[unit], "s": 0, "g": group, "f": flags,
        "n": channels, "r": resolution, "c": 1 if signed else 0,
    }  # fmt: skip
    return cortical_id, signed, entry


class Sensor:
    """One input area. Write values whenever they are known; `step` sends them."""

    def __init__(
        self, unit: str, group: int, channels: int, resolution: int, flags: int, only_changes: bool
    ) -> None:
        self.cortical_id, signed, self.entry = _unit_entry(
            "i", unit, group, channels, resolution, flags
        )
        self.encoder = ValueEncoder(channels, resolution, signed, flags & FRACTIONAL != 0)
        self.only_changes = only_changes
        self.changed = True

    def write_u16(self, channel: int, value: int) -> None:
        """Set an unsigned channel, 0..65535 for 0..1. FeagiWireError outside channels or range."""
        encoder = self.encoder
        before = encoder.values[channel] if 0 <= channel < encoder.channels else -1
        check(encoder.set(channel, value))
        if value != before:
            self.changed = True

    # the encoder knows which of the two ranges holds
    write_i16 = write_u16


class Motor:
    """One output area. `on_value(channel, value)` is called for each channel a frame brings."""

    def __init__(
        self,
        unit: str,
        group: int,
        channels: int,
        resolution: int,
        flags: int,
        on_value: "Callable[[int, int], None] | None",
    ) -> None:
        self.cortical_id, signed, self.entry = _unit_entry(
            "o", unit, group, channels, resolution, flags
        )
        self.decoder = ValueDecoder(channels, resolution, signed, flags & FRACTIONAL != 0)
        self.on_value = on_value

    @property
    def values(self) -> "object":
        """Newest value per channel: 0..65535, or -32767..32767 for a signed unit."""
        return self.decoder.values


class Agent:
    """A board as FEAGI sees it.

    `line`: a driver such as UartDriver(0). `on_failsafe()` is called once when no fresh motor
    command came for the host's motor timeout (300 ms unless it says otherwise); `on_motor()` when
    they are back. `watchdog`: anything with feed(), fed by `step` alone, so that a program that
    hangs is reset.
    """

    def __init__(
        self,
        line: RTOSDriver,
        name: str,
        uid: str = "",
        period_ms: int = PERIOD_MS,
        max_fbc_size: int = MAX_FBC_SIZE,
        pool_size: int = FBC_POOL_SIZE,
        on_failsafe: "Callable[[], None] | None" = None,
        watchdog: "object | None" = None,
    ) -> None:
        self.line = line
        self.name = name
        self.uid = uid
        self.period_ms = period_ms
        self.on_failsafe = on_failsafe
        self.on_motor: "Callable[[], None] | None" = None
        self.frames_sent = 0
        self.frames_late = 0  # steps in which a frame was due and the line still busy
        self._watchdog = watchdog
        self._max_fbc_size = max_fbc_size
        self._pool_size = pool_size
        self._sensors: "list[InputArea]" = []
        self._motors: "list[OutputArea]" = []
        self._out: "StaticFBC | None" = None
        self._last_sent = 0
        self._counter = 0
        self.transport: "RTOSTransport | None" = None

    def sensor(
        self,
        unit: str,
        group: int = 0,
        channels: int = 1,
        resolution: int = 8,
        incremental: bool = False,
        fractional: bool = False,
        only_changes: bool = False,
    ) -> Sensor:
        """Declare an input unit. With `only_changes` its area is left out while nothing changed;
        the engine keeps only the newest frame, so leave it off unless the brain expects that."""
        flags = (INCREMENTAL if incremental else 0) | (FRACTIONAL if fractional else 0)
        s = Sensor(unit, group, channels, resolution, flags, only_changes)
        self.add_sensor(s)
        return s

    def motor(
        self,
        unit: str,
        group: int = 0,
        channels: int = 1,
        resolution: int = 8,
        on_value: "Callable[[int, int], None] | None" = None,
        incremental: bool = False,
        fractional: bool = False,
    ) -> Motor:
        """Declare an output unit."""
        flags = (INCREMENTAL if incremental else 0) | (FRACTIONAL if fractional else 0)
        m = Motor(unit, group, channels, resolution, flags, on_value)
        self.add_motor(m)
        return m

    def add_sensor(self, part: "InputArea") -> None:
        """Declare an input area that was made elsewhere, as those of units.py do themselves."""
        self._declare(part)
        self._sensors.append(part)

    def add_motor(self, part: "OutputArea") -> None:
        """Declare an output area that was made elsewhere, as those of units.py do themselves."""
        self._declare(part)
        self._motors.append(part)

    def _declare(self, part: "InputArea | OutputArea") -> None:
        if self.transport is not None:
            check(E_STATE)  # the host was told already
        for others in (self._sensors, self._motors):
            for other in others:
                if other.cortical_id == part.cortical_id:
                    raise ValueError("declared twice: %s" % json.dumps(part.entry))

    def start(self) -> None:
        """Allocate everything and open the line. Done by the first `step` if not before."""
        if self.transport is not None:
            return
        v = sys.implementation.version
        declaration = {
            "name": self.name,
            "uid": self.uid,
            "fw": "%s %d.%d.%d %s" % (sys.implementation.name, v[0], v[1], v[2], sys.platform),
            "sensors": [s.entry for s in self._sensors],
            "motors": [m.entry for m in self._motors],
        }
        text = json.dumps(declaration).encode()
        need = 60
        for s in self._sensors:
            need += 16 + 16 * s.encoder.max_voxels()
        if need > self._max_fbc_size:
            raise ValueError(
                "sensor frames take up to %d bytes, max_fbc_size is %d" % (need, self._max_fbc_size)
            )
        self._out = StaticFBC(bytearray(need))
        self.transport = RTOSTransport(self.line, text, self._max_fbc_size, self._pool_size, need)
        self._last_sent = ticks()

    @property
    def connected(self) -> bool:
        """Whether a session with the host is up."""
        return self.transport is not None and self.transport.link.state == CONNECTED

    def step(self, wait_ms: int = 0) -> int:
        """Move bytes, run callbacks, send sensors when due. The link's event bits.

        `wait_ms`: how long to sleep when nothing came, for programs with nothing else to do.
        """
        if self.transport is None:
            self.start()
        t = self.transport
        assert t is not None
        ev = t.pump()
        if ev:
            if ev & EV_MOTOR and self.on_motor is not None:
                self.on_motor()
            if ev & (EV_UP | EV_DOWN):
                for s in self._sensors:
                    s.changed = True
        fbc = t.poll(STREAM_MOTOR)
        if fbc is not None:
            self._apply(fbc)
        # after the motors: a frame of a session that ended meanwhile must not have the last word
        if ev & EV_FAILSAFE and self.on_failsafe is not None:
            self.on_failsafe()
        if t.link.state == CONNECTED and ticks_diff(ticks(), self._last_sent) >= self.period_ms:
            self._publish(t)
        if self._watchdog is not None:
            self._watchdog.feed()  # type: ignore[attr-defined]
        if wait_ms and fbc is None:
            sleep_ms(wait_ms)
        return ev

    def _apply(self, fbc: StaticFBC) -> None:
        n = fbc.next_area()
        while n != END:
            for m in self._motors:
                if fbc.area_id_is(m.cortical_id):
                    d = m.decoder
                    if d.read(fbc, n) > 0 and m.on_value is not None:
                        for c in range(d.channels):
                            if d.seen[c]:
                                m.on_value(c, d.values[c])
                    break
            n = fbc.next_area()

    def _publish(self, t: RTOSTransport) -> None:
        if t.link.pending():
            self.frames_late = (self.frames_late + 1) & 0xFFFF
            return
        areas = 0
        for s in self._sensors:
            if s.changed or not s.only_changes:
                areas += 1
        if areas == 0:
            return
        self._last_sent = ticks()
        fbc = self._out
        assert fbc is not None
        check(fbc.begin(self._counter, areas))
        for s in self._sensors:
            if s.changed or not s.only_changes:
                check(s.encoder.write(fbc, s.cortical_id))
        check(fbc.end())
        if t.send(STREAM_SENSORY, fbc) > 0:
            self._counter = (self._counter + 1) & 0xFFFF
            self.frames_sent = (self.frames_sent + 1) & 0xFFFF
            for s in self._sensors:
                s.changed = False

    def log(self, level: int, text: bytes) -> int:
        """Send the host a short message (level as in Python's logging, e.g. 20 info)."""
        if self.transport is None:
            return E_STATE
        return self.transport.link.log(level, text)

    def stop(self, reason: int = 1) -> None:
        """Say goodbye and give the line back; actuators go fail-safe."""
        t = self.transport
        if t is None:
            return
        t.link.bye(reason)
        t.pump()
        until = ticks() + 50
        while t.flush() and ticks_diff(ticks(), until) < 0:
            sleep_ms(1)
        t.close()
        self.transport = None
        if self.on_failsafe is not None:
            self.on_failsafe()


__all__ = ["UNITS", "Agent", "Motor", "Sensor"]
