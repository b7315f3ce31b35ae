# SPDX-License-Identifier: Apache-2.0
"""An agent at the far end of a ZmqTransport, for tests: plain sockets, no threads of its own.

It asks after each sensory frame for a sign of life, so that a test knows that its server is there
or gone, and sees by the monitor of a socket that the other end has closed.
"""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
import time

import zmq

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError, LocalError
from feagi_io_host.core.messages import (
    AgentConfiguration,
    ControlMessage,
    DeregistrationRequest,
    HeartBeat,
    ReceivedMessage,
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor

DEADLINE_S = 10.0
GONE = zmq.EVENT_DISCONNECTED


class ControlPeer:
    """A DEALER at the control port. `ask` and `send_raw` are all it can do."""

    def __init__(self, url: str, identity: bytes | None = None) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.url = url
        self.agent_id = bytes(48)
        self.control = self.context.socket(zmq.DEALER)
        self.control.linger = 0
        if identity is not None:
            self.control.setsockopt(zmq.IDENTITY, identity)
        self.monitor = self.control.get_monitor_socket(GONE)
        self.control.connect(url)

    def send_raw(self, *parts: bytes) -> None:
        """Send the parts as they are."""
        self.control.send_multipart(parts)

    def ask(self, message: ControlMessage) -> ReceivedMessage:
        """Send a message and wait for its answer; ClosedError when the server goes away."""
        self.send_raw(b"", encode_control(message, self.agent_id))
        return self.answer()

    def answer(self) -> ReceivedMessage:
        """The next answer."""
        poller = zmq.Poller()
        poller.register(self.control, zmq.POLLIN)
        poller.register(self.monitor, zmq.POLLIN)
        ready = dict(poller.poll(int(DEADLINE_S * 1000)))
        if self.control in ready:
            empty, data = self.control.recv_multipart()
            assert empty == b""
            self.agent_id, message = decode_control(data)
            return message
        if self.monitor in ready:
            raise ClosedError("the server is gone")
        raise AssertionError(f"no answer within {DEADLINE_S} s")

    def close(self) -> None:
        """Close everything; once."""
        if self.context.closed:
            return
        self.control.disable_monitor()
        self.monitor.close(0)
        self.context.destroy(linger=0)


class ZmqPeer(ControlPeer):
    """A registered agent, as `feagi_io_host.testing` wants its peers."""

    def __init__(
        self,
        url: str,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        max_frame_bytes: int,
        kernel_buffer_bytes: int = 0,
        token: bytes = bytes(32),
    ) -> None:
        super().__init__(url)
        answer = self.ask(RegistrationRequest(descriptor, capabilities, auth_token=token))
        assert isinstance(answer, RegistrationSuccess), answer
        self._max_frame_bytes = max_frame_bytes
        self._kernel_buffer_bytes = kernel_buffer_bytes
        self._turn = threading.Lock()
        self._control_turn = threading.Lock()
        self._closed = False
        self._cut_off = False
        self._waiting, self._waker = sockets.socketpair()
        self._streams: dict[AgentCapabilities, zmq.Socket[bytes]] = {}
        self._monitors: dict[AgentCapabilities, zmq.Socket[bytes]] = {}
        for capability, endpoint in answer.endpoints.items():
            sends = capability is AgentCapabilities.SEND_SENSOR_DATA
            stream = self.context.socket(zmq.PUSH if sends else zmq.SUB)
            stream.linger = 0
            stream.rcvhwm = 1
            stream.sndtimeo = int(DEADLINE_S * 1000)
            if kernel_buffer_bytes:
                stream.setsockopt(zmq.SNDBUF, kernel_buffer_bytes)
                stream.setsockopt(zmq.RCVBUF, kernel_buffer_bytes)
            if not sends:
                stream.subscribe(b"")
            self._monitors[capability] = stream.get_monitor_socket(GONE)
            stream.connect(endpoint.url)
            self._streams[capability] = stream

    def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send a frame, then see whether the server is there."""
        if self._closed:
            raise ClosedError("this end is closed")
        if len(frame) > self._max_frame_bytes:
            raise LocalError(f"{len(frame)} bytes; at most {self._max_frame_bytes}")
        stream = self._streams.get(AgentCapabilities.SEND_SENSOR_DATA)
        with self._control_turn:
            self.ask(HeartBeat())
            if stream is not None:
                stream.send(frame.view if isinstance(frame, SharedFBC) else frame)
            self.ask(HeartBeat())

    def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame."""
        return self._receive(AgentCapabilities.RECEIVE_MOTOR_DATA, timeout_s)

    def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next visualization frame."""
        return self._receive(AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS, timeout_s)

    def wait_until_cut_off(self) -> None:
        """Wait until the server has closed what it sends on; from then on this end is closed too,
        whatever has come before."""
        with self._turn:
            for capability, monitor in self._monitors.items():
                if not self._closed and capability is not AgentCapabilities.SEND_SENSOR_DATA:
                    self._read_until_gone(self._streams[capability], monitor)
            self._cut_off = True

    def close(self) -> None:
        """Leave; who waits in `receive_*` is woken."""
        if self._closed:
            return
        self._closed = True
        self._waker.send(b"\0")
        with self._control_turn, contextlib.suppress(ClosedError):
            self.ask(DeregistrationRequest("test over"))
        with self._turn:
            for stream in self._streams.values():
                stream.disable_monitor()
            for monitor in self._monitors.values():
                monitor.close(0)
            super().close()
            self._waiting.close()
            self._waker.close()

    def _read_until_gone(self, stream: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
        # A socket that is full does not read on, so it would not see the end of its connection.
        poller = zmq.Poller()
        poller.register(stream, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        ready = dict(poller.poll(int(DEADLINE_S * 1000)))
        while monitor not in ready:
            assert ready, "the server did not let go"
            stream.recv()
            ready = dict(poller.poll(int(DEADLINE_S * 1000)))

    def _receive(self, capability: AgentCapabilities, timeout_s: float | None) -> SharedFBC | None:
        deadline_s = time.monotonic() + (1e6 if timeout_s is None else timeout_s)
        with self._turn:
            if self._closed or self._cut_off:
                raise ClosedError("this end is closed")
            stream, monitor = self._streams[capability], self._monitors[capability]
            poller = zmq.Poller()
            for source in (stream, monitor, self._waiting):
                poller.register(source, zmq.POLLIN)
            left_ms = max(int((deadline_s - time.monotonic()) * 1000), 0)
            ready = dict(poller.poll(left_ms))
            if stream in ready:
                return SharedFBC.from_bytes(stream.recv())
            if not ready:
                return None
            raise ClosedError("the other end is gone" if monitor in ready else "closed here")


CONFIGURATION = AgentConfiguration(
    {
        "feedbacks": {"registered_feedbacks": []},
        "input_units_and_encoder_properties": {},
        "output_units_and_decoder_properties": {},
    }
)
