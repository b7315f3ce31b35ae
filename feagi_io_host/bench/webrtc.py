# SPDX-License-Identifier: Apache-2.0
"""WebRTC benchmark: a PNS to its agents and back over data channels, against the library alone.

The peer is `aiortc` at both ends, one reliable channel each way, its messages as large as it takes
them. Everything is in one event loop and over loopback, so a row has the work of both ends in it.
Exchanges of ours and of the peer take turns, and a row's ratio is the median over the pairs; its
note has what each took, and megabytes a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Final

import aioice.ice
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection

from feagi_io_host.agent.async_feagi_agent import AsyncFeagiAgent
from feagi_io_host.bench.exchanges import Exchange, Pair, compared, take_turns
from feagi_io_host.bench.lines import DEADLINE_S, PATIENT, descriptor, frame
from feagi_io_host.bench.runner import Row
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import StreamCarrier
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.pns import PNS
from feagi_io_host.transports.webrtc import WebRtcTransport
from feagi_io_host.transports.websocket import WebSocketTransport

BURST: Final = 200_000
# Neurons, what the frame is called, exchanges, and those of a quick run.
_SIZES: Final = (
    (BURST, "3.2 MB", 30, 1),
    (4_090, "64 KB", 200, 8),
    (61, "1 KB", 400, 12),
)
_LIMIT: Final = 1.15
_WARM_UP: Final = 1
_PEER: Final = "aiortc"
_EVERYTHING: Final = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
_MESSAGE_BYTES: Final = 65_536


def run(quick: bool = False) -> list[Row]:
    """All rows of the WebRTC benchmark; `quick` takes fewer exchanges."""
    with asyncio.Runner() as runner:
        return runner.run(_rows(quick))


async def _rows(quick: bool) -> list[Row]:
    async with AsyncExitStack() as stack:
        down, up = await _bare(stack)
        felt: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def feel(event: SensoryData) -> None:
            # The PNS tells its listeners in a thread of its own.
            loop.call_soon_threadsafe(felt.put_nowait, len(event.fbc))

        pns = stack.enter_context(PNS(delivery=PATIENT))
        pns.sensory_data_received.connect(feel)
        webrtc = await stack.enter_async_context(WebRtcTransport(pns))
        carriers: dict[StreamType, StreamCarrier] = {
            stream: webrtc for stream in StreamType if stream is not StreamType.CONTROL
        }
        transport = await stack.enter_async_context(
            WebSocketTransport(pns, port=0, carriers=carriers)
        )
        agent = await stack.enter_async_context(
            AsyncFeagiAgent(
                descriptor(),
                _EVERYTHING,
                transport.control_url,
                streams_over=ConnectionProtocol.WEBRTC,
            )
        )
        (session,) = transport.agents
        await webrtc.wait_until_connected(session.agent_id, DEADLINE_S)

        async def shown(fbc: SharedFBC) -> None:
            session.show(fbc)
            await agent.receive_visualization()

        async def moved(fbc: SharedFBC) -> None:
            session.offer_motor(fbc)
            await agent.receive_motor()

        async def sensed(fbc: SharedFBC) -> None:
            await agent.send_sensory(fbc)
            await felt.get()

        pairs = [
            Pair("visualization, PNS to AsyncFeagiAgent", shown, down, judged=True),
            Pair("motor, PNS to AsyncFeagiAgent", moved, down, judged=True),
            Pair("sensory, AsyncFeagiAgent to a PNS listener", sensed, up, judged=False),
        ]
        rows = []
        for neurons, size, exchanges, few in _SIZES:
            with frame(neurons) as fbc:
                for pair in pairs:
                    times = await take_turns(pair, fbc, few if quick else exchanges, _WARM_UP)
                    limit = _LIMIT if pair.judged and neurons == BURST else None
                    rows.append(compared(f"{pair.name}, {size}", times, _PEER, limit, len(fbc)))
        return rows


# -- the library alone ----------------------------------------------------------------------------


async def _bare(stack: AsyncExitStack) -> tuple[Exchange, Exchange]:
    """Both directions of one connection."""
    configuration = RTCConfiguration(iceServers=[])
    ends = [RTCPeerConnection(configuration), RTCPeerConnection(configuration)]
    for end in ends:
        stack.push_async_callback(end.close)
    channels = [end.createDataChannel("bench", negotiated=True, id=0) for end in ends]
    opened = [_opened(channel) for channel in channels]
    one, other = ends
    with _loopback_only():
        await one.setLocalDescription(await one.createOffer())
        await other.setRemoteDescription(one.localDescription)
        await other.setLocalDescription(await other.createAnswer())
        await one.setRemoteDescription(other.localDescription)
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*opened)
    return _way(channels[0], channels[1]), _way(channels[1], channels[0])


def _opened(channel: RTCDataChannel) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    channel.on("open", lambda: future.set_result(None))
    return future


def _way(sender: RTCDataChannel, receiver: RTCDataChannel) -> Exchange:
    heard: asyncio.Queue[int] = asyncio.Queue()
    receiver.on("message", lambda data: heard.put_nowait(len(data)))

    async def exchange(fbc: SharedFBC) -> None:
        data = bytes(fbc.view)
        for start in range(0, len(data), _MESSAGE_BYTES):
            sender.send(data[start : start + _MESSAGE_BYTES])
        left = len(data)
        while left > 0:
            left -= await heard.get()

    return exchange


@contextmanager
def _loopback_only() -> Iterator[None]:
    """The library leaves loopback out; here it is the only way, as it is for ours."""
    own = aioice.ice.get_host_addresses
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    try:
        yield
    finally:
        aioice.ice.get_host_addresses = own
