# SPDX-License-Identifier: Apache-2.0
"""A rover on a Raspberry Pi Pico: one light sensor, two motors. Copy it to the board as main.py.

Needs the packages feagi_wire and feagi_io_mcu on the board. The USB cable is the line to the host;
with a UART instead (GP0, GP1): UartDriver(0).
"""

from machine import ADC, PWM, Pin

from feagi_io_mcu import Agent, UsbCdcDriver

light, wheels = ADC(26), [PWM(Pin(14), freq=1000), PWM(Pin(15), freq=1000)]


def drive(channel: int, value: int) -> None:
    """value: -32767..32767; this rover knows only forward."""
    wheels[channel].duty_u16(max(0, value) * 2)
    agent.log(20, b"wheels turn" if value > 0 else b"wheels stand")


def halt() -> None:
    """No fresh command: stand still."""
    drive(0, 0)
    drive(1, 0)


agent = Agent(UsbCdcDriver(), "rover", on_failsafe=halt)
eye = agent.sensor("iinf", channels=1, resolution=8)
agent.motor("omot", channels=2, resolution=9, on_value=drive)
while True:
    eye.write_u16(0, light.read_u16())
    agent.step()
