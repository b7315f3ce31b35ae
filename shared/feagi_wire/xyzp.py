# SPDX-License-Identifier: Apache-2.0
"""Values to voxels and back, in integer arithmetic.

One area carries one value per channel. R is the area's depth (resolution), z runs from 0 to R-1,
y is 0 and every voxel written has potential 1.0. Measured on feagi-rust-py-libs 0.0.120:

| coding              | x of channel c   | written for a value v         | read back as          |
|---------------------|------------------|-------------------------------|-----------------------|
| unsigned linear     | c                | z = min(R-1, floor((1-v) R))  | 1 - mean(z) / (R-1)   |
| unsigned fractional | c                | a z for each binary digit of  | sum of 2^-z, up to 1  |
|                     |                  | v = 0.z0 z1 ...; 0 is z = R-1 |                       |
| signed linear       | v > 0: 2c, v < 0:| as unsigned linear, of |v|;   | from x = c:           |
|                     | 2c+1, 0: both    | 0 is z = R-1                  | 1 - 2 mean(z) / (R-1) |
| signed fractional   | the same         | as unsigned fractional of |v| | that of 2c minus that |
|                     |                  |                               | of 2c+1               |

The library really reads signed linear motors from x = c while it writes signed sensors to 2c and
2c+1, and its fractional reading weighs a digit twice what its writing does; both are kept.
Absolute and incremental areas use the same voxels; the flag stands in the cortical id. A channel
without a voxel in a frame keeps its last value.

Unsigned values are 0..65535 for 0..1, signed ones -32767..32767 for -1..1. Linear areas go up to
R = 16384, fractional ones to R = 16.
"""

from array import array

from .const import E_RANGE, OK
from .container import StaticFBC

_FIRED = 1.0
MAX_LINEAR = 16384
MAX_FRACTIONAL = 16


def _check_geometry(channels: int, resolution: int, fractional: bool) -> None:
    limit = MAX_FRACTIONAL if fractional else MAX_LINEAR
    if channels < 1 or channels > 16384:
        raise ValueError("channels: 1 to 16384, got %d" % channels)
    if resolution < 1 or resolution > limit:
        raise ValueError("resolution: 1 to %d, got %d" % (limit, resolution))


class ValueEncoder:
    """The values of one area, ready to be written as voxels.

    `values` (array 'i', one per channel) may also be written directly within the limits that
    `set` checks.
    """

    def __init__(
        self, channels: int, resolution: int, signed: bool = False, fractional: bool = False
    ) -> None:
        _check_geometry(channels, resolution, fractional)
        self.channels = channels
        self.resolution = resolution
        self.signed = signed
        self.fractional = fractional
        self.values = array("i", [0] * channels)

    def set(self, channel: int, value: int) -> int:
        """Set one channel (unsigned 0..65535, signed -32767..32767). OK or E_RANGE."""
        if channel < 0 or channel >= self.channels:
            return E_RANGE
        if self.signed:
            if value < -32767 or value > 32767:
                return E_RANGE
        elif value < 0 or value > 65535:
            return E_RANGE
        self.values[channel] = value
        return OK

    def max_voxels(self) -> int:
        """Voxels that one frame can take at most."""
        each = self.resolution if self.fractional else 1
        if self.signed and each < 2:
            each = 2
        return self.channels * each

    def write(self, fbc: StaticFBC, cortical_id: "bytes | bytearray") -> int:
        """Write the area into a container being written. OK or the container's code."""
        rc = fbc.begin_area(cortical_id, self.max_voxels())
        if rc != OK:
            return rc
        last = self.resolution - 1
        for c in range(self.channels):
            v = self.values[c]
            x = c
            if self.signed:
                x = c + c
                if v == 0:
                    rc = fbc.add(x, 0, last, _FIRED)
                    if rc >= 0:
                        rc = fbc.add(x + 1, 0, last, _FIRED)
                    if rc < 0:
                        return rc
                    continue
                if v < 0:
                    x += 1
                    v = -v
                v += v + 1
            if self.fractional:
                rc = self._write_fractional(fbc, x, v)
            else:
                z = ((65536 - v) * self.resolution) >> 16
                rc = fbc.add(x, 0, z if z < last else last, _FIRED)
            if rc < 0:
                return rc
        return fbc.end_area()

    def _write_fractional(self, fbc: StaticFBC, x: int, v: int) -> int:
        if v == 0:
            return fbc.add(x, 0, self.resolution - 1, _FIRED)
        for k in range(self.resolution):
            if (v >> (15 - k)) & 1:
                rc = fbc.add(x, 0, k, _FIRED)
                if rc < 0:
                    return rc
        return OK


class ValueDecoder:
    """The values that voxels of one area stand for.

    `values` (array 'i', one per channel) keep their last value where a frame brings none;
    `seen[c]` tells whether the last frame brought one. `ignored` counts voxels outside the
    declared channels and resolution.
    """

    def __init__(
        self, channels: int, resolution: int, signed: bool = False, fractional: bool = False
    ) -> None:
        _check_geometry(channels, resolution, fractional)
        self.channels = channels
        self.resolution = resolution
        self.signed = signed
        self.fractional = fractional
        self.values = array("i", [0] * channels)
        self.seen = bytearray(channels)
        self.ignored = 0
        self._sum = array("i", [0] * channels)
        self._count = array("H", [0] * channels)

    def read(self, fbc: StaticFBC, n: int) -> int:
        """Take the n voxels of the container's current area (n as `next_area` gave it).

        Returns how many channels changed hands (0 for an empty area), or a code of `get`.
        """
        total = self._sum
        count = self._count
        seen = self.seen
        for c in range(self.channels):
            total[c] = 0
            count[c] = 0
            seen[c] = 0
        paired = self.signed and self.fractional
        for i in range(n):
            if fbc.get(i) != OK:
                self._ignore()
                continue
            c = fbc.x
            z = fbc.z
            minus = 0
            if paired:
                minus = c & 1
                c >>= 1
            if c >= self.channels or z >= self.resolution or count[c] >= 16383:
                self._ignore()
                continue
            if self.fractional:
                z = (32768 if self.signed else 65536) >> z
                if minus:
                    z = -z
            total[c] += z
            count[c] += 1
            seen[c] = 1
        found = 0
        for c in range(self.channels):
            if count[c]:
                self.values[c] = self._value(total[c], count[c])
                found += 1
        return found

    def _value(self, total: int, count: int) -> int:
        top = 32767 if self.signed else 65535
        if self.fractional:
            low = -top if self.signed else 0
            return top if total > top else low if total < low else total
        span = top + top if self.signed else top
        steps = self.resolution - 1
        if steps == 0:
            return top
        # mean(z) * span without leaving 31 bits: whole and remaining part of the mean apart
        mean = span * (total // count) + (span * (total % count)) // count
        return top - mean // steps

    def _ignore(self) -> None:
        self.ignored = (self.ignored + 1) & 0xFFFF
