# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C and SIGTERM as an event, without the lock that the interrupted thread may hold.

Python runs a signal's handler between two steps of the main thread, which may be inside the very
`Event.wait` that the handler is to end: `Event.set` there waits for ever for a lock that its own
thread holds.
"""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stops_on_signal(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at Ctrl-C and SIGTERM, as long as this lasts. For the main thread."""
    # SimpleQueue.put takes no lock of Python's and may be called where itself is interrupted.
    asked: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def ask(_number: int, _frame: object) -> None:
        asked.put(True)

    def pass_on() -> None:
        while asked.get():
            stop.set()

    thread = threading.Thread(target=pass_on, name="feagi-io-signals", daemon=True)
    thread.start()
    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        asked.put(False)
        thread.join()
