# SPDX-License-Identifier: Apache-2.0
"""Agents of ours at servers that put the name of the stream before each frame."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq import ZmqTransport
from feagi_io_host.transports.zmq.client_form import ClientForm
from feagi_io_host.transports.zmq.wire_form import LZ4_TOPIC, with_topic
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.scene import EVERYTHING, ROVER, Scene, publisher

NEURONS = 10_000
MOTOR, SHOWN = StreamType.MOTOR, StreamType.VISUALIZATION


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def wait_until_subscribed(transport: ZmqTransport) -> None:
    (agent,) = transport.agents
    assert transport.wait_until_subscribed(agent.agent_id, DEADLINE_S)


def copied(received: FeagiByteContainer | None) -> bytes:
    assert received is not None
    return received.copy_out_as_byte_vector()


def test_frames_arrive_without_their_topics(scene: Scene) -> None:
    transport = scene.start(topics=True)
    with FeagiAgent(ROVER, EVERYTHING, transport.control_url, topics=True) as agent:
        wait_until_subscribed(transport)
        for counter, neurons in enumerate((NEURONS, 0)):
            with scene.frame(counter, neurons) as fbc:
                sent = bytes(fbc.view)
                transport.publish_motor(None, fbc)
                assert copied(agent.receive_motor(DEADLINE_S)) == sent
                transport.publish_visualization(fbc)
                assert copied(agent.receive_visualization(DEADLINE_S)) == sent
                agent.send_sensory(fbc)  # has no topic: its socket serves one stream
            (session,) = scene.host.sessions
            assert scene.host.take_sensory(session.agent_id) == sent


def test_in_an_event_loop_it_is_the_same(scene: Scene) -> None:
    transport = scene.start(topics=True)

    async def live() -> None:
        async with AsyncFeagiAgent(ROVER, EVERYTHING, transport.control_url, topics=True) as agent:
            await asyncio.to_thread(wait_until_subscribed, transport)
            with scene.frame(1, NEURONS) as fbc:
                sent = bytes(fbc.view)
                transport.publish_motor(None, fbc)
                assert copied(await agent.receive_motor(DEADLINE_S)) == sent
                transport.publish_visualization(fbc)
                assert copied(await agent.receive_visualization(DEADLINE_S)) == sent
                await agent.send_sensory(fbc)
            (session,) = scene.host.sessions
            data = await asyncio.to_thread(scene.host.take_sensory, session.agent_id)
            assert data == sent

    asyncio.run(live())


def test_a_frame_of_the_largest_size_has_room_for_its_topic(scene: Scene) -> None:
    with scene.frame(1, NEURONS) as fbc:
        sent = bytes(fbc.view)
        most = len(sent)
        transport = scene.start(topics=True, max_frame_bytes=most)
        agent = FeagiAgent(
            ROVER, EVERYTHING, transport.control_url, max_frame_bytes=most, topics=True
        )
        with agent:
            wait_until_subscribed(transport)
            transport.publish_visualization(fbc)
            assert copied(agent.receive_visualization(DEADLINE_S)) == sent


def test_a_frame_under_another_name_is_refused(scene: Scene) -> None:
    transport = scene.start(topics=True)
    with FeagiAgent(ROVER, EVERYTHING, transport.control_url, topics=True) as agent:
        wait_until_subscribed(transport)
        motor = publisher(transport, MOTOR)
        with scene.frame(1) as fbc:
            sent = bytes(fbc.view)
            with motor._turn:
                # The beginning is the one subscribed to; what follows is no frame.
                motor._socket.send(with_topic(MOTOR, with_topic(SHOWN, sent)))
            transport.publish_motor(None, fbc)
        # The damaged one may be read by itself or together with the good one.
        assert copied(agent.receive_motor(DEADLINE_S)) == sent
        assert agent.counters()["motor"]["dropped"] == {"damaged": 1}


def test_an_agent_without_topics_takes_none_of_it_for_a_frame(scene: Scene) -> None:
    transport = scene.start(topics=True)
    with FeagiAgent(ROVER, EVERYTHING, transport.control_url) as agent:
        wait_until_subscribed(transport)
        with scene.frame(1) as fbc:
            transport.publish_motor(None, fbc)
        deadline_s = time.monotonic() + DEADLINE_S
        while not (row := agent.counters()["motor"])["dropped"]:
            assert time.monotonic() < deadline_s
            assert agent.receive_motor(0.01) is None
        assert row["dropped"] == {"damaged": 1}


def test_forms() -> None:
    topics, packed = ClientForm(topics=True), ClientForm(unpack=lambda data: data)
    assert topics.subscriptions(MOTOR) == (b"motor ",)
    assert packed.subscriptions(MOTOR) == (b"", LZ4_TOPIC)
    assert ClientForm().subscriptions(MOTOR) == (b"",)
    assert topics.message_bytes(SHOWN, 100) == 114
    assert ClientForm().message_bytes(SHOWN, 100) == 100
    assert topics.plain(MOTOR, b"motor frame") == b"frame"
    for message in (b"visualization frame", b"motor", b"", b"frame frame", b" motor frame"):
        assert topics.plain(MOTOR, message) is None
    with pytest.raises(ConfigError, match="choose one"):
        ClientForm.of(True, CompressionSettings(mode=CompressionMode.ON), False, 1 << 20)
