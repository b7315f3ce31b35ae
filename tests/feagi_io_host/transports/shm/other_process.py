# SPDX-License-Identifier: Apache-2.0
"""The other end of a ring, in a process of its own."""

from __future__ import annotations

import sys
import time

import numpy as np

from feagi_io_host.core.errors import ClosedError
from feagi_io_host.transports.shm.reader import RingReader
from feagi_io_host.transports.shm.ring import RingWriter, in_order, newest_wins

WORDS = 50_000


def pattern(number: int, words: int = WORDS) -> np.ndarray:  # type: ignore[type-arg]
    """An array in which any mixture of two frames shows: each word holds the frame's number."""
    return np.full(words, number, np.uint32)


def write(order: str, pause_s: str) -> None:
    """Write numbered patterns until the input ends; prints the URL first."""
    shape = newest_wins(4 * WORDS) if order == "newest" else in_order(4 * WORDS, slots=4)
    writer = RingWriter(shape)
    print(writer.url, flush=True)
    number = 0
    while True:
        number += 1
        writer.write(pattern(number).view(np.uint8), 5.0)
        if float(pause_s):
            time.sleep(float(pause_s))


def hold_in_mid_write() -> None:
    """Lock a slot as a writer does in the middle of a frame, and stay so."""
    writer = RingWriter(newest_wins(4 * WORDS))
    writer.write(b"whole")
    segment = writer._segment
    assert segment.locks.try_exclusive(1)
    print(writer.url, flush=True)
    sys.stdin.read()


def keep(url: str) -> None:
    """Take one frame, keep it, say so, and stay."""
    reader = RingReader(url)
    frame = reader.take(10.0)
    assert frame is not None
    print(frame.sequence, flush=True)
    sys.stdin.read()


def count(url: str) -> None:
    """Take frames until the writer is gone; prints what was wrong and how many there were."""
    reader = RingReader(url)
    print("ready", flush=True)
    taken = torn = 0
    last = 0
    try:
        while True:
            frame = reader.take(10.0)
            if frame is None:
                break
            with frame:
                words = frame.array.view(np.uint32)
                first = int(words[0])
                torn += int(not (words == first).all()) + int(first <= last)
                last = first
            taken += 1
    except ClosedError as error:
        print(taken, torn, reader.skipped, reader.copied, str(error), flush=True)


if __name__ == "__main__":
    {"write": write, "mid": hold_in_mid_write, "keep": keep, "count": count}[sys.argv[1]](
        *sys.argv[2:]
    )
