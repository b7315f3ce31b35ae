# SPDX-License-Identifier: Apache-2.0
"""ICE servers: asked when they are named, and waited for no longer than a second."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from aioice import stun

from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.webrtc import WebRtcSettings
from feagi_io_host.transports.webrtc.description import parse_description
from feagi_io_host.transports.webrtc.peer_line import PeerLine
from tests.feagi_io_host.transports.websocket.peer import DEADLINE_S

OUTSIDE = ("198.51.100.7", 4567)


class StunServer(asyncio.DatagramProtocol):
    """Tells everybody that they are somewhere else, as a server beyond a router does."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        request = stun.parse_message(data)
        answer = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        answer.attributes["XOR-MAPPED-ADDRESS"] = OUTSIDE
        self.transport.sendto(bytes(answer), addr)


def line(**settings: Any) -> PeerLine:
    return PeerLine(
        WebRtcSettings(**settings),
        sends=(StreamType.SENSORY,),
        receives=(StreamType.MOTOR,),
        max_frame_bytes=1 << 16,
    )


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]


def test_a_server_tells_where_an_end_is_seen() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        server, _ = await loop.create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
        port = server.get_extra_info("sockname")[1]
        end = line(ice_servers=(f"stun:127.0.0.1:{port}",))
        offer = parse_description(await end.offer())
        assert [(c.kind, c.address) for c in offer.candidates] == [
            ("host", "127.0.0.1"),
            ("srflx", OUTSIDE[0]),
        ]
        end.end()
        await end.wait_until_gone()
        server.close()
        await asyncio.sleep(0)
        assert others() == set()

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("server", ["stun:127.0.0.1:{}", "turn:me:secret@127.0.0.1:{}"])
def test_a_server_that_does_not_answer_is_done_without(server: str) -> None:
    async def run(port: int) -> None:
        end = line(ice_servers=(server.format(port),))
        began_s = time.monotonic()
        async with asyncio.timeout(DEADLINE_S):
            offer = parse_description(await end.offer())
        assert time.monotonic() - began_s < 2.0
        assert [c.kind for c in offer.candidates] == ["host"]
        end.end()
        await end.wait_until_gone()
        await asyncio.sleep(0.01)
        assert others() == set()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asyncio.run(run(silent.getsockname()[1]))


def test_an_end_that_is_given_up_while_it_asks_is_gone_in_time() -> None:
    async def run(port: int) -> None:
        end = line(ice_servers=(f"stun:127.0.0.1:{port}",), close_timeout_s=0.3)
        offering = asyncio.create_task(end.offer())
        while not end._gatherer.connection._protocols:
            await asyncio.sleep(0)
        began_s = time.monotonic()
        end.end()
        await end.wait_until_gone()
        assert time.monotonic() - began_s < 2.0  # the second for the server
        offering.cancel()
        await asyncio.wait({offering})
        await asyncio.sleep(0.01)
        assert others() == set()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        asyncio.run(run(silent.getsockname()[1]))
