# SPDX-License-Identifier: Apache-2.0
"""SerialPort: one open line with deadlines on everything, whatever kind of line it is."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import Self

from feagi_io_host.core.errors import ClosedError, ConfigError, PortError
from feagi_io_host.transports.serial.ends import LineEnd, open_end
from feagi_io_host.transports.serial.reasons import open_error, vanished

_log = logging.getLogger("feagi_io.serial")

# How long a blocked `write` may go without looking whether the port was closed under it.
_WRITE_LOOK_S = 0.05


class SerialPort:
    """A serial port or pseudo terminal, socket://host:port or udp://address:port.

    Devices are opened with exclusive access.

    Opening leaves the DTR and RTS lines as the system sets them and keeps them so at close, so a
    board that resets on a change of them is left alone. With `reset` they are pulsed as boards
    with an automatic reset expect it; other boards ignore that.

    One thread reads and waits; any thread may write, wake and close. Works on POSIX systems;
    elsewhere only socket:// and udp:// do.
    """

    def __init__(self, address: str, *, baud: int = 115200, reset: bool = False) -> None:
        if baud < 1:
            raise ConfigError(f"port {address}: baud is {baud}; a positive number is needed")
        self.address = address
        self.baud = baud
        self.reset = reset
        self._end: LineEnd | None = None
        self._fd = -1
        self._closing = False
        self._wake_r: socket.socket | None = None
        self._wake_w: socket.socket | None = None
        self._selector: selectors.BaseSelector | None = None
        self._watching = 0
        # Held while the descriptor is in use by a reader or a writer, so that `close` cannot
        # hand its number to somebody else in between.
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._state = threading.Lock()

    # -- opening ------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the line. Raises PortNotFoundError, PortBusyError, PortPermissionError or another
        PortError, each with the next step, and ConfigError for an address that is none."""
        if self.is_open:
            return
        self._end = open_end(self.address, self.baud)
        self._fd = self._end.fileno()
        try:
            self._prepare_waiting()
            if self.reset:
                self.pulse_reset()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):  # out of descriptors, say
                raise open_error(self.address, error) from None
            raise

    def _prepare_waiting(self) -> None:
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_r, selectors.EVENT_READ)
        self._selector.register(self._fd, selectors.EVENT_READ)
        self._watching = selectors.EVENT_READ
        self._closing = False

    @property
    def is_open(self) -> bool:
        """Whether the line is open."""
        return self._fd >= 0

    def pulse_reset(self) -> None:
        """Reset the board by DTR and RTS, if the port has such lines and the board listens.

        Raises PortError when the port has no such lines.
        """
        try:
            if self._end is None:
                raise OSError("not open")
            self._end.pulse_reset()
        except OSError as error:
            raise PortError(
                f"port {self.address} cannot reset a board ({error}): it has no DTR and RTS lines; "
                "open it without reset"
            ) from None

    def set_baud(self, baud: int) -> bool:
        """Go to another baud rate until the port is closed; False where the system refuses, and
        for a port that is closed."""
        try:
            if self._end is None:
                raise OSError("not open")
            self._end.set_baud(baud)
        except OSError as error:
            _log.info("port %s does not go to %d baud: %s", self.address, baud, error)
            return False
        return True

    def is_current(self) -> bool:
        """Whether the address still names the device that is open."""
        return self._end is not None and self._end.is_current()

    # -- moving bytes -------------------------------------------------------------------------

    def wait(self, timeout_s: float | None, *, writable: bool = False) -> bool:
        """Wait until bytes can be read; True when they can.

        False when `timeout_s` passed (None: never), `wake` was called, or with `writable` when
        bytes can be written. Raises ClosedError when the port is or becomes closed.
        """
        with self._reading:
            selector = self._selector
            if selector is None or self._closing:
                raise self._closed()
            watch = selectors.EVENT_READ | (selectors.EVENT_WRITE if writable else 0)
            if watch != self._watching:
                selector.modify(self._fd, watch)
                self._watching = watch
            readable = False
            for key, events in selector.select(timeout_s):
                if key.fd == self._fd:
                    readable = bool(events & selectors.EVENT_READ)
                else:
                    self._drain_wakes()
            if self._closing:
                raise self._closed()
            return readable

    def read_some(self, buffer: bytearray | memoryview) -> int:
        """Read what is there into `buffer`: how many bytes, 0 when nothing is there yet.

        Raises PortNotFoundError when the line is gone, ClosedError after `close`.
        """
        with self._reading:
            if self._end is None or self._closing:
                raise self._closed()
            try:
                count = self._end.read_into(buffer)
            except (BlockingIOError, InterruptedError):
                return 0
            except OSError as error:
                raise vanished(self.address, error.strerror or str(error)) from None
            if count == 0:
                raise vanished(self.address, "end of stream")
            return count

    def read(self, buffer: bytearray | memoryview, timeout_s: float | None) -> int:
        """Wait for bytes and read them into `buffer`: how many, 0 when `timeout_s` passed first.

        None waits for ever, 0 does not wait. Raises as `read_some` does.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
            if self.wait(left_s) and (count := self.read_some(buffer)):
                return count
            if left_s == 0.0:
                return 0

    def write_some(self, data: bytes | bytearray | memoryview) -> int:
        """Write what the line takes at once: how many bytes of `data`, 0 when it takes none.

        Raises PortNotFoundError when the line is gone, ClosedError after `close`.
        """
        with self._writing:
            if self._end is None or self._closing:
                raise self._closed()
            try:
                return self._end.write(data)
            except (BlockingIOError, InterruptedError):
                return 0
            except OSError as error:
                raise vanished(self.address, error.strerror or str(error)) from None

    def write(self, data: bytes | bytearray | memoryview, timeout_s: float | None) -> int:
        """Write all of `data` within `timeout_s`: how many bytes went out (fewer: too slow).

        None waits for ever, 0 does not wait. Raises as `write_some` does.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        rest = memoryview(data).cast("B")
        total = len(rest)
        while True:
            rest = rest[self.write_some(rest) :]
            left_s = _WRITE_LOOK_S if deadline_s is None else deadline_s - time.monotonic()
            if not rest or left_s <= 0.0:
                return total - len(rest)
            self._wait_writable(min(left_s, _WRITE_LOOK_S))

    def _wait_writable(self, timeout_s: float) -> None:
        with self._writing, selectors.DefaultSelector() as selector:
            if self._fd < 0 or self._closing:
                raise self._closed()
            selector.register(self._fd, selectors.EVENT_WRITE)
            selector.select(timeout_s)

    def drop_output(self) -> None:
        """Discard bytes written that have not left the system yet, where it can do that."""
        with self._writing:
            if self._end is not None:
                self._end.drop_output()

    # -- waking and closing -------------------------------------------------------------------

    def wake(self) -> None:
        """End a `wait` under way, or the next one."""
        with self._state:
            if self._wake_w is not None:
                with contextlib.suppress(BlockingIOError):  # full: it is awake as it is
                    self._wake_w.send(b"\0")

    def _drain_wakes(self) -> None:
        if self._wake_r is not None:
            with contextlib.suppress(BlockingIOError):
                while self._wake_r.recv(4096):
                    pass

    def close(self) -> None:
        """Close the line; whoever waits in it gets ClosedError. May be called more than once."""
        self._closing = True
        self.wake()
        with self._reading, self._writing, self._state:
            if self._selector is not None:
                self._selector.close()
                self._selector = None
            for end in (self._wake_r, self._wake_w, self._end):
                if end is not None:
                    end.close()
            self._wake_r = self._wake_w = self._end = None
            self._fd = -1

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _closed(self) -> ClosedError:
        return ClosedError(f"port {self.address} is closed; open it before it is used")
