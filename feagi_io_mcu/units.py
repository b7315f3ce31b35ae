# SPDX-License-Identifier: Apache-2.0
"""Units of more than one value a channel, of more than one area, or of plain voxels.

    imu = RawImu(agent)                         # irim: three areas of three signed axes
    imu.accelerometer.write(0, ax, ay, az)      # -32767..32767 for -1..1
    servo = PositionalServo(agent, channels=2, on_value=move)   # 0..65535 for 0..1

Each is made before the agent starts and adds itself to it. Units of one value a channel are in
agent.py; this file costs only boards that import it. Coding measured on feagi-rust-py-libs 0.0.120:

    RawIMU, SmartIMU    3 areas of D = 3 signed axes; 1 of D = 4. Axis i of channel c is the value
                        D*c + i of an area of single values (feagi_wire/xyzp.py)
    CartesianPosition   1 area of 3 unsigned axes, in the same way
    DigitalGPIO         x = c, z = 0, potential 1.0 for high and 0.0 for low
    MiscData            volume w, h, d: x = w*c + X, y = Y, z = Z, the potential as it is
    PositionalServo     where to: 1 - mean(z) / (R-1) of x = c, never fractional
                        how far from here: x = 2c on, 2c+1 back, 0.002 of the range at z = 0
                        how quickly: x = c
    Gaze                direction, 2 unsigned axes, as above; size, x = c. The library shows none of
                        its values, so this is only the coding that its other units share
"""

from array import array

from feagi_wire.const import (
    BOOLEAN,
    E_CAPACITY,
    E_RANGE,
    FRACTIONAL,
    INCREMENTAL,
    MISC,
    OK,
    PERCENTAGE,
    PERCENTAGE_2D,
    PERCENTAGE_3D,
    SIGNED_PERCENTAGE_3D,
    SIGNED_PERCENTAGE_4D,
)
from feagi_wire.container import StaticFBC
from feagi_wire.cortical_id import pack_unit_id
from feagi_wire.errors import check
from feagi_wire.xyzp import ValueDecoder, ValueEncoder

MYPY = False
if MYPY:
    from collections.abc import Callable

    from .agent import Agent

    OnValue = Callable[[int, int], None] | None

# A servo's position in 65535ths of its range, each in 256 parts; how far one incremental frame
# moves it at most: 0.002 of the range.
_PARTS = 256
_TOP = 65535 * _PARTS
_STEP = 33554


class _Area:
    """One area: its id and its line in the declaration."""

    def __init__(
        self,
        unit: str,
        data_type: int,
        sub_unit: int,
        group: int,
        flags: int,
        channels: int,
        resolution: int,
        signed: bool = False,
    ) -> None:
        self.cortical_id = bytearray(8)
        check(pack_unit_id(self.cortical_id, unit.encode(), data_type, sub_unit, group, flags))
        self.entry: "dict[str, object]" = {
            "u": unit, "t": data_type, "s": sub_unit, "g": group, "f": flags,
            "n": channels, "r": resolution, "c": 1 if signed else 0,
        }  # fmt: skip


def _flags(incremental: bool, fractional: bool) -> int:
    return (INCREMENTAL if incremental else 0) | (FRACTIONAL if fractional else 0)


class VectorSensor(_Area):
    """An area whose channels have `axes` values each."""

    def __init__(
        self,
        unit: str,
        data_type: int,
        sub_unit: int,
        axes: int,
        signed: bool,
        group: int,
        channels: int,
        resolution: int,
        flags: int,
        only_changes: bool,
    ) -> None:
        _Area.__init__(self, unit, data_type, sub_unit, group, flags, channels, resolution, signed)
        self.axes = axes
        self.encoder = ValueEncoder(channels * axes, resolution, signed, flags & FRACTIONAL != 0)
        self.only_changes = only_changes
        self.changed = True

    def write(self, channel: int, a: int, b: int, c: int = 0, d: int = 0) -> None:
        """Set the axes of a channel: -32767..32767 for -1..1, 0..65535 for 0..1 where the unit is
        unsigned. FeagiWireError outside channels or range; axes before the one at fault are set."""
        axes = self.axes
        # also for a negative one, which would be another channel's
        at = channel * axes if channel >= 0 else self.encoder.channels
        self._set(at, a)
        self._set(at + 1, b)
        if axes > 2:
            self._set(at + 2, c)
        if axes > 3:
            self._set(at + 3, d)

    def _set(self, at: int, value: int) -> None:
        encoder = self.encoder
        before = encoder.values[at] if at < encoder.channels else -1
        check(encoder.set(at, value))
        if value != before:
            self.changed = True


class RawImu:
    """RawIMU, `irim`: the areas `accelerometer`, `gyroscope` and `magnetometer`, three signed axes
    each: `write(channel, x, y, z)`."""

    def __init__(
        self,
        agent: "Agent",
        group: int = 0,
        channels: int = 1,
        resolution: int = 8,
        incremental: bool = False,
        fractional: bool = False,
        only_changes: bool = False,
    ) -> None:
        flags = _flags(incremental, fractional)
        parts = []
        for sub_unit in range(3):
            part = VectorSensor(
                "irim", SIGNED_PERCENTAGE_3D, sub_unit, 3, True, group, channels, resolution,
                flags, only_changes,
            )  # fmt: skip
            agent.add_sensor(part)
            parts.append(part)
        self.accelerometer = parts[0]
        self.gyroscope = parts[1]
        self.magnetometer = parts[2]


class _OneVector(VectorSensor):
    """A unit that is one such area."""

    _unit = ""
    _data_type = 0
    _axes = 0
    _signed = False

    def __init__(
        self,
        agent: "Agent",
        group: int = 0,
        channels: int = 1,
        resolution: int = 8,
        incremental: bool = False,
        fractional: bool = False,
        only_changes: bool = False,
    ) -> None:
        VectorSensor.__init__(
            self, self._unit, self._data_type, 0, self._axes, self._signed, group, channels,
            resolution, _flags(incremental, fractional), only_changes,
        )  # fmt: skip
        agent.add_sensor(self)


class SmartImu(_OneVector):
    """SmartIMU, `isim`: four signed axes, a quaternion: `write(channel, a, b, c, d)`."""

    _unit = "isim"
    _data_type = SIGNED_PERCENTAGE_4D
    _axes = 4
    _signed = True


class CartesianPosition(_OneVector):
    """CartesianPosition, `icpo`: three unsigned axes: `write(channel, x, y, z)`."""

    _unit = "icpo"
    _data_type = PERCENTAGE_3D
    _axes = 3


class _Levels:
    """High or low, one a channel."""

    def __init__(self, channels: int) -> None:
        if not 1 <= channels <= 16384:
            raise ValueError("channels: 1 to 16384, got %d" % channels)
        self.channels = channels
        self.values = bytearray(channels)

    def max_voxels(self) -> int:
        return self.channels

    def write(self, fbc: StaticFBC, cortical_id: "bytes | bytearray") -> int:
        rc = fbc.begin_area(cortical_id, self.channels)
        if rc != OK:
            return rc
        for c in range(self.channels):
            rc = fbc.add(c, 0, 0, 1.0 if self.values[c] else 0.0)
            if rc < 0:
                return rc
        return fbc.end_area()


class DigitalGpio(_Area):
    """DigitalGPIO, `idgp`: pins that are high or low."""

    def __init__(
        self, agent: "Agent", group: int = 0, channels: int = 1, only_changes: bool = False
    ) -> None:
        _Area.__init__(self, "idgp", BOOLEAN, 0, group, 0, channels, 1)
        self.encoder = _Levels(channels)
        self.only_changes = only_changes
        self.changed = True
        agent.add_sensor(self)

    def write(self, channel: int, level: int) -> None:
        """Set a channel, as `Pin.value()` gives it. FeagiWireError outside the channels."""
        values = self.encoder.values
        if channel < 0 or channel >= len(values):
            check(E_RANGE)
        high = 1 if level else 0
        if values[channel] != high:
            values[channel] = high
            self.changed = True


class _Voxels:
    """Voxels to be sent, up to a fixed number of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0
        self.x = array("I", [0] * most)
        self.y = array("I", [0] * most)
        self.z = array("I", [0] * most)
        self.p = [0.0] * most  # reading a float out of an array allocates

    def max_voxels(self) -> int:
        return self.most

    def write(self, fbc: StaticFBC, cortical_id: "bytes | bytearray") -> int:
        rc = fbc.begin_area(cortical_id, self.most)
        if rc != OK:
            return rc
        for i in range(self.count):
            rc = fbc.add(self.x[i], self.y[i], self.z[i], self.p[i])
            if rc < 0:
                return rc
        return fbc.end_area()


def _misc_area(
    part: _Area,
    unit: str,
    group: int,
    channels: int,
    width: int,
    height: int,
    depth: int,
    flags: int,
) -> None:
    for name, size in (("width", width), ("height", height), ("depth", depth)):
        if not 1 <= size <= 16384:
            raise ValueError("%s: 1 to 16384, got %d" % (name, size))
    _Area.__init__(part, unit, MISC, 0, group, flags, channels, depth)
    if width > 1:
        part.entry["w"] = width
    if height > 1:
        part.entry["h"] = height


class MiscSensor(_Area):
    """MiscData, `imis`: voxels of a volume a channel, sent as they are. `max_voxels`: how many one
    frame holds at most."""

    def __init__(
        self,
        agent: "Agent",
        width: int,
        height: int,
        depth: int,
        group: int = 0,
        channels: int = 1,
        max_voxels: int = 32,
        incremental: bool = False,
        only_changes: bool = False,
    ) -> None:
        _misc_area(
            self, "imis", group, channels, width, height, depth, INCREMENTAL if incremental else 0
        )
        self.width = width
        self.height = height
        self.depth = depth
        self.channels = channels
        self.encoder = _Voxels(max_voxels)
        self.only_changes = only_changes
        self.changed = True
        agent.add_sensor(self)

    def clear(self) -> None:
        """No voxel is set any more."""
        self.encoder.count = 0
        self.changed = True

    def put(self, channel: int, x: int, y: int, z: int, p: float) -> None:
        """One voxel more, with a potential of -1 to 1; what is beyond is cut, as the library does.
        FeagiWireError outside channels and volume, and for more than `max_voxels`."""
        if not (
            0 <= channel < self.channels
            and 0 <= x < self.width
            and 0 <= y < self.height
            and 0 <= z < self.depth
        ):
            check(E_RANGE)
        voxels = self.encoder
        i = voxels.count
        if i >= voxels.most:
            check(E_CAPACITY)
        voxels.x[i] = channel * self.width + x
        voxels.y[i] = y
        voxels.z[i] = z
        voxels.p[i] = 1.0 if p > 1.0 else -1.0 if p < -1.0 else p
        voxels.count = i + 1
        self.changed = True


class MiscMotor(_Area):
    """MiscData, `omis`: `on_voxel(channel, x, y, z, q16)` for each voxel of the volume that a
    frame brings, `q16` its potential in 65536ths. Others are counted in `ignored`."""

    channels = 0  # of those that Agent tells one by one

    def __init__(
        self,
        agent: "Agent",
        width: int,
        height: int,
        depth: int,
        on_voxel: "Callable[[int, int, int, int, int], None]",
        group: int = 0,
        channels: int = 1,
        incremental: bool = False,
    ) -> None:
        _misc_area(
            self, "omis", group, channels, width, height, depth, INCREMENTAL if incremental else 0
        )
        self.ignored = 0
        self.decoder = self
        self.on_value: "OnValue" = None
        self._columns = channels * width
        self._width = width
        self._height = height
        self._depth = depth
        self._on_voxel = on_voxel
        agent.add_motor(self)

    def read(self, fbc: StaticFBC, n: int) -> int:
        """Called by the agent with n voxels of the current area."""
        for i in range(n):
            if (
                fbc.get(i) != OK
                or fbc.x >= self._columns
                or fbc.y >= self._height
                or fbc.z >= self._depth
            ):
                self.ignored = (self.ignored + 1) & 0xFFFF
                continue
            x = fbc.x
            self._on_voxel(x // self._width, x % self._width, fbc.y, fbc.z, fbc.q16)
        return n


class VectorMotor(_Area):
    """An area whose channels have `axes` unsigned values each: `on_value(channel * axes + axis,
    value)`, and `values`."""

    def __init__(
        self,
        unit: str,
        data_type: int,
        sub_unit: int,
        axes: int,
        group: int,
        channels: int,
        resolution: int,
        flags: int,
        on_value: "OnValue",
    ) -> None:
        _Area.__init__(self, unit, data_type, sub_unit, group, flags, channels, resolution)
        self.decoder = ValueDecoder(channels * axes, resolution, False, flags & FRACTIONAL != 0)
        self.on_value = on_value

    @property
    def values(self) -> "object":
        """Newest value of each axis of each channel, 0..65535."""
        return self.decoder.values


class Gaze:
    """Gaze, `ogaz`: `direction` has two values a channel, `size` one: see VectorMotor."""

    def __init__(
        self,
        agent: "Agent",
        group: int = 0,
        channels: int = 1,
        resolution: int = 8,
        size_resolution: int = 8,
        on_direction: "OnValue" = None,
        on_size: "OnValue" = None,
        incremental: bool = False,
        fractional: bool = False,
    ) -> None:
        flags = _flags(incremental, fractional)
        self.direction = VectorMotor(
            "ogaz", PERCENTAGE_2D, 0, 2, group, channels, resolution, flags, on_direction
        )
        self.size = VectorMotor(
            "ogaz", PERCENTAGE, 1, 1, group, channels, size_resolution, flags, on_size
        )
        agent.add_motor(self.direction)
        agent.add_motor(self.size)


class _Goal(_Area):
    """Where a servo is to go."""

    def __init__(self, servo: "PositionalServo", group: int, resolution: int, flags: int) -> None:
        n = servo.channels
        _Area.__init__(self, "opse", PERCENTAGE, 0, group, flags, n, resolution)
        self._servo = servo
        self._linear = ValueDecoder(n, resolution)
        self.decoder = self
        self.channels = n
        self.seen = self._linear.seen
        self.values = servo.values
        self.on_value = servo.on_value

    def read(self, fbc: StaticFBC, n: int) -> int:
        found = self._linear.read(fbc, n)
        for c in range(self.channels):
            if self.seen[c]:
                self._servo.put(c, self._linear.values[c] * _PARTS)
        return found


class _Move(_Area):
    """How far a servo is to go from where it is: on and back, each with columns of its own."""

    def __init__(self, servo: "PositionalServo", group: int, resolution: int, flags: int) -> None:
        n = servo.channels
        _Area.__init__(self, "opse", PERCENTAGE, 1, group, flags | INCREMENTAL, n, resolution)
        self._servo = servo
        self._steps = resolution - 1
        self._sum = array("i", [0] * (2 * n))
        self._count = array("H", [0] * (2 * n))
        self.ignored = 0
        self.decoder = self
        self.channels = n
        self.seen = bytearray(n)
        self.values = servo.values
        self.on_value = servo.on_value

    def read(self, fbc: StaticFBC, n: int) -> int:
        total = self._sum
        count = self._count
        for x in range(2 * self.channels):
            total[x] = 0
            count[x] = 0
        for i in range(n):
            if fbc.get(i) != OK or fbc.x >= len(count) or fbc.z > self._steps:
                self.ignored = (self.ignored + 1) & 0xFFFF
                continue
            x = fbc.x
            if count[x] < 16383:
                total[x] += fbc.z
                count[x] += 1
        found = 0
        for c in range(self.channels):
            on = self._share(c + c)
            back = self._share(c + c + 1)
            self.seen[c] = 1 if count[c + c] or count[c + c + 1] else 0
            if self.seen[c]:
                found += 1
                self._servo.put(c, self._servo.at[c] + on - back)
        return found

    def _share(self, x: int) -> int:
        n = self._count[x]
        if n == 0:
            return 0
        if self._steps == 0:
            return _STEP
        total = self._sum[x]
        # mean(z) * _STEP without leaving 31 bits
        mean = _STEP * (total // n) + _STEP * (total % n) // n
        return _STEP - mean // self._steps


class PositionalServo:
    """PositionalServo, `opse`: three areas move one position a channel, which starts in the middle.

    `on_value(channel, position)` is called for each channel that a frame moves, 0..65535 for 0..1;
    `values` are the newest. `on_speed` is told what the third area says, which the engine's own
    library leaves unused, too.
    """

    def __init__(
        self,
        agent: "Agent",
        group: int = 0,
        channels: int = 1,
        resolution: int = 8,
        on_value: "OnValue" = None,
        on_speed: "OnValue" = None,
        fractional: bool = False,
    ) -> None:
        flags = FRACTIONAL if fractional else 0
        self.channels = channels
        self.on_value = on_value
        self.at = array("i", [_TOP // 2] * channels)
        self.values = array("i", [65535 // 2] * channels)
        self.goal = _Goal(self, group, resolution, flags)
        self.move = _Move(self, group, resolution, flags)
        agent.add_motor(self.goal)
        agent.add_motor(self.move)
        self.speed = VectorMotor(
            "opse", PERCENTAGE, 2, 1, group, channels, resolution, flags, on_speed
        )
        agent.add_motor(self.speed)

    def put(self, channel: int, at: int) -> None:
        """Set a position, in 256ths of 65535ths, and no further than the ends."""
        at = 0 if at < 0 else _TOP if at > _TOP else at
        self.at[channel] = at
        self.values[channel] = at // _PARTS


__all__ = [
    "CartesianPosition", "DigitalGpio", "Gaze", "MiscMotor", "MiscSensor", "PositionalServo",
    "RawImu", "SmartImu", "VectorMotor", "VectorSensor",
]  # fmt: skip
