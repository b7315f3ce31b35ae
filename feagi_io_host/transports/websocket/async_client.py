# SPDX-License-Identifier: Apache-2.0
"""AsyncWebSocketAgentLink: an agent at a server that speaks WebSocket, in an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from feagi_io_host.core.agent_link import LinkParty, MakePeerStreams
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.nonblocking.runtime import AsyncWorker
from feagi_io_host.transports.websocket.address import WebSocketAddress
from feagi_io_host.transports.websocket.client_ends import MakeEnd
from feagi_io_host.transports.websocket.client_line import ClientSettings
from feagi_io_host.transports.websocket.client_lines import AgentWires, serve_until_over


class AsyncWebSocketAgentLink:
    """The AsyncAgentLink for ws:// and wss:// addresses; see `core.agent_link`.

    `address` is where the server lets agents register, ws://host:port; ConfigError for another.
    Frames above `max_frame_bytes` are refused before memory is taken for them. `settings` are
    those of ClientSettings, by name. `streams_over` is what the agent asks for its streams over;
    what the server then gives over that is opened by `stream_ends(endpoint, stream,
    max_frame_bytes=...)`, or, with WebRTC, by `peer_streams`, to which `webrtc` has settings.
    """

    def __init__(
        self,
        address: str,
        party: LinkParty,
        *,
        max_frame_bytes: int,
        streams_over: ConnectionProtocol = ConnectionProtocol.WEBSOCKET,
        stream_ends: MakeEnd | None = None,
        peer_streams: MakePeerStreams | None = None,
        webrtc: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self._address = WebSocketAddress.of(address)
        self._settings = ClientSettings(**settings)
        self._tls = self._settings.tls(self._address)
        self._party = party
        self._streams_over = streams_over
        self._stream_ends = stream_ends
        self._peer_streams = peer_streams
        self._peer_settings = dict(webrtc or {})
        self._max_frame_bytes = max_frame_bytes
        self._wires: AgentWires | None = None
        self._give_up_at_s: float | None = None
        self._close_s = self._settings.close_timeout_s
        self._bell = asyncio.Event()
        self._worker = AsyncWorker("feagi-io-websocket-agent", self._run, wake=self.wake)

    def start(self) -> None:
        """Begin, in the running loop; does nothing when started before. Raises ClosedError after
        `stop`."""
        self._worker.start()

    def wake(self) -> None:
        """Have the agent's turn come soon. Only in the loop."""
        self._bell.set()

    def send_now(self) -> None:
        """Send what the agent has to send: here, if there is room. Only in the loop."""
        if self._wires is not None:
            self._wires.send_sensory()

    async def stop(self, timeout_s: float) -> None:
        """Wait until the agent is out, `timeout_s` seconds at most, then let go of everything.

        May be called more than once. Raises StopTimeoutError when the task had to be cancelled.
        """
        # A part of the time is for closing what is open when the agent does not get out.
        self._give_up_at_s = time.monotonic() + 0.5 * timeout_s
        self._close_s = min(self._settings.close_timeout_s, 0.3 * timeout_s)
        self._bell.set()
        await self._worker.stop(timeout_s)

    async def _run(self, stopping: asyncio.Event) -> None:
        failure: BaseException | None = None
        wires = self._wires = AgentWires(
            self._party,
            self._address,
            self._settings,
            self._tls,
            self._max_frame_bytes,
            self._bell.set,
            streams_over=self._streams_over,
            stream_ends=self._stream_ends,
            peer_streams=self._peer_streams,
            peer_settings=self._peer_settings,
        )
        try:
            await serve_until_over(wires, self._party, self._bell, lambda: self._give_up_at_s)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._wires = None
            try:
                await wires.close(self._close_s)
            finally:
                self._party.link_ended(failure)
