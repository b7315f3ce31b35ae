# SPDX-License-Identifier: Apache-2.0
"""An agent for tests: bare control connection, our own line, and an inbox that can be full."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import AgentHost
from feagi_io_host.core.endpoints import STREAM_OF
from feagi_io_host.core.errors import ClosedError, LocalError
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    DeregistrationRequest,
    PeerAnswer,
    PeerOffer,
    RegistrationRequest,
    RegistrationSuccess,
    encode_control,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.nonblocking.transport import DEFAULT_MAX_FRAME_BYTES
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.webrtc import WebRtcSettings, WebRtcTransport
from feagi_io_host.transports.webrtc.peer_line import PeerLine
from feagi_io_host.transports.websocket import WebSocketTransport
from tests.feagi_io_host.transports.websocket.peer import DEADLINE_S, ask, dial

SENSORY, MOTOR, VIZ = StreamType.SENSORY, StreamType.MOTOR, StreamType.VISUALIZATION
DATA = (SENSORY, MOTOR, VIZ)
# Motor frames that wait to be read; then nothing more is taken from the connection.
MOST_UNREAD = 64


class Served(WebSocketTransport):
    """A WebSocket transport whose agents may have all their streams over WebRTC."""

    def __init__(
        self,
        host: AgentHost,
        *,
        webrtc: dict[str, Any] | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        **settings: Any,
    ) -> None:
        self.webrtc = WebRtcTransport(host, settings=webrtc, max_frame_bytes=max_frame_bytes)
        super().__init__(
            host,
            port=0,
            max_frame_bytes=max_frame_bytes,
            carriers=dict.fromkeys(DATA, self.webrtc),
            **settings,
        )

    async def start(self) -> None:
        await self.webrtc.start()
        await super().start()

    async def stop(self, timeout_s: float = 5.0) -> None:
        await super().stop(timeout_s)
        await self.webrtc.stop(timeout_s)


class ServedInThreads:
    """The same in a thread's event loop, and its host."""

    def __init__(self, **settings: Any) -> None:
        self.host = StandInHost()
        self.transport = Served(self.host, **settings)
        self.handle = TransportHandle(self.transport)
        self.runtime = Runtime()
        try:
            self.handle.start()
        except BaseException:
            self.runtime.close()
            raise
        self.url = self.transport.control_url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.stop()
        self.runtime.close()

    def call(self, coroutine: Any) -> Any:
        return self.runtime.call(coroutine, DEADLINE_S)

    def counted(self) -> dict[str, Any]:
        return self.transport.webrtc.counters()


class WebRtcPeer:
    """A registered agent with its connection."""

    def __init__(
        self,
        control: ClientConnection,
        success: RegistrationSuccess,
        line: PeerLine,
        max_frame_bytes: int,
    ) -> None:
        self.control = control
        self.agent_id = success.agent_id
        self.line = line
        self.max_frame_bytes = max_frame_bytes
        self.lost: str | None = None
        self.opened = asyncio.Event()
        self._frames: dict[StreamType, deque[bytes]] = {MOTOR: deque(), VIZ: deque(maxlen=1)}
        self._changed = asyncio.Condition()
        self._bounded = True
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._tasks: set[asyncio.Task[None]] = set()
        line.on_open = self.opened.set
        line.on_frame = self._take
        line.on_lost = self._lose
        handle = line._sctp._handle_data

        async def when_there_is_room(data: bytes) -> None:
            await self._may_read.wait()
            await handle(data)

        line._sctp._handle_data = when_there_is_room  # type: ignore[method-assign]

    @classmethod
    async def connect(
        cls,
        url: str,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        offer_as: Callable[[str], str] = str,
        answer_as: Callable[[str], str] = str,
        wait: bool = True,
    ) -> Self:
        """Register and offer. `offer_as` and `answer_as` change what is said; with `wait` until
        the connection stands."""
        control = await dial(url)
        peer: Self | None = None
        try:
            request = RegistrationRequest(descriptor, capabilities, ConnectionProtocol.WEBRTC)
            success = await ask(control, request)
            assert isinstance(success, RegistrationSuccess), success
            streams = [STREAM_OF[capability] for capability in success.endpoints]
            line = PeerLine(
                WebRtcSettings(),
                sends=[stream for stream in streams if stream is SENSORY],
                receives=[stream for stream in streams if stream is not SENSORY],
                max_frame_bytes=DEFAULT_MAX_FRAME_BYTES,
            )
            peer = cls(control, success, line, max_frame_bytes)
            answer = await ask(control, PeerOffer(offer_as(await line.offer())))
            assert isinstance(answer, PeerAnswer), answer
            line.take_answer(answer_as(answer.sdp))
            async with asyncio.timeout(DEADLINE_S):
                while wait and not peer.opened.is_set():
                    assert peer.lost is None, peer.lost
                    await asyncio.sleep(0.005)
        except BaseException:
            control.transport.abort()
            if peer is not None:
                peer.line.end()
                await peer.line.wait_until_gone()
            raise
        return peer

    async def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send a frame, when there is room."""
        outbound = self.line.lines.get(SENSORY)
        if outbound is None:
            return
        if len(frame) > self.max_frame_bytes:
            raise LocalError(f"frame of {len(frame)} bytes; at most {self.max_frame_bytes}")
        while not outbound.has_room:
            if self.lost is not None:
                raise ClosedError(self.lost)
            room = asyncio.Event()
            outbound.on_room = room.set
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await room.wait()
        if isinstance(frame, SharedFBC):
            outbound.send_frame(frame.retain())
            return
        assert outbound._fragmenter is not None
        # A datagram without anything in it is no frame that anybody could have sent.
        burst = outbound._fragmenter.fragment(SENSORY, frame or b"\0")
        assert burst is not None
        for head, payload in burst.datagrams():
            outbound.channel.send(b"".join((head, payload)))

    async def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame."""
        return await self._receive(MOTOR, timeout_s)

    async def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The newest visualization frame."""
        return await self._receive(VIZ, timeout_s)

    async def stop_reading(self) -> None:
        """Take nothing more from the connection."""
        self._may_read.clear()

    async def wait_until_cut_off(self) -> None:
        """Until the server has let go of this agent."""
        self._bounded = False  # the end is behind what was not read
        self._may_read.set()
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await self.control.recv()
            async with self._changed:
                await self._changed.wait_for(lambda: self.lost is not None)

    async def close(self) -> None:
        """Leave."""
        with contextlib.suppress(ConnectionClosed):
            await self.control.send(encode_control(DeregistrationRequest(None)))
        self._lose("closed")
        self.line.end()
        await self.line.wait_until_gone()
        await self.control.close()
        while self._tasks:
            await asyncio.wait(self._tasks)

    # -- inside -------------------------------------------------------------------------------

    async def _receive(self, stream: StreamType, timeout_s: float | None) -> SharedFBC | None:
        frames = self._frames[stream]
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: frames or self.lost is not None)
        except TimeoutError:
            return None
        if self.lost is not None:
            raise ClosedError(self.lost)
        data = frames.popleft()
        if len(self._frames[MOTOR]) < MOST_UNREAD:
            self._may_read.set()
        return SharedFBC.from_bytes(data)

    def _take(self, stream: StreamType, data: memoryview) -> None:
        self._frames[stream].append(bytes(data))
        if self._bounded and len(self._frames[MOTOR]) >= MOST_UNREAD:
            self._may_read.clear()
        self._tell()

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        self._may_read.set()
        self._tell()

    def _tell(self) -> None:
        async def tell() -> None:
            async with self._changed:
                self._changed.notify_all()

        task = asyncio.get_running_loop().create_task(tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
