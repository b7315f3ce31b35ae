# SPDX-License-Identifier: Apache-2.0
"""Topics, and frames packed for those who can unpack them and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from feagi_io_host.blocking.compression import FrameCompressor
from feagi_io_host.core.compression import (
    MAGIC,
    CompressionMode,
    CompressionSettings,
    packed_header,
)
from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.types import StreamType
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.zmq import ZmqTransport
from feagi_io_host.transports.zmq.wire_form import LZ4_TOPIC, split_topic, with_topic
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.scene import (
    EVERYTHING,
    MOTOR,
    SENSE,
    VIEW,
    Scene,
    counter_of,
    publisher,
)

ON = CompressionSettings(mode=CompressionMode.ON)
AUTO = CompressionSettings(mode=CompressionMode.AUTO)
NEURONS = 20_000  # 320 KB


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


# -- topics -----------------------------------------------------------------------------------


@pytest.mark.parametrize("subscription", [b"", b"m", b"motor", b"motor ", b"motor \x04"])
def test_a_topic_and_its_beginnings_are_heard(scene: Scene, subscription: bytes) -> None:
    transport = scene.start(topics=True)
    control = scene.control(transport)
    motor = scene.subscriber(scene.register(control, MOTOR)[MOTOR], subscription)
    assert transport.wait_until_subscribed(control.agent_id, DEADLINE_S)
    for neurons in (0, NEURONS):
        with scene.frame(5, neurons) as fbc:
            sent = bytes(fbc.view)
            transport.publish_motor(None, fbc)
        message = motor.recv()
        assert message == b"motor " + sent
        stream, frame = split_topic(message)
        assert stream is StreamType.MOTOR
        assert bytes(frame) == sent


def test_other_topics_count_as_nobody(scene: Scene) -> None:
    transport = scene.start(topics=True)
    control = scene.control(transport)
    url = scene.register(control, MOTOR)[MOTOR]
    other = scene.subscriber(url, b"visualization", b"motorway", b"\x04")
    with scene.frame(1) as fbc:
        transport.publish_motor(None, fbc)
    right = scene.subscriber(url, b"motor")
    assert split_topic(right.recv())[1][1] == 1
    other.rcvtimeo = 0
    with pytest.raises(zmq.Again):
        other.recv()


def test_without_topics_a_prefix_of_every_frame_is_a_subscription(scene: Scene) -> None:
    transport = scene.start()
    control = scene.control(transport)
    motor = scene.subscriber(scene.register(control, MOTOR)[MOTOR], b"\x04")
    assert transport.wait_until_subscribed(control.agent_id, DEADLINE_S)
    with scene.frame(3) as fbc:
        transport.publish_motor(None, fbc)
    assert counter_of(motor.recv()) == 3


def test_splitting_gives_back_what_was_put_together() -> None:
    for stream in StreamType:
        assert split_topic(with_topic(stream, b"\x04 rest")) == (stream, b"\x04 rest")


@pytest.mark.parametrize(
    "message", [b"", b"\x04" * 200, b"motor", b"nothing \x04", b"m" * 100 + b" x", b"\xff \x04"]
)
def test_messages_without_a_topic_are_refused(message: bytes) -> None:
    with pytest.raises(FeagiDataError, match="topic"):
        split_topic(message)


# -- packed frames ----------------------------------------------------------------------------


def test_who_declares_it_gets_packed_frames(scene: Scene) -> None:
    transport = scene.start(compression=ON)
    control = scene.control(transport)
    motor = scene.subscriber(scene.register(control, MOTOR)[MOTOR], b"", LZ4_TOPIC)
    _wait_for_unpackers(transport, StreamType.MOTOR)
    for counter, neurons in enumerate((NEURONS, 0, NEURONS)):
        with scene.frame(counter, neurons) as fbc:
            sent = bytes(fbc.view)
            transport.publish_motor(None, fbc)
        message = motor.recv()
        assert (message[:4] == MAGIC) == (neurons > 0), "small frames stay plain"
        assert len(message) < len(sent) // 2 or not neurons
        assert FrameCompressor(ON).unpack(message) == sent


def test_order_holds_where_packed_and_plain_frames_mix(scene: Scene) -> None:
    transport = scene.start(compression=ON)
    control = scene.control(transport)
    motor = scene.subscriber(scene.register(control, MOTOR)[MOTOR], b"", LZ4_TOPIC)
    _wait_for_unpackers(transport, StreamType.MOTOR)
    for counter in range(60):
        with scene.frame(counter, NEURONS if counter % 3 == 0 else 0) as fbc:
            transport.publish_motor(None, fbc)
    unpack = FrameCompressor(ON).unpack
    assert [counter_of(bytes(unpack(motor.recv()))) for _ in range(60)] == list(range(60))


@pytest.mark.parametrize("mode", [CompressionMode.ON, CompressionMode.AUTO])
def test_others_get_plain_frames(scene: Scene, mode: CompressionMode) -> None:
    transport = scene.start(compression=CompressionSettings(mode=mode))
    peer = scene.agent(transport, capabilities=EVERYTHING)
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    with scene.frame(1, NEURONS) as fbc:
        sent = bytes(fbc.view)
        transport.publish_motor(None, fbc)
        transport.publish_visualization(fbc)
    for receive in (peer.receive_motor, peer.receive_visualization):
        received = receive(DEADLINE_S)
        assert received is not None
        with received:
            assert bytes(received.view) == sent


def test_beside_one_who_cannot_unpack_everybody_gets_plain_frames(scene: Scene) -> None:
    transport = scene.start(compression=ON)
    control = scene.control(transport)
    url = scene.register(control, MOTOR)[MOTOR]
    ours = scene.subscriber(url, b"", LZ4_TOPIC)
    _wait_for_unpackers(transport, StreamType.MOTOR)
    other = scene.subscriber(url)
    # The other one is seen by the first look after it has come; until then it gets nothing.
    for counter in range(10_000):
        with scene.frame(counter % 60_000, 1000) as fbc:
            sent = bytes(fbc.view)
            transport.publish_motor(None, fbc)
        message = ours.recv()
        if message[:4] != MAGIC:
            break
    else:
        pytest.fail("the second subscriber never counted")
    assert message == sent == other.recv()


def test_a_packed_frame_never_reaches_one_who_only_listens(scene: Scene) -> None:
    """Not even when somebody else declares often enough to pass for everybody."""
    transport = scene.start(compression=ON)
    control = scene.control(transport)
    url = scene.register(control, MOTOR)[MOTOR]
    listener = scene.subscriber(url)
    assert transport.wait_until_subscribed(control.agent_id, DEADLINE_S)
    liar = scene.subscriber(url, LZ4_TOPIC)
    _wait_for_unpackers(transport, StreamType.MOTOR)
    with scene.frame(1, NEURONS) as fbc:
        transport.publish_motor(None, fbc)
    assert liar.recv()[:4] == MAGIC
    with scene.frame(2) as fbc:  # too small to be packed
        transport.publish_motor(None, fbc)
    assert counter_of(listener.recv()) == 2


def test_without_compression_a_declaration_changes_nothing(scene: Scene) -> None:
    transport = scene.start()
    control = scene.control(transport)
    motor = scene.subscriber(scene.register(control, MOTOR)[MOTOR], b"", LZ4_TOPIC)
    assert transport.wait_until_subscribed(control.agent_id, DEADLINE_S)
    with scene.frame(1, NEURONS) as fbc:
        transport.publish_motor(None, fbc)
        assert motor.recv() == fbc.view


def test_visualization_keeps_the_newest_while_frames_are_packed(scene: Scene) -> None:
    transport = scene.start(compression=ON)
    control = scene.control(transport)
    shown = scene.subscriber(scene.register(control, VIEW)[VIEW], b"", LZ4_TOPIC)
    _wait_for_unpackers(transport, StreamType.VISUALIZATION)
    for counter in range(50):
        with scene.frame(counter, NEURONS) as fbc:
            transport.publish_visualization(fbc)
    unpack = FrameCompressor(ON).unpack
    seen = [counter_of(bytes(unpack(shown.recv())))]
    while seen[-1] != 49:
        seen.append(counter_of(bytes(unpack(shown.recv()))))
    assert seen == sorted(set(seen))


def test_auto_delivers_whatever_it_decides(scene: Scene) -> None:
    transport = scene.start(compression=AUTO)
    control = scene.control(transport)
    motor = scene.subscriber(scene.register(control, MOTOR)[MOTOR], b"", LZ4_TOPIC)
    _wait_for_unpackers(transport, StreamType.MOTOR)
    unpack = FrameCompressor(AUTO).unpack
    for counter in range(40):
        with scene.frame(counter, NEURONS) as fbc:
            transport.publish_motor(None, fbc)
            assert unpack(motor.recv()) == fbc.view


@pytest.mark.parametrize("packs", [True, False])
def test_packed_sensory_frames_are_taken_only_where_asked_for(scene: Scene, packs: bool) -> None:
    transport = scene.start(compression=ON if packs else None)
    peer = scene.agent(transport, capabilities=SENSE)
    with scene.frame(9, NEURONS) as fbc:
        sent = bytes(fbc.view)
    packed = FrameCompressor(ON).pack(sent)
    assert len(packed) < len(sent)
    peer.send_sensory(bytes(packed))
    peer.send_sensory(sent)
    assert scene.host.take_sensory(peer.agent_id) == sent
    (session,) = scene.host.sessions
    assert session.counters[StreamType.SENSORY].dropped == (0 if packs else 1)


@pytest.mark.parametrize(
    "bomb",
    [
        packed_header(1 << 31) + bytes(100),
        packed_header(0xFFFF_FFFF) + bytes(1 << 20),
        packed_header(100 * 64 + 1) + bytes(100),
        packed_header(4096) + b"\xff" * 100,
        MAGIC,
        MAGIC + bytes(4),
    ],
    ids=["2 GiB", "4 GiB", "ratio", "damaged", "short", "empty"],
)
def test_bombs_are_refused_and_counted(scene: Scene, bomb: bytes) -> None:
    transport = scene.start(compression=ON, max_frame_bytes=1 << 21)
    peer = scene.agent(transport, capabilities=SENSE)
    peer.send_sensory(bomb)
    with scene.frame(2) as fbc:
        peer.send_sensory(fbc)
    data = scene.host.take_sensory(peer.agent_id)
    assert data is not None
    assert counter_of(data) == 2
    (session,) = scene.host.sessions
    assert session.counters[StreamType.SENSORY].snapshot()["dropped"] == {"damaged": 1}


def test_a_stream_has_one_form() -> None:
    with pytest.raises(ConfigError, match="one form"):
        ZmqTransport(StandInHost(), topics=True, compression=ON)


def _wait_for_unpackers(transport: ZmqTransport, stream: StreamType) -> None:
    """Wait until the worker has seen a subscription to LZ4_TOPIC beside one to everything."""
    subscribers = publisher(transport, stream)._subscribers
    turn = publisher(transport, stream)._turn
    for _ in range(100_000):
        with turn:
            subscribers.look()
            if subscribers.all_unpack:
                return
    pytest.fail("nobody declared that it can unpack")
