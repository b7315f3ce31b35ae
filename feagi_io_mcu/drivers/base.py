# SPDX-License-Identifier: Apache-2.0
"""RTOSDriver: the seam between the link and a byte line.

A new driver overrides `init`, `deinit`, `read_some`, `write_some` and `data_available`. None of
them may allocate after `init`, nor wait: the deadlines are kept here, once for all lines.
"""

from feagi_wire.const import E_TIMEOUT
from feagi_wire.link import ticks_diff

from .._port import sleep_ms, ticks

MYPY = False
if MYPY:
    from feagi_wire.board_link import BoardLink


class RTOSDriver:
    """Moves bytes between static buffers and a line."""

    max_baud = 0  # of a line whose rate can change, see keep_rate

    def init(self) -> None:
        """Claim the hardware. May allocate; called once before use."""

    def deinit(self) -> None:
        """Give the hardware back."""

    def claim(self) -> None:
        """A frame of a host has come: a line that others use, too, is the link's now."""

    def release(self) -> None:
        """The host has said goodbye: such a line is the others' now."""

    def keep_rate(self, link: "BoardLink", ev: int, now: int) -> None:
        """Called after each pump of a line with `max_baud`: do what `link` agreed on with the
        host, and come back to the first rate when it fails or the session is lost."""

    def data_available(self) -> int:
        """Bytes that can be read without waiting (at least 1 when there are any)."""
        raise NotImplementedError

    def read_some(self, buf: bytearray) -> int:
        """Read what is there into buf[0:]; how many bytes, 0 for none. Never waits."""
        raise NotImplementedError

    def write_some(self, buf: bytearray, start: int, n: int) -> int:
        """Write of buf[start:start+n] what fits; how many bytes, 0 for none. Never waits."""
        raise NotImplementedError

    def recv_bytes(self, buf: bytearray, timeout_ms: int) -> int:
        """Read at least one byte within `timeout_ms`; the number read, or E_TIMEOUT."""
        until = ticks() + timeout_ms
        while True:
            n = self.read_some(buf)
            if n > 0:
                return n
            if ticks_diff(ticks(), until) >= 0:
                return E_TIMEOUT
            sleep_ms(1)

    def send_bytes(self, buf: bytearray, n: int, timeout_ms: int) -> int:
        """Write buf[0:n] within `timeout_ms`; n, or E_TIMEOUT when only a part went out."""
        until = ticks() + timeout_ms
        done = 0
        while True:
            done += self.write_some(buf, done, n - done)
            if done >= n:
                return n
            if ticks_diff(ticks(), until) >= 0:
                return E_TIMEOUT
            sleep_ms(1)
