# SPDX-License-Identifier: Apache-2.0
"""The agent in an asyncio program. A file for those who want it; nothing else imports it.

from feagi_io_mcu import aio

async def steer():
    values = aio.MotorValues(wheels)
    while True:
        left, right = await values.next()

async def main():
    asyncio.create_task(steer())
    await aio.run(agent)

asyncio.run(main())
"""

import asyncio

MYPY = False
if MYPY:
    from .agent import Agent, Motor

try:
    _sleep_ms = asyncio.sleep_ms  # type: ignore[attr-defined]
except AttributeError:  # CPython, in tests

    async def _sleep_ms(ms: int) -> None:
        await asyncio.sleep(ms / 1000)


async def run(agent: "Agent", pause_ms: int = 1) -> None:
    """Step the agent for ever, `pause_ms` apart; other tasks run in between.

    The time that they keep the processor is time in which no byte is read and no fail-safe
    watched. A cancelled run says goodbye to the host and leaves the actuators fail-safe.
    """
    try:
        while True:
            agent.step()
            await _sleep_ms(pause_ms)
    finally:
        agent.stop()


class MotorValues:
    """What a motor is told, to be awaited. Takes the place of its `on_value`.

    Newest wins: who comes late gets the newest values once, not each of them. One task waits at a
    time.
    """

    def __init__(self, motor: "Motor") -> None:
        self.motor = motor
        self._event = asyncio.Event()
        motor.on_value = self._changed

    def _changed(self, channel: int, value: int) -> None:
        self._event.set()

    async def next(self) -> "object":
        """The values of all channels after the next command: the motor's own array."""
        await self._event.wait()
        self._event.clear()
        return self.motor.values
