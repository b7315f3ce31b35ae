# SPDX-License-Identifier: Apache-2.0
"""StreamPublisher: who sends a frame, and that order and leases hold whoever it is."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator

import pytest
import zmq

from feagi_io_host.core.errors import LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq import publisher as publisher_module
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.scene import (
    MOTOR,
    ROVER,
    VIEW,
    Scene,
    counter_of,
    publisher,
)


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def test_who_publishes_sends_while_the_wire_is_free(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    senders: set[int] = set()
    transport = scene.start()
    peer = scene.agent(transport)
    (session,) = scene.host.sessions
    monkeypatch.setattr(
        session, "sent_to_wire", lambda stream, fbc: senders.add(threading.get_ident())
    )
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    # The worker has its turn ten times a second; it cannot have it fifty times in a row.
    for counter in range(50):
        with scene.frame(counter) as fbc:
            transport.publish_motor(peer.agent_id, fbc)
        received = peer.receive_motor(DEADLINE_S)
        assert received is not None
        received.release()
    assert threading.get_ident() in senders


@pytest.mark.parametrize("stream", [StreamType.MOTOR, StreamType.VISUALIZATION])
def test_each_frame_is_told_of_when_it_has_gone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, stream: StreamType
) -> None:
    told: list[tuple[StreamType, int]] = []
    heard = threading.Event()

    def tell(which: StreamType, fbc: SharedFBC) -> None:
        told.append((which, counter_of(fbc.view)))
        heard.set()

    transport = scene.start()
    peer = scene.agent(transport)
    (session,) = scene.host.sessions
    monkeypatch.setattr(session, "sent_to_wire", tell)
    with scene.frame(7) as fbc:
        if stream is StreamType.MOTOR:
            transport.publish_motor(None, fbc)
            received = peer.receive_motor(DEADLINE_S)
        else:
            transport.publish_visualization(fbc)
            received = peer.receive_visualization(DEADLINE_S)
    assert received is not None
    received.release()
    assert heard.wait(DEADLINE_S)
    assert told == [(stream, 7)]


def test_frames_of_several_threads_keep_their_order_and_none_is_lost(scene: Scene) -> None:
    threads, frames = 4, 300
    transport = scene.start()
    peer = scene.agent(transport, capabilities=MOTOR)
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)

    def publish(number: int) -> None:
        for index in range(frames):
            with scene.frame(number * frames + index) as fbc:
                transport.publish_motor(peer.agent_id, fbc)

    running = [threading.Thread(target=publish, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    seen: list[int] = []
    for _ in range(threads * frames):
        received = peer.receive_motor(DEADLINE_S)
        assert received is not None, f"{len(seen)} of {threads * frames} came"
        with received:
            seen.append(counter_of(received.view))
    for thread in running:
        thread.join(DEADLINE_S)
    for number in range(threads):
        mine = [counter for counter in seen if counter // frames == number]
        assert mine == list(range(number * frames, (number + 1) * frames))


def test_who_publishes_does_not_wait_for_the_turn(scene: Scene) -> None:
    transport = scene.start()
    peer = scene.agent(transport)
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    motor = publisher(transport, StreamType.MOTOR)
    done = threading.Event()

    def publish() -> None:
        for counter in range(5):
            with scene.frame(counter) as fbc:
                transport.publish_motor(peer.agent_id, fbc)
        done.set()

    with motor._turn:
        thread = threading.Thread(target=publish)
        thread.start()
        assert done.wait(DEADLINE_S)
    thread.join(DEADLINE_S)
    # The worker was told of what was left.
    for counter in range(5):
        received = peer.receive_motor(DEADLINE_S)
        assert received is not None
        with received:
            assert counter_of(received.view) == counter


def test_without_a_subscriber_motor_frames_wait_for_the_next_one(scene: Scene) -> None:
    transport = scene.start()
    control = scene.control(transport)
    url = scene.register(control, MOTOR)[MOTOR]
    first = scene.subscriber(url)
    assert transport.wait_until_subscribed(control.agent_id, DEADLINE_S)
    with scene.frame(0) as fbc:
        transport.publish_motor(control.agent_id, fbc)
    assert counter_of(first.recv()) == 0
    first.close(0)
    motor = publisher(transport, StreamType.MOTOR)
    gone = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if not motor.subscribed.is_set():
            break
        gone.wait(0.01)
    else:
        pytest.fail("the publisher did not see its subscriber leave")
    for counter in range(1, 4):
        with scene.frame(counter) as fbc:
            transport.publish_motor(control.agent_id, fbc)
    second = scene.subscriber(url)
    assert [counter_of(second.recv()) for _ in range(3)] == [1, 2, 3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_leaves_the_socket_alone(scene: Scene) -> None:
    transport = scene.start()
    peer = scene.agent(transport)
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    (session,) = scene.host.sessions
    with scene.frame(1) as fbc, warnings.catch_warnings():
        # Newer interpreters warn of forks beside threads, which is what is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                session.offer_motor(fbc)
                session.show(fbc)
                session.motor.close()
                status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with scene.frame(2) as fbc:
        transport.publish_motor(peer.agent_id, fbc)
    received = peer.receive_motor(DEADLINE_S)
    assert received is not None
    with received:
        assert counter_of(received.view) == 2


def test_a_stream_that_fails_takes_its_agent_with_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise zmq.ZMQError(zmq.ENOTSUP)

    left = threading.Event()
    transport = scene.start()
    peer = scene.agent(transport)
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    motor = publisher(transport, StreamType.MOTOR)
    (session,) = scene.host.sessions
    close = session.close

    def close_and_tell(reason: str = "") -> None:
        close(reason)
        left.set()

    monkeypatch.setattr(session, "close", close_and_tell)
    monkeypatch.setattr(publisher_module, "send_message", fail)
    with scene.frame(1) as fbc:
        transport.publish_motor(peer.agent_id, fbc)  # nothing of it is heard here
    assert left.wait(DEADLINE_S)
    assert scene.host.left == [(peer.agent_id, "its motor stream failed")]
    peer.wait_until_cut_off()
    motor.stop(DEADLINE_S)
    assert "ended with ZMQError" in caplog.text


def test_a_channel_of_another_kind_is_refused(scene: Scene) -> None:
    transport = scene.start()
    session = scene.host.attach_agent(ROVER, VIEW, bytes([1]) * 48)
    assert transport.offer(session.agent_id, VIEW) is not None
    with pytest.raises(LocalError, match="a BoundedChannel; attach agents"):
        transport.serve(session, StreamType.VISUALIZATION)
    session.close()
