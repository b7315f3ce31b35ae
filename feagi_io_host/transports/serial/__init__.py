# SPDX-License-Identifier: Apache-2.0
"""Serial ports, pseudo terminals and socket://host:port, over pyserial."""

from feagi_io_host.transports.serial.port import SerialPort
from feagi_io_host.transports.serial.transport import SerialTransport

__all__ = ["SerialPort", "SerialTransport"]
