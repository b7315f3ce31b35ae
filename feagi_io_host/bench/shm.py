# SPDX-License-Identifier: Apache-2.0
"""Shared-memory benchmark: ours against a bare copy into shared memory, woken by a bare eventfd.

The workload is one burst of 200,000 neurons: 3.2 MB as a container, 1.6 MB as ids and potentials.
The readers are processes of their own and answer each frame over an eventfd, ours and the
reference's alike; the answer is part of both times. Both sides write to two slots in turn. Where
there are two processors, writers have the first and readers the last: left to itself the system
puts one pair on one of them and another on two, and a wake-up across costs ten times as much.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from feagi_io_host.bench import shm_soak
from feagi_io_host.bench.runner import Case, Row, measure
from feagi_io_host.core.voxels import U8Array
from feagi_io_host.transports.shm.direct import ShmDirectReader, ShmDirectTransport
from feagi_io_host.transports.shm.names import SHM_FOLDER, why_unavailable
from feagi_io_host.transports.shm.ring import RingWriter, newest_wins

BURST: Final = 200_000
MEMCPY: Final = "memcpy to shared memory"
BARE: Final = "memcpy + eventfd"
_ANSWER_S: Final = 10.0
_SIZES: Final = ((1_000, None), (10_000, None), (100_000, None), (BURST, 1.3), (1_000_000, None))

# Each prints a line when it can receive. What they import is what a user's reader imports.
_PINNED: Final = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[-1])})
"""
_OUR_READER: Final = """
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.transports.shm.reader import RingReader
url, answer = sys.argv[1], int(sys.argv[2])
reader = RingReader(url)
print("ready", flush=True)
try:
    while True:
        with reader.take() as frame:
            frame.view
        os.eventfd_write(answer, 1)
except ClosedError:
    pass
"""
_BARE_READER: Final = """
import mmap, select
bell, answer, memory = int(sys.argv[1]), int(sys.argv[2]), mmap.mmap(int(sys.argv[3]), 0)
view = memoryview(memory)
waiting = select.epoll()
waiting.register(bell, select.EPOLLIN)
print("ready", flush=True)
while True:
    waiting.poll()
    os.eventfd_read(bell)
    view[:1]
    os.eventfd_write(answer, 1)
"""


def _shared_memory(size: int) -> tuple[int, mmap.mmap]:
    """Memory of the kind the rings use, without a name."""
    fd = os.open(SHM_FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    os.posix_fallocate(fd, 0, size)
    return fd, mmap.mmap(fd, size)


def _two_slots(memory: mmap.mmap, size: int) -> Callable[[U8Array], None]:
    slots = [np.frombuffer(memory, np.uint8, size, at) for at in (0, len(memory) // 2)]
    turn = 0

    def copy(source: U8Array) -> None:
        nonlocal turn
        turn ^= 1
        np.copyto(slots[turn], source)

    return copy


@contextlib.contextmanager
def _reader(program: str, arguments: list[str], fds: list[int]) -> Iterator[None]:
    paths = [str(Path(name).resolve()) for name in sys.path if name]
    cpu = str(max(os.sched_getaffinity(0)))
    process = subprocess.Popen(
        [sys.executable, "-c", _PINNED + program, *arguments, cpu],
        pass_fds=fds,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("a reader of the benchmark did not start")
        yield
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _on_the_first_processor() -> Iterator[None]:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _answered(answer: int) -> None:
    """Wait for the reader. TimeoutError when it does not answer: no benchmark hangs."""
    ready, _, _ = select.select([answer], [], [], _ANSWER_S)
    if not ready:
        raise TimeoutError(f"no answer from the reader within {_ANSWER_S} s")
    os.eventfd_read(answer)


def _fbc_rows(neurons: int, max_ratio: float | None, *, quick: bool) -> list[Row]:
    size = 16 * neurons
    data = np.ones(size, np.uint8)
    with contextlib.ExitStack() as stack:

        def eventfd() -> int:
            fd = os.eventfd(0, os.EFD_CLOEXEC)
            stack.callback(os.close, fd)
            return fd

        bell, bare_answer, our_answer = eventfd(), eventfd(), eventfd()
        fd, memory = _shared_memory(2 * -(-size // 4096) * 4096)
        stack.callback(os.close, fd)
        copy = _two_slots(memory, size)
        writer = stack.enter_context(RingWriter(newest_wins(size, max_readers=1)))
        stack.enter_context(_reader(_OUR_READER, [writer.url, str(our_answer)], [our_answer]))
        bare = [bell, bare_answer, fd]
        stack.enter_context(_reader(_BARE_READER, [str(number) for number in bare], bare))

        def ours() -> None:
            writer.write(data)
            _answered(our_answer)

        def reference() -> None:
            copy(data)
            os.eventfd_write(bell, 1)
            _answered(bare_answer)

        limit = "-" if max_ratio is None else f"<= {max_ratio:g}x"
        name = f"SHM, FBC mode, {neurons // 1000}K neurons ({size / 1e6:g} MB), wake included"
        with _on_the_first_processor():
            return measure([Case(name, ours, BARE, limit, reference, max_ratio)], quick=quick)


def _direct_row(*, quick: bool) -> list[Row]:
    ids = np.arange(BURST, dtype=np.uint32)
    potentials = np.ones(BURST, np.float32)
    data = np.ones(8 * BURST, np.uint8)
    fd, memory = _shared_memory(2 * 8 * BURST)
    os.close(fd)
    copy = _two_slots(memory, 8 * BURST)
    with ShmDirectTransport(max_neurons=BURST) as transport, ShmDirectReader(transport.url) as end:
        transport.publish_neural_activity_direct(ids, potentials)
        rows = measure(
            [
                Case(
                    "SHM, direct mode, 200K neurons (1.6 MB), one reader connected",
                    lambda: transport.publish_neural_activity_direct(ids, potentials),
                    MEMCPY,
                    "<= 1.1x",
                    lambda: copy(data),
                    1.1,
                )
            ],
            quick=quick,
        )
        activity = end.receive(_ANSWER_S)
        assert activity is not None
        copied = activity.neuron_ids.flags.owndata or activity.potentials.flags.owndata
        rows.append(
            Row(
                "SHM, direct mode, bytes copied by the reader",
                None,
                f"{end.ring.copied} frames copied, arrays are views: {not copied}",
                None,
                None,
                "0 bytes",
                not copied and end.ring.copied == 0,
            )
        )
        del activity
    return rows


def run(quick: bool = False, soak: bool = False) -> list[Row]:
    """All rows of the shared-memory benchmark; `quick` takes fewer and shorter samples, `soak`
    adds 30 seconds of bursts from a PNS to an agent's process, in each paradigm.

    One row that says why where there is no shared memory.
    """
    reason = why_unavailable()
    if reason is not None:
        return [Row("SHM", None, reason, None, None, "-", None)]
    rows = []
    for neurons, max_ratio in _SIZES:
        rows += _fbc_rows(neurons, max_ratio, quick=quick)
    rows += _direct_row(quick=quick)
    if soak:
        rows += [shm_soak.soak(paradigm=paradigm) for paradigm in ("blocking", "nonblocking")]
    return rows
