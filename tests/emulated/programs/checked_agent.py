# SPDX-License-Identifier: Apache-2.0
"""An agent on a real machine.UART: 32 channels of sensors, what the motors are told goes back into
them. Once a session is up nothing may allocate any more, and each step is timed."""

import sys
import time

from micropython import heap_lock, heap_unlock

from feagi_io_mcu import Agent, UartDriver

UART = 0 if sys.platform == "rp2" else 1
CHANNELS = 32  # a frame of 558 bytes: more than a UART's ring takes at once
counts = [0] * 4  # motor values, fail-safes, longest step in us, steps


def drive(channel: int, value: int) -> None:
    counts[0] += 1
    eyes.write_u16(channel, value + 32768)


def halt() -> None:
    counts[1] += 1


agent = Agent(UartDriver(UART), "emulated", on_failsafe=halt)
eyes = agent.sensor("iinf", channels=CHANNELS, resolution=8)
agent.motor("omot", channels=2, resolution=9, on_value=drive)
agent.start()


def run() -> None:
    while not agent.connected:
        agent.step(1)
    heap_lock()
    try:
        while True:
            before = time.ticks_us()
            agent.step()
            took = time.ticks_diff(time.ticks_us(), before)
            if took > counts[2]:
                counts[2] = took
            counts[3] += 1
            time.sleep_ms(1)
    finally:
        heap_unlock()
