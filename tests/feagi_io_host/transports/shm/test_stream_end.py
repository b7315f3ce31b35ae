# SPDX-License-Identifier: Apache-2.0
"""An agent's single streams beside another control link."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest

from feagi_io_host.agent.feagi_agent import FeagiAgent
from feagi_io_host.core.agent_link import StreamEnd
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import ClosedError, LocalError, RemoteError
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.shm import (
    RingReader,
    RingWriter,
    ShmTransport,
    in_order,
    newest_wins,
    shm_stream_end,
)
from feagi_io_host.transports.shm.names import SHM_FOLDER, name_from_url
from tests.feagi_io_host.transports.shm.conftest import own_names

PATIENCE_MS = 10_000
MAX_FRAME_BYTES = 100_000
SENSORY = AgentCapabilities.SEND_SENSOR_DATA
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
VISUALIZATION = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
ALL = {
    SENSORY: StreamType.SENSORY,
    MOTOR: StreamType.MOTOR,
    VISUALIZATION: StreamType.VISUALIZATION,
}


def readable(end: StreamEnd | RingReader, patience_ms: int = 0) -> bool:
    poll = select.poll()
    poll.register(end.fileno(), select.POLLIN)
    return bool(poll.poll(patience_ms))


def come(end: StreamEnd) -> bytes:
    """The next frame, waited for as a link does it: by the descriptor alone."""
    while True:
        assert readable(end, PATIENCE_MS), "nothing came"
        data = end.take()
        if data is not None:
            return bytes(data)


@pytest.fixture
def host() -> StandInHost:
    return StandInHost(delivery_table(capacity={StreamType.MOTOR: 8}))


@pytest.fixture
def transport(host: StandInHost) -> Iterator[ShmTransport]:
    with ShmTransport(host, max_frame_bytes=MAX_FRAME_BYTES, motor_slots=4) as transport:
        yield transport


@pytest.fixture
def ends(transport: ShmTransport) -> Iterator[dict[StreamType, StreamEnd]]:
    """An agent's ends of all three."""
    invitation = transport.admit(
        AgentDescriptor("feagi-io test", "rover", 1), SENSORY | MOTOR | VISUALIZATION
    )
    ends = {
        ALL[capability]: shm_stream_end(url, ALL[capability], max_frame_bytes=MAX_FRAME_BYTES)
        for capability, url in invitation.endpoints.items()
    }
    yield ends
    for end in ends.values():
        end.close()
        end.close()


def test_each_stream_is_carried_and_its_descriptor_says_so(
    host: StandInHost,
    transport: ShmTransport,
    ends: dict[StreamType, StreamEnd],
    fbc_bytes: bytes,
) -> None:
    with SharedFBC.from_bytes(fbc_bytes) as fbc:
        assert ends[StreamType.SENSORY].send(fbc)
        assert fbc.lease_count == 1
        transport.publish_motor(None, fbc)
        transport.publish_visualization(fbc)
    assert come(ends[StreamType.MOTOR]) == fbc_bytes
    assert come(ends[StreamType.VISUALIZATION]) == fbc_bytes
    assert host.take_sensory(host.sessions[0].agent_id) == fbc_bytes
    for end in ends.values():
        assert end.take() is None
        # What was taken before it was announced is announced all the same, once.
        while readable(end):
            assert end.take() is None
        assert end.tend(1.0) is None
        assert not any(end.counters().values())


def test_motor_frames_are_announced_until_the_last_was_taken(
    transport: ShmTransport, ends: dict[StreamType, StreamEnd], fbc_bytes: bytes
) -> None:
    end = ends[StreamType.MOTOR]
    with SharedFBC.from_bytes(fbc_bytes) as fbc:
        for _ in range(8):
            transport.publish_motor(None, fbc)
    # `come` takes one for each time that the descriptor is found readable.
    assert [come(end) for _ in range(8)] == [fbc_bytes] * 8
    assert not readable(end)


def test_a_look_at_the_writer_leaves_what_is_announced() -> None:
    with RingWriter(in_order(100)) as writer, RingReader(writer.url) as reader:
        writer.serve(1.0)
        assert reader.take(0.0) is None
        writer.write(b"one")
        writer.write(b"two")
        for expected in (b"one", b"two"):
            reader.writer_state()
            assert readable(reader)
            frame = reader.take(0.0)
            assert frame is not None
            assert bytes(frame.view) == expected
            frame.release()
        assert not readable(reader)


def test_a_picture_may_be_kept_and_costs_no_copy_and_a_command_is_the_agents_own() -> None:
    pictures, commands = RingWriter(newest_wins(100, max_readers=1)), RingWriter(in_order(100))
    with pictures, commands:
        picture_end = shm_stream_end(pictures.url, StreamType.VISUALIZATION, max_frame_bytes=100)
        command_end = shm_stream_end(commands.url, StreamType.MOTOR, max_frame_bytes=100)
        kept = []
        for number in range(8):
            pictures.write(bytes([number]))
            data = picture_end.take()
            assert isinstance(data, np.ndarray)
            assert not data.flags.writeable
            kept.append(data)
        # The newest may be taken before the writer has greeted; that one is copied for certain.
        assert sum(not array.flags.owndata for array in kept) == 2
        assert pictures.no_slot == 0
        commands.serve(1.0)
        assert command_end.take() is None
        commands.write(b"go")
        command = command_end.take()
        commands.close()
        assert isinstance(command, bytes)
        assert command == b"go"
        picture_end.close()
        assert [int(array[0]) for array in kept] == list(range(8))
        del data, kept
        command_end.close()


def test_what_was_lost_is_counted() -> None:
    with RingWriter(newest_wins(100)) as writer:
        end = shm_stream_end(writer.url, StreamType.VISUALIZATION, max_frame_bytes=10)
        for size in (1, 5, 5, 50, 5):
            writer.write(bytes(size))
            if size in (1, 50):
                end.take()
        assert come(end) == bytes(5)
        assert end.counters() == {"overtaken": 2, "too large": 1}
        with SharedFBC.from_bytes(bytes([4]) + bytes(51)) as fbc, pytest.raises(LocalError):
            end.send(fbc)
        end.close()


def test_the_other_end_gone_is_readable_and_an_error(
    transport: ShmTransport, ends: dict[StreamType, StreamEnd]
) -> None:
    transport.stop()
    for end in ends.values():
        assert readable(end, PATIENCE_MS)
        with pytest.raises(ClosedError):
            end.take()


def test_nonsense_is_an_end() -> None:
    with RingWriter(newest_wins(100)) as writer:
        end = shm_stream_end(writer.url, StreamType.VISUALIZATION, max_frame_bytes=10)
        os.truncate(SHM_FOLDER / name_from_url(writer.url), 4096)
        with pytest.raises(ClosedError, match="was cut from"):
            end.take()
        end.close()


def test_without_a_slot_it_is_tried_again(
    host: StandInHost, ends: dict[StreamType, StreamEnd], fbc_bytes: bytes
) -> None:
    end = ends[StreamType.SENSORY]
    ring = end._line._ring  # type: ignore[attr-defined]
    others = RingReader(ring.url)  # not of this library's making: it keeps what it likes
    locks = others._segment.locks
    with SharedFBC.from_bytes(fbc_bytes) as fbc:
        assert end.send(fbc)
        assert host.take_sensory(host.sessions[0].agent_id) == fbc_bytes
        for slot in range(ring.shape.slots):
            locks.try_shared(slot)
        assert not end.send(fbc)
        assert end.tend(5.0) == pytest.approx(5.0, abs=0.1)
        others.close()
        assert end.send(fbc)
        assert end.tend(5.0) is None


@pytest.mark.parametrize("stream", ALL.values())
def test_where_nobody_is_there_is_an_error_with_advice(stream: StreamType) -> None:
    for url in ("shm://feagi-io-1-" + "0" * 32, "tcp://127.0.0.1:1", "shm://../etc/passwd"):
        with pytest.raises(RemoteError, match=r"register again|expected shm"):
            shm_stream_end(url, stream, max_frame_bytes=100)


@pytest.mark.parametrize("paradigm", ["blocking", "nonblocking"])
def test_an_agent_that_asks_for_it_has_every_stream_through_it(
    require: Callable[[str], ModuleType | str], fbc_bytes: bytes, paradigm: str
) -> None:
    require("zmq")
    arguments: dict[str, object] = dict.fromkeys(
        ("zmq.rest", "zmq.motor", "zmq.viz", "zmq.sensory"), "tcp://127.0.0.1:0"
    )
    for stream in ALL.values():
        arguments[f"transport.{stream.value}"] = f"shm.{paradigm}"
    sensed: list[bytes] = []
    came = threading.Event()

    def keep(data: SensoryData) -> None:
        sensed.append(bytes(data.fbc.view))
        came.set()

    with create_pns_with_config(PNSConfig.from_sources(arguments=arguments)) as pns:
        pns.sensory_data_received.connect(keep)
        (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
        with (
            FeagiAgent(
                AgentDescriptor("feagi-io test", "rover", 1),
                SENSORY | MOTOR | VISUALIZATION,
                registration=url,
                streams_over=ConnectionProtocol.SHARED_MEMORY,
            ) as agent,
            SharedFBC.from_bytes(fbc_bytes) as fbc,
        ):
            agent.send_sensory(fbc)
            assert came.wait(PATIENCE_MS / 1000)
            assert sensed == [fbc_bytes]
            pns.publish_motor(None, fbc)
            pns.publish_visualization(fbc)
            for receive in (agent.receive_motor, agent.receive_visualization):
                container = receive(PATIENCE_MS / 1000)
                assert container is not None
                assert container.copy_out_as_byte_vector() == fbc_bytes
            # Every stream has its doorway here, and the agent's own ring is the fourth.
            assert len([name for name in own_names() if name.endswith(".sock")]) == 4
    assert own_names() == set()
