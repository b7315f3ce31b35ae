# SPDX-License-Identifier: Apache-2.0
"""Agents of ours that take packed frames, at servers that have compression and that have not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from feagi_io_host.agent.async_feagi_agent import AsyncFeagiAgent
from feagi_io_host.agent.feagi_agent import FeagiAgent
from feagi_io_host.blocking.compression import FrameCompressor
from feagi_io_host.core.compression import CompressionMode, CompressionSettings, packed_header
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq import ZmqTransport
from feagi_io_host.transports.zmq.wire_form import agent_codec
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.scene import EVERYTHING, ROVER, Scene, publisher

ON = CompressionSettings(mode=CompressionMode.ON)
NEURONS = 20_000


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the frames that were packed in this process."""
    sizes: list[int] = []
    pack = FrameCompressor.pack_chosen

    def pack_and_tell(self: FrameCompressor, frame: bytes | bytearray | memoryview) -> object:
        sizes.append(len(frame))
        return pack(self, frame)

    monkeypatch.setattr(FrameCompressor, "pack_chosen", pack_and_tell)
    return sizes


def wait_for(transport: ZmqTransport, unpackers: bool) -> None:
    """Wait until the agent listens to its motor stream, as one that can unpack if it is to be."""
    motor = publisher(transport, StreamType.MOTOR)
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with motor._turn:
            motor._see_subscriptions()
            if motor._subscribers.all_unpack if unpackers else motor._subscribers:
                return
    pytest.fail("the agent did not subscribe")


@pytest.mark.parametrize("server_packs", [True, False])
def test_frames_arrive_whole_both_ways(scene: Scene, packed: list[int], server_packs: bool) -> None:
    transport = scene.start(compression=ON if server_packs else None)
    with FeagiAgent(ROVER, EVERYTHING, transport.control_url, compression=ON) as agent:
        wait_for(transport, server_packs)
        for counter, neurons in enumerate((NEURONS, 0, NEURONS)):
            with scene.frame(counter, neurons) as fbc:
                sent = bytes(fbc.view)
                transport.publish_motor(None, fbc)
                agent.send_sensory(fbc)
            received = agent.receive_motor(DEADLINE_S)
            assert received is not None
            assert received.copy_out_as_byte_vector() == sent
            (session,) = scene.host.sessions
            assert scene.host.take_sensory(session.agent_id) == sent
    assert len(packed) == (2 if server_packs else 0)


def test_sensory_frames_are_packed_where_that_is_said(scene: Scene, packed: list[int]) -> None:
    transport = scene.start(compression=ON)
    with FeagiAgent(
        ROVER, EVERYTHING, transport.control_url, compression=ON, pack_sensory=True
    ) as agent:
        for counter, neurons in enumerate((NEURONS, 0, NEURONS)):
            with scene.frame(counter, neurons) as fbc:
                sent = bytes(fbc.view)
                agent.send_sensory(fbc)
            (session,) = scene.host.sessions
            assert scene.host.take_sensory(session.agent_id) == sent
    assert len(packed) == 2


def test_in_an_event_loop_it_is_the_same(scene: Scene, packed: list[int]) -> None:
    transport = scene.start(compression=ON)

    async def live() -> None:
        agent = AsyncFeagiAgent(
            ROVER, EVERYTHING, transport.control_url, compression=ON, pack_sensory=True
        )
        async with agent:
            await asyncio.to_thread(wait_for, transport, True)
            with scene.frame(1, NEURONS) as fbc:
                sent = bytes(fbc.view)
                transport.publish_motor(None, fbc)
                await agent.send_sensory(fbc)
            received = await agent.receive_motor(DEADLINE_S)
            assert received is not None
            assert received.copy_out_as_byte_vector() == sent
            (session,) = scene.host.sessions
            data = await asyncio.to_thread(scene.host.take_sensory, session.agent_id)
            assert data == sent

    asyncio.run(live())
    assert len(packed) == 2


@pytest.mark.parametrize(
    "bomb",
    [packed_header(1 << 31) + bytes(100), packed_header(4096) + b"\xff" * 100],
    ids=["bomb", "damaged"],
)
def test_an_agent_refuses_bombs_and_goes_on(scene: Scene, bomb: bytes) -> None:
    transport = scene.start(compression=ON)
    with FeagiAgent(ROVER, EVERYTHING, transport.control_url, compression=ON) as agent:
        wait_for(transport, True)
        motor = publisher(transport, StreamType.MOTOR)
        with motor._turn:
            motor._socket.send(bomb)
        with scene.frame(5) as fbc:
            sent = bytes(fbc.view)
            transport.publish_motor(None, fbc)
        received = agent.receive_motor(DEADLINE_S)
        assert received is not None
        assert received.copy_out_as_byte_vector() == sent


def test_settings_of_an_agent_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="pack_sensory without compression"):
        agent_codec(None, True, 1 << 20)
    off = CompressionSettings(mode=CompressionMode.OFF)
    unpack, pack = agent_codec(off, True, 1 << 20)
    assert unpack is not None
    assert pack is None
