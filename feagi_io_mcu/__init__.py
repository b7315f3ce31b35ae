# SPDX-License-Identifier: Apache-2.0
"""FEAGI on a microcontroller: declare sensors and motors, call `step()`.

    from feagi_io_mcu import Agent, UartDriver
    agent = Agent(UartDriver(0), "rover")

Names are resolved when first used, so that a board spends memory only on what it runs.
"""

MYPY = False
if MYPY:  # what type checkers and editors see
    from .agent import Agent as Agent
    from .aio import MotorValues as MotorValues
    from .config import DEFAULT_TIMEOUT_TICKS as DEFAULT_TIMEOUT_TICKS
    from .config import FBC_POOL_SIZE as FBC_POOL_SIZE
    from .config import MAX_FBC_SIZE as MAX_FBC_SIZE
    from .config import UART_BAUD_RATE as UART_BAUD_RATE
    from .drivers.base import RTOSDriver as RTOSDriver
    from .drivers.i2c import I2cDriver as I2cDriver
    from .drivers.spi import SpiDriver as SpiDriver
    from .drivers.stdio import StdioDriver as StdioDriver
    from .drivers.uart import UartDriver as UartDriver
    from .drivers.uart_dma import UartDmaDriver as UartDmaDriver
    from .drivers.udp import UdpDriver as UdpDriver
    from .drivers.usb_cdc import UsbCdcDriver as UsbCdcDriver
    from .transport import RTOSTransport as RTOSTransport

_HOMES = {
    "config": "MAX_FBC_SIZE FBC_POOL_SIZE UART_BAUD_RATE DEFAULT_TIMEOUT_TICKS",
    "drivers.base": "RTOSDriver",
    "drivers.uart": "UartDriver",
    "drivers.uart_dma": "UartDmaDriver",
    "drivers.i2c": "I2cDriver",
    "drivers.spi": "SpiDriver",
    "drivers.stdio": "StdioDriver",
    "drivers.udp": "UdpDriver",
    "drivers.usb_cdc": "UsbCdcDriver",
    "transport": "RTOSTransport",
    "agent": "Agent",
    "aio": "MotorValues",
}

__all__ = sorted(" ".join(_HOMES.values()).split())


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name == module:
            return __import__("feagi_io_mcu." + name, None, None, (name,))
        if name in names.split():
            return getattr(__import__("feagi_io_mcu." + module, None, None, (name,)), name)
    raise AttributeError(name)
