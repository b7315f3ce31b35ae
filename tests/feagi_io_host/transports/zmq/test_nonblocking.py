# SPDX-License-Identifier: Apache-2.0
"""AsyncZmqTransport in the loop of its caller: company, slow peers, forms, ends, hand-over.

What it shares with ZmqTransport is tried in `test_blocking`, `test_carriers` and the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import numpy as np
import pytest
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    DeliveryTimeoutError,
    LocalError,
    StopTimeoutError,
)
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.nonblocking.loop_side import Arrivals, loop_channel
from feagi_io_host.testing import Residue, StandInHost
from feagi_io_host.transports.zmq import (
    AsyncZmqTransport,
    SocketOptions,
    ZmqTransport,
    async_publisher,
)
from feagi_io_host.transports.zmq.async_socket import SocketWatch
from feagi_io_host.transports.zmq.common import COPY_LIMIT_BYTES
from feagi_io_host.transports.zmq.desk import ControlDesk
from feagi_io_host.transports.zmq.nonblocking_impl import Arrival
from feagi_io_host.transports.zmq.wire_form import LZ4_TOPIC, split_topic, unpacker
from tests.feagi_io_host.transports.zmq.async_peer import AsyncZmqPeer, in_thread
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S

MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
VIEW = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
SENSE = AgentCapabilities.SEND_SENSOR_DATA
EVERYTHING = SENSE | MOTOR | VIEW
EYE = CorticalID.try_from_bytes(b"iimg\x09\0\0\0")
NARROW = SocketOptions(kernel_buffer_bytes=4096, motor_frames=2)
NARROW_BYTES = 4096
MOTOR_CAPACITY = 4


class Stage(AsyncExitStack):
    """Transports, agents and frames in the running loop; all end with the stage."""

    def __init__(self) -> None:
        super().__init__()
        self.host = StandInHost(
            delivery_table(
                capacity={StreamType.MOTOR: MOTOR_CAPACITY}, deadline_s={StreamType.MOTOR: 0.05}
            )
        )
        self.pool = BufferPool()
        self._names = itertools.count(1)

    async def start(self, host: StandInHost | None = None, **settings: Any) -> AsyncZmqTransport:
        """A transport that runs, on a free port unless told otherwise."""
        options = {"control_port": 0, **settings}
        transport = AsyncZmqTransport(host or self.host, **options)
        self.push_async_callback(transport.stop)
        await transport.start()
        return transport

    async def agent(
        self,
        transport: AsyncZmqTransport,
        capabilities: AgentCapabilities = EVERYTHING,
        kernel_buffer_bytes: int = 0,
    ) -> AsyncZmqPeer:
        """An agent that has registered and subscribed to everything."""
        descriptor = AgentDescriptor("feagi-io test", f"rover {next(self._names)}", 1)
        peer = await AsyncZmqPeer.connect(
            transport.control_url,
            descriptor,
            capabilities,
            transport.max_frame_bytes,
            kernel_buffer_bytes,
        )
        self.push_async_callback(peer.close)
        assert await transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
        return peer

    async def subscriber(
        self, transport: AsyncZmqTransport, capability: AgentCapabilities, *topics: bytes
    ) -> Callable[[], Awaitable[bytes]]:
        """Register an agent of which only one stream is subscribed to, and so; gives `receive`."""
        descriptor = AgentDescriptor("feagi-io test", f"listener {next(self._names)}", 1)
        peer = await AsyncZmqPeer.connect(
            transport.control_url, descriptor, capability, transport.max_frame_bytes
        )
        self.push_async_callback(peer.close)
        # Subscriptions of a socket that listens already arrive in order: `ask` comes after them.
        stream = peer.peer._streams[capability]
        stream.rcvtimeo = int(DEADLINE_S * 1000)
        if topics != (b"",):
            stream.unsubscribe(b"")
            for topic in topics:
                stream.subscribe(topic)
        return lambda: in_thread(stream.recv)

    def frame(self, counter: int, neurons: int = 0) -> SharedFBC:
        """A frame whose bytes compress well, with one lease."""
        container = self.pool.acquire()
        if neurons:
            for column in container.reserve_xyzp([(EYE, neurons)], counter)[EYE]:
                column[:] = np.arange(neurons) // 50 + counter
        else:
            container.overwrite_byte_data_with_multiple_struct_data([], counter)
        return self.pool.share(container)

    async def fill_motor(self, transport: AsyncZmqTransport, agent_id: bytes, neurons: int) -> int:
        """Publish numbered motor frames until one is refused; how many were taken."""
        for counter in itertools.count():
            with self.frame(counter, neurons) as fbc:
                try:
                    await transport.publish_motor(agent_id, fbc)
                except DeliveryTimeoutError:
                    return counter
        raise AssertionError


def counter_of(fbc: SharedFBC | None) -> int:
    assert fbc is not None
    with fbc:
        return fbc.container.get_increment_counter()


def play(scene: Callable[[Stage], Awaitable[None]]) -> None:
    """Run a scene in a loop of its own; every lease and every task must be gone after it."""

    async def run() -> None:
        stage = Stage()
        async with stage:
            await scene(stage)
        assert stage.pool.counters()["leased"] == 0, "frames were not given back"
        assert asyncio.all_tasks() == {asyncio.current_task()}

    try:
        asyncio.run(run())
    finally:
        collector.stop()  # the thread by which pyzmq gives large messages back; one per process


# -- company ----------------------------------------------------------------------------------


def test_two_transports_and_their_agents_share_the_callers_loop() -> None:
    async def scene(stage: Stage) -> None:
        other_host = StandInHost()
        first, second = await stage.start(), await stage.start(other_host)
        here, there = await stage.agent(first), await stage.agent(second)
        for counter in range(20):
            with stage.frame(counter) as fbc:
                await first.publish_motor(None, fbc)
                await first.publish_visualization(fbc)
                await here.send_sensory(fbc)
            with stage.frame(100 + counter) as fbc:
                await second.publish_motor(None, fbc)
            assert counter_of(await here.receive_motor(DEADLINE_S)) == counter
            assert counter_of(await here.receive_visualization(DEADLINE_S)) == counter
            assert counter_of(await there.receive_motor(DEADLINE_S)) == 100 + counter
            assert await asyncio.to_thread(stage.host.take_sensory, here.agent_id)
        assert await there.receive_visualization(0.0) is None

    play(scene)


def test_frames_of_the_loop_and_of_threads_keep_their_order() -> None:
    async def scene(stage: Stage) -> None:
        transport = await stage.start()
        peer = await stage.agent(transport)
        (session,) = stage.host.sessions

        def press(first: int) -> None:
            for counter in range(first, first + 20):
                with stage.frame(counter) as fbc:
                    while not session.press_motor(fbc):
                        pass

        for turn in range(5):
            # While the loop sends at once, while a thread sends, and right after the other.
            for counter in range(40 * turn, 40 * turn + 20):
                with stage.frame(counter) as fbc:
                    await transport.publish_motor(None, fbc)
            first = 40 * turn + 20
            await in_thread(lambda first=first: press(first))
            for counter in range(40 * turn, 40 * turn + 40):
                assert counter_of(await peer.receive_motor(DEADLINE_S)) == counter

    play(scene)


def test_one_that_does_not_read_holds_up_its_own_stream_only() -> None:
    async def scene(stage: Stage) -> None:
        transport = await stage.start(options=NARROW)
        stuck = await stage.agent(transport, kernel_buffer_bytes=NARROW_BYTES)
        reader = await stage.agent(transport)
        taken = await stage.fill_motor(transport, stuck.agent_id, 3000)
        for counter in range(5):
            with stage.frame(counter) as fbc:
                with pytest.raises(DeliveryTimeoutError, match="1 of 2"):
                    await transport.publish_motor(None, fbc)
                await transport.publish_visualization(fbc)
            assert counter_of(await reader.receive_motor(DEADLINE_S)) == counter
            for peer in (stuck, reader):
                assert counter_of(await peer.receive_visualization(DEADLINE_S)) == counter
        got = [counter_of(await stuck.receive_motor(DEADLINE_S)) for _ in range(taken)]
        assert got == list(range(taken))

    play(scene)


# -- forms ------------------------------------------------------------------------------------


def test_topics_come_before_the_frames() -> None:
    async def scene(stage: Stage) -> None:
        transport = await stage.start(topics=True)
        receive = await stage.subscriber(transport, MOTOR, b"mot")
        for counter, neurons in enumerate((0, 5000)):
            with stage.frame(counter, neurons) as fbc:
                sent = bytes(fbc.view)
                await transport.publish_motor(None, fbc)
            stream, frame = split_topic(await receive())
            assert stream is StreamType.MOTOR
            assert bytes(frame) == sent

    play(scene)


@pytest.mark.parametrize("mode", [CompressionMode.ON, CompressionMode.AUTO])
def test_only_who_declares_that_it_can_unpack_gets_packed_frames(mode: CompressionMode) -> None:
    settings = CompressionSettings(mode=mode, threshold_bytes=1000)
    unpack = unpacker(settings)
    assert unpack is not None

    async def scene(stage: Stage) -> None:
        transport = await stage.start(compression=settings)
        packed = await stage.subscriber(transport, MOTOR, b"", LZ4_TOPIC)
        (publisher,) = transport._publishers
        plain = await stage.agent(transport, MOTOR)
        async with asyncio.timeout(DEADLINE_S):
            while not publisher._subscribers.all_unpack:
                await asyncio.sleep(0)
        for counter, neurons in enumerate((0, 20_000, 20_000)):
            with stage.frame(counter, neurons) as fbc:
                sent = bytes(fbc.view)
                await transport.publish_motor(None, fbc)
            message = await packed()
            assert bytes(unpack(message)) == sent
            if mode is CompressionMode.ON:
                assert (len(message) < len(sent)) == (neurons > 0)
            received = await plain.receive_motor(DEADLINE_S)
            assert received is not None
            with received:
                assert bytes(received.view) == sent

    play(scene)


def test_packed_sensory_frames_are_taken_only_when_that_was_agreed() -> None:
    settings = CompressionSettings(mode=CompressionMode.ON, threshold_bytes=1000)

    async def scene(stage: Stage) -> None:
        from feagi_io_host.blocking.compression import FrameCompressor

        with stage.frame(1, 20_000) as fbc:
            sent = bytes(fbc.view)
        packed = bytes(FrameCompressor(settings).pack(sent))
        assert len(packed) < len(sent)
        for agreed in (settings, None):
            host = StandInHost()
            transport = await stage.start(host, compression=agreed)
            peer = await stage.agent(transport)
            await peer.send_sensory(packed)
            await peer.send_sensory(sent)
            heard = [await asyncio.to_thread(host.take_sensory, peer.agent_id)]
            if agreed is not None:
                heard.append(await asyncio.to_thread(host.take_sensory, peer.agent_id))
            assert heard == [sent] * len(heard)
            (session,) = host.sessions
            assert session.counters[StreamType.SENSORY].dropped == (0 if agreed else 1)

    play(scene)


# -- ends -------------------------------------------------------------------------------------


def test_stop_is_bounded_while_a_subscriber_does_not_read() -> None:
    async def scene(stage: Stage) -> None:
        transport = await stage.start(options=NARROW)
        stuck = await stage.agent(transport, kernel_buffer_bytes=NARROW_BYTES)
        await stage.fill_motor(transport, stuck.agent_id, 3000)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await transport.stop()
        assert loop.time() - began_s < 2.0
        assert stage.host.sessions == ()

    play(scene)


def test_what_a_stop_without_any_time_leaves_the_next_one_ends() -> None:
    async def live(timeout_s: float) -> None:
        stage = Stage()
        async with stage:
            transport = await stage.start()
            peer = await stage.agent(transport)
            with contextlib.suppress(StopTimeoutError):  # unless it was quick enough
                await transport.stop(timeout_s)
            await transport.stop()
            await peer.wait_until_cut_off()

    asyncio.run(live(5.0))
    before = Residue()
    asyncio.run(live(0.0))
    assert before.since() == []


def test_answers_that_do_not_leave_are_not_waited_for_without_end() -> None:
    async def scene(stage: Stage) -> None:
        transport = await stage.start()
        loop = asyncio.get_running_loop()
        transport._context_ended = loop.create_future()
        began_s = loop.time()
        with pytest.raises(StopTimeoutError, match="control_linger_s"):
            await transport.stop(0.2)
        assert loop.time() - began_s < 2.0
        transport._context_ended = None
        await transport.stop()

    play(scene)


def test_tasks_that_never_began_leave_nothing() -> None:
    async def scene(stage: Stage) -> None:
        transport = AsyncZmqTransport(stage.host, control_port=0)
        await transport.start()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()  # before it has begun, as when a loop ends
        await transport.stop()

    before = Residue()
    play(scene)
    assert before.since() == []


def test_a_stream_that_fails_takes_its_agent_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: Any) -> None:
        raise zmq.ZMQError(zmq.EFAULT)

    async def scene(stage: Stage) -> None:
        transport = await stage.start()
        peer = await stage.agent(transport)
        monkeypatch.setattr(async_publisher, "send_message", fail)
        with stage.frame(1) as fbc:
            await transport.publish_motor(None, fbc)
        await peer.wait_until_cut_off()
        assert stage.host.left == [(peer.agent_id, "its motor stream failed")]

    play(scene)
    assert "feagi-io-zmq-" in caplog.text


@pytest.mark.parametrize("where", ["serve_control", "look_around"])
def test_a_control_task_that_fails_lets_everybody_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def fail(desk: ControlDesk) -> bool:
        raise RuntimeError("no idea")

    async def scene(stage: Stage) -> None:
        transport = await stage.start()
        peer = await stage.agent(transport)
        monkeypatch.setattr(ControlDesk, where, fail)
        with contextlib.suppress(ClosedError):  # which is what the peer finds
            await peer.send_sensory(bytes([4]) + bytes(51))
        await peer.wait_until_cut_off()
        assert stage.host.left == [(peer.agent_id, "zmq transport stopped")]
        assert transport.agents == ()

    play(scene)
    assert "feagi-io-zmq-control ended with RuntimeError" in caplog.text


# -- streams carried by threads, seen from the loop ------------------------------------------------


@pytest.fixture
def threads() -> Iterator[ZmqTransport]:
    """A transport with threads that carries and lets nobody in."""
    with ZmqTransport(StandInHost(), control_port=None, options=NARROW) as transport:
        yield transport


def test_the_loop_goes_on_while_a_thread_waits_for_room(threads: ZmqTransport) -> None:
    async def scene(stage: Stage) -> None:
        transport = await stage.start(carriers={StreamType.MOTOR: threads})
        stuck = await stage.agent(transport, kernel_buffer_bytes=NARROW_BYTES)
        assert await in_thread(lambda: threads.wait_until_subscribed(stuck.agent_id, DEADLINE_S))
        publishing = asyncio.create_task(stage.fill_motor(transport, stuck.agent_id, 3000))
        turns = 0
        while not publishing.done():
            turns += 1
            await asyncio.sleep(0)
        taken = await publishing
        assert taken >= MOTOR_CAPACITY
        assert turns > taken
        with stage.frame(0, 3000) as fbc:
            cut_off = asyncio.create_task(transport.publish_motor(None, fbc))
            await asyncio.sleep(0)
            cut_off.cancel()
            await asyncio.wait({cut_off})
        # The thread that was left alone gives its lease back as well: `play` sees to that.
        for counter in range(taken):
            assert counter_of(await stuck.receive_motor(DEADLINE_S)) == counter
        await asyncio.get_running_loop().shutdown_default_executor()

    play(scene)


def test_a_channel_that_no_loop_drains_is_refused() -> None:
    async def scene(stage: Stage) -> None:
        carrier = await stage.start(control_port=None)
        session = stage.host.attach_agent(AgentDescriptor("a", "b", 1), MOTOR, bytes([1]) * 48)
        assert carrier.offer(session.agent_id, MOTOR) is not None
        with pytest.raises(LocalError, match="no event loop drains"):
            carrier.serve(session, StreamType.MOTOR)
        session.close()

    play(scene)


def test_what_arrives_too_late_stays_with_who_brings_it() -> None:
    taken: list[Arrival] = []
    host = StandInHost()
    session = host.attach_agent(
        AgentDescriptor("a", "b", 1), MOTOR, bytes([1]) * 48, channel=loop_channel
    )
    arrival = Arrival(session, StreamType.MOTOR, None)  # type: ignore[arg-type]

    async def bring() -> None:
        arrivals = Arrivals(asyncio.get_running_loop(), taken.append)
        assert await in_thread(lambda: arrivals.hand_over(arrival))
        await asyncio.sleep(0)
        assert taken == [arrival]
        assert arrivals.hand_over(arrival)
        assert arrivals.close() == (arrival,)
        assert not arrivals.hand_over(arrival)
        await asyncio.sleep(0)
        assert taken == [arrival]

    asyncio.run(bring())
    loop = asyncio.new_event_loop()
    loop.close()
    late = Arrivals(loop, taken.append)
    assert not late.hand_over(arrival)
    assert late.close() == ()
    session.close()


# -- loops that cannot ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error", "match"),
    [
        (NotImplementedError(), ConfigError, "SelectorEventLoop"),
        (OSError(28, "no space"), LocalError, "watches no more sockets"),
    ],
)
def test_a_loop_that_cannot_watch_sockets_is_told_of(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, error: type[Exception], match: str
) -> None:
    async def scene(stage: Stage) -> None:
        def refuse(*given: Any) -> None:
            raise fault

        transport = AsyncZmqTransport(stage.host, control_port=0)
        loop = asyncio.get_running_loop()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "add_reader", refuse)
            with pytest.raises(error, match=match):
                await transport.start()
            with pytest.raises(ClosedError):
                assert transport.control_url
        await transport.start()
        await transport.stop()

    play(scene)


def test_a_watch_looks_again_as_long_as_there_is_more() -> None:
    async def scene(stage: Stage) -> None:
        with zmq.Context() as context, context.socket(zmq.PULL) as socket:
            looks = 0
            enough = asyncio.Event()

            def look() -> bool:
                nonlocal looks
                looks += 1
                if looks == 5:
                    enough.set()
                return looks < 5

            watch = SocketWatch(socket, look)
            await asyncio.wait_for(enough.wait(), DEADLINE_S)
            watch.again()
            watch.close()
            watch.close()
            await asyncio.sleep(0)
            assert looks == 5

    play(scene)


def test_large_frames_are_given_back_without_another_frame() -> None:
    async def scene(stage: Stage) -> None:
        transport = await stage.start()
        peer = await stage.agent(transport)
        with stage.frame(1, COPY_LIMIT_BYTES // 16 + 1) as fbc:
            await transport.publish_motor(None, fbc)
        assert counter_of(await peer.receive_motor(DEADLINE_S)) == 1
        async with asyncio.timeout(DEADLINE_S):
            while stage.pool.counters()["leased"]:
                await asyncio.sleep(0.01)

    play(scene)


def test_no_thread_of_its_own_runs_while_it_serves() -> None:
    async def scene(stage: Stage) -> None:
        before = threading.active_count()
        transport = await stage.start()
        await stage.agent(transport)
        assert threading.active_count() == before

    play(scene)
