# SPDX-License-Identifier: Apache-2.0
"""An arm: an IMU that feels where it swings, a servo that moves it, on MicroPython."""

import time

from feagi_io_mcu import Agent, StdioDriver  # on a Pico: UsbCdcDriver
from feagi_io_mcu.units import PositionalServo, RawImu

FULL = 32767  # what stands for 1 g, or whatever the sensor's range is
told = [0]


def move(channel: int, position: int) -> None:  # 0..65535: here goes the PWM, 1 to 2 ms at 50 Hz
    if position != told[0]:
        agent.log(20, b"arm moves")
    told[0] = position


agent = Agent(StdioDriver(), "arm")  # on a Pico: UsbCdcDriver()
imu = RawImu(agent, resolution=16)
servo = PositionalServo(agent, resolution=16, on_value=move)
said_ms = time.ticks_ms()
while True:
    swing = time.ticks_ms() * 64 % (2 * FULL) - FULL  # here goes the chip on the I2C bus
    imu.accelerometer.write(0, swing, -swing, FULL)
    if not told[0] and time.ticks_diff(time.ticks_ms(), said_ms) > 500:
        said_ms = time.ticks_ms()
        agent.log(20, b"arm waits")
    agent.step(1)
