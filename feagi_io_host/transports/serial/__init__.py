# SPDX-License-Identifier: Apache-2.0
"""Byte lines: serial ports and pseudo terminals over pyserial, socket://host:port and udp://."""

from feagi_io_host.transports.serial.port import SerialPort
from feagi_io_host.transports.serial.transport import SerialTransport

__all__ = ["SerialPort", "SerialTransport"]
