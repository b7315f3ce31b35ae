# SPDX-License-Identifier: Apache-2.0
"""Units of several values and areas against the real library, in a process of its own."""

from __future__ import annotations

import random
from typing import Any

import pytest

from feagi_io_mcu import Agent, RTOSDriver
from feagi_io_mcu.units import (
    CartesianPosition,
    DigitalGpio,
    MiscSensor,
    PositionalServo,
    RawImu,
    SmartImu,
)
from feagi_wire import StaticFBC, check
from tests.feagi_wire.test_xyzp_oracle import POSITIONINGS, ask

pytestmark = pytest.mark.oracle

RESOLUTIONS = (1, 2, 5, 8, 16)
CHANNELS = 3
Voxels = set[tuple[float, ...]]


def an_agent() -> Agent:
    # No line: what is tried here is made and read before one is opened.
    return Agent(RTOSDriver(), "units")


def areas_of(agent: Agent) -> dict[str, Voxels]:
    """What the agent would send, by area."""
    need = sum(16 + 16 * part.encoder.max_voxels() for part in agent._sensors)
    fbc = StaticFBC(bytearray(60 + need))
    check(fbc.begin(0, len(agent._sensors)))
    for part in agent._sensors:
        check(part.encoder.write(fbc, part.cortical_id))
    check(fbc.parse(check(fbc.end())))
    found = {}
    for part in agent._sensors:
        voxels = set()
        for index in range(fbc.next_area()):
            check(fbc.get(index))
            voxels.add((fbc.x, fbc.y, fbc.z, fbc.q16 / 65536))
        found[bytes(part.cortical_id).hex()] = voxels
    return found


def theirs(answer: dict[str, Any]) -> dict[str, Voxels]:
    # A set: the library writes each pin of a DigitalGPIO once for each channel.
    return {area: {tuple(voxel) for voxel in voxels} for area, voxels in answer.items()}


def signed_values(numbers: random.Random, count: int) -> tuple[list[int], list[float]]:
    ours = [
        numbers.choice((0, 32766, -32766, numbers.randint(-32766, 32766))) for _ in range(count)
    ]
    # v of -32767..32767 stands for (2 |v| + 1) / 65536
    return ours, [0.0 if v == 0 else (2 * abs(v) + 1) / 65536 * (1 if v > 0 else -1) for v in ours]


@pytest.mark.parametrize("positioning", POSITIONINGS)
@pytest.mark.parametrize("unit", ["irim", "isim"])
def test_signed_axes(unit: str, positioning: str) -> None:
    numbers = random.Random(3)
    requests: list[Any] = []
    ours = []
    for resolution in RESOLUTIONS:
        for _ in range(8):
            agent = an_agent()
            settings = (agent, 0, CHANNELS, resolution, False, positioning == "Fractional")
            writes: list[Any] = []
            imu = RawImu(*settings) if unit == "irim" else SmartImu(*settings)
            for channel in range(CHANNELS):
                for name in ("accelerometer", "gyroscope", "magnetometer")[
                    : 3 if unit == "irim" else 1
                ]:
                    part = imu if isinstance(imu, SmartImu) else getattr(imu, name)
                    values, shares = signed_values(numbers, part.axes)
                    part.write(channel, *values)
                    writes.append([channel, name, shares])
            ours.append(areas_of(agent))
            requests.append(["sense", unit, resolution, positioning, CHANNELS, None, writes])
    for request, mine, answer in zip(requests, ours, ask(requests), strict=True):
        assert mine == theirs(answer), request


@pytest.mark.parametrize("positioning", POSITIONINGS)
def test_unsigned_axes(positioning: str) -> None:
    numbers = random.Random(4)
    requests: list[Any] = []
    ours = []
    for resolution in RESOLUTIONS:
        for _ in range(8):
            agent = an_agent()
            place = CartesianPosition(
                agent, 0, CHANNELS, resolution, False, positioning == "Fractional"
            )
            writes = []
            for channel in range(CHANNELS):
                values = [numbers.choice((0, 65534, numbers.randint(0, 65534))) for _ in range(3)]
                place.write(channel, *values)
                writes.append([channel, "", [value / 65536 for value in values]])
            ours.append(areas_of(agent))
            requests.append(["sense", "icpo", resolution, positioning, CHANNELS, None, writes])
    for request, mine, answer in zip(requests, ours, ask(requests), strict=True):
        assert mine == theirs(answer), request


def test_pins_and_volumes() -> None:
    numbers = random.Random(5)
    requests: list[Any] = []
    ours = []
    for _ in range(8):
        agent = an_agent()
        pins = DigitalGpio(agent, channels=CHANNELS)
        levels = [numbers.randint(0, 1) for _ in range(CHANNELS)]
        for channel, level in enumerate(levels):
            pins.write(channel, level)
        ours.append(areas_of(agent))
        writes: list[Any] = [[channel, "", [level]] for channel, level in enumerate(levels)]
        requests.append(["sense", "idgp", 1, "Linear", CHANNELS, None, writes])

        dims = [numbers.randint(1, 4) for _ in range(3)]
        agent = an_agent()
        misc = MiscSensor(agent, *dims, channels=CHANNELS, max_voxels=CHANNELS * 64)
        writes = []
        for channel in range(CHANNELS):
            places = {tuple(numbers.randrange(size) for size in dims) for _ in range(5)}
            voxels = [(*place, numbers.choice((-1.5, 0.25, 1.0, 7.0))) for place in sorted(places)]
            for x, y, z, p in voxels:
                misc.put(channel, x, y, z, p)
            writes.append([channel, "", voxels])
        ours.append(areas_of(agent))
        requests.append(["sense", "imis", 1, "Linear", CHANNELS, dims, writes])
    for request, mine, answer in zip(requests, ours, ask(requests), strict=True):
        assert mine == theirs(answer), request


@pytest.mark.parametrize("positioning", POSITIONINGS)
def test_a_servo_goes_where_the_library_says(positioning: str) -> None:
    numbers = random.Random(6)
    fractional = 2 if positioning == "Fractional" else 0
    goal = bytes([*b"opse\x01", fractional, 0, 0])
    move = bytes([*b"opse\x11", fractional | 1, 0, 0])
    requests: list[Any] = []
    for resolution in RESOLUTIONS[1:]:
        frames = []
        for _ in range(80):
            area, columns = (goal, CHANNELS) if numbers.random() < 0.3 else (move, 2 * CHANNELS)
            everywhere = [(x, z) for x in range(columns + 1) for z in range(resolution)]
            voxels = numbers.sample(everywhere, numbers.randint(0, 5))
            frames.append([area.hex(), voxels])
        requests.append(["servo", resolution, positioning, CHANNELS, frames])
    for request, answer in zip(requests, ask(requests), strict=True):
        _, resolution, _, _, frames = request
        agent = an_agent()
        servo = PositionalServo(
            agent, channels=CHANNELS, resolution=resolution, fractional=fractional != 0
        )
        for (area, voxels), positions in zip(frames, answer, strict=True):
            fbc = StaticFBC(bytearray(76 + 16 * len(voxels)))
            check(fbc.begin(0, 1))
            check(fbc.begin_area(bytes.fromhex(area), len(voxels)))
            for x, z in voxels:
                check(fbc.add(x, 0, z, 1.0))
            check(fbc.end_area())
            check(fbc.parse(check(fbc.end())))
            agent._apply(fbc)
            for ours, expected in zip(servo.values, positions, strict=True):
                assert abs(ours - expected * 65535) <= 2, (resolution, area, voxels)
