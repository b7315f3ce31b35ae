# SPDX-License-Identifier: Apache-2.0
"""One stream over WebSocket beside another control link: what its end does at bad servers."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from feagi_io_host.bench.lines import encode
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError, RemoteError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.transports.websocket.stream_end import (
    WebSocketStreamEnd,
    websocket_stream_end,
)
from tests.feagi_io_host.core.control import SENSE, VIEW
from tests.feagi_io_host.transports.websocket.peer import WebSocketPeer
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S, Served

MAX_FRAME_BYTES = 4 << 20
SENSORY, SHOWN = StreamType.SENSORY, StreamType.VISUALIZATION


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as server:
        yield server


def turn(end: WebSocketStreamEnd, done: Callable[[], bool]) -> None:
    """Turn an end as its link does, until `done`."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not done():
        now_s = time.monotonic()
        assert now_s < deadline_s
        due_s = end.tend(now_s)
        wait_s = 0.01 if due_s is None else min(max(due_s - now_s, 0.0), 0.01)
        select.select([end], [], [], wait_s)


def end_of(end: WebSocketStreamEnd) -> str:
    """Take until it is over, and why it is."""
    with pytest.raises(ClosedError) as told:
        turn(end, lambda: end.take() is not None)
    end.close()
    return str(told.value)


def big(counter: int) -> SharedFBC:
    container = FeagiByteContainer.new_empty()
    encode(container, 200_000, counter)
    return SharedFBC.adopt(container)


def test_large_frames_go_both_ways_without_waiting(served: Served) -> None:
    descriptor = AgentDescriptor("feagi-io test", "rover", 1)
    peer = served.call(WebSocketPeer.connect(served.url, descriptor, SENSE | VIEW))
    urls = {capability: end.url for capability, end in peer.success.endpoints.items()}
    # They take over from the peer's own.
    shown = websocket_stream_end(urls[VIEW], SHOWN, max_frame_bytes=MAX_FRAME_BYTES)
    felt = websocket_stream_end(urls[SENSE], SENSORY, max_frame_bytes=MAX_FRAME_BYTES)
    try:
        with big(5) as frame:
            turn(felt, lambda: felt.take() is None and felt.send(frame))
            seen: list[bytes | None] = []

            def came() -> bool:
                seen.append(served.host.take_sensory(peer.agent_id, 0.001))
                return seen[-1] is not None

            turn(felt, came)
            assert seen[-1] == bytes(frame.view)
            taken: list[bytes] = []

            def show() -> bool:
                served.handle.publish_visualization(frame)
                data = shown.take()
                if data is not None:
                    taken.append(bytes(data))
                return bool(taken)

            turn(shown, show)
            assert taken[0] == bytes(frame.view)
    finally:
        shown.close()
        shown.close()
        felt.close()
        served.call(peer.cut())


def test_a_server_that_ends_it_is_heard(served: Served) -> None:
    descriptor = AgentDescriptor("feagi-io test", "rover", 1)
    peer = served.call(WebSocketPeer.connect(served.url, descriptor, VIEW))
    url = peer.success.endpoints[VIEW].url
    end = websocket_stream_end(url, SHOWN, max_frame_bytes=MAX_FRAME_BYTES)
    served.host.sessions[0].close("the brain has enough of it")
    reason = end_of(end)
    assert "1001" in reason or "404" in reason
    served.call(peer.cut())
    late = websocket_stream_end(url, SHOWN, max_frame_bytes=MAX_FRAME_BYTES)
    assert "404" in end_of(late)


@pytest.mark.parametrize(
    "url", ["", "tcp://127.0.0.1:1", "ws://", "ws://127.0.0.1:0", "wss://127.0.0.1:1"]
)
def test_what_cannot_be_an_address_is_refused(url: str) -> None:
    with pytest.raises(RemoteError, match="sensory stream"):
        websocket_stream_end(url, SENSORY, max_frame_bytes=MAX_FRAME_BYTES)


def test_nobody_there_is_the_end() -> None:
    end = websocket_stream_end("ws://127.0.0.1:1", SHOWN, max_frame_bytes=MAX_FRAME_BYTES)
    assert "refused" in end_of(end)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (b"", "no answer within 0.2 s"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "403"),
        (b"220 mail.example ESMTP\r\n", "did not receive a valid HTTP response"),
    ],
    ids=["nothing", "forbidden", "mail"],
)
def test_who_is_no_websocket_server_is_the_end(says: bytes, reason: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end = websocket_stream_end(
            f"ws://127.0.0.1:{listener.getsockname()[1]}",
            SHOWN,
            max_frame_bytes=MAX_FRAME_BYTES,
            open_timeout_s=0.2,
        )
        peer, _ = listener.accept()
        with peer:
            peer.sendall(says)
            assert reason in end_of(end)
