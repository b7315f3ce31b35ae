# SPDX-License-Identifier: Apache-2.0
"""An agent made of bare connections of the `websockets` library, for the contract and others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError, LocalError
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    DeregistrationRequest,
    ReceivedMessage,
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.transport import DEFAULT_MAX_FRAME_BYTES
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW

DEADLINE_S = 10.0


async def dial(
    url: str, kernel_buffer_bytes: int | None = None, **settings: Any
) -> ClientConnection:
    """A connection as small as can be: no pings, no queue to speak of."""
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    raw = socket.socket()
    try:
        if kernel_buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, kernel_buffer_bytes)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        return await connect(
            url,
            sock=raw,
            compression=None,
            ping_interval=None,
            max_queue=1,
            max_size=None,
            close_timeout=1.0,
            proxy=None,
            **settings,
        )
    except BaseException:
        raw.close()
        raise


async def ask(control: ClientConnection, message: Any) -> ReceivedMessage:
    """Send a control message; the answer."""
    await control.send(message if isinstance(message, bytes) else encode_control(message))
    async with asyncio.timeout(DEADLINE_S):
        answer = await control.recv()
    assert isinstance(answer, bytes)
    return decode_control(answer)[1]


def registration(
    descriptor: AgentDescriptor,
    capabilities: AgentCapabilities,
    token: bytes = bytes(32),
) -> RegistrationRequest:
    return RegistrationRequest(descriptor, capabilities, ConnectionProtocol.WEBSOCKET, token)


class WebSocketPeer:
    """A registered agent with all its connections."""

    def __init__(
        self,
        control: ClientConnection,
        success: RegistrationSuccess,
        streams: dict[Any, Any],
        max_frame_bytes: int,
    ) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.control = control
        self.success = success
        self.agent_id = success.agent_id
        self.streams: dict[AgentCapabilities, ClientConnection] = streams

    @classmethod
    async def connect(
        cls,
        url: str,
        descriptor: AgentDescriptor,
        capabilities: AgentCapabilities,
        *,
        token: bytes = bytes(32),
        kernel_buffer_bytes: int | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    ) -> Self:
        opened: list[ClientConnection] = []
        try:
            control = await dial(url)
            opened.append(control)
            success = await ask(control, registration(descriptor, capabilities, token))
            assert isinstance(success, RegistrationSuccess), success
            streams = {}
            for capability, endpoint in success.endpoints.items():
                streams[capability] = await dial(endpoint.url, kernel_buffer_bytes)
                opened.append(streams[capability])
            return cls(control, success, streams, max_frame_bytes)
        except BaseException:
            for connection in opened:
                connection.transport.abort()
            raise

    async def send_sensory(self, frame: SharedFBC | bytes) -> None:
        """Send a frame."""
        stream = self.streams.get(SENSE)
        if stream is None:
            return
        if len(frame) > self.max_frame_bytes:
            raise LocalError(f"frame of {len(frame)} bytes; at most {self.max_frame_bytes}")
        try:
            await stream.send(frame if isinstance(frame, bytes) else bytes(frame.view))
        except ConnectionClosed as error:
            raise ClosedError("the other end is gone") from error

    async def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame."""
        return await self._receive(MOVE, timeout_s)

    async def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next visualization frame."""
        return await self._receive(VIEW, timeout_s)

    async def _receive(
        self, capability: AgentCapabilities, timeout_s: float | None
    ) -> SharedFBC | None:
        try:
            async with asyncio.timeout(timeout_s):
                data = await self.streams[capability].recv()
        except TimeoutError:
            return None
        except ConnectionClosed as error:
            raise ClosedError("the other end is gone") from error
        assert isinstance(data, bytes)
        return SharedFBC.from_bytes(data)

    async def wait_until_cut_off(self) -> None:
        """Until the server has closed all of this agent's connections."""
        async with asyncio.timeout(DEADLINE_S):
            for connection in (self.control, *self.streams.values()):
                # What was sent before is read: the end comes after it.
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await connection.recv()

    async def cut(self) -> None:
        """Be gone, without a word."""
        for connection in (self.control, *self.streams.values()):
            connection.transport.abort()
            await connection.wait_closed()

    async def close(self) -> None:
        """Leave."""
        with contextlib.suppress(ConnectionClosed):
            await self.control.send(encode_control(DeregistrationRequest(None)))
        for connection in (*self.streams.values(), self.control):
            await connection.close()
