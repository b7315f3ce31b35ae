# SPDX-License-Identifier: Apache-2.0
"""AgentSockets: the sockets of one agent, and what is done with them turn after turn.

    what came: control, motor, visualization, a lost connection   -> the agent
    what the agent wants: control messages, sensory frames         -> the server
    NewSession, OpenStreams, ... as the agent says

A turn never waits; how to wait until the next one is for the thread or the task that owns all
this. It reads every socket, which takes longer than a frame's whole way; where a socket of motor or
visualization is known to have something, `hear` reads that one only. Four rules:

  1  A control connection that is given up takes with it what waits in it: the next attempt goes
     over a new socket, and control messages stay here until a connection stands.
  2  The agent hears of everything that has come before it is asked for its turn, so that an
     answer counts that came in time.
  3  A frame that the server has no room for waits until a newer one takes its place.
  4  Addresses come from the server. They are taken as TCP addresses or not at all.
"""

from __future__ import annotations

import contextlib
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
from feagi_io_host.core.errors import FeagiDataError, FeagiIOError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.client_ends import FAIR_SHARE, ClientEnds, EndMaker
from feagi_io_host.transports.zmq.client_form import ClientForm
from feagi_io_host.transports.zmq.client_sensory import SensorySender
from feagi_io_host.transports.zmq.client_stream import ClientStream, connect, stream_url
from feagi_io_host.transports.zmq.common import (
    Role,
    SocketOptions,
    frame_bytes,
    open_socket,
    receive_parts,
)

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqContext, ZmqSocket

    Source = ZmqSocket | int

# A configuration may be answered with nothing bigger than a heartbeat, a registration with three
# addresses and an id.
MAX_CONTROL_BYTES: Final = 64 << 10
# How long a turn waits at most; the library does not say when it is done with memory.
_LONGEST_WAIT_S: Final = 1.0
_WAIT_FOR_MEMORY_S: Final = 0.005

_STREAMS: Final = (
    (AgentCapabilities.SEND_SENSOR_DATA, StreamType.SENSORY, Role.AGENT_SENSORY),
    (AgentCapabilities.RECEIVE_MOTOR_DATA, StreamType.MOTOR, Role.AGENT_MOTOR),
    (
        AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS,
        StreamType.VISUALIZATION,
        Role.AGENT_VISUALIZATION,
    ),
)


def _nothing(source: Source) -> None:
    """Nobody wants to know."""


class AgentSockets:
    """All sockets of one agent at the server `url`. Belongs to one thread or task, but for
    `send_now`.

    `opened` and `closing` are called with each source of events, after and before: a socket, or the
    descriptor of a stream's end that is none. `form` is how frames look on the wire, `ends` opens
    such ends.
    """

    def __init__(
        self,
        party: LinkParty,
        url: str,
        options: SocketOptions,
        max_frame_bytes: int,
        form: ClientForm,
        ends: EndMaker,
        *,
        opened: Callable[[Source], object] = _nothing,
        closing: Callable[[Source], object] = _nothing,
    ) -> None:
        self._party = party
        self._form = form
        self._url = url
        self._options = options
        self._max_frame_bytes = max_frame_bytes
        self._context: ZmqContext = zmq.Context()
        self._control: ZmqSocket | None = None
        self._monitor: ZmqSocket | None = None
        self._unsent: deque[bytes] = deque()
        self._sensory = SensorySender(party, form.pack)
        self._inbound: list[tuple[StreamType, ClientStream]] = []
        self._ends = ClientEnds(party, self._sensory, ends, max_frame_bytes, opened, closing)
        self._opened = opened
        self._closing = closing
        self._turn_at_s = 0.0
        self._heard_other = False
        # Made anew when sockets or what is wanted of them have changed.
        self._kinds: dict[ZmqSocket, StreamType] = {}
        self._watched: list[tuple[Source, int]] | None = None
        self._wanted: tuple[bool, bool, tuple[int, ...]] = (False, False, ())

    def turn(self) -> None:
        """Everything that can be done without waiting."""
        self._heard_other = False
        self._hear_control()
        for kind, stream in self._inbound:
            self._take_frames(kind, stream.socket)
        self._ends.take_all()
        self._watch_connection()
        self._miss_ends()
        self._tend_streams()
        self._act(self._party.turn())
        self._flush_control()
        self._sensory.send()
        self._ends.tend(time.monotonic())
        self._miss_ends()
        self._turn_at_s = time.monotonic() + self._longest_wait_s()

    def hear(self, source: Source) -> bool:
        """Something waits at `source`. Of motor and visualization take a frame, or a few: true if
        that was all. For any other a turn is due."""
        if isinstance(source, int):
            if self._ends.hear(source):
                return True
        elif (kind := self._kinds.get(source)) is not None:
            return self._take_frame(kind, source)
        self._heard_other = True
        return False

    @property
    def is_due(self) -> bool:
        """Whether a turn would find something to do, apart from frames."""
        return self.has_work or self._heard_other or time.monotonic() >= self._turn_at_s

    def send_now(self) -> bool:
        """Send the sensory frames that can go at once. False: a turn is needed for the rest. From
        any thread."""
        return self._sensory.send_now()

    def close(self) -> None:
        """Close everything, within the linger of the options; once."""
        try:
            self._close_streams()
            self._close_control()
            self._context.term()
        finally:
            self._sensory.give_back_all()

    @property
    def has_work(self) -> bool:
        """Whether a turn would find something to do that neither a socket nor a clock tells of."""
        party = self._party
        if party.has_requests or self._ends.has_work:
            return True
        return party.has_sensory and self._sensory.leads_somewhere

    @property
    def wait_s(self) -> float:
        """In how many seconds at most a turn has something to do by itself."""
        wait_s = self._turn_at_s - time.monotonic()
        if self._sensory.holds_memory:
            wait_s = min(wait_s, _WAIT_FOR_MEMORY_S)
        return max(wait_s, 0.0)

    def watched(self) -> list[tuple[Source, int]]:
        """Each socket or descriptor and the events of it that there is something to do with; the
        same list as long as these are the same."""
        wanted = (bool(self._unsent), self._sensory.waits_for_room, self._ends.descriptors)
        if self._watched is None or wanted != self._wanted:
            self._wanted = wanted
            self._watched = self._survey(*wanted)
        return self._watched

    def _survey(
        self, control_out: bool, sensory_out: bool, ends: tuple[int, ...]
    ) -> list[tuple[Source, int]]:
        # First what has most to say.
        found: list[tuple[Source, int]] = [
            (stream.socket, zmq.POLLIN) for _, stream in self._inbound
        ]
        found += [(descriptor, zmq.POLLIN) for descriptor in ends]
        self._kinds = {stream.socket: kind for kind, stream in self._inbound}
        found += [(stream.monitor, zmq.POLLIN) for stream in self._streams()]
        if self._control is not None:
            found.append((self._control, zmq.POLLIN | (zmq.POLLOUT if control_out else 0)))
        if self._monitor is not None:
            found.append((self._monitor, zmq.POLLIN))
        if self._sensory.stream is not None and sensory_out:
            found.append((self._sensory.stream.socket, zmq.POLLOUT))
        return found

    def _longest_wait_s(self) -> float:
        due_s = self._party.wait_s
        wait_s = _LONGEST_WAIT_S if due_s is None else min(due_s, _LONGEST_WAIT_S)
        now_s = time.monotonic()
        for due_s in (self._ends.due_s, *(stream.reopen_at_s for stream in self._streams())):
            if due_s is not None:
                wait_s = min(wait_s, due_s - now_s)
        return wait_s

    # -- what comes ---------------------------------------------------------------------------

    def _hear_control(self) -> None:
        for _ in range(FAIR_SHARE):
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
        for _ in range(FAIR_SHARE):
            if not self._take_frame(stream, socket):
                return

    def _take_frame(self, stream: StreamType, socket: ZmqSocket) -> bool:
        try:
            part = receive_parts(socket, 1)[0]
        except zmq.Again:
            return False
        size_bytes = len(part)
        frame = None if part.more else self._form.plain(stream, frame_bytes(part))
        # Given back before somebody is woken: that lets other threads run, and this one would
        # come back in the midst of what they do with the frame.
        del part
        if frame is None:
            self._party.frame_refused(stream, size_bytes)
        else:
            self._party.frame_received(stream, frame)
        return True

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

    def _miss_ends(self) -> None:
        failure = self._ends.take_failure()
        if failure is not None:
            self._act(self._party.connection_lost(failure))

    def _streams(self) -> list[ClientStream]:
        streams = [stream for _, stream in self._inbound]
        sensory = self._sensory.stream
        return streams if sensory is None else [*streams, sensory]

    def _tend_streams(self) -> None:
        now_s = time.monotonic()
        try:
            # Every one of them, whatever became of the ones before.
            reopened = [stream.tend(now_s) for _, stream in self._inbound]
            if self._sensory.tend(now_s) or any(reopened):
                self._watched = None
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
        self._watched = None
        self._opened(control)
        self._opened(self._monitor)
        connect(control, self._url)

    def _close_control(self, linger_ms: int | None = None) -> None:
        self._unsent.clear()
        self._watched = None
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
        for capability, stream, role in _STREAMS:
            endpoint = action.endpoints.get(capability)
            if endpoint is None:
                continue
            if endpoint.protocol is not ConnectionProtocol.ZMQ:
                self._ends.open(endpoint, stream)
                continue
            opened = self._open_stream(role, stream, endpoint)
            if stream is StreamType.SENSORY:
                self._sensory.lead_to(opened)
            else:
                self._inbound.append((stream, opened))

    def _open_stream(self, role: Role, stream: StreamType, endpoint: Endpoint) -> ClientStream:
        is_sensory = stream is StreamType.SENSORY
        most_bytes = self._max_frame_bytes
        self._watched = None
        return ClientStream(
            self._context,
            role,
            stream_url(endpoint.url, self._url),
            self._options,
            most_bytes if is_sensory else self._form.message_bytes(stream, most_bytes),
            self._opened,
            self._closing,
            () if is_sensory else self._form.subscriptions(stream),
        )

    def _close_streams(self) -> None:
        self._watched = None
        self._ends.close()
        self._sensory.lead_to(None)
        streams = [stream for _, stream in self._inbound]
        self._inbound.clear()
        self._kinds.clear()
        for stream in streams:
            stream.close()
