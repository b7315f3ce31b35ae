# SPDX-License-Identifier: Apache-2.0
"""Template of a board program: copy it to the board as main.py and change what is marked.

Runs as it is on a Raspberry Pi Pico: UART 0 (GP0, GP1) to the host, the ADC of GP26 as an
infrared sensor, the LED's brightness as a motor.
"""

from machine import ADC, PWM, WDT, Pin

from feagi_io_mcu import Agent, UartDriver

adc = ADC(26)  # your sensors
led = PWM(Pin(25), freq=1000)  # your actuators


def drive(channel: int, value: int) -> None:
    """Apply a motor command: value is -32767..32767."""
    led.duty_u16(value * 2 if value > 0 else 0)


def halt() -> None:
    """No fresh command for a while: leave every actuator safe."""
    led.duty_u16(0)


agent = Agent(UartDriver(0), "pico", on_failsafe=halt, watchdog=WDT(timeout=8000))
light = agent.sensor("iinf", channels=1, resolution=8)
agent.motor("omot", channels=1, resolution=8, on_value=drive)

while True:
    light.write_u16(0, adc.read_u16())
    agent.step()
