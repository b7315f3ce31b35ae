# SPDX-License-Identifier: Apache-2.0
"""Weights and reflex arcs against a plain reading of their definition."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from feagi_io_host.burst.wiring import Reflex, Wiring, linear_weights
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import XYZP

EYE = CorticalID(b"iinf\x01\x00\x00\x00")
EAR = CorticalID(b"iinf\x01\x00\x01\x00")
WHEEL = CorticalID(b"omot\x05\x00\x00\x00")


def columns(*voxels: tuple[int, int, int, float]) -> XYZP:
    x, y, z, p = zip(*voxels, strict=True) if voxels else ((), (), (), ())
    return (
        np.array(x, np.uint32),
        np.array(y, np.uint32),
        np.array(z, np.uint32),
        np.array(p, np.float32),
    )


def written(wiring: Wiring, target: CorticalID = WHEEL) -> list[tuple[int, int, int, float]]:
    motor = wiring.motor[target]
    views = columns(*[(9, 9, 9, 9.0)] * motor.channels)
    motor.write_into(views)
    return [tuple(column[k].item() for column in views) for k in range(motor.channels)]  # type: ignore[misc]


@pytest.mark.parametrize("resolution", [1, 2, 8, 21, 256])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-0.5, 3.0)])
def test_linear_weights_give_back_the_physical_value(
    resolution: int, low: float, high: float
) -> None:
    weights = linear_weights(2.0, resolution, low, high)
    assert weights.shape == (resolution,)
    assert weights.dtype == np.float32
    cell = 2.0 * (high - low) / resolution
    for step in range(101):
        v = step / 100
        z = min(resolution - 1, math.floor((1 - v) * resolution))
        assert weights[z] == pytest.approx(2.0 * (low + v * (high - low)), abs=cell / 2 + 1e-6)


def test_linear_weights_are_odd_around_the_middle() -> None:
    weights = linear_weights(1.0, 64)
    np.testing.assert_allclose(weights, -weights[::-1], atol=1e-7)


@pytest.mark.parametrize("numbers", [(1.0, 0), (float("nan"), 8), (float("inf"), 8)])
def test_linear_weights_refuse_what_makes_no_weights(numbers: tuple[float, int]) -> None:
    with pytest.raises(ConfigError):
        linear_weights(*numbers)


@pytest.mark.parametrize(
    ("drive", "z"),
    [(1.0, 0), (-1.0, 20), (0.0, 10), (0.5, 5), (7.0, 0), (-7.0, 20), (0.04, 10), (0.06, 9)],
)
def test_a_drive_is_written_signed_linear(drive: float, z: int) -> None:
    wiring = Wiring([Reflex(EYE, WHEEL, np.full((1, 1, 1), drive, np.float32), 21)])
    area = wiring.sensory[EYE]
    assert area.collect(columns((0, 0, 0, 1.0)), np.zeros(1, np.bool_)) == 1
    area.drive_targets()
    assert written(wiring) == [(0, 0, z, 1.0)]


def test_what_a_motor_decodes_is_the_drive_within_half_a_step() -> None:
    resolution = 33
    for drive in np.linspace(-1.0, 1.0, 41):
        wiring = Wiring([Reflex(EYE, WHEEL, np.full((1, 1, 1), drive), resolution)])
        wiring.sensory[EYE].collect(columns((0, 0, 0, 1.0)), np.zeros(1, np.bool_))
        wiring.sensory[EYE].drive_targets()
        z = written(wiring)[0][2]
        assert 1 - 2 * z / (resolution - 1) == pytest.approx(drive, abs=1 / (resolution - 1) + 1e-6)


def test_drives_of_several_sources_add_up_and_rest_forgets_them() -> None:
    wiring = Wiring(
        [
            Reflex(EYE, WHEEL, np.full((1, 1, 2), 0.25), 9),
            Reflex(EAR, WHEEL, np.array([[[0.25, -1.0]]]), 9),
        ]
    )
    for area in (EYE, EAR):
        wiring.sensory[area].collect(columns((0, 0, 0, 1.0)), np.zeros(1, np.bool_))
        wiring.sensory[area].drive_targets()
    np.testing.assert_allclose(wiring.motor[WHEEL].drive, [0.5, -0.75])
    assert wiring.driven() == [wiring.motor[WHEEL]]
    wiring.rest()
    assert wiring.driven() == []
    np.testing.assert_array_equal(wiring.motor[WHEEL].drive, [0.0, 0.0])


def test_one_source_may_drive_several_targets() -> None:
    other = CorticalID(b"omot\x05\x00\x01\x00")
    wiring = Wiring(
        [
            Reflex(EYE, WHEEL, np.full((1, 1, 1), 0.5), 9),
            Reflex(EYE, other, np.full((1, 1, 3), -0.5), 9),
        ]
    )
    wiring.sensory[EYE].collect(columns((0, 0, 0, 1.0)), np.zeros(1, np.bool_))
    wiring.sensory[EYE].drive_targets()
    np.testing.assert_allclose(wiring.motor[WHEEL].drive, [0.5])
    np.testing.assert_allclose(wiring.motor[other].drive, [-0.5] * 3)
    assert len(written(wiring, other)) == 3


def test_a_large_mixed_area_is_summed_as_defined() -> None:
    channels, resolution, targets = 7, 11, 3
    generator = np.random.default_rng(3)
    weights = generator.normal(0, 1e-4, (channels, resolution, targets)).astype(np.float32)
    wiring = Wiring([Reflex(EYE, WHEEL, weights, 21)])
    count = 40_000  # more than two chunks
    x = generator.integers(0, channels + 2, count).astype(np.uint32)
    y = (generator.random(count) < 0.05).astype(np.uint32)
    z = generator.integers(0, resolution + 2, count).astype(np.uint32)
    p = generator.normal(0.5, 1.0, count).astype(np.float32)
    x[5], z[6] = 0xFFFFFFFF, 0xFFFFFFFF
    p[7:10] = [np.nan, np.inf, -np.inf]
    fired = np.ones(count, np.bool_)
    wiring.sensory[EYE].collect((x, y, z, p), fired)
    wiring.sensory[EYE].drive_targets()
    expected_fired = (x < channels) & (y == 0) & (z < resolution) & (p > 0) & np.isfinite(p)
    np.testing.assert_array_equal(fired, expected_fired)
    expected = np.zeros(targets)
    for k in np.flatnonzero(expected_fired):
        expected += np.float64(p[k]) * weights[x[k], z[k]]
    np.testing.assert_allclose(wiring.motor[WHEEL].drive, expected, rtol=1e-9)


def test_hostile_potentials_never_reach_a_motor() -> None:
    wiring = Wiring([Reflex(EYE, WHEEL, np.full((1, 1, 1), -3e38), 21)])
    generator = random.Random(1)
    patterns = [generator.getrandbits(32) for _ in range(2000)] + [0x7F7FFFFF] * 50
    p = np.array(patterns, np.uint32).view(np.float32)
    zeros = np.zeros(len(p), np.uint32)
    wiring.sensory[EYE].collect((zeros, zeros, zeros, p), np.zeros(len(p), np.bool_))
    wiring.sensory[EYE].drive_targets()
    assert written(wiring) == [(0, 0, 20, 1.0)]


def test_an_area_without_voxels_fires_nothing() -> None:
    wiring = Wiring([Reflex(EYE, WHEEL, np.ones((1, 1, 1)), 21)])
    assert wiring.sensory[EYE].collect(columns(), np.zeros(0, np.bool_)) == 0


def test_weights_are_the_reflex_own() -> None:
    weights = np.ones((1, 2, 1), np.float32)
    reflex = Reflex(EYE, WHEEL, weights, 21)
    weights[:] = 5.0
    assert reflex.weights.max() == 1.0
    with pytest.raises(ValueError, match="read-only"):
        reflex.weights[:] = 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": WHEEL}, "input area"),
        ({"target": EYE}, "output area"),
        ({"weights": np.ones((2, 2))}, r"shape \(2, 2\)"),
        ({"weights": np.ones((0, 2, 1))}, r"shape \(0, 2, 1\)"),
        ({"weights": np.full((1, 1, 1), np.nan)}, "1 weights not finite"),
        ({"target_resolution": 1}, "target resolution 1"),
        ({"coding": "fractional"}, "'fractional' unknown"),
    ],
)
def test_a_reflex_that_does_not_fit_is_refused(settings: dict[str, object], message: str) -> None:
    good: dict[str, object] = {
        "source": EYE,
        "target": WHEEL,
        "weights": np.ones((1, 1, 1)),
        "target_resolution": 21,
    }
    with pytest.raises(ConfigError, match=message):
        Reflex(**{**good, **settings})  # type: ignore[arg-type]


def test_reflexes_that_disagree_about_an_area_are_refused() -> None:
    one = Reflex(EYE, WHEEL, np.ones((1, 8, 1)), 21)
    with pytest.raises(ConfigError, match="1 channels of 8 by one reflex and 2 of 8"):
        Wiring([one, Reflex(EYE, WHEEL, np.ones((2, 8, 1)), 21)])
    with pytest.raises(ConfigError, match="1 channels of 21 by one reflex and 1 of 22"):
        Wiring([one, Reflex(EAR, WHEEL, np.ones((1, 8, 1)), 22)])
