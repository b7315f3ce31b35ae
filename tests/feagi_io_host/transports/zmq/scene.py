# SPDX-License-Identifier: Apache-2.0
"""What tests of a ZmqTransport stand on: transports, agents and frames that end with the test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.messages import RegistrationRequest, RegistrationSuccess
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.zmq import ZmqTransport
from feagi_io_host.transports.zmq.publisher import StreamPublisher
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ControlPeer, ZmqPeer

ROVER = AgentDescriptor("feagi-io test", "rover", 1)
SCOUT = AgentDescriptor("feagi-io test", "scout", 1)
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
VIEW = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
SENSE = AgentCapabilities.SEND_SENSOR_DATA
EVERYTHING = SENSE | MOTOR | VIEW
EYE = CorticalID.try_from_bytes(b"iimg\x09\0\0\0")


class Scene:
    """Everything made here is closed in `close`, the youngest first."""

    def __init__(self) -> None:
        self.host = StandInHost()
        self.pool = BufferPool()
        self._stack = ExitStack()

    def start(self, host: Any = None, **settings: Any) -> ZmqTransport:
        """A transport that runs, on a free port unless told otherwise."""
        options = {"control_port": 0, **settings}
        transport = ZmqTransport(self.host if host is None else host, **options)
        self._stack.callback(transport.stop)
        transport.start()
        return transport

    def agent(
        self,
        transport: ZmqTransport,
        descriptor: AgentDescriptor = ROVER,
        capabilities: AgentCapabilities = EVERYTHING,
    ) -> ZmqPeer:
        """An agent that has registered and subscribed to everything."""
        peer = ZmqPeer(transport.control_url, descriptor, capabilities, transport.max_frame_bytes)
        self._stack.callback(peer.close)
        return peer

    def control(self, transport: ZmqTransport) -> ControlPeer:
        """A control connection."""
        peer = ControlPeer(transport.control_url)
        self._stack.callback(peer.close)
        return peer

    def register(
        self,
        peer: ControlPeer,
        capabilities: AgentCapabilities,
        descriptor: AgentDescriptor = ROVER,
    ) -> dict[AgentCapabilities, str]:
        """Where the streams of a new agent are."""
        answer = peer.ask(RegistrationRequest(descriptor, capabilities))
        assert isinstance(answer, RegistrationSuccess), answer
        return {what: end.url for what, end in answer.endpoints.items()}

    def subscriber(self, url: str, *topics: bytes) -> zmq.Socket[bytes]:
        """A plain SUB socket; without topics to everything."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._stack.callback(context.destroy, linger=0)
        socket = context.socket(zmq.SUB)
        self._stack.callback(socket.close, 0)
        socket.rcvtimeo = int(DEADLINE_S * 1000)
        for topic in topics or (b"",):
            socket.subscribe(topic)
        socket.connect(url)
        return socket

    def frame(self, counter: int, neurons: int = 0) -> SharedFBC:
        """A frame whose bytes compress well, with one lease."""
        container = self.pool.acquire()
        if neurons:
            for column in container.reserve_xyzp([(EYE, neurons)], counter)[EYE]:
                column[:] = np.arange(neurons) // 8 + counter
        else:
            container.overwrite_byte_data_with_multiple_struct_data([], counter)
        return self.pool.share(container)

    def close(self) -> None:
        """End everything; every lease must be back."""
        self._stack.close()
        collector.stop()  # the thread by which pyzmq gives large messages back; one per process
        assert self.pool.counters()["leased"] == 0, "frames were not given back"


def publisher(transport: ZmqTransport, stream: StreamType) -> StreamPublisher:
    """The one publisher for `stream`."""
    (found,) = (p for p in transport._publishers if p._stream is stream)
    return found


def counter_of(message: bytes) -> int:
    """The increment counter of a frame."""
    return int.from_bytes(message[1:3], "little")
