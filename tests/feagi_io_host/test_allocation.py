# SPDX-License-Identifier: Apache-2.0
"""After warm-up no burst allocates a payload, from the brain's encoding to the wire and back.

tracemalloc sees what Python and numpy allocate, the pool counts its buffers. What libzmq receives
into is its own.
"""

from __future__ import annotations

import queue
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.bench.lines import Brain
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.events import MotorCommand, SensoryData, VisualizationReady
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.pns import PNS
from feagi_io_host.transports.zmq import ZmqTransport
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ZmqPeer

NEURONS = 200_000
AREAS = [CorticalID(b"iimg\x09\x00" + bytes([index, 0])) for index in range(4)]
LAYOUT = [(area, NEURONS // len(AREAS)) for area in AREAS]
PAYLOAD_BYTES = 16 * NEURONS
BURSTS = 20
SENSORY = AgentCapabilities.SEND_SENSOR_DATA
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
SHOWN = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS


@pytest.fixture
def wire() -> Iterator[tuple[PNS, Callable[[int], ZmqPeer]]]:
    """A PNS that serves agents over ZMQ, and what makes such an agent."""
    peers: list[ZmqPeer] = []
    with PNS() as pns:
        transport = ZmqTransport(pns, control_port=0)
        transport.start()

        def agent(number: int) -> ZmqPeer:
            descriptor = AgentDescriptor("feagi-io test", f"agent {number}", 1)
            peer = ZmqPeer(
                transport.control_url,
                descriptor,
                SENSORY | MOTOR | SHOWN,
                transport.max_frame_bytes,
            )
            peers.append(peer)
            assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
            return peer

        yield pns, agent
        transport.stop()
        for peer in peers:
            peer.close()
    collector.stop()  # the thread by which pyzmq gives large messages back; one per process


def peak_bytes(burst: Callable[[int], None]) -> int:
    """By how much traced memory rose at most during BURSTS bursts that follow the first ones."""
    burst(0)
    tracemalloc.start()
    try:
        burst(1)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for counter in range(BURSTS):
            burst(counter)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def encode(pool: BufferPool, counter: int) -> SharedFBC:
    container = pool.acquire()
    for x, y, z, p in container.reserve_xyzp(LAYOUT, counter).values():
        x[:] = counter
        y[:] = 2
        z[:] = 3
        p[:] = 0.5
    return pool.share(container)


def take(peer: ZmqPeer, stream: AgentCapabilities, counter: int) -> None:
    """Receive a burst without copying it, and look at it."""
    socket = peer._streams[stream]
    assert socket.poll(int(DEADLINE_S * 1000)), "nothing came"
    with SharedFBC.from_bytes(socket.recv(copy=False).buffer) as fbc:
        voxels = fbc.container.try_create_new_struct_from_index(0)
        x, _, _, _ = voxels[AREAS[-1]].borrow_xyzp_vectors()  # type: ignore[index]
        assert int(x[-1]) == counter
        assert len(fbc) > PAYLOAD_BYTES


@pytest.mark.parametrize("subscribers", [1, 3])
def test_a_burst_to_zmq_subscribers_allocates_no_payload(
    wire: tuple[PNS, Callable[[int], ZmqPeer]], subscribers: int
) -> None:
    pns, agent = wire
    peers = [agent(number) for number in range(subscribers)]
    pool = BufferPool()
    brain = Brain()
    pns.connect_to_burst_engine(brain)

    def burst(counter: int) -> None:
        with encode(pool, counter) as fbc:
            brain.visualization_ready.emit(VisualizationReady(fbc, counter))
            brain.motor_commands.emit(MotorCommand(None, fbc))
        for peer in peers:
            take(peer, SHOWN, counter)
            take(peer, MOTOR, counter)

    # A sender gives a frame back when it looks at its next one, so as many as there are streams
    # may be out beside the one in hand, and one more that the library is about to let go of.
    buffers = [encode(pool, 0) for _ in range(2 * subscribers + 2)]
    for fbc in buffers:
        fbc.release()
    made = pool.counters()["created"]
    assert peak_bytes(burst) < PAYLOAD_BYTES // 10
    assert pool.counters()["created"] == made


def test_all_memory_comes_back_when_the_agents_are_gone() -> None:
    pool = BufferPool()
    with PNS() as pns:
        transport = ZmqTransport(pns, control_port=0)
        transport.start()
        descriptor = AgentDescriptor("feagi-io test", "agent", 1)
        peer = ZmqPeer(transport.control_url, descriptor, SHOWN, transport.max_frame_bytes)
        assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
        for counter in range(3):
            with encode(pool, counter) as fbc:
                pns.publish_visualization(fbc)
            take(peer, SHOWN, counter)
        transport.stop()
        peer.close()
    collector.stop()
    assert pool.counters()["leased"] == 0
    again = [pool.acquire() for _ in range(pool.counters()["created"])]
    assert pool.counters()["created"] == len(again)
    for container in again:
        pool.discard(container)


def test_received_sensory_frames_are_not_copied(
    wire: tuple[PNS, Callable[[int], ZmqPeer]],
) -> None:
    pns, agent = wire
    peer = agent(0)
    heard: queue.SimpleQueue[float] = queue.SimpleQueue()

    def think(data: SensoryData) -> None:
        voxels = data.fbc.container.try_create_new_struct_from_index(0)
        x, _, _, _ = voxels[AREAS[0]].borrow_xyzp_vectors()  # type: ignore[index]
        heard.put(float(x[0]))

    pns.sensory_data_received.connect(think)
    with encode(BufferPool(), 7) as source:
        sent = bytes(source.view)
    socket: zmq.Socket[bytes] = peer._streams[SENSORY]

    def burst(_: int) -> None:
        socket.send(sent, copy=False)
        assert heard.get(timeout=DEADLINE_S) == 7.0

    assert peak_bytes(burst) < PAYLOAD_BYTES // 10


def test_a_copy_would_show() -> None:
    source = np.zeros(PAYLOAD_BYTES, np.uint8)
    assert peak_bytes(lambda _: source.copy().fill(1)) >= PAYLOAD_BYTES
