# SPDX-License-Identifier: Apache-2.0
"""AgentWires: the connections of one agent, and what is done with them turn after turn.

    what came: control, motor, visualization, a lost connection   -> the agent
    what the agent wants: control messages, sensory frames         -> the server
    NewSession, OpenStreams, ... as the agent says

What comes is handed to the agent in the turn of the event loop that brings it. A stream that ends
means what the end of the control connection means: the agent registers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from feagi_io_host.core.agent_link import LinkParty, MakePeerStreams, PeerStreams
from feagi_io_host.core.client_actions import (
    ClientAction,
    CloseStreams,
    EndSession,
    NewSession,
    OpenStreams,
    PeerAnswered,
    Send,
)
from feagi_io_host.core.endpoints import STREAM_OF
from feagi_io_host.core.errors import ConfigError, FeagiDataError, FeagiIOError
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    Endpoint,
    PeerOffer,
    encode_control,
)
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.websocket.address import WebSocketAddress
from feagi_io_host.transports.websocket.client_ends import LoopEnds, MakeEnd
from feagi_io_host.transports.websocket.client_line import ClientSettings, ClientWire
from feagi_io_host.transports.websocket.line import Message

# A configuration may be answered with nothing bigger than a heartbeat, a registration with three
# addresses and an id.
MAX_CONTROL_BYTES: Final = 64 << 10
# A server has nothing to say on a sensory stream.
_MAX_UNEXPECTED_BYTES: Final = 1024
# How long a turn waits at most, and how often connections are looked after.
_LONGEST_WAIT_S: Final = 0.5


class AgentWires:
    """All connections of one agent at the server `address`. Belongs to one event loop.

    `ring()` is called when a turn has something to do. `streams_over` is what the agent asks for
    its streams over; what the server then gives over that is opened by `stream_ends`, or, with
    WebRTC, by `peer_streams` with `peer_settings`.
    """

    def __init__(
        self,
        party: LinkParty,
        address: WebSocketAddress,
        settings: ClientSettings,
        tls: ssl.SSLContext | None,
        max_frame_bytes: int,
        ring: Callable[[], object],
        *,
        streams_over: ConnectionProtocol,
        stream_ends: MakeEnd | None,
        peer_streams: MakePeerStreams | None,
        peer_settings: Mapping[str, Any],
    ) -> None:
        self._party = party
        self._address = address
        self._settings = settings
        self._tls = tls
        self._max_frame_bytes = max_frame_bytes
        self._ring = ring
        self._control: ClientWire | None = None
        self._streams: dict[StreamType, ClientWire] = {}
        self._ends = LoopEnds(
            party,
            streams_over,
            stream_ends,
            max_frame_bytes,
            lambda reason: self._lose("", reason),
        )
        self._streams_over = streams_over
        self._make_peer = peer_streams
        self._peer_settings = peer_settings
        self._peer: PeerStreams | None = None
        self._peer_carries: tuple[StreamType, ...] = ()
        self._closing: dict[asyncio.Task[None], ClientWire | PeerStreams] = {}

    def turn(self) -> None:
        """Everything that can be done without waiting."""
        self._act(self._party.turn())
        self.send_sensory()
        self._ends.tend()
        if self._peer is not None:
            for stream in self._peer_carries:
                self._party.stream_end_counted(stream, self._peer.counters(stream))
        for wire in self._wires():
            wire.tend()

    @property
    def wait_s(self) -> float:
        """In how many seconds at most a turn has something to do by itself."""
        due_s = self._party.wait_s
        wait_s = _LONGEST_WAIT_S if due_s is None else min(due_s, _LONGEST_WAIT_S)
        if self._ends.due_s is not None:
            wait_s = min(wait_s, self._ends.due_s - time.monotonic())
        return max(wait_s, 0.0)

    def send_sensory(self) -> None:
        """Send what the agent has to send, as far as there is room."""
        party = self._party
        if self._ends.sends_sensory:
            self._ends.send_sensory()
            return
        peer = self._peer
        if peer is not None and peer.sends_sensory:
            while peer.has_room and party.has_sensory:
                fbc = party.next_sensory()
                if fbc is None:
                    return
                peer.send_frame(fbc)
                party.sensory_sent()
            return
        wire = self._streams.get(StreamType.SENSORY)
        while wire is not None and wire.has_room and party.has_sensory:
            fbc = party.next_sensory()
            if fbc is None:
                return
            with fbc:  # masked, and so copied
                wire.send_frame(fbc.view)
            party.sensory_sent()

    async def close(self, timeout_s: float) -> None:
        """Close everything in order, within `timeout_s` seconds; what is left then is cut off."""
        self._close_streams()
        self._close_control()
        if self._closing:
            await asyncio.wait(self._closing, timeout=timeout_s)
        if self._closing:
            for wire in self._closing.values():
                wire.cut()
            await asyncio.wait(self._closing)

    # -- what comes ---------------------------------------------------------------------------

    def _hear_control(self, data: Message) -> None:
        self._act(self._party.control_received(data))
        self._ring()

    def _hear_frame(self, stream: StreamType, data: Message) -> None:
        if stream is StreamType.SENSORY:
            self._party.frame_refused(stream, len(data))
            return
        self._party.frame_received(stream, data)
        if self._party.has_requests:
            self._ring()

    def _lose(self, what: str, reason: str) -> None:
        self._act(self._party.connection_lost(f"{what}{reason}"))
        self._ring()

    # -- what the agent wants -----------------------------------------------------------------

    def _act(self, actions: Sequence[ClientAction]) -> None:
        for action in actions:
            failure = self._carry_out(action)
            self._party.note(action)
            if failure is not None:
                self._act(self._party.connection_lost(failure))

    def _carry_out(self, action: ClientAction) -> str | None:
        """What went wrong, in words; None for nothing."""
        if isinstance(action, Send):
            self._open_control().send(action.data)
        elif isinstance(action, (NewSession, EndSession)):
            self._close_control()
        elif isinstance(action, OpenStreams):
            self._close_streams()
            try:
                shared: dict[StreamType, Endpoint] = {}
                for capability, endpoint in action.endpoints.items():
                    if endpoint.protocol is ConnectionProtocol.WEBRTC:
                        shared[STREAM_OF[capability]] = endpoint
                    else:
                        self._open_stream(STREAM_OF[capability], endpoint)
                if shared:
                    self._open_peer(shared, action.agent_id)
            except ConfigError as error:
                return f"the server's answer cannot be used: {error}"
            except FeagiDataError as error:
                return f"the server's answer cannot be used: {error}"
            except FeagiIOError as error:
                return str(error)
        elif isinstance(action, CloseStreams):
            self._close_streams()
        elif isinstance(action, PeerAnswered) and self._peer is not None:
            self._peer.take_answer(action.answer)
        return None

    def _open_control(self) -> ClientWire:
        """The control connection: opened when there is something to say, since nobody is told of
        one that cannot be opened while the agent waits between two attempts."""
        if self._control is None or self._control.is_over:
            self._close_control()
            self._control = self._wire(
                self._address, MAX_CONTROL_BYTES, self._hear_control, self._ring, ""
            )
        return self._control

    def _open_stream(self, stream: StreamType, endpoint: Endpoint) -> None:
        if endpoint.protocol is not ConnectionProtocol.WEBSOCKET:
            self._ends.open(endpoint, stream)
            return
        is_sensory = stream is StreamType.SENSORY
        self._streams[stream] = self._wire(
            self._address.stream(endpoint.url),
            _MAX_UNEXPECTED_BYTES if is_sensory else self._max_frame_bytes,
            lambda data: self._hear_frame(stream, data),
            self.send_sensory if is_sensory else lambda: None,
            f"{stream.value} stream: ",
        )

    def _open_peer(self, endpoints: Mapping[StreamType, Endpoint], agent_id: bytes) -> None:
        """One connection for all of these streams, of what was asked for alone."""
        if self._make_peer is None or self._streams_over is not ConnectionProtocol.WEBRTC:
            raise ConfigError(
                f"{len(endpoints)} streams are given over WebRTC; {self._streams_over.value} was "
                "asked for"
            )
        control = self._open_control()
        self._peer = self._make_peer(
            endpoints,
            local_address=control.local_address,
            max_frame_bytes=self._max_frame_bytes,
            on_offer=lambda text: control.send(encode_control(PeerOffer(text), agent_id)),
            on_frame=self._hear_frame,
            on_room=self.send_sensory,
            on_lost=lambda reason: self._lose("WebRTC: ", reason),
            **self._peer_settings,
        )
        self._peer_carries = tuple(endpoints)

    def _wire(
        self,
        address: WebSocketAddress,
        most_bytes: int,
        on_message: Callable[[Message], object],
        on_room: Callable[[], object],
        what: str,
    ) -> ClientWire:
        return ClientWire(
            address,
            self._settings,
            self._tls if address.secure else None,
            most_bytes,
            on_message=on_message,
            on_room=on_room,
            on_lost=lambda reason: self._lose(what, reason),
        )

    def _close_control(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            self._close(control)

    def _close_streams(self) -> None:
        self._ends.close()
        streams = tuple(self._streams.values())
        self._streams.clear()
        for wire in streams:
            self._close(wire)
        peer, self._peer, self._peer_carries = self._peer, None, ()
        if peer is not None:
            peer.end()
            self._close_later(peer)

    def _close(self, wire: ClientWire) -> None:
        wire.close()
        self._close_later(wire)

    def _close_later(self, wire: ClientWire | PeerStreams) -> None:
        task = asyncio.get_running_loop().create_task(
            wire.wait_until_gone(), name="feagi-io-websocket-closing"
        )
        self._closing[task] = wire
        task.add_done_callback(self._closing.pop)

    def _wires(self) -> tuple[ClientWire, ...]:
        streams = tuple(self._streams.values())
        return streams if self._control is None else (self._control, *streams)


async def serve_until_over(
    wires: AgentWires,
    party: LinkParty,
    bell: asyncio.Event,
    give_up_at_s: Callable[[], float | None],
) -> None:
    """Turn after turn, when the bell rings or a clock says so, until the agent is out or the time
    to give up has come."""
    while True:
        bell.clear()
        wires.turn()
        if party.finished:
            return
        wait_s = wires.wait_s
        deadline_s = give_up_at_s()
        if deadline_s is not None:
            wait_s = min(wait_s, deadline_s - time.monotonic())
            if wait_s <= 0.0:
                return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await bell.wait()
