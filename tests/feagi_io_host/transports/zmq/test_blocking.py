# SPDX-License-Identifier: Apache-2.0
"""ZmqTransport, and its twin for event loops: registration over real sockets, ports, garbage,
silence and large frames."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ConfigError, LocalError, PortBusyError, UnknownHandleError
from feagi_io_host.core.messages import (
    AgentConfiguration,
    DeregistrationRequest,
    DeregistrationResponse,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
    RegistrationSuccess,
    encode_control,
)
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.testing import FakeClock, StandInHost
from feagi_io_host.transports.zmq import AsyncZmqTransport, SocketOptions, ZmqTransport
from feagi_io_host.transports.zmq.async_publisher import AsyncStreamPublisher
from feagi_io_host.transports.zmq.common import COPY_LIMIT_BYTES
from feagi_io_host.transports.zmq.publisher import StreamPublisher
from tests.feagi_io_host.transports.zmq.on_loop import OnLoop
from tests.feagi_io_host.transports.zmq.peer import (
    CONFIGURATION,
    DEADLINE_S,
    ControlPeer,
    ZmqPeer,
)

ROVER = AgentDescriptor("feagi-io test", "rover", 1)
SCOUT = AgentDescriptor("feagi-io test", "scout", 1)
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA | MOTOR | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
EYE = CorticalID.try_from_bytes(b"iimg\x09\0\0\0")

Start = Callable[..., ZmqTransport]
Connect = Callable[..., ControlPeer]


@pytest.fixture(params=[ZmqTransport, OnLoop])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start transports on free ports; all are stopped at the end."""
    running: list[ZmqTransport] = []

    def make(host: StandInHost | None = None, **settings: object) -> ZmqTransport:
        options = {"control_port": 0, **settings}
        transport: ZmqTransport = request.param(host or StandInHost(), **options)
        running.append(transport)
        transport.start()
        return transport

    yield make
    for transport in running:
        transport.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Open control connections; all are closed at the end."""
    peers: list[ControlPeer] = []

    def make(transport: ZmqTransport, identity: bytes | None = None) -> ControlPeer:
        peers.append(ControlPeer(transport.control_url, identity))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def agent() -> Iterator[Callable[..., ZmqPeer]]:
    """Register agents; all leave at the end."""
    peers: list[ZmqPeer] = []

    def make(
        transport: ZmqTransport,
        descriptor: AgentDescriptor = ROVER,
        capabilities: AgentCapabilities = EVERYTHING,
    ) -> ZmqPeer:
        peers.append(
            ZmqPeer(transport.control_url, descriptor, capabilities, transport.max_frame_bytes)
        )
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


# -- coming and going -------------------------------------------------------------------------


def test_an_agent_comes_lives_and_goes(start: Start, connect: Connect) -> None:
    host = StandInHost()
    peer = connect(start(host))
    answer = peer.ask(RegistrationRequest(ROVER, EVERYTHING))
    assert isinstance(answer, RegistrationSuccess)
    assert set(answer.endpoints) == set(EVERYTHING)
    assert len({end.url for end in answer.endpoints.values()}) == 3
    assert host.came == [answer.agent_id] == [peer.agent_id]
    assert peer.ask(HeartBeat()) == HeartBeat()
    assert peer.ask(CONFIGURATION) == HeartBeat()
    health = peer.ask(HealthCheckRequest())
    assert isinstance(health, HealthReport)
    assert health.connected_agents == 1
    assert peer.ask(DeregistrationRequest("done")) == DeregistrationResponse(True)
    assert host.left == [(answer.agent_id, "left: 'done'")]
    assert peer.ask(DeregistrationRequest(None)) == DeregistrationResponse(False)


def test_the_same_identity_gets_the_same_agent_id_again(start: Start, connect: Connect) -> None:
    transport = start()
    ids = []
    for _ in range(2):
        peer = connect(transport, b"me again")
        answer = peer.ask(RegistrationRequest(ROVER, MOTOR))
        assert isinstance(answer, RegistrationSuccess)
        peer.ask(DeregistrationRequest(None))
        ids.append(answer.agent_id)
        peer.close()
        # Until the library has put the old connection away it refuses another of that name.
        witness = connect(transport)
        for _ in range(5):
            assert witness.ask(DeregistrationRequest(None)) == DeregistrationResponse(False)
    assert ids[0] == ids[1]


@pytest.mark.parametrize("shape", ["bare", "named", "long"])
def test_delimiter_and_further_parts_do_not_matter(
    start: Start, connect: Connect, shape: str
) -> None:
    peer = connect(start())
    data = encode_control(RegistrationRequest(ROVER, MOTOR))
    parts = {
        "bare": (data,),
        "named": (b"not empty", data),
        "long": (b"", data, b"more", bytes(100_000)),
    }
    peer.send_raw(*parts[shape])
    assert isinstance(peer.answer(), RegistrationSuccess)


def test_a_token_is_checked(start: Start, connect: Connect) -> None:
    token = bytes(range(32))
    peer = connect(start(token=token))
    assert peer.ask(RegistrationRequest(ROVER, MOTOR)) == RegistrationRefusal(
        RefusalReason.INVALID_AUTH
    )
    answer = peer.ask(RegistrationRequest(ROVER, MOTOR, auth_token=token))
    assert isinstance(answer, RegistrationSuccess)


def test_configurations_are_put_to_who_asked_for_them(start: Start, connect: Connect) -> None:
    seen: list[tuple[bytes, AgentConfiguration]] = []

    def refuse_first(agent_id: bytes, configuration: AgentConfiguration) -> bool:
        seen.append((agent_id, configuration))
        return len(seen) > 1

    peer = connect(start(on_configured=refuse_first))
    peer.ask(RegistrationRequest(ROVER, MOTOR))
    peer.send_raw(b"", encode_control(CONFIGURATION))  # refused: no answer
    assert peer.ask(HealthCheckRequest()) != HeartBeat()
    assert peer.ask(CONFIGURATION) == HeartBeat()
    assert seen == [(peer.agent_id, CONFIGURATION)] * 2


def test_a_fault_in_who_is_asked_refuses_one_agent_only(start: Start, connect: Connect) -> None:
    def fail(agent_id: bytes, configuration: AgentConfiguration) -> bool:
        raise RuntimeError("no idea")

    peer = connect(start(on_configured=fail))
    peer.ask(RegistrationRequest(ROVER, MOTOR))
    peer.send_raw(b"", encode_control(CONFIGURATION))
    assert isinstance(peer.ask(HealthCheckRequest()), HealthReport)


def test_an_agent_that_cannot_be_served_leaves_nothing_behind(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(publisher: StreamPublisher) -> None:
        raise RuntimeError("can't start new thread")

    def no_watch(publisher: AsyncStreamPublisher) -> None:
        raise LocalError("the system watches no more sockets")

    host = StandInHost()
    transport = start(host)
    peer = connect(transport)
    with monkeypatch.context() as patch:
        patch.setattr(StreamPublisher, "start", no_thread)
        patch.setattr(AsyncStreamPublisher, "start", no_watch)
        peer.send_raw(b"", encode_control(RegistrationRequest(ROVER, EVERYTHING)))
        # Answered when the request before was dealt with; that one itself got no answer.
        assert peer.ask(DeregistrationRequest(None)) == DeregistrationResponse(False)
    assert host.sessions == ()
    assert len(transport.registry) == 0
    assert isinstance(peer.ask(RegistrationRequest(ROVER, EVERYTHING)), RegistrationSuccess)


def test_silent_agents_are_swept(start: Start, connect: Connect) -> None:
    clock, host = FakeClock(), StandInHost()
    transport = start(host, clock=clock, silence_timeout_s=30.0)
    silent, lively = connect(transport), connect(transport)
    silent.ask(RegistrationRequest(ROVER, MOTOR))
    lively.ask(RegistrationRequest(SCOUT, MOTOR))
    clock.advance(20.0)
    lively.ask(HeartBeat())
    clock.advance(15.0)
    # The sweep comes after the messages of a turn, of which there are at most sixteen.
    for _ in range(17):
        lively.ask(HeartBeat())
    assert host.left == [(silent.agent_id, "silent for 30.0 s")]
    assert [session.agent_id for session in host.sessions] == [lively.agent_id]


def test_who_the_host_detaches_is_out(start: Start, agent: Callable[..., ZmqPeer]) -> None:
    host = StandInHost()
    transport = start(host)
    peer = agent(transport)
    (session,) = host.sessions
    # Who is not connected yet cannot be seen to be cut off.
    assert transport.wait_until_subscribed(session.agent_id, DEADLINE_S)
    session.close("the brain has enough of it")
    peer.wait_until_cut_off()
    assert transport.agents == ()
    assert peer.ask(DeregistrationRequest(None)) == DeregistrationResponse(False)


# -- ports ------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_clear_error(start: Start) -> None:
    port = int(start().control_url.rpartition(":")[2])
    second = ZmqTransport(StandInHost(), control_port=port)
    with pytest.raises(PortBusyError, match=rf"127\.0\.0\.1:{port} is in use"):
        second.start()
    second.stop()


def test_a_range_of_ports_bounds_the_agents_and_is_used_again(
    start: Start, connect: Connect
) -> None:
    ports = [_free_port() for _ in range(2)]
    transport = start(data_ports=ports)
    first, second = connect(transport), connect(transport)
    both = AgentCapabilities.SEND_SENSOR_DATA | MOTOR
    answer = first.ask(RegistrationRequest(ROVER, both))
    assert isinstance(answer, RegistrationSuccess)
    used = {int(end.url.rpartition(":")[2]) for end in answer.endpoints.values()}
    assert used == set(ports)
    refused = second.ask(RegistrationRequest(SCOUT, MOTOR))
    assert refused == RegistrationRefusal(RefusalReason.INVALID_REQUEST)
    first.ask(DeregistrationRequest(None))
    # The system takes a moment to let go of a port; an agent asks again, as here.
    for _ in range(1000):
        if isinstance(second.ask(RegistrationRequest(SCOUT, MOTOR)), RegistrationSuccess):
            return
    pytest.fail("the ports were never free again")


def test_other_protocols_are_refused(start: Start, connect: Connect) -> None:
    from feagi_io_host.core.messages import ConnectionProtocol

    answer = connect(start()).ask(
        RegistrationRequest(ROVER, MOTOR, ConnectionProtocol.SHARED_MEMORY)
    )
    assert answer == RegistrationRefusal(RefusalReason.INVALID_REQUEST)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"address": "0.0.0.0"}, "no token"),
        ({"address": "0.0.0.0", "open_to_everybody": True}, "advertised_address"),
        ({"token": b"short"}, "token of 5 bytes"),
        ({"control_port": 70000}, "port 70000"),
        ({"address": "192.0.2.1", "token": bytes(32)}, "one of this machine's"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, object], match: str) -> None:
    def live() -> None:
        options = {"control_port": 0, **settings}
        ZmqTransport(StandInHost(), **options).start()  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=match):
        live()

    async def live_in_loop() -> None:
        options = {"control_port": 0, **settings}
        await AsyncZmqTransport(StandInHost(), **options).start()  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=match):
        asyncio.run(live_in_loop())
    with pytest.raises(ConfigError, match="motor_frames is 0"):
        SocketOptions(motor_frames=0)


def test_unknown_agents_are_not_waited_for(start: Start) -> None:
    with pytest.raises(UnknownHandleError, match="0 others"):
        start().wait_until_subscribed(bytes(48), DEADLINE_S)


# -- bad input --------------------------------------------------------------------------------


def test_garbage_gets_silence_is_counted_and_harms_nobody(start: Start, connect: Connect) -> None:
    generator = random.Random(1)
    rate = Rate(per_s=1e6, burst=1_000_000)
    transport = start(limits=ServerLimits(peer_rate=rate, newcomer_rate=rate))
    hostile, agent = connect(transport), connect(transport)
    sent = 300
    for _ in range(sent):
        hostile.send_raw(b"", generator.randbytes(generator.randrange(0, 1100)))
    hostile.send_raw(b"", bytes(1025))
    assert isinstance(agent.ask(RegistrationRequest(ROVER, MOTOR)), RegistrationSuccess)
    # Silence until now: the first answer is the one to the first readable message.
    assert isinstance(hostile.ask(RegistrationRequest(SCOUT, MOTOR)), RegistrationSuccess)
    ignored = transport.counters()["ignored"]
    assert ignored["unreadable"] + ignored["oversized"] == sent + 1
    assert ignored["oversized"] >= 1


def test_a_thousand_registrations_at_once_leave_others_alone(
    start: Start, connect: Connect
) -> None:
    transport = start()
    agent, flood = connect(transport), connect(transport)
    agent.ask(RegistrationRequest(ROVER, MOTOR))
    data = encode_control(RegistrationRequest(SCOUT, MOTOR))
    for _ in range(1000):
        flood.send_raw(b"", data)
    for _ in range(20):
        assert agent.ask(HeartBeat()) == HeartBeat()
    assert len(transport.registry) <= 2
    assert transport.counters()["registered"] <= 2


def test_sensory_messages_of_several_parts_are_damaged(
    start: Start, agent: Callable[..., ZmqPeer]
) -> None:
    host = StandInHost()
    peer = agent(start(host))
    stream = peer._streams[AgentCapabilities.SEND_SENSOR_DATA]
    empty = bytes([4]) + bytes(51)
    stream.send_multipart([empty, empty])
    stream.send(empty)
    assert host.take_sensory(peer.agent_id) == empty
    (session,) = host.sessions
    assert session.counters[StreamType.SENSORY].snapshot()["dropped"] == {"damaged": 1}


# -- frames -----------------------------------------------------------------------------------


def test_frames_before_the_subscription_wait_for_it(start: Start, connect: Connect) -> None:
    host = StandInHost()
    transport = start(host)
    peer = connect(transport)
    answer = peer.ask(RegistrationRequest(ROVER, MOTOR))
    assert isinstance(answer, RegistrationSuccess)
    pool = BufferPool()
    for counter in range(10):
        container = pool.acquire()
        container.overwrite_byte_data_with_multiple_struct_data([], counter)
        with pool.share(container) as fbc:
            transport.publish_motor(peer.agent_id, fbc)
    with peer.context.socket(zmq.SUB) as late:
        late.rcvtimeo = int(DEADLINE_S * 1000)
        late.subscribe(b"")
        late.connect(answer.endpoints[MOTOR].url)
        assert [late.recv()[1] for _ in range(10)] == list(range(10))


def test_large_frames_are_not_copied_and_their_memory_is_used_again(
    start: Start, agent: Callable[..., ZmqPeer]
) -> None:
    host = StandInHost()
    transport = start(host)
    peer = agent(transport)
    assert transport.wait_until_subscribed(peer.agent_id, DEADLINE_S)
    pool = BufferPool()
    neurons = COPY_LIMIT_BYTES // 16 + 1
    try:
        for burst in range(20):
            container = pool.acquire()
            columns = container.reserve_xyzp([(EYE, neurons)], burst)[EYE]
            for column in columns:
                column[:] = np.arange(neurons) + burst
            with pool.share(container) as fbc:
                sent = bytes(fbc.view)
                transport.publish_motor(peer.agent_id, fbc)
                peer.send_sensory(fbc)
            received = peer.receive_motor(DEADLINE_S)
            assert received is not None
            with received:
                assert bytes(received.view) == sent
            assert host.take_sensory(peer.agent_id) == sent
        # The library says with some delay that it is done with one.
        assert pool.counters()["created"] <= 10
    finally:
        transport.stop()
        peer.close()
        collector.stop()  # the thread by which pyzmq gives large messages back; one per process
    assert pool.counters()["leased"] == 0


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
