# SPDX-License-Identifier: Apache-2.0
"""A server for agents that says what a test wants it to say, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import zmq

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    DeregistrationRequest,
    DeregistrationResponse,
    Endpoint,
    HeartBeat,
    ReceivedMessage,
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)

SENSE = AgentCapabilities.SEND_SENSOR_DATA
MOVE = AgentCapabilities.RECEIVE_MOTOR_DATA
VIEW = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
ID = bytes(range(1, 49))
DEADLINE_S = 10.0

Replies = list[list[bytes]]
Script = Callable[["ScriptedServer", ReceivedMessage | None], Replies | None]


def good(server: ScriptedServer, message: ReceivedMessage | None) -> Replies | None:
    """What a good server answers."""
    if isinstance(message, RegistrationRequest):
        return [[b"", encode_control(RegistrationSuccess(ID, server.endpoints), ID)]]
    if isinstance(message, HeartBeat):
        return [[b"", encode_control(HeartBeat(), ID)]]
    if isinstance(message, DeregistrationRequest):
        return [[b"", encode_control(DeregistrationResponse(True), ID)]]
    return None


class ScriptedServer:
    """Answers control messages by `script` and holds the far ends of the three streams.

    `heard` is every message that came, None for what is none. The streams' sockets are for the
    test's own thread.
    """

    def __init__(self, script: Script = good) -> None:
        self.script = script
        self.heard: SimpleQueue[ReceivedMessage | None] = SimpleQueue()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self.url = self._bind(self._router)
        self.sensory = self._context.socket(zmq.PULL)
        self.motor = self._context.socket(zmq.XPUB)
        self.visualization = self._context.socket(zmq.XPUB)
        self.endpoints = {
            flag: Endpoint(ConnectionProtocol.ZMQ, self._bind(socket))
            for flag, socket in (
                (SENSE, self.sensory),
                (MOVE, self.motor),
                (VIEW, self.visualization),
            )
        }
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def hear(self, kind: type) -> ReceivedMessage | None:
        """The next message of that kind; others before it are let go."""
        while not isinstance(message := self.heard.get(timeout=DEADLINE_S), kind):
            pass
        return message

    def await_subscriber(self, socket: zmq.Socket[bytes]) -> None:
        """Wait until somebody listens to the stream."""
        assert socket.recv() == b"\x01"

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(DEADLINE_S)
        self._context.destroy(linger=0)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bind(self, socket: zmq.Socket[bytes]) -> str:
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = int(DEADLINE_S * 1000)
        socket.bind("tcp://127.0.0.1:*")
        return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]

    def _serve(self) -> None:
        while not self._stopping.is_set():
            if not self._router.poll(20):
                continue
            identity, *parts = self._router.recv_multipart()
            try:
                _, message = decode_control(parts[-1])
            except FeagiDataError:
                message = None
            self.heard.put(message)
            for reply in self.script(self, message) or []:
                self._router.send_multipart([identity, *reply])
