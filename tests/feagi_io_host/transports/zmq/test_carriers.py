# SPDX-License-Identifier: Apache-2.0
"""Streams that one ZMQ transport carries for agents that another has let in, in every mixture of
threads and event loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError, ConfigError, UnknownHandleError
from feagi_io_host.core.messages import (
    DeregistrationRequest,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
)
from feagi_io_host.core.types import StreamType
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.zmq import ZmqTransport
from feagi_io_host.transports.zmq.publisher import StreamPublisher
from tests.feagi_io_host.transports.zmq.on_loop import CarriedInLoop, CarriedInThreads, LoopScene
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.scene import (
    EVERYTHING,
    MOTOR,
    ROVER,
    SCOUT,
    SENSE,
    VIEW,
    Scene,
    counter_of,
)

CARRIED = {
    StreamType.SENSORY: SENSE,
    StreamType.MOTOR: MOTOR,
    StreamType.VISUALIZATION: VIEW,
}


@pytest.fixture(params=[Scene, LoopScene, CarriedInLoop, CarriedInThreads])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    made: Scene = request.param()
    yield made
    made.close()


@pytest.mark.parametrize("streams", [(s,) for s in CARRIED] + [tuple(CARRIED)], ids=str)
def test_carried_streams_work_as_others_do(scene: Scene, streams: tuple[StreamType, ...]) -> None:
    carrier = scene.start(control_port=None)
    transport = scene.start(carriers=dict.fromkeys(streams, carrier))
    peer = scene.agent(transport)
    if set(streams) != {StreamType.SENSORY}:
        assert carrier.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    for counter in range(20):
        with scene.frame(counter) as fbc:
            sent = bytes(fbc.view)
            transport.publish_motor(peer.agent_id, fbc)
            transport.publish_visualization(fbc)
            peer.send_sensory(fbc)
        for receive in (peer.receive_motor, peer.receive_visualization):
            received = receive(DEADLINE_S)
            assert received is not None
            with received:
                assert bytes(received.view) == sent
        assert scene.host.take_sensory(peer.agent_id) == sent


def test_what_is_no_frame_is_counted_where_it_is_carried(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    peer = scene.agent(scene.start(carriers={StreamType.SENSORY: carrier}), capabilities=SENSE)
    peer.send_sensory(b"\x03" + bytes(51))
    with scene.frame(4) as fbc:
        peer.send_sensory(fbc)
    data = scene.host.take_sensory(peer.agent_id)
    assert data is not None
    assert counter_of(data) == 4
    (session,) = scene.host.sessions
    assert session.counters[StreamType.SENSORY].snapshot()["dropped"] == {"damaged": 1}


def test_when_the_agent_goes_its_carried_streams_end(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    transport = scene.start(carriers=dict.fromkeys(CARRIED, carrier))
    peer = scene.agent(transport)
    assert carrier.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    peer.ask(DeregistrationRequest(None))
    peer.wait_until_cut_off()
    with pytest.raises(UnknownHandleError):
        carrier.wait_until_subscribed(peer.agent_id, 0.0)


def test_when_the_carrier_stops_its_agents_are_out_and_others_stay(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    transport = scene.start(carriers={StreamType.VISUALIZATION: carrier})
    viewer = scene.control(transport)
    scene.register(viewer, EVERYTHING)
    mover = scene.control(transport)
    answer = mover.ask(RegistrationRequest(SCOUT, MOTOR))
    assert not isinstance(answer, RegistrationRefusal)
    carrier.stop()
    assert scene.host.left == [(viewer.agent_id, "zmq transport stopped")]
    assert [session.agent_id for session in scene.host.sessions] == [mover.agent_id]


def test_a_carrier_that_has_nothing_to_offer_keeps_the_agent_out(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    transport = scene.start(carriers={StreamType.MOTOR: carrier})
    carrier.stop()
    control = scene.control(transport)
    refusal = control.ask(RegistrationRequest(ROVER, EVERYTHING))
    assert refusal == RegistrationRefusal(RefusalReason.INVALID_REQUEST)
    assert scene.host.came == []


def test_what_was_withdrawn_is_not_served(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    session = scene.host.attach_agent(ROVER, MOTOR, bytes([1]) * 48, channel=carrier.channel)
    url = carrier.offer(session.agent_id, MOTOR)
    assert url is not None
    carrier.withdraw(session.agent_id, MOTOR)
    carrier.withdraw(session.agent_id, MOTOR)
    with pytest.raises(UnknownHandleError, match="not offered"):
        carrier.serve(session, StreamType.MOTOR)
    session.close()


def test_a_stopped_carrier_serves_nothing(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    session = scene.host.attach_agent(ROVER, SENSE, bytes([1]) * 48, channel=carrier.channel)
    assert carrier.offer(session.agent_id, SENSE) is not None
    carrier.stop()
    assert carrier.offer(session.agent_id, MOTOR) is None
    with pytest.raises(ClosedError):
        carrier.serve(session, StreamType.SENSORY)
    session.close()


def test_one_that_is_stopped_while_it_begins_to_serve_ends_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = StandInHost()
    carrier = ZmqTransport(host, control_port=None)
    carrier.start()
    session = host.attach_agent(ROVER, MOTOR, bytes([1]) * 48, channel=carrier.channel)
    assert carrier.offer(session.agent_id, MOTOR) is not None
    stopping = threading.Thread(target=carrier.stop, args=(DEADLINE_S,), daemon=True)
    start = StreamPublisher.start

    def start_late(publisher: StreamPublisher) -> None:
        stopping.start()
        assert publisher._worker._stopping.wait(DEADLINE_S)
        start(publisher)

    monkeypatch.setattr(StreamPublisher, "start", start_late)
    with pytest.raises(ClosedError, match="was stopped"):
        carrier.serve(session, StreamType.MOTOR)
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()


def test_offers_from_many_threads_are_all_different(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    urls: list[str | None] = []

    def offer(number: int) -> None:
        for capability in CARRIED.values():
            urls.append(carrier.offer(bytes([number]) * 48, capability))

    threads = [threading.Thread(target=offer, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert None not in urls
    assert len(set(urls)) == 8 * len(CARRIED)


def test_who_only_carries_has_no_control_port(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    with pytest.raises(ConfigError, match="only carries"):
        assert carrier.control_url
    assert carrier.agents == ()


def test_control_cannot_be_carried() -> None:
    carrier = ZmqTransport(StandInHost(), control_port=None)
    with pytest.raises(ConfigError, match="'control'"):
        ZmqTransport(StandInHost(), carriers={StreamType.CONTROL: carrier})


def test_capabilities_that_were_not_asked_for_are_not_carried(scene: Scene) -> None:
    carrier = scene.start(control_port=None)
    transport = scene.start(carriers={StreamType.VISUALIZATION: carrier})
    control = scene.control(transport)
    assert set(scene.register(control, MOTOR)) == {AgentCapabilities.RECEIVE_MOTOR_DATA}
    with pytest.raises(UnknownHandleError):
        carrier.wait_until_subscribed(control.agent_id, 0.0)
