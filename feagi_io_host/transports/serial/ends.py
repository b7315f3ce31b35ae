# SPDX-License-Identifier: Apache-2.0
"""This machine's end of a line that is open: a device, a TCP connection, or datagrams.

Each reads and writes its descriptor without waiting. What goes wrong is an OSError; SerialPort
says it in words.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, Protocol
from urllib.parse import urlsplit

import serial

from feagi_io_host.core.errors import ConfigError, PortError, PortNotFoundError
from feagi_io_host.transports.serial.reasons import open_error

_log = logging.getLogger("feagi_io.serial")

CONNECT_TIMEOUT_S: Final = 2.0
RESET_HOLD_S: Final = 0.1
DATAGRAM_BYTES: Final = 1400  # written at most in one: fits Ethernet and Wi-Fi beneath a tunnel
PEER_SILENCE_S: Final = 2.0  # so long is the line the board's that was heard last
_LARGEST_DATAGRAM: Final = 65_507
_DATAGRAMS_PER_READ: Final = 64

_BUSES: Final = ("spi", "i2c")
_BUS_DEVICE: Final = re.compile(r"/dev/(spidev\d|i2c-\d)")

_Readable = bytes | bytearray | memoryview
_Writable = bytearray | memoryview


class LineEnd(Protocol):
    """What SerialPort needs of an open line."""

    def fileno(self) -> int:
        """The descriptor, for waiting."""

    def read_into(self, buffer: _Writable) -> int:
        """Read what is there; 0 for an end of the line. BlockingIOError for nothing there yet."""

    def write(self, data: _Readable) -> int:
        """Write what is taken at once. BlockingIOError for nothing."""

    def drop_output(self) -> None:
        """Discard what was written and has not left the system, where that can be done."""

    def is_current(self) -> bool:
        """Whether the address still names what is open."""

    def pulse_reset(self) -> None:
        """Reset the board by DTR and RTS. OSError without such lines."""

    def set_baud(self, baud: int) -> None:
        """Go to another baud rate. OSError where that cannot be."""

    def close(self) -> None:
        """Close the descriptor."""


class DeviceEnd:
    """A device path or a pseudo terminal, opened by pyserial with exclusive access.

    From then on the descriptor is used itself: pyserial's own read and write wait in steps of
    their own and copy more than is needed.
    """

    def __init__(self, address: str, baud: int) -> None:
        if sys.platform == "win32":
            raise PortError(
                f"port {address}: serial ports work on POSIX systems only; use WSL, or a "
                "serial server and socket://host:port"
            )
        self._address = address
        device = serial.Serial(exclusive=True, timeout=0, write_timeout=0)
        device.port = address
        try:
            device.baudrate = baud
            device.open()
        except ValueError as error:
            raise ConfigError(f"port {address}: {error}") from None
        except OSError as error:
            raise open_error(address, error) from None
        try:
            _settle_terminal(device.fileno())
        except OSError as error:
            device.close()
            raise open_error(address, error) from None
        self._device = device
        self._fd: int = device.fileno()

    def fileno(self) -> int:
        """See LineEnd."""
        return self._fd

    def read_into(self, buffer: _Writable) -> int:
        """See LineEnd."""
        return os.readv(self._fd, [buffer])

    def write(self, data: _Readable) -> int:
        """See LineEnd."""
        return os.write(self._fd, data)

    def drop_output(self) -> None:
        """See LineEnd."""
        with contextlib.suppress(OSError, serial.SerialException):
            self._device.reset_output_buffer()

    def is_current(self) -> bool:
        """A board that was plugged in again may come back behind the same name as another
        device."""
        try:
            return os.stat(self._address).st_rdev == os.fstat(self._fd).st_rdev
        except OSError:
            return False

    def set_baud(self, baud: int) -> None:
        """See LineEnd. At once: what is still under way is damaged."""
        device = self._device
        before = device.baudrate
        try:
            device.baudrate = baud
            _settle_terminal(self._fd)  # pyserial has set all modes anew
        except (ValueError, OSError) as error:
            with contextlib.suppress(ValueError, OSError):
                device.baudrate = before
            raise OSError(f"{baud} baud: {error}") from None

    def pulse_reset(self) -> None:
        """RTS alone holds the common ESP32 circuits in reset; the return of DTR resets an
        Arduino."""
        self._device.dtr = False
        self._device.rts = True
        time.sleep(RESET_HOLD_S)
        self._device.rts = False
        time.sleep(RESET_HOLD_S)
        self._device.dtr = True
        self._device.rts = True

    def close(self) -> None:
        """See LineEnd."""
        self._device.close()


class StreamEnd:
    """socket://host:port, a TCP connection to a serial server or an emulated board."""

    def __init__(self, address: str) -> None:
        host, port = host_and_port(address, "socket://host:port")
        try:
            line = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S)
        except OSError as error:
            raise PortNotFoundError(
                f"nothing answers at {address} within {CONNECT_TIMEOUT_S} s "
                f"({error.strerror or error}); is the serial server running there?"
            ) from None
        # A frame is written in one piece and must not wait for the answer to the one before.
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.setblocking(False)
        self._socket = line

    def fileno(self) -> int:
        """See LineEnd."""
        return self._socket.fileno()

    def read_into(self, buffer: _Writable) -> int:
        """See LineEnd."""
        return self._socket.recv_into(buffer)

    def write(self, data: _Readable) -> int:
        """See LineEnd."""
        return self._socket.send(data)

    def drop_output(self) -> None:
        """TCP gives nothing back."""

    def is_current(self) -> bool:
        """See LineEnd."""
        return True

    def pulse_reset(self) -> None:
        """See LineEnd."""
        raise OSError("no control lines")

    def set_baud(self, baud: int) -> None:
        """See LineEnd."""
        raise OSError("no baud rate")

    def close(self) -> None:
        """See LineEnd."""
        self._socket.close()


class DatagramEnd:
    """udp://address:port of this machine, where one board sends its bytes, a piece a datagram.

    The board comes to us, because only it knows when its network is up, and is answered where it
    comes from. While it is heard, nobody else is: datagrams of others are dropped and counted.
    After PEER_SILENCE_S the next one that speaks has the line, which a restarted board needs that
    comes from another port. Who may send to the address may be the board, so open it to networks
    that are trusted.
    """

    def __init__(self, address: str, clock: Callable[[], float] = time.monotonic) -> None:
        host, port = host_and_port(address, "udp://address:port, an address of this machine")
        self._clock = clock
        self._address = address
        self._peer: tuple[str, int] | None = None
        self._heard_s = 0.0
        self.strangers = 0
        self._whole = bytearray(_LARGEST_DATAGRAM)
        self._at = self._filled = 0  # of what did not fit the caller's buffer
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        line = socket.socket(family, socket.SOCK_DGRAM)
        try:
            line.bind((host, port))
        except OSError as error:
            line.close()
            raise open_error(address, error) from None
        line.setblocking(False)
        self._socket = line
        if not _is_loopback(line.getsockname()[0]):
            _log.warning(
                "%s: whoever can send there can be the board; the line has no password", address
            )

    @property
    def port(self) -> int:
        """The port that boards send to, also when the system has chosen it."""
        return int(self._socket.getsockname()[1])

    def fileno(self) -> int:
        """See LineEnd."""
        return self._socket.fileno()

    def read_into(self, buffer: _Writable) -> int:
        """The bytes of as many datagrams as fit; one that does not fit is begun."""
        count = 0
        room = memoryview(buffer)
        for _ in range(_DATAGRAMS_PER_READ):  # whoever floods the port does not keep us here
            if self._at == self._filled:
                try:
                    size, source = self._socket.recvfrom_into(self._whole)
                except BlockingIOError:
                    break
                except ConnectionError:
                    continue  # the board's machine said that nobody listens there any more
                if not self._is_peer(source[:2]):
                    continue
                self._at, self._filled = 0, size
            size = min(self._filled - self._at, len(room) - count)
            room[count : count + size] = memoryview(self._whole)[self._at : self._at + size]
            self._at += size
            count += size
            if count == len(room):
                break
        if not count:
            raise BlockingIOError
        return count

    def _is_peer(self, source: tuple[str, int]) -> bool:
        now_s = self._clock()
        if source != self._peer:
            if self._peer is not None and now_s - self._heard_s < PEER_SILENCE_S:
                self.strangers += 1
                return False
            _log.info("%s: the board is at %s:%d", self._address, *source)
            self._peer = source
        self._heard_s = now_s
        return True

    def write(self, data: _Readable) -> int:
        """Send to the board; what is written before one was heard is gone, as on a line with
        nothing plugged in."""
        if self._peer is None:
            return len(data)
        view = memoryview(data)
        done = 0
        while done < len(view):
            piece = view[done : done + DATAGRAM_BYTES]
            try:
                self._socket.sendto(piece, self._peer)
            except BlockingIOError:
                if done:
                    break
                raise
            except OSError as error:
                # Unreachable now; the link finds out by silence and goes on when it is back.
                _log.debug("%s: not sent: %s", self._address, error)
            done += len(piece)
        return done

    def drop_output(self) -> None:
        """Datagrams are out at once."""

    def is_current(self) -> bool:
        """See LineEnd."""
        return True

    def pulse_reset(self) -> None:
        """See LineEnd."""
        raise OSError("no control lines")

    def set_baud(self, baud: int) -> None:
        """See LineEnd."""
        raise OSError("no baud rate")

    def close(self) -> None:
        """See LineEnd."""
        self._socket.close()


def has_baud(address: str) -> bool:
    """Whether a line of that address has a baud rate."""
    return address.partition("://")[0].lower() not in ("socket", "udp")


def open_end(address: str, baud: int) -> LineEnd:
    """The end that an address stands for, open. Raises PortError and its kinds, ConfigError."""
    scheme = address.partition("://")[0].lower()
    if scheme == "socket":
        return StreamEnd(address)
    if scheme == "udp":
        return DatagramEnd(address)
    if scheme in _BUSES or _BUS_DEVICE.match(address):
        raise ConfigError(
            f"line {address!r}: on SPI and I2C the board is the controller, and so is Linux by "
            "spidev and i2c-dev. Put a second microcontroller between the two that carries the "
            "bytes, and give the port of that (docs/board-link.md, SPI and I2C)"
        )
    return DeviceEnd(address, baud)


def host_and_port(address: str, form: str) -> tuple[str, int]:
    """Both parts of an address; ConfigError that names the `form` for what has not both."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"line {address!r}: {error}") from None
    if not host or port is None:
        raise ConfigError(f"line {address!r}: expected {form}")
    return host, port


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _settle_terminal(fd: int) -> None:
    """What pyserial leaves to the driver's defaults."""
    if sys.platform != "win32":
        import termios

        try:
            modes = termios.tcgetattr(fd)
            # Keep DTR and RTS up when the port is closed: their rise at the next opening would
            # reset the board.
            modes[2] &= ~termios.HUPCL
            # With at least one byte asked for, a read of none means that the line is gone; with
            # none asked for it may also mean that nothing has come.
            modes[6][termios.VMIN] = 1
            modes[6][termios.VTIME] = 0
            termios.tcsetattr(fd, termios.TCSANOW, modes)
        except termios.error as error:
            raise OSError(*error.args) from None
