# SPDX-License-Identifier: Apache-2.0
"""The lines that the PNS benchmark measures: from a PNS to an agent, and their bare peers.

    VirtualLine   PNS, virtual transport         QueueLine   queue.SimpleQueue of references
    ZmqLine       PNS, ZmqTransport, TCP         SocketLine  two pyzmq sockets, TCP

The far end is the same on both sides of a pair: what differs is what lies before it.
"""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import zmq

from feagi_io_host.blocking.session import AgentSession
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.delivery import DeliveryRule, delivery_table
from feagi_io_host.core.events import MotorCommand, VisualizationReady
from feagi_io_host.core.messages import (
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.pns import PNS
from feagi_io_host.transports.virtual import VirtualTransport
from feagi_io_host.transports.zmq import ZmqTransport

DEADLINE_S: Final = 10.0
BURST: Final = 200_000
SMALL: Final = 60  # neurons in 1 KB
MEDIUM: Final = 4_090  # in 64 KB
_AREA: Final = CorticalID(b"iinf\x01\x00\x00\x00")
# The high-water mark of our motor sockets and the size above which they do not copy.
_FRAMES: Final = 16
_COPY_LIMIT_BYTES: Final = 64 << 10
_HEAR: Final = (
    AgentCapabilities.RECEIVE_MOTOR_DATA | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
_NOBODY_IS_SWEPT_S: Final = 3600.0

# A publisher that is ahead of its receiver waits here and does not raise.
PATIENT: Final[Mapping[StreamType, DeliveryRule]] = delivery_table(
    deadline_s={StreamType.MOTOR: DEADLINE_S}
)


def descriptor(number: int = 0) -> AgentDescriptor:
    """Who the benchmark's agents are."""
    return AgentDescriptor("feagi-io", f"bench {number}", 1)


def encode(container: FeagiByteContainer, neurons: int, counter: int = 0) -> None:
    """Fill a container with one area."""
    for column in container.reserve_xyzp([(_AREA, neurons)], counter)[_AREA]:
        column[:] = 1


def frame(neurons: int) -> SharedFBC:
    """A frame with one area, in memory of its own."""
    container = FeagiByteContainer.new_empty()
    encode(container, neurons)
    return SharedFBC.adopt(container)


def crowd(pns: PNS, agents: int, capabilities: AgentCapabilities) -> VirtualTransport:
    """So many agents in this process, attached to `pns`."""
    transport = VirtualTransport(pns)
    transport.start()
    for number in range(agents):
        transport.connect(descriptor(number), capabilities)
    return transport


class Brain:
    """A brain that fires when it is told to."""

    def __init__(self) -> None:
        self.visualization_ready: FeagiSignal[VisualizationReady] = FeagiSignal(
            "visualization_ready"
        )
        self.motor_commands: FeagiSignal[MotorCommand] = FeagiSignal("motor_commands")


class Line(ABC):
    """Frames in by one thread, out by the same or another one. A context manager."""

    @abstractmethod
    def send(self, fbc: SharedFBC) -> None:
        """Hand a frame over. The caller keeps its own lease."""

    @abstractmethod
    def receive(self) -> int:
        """Wait for the next frame, look at it, let it go: its bytes. TimeoutError without one."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class PnsLine(Line):
    """A brain, its PNS and one agent that hears everything; `send` is a motor command."""

    def __init__(self) -> None:
        self.brain = Brain()
        self.pns = PNS(delivery=PATIENT)
        self.pns.connect_to_burst_engine(self.brain)
        self.agent_id = b""

    @property
    def session(self) -> AgentSession:
        """The agent, as the PNS sees it."""
        return self.pns.sessions[0]

    def send(self, fbc: SharedFBC) -> None:
        """A motor command."""
        self.brain.motor_commands.emit(MotorCommand(self.agent_id, fbc))

    def show(self, fbc: SharedFBC) -> None:
        """A visualization frame."""
        self.brain.visualization_ready.emit(VisualizationReady(fbc, 0))

    @abstractmethod
    def see(self) -> int:
        """As `receive`, for the visualization."""


class VirtualLine(PnsLine):
    """Through a PNS to an agent in this process."""

    def __init__(self) -> None:
        super().__init__()
        self._transport = VirtualTransport(self.pns)
        self._transport.start()
        self._agent = self._transport.connect(descriptor(), _HEAR)
        self.agent_id = self._agent.agent_id

    def receive(self) -> int:
        """The next motor frame."""
        return _size(self._agent.receive_motor(DEADLINE_S))

    def see(self) -> int:
        """The newest visualization frame."""
        return _size(self._agent.receive_visualization(DEADLINE_S))

    def close(self) -> None:
        """Stop the transport, then the PNS."""
        self._transport.stop()
        self.pns.stop()


class QueueLine(Line):
    """What moves a reference from thread to thread with the least ado."""

    def __init__(self) -> None:
        self._frames: queue.SimpleQueue[SharedFBC] = queue.SimpleQueue()

    def send(self, fbc: SharedFBC) -> None:
        """Put a reference."""
        self._frames.put(fbc)

    def receive(self) -> int:
        """Get a reference."""
        return len(self._frames.get(timeout=DEADLINE_S))

    def close(self) -> None:
        """Nothing is held."""


class ZmqLine(PnsLine):
    """Through a PNS and TCP to a pyzmq socket that has registered as an agent."""

    def __init__(self) -> None:
        super().__init__()
        self._transport = ZmqTransport(
            self.pns, control_port=0, silence_timeout_s=_NOBODY_IS_SWEPT_S
        )
        self._transport.start()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._register()
        except BaseException:
            self.close()
            raise

    def _register(self) -> None:
        control = self._control = self._context.socket(zmq.DEALER)
        control.rcvtimeo = int(DEADLINE_S * 1000)
        control.connect(self._transport.control_url)
        control.send_multipart([b"", encode_control(RegistrationRequest(descriptor(), _HEAR))])
        self.agent_id, answer = decode_control(control.recv_multipart()[1])
        assert isinstance(answer, RegistrationSuccess), answer
        urls = {capability: end.url for capability, end in answer.endpoints.items()}
        self._motor = _subscribe(self._context, urls[AgentCapabilities.RECEIVE_MOTOR_DATA])
        self._shown = _subscribe(
            self._context, urls[AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS]
        )
        if not self._transport.wait_until_subscribed(self.agent_id, DEADLINE_S):
            raise TimeoutError(f"no subscription within {DEADLINE_S} s")

    def receive(self) -> int:
        """The next motor message."""
        return _take(self._motor)

    def see(self) -> int:
        """The next visualization message."""
        return _take(self._shown)

    def close(self) -> None:
        """Stop the transport and the PNS, then close the agent's sockets."""
        self._transport.stop()
        self.pns.stop()
        self._context.destroy(linger=0)


class SocketLine(Line):
    """The same sockets with nothing around them: what pyzmq itself takes."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._out = self._context.socket(zmq.XPUB)
        self._out.sndhwm = _FRAMES
        self._out.sndtimeo = int(DEADLINE_S * 1000)
        self._out.setsockopt(zmq.XPUB_NODROP, 1)
        port = self._out.bind_to_random_port("tcp://127.0.0.1")
        self._in = _subscribe(self._context, f"tcp://127.0.0.1:{port}")
        self._in_flight: deque[tuple[zmq.MessageTracker, SharedFBC]] = deque()
        if not self._out.poll(int(DEADLINE_S * 1000)):
            raise TimeoutError(f"no subscription within {DEADLINE_S} s")
        self._out.recv()

    def send(self, fbc: SharedFBC) -> None:
        """One message; above 64 KB nothing is copied and the lease is kept until it has gone."""
        while self._in_flight and self._in_flight[0][0].done:
            self._in_flight.popleft()[1].release()
        if len(fbc) <= _COPY_LIMIT_BYTES:
            self._out.send(fbc.view)
            return
        tracker = self._out.send(fbc.view, copy=False, track=True)
        self._in_flight.append((tracker, fbc.retain()))

    def receive(self) -> int:
        """The next message."""
        return _take(self._in)

    def close(self) -> None:
        """Close both sockets."""
        self._context.destroy(linger=0)
        while self._in_flight:
            self._in_flight.popleft()[1].release()


def _subscribe(context: zmq.Context[zmq.Socket[bytes]], url: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.SUB)
    socket.linger = 0
    socket.rcvhwm = _FRAMES
    socket.rcvtimeo = int(DEADLINE_S * 1000)
    socket.subscribe(b"")
    socket.connect(url)
    return socket


def _take(socket: zmq.Socket[bytes]) -> int:
    try:
        return len(socket.recv(copy=False))
    except zmq.Again as error:
        raise TimeoutError(f"no frame within {DEADLINE_S} s") from error


def _size(fbc: SharedFBC | None) -> int:
    if fbc is None:
        raise TimeoutError(f"no frame within {DEADLINE_S} s")
    with fbc:
        return len(fbc)
