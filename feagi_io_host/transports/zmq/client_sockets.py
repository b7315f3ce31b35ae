# SPDX-License-Identifier: Apache-2.0
"""AgentSockets: the sockets of one agent, and what is done with them turn after turn.

    what came: control, motor, visualization, a lost connection   -> the agent
    what the agent wants: control messages, sensory frames         -> the server
    NewSession, OpenStreams, ... as the agent says

A turn never waits; how to wait until the next one is for the thread or the task that owns all
this. Four rules:

  1  A control connection that is given up takes with it what waits in it: the next attempt goes
     over a new socket, and control messages stay here until a connection stands.
  2  The agent hears of everything that has come before it is asked for its turn, so that an
     answer counts that came in time.
  3  A frame that the server has no room for waits until a newer one takes its place.
  4  Addresses come from the server. They are taken as TCP addresses or not at all.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.core.agent_link import LinkParty
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import (
    ClientAction,
    CloseStreams,
    EndSession,
    NewSession,
    OpenStreams,
    Send,
)
from feagi_io_host.core.errors import ConfigError, FeagiDataError, FeagiIOError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.client_stream import ClientStream, connect
from feagi_io_host.transports.zmq.common import (
    Role,
    SocketOptions,
    frame_bytes,
    open_socket,
    receive_parts,
    send_message,
)
from feagi_io_host.transports.zmq.wire_form import LZ4_TOPIC

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike, ZmqContext, ZmqSocket

# A configuration may be answered with nothing bigger than a heartbeat, a registration with three
# addresses and an id.
MAX_CONTROL_BYTES: Final = 64 << 10
# How long a turn waits at most; the library does not say when it is done with memory.
_LONGEST_WAIT_S: Final = 1.0
_WAIT_FOR_MEMORY_S: Final = 0.005
# So many messages of one socket in a row; then the others have their turn.
_FAIR_SHARE: Final = 16

_URL: Final = re.compile(r"tcp://(\[[0-9A-Fa-f:.]{2,45}(?:%\w{1,15})?\]|[A-Za-z0-9._-]{1,253})"
                         r":([0-9]{1,5})")  # fmt: skip
_MAX_PORT: Final = 65535
# What a server that listens on all its addresses may say of itself.
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "[::]"})

_STREAMS: Final = (
    (AgentCapabilities.RECEIVE_MOTOR_DATA, StreamType.MOTOR, Role.AGENT_MOTOR),
    (
        AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS,
        StreamType.VISUALIZATION,
        Role.AGENT_VISUALIZATION,
    ),
)


def host_and_port(url: str) -> tuple[str, int]:
    """The two parts of tcp://host:port; ConfigError for anything else."""
    match = _URL.fullmatch(url)
    if match is None or not 1 <= int(match[2]) <= _MAX_PORT:
        raise ConfigError(
            f"address {url[:80]!r}; tcp://host:port with a port from 1 to {_MAX_PORT} is needed"
        )
    return match[1], int(match[2])


def _nothing(socket: ZmqSocket) -> None:
    """Nobody wants to know."""


class AgentSockets:
    """All sockets of one agent at the server `url`. Belongs to one thread or task.

    `opened` and `closing` are called with each socket, after and before. With `unpack` the server
    is told that frames may be packed; `pack` is for sensory frames. See `wire_form`.
    """

    def __init__(
        self,
        party: LinkParty,
        url: str,
        options: SocketOptions,
        max_frame_bytes: int,
        *,
        opened: Callable[[ZmqSocket], object] = _nothing,
        closing: Callable[[ZmqSocket], object] = _nothing,
        unpack: Callable[[BytesLike], BytesLike] | None = None,
        pack: Callable[[BytesLike], BytesLike] | None = None,
    ) -> None:
        self._party = party
        self._unpack = unpack
        self._pack = pack
        self._url = url
        self._host, _ = host_and_port(url)
        self._options = options
        self._max_frame_bytes = max_frame_bytes
        self._context: ZmqContext = zmq.Context()
        self._control: ZmqSocket | None = None
        self._monitor: ZmqSocket | None = None
        self._unsent: deque[bytes] = deque()
        self._sensory: ClientStream | None = None
        self._waiting: SharedFBC | None = None
        self._in_flight: deque[tuple[zmq.MessageTracker, SharedFBC]] = deque()
        self._inbound: list[tuple[StreamType, ClientStream]] = []
        self._opened = opened
        self._closing = closing

    def turn(self) -> None:
        """Everything that can be done without waiting."""
        self._hear_control()
        for kind, stream in self._inbound:
            self._take_frames(kind, stream.socket)
        self._watch_connection()
        self._tend_streams()
        self._act(self._party.turn())
        self._flush_control()
        self._flush_sensory()
        self._give_back_sent()

    def close(self) -> None:
        """Close everything, within the linger of the options; once."""
        self._close_streams()
        self._close_control()
        while self._in_flight:
            self._in_flight.popleft()[1].release()
        self._context.term()

    @property
    def has_work(self) -> bool:
        """Whether a turn would find something to do that no socket tells of."""
        party = self._party
        return party.has_requests or (self._sensory is not None and party.has_sensory)

    @property
    def wait_s(self) -> float:
        """In how many seconds at most a turn has something to do by itself."""
        wait_s = _WAIT_FOR_MEMORY_S if self._in_flight else _LONGEST_WAIT_S
        due_s = self._party.wait_s
        if due_s is not None:
            wait_s = min(wait_s, due_s)
        now_s = time.monotonic()
        for stream in self._streams():
            if stream.reopen_at_s is not None:
                wait_s = min(wait_s, stream.reopen_at_s - now_s)
        return max(wait_s, 0.0)

    def watched(self) -> list[tuple[ZmqSocket, int]]:
        """Each socket and the events of it that a turn has something to do with."""
        found: list[tuple[ZmqSocket, int]] = []
        if self._control is not None:
            found.append((self._control, zmq.POLLIN | (zmq.POLLOUT if self._unsent else 0)))
        if self._monitor is not None:
            found.append((self._monitor, zmq.POLLIN))
        for _, stream in self._inbound:
            found += ((stream.socket, zmq.POLLIN), (stream.monitor, zmq.POLLIN))
        if self._sensory is not None:
            found.append((self._sensory.monitor, zmq.POLLIN))
            if self._waiting is not None:
                found.append((self._sensory.socket, zmq.POLLOUT))
        return found

    # -- what comes ---------------------------------------------------------------------------

    def _hear_control(self) -> None:
        for _ in range(_FAIR_SHARE):
            control = self._control  # an answer may have put another in its place
            if control is None:
                return
            try:
                parts = receive_parts(control, 2)
            except zmq.Again:
                return
            # An empty part stands before the container; the engine never leaves it out.
            self._act(self._party.control_received(frame_bytes(parts[-1])))

    def _take_frames(self, stream: StreamType, socket: ZmqSocket) -> None:
        for _ in range(_FAIR_SHARE):
            try:
                parts = receive_parts(socket, 1)
            except zmq.Again:
                return
            frame = None if parts[0].more else self._plain(frame_bytes(parts[0]))
            if frame is None:
                self._party.frame_refused(stream, len(parts[0]))
            else:
                self._party.frame_received(stream, frame)

    def _plain(self, data: BytesLike) -> BytesLike | None:
        if self._unpack is None:
            return data
        try:
            return self._unpack(data)
        except FeagiDataError:
            return None  # damaged or a bomb; counted where this is known

    def _watch_connection(self) -> None:
        monitor = self._monitor
        if monitor is None:
            return
        lost = False
        with contextlib.suppress(zmq.Again):
            while True:
                receive_parts(monitor, 2)  # there is one kind of event
                lost = True
        if lost:
            self._act(self._party.connection_lost("the server has closed the connection"))

    def _streams(self) -> list[ClientStream]:
        streams = [stream for _, stream in self._inbound]
        return streams if self._sensory is None else [*streams, self._sensory]

    def _tend_streams(self) -> None:
        now_s = time.monotonic()
        try:
            for stream in self._streams():
                stream.tend(now_s)
        except FeagiIOError as error:
            self._act(self._party.connection_lost(f"a stream cannot be opened again: {error}"))

    # -- what goes ----------------------------------------------------------------------------

    def _flush_control(self) -> None:
        control = self._control
        while self._unsent and control is not None:
            try:
                control.send_multipart((b"", self._unsent[0]), zmq.DONTWAIT)
            except zmq.Again:
                return
            self._unsent.popleft()

    def _flush_sensory(self) -> None:
        if self._sensory is None:
            return
        socket = self._sensory.socket
        while True:
            fbc = self._next_frame()
            if fbc is None:
                return
            try:
                tracker, kept = self._send_frame(socket, fbc)
            except zmq.Again:
                self._waiting = fbc
                return
            self._party.sensory_sent()
            if tracker is None or not kept:
                fbc.release()
            else:
                self._in_flight.append((tracker, fbc))

    def _send_frame(
        self, socket: ZmqSocket, fbc: SharedFBC
    ) -> tuple[zmq.MessageTracker | None, bool]:
        """The tracker, and whether it is for the memory of `fbc`."""
        view = fbc.view
        message = view if self._pack is None else self._pack(view)
        return send_message(socket, message), message is view

    def _next_frame(self) -> SharedFBC | None:
        """The next one in order; where one had to wait already, the newest."""
        fbc, self._waiting = self._waiting, None
        if fbc is None:
            return self._party.next_sensory()
        while (newer := self._party.next_sensory()) is not None:
            fbc.release()
            self._party.sensory_dropped("replaced")
            fbc = newer
        return fbc

    def _give_back_sent(self) -> None:
        while self._in_flight and self._in_flight[0][0].done:
            self._in_flight.popleft()[1].release()

    # -- what the agent wants -----------------------------------------------------------------

    def _act(self, actions: Sequence[ClientAction]) -> None:
        for action in actions:
            failure = self._carry_out(action)
            self._party.note(action)
            if failure is not None:
                self._act(self._party.connection_lost(failure))

    def _carry_out(self, action: ClientAction) -> str | None:
        """What went wrong, in words; None for nothing."""
        try:
            if isinstance(action, Send):
                self._unsent.append(action.data)
                self._flush_control()
            elif isinstance(action, NewSession):
                self._close_control(linger_ms=0)
                self._open_control()
            elif isinstance(action, EndSession):
                self._close_control()
            elif isinstance(action, OpenStreams):
                self._open_streams(action)
            elif isinstance(action, CloseStreams):
                self._close_streams()
        except FeagiIOError as error:
            return str(error)
        except FeagiDataError as error:
            return f"the server's answer cannot be used: {error}"
        return None

    def _open_control(self) -> None:
        control = open_socket(self._context, Role.AGENT_CONTROL, self._options, MAX_CONTROL_BYTES)
        self._control = control
        self._monitor = control.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._opened(control)
        self._opened(self._monitor)
        connect(control, self._url)

    def _close_control(self, linger_ms: int | None = None) -> None:
        self._unsent.clear()
        control, self._control = self._control, None
        monitor, self._monitor = self._monitor, None
        if control is not None:
            if monitor is not None:
                self._closing(monitor)
                control.disable_monitor()
                monitor.close(0)
            self._closing(control)
            control.close(linger_ms)

    def _open_streams(self, action: OpenStreams) -> None:
        self._close_streams()
        sensory = action.endpoints.get(AgentCapabilities.SEND_SENSOR_DATA)
        if sensory is not None:
            self._sensory = self._open_stream(Role.AGENT_SENSORY, sensory)
        for capability, stream, role in _STREAMS:
            endpoint = action.endpoints.get(capability)
            if endpoint is not None:
                self._inbound.append((stream, self._open_stream(role, endpoint)))

    def _open_stream(self, role: Role, endpoint: Endpoint) -> ClientStream:
        if endpoint.protocol is not ConnectionProtocol.ZMQ:
            raise FeagiDataError(
                f"{role.value} stream is given over {endpoint.protocol.value}; Zmq was asked for"
            )
        host, port = host_and_port(endpoint.url)
        if host in _UNSPECIFIED:
            host = self._host
        return ClientStream(
            self._context,
            role,
            f"tcp://{host}:{port}",
            self._options,
            self._max_frame_bytes,
            self._opened if self._unpack is None else self._declare,
            self._closing,
        )

    def _declare(self, socket: ZmqSocket) -> None:
        """Tell the publisher that frames may be packed, each time that a stream is opened."""
        if socket.type == zmq.SUB:
            socket.subscribe(LZ4_TOPIC)
        self._opened(socket)

    def _close_streams(self) -> None:
        if self._waiting is not None:
            self._waiting.release()
            self._waiting = None
            self._party.sensory_dropped("not registered")
        streams = self._streams()
        self._sensory = None
        self._inbound.clear()
        for stream in streams:
            stream.close()
