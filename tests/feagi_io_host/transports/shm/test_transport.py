# SPDX-License-Identifier: Apache-2.0
"""ShmTransport beyond the contract: processes, other transports' agents, hostile callers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    DeliveryTimeoutError,
    LocalError,
    RemoteError,
    UnknownHandleError,
)
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    RegistrationRequest,
    RegistrationSuccess,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.shm import (
    RingWriter,
    ShmAgent,
    ShmMode,
    ShmTransport,
    in_order,
    newest_wins,
)
from feagi_io_host.transports.shm.names import SHM_FOLDER, name_from_url
from feagi_io_host.transports.shm.streams import SensoryIntake
from tests.feagi_io_host.transports.shm.conftest import Start, line, own_names

PATIENCE_S = 10.0
MAX_FRAME_BYTES = 100_000
ROVER = AgentDescriptor("feagi-io test", "rover", 1)
SENSORY = AgentCapabilities.SEND_SENSOR_DATA
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
VISUALIZATION = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
SHARED = ConnectionProtocol.SHARED_MEMORY
ID = bytes(range(48))


@pytest.fixture
def host() -> StandInHost:
    return StandInHost(
        delivery_table(capacity={StreamType.MOTOR: 2}, deadline_s={StreamType.MOTOR: 0.05})
    )


@pytest.fixture
def transport(host: StandInHost) -> Iterator[ShmTransport]:
    with ShmTransport(host, max_frame_bytes=MAX_FRAME_BYTES, motor_slots=2) as transport:
        yield transport


def until(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s, "it never happened"
        time.sleep(0.001)


def is_there(url: str) -> bool:
    name = name_from_url(url)
    return bool({name, name + ".sock"} & set(os.listdir(SHM_FOLDER)))


def as_json(endpoints: object) -> str:
    assert hasattr(endpoints, "items")
    return json.dumps({capability.name: url for capability, url in endpoints.items()})


# -- across processes -----------------------------------------------------------------------------


def test_frames_go_to_another_process_and_back(
    start: Start, host: StandInHost, transport: ShmTransport, fbc_bytes: bytes
) -> None:
    invitation = transport.admit(ROVER, SENSORY | MOTOR)
    agent = start("agent", as_json(invitation.endpoints))
    assert line(agent) == "ready"
    with SharedFBC.from_bytes(fbc_bytes) as fbc:
        fbc.emitted_at_s = 0.0
        for _ in range(100):
            transport.publish_motor(invitation.agent_id, fbc)
            assert host.take_sensory(invitation.agent_id, PATIENCE_S) == fbc_bytes
    (session,) = host.sessions
    assert session.time_to_wire[StreamType.MOTOR].count == 100
    transport.stop()
    assert "was closed by its writer" in line(agent)
    assert not any(is_there(url) for url in invitation.endpoints.values())


def test_a_killed_agent_holds_motor_to_its_deadline_and_may_come_again(
    start: Start, host: StandInHost, transport: ShmTransport, fbc_bytes: bytes
) -> None:
    first = transport.admit(ROVER, SENSORY | MOTOR, ID)
    agent = start("agent", as_json(first.endpoints))
    assert line(agent) == "ready"
    with SharedFBC.from_bytes(fbc_bytes) as fbc:
        transport.publish_motor(ID, fbc)
        assert host.take_sensory(ID, PATIENCE_S) == fbc_bytes
        agent.kill()
        agent.wait()
        # Nobody takes them: the channel of 2, one in the thread's hands, and what the ring took
        # before the death was seen.
        taken = 0
        with pytest.raises(DeliveryTimeoutError):  # noqa: PT012
            for _ in range(2 + 1 + 2 + 1):
                transport.publish_motor(ID, fbc)
                taken += 1
        assert taken >= 2
        again = transport.admit(ROVER, SENSORY | MOTOR, ID)
        assert not any(is_there(url) for url in first.endpoints.values())
        agent = start("agent", as_json(again.endpoints))
        assert line(agent) == "ready"
        transport.publish_motor(ID, fbc)
        assert host.take_sensory(ID, PATIENCE_S) == fbc_bytes


def test_a_task_receives(transport: ShmTransport, fbc_bytes: bytes) -> None:
    invitation = transport.admit(ROVER, MOTOR | VISUALIZATION)

    async def main() -> None:
        with ShmAgent(invitation.endpoints) as agent, SharedFBC.from_bytes(fbc_bytes) as fbc:
            transport.publish_motor(invitation.agent_id, fbc)
            transport.publish_visualization(fbc)
            for receive in (agent.receive_motor_async, agent.receive_visualization_async):
                got = await receive(PATIENCE_S)
                assert got is not None
                with got:
                    assert bytes(got.view) == fbc_bytes
                assert await receive(0.0) is None

    asyncio.run(main())


# -- for agents of other transports ---------------------------------------------------------------


def test_offers_are_for_shared_memory_and_are_taken_back(transport: ShmTransport) -> None:
    assert transport.protocol is SHARED
    for capability in (SENSORY, MOTOR, VISUALIZATION):
        url = transport.offer(ID, capability)
        assert url is not None
        assert is_there(url)
        newer = transport.offer(ID, capability)
        assert newer is not None
        assert is_there(newer)
        assert not is_there(url)
        for _ in range(2):
            transport.withdraw(ID, capability)
        assert not is_there(newer)


def test_what_is_served_lasts_as_long_as_the_agent(
    host: StandInHost, transport: ShmTransport, fbc_bytes: bytes
) -> None:
    endpoints = {capability: transport.offer(ID, capability) for capability in (
        SENSORY, MOTOR, VISUALIZATION,
    )}  # fmt: skip
    urls = {capability: url for capability, url in endpoints.items() if url is not None}
    assert len(urls) == 3
    session = host.attach_agent(
        ROVER, SENSORY | MOTOR | VISUALIZATION, ID, channel=transport.channel
    )
    for stream in (StreamType.SENSORY, StreamType.MOTOR, StreamType.VISUALIZATION):
        transport.serve(session, stream)
    for capability in urls:
        transport.withdraw(ID, capability)  # does nothing: it is served
    with ShmAgent(urls) as agent, SharedFBC.from_bytes(fbc_bytes) as fbc:
        assert session.press_motor(fbc)
        session.show(fbc)
        agent.send_sensory(fbc)
        for receive in (agent.receive_motor, agent.receive_visualization):
            got = receive(PATIENCE_S)
            assert got is not None
            got.release()
        assert host.take_sensory(ID, PATIENCE_S) == fbc_bytes
        session.close()
        with pytest.raises(ClosedError):
            agent.receive_motor(PATIENCE_S)
        until(lambda: not any(is_there(url) for url in urls.values()))
        with pytest.raises(ClosedError, match="ended this agent's sensory stream"):
            agent.send_sensory(fbc)
    assert transport._streams == {}


def test_what_was_not_offered_or_runs_no_more_is_not_served(
    host: StandInHost, transport: ShmTransport
) -> None:
    session = host.attach_agent(ROVER, MOTOR, ID)
    with pytest.raises(LocalError, match="nothing was offered for the motor stream"):
        transport.serve(session, StreamType.MOTOR)
    transport.stop()
    with pytest.raises(ClosedError):
        transport.serve(session, StreamType.MOTOR)
    with pytest.raises(ClosedError):
        transport.offer(ID, MOTOR)
    transport.withdraw(ID, MOTOR)


def test_a_zmq_control_channel_hands_out_shared_memory(
    require: Callable[[str], ModuleType | str],
    host: StandInHost,
    transport: ShmTransport,
    fbc_bytes: bytes,
) -> None:
    require("zmq")
    from feagi_io_host.transports.zmq import ZmqTransport
    from tests.feagi_io_host.transports.zmq.peer import ControlPeer

    streams = (StreamType.SENSORY, StreamType.MOTOR, StreamType.VISUALIZATION)
    everything = SENSORY | MOTOR | VISUALIZATION
    with ZmqTransport(
        host,
        control_port=0,
        carriers=dict.fromkeys(streams, transport),
        max_frame_bytes=MAX_FRAME_BYTES,
    ) as control:
        peer = ControlPeer(control.control_url)
        try:
            answer = peer.ask(RegistrationRequest(ROVER, everything, SHARED))
            assert isinstance(answer, RegistrationSuccess), answer
            urls = {capability: endpoint.url for capability, endpoint in answer.endpoints.items()}
            assert all(url.startswith("shm://feagi-io-") for url in urls.values())
            with ShmAgent(urls) as agent, SharedFBC.from_bytes(fbc_bytes) as fbc:
                control.publish_motor(None, fbc)
                control.publish_visualization(fbc)
                agent.send_sensory(fbc)
                for receive in (agent.receive_motor, agent.receive_visualization):
                    got = receive(PATIENCE_S)
                    assert got is not None
                    with got:
                        assert bytes(got.view) == fbc_bytes
                (session,) = host.sessions
                assert host.take_sensory(session.agent_id, PATIENCE_S) == fbc_bytes
                control.stop()
                with pytest.raises(ClosedError):
                    agent.receive_motor(PATIENCE_S)
        finally:
            peer.close()
        until(lambda: not any(is_there(url) for url in urls.values()))


@pytest.mark.parametrize(
    ("asked", "given"), [(SHARED, "shm://"), (ConnectionProtocol.ZMQ, "tcp://")]
)
def test_who_asks_for_zmq_is_given_zmq_beside_it(
    host: StandInHost, transport: ShmTransport, asked: ConnectionProtocol, given: str
) -> None:
    from feagi_io_host.transports.zmq import ZmqTransport
    from tests.feagi_io_host.transports.zmq.peer import ControlPeer

    shown = {StreamType.VISUALIZATION: transport}
    with ZmqTransport(host, control_port=0, carriers=shown) as control:
        peer = ControlPeer(control.control_url)
        try:
            answer = peer.ask(RegistrationRequest(ROVER, MOTOR | VISUALIZATION, asked))
            assert isinstance(answer, RegistrationSuccess), answer
            shown_at, moved_at = answer.endpoints[VISUALIZATION], answer.endpoints[MOTOR]
            assert shown_at.protocol is asked
            assert shown_at.url.startswith(given)
            assert moved_at.protocol is ConnectionProtocol.ZMQ
            assert moved_at.url.startswith("tcp://")
        finally:
            peer.close()


def test_a_configuration_may_name_it_for_every_stream_of_data(fbc_bytes: bytes) -> None:
    from tests.feagi_io_host.transports.zmq.peer import ControlPeer

    anywhere = dict.fromkeys(
        ("zmq.rest", "zmq.motor", "zmq.viz", "zmq.sensory"), "tcp://127.0.0.1:0"
    )
    shared = {f"transport.{name}": "shm" for name in ("sensory", "motor", "visualization")}
    config = PNSConfig.from_sources(arguments={**anywhere, **shared})
    with create_pns_with_config(config) as pns:
        sensed: list[bytes] = []
        came = threading.Event()

        def keep(data: SensoryData) -> None:
            sensed.append(bytes(data.fbc.view))
            came.set()

        pns.sensory_data_received.connect(keep)
        (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
        peer = ControlPeer(url)
        try:
            answer = peer.ask(RegistrationRequest(ROVER, SENSORY | MOTOR | VISUALIZATION, SHARED))
            assert isinstance(answer, RegistrationSuccess), answer
            urls = {capability: endpoint.url for capability, endpoint in answer.endpoints.items()}
            with ShmAgent(urls) as agent, SharedFBC.from_bytes(fbc_bytes) as fbc:
                agent.send_sensory(fbc)
                assert came.wait(PATIENCE_S)
                assert sensed == [fbc_bytes]
                pns.publish_visualization(fbc)
                got = agent.receive_visualization(PATIENCE_S)
                assert got is not None
                got.release()
        finally:
            peer.close()
    until(lambda: not any(is_there(url) for url in urls.values()))


# -- hostile and unlucky --------------------------------------------------------------------------


def intake_socket(url: str) -> str:
    return str(SHM_FOLDER / (name_from_url(url) + ".sock"))


def test_callers_that_name_no_ring_are_cut_off_and_harm_nobody(
    host: StandInHost, transport: ShmTransport, fbc_bytes: bytes
) -> None:
    invitation = transport.admit(ROVER, SENSORY)
    url = invitation.endpoints[SENSORY]
    with (
        RingWriter(newest_wins(300 << 20)) as large,
        RingWriter(newest_wins(100, mode=ShmMode.DIRECT)) as direct,
        ShmAgent(invitation.endpoints, max_frame_bytes=MAX_FRAME_BYTES) as agent,
    ):
        agent.send_sensory(fbc_bytes)
        assert host.take_sensory(invitation.agent_id, PATIENCE_S) == fbc_bytes
        for said in (
            b"\xff" * 200,
            b"../../etc/passwd",
            b"feagi-io-1-" + b"0" * 32,
            name_from_url(large.url).encode(),
            name_from_url(direct.url).encode(),
        ):
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(PATIENCE_S)
                caller.connect(intake_socket(url))
                caller.send(said)
                # A reset when it was cut off before all was read that it said.
                with contextlib.suppress(ConnectionResetError):
                    assert caller.recv(10) in (b"\0", b"")
        # Those who say nothing are four at most, and the agent is not one of them.
        silent = [socket.socket(socket.AF_UNIX) for _ in range(6)]
        try:
            for caller in silent:
                caller.settimeout(PATIENCE_S)
                caller.connect(intake_socket(url))
            assert [caller.recv(10) for caller in silent[4:]] == [b"\0", b"\0"]
        finally:
            for caller in silent:
                caller.close()
        agent.send_sensory(fbc_bytes)
        assert host.take_sensory(invitation.agent_id, PATIENCE_S) == fbc_bytes
    # The agent in a new process takes the place of the old one.
    with ShmAgent(invitation.endpoints, max_frame_bytes=MAX_FRAME_BYTES) as agent:
        agent.send_sensory(fbc_bytes)
        assert host.take_sensory(invitation.agent_id, PATIENCE_S) == fbc_bytes


def test_what_is_damaged_or_overtaken_is_counted(host: StandInHost, fbc_bytes: bytes) -> None:
    intake = SensoryIntake(MAX_FRAME_BYTES, SHM_FOLDER)
    with ShmAgent({SENSORY: intake.url}, max_frame_bytes=MAX_FRAME_BYTES) as agent:
        # Before anybody listens: the last of them lies there, the others were overtaken.
        for _ in range(5):
            agent.send_sensory(fbc_bytes)
        session = host.attach_agent(ROVER, SENSORY, ID)
        ended: list[bool] = []
        intake.start(session, lambda: ended.append(True))
        assert host.take_sensory(ID, PATIENCE_S) == fbc_bytes
        agent.send_sensory(b"\xff" * 100)
        until(lambda: session.counters[StreamType.SENSORY].dropped == 5)
        assert session.counters[StreamType.SENSORY].snapshot()["dropped"] == {
            "overtaken": 4,
            "damaged": 1,
        }
        with ShmAgent({SENSORY: intake.url}) as other:  # it may write more than is taken here
            other.send_sensory(bytes(MAX_FRAME_BYTES + 1))
            until(lambda: session.counters[StreamType.SENSORY].dropped == 6)
            assert session.counters[StreamType.SENSORY].snapshot()["dropped"]["too large"] == 1  # type: ignore[index]
            other.send_sensory(fbc_bytes)
            assert host.take_sensory(ID, PATIENCE_S) == fbc_bytes
        session.close()
        intake.stop(PATIENCE_S)
    assert ended == [True]
    with pytest.raises(RemoteError, match="nobody listens"):
        ShmAgent({SENSORY: intake.url})


def test_an_agent_skips_what_is_no_container(fbc_bytes: bytes) -> None:
    with (
        RingWriter(in_order(1000)) as motor,
        RingWriter(newest_wins(1000)) as visualization,
        ShmAgent({MOTOR: motor.url, VISUALIZATION: visualization.url}) as agent,
    ):
        for writer, receive in (
            (motor, agent.receive_motor),
            (visualization, agent.receive_visualization),
        ):
            writer.write(b"\x04 and nonsense")
            assert receive(0.0) is None
            writer.write(fbc_bytes)
            got = receive(PATIENCE_S)
            assert got is not None
            with got:
                assert bytes(got.view) == fbc_bytes
        assert agent.damaged == 2
        with pytest.raises(LocalError, match="ask for SEND_SENSOR_DATA"):
            agent.send_sensory(fbc_bytes)
    with ShmAgent({}) as nothing, pytest.raises(LocalError, match="ask for RECEIVE_MOTOR_DATA"):
        nothing.receive_motor(0.0)


def test_a_segment_that_somebody_removes_before_the_agent_came_ends_the_agent(
    host: StandInHost, transport: ShmTransport
) -> None:
    invitation = transport.admit(ROVER, MOTOR)
    (SHM_FOLDER / name_from_url(invitation.endpoints[MOTOR])).unlink()
    until(lambda: host.sessions == ())
    assert "removed by somebody" in host.left[0][1]
    with SharedFBC.from_bytes(b"\x04" + bytes(51)) as fbc, pytest.raises(UnknownHandleError):
        transport.publish_motor(invitation.agent_id, fbc)


def test_an_agent_of_endpoints_that_are_gone_is_an_error_that_leaves_nothing(
    transport: ShmTransport,
) -> None:
    invitation = transport.admit(ROVER, SENSORY | MOTOR | VISUALIZATION)
    transport.dismiss(invitation.agent_id)
    transport.dismiss(invitation.agent_id)
    for capability in invitation.endpoints:
        with pytest.raises(RemoteError, match=r"there is no segment|nobody listens"):
            ShmAgent({capability: invitation.endpoints[capability]})


def test_where_there_is_no_shared_memory_start_says_what_to_do(
    host: StandInHost, tmp_path: Path
) -> None:
    transport = ShmTransport(host, folder=tmp_path / "none")
    with pytest.raises(LocalError, match=r"there is no .*none; mount a tmpfs .* ZMQ"):
        transport.start()
    transport.stop()
    for settings in ({"max_frame_bytes": 0}, {"motor_slots": 1}):
        with pytest.raises(ConfigError):
            ShmTransport(host, **settings)  # type: ignore[arg-type]


def test_a_system_that_has_no_more_is_an_agent_refused_and_nothing_left(
    host: StandInHost, transport: ShmTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_left(*_: object, **__: object) -> None:
        raise LocalError("no room for 5 bytes")

    before = own_names()
    monkeypatch.setattr("feagi_io_host.transports.shm.ring.Doorway", nothing_left)
    with pytest.raises(LocalError, match="no room"):
        transport.admit(ROVER, SENSORY | MOTOR)
    assert host.sessions == ()
    assert transport.offer(ID, MOTOR) is None
    assert own_names() == before
