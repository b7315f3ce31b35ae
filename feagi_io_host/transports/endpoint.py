# SPDX-License-Identifier: Apache-2.0
"""What a byte-line transport and the party it works for promise each other.

A line is a stream of bytes to one other end: a serial port, a pseudo terminal, a TCP connection.
The transport opens it, keeps it open, and moves bytes; what they mean is the party's business.

Threads: the transport has one thread, which alone calls `line_*`, `receive` and `poll`.
`next_bytes` and `bytes_written` are called in turn, by that thread and by whoever calls `flush`,
one at a time. The party calls `flush`, `wake` and `drop_output` without holding a lock that its
own methods take.
"""

from __future__ import annotations

from typing import Protocol

from feagi_io_host.core.errors import FeagiIOError


class LineParty(Protocol):
    """The one that a line transport moves bytes for."""

    def line_opened(self) -> None:
        """The line is open; bytes may come and go from here on."""

    def line_failed(self, error: FeagiIOError) -> None:
        """The line could not be opened; it is tried again after a pause, for ever."""

    def line_closed(self, error: FeagiIOError | None) -> None:
        """The line is closed: by `error`, or (None) because the transport stops or reopens it."""

    def line_closing(self) -> None:
        """The transport is about to stop: the last moment to have something sent."""

    def receive(self, chunk: memoryview) -> None:
        """These bytes arrived; the memory is reused as soon as this returns."""

    def poll(self) -> float:
        """Time may have passed. Returns after how many seconds at most to be called again."""

    def next_bytes(self) -> memoryview:
        """What is to be written next, most urgent first; empty for nothing."""

    def bytes_written(self, count: int) -> None:
        """So many bytes of what `next_bytes` gave went out."""

    def wants_reopening(self) -> bool:
        """Whether the line has been silent for so long that it should be opened anew."""


class LineTransport(Protocol):
    """Keeps one line open and moves its bytes."""

    @property
    def is_open(self) -> bool:
        """Whether the line is open now."""

    def start(self) -> None:
        """Begin to open the line. Does nothing when started before."""

    def stop(self, timeout_s: float = 5.0) -> None:
        """Close the line and end the thread. StopTimeoutError when that takes longer."""

    def flush(self) -> None:
        """Write what the party has to send, as far as the line takes it at once."""

    def wake(self) -> None:
        """Have `poll` called now instead of later."""

    def drop_output(self) -> None:
        """Discard bytes handed to the system that have not left it yet, where it can do that."""

    @property
    def baud(self) -> int:
        """The baud rate at which the line opens, 0 where that means nothing."""

    def set_baud(self, baud: int) -> bool:
        """Go to another baud rate until the line is closed; False where the system refuses."""
