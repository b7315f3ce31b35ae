# SPDX-License-Identifier: Apache-2.0
"""Reflex arcs: from fired sensory voxels, by declared weights, to motor voxels.

A voxel has fired when its potential p is above 0 and finite, and it lies inside the geometry
that the reflexes of its area declare: x below the channels, y = 0, z below the resolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import XYZP, F32Array, U32Array

# Voxels are worked off in pieces that stay in the cache; the scratch arrays are this long.
_CHUNK: Final = 16384


def linear_weights(
    gain: float, resolution: int, low: float = -1.0, high: float = 1.0
) -> NDArray[np.float32]:
    """The weights along z of a sensor coded unsigned linear, shape (resolution,), float32.

    Such a sensor writes a value v of 0 to 1 as z = min(R - 1, floor((1 - v) * R)). The weight
    of each z is `gain` times the physical value, `low` + v * (`high` - `low`), of the middle of
    its cell. Raises ConfigError for a resolution below 1 or numbers that are not finite.
    """
    if resolution < 1:
        raise ConfigError(f"resolution is {resolution}, at least 1 needed")
    if not np.isfinite([gain, low, high]).all():
        raise ConfigError(f"gain {gain}, low {low} and high {high} must be finite")
    middle = 1.0 - (np.arange(resolution) + 0.5) / resolution
    return (gain * (low + middle * (high - low))).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Reflex:
    """One arc from a sensory area to a motor area.

    `weights` has the shape (source channels, source resolution, target channels), float32: the
    drive of a target channel is the sum of p * weights[x, z, channel] over the fired voxels.
    `target_resolution` is the depth of the motor area; `coding` is how it is written, and
    "signed_linear" (value = 1 - 2 * z / (R - 1), so R is at least 2) is the one there is.
    Raises ConfigError for what does not fit.
    """

    source: CorticalID
    target: CorticalID
    weights: NDArray[np.float32]
    target_resolution: int
    coding: str = "signed_linear"

    def __post_init__(self) -> None:
        arc = f"reflex {bytes(self.source)!r} -> {bytes(self.target)!r}"
        if not self.source.is_input or not self.target.is_output:
            raise ConfigError(f"{arc} must go from an input area (i...) to an output area (o...)")
        weights = np.array(self.weights, dtype=np.float32)
        if weights.ndim != 3 or 0 in weights.shape:
            raise ConfigError(
                f"{arc}: weights have the shape {weights.shape}; expected (source channels, "
                "source resolution, target channels), each at least 1"
            )
        if not np.isfinite(weights).all():
            raise ConfigError(f"{arc}: {int((~np.isfinite(weights)).sum())} weights not finite")
        if self.target_resolution < 2:
            raise ConfigError(
                f"{arc}: target resolution {self.target_resolution}, 2 or more needed"
            )
        if self.coding != "signed_linear":
            raise ConfigError(f"{arc}: coding {self.coding!r} unknown; 'signed_linear' exists")
        weights.flags.writeable = False
        object.__setattr__(self, "weights", weights)


class MotorArea:
    """A motor area as its reflexes declare it, with the drive of this moment."""

    def __init__(self, area: CorticalID, channels: int, resolution: int) -> None:
        self.area = area
        self.channels = channels
        self.resolution = resolution
        self.drive = np.zeros(channels, np.float64)
        self.driven = False
        self._channel_numbers = np.arange(channels, dtype=np.uint32)
        self._work = np.zeros(channels, np.float64)

    def write_into(self, views: XYZP) -> None:
        """Write one voxel per channel: x the channel, y 0, z the clipped drive, p 1."""
        x, y, z, p = views
        work = self._work
        np.clip(self.drive, -1.0, 1.0, out=work)
        np.subtract(1.0, work, out=work)
        work *= (self.resolution - 1) / 2
        work += 0.5
        np.floor(work, out=work)
        np.copyto(x, self._channel_numbers)
        y.fill(0)
        np.copyto(z, work, casting="unsafe")  # whole numbers of 0 to R - 1 by now
        p.fill(1.0)


class SensoryArea:
    """A sensory area as its reflexes declare it: collects charge, then drives its targets."""

    def __init__(self, area: CorticalID, channels: int, resolution: int) -> None:
        self.area = area
        self.channels = channels
        self.resolution = resolution
        self._cells = channels * resolution
        self._charge = np.zeros(self._cells, np.float64)
        self._arcs: list[tuple[MotorArea, NDArray[np.float64]]] = []
        self._flat = np.zeros(_CHUNK, np.int64)
        self._bad = np.zeros(_CHUNK, np.bool_)

    def add_arc(self, target: MotorArea, weights: F32Array) -> None:
        """Let this area drive `target`, too."""
        matrix = np.ascontiguousarray(weights.reshape(self._cells, -1), np.float64)
        self._arcs.append((target, matrix))

    def collect(self, voxels: XYZP, fired: NDArray[np.bool_]) -> int:
        """Mark in `fired` which voxels have fired, take up their charge, return how many."""
        x, y, z, p = voxels
        self._charge.fill(0.0)
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            self._collect(x[part], y[part], z[part], p[part], fired[part])
        return int(np.count_nonzero(fired))

    def _collect(
        self, x: U32Array, y: U32Array, z: U32Array, p: F32Array, fired: NDArray[np.bool_]
    ) -> None:
        flat, bad = self._flat[: len(x)], self._bad[: len(x)]
        np.greater_equal(x, self.channels, out=bad)
        np.greater_equal(z, self.resolution, out=fired)
        bad |= fired
        np.not_equal(y, 0, out=fired)
        bad |= fired
        np.isfinite(p, out=fired)
        fired &= p > 0.0
        np.logical_not(bad, out=bad)
        fired &= bad
        np.logical_not(fired, out=bad)
        np.multiply(x, self.resolution, out=flat, dtype=np.int64)
        np.add(flat, z, out=flat, dtype=np.int64)
        if bad.any():
            flat[bad] = self._cells  # one cell more, for what has not fired
            # A signalling NaN from outside must not get as far as arithmetic.
            p = np.where(fired, p, np.float32(0.0))
        self._charge += np.bincount(flat, weights=p, minlength=self._cells + 1)[: self._cells]

    def drive_targets(self) -> None:
        """Add what the collected charge drives to every target."""
        for target, matrix in self._arcs:
            target.drive += self._charge @ matrix
            target.driven = True


class Wiring:
    """All reflexes of an engine, put in order by area.

    Reflexes of one source must agree in its channels and resolution, those of one target in
    its channels and resolution; ConfigError else.
    """

    def __init__(self, reflexes: Iterable[Reflex]) -> None:
        self.sensory: dict[CorticalID, SensoryArea] = {}
        self.motor: dict[CorticalID, MotorArea] = {}
        for reflex in reflexes:
            channels, resolution, outputs = reflex.weights.shape
            sensory = self.sensory.setdefault(
                reflex.source, SensoryArea(reflex.source, channels, resolution)
            )
            motor = self.motor.setdefault(
                reflex.target, MotorArea(reflex.target, outputs, reflex.target_resolution)
            )
            _agree(sensory, channels, resolution)
            _agree(motor, outputs, reflex.target_resolution)
            sensory.add_arc(motor, reflex.weights)

    def rest(self) -> None:
        """Forget the drives of the agent before."""
        for motor in self.motor.values():
            motor.drive.fill(0.0)
            motor.driven = False

    def driven(self) -> list[MotorArea]:
        """The motor areas that something drives now, in the order of declaration."""
        return [motor for motor in self.motor.values() if motor.driven]


def _agree(known: SensoryArea | MotorArea, channels: int, resolution: int) -> None:
    if (known.channels, known.resolution) != (channels, resolution):
        raise ConfigError(
            f"area {bytes(known.area)!r} is declared with {known.channels} channels of "
            f"{known.resolution} by one reflex and {channels} of {resolution} by another"
        )
