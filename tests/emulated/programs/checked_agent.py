# SPDX-License-Identifier: Apache-2.0
"""An agent on a real machine.UART, or on the line of the REPL: 32 channels of sensors, what the
motors are told goes back into them. Once a session is up nothing may allocate any more, and each
step is timed."""

import sys
import time

from micropython import heap_lock, heap_unlock

from feagi_io_mcu import Agent, RTOSDriver, UartDriver, UsbCdcDriver

UART = 0 if sys.platform == "rp2" else 1
CHANNELS = 32  # a frame of 558 bytes: more than a UART's ring takes at once
counts = [0] * 4  # motor values, fail-safes, longest step in us, steps


class Rover:
    """The agent and its eyes, for a program that looks at them later."""

    def __init__(self, line: RTOSDriver) -> None:
        self.agent = Agent(line, "emulated", on_failsafe=self.halt)
        self.eyes = self.agent.sensor("iinf", channels=CHANNELS, resolution=8)
        self.agent.motor("omot", channels=2, resolution=9, on_value=self.drive)
        self.agent.start()

    def drive(self, channel: int, value: int) -> None:
        counts[0] += 1
        self.eyes.write_u16(channel, value + 32768)

    def halt(self) -> None:
        counts[1] += 1


rovers = []


def run(release_ms: int = 0, bus: str = "") -> None:
    if bus:
        # not on every board that runs this
        from feagi_io_mcu import I2cDriver, SpiDriver, UartDmaDriver

        if bus == "spi":
            rover = Rover(SpiDriver(0, cs=17, attention=20))
        elif bus == "i2c":
            rover = Rover(I2cDriver(0, attention=21))
        else:
            rover = Rover(UartDmaDriver(0, max_baud=460800))
    else:
        rover = Rover(UsbCdcDriver(release_ms) if release_ms else UartDriver(UART))
    rovers.append(rover)
    agent = rover.agent
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
