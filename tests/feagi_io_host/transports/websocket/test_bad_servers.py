# SPDX-License-Identifier: Apache-2.0
"""Our agents at servers that keep no rule: nothing but a clear error, and nothing left behind."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.errors import DeliveryTimeoutError
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    Endpoint,
    HeartBeat,
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.runtime import Runtime
from tests.feagi_io_host.agent.faces import face
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S

ID = bytes(range(1, 49))
MAX_FRAME_BYTES = 4096
GOOD_FRAME = bytes([4, 7, 0, 0]) + bytes(48)  # a container without structs
TIMING = ClientTiming(answer_timeout_s=1.0, backoff_first_s=0.02, backoff_limit_s=0.05)
HEARTBEAT = HeartbeatTiming(interval_s=0.1, answer_timeout_s=0.3, max_unanswered=2)

Script = Callable[[ServerConnection], Awaitable[object]]
MakeAgent = Callable[..., Any]


@pytest.fixture(params=[FeagiAgent, AsyncFeagiAgent], ids=["blocking", "nonblocking"])
def make_agent(request: pytest.FixtureRequest) -> Iterator[MakeAgent]:
    made: list[Any] = []
    runtime = Runtime()

    def make(url: str, **settings: Any) -> Any:
        descriptor = AgentDescriptor("feagi-io test", "rover", 1)
        settings = {"timing": TIMING, "heartbeat": HEARTBEAT, "open_timeout_s": 0.2, **settings}
        agent = request.param(
            descriptor, SENSE | MOVE | VIEW, url, max_frame_bytes=MAX_FRAME_BYTES, **settings
        )
        made.append(face(agent, runtime))
        return made[-1]

    yield make
    for agent in made:
        agent.close()
    runtime.close()


class Scripted:
    """A server of the library `websockets`: `control` and `motor` say what it does on the two."""

    def __init__(self, runtime: Runtime, control: Script, motor: Script) -> None:
        self._scripts = {"/": control, "/motor": motor}
        self.registrations = 0
        self.server: Server = runtime.call(self._start(), DEADLINE_S)
        port = next(iter(self.server.sockets)).getsockname()[1]
        self.url = f"ws://127.0.0.1:{port}"

    async def _start(self) -> Server:
        return await serve(
            self._serve, "127.0.0.1", 0, ping_interval=None, close_timeout=0.2, compression=None
        )

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        script = self._scripts.get(connection.request.path, _listen)
        with contextlib.suppress(ConnectionClosed):
            await script(connection)

    async def stop(self) -> None:
        self.server.close()
        await self.server.wait_closed()

    def endpoints(self) -> dict[Any, Endpoint]:
        return {
            flag: Endpoint(ConnectionProtocol.WEBSOCKET, f"{self.url}/{path}")
            for flag, path in ((SENSE, "sensory"), (MOVE, "motor"), (VIEW, "shown"))
        }


async def _listen(connection: ServerConnection) -> None:
    async for _ in connection:
        pass


@pytest.fixture
def script() -> Iterator[Callable[..., Scripted]]:
    """Start a server: `answer(server)` are the endpoints it hands out, `motor` what it does on that
    stream; `control` takes the place of a good control channel."""
    runtime = Runtime()
    made: list[Scripted] = []

    def make(
        *,
        answer: Callable[[Scripted], dict[Any, Endpoint]] = Scripted.endpoints,
        motor: Script = _listen,
        control: Script | None = None,
    ) -> Scripted:
        async def good(connection: ServerConnection) -> None:
            async for data in connection:
                assert isinstance(data, bytes)
                message = decode_control(data)[1]
                if isinstance(message, RegistrationRequest):
                    server.registrations += 1
                    success = RegistrationSuccess(ID, answer(server))
                    await connection.send(encode_control(success, ID))
                elif isinstance(message, HeartBeat):
                    await connection.send(encode_control(HeartBeat(), ID))

        server = Scripted(runtime, control or good, motor)
        made.append(server)
        return server

    yield make
    for server in made:
        runtime.call(server.stop(), DEADLINE_S)
    runtime.close()


def told(agent: Any) -> str:
    """Why the agent has lost its registration the first time."""
    changes: list[str] = []
    lost = threading.Event()

    def note(change: Any) -> None:
        if change.before.name.startswith("ACTIVE") and change.after.name == "PENDING":
            changes.append(change.reason)
            lost.set()

    agent.on_state_change(note)
    agent.connect(DEADLINE_S)
    assert lost.wait(DEADLINE_S), f"{agent.state}, {agent.counters()}"
    return changes[0]


def test_a_frame_in_the_same_packet_as_the_handshake_is_not_lost(
    script: Callable[..., Scripted], make_agent: MakeAgent
) -> None:
    async def at_once(connection: ServerConnection) -> None:
        # Before the handshake's answer has left: written together, read together.
        await connection.send(GOOD_FRAME)
        await _listen(connection)

    agent = make_agent(script(motor=at_once).url)
    agent.connect(DEADLINE_S)
    frame = agent.receive_motor(DEADLINE_S)
    assert frame is not None
    assert frame.get_increment_counter() == 7


@pytest.mark.parametrize(
    ("data", "code"),
    [(bytes(MAX_FRAME_BYTES + 1), 1009), ("text", 1003)],
    ids=["too large", "text"],
)
def test_what_a_server_must_not_send_ends_the_registration(
    script: Callable[..., Scripted], make_agent: MakeAgent, data: Any, code: int
) -> None:
    seen: list[int | None] = []

    async def send(connection: ServerConnection) -> None:
        await connection.send(data)
        try:
            await _listen(connection)
        finally:
            seen.append(connection.close_code)

    server = script(motor=send)
    agent = make_agent(server.url)
    assert f"the server broke a rule and was left with {code}" in told(agent)
    agent.close()
    assert code in seen


def test_frames_that_are_none_are_counted_and_harm_nothing(
    script: Callable[..., Scripted], make_agent: MakeAgent
) -> None:
    async def send(connection: ServerConnection) -> None:
        for data in (b"", b"\x04", bytes(60), GOOD_FRAME):
            await connection.send(data)
        await _listen(connection)

    server = script(motor=send)
    agent = make_agent(server.url)
    agent.connect(DEADLINE_S)
    assert agent.receive_motor(DEADLINE_S) is not None
    assert agent.counters()["motor"]["dropped"]["damaged"] == 3
    assert server.registrations == 1


def test_a_stream_that_ends_is_told_with_its_reason(
    script: Callable[..., Scripted], make_agent: MakeAgent
) -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.close(1001, "no more of it")

    reason = told(make_agent(script(motor=leave).url))
    assert reason == (
        "motor stream: the server has closed the connection with 1001: 'no more of it'"
    )


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:1"), "WebSocket was asked for"),
        (Endpoint(ConnectionProtocol.WEBSOCKET, "http://127.0.0.1:1"), "ws://host:port"),
        (Endpoint(ConnectionProtocol.WEBSOCKET, "ws://127.0.0.1:99999"), "ws://host:port"),
        (Endpoint(ConnectionProtocol.WEBSOCKET, "ws://a@b:1/"), "ws://host:port"),
    ],
    ids=["zmq", "http", "port", "user"],
)
def test_endpoints_that_cannot_be_used_are_told(
    script: Callable[..., Scripted], make_agent: MakeAgent, endpoint: Endpoint, reason: str
) -> None:
    def answer(server: Scripted) -> dict[Any, Endpoint]:
        return {**server.endpoints(), MOVE: endpoint}

    with pytest.raises(DeliveryTimeoutError, match=f"last trouble: .*{reason}"):
        make_agent(script(answer=answer).url).connect(0.1)


def test_a_stream_that_cannot_be_reached_is_told(
    script: Callable[..., Scripted], make_agent: MakeAgent
) -> None:
    def answer(server: Scripted) -> dict[Any, Endpoint]:
        nobody = Endpoint(ConnectionProtocol.WEBSOCKET, "ws://127.0.0.1:1/")
        return {**server.endpoints(), MOVE: nobody}

    assert "motor stream: ws://127.0.0.1:1 cannot be connected" in told(
        make_agent(script(answer=answer).url)
    )


def test_control_messages_that_make_no_sense_are_no_registration(
    script: Callable[..., Scripted], make_agent: MakeAgent
) -> None:
    async def babble(connection: ServerConnection) -> None:
        async for _ in connection:
            for data in (b"", bytes(60), b"\x04" * 100):
                await connection.send(data)

    agent = make_agent(script(control=babble).url)
    with pytest.raises(DeliveryTimeoutError, match="not registered"):
        agent.connect(0.3)
    assert agent.counters()["control_ignored"] >= 3


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"", "no answer within 0.2 s"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "cannot be connected"),
        (b"HTTP/1.1 301 Moved\r\nLocation: ws://127.0.0.1:1/\r\n\r\n", "cannot be connected"),
        (b"220 mail.example ESMTP\r\n", "did not receive a valid HTTP response"),
        (None, "cannot be connected"),
    ],
    ids=["nothing", "not found", "no key", "elsewhere", "mail", "closed"],
)
def test_who_is_no_websocket_server_is_told_so(
    make_agent: MakeAgent, says: bytes | None, reason: str
) -> None:
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        kept: list[socket.socket] = []

        def serve_badly() -> None:
            while not stopping.is_set():
                try:
                    peer, _ = listener.accept()
                except TimeoutError:
                    continue
                kept.append(peer)
                if says is None:
                    peer.close()
                else:
                    with contextlib.suppress(OSError):
                        peer.sendall(says)

        thread = threading.Thread(target=serve_badly)
        thread.start()
        try:
            agent = make_agent(f"ws://127.0.0.1:{listener.getsockname()[1]}")
            with pytest.raises(DeliveryTimeoutError) as told_error:
                agent.connect(0.4)
            assert reason in f"{told_error.value} {agent._conversation.trouble}"
            agent.close()
        finally:
            stopping.set()
            thread.join()
            for peer in kept:
                peer.close()


def test_an_agent_that_is_closed_while_it_connects_leaves_nothing(make_agent: MakeAgent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # which answers nobody
        agent = make_agent(
            f"ws://127.0.0.1:{listener.getsockname()[1]}", open_timeout_s=DEADLINE_S, timing=None
        )
        raised: list[BaseException] = []

        def connect() -> None:
            try:
                agent.connect(DEADLINE_S)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        peer, _ = listener.accept()
        peer.recv(10)
        agent.close()
        thread.join(DEADLINE_S)
        assert [type(error).__name__ for error in raised] == ["ClosedError"]
        peer.close()
