# SPDX-License-Identifier: Apache-2.0
"""A rover at the end of a UDP line: sys.argv is the host's port and "step" or "aio"."""

import asyncio
import sys

from feagi_io_mcu import Agent, UdpDriver, aio

try:
    from micropython import heap_lock, heap_unlock
except ImportError:

    def heap_lock() -> None:
        """CPython has no heap to lock."""

    def heap_unlock() -> int:
        """CPython has no heap to lock."""
        return 0


agent = Agent(UdpDriver("127.0.0.1", int(sys.argv[1])), "udp rover", max_fbc_size=4096)
# 250 voxels of 16 bytes: a frame in three datagrams
eyes = agent.sensor("iinf", channels=250, resolution=8)


def drive(channel: int, value: int) -> None:
    eyes.write_u16(channel, 65535 if value > 0 else 0)


wheels = agent.motor("omot", channels=2, resolution=9, on_value=drive)

if sys.argv[2] == "step":
    while not agent.connected:
        agent.step(1)
    while True:
        heap_lock()
        for _ in range(200):
            agent.step(1)
        heap_unlock()


async def steer() -> None:
    values = aio.MotorValues(wheels)
    while True:
        said = await values.next()
        drive(0, said[0])  # type: ignore[index]
        drive(1, said[1])  # type: ignore[index]


async def main() -> None:
    task = asyncio.create_task(steer())
    await aio.run(agent)
    task.cancel()


asyncio.run(main())
