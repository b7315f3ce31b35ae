# SPDX-License-Identifier: Apache-2.0
"""The reflexes that hold the pole: four sensor channels, one motor, a table of weights.

The gains are those of a linear-quadratic regulator for the cart and pole of
feagi_io_mcu/cart_pole.py at 100 bursts per second with two bursts of delay (angle, angular speed,
position, speed weighted 20, 2, 4, 2; force 0.02). In simulation they hold it up to a delay of
60 ms between sensing and pushing.
"""

from __future__ import annotations

import numpy as np

from feagi_io_host.burst.reflex import Reflex, ReflexEngine, linear_weights
from feagi_io_host.core.types import CorticalID

RATE_HZ = 100.0
SENSOR_AREA = CorticalID.try_from_bytes(b"iagp\x01\x00\x00\x00")
MOTOR_AREA = CorticalID.try_from_bytes(b"omot\x05\x00\x00\x00")
RESOLUTION = 512
MOTOR_RESOLUTION = 255
FULL_FORCE_N = 20.0

# name, unit, what the sensor spans on either side of zero, newtons per unit
CHANNELS = (
    ("angle", "rad", 0.5, 148.2),
    ("angular speed", "rad/s", 4.0, 54.0),
    ("position", "m", 2.4, 12.9),
    ("speed", "m/s", 4.0, 20.8),
)


def pole_reflex() -> Reflex:
    """Weights of shape (4 channels, 512 levels, 1 motor): each level pushes with its share."""
    weights = np.stack(
        [
            linear_weights(newtons / FULL_FORCE_N, RESOLUTION, -span, span)
            for _, _, span, newtons in CHANNELS
        ]
    ).astype(np.float32)
    return Reflex(
        SENSOR_AREA,
        MOTOR_AREA,
        weights.reshape(len(CHANNELS), RESOLUTION, 1),
        MOTOR_RESOLUTION,
    )


def pole_brain(rate_hz: float = RATE_HZ) -> ReflexEngine:
    """An engine with the pole's reflex, at so many bursts per second."""
    return ReflexEngine(rate_hz=rate_hz, reflexes=[pole_reflex()])


def sensed(channel: int, z: int) -> float:
    """What level `z` of a sensor channel stands for, in the channel's unit."""
    span = CHANNELS[channel][2]
    return span * (1.0 - 2.0 * (z + 0.5) / RESOLUTION)
