# SPDX-License-Identifier: Apache-2.0
"""A cart with a pole on it, lived through in fixed-point arithmetic, as a FEAGI agent.

The board's world: four sensors (angle, angular speed, position, speed) as one analog unit, one
motor pushing the cart. Nothing on the board balances anything; the pole is held until the first
session is up, and from then on only what the brain sends keeps it there.

Equations of motion after Barto, Sutton and Anderson (1983), frictionless, with semi-implicit
Euler steps. All numbers are Q16 (65536 = 1.0) and stay below 2**30, so nothing allocates on a
32-bit board.
"""

import sys

from feagi_wire.const import EV_UP
from feagi_wire.link import ticks_diff

from ._port import ticks
from .agent import Agent
from .drivers.base import RTOSDriver

ONE = 65536
# The world: a cart of 1 kg, a pole of 0.1 kg whose centre is 1 m up, pushed by at most 20 N.
GRAVITY = 642253  # 9.8 m/s^2
POLE_PART = 5958  # pole mass / total mass = 0.1 / 1.1
HALF_LENGTH = ONE  # m
PER_MASS = 59578  # 1 / 1.1 kg
FORCE = 20  # N at full command
STEP_MS = 2
STEP = 131  # 2 ms
# What the sensors span: +- these values fill 0..65535.
ANGLE = 32768  # 0.5 rad
ANGULAR_SPEED = 4 * ONE  # rad/s
POSITION = 157286  # 2.4 m
SPEED = 4 * ONE  # m/s
START_ANGLE = 5243  # 0.08 rad
MAX_CATCH_UP_MS = 50

SENSOR = "iagp"
MOTOR = "omot"
RESOLUTION = 512
MOTOR_RESOLUTION = 255  # odd, so that there is a voxel for no force at all


def mul(a: int, b: int) -> int:
    """a * b in Q16 for |a|, |b| below 2**20 or so, every intermediate below 2**30."""
    minus = (a < 0) != (b < 0)
    if a < 0:
        a = -a
    if b < 0:
        b = -b
    low = a & 0xFFFF
    r = (a >> 16) * b + ((low * (b >> 8)) >> 8) + (((low >> 8) * (b & 255)) >> 8)
    return -r if minus else r


class World:
    """State of cart and pole, Q16: position m, speed m/s, angle rad, angular speed rad/s."""

    def __init__(self) -> None:
        self.force = 0  # N in Q16
        self.held = True
        self.fallen = False
        self.slipped_ms = 0  # time this process did not live through
        self.reset()

    def reset(self) -> None:
        """Stand the pole up again, a little off."""
        self.position = self.speed = self.angular_speed = 0
        self.angle = START_ANGLE
        self.fallen = False

    def advance(self, ms: int) -> None:
        """Live through `ms` milliseconds."""
        if self.held:
            return
        if ms > MAX_CATCH_UP_MS:
            self.slipped_ms = (self.slipped_ms + ms - MAX_CATCH_UP_MS) & 0xFFFFFF
            ms = MAX_CATCH_UP_MS
        while ms >= STEP_MS:
            self.step()
            ms -= STEP_MS

    def step(self) -> None:
        """One Euler step of 2 ms."""
        if self.fallen:
            self.speed = self.angular_speed = 0
            return
        a = self.angle
        a2 = mul(a, a)
        a3 = mul(a2, a)
        sin = a - a3 // 6 + mul(a3, a2) // 120
        cos = ONE - a2 // 2 + mul(a2, a2) // 24
        w = self.angular_speed
        # (F + m l w^2 sin) / M
        push = mul(self.force, PER_MASS) + mul(mul(POLE_PART, HALF_LENGTH), mul(mul(w, w), sin))
        down = mul(HALF_LENGTH, 87381 - mul(POLE_PART, mul(cos, cos)))
        top = mul(GRAVITY, sin) - mul(cos, push)
        # top / down in Q16 without a numerator of 2**30
        turn = (top << 8) // (down >> 8)
        move = push - mul(mul(POLE_PART, HALF_LENGTH), mul(turn, cos))
        self.speed += mul(move, STEP)
        self.angular_speed += mul(turn, STEP)
        self.position += mul(self.speed, STEP)
        self.angle += mul(self.angular_speed, STEP)
        if self.angle > ONE or self.angle < -ONE or not -POSITION <= self.position <= POSITION:
            self.fallen = True


def scaled(value: int, span: int) -> int:
    """A Q16 value within +-span as 0..65535, saturated; 32768 is zero."""
    if value >= span:
        return 65535
    if value <= -span:
        return 0
    # 15 bits of span are plenty, and keep the product below 2**30
    while span > 32767:
        span >>= 1
        value >>= 1
    return 32768 + value * 32767 // span


class CartPole:
    """The world wired to an agent."""

    def __init__(self, line: RTOSDriver, name: str = "cart-pole", period_ms: int = 10) -> None:
        self.world = World()
        self.agent = Agent(line, name, period_ms=period_ms, max_fbc_size=1024)
        self.agent.on_failsafe = self.halt
        self.sensor = self.agent.sensor(SENSOR, channels=4, resolution=RESOLUTION)
        self.agent.motor(MOTOR, channels=1, resolution=MOTOR_RESOLUTION, on_value=self.push)
        self._last = ticks()
        self._told = False

    def push(self, channel: int, value: int) -> None:
        """Motor: -32767..32767 is -20..20 N."""
        self.world.force = value * (2 * FORCE)

    def halt(self) -> None:
        """Fail-safe: no force."""
        self.world.force = 0
        self.agent.log(30, b"fail-safe: no motor command, force 0")

    def step(self) -> None:
        """Live, sense, talk."""
        now = ticks()
        gone = ticks_diff(now, self._last)
        w = self.world
        if gone >= STEP_MS:
            w.advance(gone)
            self._last = now if gone > MAX_CATCH_UP_MS or not gone & 1 else (now - 1)
            s = self.sensor
            s.write_u16(0, scaled(w.angle, ANGLE))
            s.write_u16(1, scaled(w.angular_speed, ANGULAR_SPEED))
            s.write_u16(2, scaled(w.position, POSITION))
            s.write_u16(3, scaled(w.speed, SPEED))
        if self.agent.step(1) & EV_UP:
            w.held = False
        if w.fallen and not self._told:
            self._told = True
            self.agent.log(40, b"the pole fell")


def run() -> None:
    """The Unix port's main: the line is standard input and output."""
    from .drivers.stdio import StdioDriver

    line = StdioDriver()
    cart = CartPole(line)
    # whoever started this process holds the far end open: a hang-up means that nobody is left
    while not line.hangup:
        cart.step()
    cart.agent.stop()


if __name__ == "__main__":
    run()
    sys.exit(0)
