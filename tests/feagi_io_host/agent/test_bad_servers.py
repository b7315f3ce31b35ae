# SPDX-License-Identifier: Apache-2.0
"""Both agents at servers that are silent, hostile or confused, and at themselves misused."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable
from queue import SimpleQueue

import pytest

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.core.client_actions import AgentState
from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LocalError,
    RegistrationRefusedError,
)
from feagi_io_host.core.messages import (
    AgentConfiguration,
    ConnectionProtocol,
    DeregistrationRequest,
    Endpoint,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    ReceivedMessage,
    RegistrationRequest,
    TimestepReport,
    TimestepRequest,
    encode_control,
)
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.transports.zmq.client_sockets import MAX_CONTROL_BYTES, AgentSockets
from tests.feagi_io_host.agent.conftest import MakeAgent
from tests.feagi_io_host.agent.server import (
    DEADLINE_S,
    ID,
    MOVE,
    SENSE,
    VIEW,
    Replies,
    ScriptedServer,
    good,
)
from tests.feagi_io_host.agent.test_agents import DETAILS, States, frame, number, voxels

S = AgentState
EMPTY = bytes([4]) + bytes(51)
GENERATOR = random.Random(1)
GARBAGE = [GENERATOR.randbytes(GENERATOR.randrange(0, 400)) for _ in range(100)]


def test_a_silent_server_is_given_up_at_the_deadline(make_agent: MakeAgent) -> None:
    with ScriptedServer(lambda *_: None) as server:
        agent = make_agent(server.url)
        with pytest.raises(DeliveryTimeoutError, match="is a FEAGI engine or PNS listening"):
            agent.connect(0.2)
        assert agent.state is S.ERRORED
        assert isinstance(server.hear(RegistrationRequest), RegistrationRequest)
        assert server.heard.empty()
        server.script = good
        agent.connect(DEADLINE_S)
        assert agent.state is S.ACTIVE_WAITING
        assert agent.agent_id == ID


def test_a_server_that_falls_silent_is_registered_with_again(make_agent: MakeAgent) -> None:
    def deaf(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        return None if isinstance(message, HeartBeat) else good(server, message)

    with ScriptedServer(deaf) as server:
        agent = make_agent(server.url)
        states = States(agent)
        agent.connect(DEADLINE_S)
        server.hear(RegistrationRequest)
        server.hear(RegistrationRequest)
        server.script = good
        states.until(S.ACTIVE_WAITING)
        server.await_subscriber(server.motor)
        agent.close()
        server.hear(DeregistrationRequest)


def test_a_server_that_does_not_let_go_is_left_in_time(make_agent: MakeAgent) -> None:
    def deaf(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        return None if isinstance(message, DeregistrationRequest) else good(server, message)

    with ScriptedServer(deaf) as server:
        agent = make_agent(server.url)
        agent.connect(DEADLINE_S)
        agent.close(0.2)
        assert agent.state is not S.ACTIVE_WAITING


def test_garbage_on_every_socket_is_counted_and_no_more(make_agent: MakeAgent) -> None:
    def noisy(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        noise = [[b"", data] for data in GARBAGE] + [[b"", b"", EMPTY, b"x"], [EMPTY]]
        noise += [[b"", encode_control(HealthReport(True, True, True), ID)]]
        return noise + (good(server, message) or [])

    with ScriptedServer(noisy) as server:
        agent = make_agent(server.url)
        agent.connect(DEADLINE_S)
        for stream, receive, name in (
            (server.motor, agent.receive_motor, "motor"),
            (server.visualization, agent.receive_visualization, "visualization"),
        ):
            server.await_subscriber(stream)
            for data in GARBAGE:
                stream.send(data)
            stream.send_multipart([EMPTY, EMPTY])
            with frame(9) as fbc:
                stream.send(fbc.view)
            assert number(receive(DEADLINE_S)) == 9
            row = agent.counters()[name]
            assert row["dropped"] == {"damaged": len(GARBAGE) + 1}
            assert row["sent"] == len(GARBAGE) + 2
        assert agent.counters()["control_ignored"] >= len(GARBAGE)
        assert agent.counters()["registrations"] == 1


def test_what_is_too_large_ends_one_connection_only(make_agent: MakeAgent) -> None:
    with ScriptedServer() as server:
        agent = make_agent(server.url, capabilities=MOVE, max_frame_bytes=1000)
        agent.connect(DEADLINE_S)
        server.await_subscriber(server.motor)
        server.motor.send(EMPTY + bytes(1000))
        # It is cut off before memory is taken, and subscribes anew.
        assert server.motor.recv() == b"\x00"
        server.await_subscriber(server.motor)
        with frame(9) as fbc:
            server.motor.send(fbc.view)
        assert number(agent.receive_motor(DEADLINE_S)) == 9


def test_an_oversized_answer_costs_the_registration_only(make_agent: MakeAgent) -> None:
    def boasting(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        if isinstance(message, HeartBeat):
            server.script = good
            return [[b"", EMPTY + bytes(MAX_CONTROL_BYTES)]]
        return good(server, message)

    with ScriptedServer(boasting) as server:
        agent = make_agent(server.url)
        agent.connect(DEADLINE_S)
        server.hear(RegistrationRequest)
        server.hear(RegistrationRequest)


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(ConnectionProtocol.ZMQ, "ipc://somewhere"),
        Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:*"),
        Endpoint(ConnectionProtocol.ZMQ, "inproc://inside"),
        Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:1;tcp://127.0.0.1:2"),
        Endpoint(ConnectionProtocol.WEBSOCKET, "ws://127.0.0.1:1"),
    ],
)
def test_addresses_that_lead_elsewhere_are_not_followed(
    make_agent: MakeAgent, endpoint: Endpoint
) -> None:
    with ScriptedServer() as server:
        server.endpoints = {MOVE: endpoint}
        agent = make_agent(server.url, capabilities=MOVE)
        with pytest.raises(DeliveryTimeoutError, match=r"last trouble: .*(tcp://host:port|Zmq)"):
            agent.connect(0.1)


def test_a_server_on_all_addresses_is_found_where_it_was_registered_with(
    make_agent: MakeAgent,
) -> None:
    with ScriptedServer() as server:
        for flag, endpoint in server.endpoints.items():
            url = endpoint.url.replace("127.0.0.1", "0.0.0.0")
            server.endpoints[flag] = Endpoint(ConnectionProtocol.ZMQ, url)
        agent = make_agent(server.url)
        agent.connect(DEADLINE_S)
        server.await_subscriber(server.visualization)


def test_a_missing_endpoint_is_an_error(make_agent: MakeAgent) -> None:
    with ScriptedServer() as server:
        del server.endpoints[VIEW]
        with pytest.raises(RegistrationRefusedError, match="receive_neuron_visualizations"):
            make_agent(server.url).connect(DEADLINE_S)


def test_a_server_that_speaks_something_else_is_an_error(make_agent: MakeAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def greet() -> None:
            listener.settimeout(DEADLINE_S)
            try:
                while True:
                    connection, _ = listener.accept()
                    accepted.append(connection)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
                    connection.close()
            except OSError:
                return

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            agent = make_agent(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
            with pytest.raises(DeliveryTimeoutError, match="not registered within"):
                agent.connect(0.5)
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert accepted


def test_a_server_that_reads_nothing_gets_the_newest_in_the_end(make_agent: MakeAgent) -> None:
    with ScriptedServer() as server:
        agent = make_agent(server.url, capabilities=SENSE)
        agent.connect(DEADLINE_S)
        server.sensory.rcvhwm = 1
        state = voxels(4000)  # 64 KB, so that the system's own buffers are full soon
        sent = 300
        for _ in range(sent):
            agent.send_sensory(state)
        last = -1
        while last < sent - 1:
            data = server.sensory.recv()
            now = int.from_bytes(data[1:3], "little")
            assert now > last
            last = now
        agent.close()
        row = agent.counters()["sensory"]
        assert row["sent"] == sent == row["delivered"] + sum(row["dropped"].values())
        assert set(row["dropped"]) <= {"replaced", "full"}


def test_an_answer_that_came_too_late_is_not_taken_for_another(make_agent: MakeAgent) -> None:
    late = encode_control(HealthReport(True, True, True), ID)

    def slow(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        if isinstance(message, HealthCheckRequest):
            return [[b"", encode_control(message, ID)]]  # echoed, as the real engine does
        if isinstance(message, TimestepRequest):
            return [[b"", late], [b"", encode_control(TimestepReport(0.5), ID)]]
        return good(server, message)

    with ScriptedServer(slow) as server:
        agent = make_agent(server.url)
        agent.connect(DEADLINE_S)
        with pytest.raises(DeliveryTimeoutError, match="HealthCheckRequest not answered"):
            agent.health(0.05)
        assert agent.timestep() == 0.5


def test_a_fault_inside_is_told_to_everybody(
    make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer() as server:
        agent = make_agent(server.url)
        agent.connect(DEADLINE_S)

        def broken(sockets: AgentSockets) -> None:
            raise RuntimeError("no idea")

        monkeypatch.setattr(AgentSockets, "turn", broken)
        for call in (agent.receive_motor, agent.connect, agent.health):
            with pytest.raises(LocalError, match="no idea"):
                call()


# -- in the agent's own thread, and in other processes ----------------------------------------


def test_what_waits_cannot_be_called_by_a_listener() -> None:
    with ScriptedServer() as server:
        agent = FeagiAgent(AgentDescriptor("feagi-io test", "rover", 1), MOVE, server.url)
        told: SimpleQueue[Exception] = SimpleQueue()

        def listen(call: Callable[[], object]) -> None:
            try:
                call()
            except Exception as error:
                told.put(error)

        handle = agent.on_state_change(lambda _: listen(agent.connect))
        with agent:
            error = told.get(timeout=DEADLINE_S)
            assert isinstance(error, LocalError)
            assert "own thread" in str(error)
            agent.state_changed.disconnect(handle)


def test_a_listener_may_close() -> None:
    with ScriptedServer() as server:
        agent = FeagiAgent(AgentDescriptor("feagi-io test", "rover", 1), MOVE, server.url)
        agent.on_state_change(
            lambda change: agent.close() if change.after is S.ACTIVE_WAITING else None
        )
        agent.connect(DEADLINE_S)
        with pytest.raises(ClosedError):
            agent.receive_motor()
        server.hear(DeregistrationRequest)
        agent.close()


def test_after_a_fork_the_childs_copy_is_closed() -> None:
    with ScriptedServer() as server:
        agent = FeagiAgent(AgentDescriptor("feagi-io test", "rover", 1), MOVE | SENSE, server.url)
        with agent:
            server.await_subscriber(server.motor)
            pid = os.fork()
            if pid == 0:
                faults = 0
                for call in (
                    agent.connect,
                    agent.receive_motor,
                    lambda: agent.send_sensory(voxels()),
                    agent.health,
                ):
                    try:
                        call()
                    except ClosedError:
                        continue
                    faults += 1
                agent.close()
                os._exit(faults)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            with frame(3) as fbc:
                server.motor.send(fbc.view)
            assert number(agent.receive_motor(DEADLINE_S)) == 3


def test_it_says_what_it_is() -> None:
    agent = FeagiAgent(AgentDescriptor("feagi-io test", "rover", 1), MOVE, "tcp://127.0.0.1:1")
    assert repr(agent) == "<FeagiAgent rover at tcp://127.0.0.1:1, inactive>"


def test_good_units_are_told_again_until_a_busy_server_takes_them(make_agent: MakeAgent) -> None:
    def busy(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        return None if isinstance(message, AgentConfiguration) else good(server, message)

    def taking(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        if isinstance(message, AgentConfiguration):
            return [[b"", encode_control(HeartBeat(), ID)]]
        return good(server, message)

    def forgetful(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
        if isinstance(message, RegistrationRequest):
            server.script = busy
            return busy(server, message)
        return None

    with ScriptedServer(taking) as server:
        agent = make_agent(server.url)
        agent.connect(DEADLINE_S)
        agent.configure(DETAILS)
        server.hear(AgentConfiguration)
        server.script = forgetful
        for _ in range(3):  # once as it comes back, then again and again
            assert server.hear(AgentConfiguration) == AgentConfiguration(DETAILS)
        assert agent.counters()["registrations"] == 2


def test_streams_that_were_not_asked_for_are_not_opened(make_agent: MakeAgent) -> None:
    with ScriptedServer() as server:
        agent = make_agent(server.url, capabilities=MOVE)
        agent.connect(DEADLINE_S)
        server.await_subscriber(server.motor)
        # Asked and answered on the way that all its streams would have been opened before.
        server.hear(HeartBeat)
        assert not server.visualization.poll(0)
