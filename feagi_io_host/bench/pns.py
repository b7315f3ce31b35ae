# SPDX-License-Identifier: Apache-2.0
"""PNS benchmark: what lies between a brain and its agents, and what it costs.

The specification's five: latency from the engine to the PNS, queue saturation, MB/s, memory per
frame, cost of sharing; and that a burst allocates nothing. The burst is 200,000 neurons: 3.2 MB.
"""

from __future__ import annotations

import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np

from feagi_io_host.bench.lines import (
    BURST,
    DEADLINE_S,
    MEDIUM,
    SMALL,
    Line,
    QueueLine,
    SocketLine,
    VirtualLine,
    ZmqLine,
    crowd,
    frame,
)
from feagi_io_host.bench.pns_load import (
    allocation_rows,
    memory_rows,
    motor_rows,
    newest_wins_rows,
)
from feagi_io_host.bench.runner import Case, Row, measure
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.pns import PNS

# -- latency from the engine ----------------------------------------------------------------------


def _emit_rows(quick: bool) -> list[Row]:
    """From the engine's emit until the frame is in the agent's channel."""
    with VirtualLine() as line, frame(BURST) as fbc:

        def motor() -> None:
            line.send(fbc)
            line.receive()

        limit = "<= 50 us"
        cases = [
            Case(
                "emit to channel, visualization",
                lambda: line.show(fbc),
                "-",
                limit,
                max_s=5e-5,
            ),
            Case("emit to channel and out of it, motor", motor, "-", limit, max_s=5e-5),
        ]
        return measure(cases, quick=quick)


class _BareSender:
    """A thread that sends what comes out of a queue, and notes how long that took."""

    def __init__(self, line: SocketLine) -> None:
        self.times_s: list[float] = []
        self._line = line
        self._frames: queue.SimpleQueue[tuple[SharedFBC, float] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="feagi-io-bench-send", daemon=True)
        self._thread.start()

    def send(self, fbc: SharedFBC) -> None:
        """For the thread to send."""
        self._frames.put((fbc, time.monotonic()))

    def close(self) -> None:
        """End the thread."""
        self._frames.put(None)
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        while (entry := self._frames.get()) is not None:
            fbc, emitted_at_s = entry
            self._line.send(fbc)
            self.times_s.append(time.monotonic() - emitted_at_s)


def _emit_to_wire_row(quick: bool) -> Row:
    """From the engine's emit until ZMQ has the frame: telemetry's own figure."""
    bursts = 20 if quick else 200
    with ExitStack() as stack:
        line = stack.enter_context(ZmqLine())
        bare = stack.enter_context(SocketLine())
        sender = _BareSender(bare)
        stack.callback(sender.close)
        fbc = stack.enter_context(frame(BURST))
        for _ in range(bursts):
            fbc.emitted_at_s = None
            line.show(fbc)
            line.see()
            sender.send(fbc)
            bare.receive()
        wire = line.session.time_to_wire[StreamType.VISUALIZATION].snapshot()
        bare_s = statistics.median(sender.times_s)
    ours_s = wire["p50_ms"] / 1e3
    ratio = ours_s / bare_s
    return Row(
        "emit to wire, 200K neurons, ZMQ",
        ours_s,
        "bare thread and socket",
        bare_s,
        ratio,
        "<= 2x",
        wire["count"] == bursts and ratio <= 2.0,
        f"p99 {wire['p99_ms']:.2f} ms in {bursts} bursts",
    )


# -- MB/s -----------------------------------------------------------------------------------------


@contextmanager
def _pump(line: Line, fbc: SharedFBC, frames: int) -> Iterator[Callable[[], None]]:
    """A receiving thread; yields a call that sends `frames` and returns when all have arrived."""
    ready = threading.Semaphore(0)
    arrived = threading.Semaphore(0)
    faults: list[Exception] = []
    ending = threading.Event()

    def receive() -> None:
        while ready.acquire() and not ending.is_set():
            try:
                for _ in range(frames):
                    line.receive()
            except Exception as error:
                faults.append(error)
            arrived.release()

    def send() -> None:
        ready.release()
        for _ in range(frames):
            line.send(fbc)
        if not arrived.acquire(timeout=2 * DEADLINE_S) or faults:
            raise TimeoutError(f"{frames} frames did not arrive: {faults}")

    thread = threading.Thread(target=receive, name="feagi-io-bench-receive", daemon=True)
    thread.start()
    try:
        yield send
    finally:
        ending.set()
        ready.release()
        thread.join(DEADLINE_S)


def _throughput_rows(quick: bool) -> list[Row]:
    rows = []
    pairs: list[tuple[str, type[Line], str, type[Line]]] = [
        ("virtual", VirtualLine, "queue.SimpleQueue", QueueLine),
        ("ZMQ", ZmqLine, "bare pyzmq", SocketLine),
    ]
    for transport, make_ours, reference, make_theirs in pairs:
        for neurons, frames in ((SMALL, 200), (MEDIUM, 100), (BURST, 8)):
            # Small frames are a matter of the steps each takes; the latency of those is measured
            # by the benchmark of the transport.
            max_ratio = 1.15 if neurons == BURST and transport == "ZMQ" else None
            with ExitStack() as stack:
                ours, theirs = stack.enter_context(make_ours()), stack.enter_context(make_theirs())
                fbc = stack.enter_context(frame(neurons))
                size = len(fbc)
                case = Case(
                    f"a frame of {_size(size)} to an agent, {transport}",
                    stack.enter_context(_pump(ours, fbc, frames)),
                    reference,
                    "-" if max_ratio is None else f"<= {max_ratio:g}x",
                    stack.enter_context(_pump(theirs, fbc, frames)),
                    max_ratio,
                    items=frames,
                )
                copied = transport != "virtual"
                rows += [_with_rates(row, size, copied) for row in measure([case], quick=quick)]
    return rows


def _with_rates(row: Row, size: int, copied: bool) -> Row:
    if not copied:
        return replace(row, note="a reference is handed over, no byte moves")
    assert row.ours_s is not None
    assert row.reference_s is not None
    ours, theirs = size / row.ours_s / 1e6, size / row.reference_s / 1e6
    return replace(row, note=f"{ours:,.0f} MB/s, reference {theirs:,.0f} MB/s")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size > 1e6 else f"{size / 1024:.0f} KB"


# -- cost of sharing ------------------------------------------------------------------------------


def _sharing_rows(quick: bool) -> list[Row]:
    with frame(BURST) as fbc:
        references: list[SharedFBC] = []

        def lease() -> None:
            fbc.retain()
            fbc.release()

        def reference() -> None:
            references.append(fbc)
            references.pop()

        cases = [Case("lease and give back", lease, "bare reference", "<= 10x", reference, 10)]
        with ExitStack() as stack:
            for subscribers in (1, 4, 16):
                cases.append(_fan_out_case(stack, fbc, subscribers))
            return measure(cases, quick=quick)


def _fan_out_case(stack: ExitStack, fbc: SharedFBC, subscribers: int) -> Case:
    pns = PNS()
    stack.callback(pns.stop)
    transport = stack.enter_context(
        crowd(pns, subscribers, AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS)
    )
    agents = transport.agents

    def share() -> None:
        pns.publish_visualization(fbc)
        for agent in agents:
            taken = agent.visualization.get(0.0)
            assert taken is not None
            taken.release()

    # Memory that is there already: a copy into new memory would cost more than twice as much.
    copies = [np.zeros(len(fbc), np.uint8) for _ in range(subscribers)]
    source = np.frombuffer(fbc.view, np.uint8)

    def copy() -> None:
        for target in copies:
            np.copyto(target, source)

    plural = "s" * (subscribers > 1)
    return Case(
        f"a burst to {subscribers} subscriber{plural}, in and out",
        share,
        "a copy each",
        "<= 0.1x",
        copy,
        0.1,
    )


def run(quick: bool = False) -> list[Row]:
    """All rows of the PNS benchmark; `quick` takes fewer and shorter samples."""
    return [
        *allocation_rows(quick),
        *_emit_rows(quick),
        _emit_to_wire_row(quick),
        *newest_wins_rows(quick),
        *motor_rows(quick),
        *_throughput_rows(quick),
        *memory_rows(quick),
        *_sharing_rows(quick),
    ]
