# SPDX-License-Identifier: Apache-2.0
"""The world on the board: its physics is the textbook's, and nothing in it balances anything."""

from __future__ import annotations

import math

import pytest

from feagi_io_mcu import cart_pole as cp

ONE = 65536


def reference(state: list[float], force: float, seconds: float) -> list[float]:
    """Barto, Sutton and Anderson's equations in floating point, with much finer steps."""
    g, m, total, length = 9.8, 0.1, 1.1, 1.0
    x, v, a, w = state
    dt = 1e-4
    for _ in range(round(seconds / dt)):
        push = (force + m * length * w * w * math.sin(a)) / total
        turn = (g * math.sin(a) - math.cos(a) * push) / (
            length * (4 / 3 - m * math.cos(a) ** 2 / total)
        )
        move = push - m * length * turn * math.cos(a) / total
        v += move * dt
        w += turn * dt
        x += v * dt
        a += w * dt
    return [x, v, a, w]


@pytest.mark.parametrize("force", [-20.0, -3.0, 0.0, 0.5, 20.0])
@pytest.mark.parametrize("angle", [-0.3, -0.02, 0.08, 0.4])
def test_fixed_point_follows_the_equations(force: float, angle: float) -> None:
    """200 ms in 2 ms Euler steps and Q16 stay within a percent of the fine solution."""
    world = cp.World()
    world.held = False
    world.angle = round(angle * ONE)
    world.force = round(force * ONE)
    for _ in range(4):
        world.advance(50)
    expected = reference([0.0, 0.0, angle, 0.0], force, 0.2)
    got = [v / ONE for v in (world.position, world.speed, world.angle, world.angular_speed)]
    for g, e in zip(got, expected, strict=True):
        assert g == pytest.approx(e, rel=0.02, abs=0.006)


def test_the_pole_falls_by_itself_within_two_seconds() -> None:
    world = cp.World()
    world.advance(1000)
    assert world.angle == cp.START_ANGLE, "a held pole does not move"
    world.held = False
    lived_ms = 0
    while not world.fallen:
        world.advance(10)
        lived_ms += 10
        assert lived_ms < 2000
    assert lived_ms > 500


def test_the_track_has_an_end() -> None:
    world = cp.World()
    world.held = False
    world.angle = 0
    world.position = cp.POSITION - ONE // 100
    world.speed = ONE
    world.advance(50)
    assert world.fallen


def test_time_the_process_did_not_live_through_is_counted() -> None:
    world = cp.World()
    world.held = False
    world.advance(500)
    assert world.slipped_ms == 500 - cp.MAX_CATCH_UP_MS


@pytest.mark.parametrize("a", [-20 * ONE, -70000, -1, 0, 1, 255, 65535, 65536, 3 * ONE + 17])
@pytest.mark.parametrize("b", [-642253, -30000, -1, 0, 1, 257, 59578, 14 * ONE + 3])
def test_mul_is_q16_without_leaving_31_bits(a: int, b: int) -> None:
    assert cp.mul(a, b) == pytest.approx(a * b / ONE, abs=4)


@pytest.mark.parametrize("span", [cp.ANGLE, cp.ANGULAR_SPEED, cp.POSITION, cp.SPEED])
def test_scaled_spans_the_sensor(span: int) -> None:
    assert cp.scaled(0, span) == 32768
    assert cp.scaled(span, span) == cp.scaled(10 * span, span) == 65535
    assert cp.scaled(-span, span) == cp.scaled(-10 * span, span) == 0
    assert cp.scaled(span // 2, span) == pytest.approx(49151, abs=4)
    values = [cp.scaled(v, span) for v in range(-span, span, span // 97)]
    assert values == sorted(values)
