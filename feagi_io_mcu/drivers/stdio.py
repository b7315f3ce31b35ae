# SPDX-License-Identifier: Apache-2.0
"""StdioDriver: the process's own input and output as a line, for MicroPython's Unix port.

Whoever starts the process gives it the far end of a pseudo terminal, and opens the near end like
any serial port. Nothing may wait, and a blocking file descriptor has no other way to promise that
than one byte at a time after asking `poll`: about 2 us a byte, and right for pipes, PTYs and
sockets alike.
"""

import select
import sys

from .base import RTOSDriver

MYPY = False
if MYPY:
    from io import FileIO


class StdioDriver(RTOSDriver):
    """sys.stdin.buffer and sys.stdout.buffer. `hangup` turns true when the other end closed."""

    def __init__(self) -> None:
        # raw file descriptors underneath: on MicroPython these have readinto and no buffer
        self._in: "FileIO" = sys.stdin.buffer  # type: ignore[assignment]
        self._out: "FileIO" = sys.stdout.buffer  # type: ignore[assignment]
        self._one = bytearray(1)
        self._poll_in = select.poll()
        self._poll_out = select.poll()
        self.hangup = False

    def init(self) -> None:
        """Watch both ends; keep a Ctrl-C byte on the line from interrupting the program."""
        self._poll_in.register(self._in, select.POLLIN)
        self._poll_out.register(self._out, select.POLLOUT)
        try:
            import micropython

            micropython.kbd_intr(-1)
        except (ImportError, AttributeError):
            pass  # CPython, or a build without the call: nothing turns 0x03 into an interrupt there

    def deinit(self) -> None:
        """Stop watching."""
        self._poll_in.unregister(self._in)
        self._poll_out.unregister(self._out)

    def data_available(self) -> int:
        """1 when a byte can be read at once."""
        return self._ready(self._poll_in, select.POLLIN)

    def read_some(self, buf: bytearray) -> int:
        """See RTOSDriver."""
        n = 0
        limit = len(buf)
        one = self._one
        while n < limit and self._ready(self._poll_in, select.POLLIN):
            try:
                if not self._in.readinto(one):
                    self.hangup = True
                    break
            except OSError:
                self.hangup = True
                break
            buf[n] = one[0]
            n += 1
        return n

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        """See RTOSDriver."""
        done = 0
        one = self._one
        while done < n and self._ready(self._poll_out, select.POLLOUT):
            one[0] = buf[start + done]
            try:
                self._out.write(one)
            except OSError:
                self.hangup = True
                break
            done += 1
        return done

    def _ready(self, poller: "select.poll", wanted: int) -> int:
        # MicroPython's ipoll hands out one tuple again and again; CPython has only poll
        for _, got in poller.ipoll(0) if hasattr(poller, "ipoll") else poller.poll(0):
            if got & wanted:
                return 1
            self.hangup = True
        return 0
