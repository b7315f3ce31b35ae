# SPDX-License-Identifier: Apache-2.0
"""Sensory frames from whoever hands them in to the wire, and what the agent's thread is left."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator

import pytest
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.core.client_actions import AgentState, StateChanged
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.transports.zmq.client_sensory import SensorySender
from feagi_io_host.transports.zmq.client_stream import ClientStream
from feagi_io_host.transports.zmq.common import (
    COPY_LIMIT_BYTES,
    BytesLike,
    Role,
    SocketOptions,
)
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.scene import MOTOR, ROVER, SENSE, Scene, counter_of
from tests.feagi_io_host.transports.zmq.test_client import Party

LARGE = COPY_LIMIT_BYTES // 16 + 1  # neurons
DEADLINE_MS = int(DEADLINE_S * 1000)


class SensoryParty(Party):
    """An agent with frames to send."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox: deque[SharedFBC] = deque()
        self.sent = 0
        self.dropped: list[str] = []

    def next_sensory(self) -> SharedFBC | None:
        return self.outbox.popleft() if self.outbox else None

    def sensory_sent(self) -> None:
        self.sent += 1

    def sensory_dropped(self, reason: str) -> None:
        self.dropped.append(reason)


class Bench:
    """A sender, and the server's end of its stream."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.party = SensoryParty()
        self.sender = SensorySender(self.party, None)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.pull = self.context.socket(zmq.PULL)
        self.pull.rcvtimeo = DEADLINE_MS
        self.port = self.pull.bind_to_random_port("tcp://127.0.0.1")

    def connect(self) -> ClientStream:
        url = f"tcp://127.0.0.1:{self.port}"
        options = SocketOptions()
        stream = ClientStream(
            self.context, Role.AGENT_SENSORY, url, options, 1 << 24, _nothing, _nothing
        )
        self.sender.lead_to(stream)
        return stream

    def connected(self) -> None:
        """Connect, and wait until the way is free."""
        assert self.connect().socket.poll(DEADLINE_MS, zmq.POLLOUT)

    def offer(self, counter: int, neurons: int = 0) -> None:
        self.party.outbox.append(self.scene.frame(counter, neurons))

    def received(self) -> int:
        return counter_of(self.pull.recv())

    def close(self) -> None:
        self.sender.lead_to(None)
        self.pull.close(0)
        self.context.term()
        self.sender.give_back_all()
        collector.stop()


def _nothing(socket: zmq.Socket[bytes]) -> None: ...


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


@pytest.fixture
def bench(scene: Scene) -> Iterator[Bench]:
    made = Bench(scene)
    yield made
    made.close()


def test_it_is_sent_where_it_is_handed_in_and_in_order(bench: Bench) -> None:
    bench.connected()
    bench.offer(1)
    bench.offer(2)
    assert bench.sender.send_now()
    assert [bench.received(), bench.received()] == [1, 2]
    assert (bench.party.sent, bench.party.dropped) == (2, [])


def test_without_a_stream_it_is_left_alone(bench: Bench) -> None:
    bench.offer(1)
    assert not bench.sender.send_now()
    assert len(bench.party.outbox) == 1
    bench.connected()
    assert bench.sender.send_now()
    assert bench.received() == 1


def test_while_somebody_else_sends_it_is_left_to_him(bench: Bench) -> None:
    bench.connected()
    bench.offer(1)
    with bench.sender._turn:
        assert not bench.sender.send_now()
        assert len(bench.party.outbox) == 1
    assert bench.sender.send_now()


def test_a_frame_without_room_waits_until_a_newer_one_takes_its_place(bench: Bench) -> None:
    port, bench.port = bench.port, 1  # nobody listens there
    bench.connect()
    bench.offer(1)
    assert not bench.sender.send_now()
    assert bench.sender.waits_for_room
    bench.offer(2)
    assert not bench.sender.send_now()  # the socket is the link's from here on
    assert len(bench.party.outbox) == 1
    bench.sender.send()
    assert bench.party.dropped == ["replaced"]
    assert bench.sender.waits_for_room
    bench.port = port
    bench.connected()
    assert bench.party.dropped == ["replaced", "not registered"]
    bench.offer(3)
    assert bench.sender.send_now()
    assert bench.received() == 3


def test_packing_is_left_to_the_link(bench: Bench) -> None:
    bench.sender = SensorySender(bench.party, lambda data: b"packed " + bytes(data))
    bench.connected()
    bench.offer(1)
    assert not bench.sender.send_now()
    bench.sender.send()
    assert bench.pull.recv().startswith(b"packed ")


def test_a_frame_that_waits_is_packed_once_and_a_newer_one_afresh(bench: Bench) -> None:
    packed: list[int] = []

    def pack(data: BytesLike) -> BytesLike:
        packed.append(counter_of(bytes(data)))
        return b"packed " + bytes(data)

    bench.sender = SensorySender(bench.party, pack)
    bench.port = 1  # nobody listens there
    bench.connect()
    for counter in (1, 2):
        bench.offer(counter)
        for _ in range(3):
            bench.sender.send()
    assert packed == [1, 2]


def test_the_link_is_told_of_memory_that_it_has_to_give_back(bench: Bench) -> None:
    bench.connected()
    bench.offer(1, LARGE)
    assert not bench.sender.send_now()
    assert bench.sender.holds_memory
    # It knows, and looks again and again.
    bench.offer(2, LARGE)
    assert bench.sender.send_now()
    assert [bench.received(), bench.received()] == [1, 2]


def test_a_thread_that_is_held_up_does_not_hold_up_frames(scene: Scene) -> None:
    transport = scene.start()
    held, go_on = threading.Event(), threading.Event()
    with FeagiAgent(ROVER, SENSE | MOTOR, transport.control_url) as agent:
        (session,) = scene.host.sessions
        with scene.frame(1) as fbc:
            agent.send_sensory(fbc)  # over a connection that stands from here on
        assert scene.host.take_sensory(session.agent_id) is not None
        assert transport.wait_until_subscribed(agent.agent_id, DEADLINE_S)

        def hold(change: StateChanged) -> None:
            if change.after is AgentState.ACTIVE_HAS_DATA:
                held.set()
                go_on.wait(DEADLINE_S)

        agent.on_state_change(hold)
        try:
            with scene.frame(2) as fbc:
                transport.publish_motor(None, fbc)
                assert held.wait(DEADLINE_S)
                agent.send_sensory(fbc)
            sensed = scene.host.take_sensory(session.agent_id)
            assert sensed is not None
            assert counter_of(sensed) == 2
            assert not go_on.is_set()
        finally:
            go_on.set()
