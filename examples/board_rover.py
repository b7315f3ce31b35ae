# SPDX-License-Identifier: Apache-2.0
"""A rover: one eye, two wheels, on MicroPython."""

import time

from feagi_io_mcu import Agent, StdioDriver  # on a Pico: UsbCdcDriver


def drive(channel: int, value: int) -> None:  # value is -32767..32767: here goes the PWM
    agent.log(20, b"wheels turn" if value else b"wheels stand")


agent = Agent(StdioDriver(), "rover", on_failsafe=lambda: drive(0, 0))  # on a Pico: UsbCdcDriver()
eye = agent.sensor("iinf", channels=1, resolution=8)
agent.motor("omot", channels=2, resolution=9, on_value=drive)
while True:
    eye.write_u16(0, time.ticks_ms() * 16 & 0xFFFF)  # 0..65535: here goes the ADC
    agent.step(1)
