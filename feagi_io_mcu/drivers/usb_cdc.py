# SPDX-License-Identifier: Apache-2.0
"""UsbCdcDriver: the board's USB port, which is also its REPL, as a line.

While the program runs the byte 0x03 is data, as frames need it, and no Ctrl-C. The line is given
back to the REPL when somebody asks for it whom no host forbids: mpremote (CR, Ctrl-C) or a person
(Ctrl-C twice) ends the program with KeyboardInterrupt once the host has said BYE (the bridge does
at its end, `boards deploy` before it begins), or `release_ms` after the last frame from it. Until
then the program goes on, and the next frame of a host keeps everybody else out again.

A program that does not step cannot be stopped so; its watchdog or the reset button can. Nothing
else may print while an agent talks here: text on the line is noise to the host, which is counted
and costs a frame at most.
"""

import micropython

from feagi_wire.link import ticks_diff

from .._port import ticks
from .stdio import StdioDriver

RELEASE_MS = 10000
_CTRL_C = 3
_CR = 13
# made once: the heap may be locked when it is raised
_STOP = KeyboardInterrupt()


class UsbCdcDriver(StdioDriver):
    """The line of sys.stdin and sys.stdout of a board, shared with its REPL.

    `released`: whether the REPL may be asked for now.
    """

    def __init__(self, release_ms: int = RELEASE_MS) -> None:
        super().__init__()
        self.release_ms = release_ms
        self.released = False
        self._heard = 0
        self._byte = bytearray(1)
        self._last = 0  # the byte before

    def init(self) -> None:
        """Take the line from the REPL."""
        super().init()
        self.released = False
        self._heard = ticks()

    def deinit(self) -> None:
        """Give the line back to the REPL."""
        super().deinit()
        micropython.kbd_intr(_CTRL_C)

    def claim(self) -> None:
        """There is a host that talks to us."""
        self.released = False
        self._heard = ticks()

    def release(self) -> None:
        """There is none any more."""
        self.released = True
        self._last = 0

    def read_some(self, buf: bytearray) -> int:
        """See RTOSDriver. KeyboardInterrupt when the REPL is asked for and may be had."""
        if not self.released:
            n = super().read_some(buf)
            if n or ticks_diff(ticks(), self._heard) <= self.release_ms:
                return n
            self.released = True
        # one by one: what follows is for the REPL
        if not super().read_some(self._byte):
            return 0
        last = self._last
        byte = self._byte[0]
        self._last = byte
        if byte == _CTRL_C and (last == _CR or last == _CTRL_C):
            micropython.kbd_intr(_CTRL_C)
            raise _STOP
        buf[0] = byte
        return 1
