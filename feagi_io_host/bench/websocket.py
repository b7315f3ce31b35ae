# SPDX-License-Identifier: Apache-2.0
"""WebSocket benchmark: a PNS to its agents and back over ws://, against the library alone.

The peer is `websockets` at both ends of one connection, without compression and without pings. Two
groups of rows:

    loop      everything in one event loop: what an exchange costs, nothing waits for a thread
    threads   a brain in its thread, server and client each in the loop of another, as in use

Exchanges of ours and of the peer take turns, and a row's ratio is the median over the pairs; its
note has what each took, at the median and at the slow end.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve

from feagi_io_host.agent.async_feagi_agent import AsyncFeagiAgent
from feagi_io_host.agent.feagi_agent import FeagiAgent
from feagi_io_host.bench.exchanges import Exchange, Pair, compared, take_turns
from feagi_io_host.bench.lines import DEADLINE_S, PATIENT, Brain, descriptor, frame
from feagi_io_host.bench.runner import Row
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.events import SensoryData, VisualizationReady
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.nonblocking.runtime import LoopThread
from feagi_io_host.pns import PNS
from feagi_io_host.transports.websocket import WebSocketTransport

# Neurons, what the frame is called, what the ratio must reach, exchanges.
_SIZES: Final = (
    (200_000, "3.2 MB", 1.15, 200),
    (4_090, "64 KB", None, 600),
    (61, "1 KB", None, 1000),
)
_QUICK: Final = 12
_WARM_UP: Final = 5
_PEER: Final = "websockets"
_VIEW: Final = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
_SENSE: Final = AgentCapabilities.SEND_SENSOR_DATA
_MAX_BYTES: Final = 64 << 20


def run(quick: bool = False) -> list[Row]:
    """All rows of the WebSocket benchmark; `quick` takes fewer exchanges."""
    with asyncio.Runner() as runner:
        rows = runner.run(_loop_rows(quick))
    return rows + _thread_rows(quick)


# -- one loop -------------------------------------------------------------------------------------


async def _loop_rows(quick: bool) -> list[Row]:
    async with AsyncExitStack() as stack:
        down, up = await _bare(stack)
        felt: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def feel(event: SensoryData) -> None:
            # The PNS tells its listeners in a thread of its own.
            loop.call_soon_threadsafe(felt.put_nowait, len(event.fbc))

        pns = stack.enter_context(PNS(delivery=PATIENT))
        pns.sensory_data_received.connect(feel)
        transport = await stack.enter_async_context(WebSocketTransport(pns, port=0))
        client = await _registered(stack, transport.control_url)
        agent = await stack.enter_async_context(
            AsyncFeagiAgent(descriptor(1), _VIEW | _SENSE, transport.control_url)
        )
        served, mine = transport.agents
        for session in (served, mine):
            await transport.wait_until_subscribed(session.agent_id, DEADLINE_S)

        async def to_client(fbc: SharedFBC) -> None:
            served.show(fbc)
            await client.recv()

        async def to_agent(fbc: SharedFBC) -> None:
            mine.show(fbc)
            await agent.receive_visualization()

        async def to_pns(fbc: SharedFBC) -> None:
            await agent.send_sensory(fbc)
            await felt.get()

        pairs = [
            Pair("loop, PNS to a client of the library", to_client, down, judged=True),
            Pair("loop, PNS to AsyncFeagiAgent", to_agent, down, judged=True),
            Pair("loop, AsyncFeagiAgent to a PNS listener", to_pns, up, judged=False),
        ]
        rows = []
        for neurons, size, limit, exchanges in _SIZES:
            with frame(neurons) as fbc:
                for pair in pairs:
                    count = _QUICK if quick else exchanges
                    times = await take_turns(pair, fbc, count, _WARM_UP)
                    judged = limit if pair.judged else None
                    rows.append(compared(f"{pair.name}, {size}", times, _PEER, judged))
        return rows


async def _bare(stack: AsyncExitStack) -> tuple[Exchange, Exchange]:
    """Both directions of one connection."""
    server, accepted = await _listen()
    stack.push_async_callback(_shut, server)
    client = await stack.enter_async_context(_dial(_url(server)))
    served = await accepted.get()

    async def down(fbc: SharedFBC) -> None:
        await served.send(fbc.view)
        await client.recv()

    async def up(fbc: SharedFBC) -> None:
        await client.send(fbc.view)
        await served.recv()

    return down, up


async def _registered(stack: AsyncExitStack, url: str) -> ClientConnection:
    """A viewer made of bare connections: its visualization stream."""
    control = await stack.enter_async_context(_dial(url))
    request = RegistrationRequest(descriptor(), _VIEW, ConnectionProtocol.WEBSOCKET)
    await control.send(encode_control(request))
    answer = await control.recv()
    assert isinstance(answer, bytes)
    success = decode_control(answer)[1]
    assert isinstance(success, RegistrationSuccess), success
    return await stack.enter_async_context(_dial(success.endpoints[_VIEW].url))


def _dial(url: str) -> connect:
    return connect(
        url, compression=None, max_size=_MAX_BYTES, ping_interval=None, close_timeout=1, proxy=None
    )


async def _listen() -> tuple[Server, asyncio.Queue[ServerConnection]]:
    accepted: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def keep(connection: ServerConnection) -> None:
        accepted.put_nowait(connection)
        await connection.wait_closed()

    server = await serve(
        keep, "127.0.0.1", 0, compression=None, max_size=_MAX_BYTES, ping_interval=None
    )
    return server, accepted


def _url(server: Server) -> str:
    return f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


async def _shut(server: Server) -> None:
    server.close()
    await server.wait_closed()


# -- threads --------------------------------------------------------------------------------------


def _thread_rows(quick: bool) -> list[Row]:
    with ExitStack() as stack:
        brain = Brain()
        pns = stack.enter_context(PNS(delivery=PATIENT))
        pns.connect_to_burst_engine(brain)
        handle = pns.add_transport("websocket", paradigm="nonblocking", port=0)
        handle.start()
        url = handle.control_url
        assert url is not None
        ear = stack.enter_context(_far_ear(lambda inner: _registered(inner, url)))
        agent = stack.enter_context(FeagiAgent(descriptor(1), _VIEW, url))
        bare_send, bare_ear = stack.enter_context(_bare_in_threads())

        def emit(fbc: SharedFBC) -> None:
            brain.visualization_ready.emit(VisualizationReady(fbc, 0))
            ear.get(timeout=DEADLINE_S)
            if agent.receive_visualization(DEADLINE_S) is None:
                raise TimeoutError(f"nothing received within {DEADLINE_S} s")

        def reference(fbc: SharedFBC) -> None:
            # Two of them, as there are two who listen to the brain.
            for _ in range(2):
                bare_send(fbc)
                bare_ear.get(timeout=DEADLINE_S)

        rows = []
        for neurons, size, _, exchanges in _SIZES:
            ours: list[float] = []
            theirs: list[float] = []
            ways = [(emit, ours), (reference, theirs)]
            with frame(neurons) as fbc:
                for turn in range((_QUICK if quick else exchanges // 2) + _WARM_UP):
                    for exchange, times_s in ways if turn % 2 else reversed(ways):
                        began_s = time.perf_counter()
                        exchange(fbc)
                        times_s.append(time.perf_counter() - began_s)
            name = f"threads, brain to a client and FeagiAgent, {size}"
            rows.append(compared(name, (ours[_WARM_UP:], theirs[_WARM_UP:]), _PEER, None))
        return rows


@contextmanager
def _far_ear(
    open_stream: Callable[[AsyncExitStack], Awaitable[ClientConnection]],
) -> Iterator[queue.SimpleQueue[int]]:
    """A client of the library in a thread of its own: the sizes of what comes."""
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    thread = LoopThread("feagi-io-bench-ear")
    thread.start()
    ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    async def listen() -> None:
        async with AsyncExitStack() as stack:
            try:
                stream = await open_stream(stack)
            except BaseException as error:
                ready.put(error)
                raise
            ready.put(None)
            async for message in stream:
                heard.put(len(message))

    listening = asyncio.run_coroutine_threadsafe(listen(), thread.loop)
    try:
        error = ready.get(timeout=DEADLINE_S)
        if error is not None:
            raise error
        yield heard
    finally:
        listening.cancel()
        thread.stop(DEADLINE_S)


@contextmanager
def _bare_in_threads() -> Iterator[tuple[Callable[[SharedFBC], None], queue.SimpleQueue[int]]]:
    """A server of the library in one thread, its client in another."""
    thread = LoopThread("feagi-io-bench-server")
    thread.start()
    try:
        server, accepted = asyncio.run_coroutine_threadsafe(_listen(), thread.loop).result(
            DEADLINE_S
        )
        url = _url(server)

        async def dial(stack: AsyncExitStack) -> ClientConnection:
            return await stack.enter_async_context(_dial(url))

        with _far_ear(dial) as ear:
            served: Any = asyncio.run_coroutine_threadsafe(accepted.get(), thread.loop).result(
                DEADLINE_S
            )

            def send(fbc: SharedFBC) -> None:
                asyncio.run_coroutine_threadsafe(served.send(fbc.view), thread.loop)

            yield send, ear
        asyncio.run_coroutine_threadsafe(_shut(server), thread.loop).result(DEADLINE_S)
    finally:
        thread.stop(DEADLINE_S)
