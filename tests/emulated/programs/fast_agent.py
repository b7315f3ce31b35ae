# SPDX-License-Identifier: Apache-2.0
"""An agent on a real machine.UART that may be taken above its first baud rate."""

from feagi_io_mcu import Agent, UartDriver


def run() -> None:
    """Until it is stopped."""
    agent = Agent(UartDriver(0, max_baud=460800), "fast")
    eyes = agent.sensor("iinf", channels=2, resolution=8)
    agent.motor(
        "omot", channels=2, resolution=9, on_value=lambda c, v: eyes.write_u16(c, v + 32768)
    )
    while True:
        agent.step(1)
