# SPDX-License-Identifier: Apache-2.0
"""ZMQ benchmark: from the brain's emit to an agent over TCP, against pyzmq with nothing around it.

The far end is the same on both sides: a subscriber whose thread hands what it has heard to the
one who waits for it, as an agent's does, and whose ZMQ context is its own, as in a process of its
own. What differs is what lies before: brain, PNS, transport; or one socket. With FeagiAgent and
AsyncFeagiAgent the far end is ours too. The way back is in `zmq_sensory`.
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any, Final, TypeVar

import zmq
import zmq.asyncio

from feagi_io_host.agent.async_feagi_agent import AsyncFeagiAgent
from feagi_io_host.agent.feagi_agent import FeagiAgent
from feagi_io_host.bench import zmq_sensory
from feagi_io_host.bench.lines import DEADLINE_S, PATIENT, Brain, descriptor, encode, frame
from feagi_io_host.bench.runner import Case, Row, measure
from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.events import MotorCommand, VisualizationReady
from feagi_io_host.core.messages import (
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.pns import PNS
from feagi_io_host.transports.zmq import AsyncZmqTransport, ZmqTransport

if TYPE_CHECKING:
    Context = zmq.Context[zmq.Socket[bytes]]

S = TypeVar("S", bound=zmq.SyncSocket | zmq.asyncio.Socket)

BURST: Final = 200_000  # 3.2 MB
# Neurons, what the frame is called, what a row must reach.
_SIZES: Final = ((BURST, "3.2 MB", 1.15), (4_090, "64 KB", 1.3), (61, "1 KB", 1.3))
_MOTOR: Final = AgentCapabilities.RECEIVE_MOTOR_DATA
_VIEW: Final = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
_FRAMES: Final = 16  # the high-water mark of every socket here, as of our motor sockets
# Above it pyzmq's users are told not to copy; it copies up to here itself, whatever it is told.
_COPY_LIMIT_BYTES: Final = 64 << 10
_LOOK_AROUND_MS: Final = 100
_EXCHANGES: Final = 8  # in one run of an event loop, whose start and end do not show then


class _Ear:
    """A subscriber at `url` with a thread of its own; a context manager."""

    def __init__(self, url: str) -> None:
        self._context: Context = zmq.Context()
        self._socket = _subscriber(self._context, url)
        self._heard: BoundedChannel[zmq.Frame] = BoundedChannel()
        self._worker = Worker("feagi-io-bench-ear", self._run)
        self._worker.start()

    def hear(self) -> int:
        """Wait for the next message: its bytes. TimeoutError without one."""
        message = self._heard.get(DEADLINE_S)
        if message is None:
            raise TimeoutError(f"nothing heard within {DEADLINE_S} s")
        return len(message)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            if self._socket.poll(_LOOK_AROUND_MS):
                self._heard.put(self._socket.recv(copy=False))

    def close(self) -> None:
        """End the thread and close the socket."""
        self._worker.stop(DEADLINE_S)
        self._heard.close()
        self._context.destroy(linger=0)


class _Bare:
    """One publishing socket and its ear."""

    def __init__(self, stack: ExitStack) -> None:
        context: Context = zmq.Context()
        stack.callback(context.destroy, linger=0)
        self._socket = _set_up(context.socket(zmq.XPUB))
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._sent: deque[zmq.MessageTracker] = deque()
        self.ear = _Ear(f"tcp://127.0.0.1:{port}")
        stack.callback(self.ear.close)
        if not self._socket.poll(int(DEADLINE_S * 1000)):
            raise TimeoutError(f"no subscription within {DEADLINE_S} s")
        self._socket.recv()

    def send(self, fbc: SharedFBC) -> None:
        """One message, as pyzmq is used at its best."""
        while self._sent and self._sent[0].done:
            self._sent.popleft()
        if len(fbc) <= _COPY_LIMIT_BYTES:
            self._socket.send(fbc.view)
        else:
            self._sent.append(self._socket.send(fbc.view, copy=False, track=True))


class _Served:
    """A brain, its PNS, our transport, and an agent: an ear for each of its streams."""

    def __init__(self, stack: ExitStack) -> None:
        self.brain = Brain()
        pns = stack.enter_context(PNS(delivery=PATIENT))
        pns.connect_to_burst_engine(self.brain)
        transport = stack.enter_context(ZmqTransport(pns, control_port=0, silence_timeout_s=3600.0))
        self.agent_id, urls = _register(transport.control_url, _MOTOR | _VIEW)
        self.motor, self.shown = _Ear(urls[_MOTOR]), _Ear(urls[_VIEW])
        stack.callback(self.motor.close)
        stack.callback(self.shown.close)
        if not transport.wait_until_subscribed(self.agent_id, DEADLINE_S):
            raise TimeoutError(f"no subscription within {DEADLINE_S} s")

    def show(self, fbc: SharedFBC) -> None:
        """The brain emits a visualization."""
        self.brain.visualization_ready.emit(VisualizationReady(fbc, 0))

    def move(self, fbc: SharedFBC) -> None:
        """The brain emits a motor command."""
        self.brain.motor_commands.emit(MotorCommand(self.agent_id, fbc))


class _ServedAgent:
    """The same with a FeagiAgent."""

    def __init__(self, stack: ExitStack) -> None:
        self.brain = Brain()
        pns = stack.enter_context(PNS(delivery=PATIENT))
        pns.connect_to_burst_engine(self.brain)
        transport = stack.enter_context(ZmqTransport(pns, control_port=0))
        self.agent = FeagiAgent(descriptor(), _VIEW, transport.control_url)
        stack.enter_context(self.agent)
        if not transport.wait_until_subscribed(transport.agents[0].agent_id, DEADLINE_S):
            raise TimeoutError(f"no subscription within {DEADLINE_S} s")

    def show(self, fbc: SharedFBC) -> None:
        """The brain emits a visualization, and the agent has it."""
        self.brain.visualization_ready.emit(VisualizationReady(fbc, 0))
        if self.agent.receive_visualization(DEADLINE_S) is None:
            raise TimeoutError(f"nothing received within {DEADLINE_S} s")


# -- threads --------------------------------------------------------------------------------------


def _thread_rows(quick: bool) -> list[Row]:
    rows = []
    with ExitStack() as stack:
        served, agent, bare = _Served(stack), _ServedAgent(stack), _Bare(stack)
        for neurons, size, limit in _SIZES:
            with frame(neurons) as fbc:

                def receive(fbc: SharedFBC = fbc) -> None:
                    agent.show(fbc)

                def show(fbc: SharedFBC = fbc) -> None:
                    served.show(fbc)
                    served.shown.hear()

                def move(fbc: SharedFBC = fbc) -> None:
                    served.move(fbc)
                    served.motor.hear()

                def reference(fbc: SharedFBC = fbc) -> None:
                    bare.send(fbc)
                    bare.ear.hear()

                cases = [
                    Case(
                        f"{what}, {size}",
                        ours,
                        "pyzmq",
                        f"<= {limit:g}x",
                        reference,
                        limit,
                    )
                    for what, ours in (
                        ("visualization, emit to an agent's thread", show),
                        ("motor, emit to an agent's thread", move),
                        ("visualization, emit to FeagiAgent", receive),
                    )
                ]
                rows += measure(cases, quick=quick)
    return rows


def _latency_row(quick: bool) -> Row:
    """Burst after burst, each encoded anew: from the emit until the agent has it in its hands."""
    bursts = 30 if quick else 300
    pool = BufferPool()
    ours_s: list[float] = []
    theirs_s: list[float] = []
    with ExitStack() as stack:
        served, bare = _Served(stack), _Bare(stack)
        ways: list[tuple[Callable[[SharedFBC], None], _Ear, list[float]]] = [
            (served.show, served.shown, ours_s),
            (bare.send, bare.ear, theirs_s),
        ]
        for burst in range(bursts + 3):
            for emit, ear, times_s in ways if burst % 2 else reversed(ways):
                container = pool.acquire()
                encode(container, BURST, burst)
                with pool.share(container) as fbc:
                    began_s = time.perf_counter()
                    emit(fbc)
                    ear.hear()
                    times_s.append(time.perf_counter() - began_s)
        del ours_s[:3], theirs_s[:3]  # memory is touched for the first time
    return Row(
        "200K neurons, emit to agent, each burst a new one",
        statistics.median(ours_s),
        "pyzmq",
        statistics.median(theirs_s),
        statistics.median(a / b for a, b in zip(ours_s, theirs_s, strict=True)),
        "-",
        None,
        f"{_percentiles(ours_s)}; pyzmq {_percentiles(theirs_s)}; {bursts} bursts",
    )


def _percentiles(times_s: list[float]) -> str:
    ordered = sorted(times_s)
    p99 = ordered[min(int(0.99 * len(ordered)), len(ordered) - 1)]
    return f"p50 {1e3 * statistics.median(ordered):.2f} ms, p99 {1e3 * p99:.2f} ms"


# -- event loops ----------------------------------------------------------------------------------


def _loop_rows(quick: bool) -> list[Row]:
    rows = []
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            ours, theirs = runner.run(_served_in_loop(stack)), runner.run(_bare_in_loop(stack))
            agent = runner.run(_agent_in_loop(stack))
            for neurons, size, limit in _SIZES:
                with frame(neurons) as fbc:
                    reference = _exchanges(runner, theirs, fbc)
                    cases = [
                        Case(
                            f"asyncio, publish to {what}, {size}",
                            _exchanges(runner, exchange, fbc),
                            "zmq.asyncio",
                            f"<= {limit:g}x",
                            reference,
                            limit,
                            items=_EXCHANGES,
                        )
                        for what, exchange in (("agent", ours), ("AsyncFeagiAgent", agent))
                    ]
                    rows += measure(cases, quick=quick)
        finally:
            runner.run(stack.aclose())
    return rows


_Exchange = Callable[[SharedFBC], Coroutine[Any, Any, None]]


def _exchanges(runner: asyncio.Runner, exchange: _Exchange, fbc: SharedFBC) -> Callable[[], None]:
    async def several() -> None:
        for _ in range(_EXCHANGES):
            await asyncio.wait_for(exchange(fbc), DEADLINE_S)

    return lambda: runner.run(several())


async def _served_in_loop(stack: AsyncExitStack) -> _Exchange:
    pns = stack.enter_context(PNS(delivery=PATIENT))
    transport = await stack.enter_async_context(
        AsyncZmqTransport(pns, control_port=0, silence_timeout_s=3600.0)
    )
    agent_id, urls = await asyncio.to_thread(_register, transport.control_url, _VIEW)
    ear = _loop_subscriber(stack, urls[_VIEW])
    if not await transport.wait_until_subscribed(agent_id, DEADLINE_S):
        raise TimeoutError(f"no subscription within {DEADLINE_S} s")

    async def exchange(fbc: SharedFBC) -> None:
        await transport.publish_visualization(fbc)
        await ear.recv(copy=False)

    return exchange


async def _agent_in_loop(stack: AsyncExitStack) -> _Exchange:
    pns = stack.enter_context(PNS(delivery=PATIENT))
    transport = await stack.enter_async_context(AsyncZmqTransport(pns, control_port=0))
    agent = await stack.enter_async_context(
        AsyncFeagiAgent(descriptor(), _VIEW, transport.control_url)
    )
    if not await transport.wait_until_subscribed(agent.agent_id, DEADLINE_S):
        raise TimeoutError(f"no subscription within {DEADLINE_S} s")

    async def exchange(fbc: SharedFBC) -> None:
        await transport.publish_visualization(fbc)
        await agent.receive_visualization()

    return exchange


async def _bare_in_loop(stack: AsyncExitStack) -> _Exchange:
    context = zmq.asyncio.Context()
    stack.callback(context.destroy, linger=0)
    socket = _set_up(context.socket(zmq.XPUB))
    socket.setsockopt(zmq.XPUB_NODROP, 1)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    ear = _loop_subscriber(stack, f"tcp://127.0.0.1:{port}")
    await asyncio.wait_for(socket.recv(), DEADLINE_S)
    sent: deque[zmq.MessageTracker] = deque()

    async def exchange(fbc: SharedFBC) -> None:
        while sent and sent[0].done:
            sent.popleft()
        if len(fbc) <= _COPY_LIMIT_BYTES:
            await socket.send(fbc.view)
        else:
            tracker = await socket.send(fbc.view, copy=False, track=True)
            assert tracker is not None
            sent.append(tracker)
        await ear.recv(copy=False)

    return exchange


def _loop_subscriber(stack: AsyncExitStack, url: str) -> zmq.asyncio.Socket:
    context = zmq.asyncio.Context()
    stack.callback(context.destroy, linger=0)
    socket = _set_up(context.socket(zmq.SUB))
    socket.subscribe(b"")
    socket.connect(url)
    return socket


# -- sockets --------------------------------------------------------------------------------------


def _set_up(socket: S) -> S:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, _FRAMES)
    socket.setsockopt(zmq.RCVHWM, _FRAMES)
    return socket


def _subscriber(context: Context, url: str) -> zmq.Socket[bytes]:
    socket = _set_up(context.socket(zmq.SUB))
    socket.subscribe(b"")
    socket.connect(url)
    return socket


def _register(url: str, capabilities: AgentCapabilities) -> tuple[bytes, dict[Any, str]]:
    """Let an agent in at `url`: its id, and by capability where its streams are."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as control:
        control.setsockopt(zmq.LINGER, 0)
        control.setsockopt(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        control.connect(url)
        control.send_multipart(
            [b"", encode_control(RegistrationRequest(descriptor(), capabilities))]
        )
        agent_id, answer = decode_control(control.recv_multipart()[1])
        assert isinstance(answer, RegistrationSuccess), answer
        return agent_id, {what: end.url for what, end in answer.endpoints.items()}


def run(quick: bool = False) -> list[Row]:
    """All rows of the ZMQ benchmark; `quick` takes fewer and shorter samples."""
    return [
        *_thread_rows(quick),
        *zmq_sensory.rows(_SIZES, quick),
        _latency_row(quick),
        *_loop_rows(quick),
    ]
