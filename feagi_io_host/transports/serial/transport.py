# SPDX-License-Identifier: Apache-2.0
"""SerialTransport: keeps one port open for ever and moves its bytes, in one thread.

The thread sleeps in the system until bytes arrive, until the party wants to be called, or until
somebody wakes it. Bytes to send go out in the thread of whoever has them (`flush`); only what the
line does not take at once is left to this one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.errors import ClosedError, FeagiIOError, PortError
from feagi_io_host.transports.endpoint import LineParty
from feagi_io_host.transports.serial.ends import has_baud
from feagi_io_host.transports.serial.port import SerialPort

_log = logging.getLogger("feagi_io.serial")

READ_BYTES = 16384
FAREWELL_S = 0.2
# A line that lasted this long has earned a quick first try at reopening.
STEADY_S = 5.0
# How often to look whether the name still stands for the device that is open.
CURRENT_CHECK_S = 1.0


class SerialTransport:
    """One serial line for a party (see transports.endpoint), opened again whenever it is lost.

    Attempts to open follow each other after `retry_s`, doubling up to `retry_max_s`. With `reset`
    the board is reset at the first opening, never at a later one. `clock` gives seconds that
    never go back. A stopped transport is not started again.
    """

    def __init__(
        self,
        address: str,
        party: LineParty,
        *,
        baud: int = 115200,
        reset: bool = False,
        retry_s: float = 0.05,
        retry_max_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self.bytes_in = 0
        self.bytes_out = 0
        self._port = SerialPort(address, baud=baud, reset=reset)
        self._party = party
        self._retry_s = retry_s
        self._retry_max_s = max(retry_max_s, retry_s)
        self._clock = clock
        self._sending = threading.Lock()
        self._blocked = False  # the line did not take all there was
        self._worker = Worker(f"feagi-io-serial {address}", self._run, wake=self._port.wake)

    @property
    def is_open(self) -> bool:
        """Whether the port is open now."""
        return self._port.is_open

    def start(self) -> None:
        """Begin to open the port. Does nothing when started before; ClosedError after `stop`."""
        self._worker.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Let the party say its last words, close the port, end the thread.

        May be called more than once. Raises StopTimeoutError when the thread is held up.
        """
        self._worker.stop(timeout_s)

    def wake(self) -> None:
        """Have the party's `poll` called now instead of later."""
        self._port.wake()

    def drop_output(self) -> None:
        """Discard bytes handed to the system that have not left it yet."""
        self._port.drop_output()

    @property
    def baud(self) -> int:
        """The baud rate at which the port opens, 0 for lines without one."""
        return self._port.baud if has_baud(self.address) else 0

    def set_baud(self, baud: int) -> bool:
        """Go to another baud rate until the port is closed; False where the system refuses."""
        return self._port.set_baud(baud)

    def flush(self) -> None:
        """Write what the party has to send, as far as the line takes it at once.

        For any thread. A line that breaks meanwhile is noticed and reported by the transport's
        own thread.
        """
        try:
            if self._send():
                self._port.wake()
        except (ClosedError, PortError) as error:
            _log.debug("%s: not written: %s", self.address, error)
            self._port.wake()

    def _send(self) -> bool:
        """Write; True when the line has just begun to be the one that is waited for."""
        with self._sending:
            if not self._port.is_open:
                return False
            while True:
                data = self._party.next_bytes()
                if not data:
                    self._blocked = False
                    return False
                count = self._port.write_some(data)
                self.bytes_out += count
                self._party.bytes_written(count)
                if count < len(data):
                    was_blocked, self._blocked = self._blocked, True
                    return not was_blocked

    # -- the thread ---------------------------------------------------------------------------

    def _run(self, stopping: threading.Event) -> None:
        pause_s = self._retry_s
        while not stopping.is_set():
            try:
                self._port.open()
            except FeagiIOError as error:
                self._party.line_failed(error)
                stopping.wait(pause_s)
                pause_s = min(2.0 * pause_s, self._retry_max_s)
                continue
            self._port.reset = False
            opened_s = self._clock()
            self._serve(stopping)
            if self._clock() - opened_s >= STEADY_S:
                pause_s = self._retry_s
            if not stopping.is_set():
                stopping.wait(pause_s)
                pause_s = min(2.0 * pause_s, self._retry_max_s)

    def _serve(self, stopping: threading.Event) -> None:
        """Move bytes until the line is lost or the end has come."""
        lost: FeagiIOError | None = None
        self._blocked = False
        try:
            self._party.line_opened()
            self._pump(stopping)
            if stopping.is_set():
                self._say_farewell()
        except PortError as error:
            lost = error
        finally:
            self._port.close()
            self._party.line_closed(lost)

    def _pump(self, stopping: threading.Event) -> None:
        port, party = self._port, self._party
        buffer = memoryview(bytearray(READ_BYTES))
        look_s = self._clock() + CURRENT_CHECK_S
        self._send()
        while not stopping.is_set():
            pause_s = party.poll()
            self._send()
            if port.wait(pause_s, writable=self._blocked):
                count = port.read_some(buffer)
                self.bytes_in += count
                party.receive(buffer[:count])
            if self._clock() >= look_s:
                look_s = self._clock() + CURRENT_CHECK_S
                if not port.is_current():
                    _log.info("%s stands for another device now; opening that", self.address)
                    return
                if party.wants_reopening():
                    return

    def _say_farewell(self) -> None:
        self._party.line_closing()
        deadline_s = self._clock() + FAREWELL_S
        with self._sending:
            while True:
                data = self._party.next_bytes()
                left_s = deadline_s - self._clock()
                if not data or left_s <= 0.0:
                    return
                self._party.bytes_written(self._port.write(data, left_s))
