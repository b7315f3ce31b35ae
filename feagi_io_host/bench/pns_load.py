# SPDX-License-Identifier: Apache-2.0
"""Rows of the PNS benchmark that count instead of timing: saturation, memory, allocation.

The figures of saturation are those of the PNS's own telemetry.
"""

from __future__ import annotations

import threading
import time
import tracemalloc
from typing import Any, Final

from feagi_io_host.bench.lines import (
    BURST,
    DEADLINE_S,
    SMALL,
    PnsLine,
    VirtualLine,
    ZmqLine,
    crowd,
    encode,
    frame,
)
from feagi_io_host.bench.runner import Row
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import DeliveryTimeoutError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.pns import PNS

_CAPACITY: Final = 64
_SLOW_S: Final = 5e-4  # what a slow agent takes for a frame
_MOTOR_DEADLINE_S: Final = 0.1
_KEPT_BYTES: Final = 2560  # a frame's objects beside its own bytes


def _figure(name: str, limit: str, met: bool | None, note: str) -> Row:
    """A row whose figures are no times."""
    return Row(name, None, "-", None, None, limit, met, note)


# -- queue saturation -----------------------------------------------------------------------------


def newest_wins_rows(quick: bool) -> list[Row]:
    """Sensory and visualization with two frames in for each one out, exactly."""
    rounds = 500 if quick else 5000
    pns = PNS(delivery=delivery_table(capacity={StreamType.SENSORY: _CAPACITY}))
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    def think(data: SensoryData) -> None:
        """A brain that takes a frame only when it is told to."""
        go.acquire()
        done.release()

    pns.sensory_data_received.connect(think)
    every = AgentCapabilities.SEND_SENSOR_DATA | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
    with pns, crowd(pns, 1, every) as transport, frame(SMALL) as fbc:
        (agent,) = transport.agents

        def sense() -> None:
            agent.submit_sensory(fbc)
            agent.submit_sensory(fbc)
            go.release()
            if not done.acquire(timeout=DEADLINE_S):
                raise TimeoutError(f"no sensory frame within {DEADLINE_S} s")

        def show() -> None:
            pns.publish_visualization(fbc)
            pns.publish_visualization(fbc)
            _take(agent)

        rows = []
        for name, turn, reason in (
            ("sensory", sense, "full"),
            ("visualization", show, "conflated"),
        ):
            for _ in range(rounds):
                turn()
            rows.append(_overload_row(name, pns, 2 * rounds, reason))
        go.release(2 * rounds)  # for the frames left, so that the PNS can stop
        return rows


def _overload_row(name: str, pns: PNS, sent: int, reason: str) -> Row:
    state = pns.telemetry()["totals"][name]
    dropped = state["dropped"]
    return _figure(
        f"{name} at twice what is taken",
        f"dropped for {reason!r} alone",
        state["sent"] == sent and set(dropped) == {reason},
        f"{state['sent']} sent, {dropped.get(reason, 0)} dropped, sender never waited, highest "
        f"share {state['saturation']:.0%} of the channel",
    )


def _take(agent: AttachedAgent) -> None:
    taken = agent.visualization.get(DEADLINE_S)
    if taken is None:
        raise TimeoutError(f"no visualization within {DEADLINE_S} s")
    taken.release()


def motor_rows(quick: bool) -> list[Row]:
    """A sender without pauses against an agent that needs its time, then one that has stopped."""
    frames = 200 if quick else 1000
    table = delivery_table(
        capacity={StreamType.MOTOR: _CAPACITY}, deadline_s={StreamType.MOTOR: _MOTOR_DEADLINE_S}
    )
    with (
        PNS(delivery=table) as pns,
        crowd(pns, 1, AgentCapabilities.RECEIVE_MOTOR_DATA) as transport,
        frame(SMALL) as fbc,
    ):
        (agent,) = transport.agents
        slow = threading.Thread(
            target=_take_slowly, args=(agent, frames), name="feagi-io-bench-take", daemon=True
        )
        slow.start()
        held = [_held_s(pns, agent, fbc) for _ in range(frames)]
        slow.join(DEADLINE_S + 20 * frames * _SLOW_S)
        state = pns.telemetry()["totals"]["motor"]
        errors = sum(not taken for taken, _ in held)
        overload = _figure(
            "motor at more than is taken",
            "none lost, no error",
            not errors and not state["dropped"],
            f"{state['sent']} sent, {sum(state['dropped'].values())} dropped, {errors} errors, "
            f"sender held up {max(s for _, s in held) * 1e3:.1f} ms at most, highest share "
            f"{state['saturation']:.0%} of the channel",
        )
        return [overload, _stopped_row(pns, agent, fbc)]


def _stopped_row(pns: PNS, agent: AttachedAgent, fbc: SharedFBC) -> Row:
    taken = True
    while taken:
        taken, first_s = _held_s(pns, agent, fbc)
    _, next_s = _held_s(pns, agent, fbc)
    return _figure(
        "motor, the agent has stopped reading",
        f"an error after {_MOTOR_DEADLINE_S * 1e3:.0f} to {_MOTOR_DEADLINE_S * 1.5e3:.0f} ms",
        _MOTOR_DEADLINE_S * 0.99 <= first_s <= 1.5 * _MOTOR_DEADLINE_S,
        f"error after {first_s * 1e3:.0f} ms, the next one after {next_s * 1e3:.2f} ms",
    )


def _take_slowly(agent: AttachedAgent, frames: int) -> None:
    for _ in range(frames):
        taken = agent.motor.get(DEADLINE_S)
        if taken is not None:
            taken.release()
        time.sleep(_SLOW_S)


def _held_s(pns: PNS, agent: AttachedAgent, fbc: SharedFBC) -> tuple[bool, float]:
    """Whether a motor frame was taken, and how long the sender was held up."""
    start = time.perf_counter()
    try:
        pns.publish_motor(agent.agent_id, fbc)
    except DeliveryTimeoutError:
        return False, time.perf_counter() - start
    return True, time.perf_counter() - start


# -- memory per frame -----------------------------------------------------------------------------


def memory_rows(quick: bool) -> list[Row]:
    """What a frame takes while it waits for its agents."""
    frames = 100 if quick else 500
    with frame(SMALL) as fbc:
        payload = len(fbc)
    one, sixteen = _held_bytes(1, frames), _held_bytes(16, frames)
    each = (sixteen - one) / 15
    return [
        _figure(
            "memory of a queued frame of 1 KB",
            f"<= {_KEPT_BYTES} B beside its bytes",
            one - payload <= _KEPT_BYTES,
            f"{one - payload:,.0f} B beside its {payload} B",
        ),
        _figure(
            "memory of a queued frame for each further subscriber", "<= 64 B", each <= 64,
            f"{each:.0f} B",
        ),
    ]  # fmt: skip


def _held_bytes(subscribers: int, frames: int) -> float:
    """What one queued frame of SMALL neurons takes, its own bytes included."""
    pool = BufferPool()
    pns = PNS()
    with pns, crowd(pns, subscribers, AgentCapabilities.RECEIVE_MOTOR_DATA):
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for counter in range(frames):
                container = pool.acquire()
                encode(container, SMALL, counter)
                with pool.share(container) as fbc:
                    pns.publish_motor(None, fbc)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    return (after - before) / frames


# -- allocation -----------------------------------------------------------------------------------


def allocation_figures(line: PnsLine, neurons: int, bursts: int) -> dict[str, Any]:
    """What `bursts` bursts through a PNS allocate once the pool is warm, both streams of each
    received before the next.

    `payload` is the size of a frame, `made` how many buffers the pool made after the warm-up,
    `peak` by how many bytes the traced memory rose at most, `pool` the pool's counters.
    """
    pool = BufferPool()

    def burst(counter: int) -> int:
        container = pool.acquire()
        encode(container, neurons, counter)
        with pool.share(container) as fbc:
            line.send(fbc)
            line.show(fbc)
            size = len(fbc)
        assert line.receive() == line.see() == size
        return size

    # As many buffers as can be under way at once: a sender gives one back when it looks at its
    # next, so each stream may still hold the one before.
    for container in [pool.acquire() for _ in range(6)]:
        encode(container, neurons)
        pool.discard(container)
    payload = burst(0)
    tracemalloc.start()
    try:
        burst(1)
        warm = pool.counters()["created"]
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for counter in range(bursts):
            burst(counter)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counters = pool.counters()
    made = counters["created"] - warm
    return {"payload": payload, "made": made, "peak": peak - before, "pool": counters}


def allocation_rows(quick: bool) -> list[Row]:
    """No payload is allocated by a burst of 200,000 neurons."""
    bursts = 5 if quick else 50
    rows = []
    for name, make in (("virtual", VirtualLine), ("ZMQ", ZmqLine)):
        with make() as line:
            figures = allocation_figures(line, BURST, bursts)
        # Objects of some hundred bytes come and go; one payload is 3.2 MB.
        rows.append(
            _figure(
                f"payloads allocated by a burst after warm-up, {name}",
                "0",
                figures["made"] == 0 and figures["peak"] < figures["payload"] // 10,
                f"{figures['made']} buffers made in {bursts} bursts, peak {figures['peak']:,} B of "
                "objects",
            )
        )
    return rows
