# SPDX-License-Identifier: Apache-2.0
"""The agent's end of ZMQ by itself: addresses, streams that the library gives up, the link's life.

What agents do with it is in tests/feagi_io_host/agent/.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence

import pytest
import zmq

from feagi_io_host.core.client_actions import ClientAction
from feagi_io_host.core.container import BytesLike
from feagi_io_host.core.errors import ClosedError, ConfigError, StopTimeoutError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.client import ZmqAgentLink
from feagi_io_host.transports.zmq.client_stream import (
    REOPEN_AFTER_S,
    ClientStream,
    host_and_port,
)
from feagi_io_host.transports.zmq.common import Role, SocketOptions

DEADLINE_S = 10.0


class Party:
    """An agent that does nothing; `hold` keeps the link's thread in its turn."""

    def __init__(self) -> None:
        self.turns = 0
        self.turned = threading.Semaphore(0)
        self.hold = threading.Event()
        self.hold.set()
        self.finished = False
        self.ended: list[BaseException | None] = []
        self.wait_s: float | None = None
        self.has_requests = False
        self.has_sensory = False

    def turn(self) -> Sequence[ClientAction]:
        self.turns += 1
        self.turned.release()
        self.hold.wait(DEADLINE_S)
        return ()

    def control_received(self, data: BytesLike) -> Sequence[ClientAction]:
        return ()

    def connection_lost(self, reason: str) -> Sequence[ClientAction]:
        return ()

    def frame_received(self, stream: StreamType, data: BytesLike) -> None: ...
    def frame_refused(self, stream: StreamType, size_bytes: int) -> None: ...
    def stream_end_counted(self, stream: StreamType, counters: Mapping[str, int]) -> None: ...
    def note(self, action: ClientAction) -> None: ...
    def next_sensory(self) -> SharedFBC | None:
        return None

    def sensory_sent(self) -> None: ...
    def sensory_dropped(self, reason: str) -> None: ...
    def link_ended(self, error: BaseException | None) -> None:
        self.ended.append(error)


def link_of(party: Party) -> ZmqAgentLink:
    return ZmqAgentLink("tcp://127.0.0.1:1", party, max_frame_bytes=1000)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("tcp://127.0.0.1:30001", ("127.0.0.1", 30001)),
        ("tcp://feagi-1.example.org:1", ("feagi-1.example.org", 1)),
        ("tcp://[::1]:65535", ("[::1]", 65535)),
        ("tcp://[fe80::1%eth0]:5", ("[fe80::1%eth0]", 5)),
    ],
)
def test_addresses(url: str, parts: tuple[str, int]) -> None:
    assert host_and_port(url) == parts


@pytest.mark.parametrize(
    "url",
    ["tcp://*:1", "tcp://a:0", "tcp://a:65536", "tcp://a:-1", "tcp://a:1 ", "tcp://a:1\n",
     "tcp://::1:5", "tcp://a:\u0661", "ipc://a", "tcp://eth0;a:1", "TCP://a:1"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="tcp://host:port"):
        host_and_port(url)


def test_a_link_is_woken_and_ends_when_its_agent_does() -> None:
    party = Party()
    link = link_of(party)
    link.start()
    link.start()
    assert party.turned.acquire(timeout=DEADLINE_S)
    for _ in range(3):
        # Asleep or not, a turn comes after the call.
        seen = party.turns
        link.wake()
        while party.turns == seen:
            assert party.turned.acquire(timeout=DEADLINE_S)
            link.wake()
    party.finished = True
    link.stop(DEADLINE_S)
    link.stop(DEADLINE_S)
    assert party.ended == [None]
    with pytest.raises(ClosedError):
        link.start()


def test_a_link_that_is_held_up_is_named_and_an_agent_that_stays_is_left() -> None:
    party = Party()
    link = link_of(party)
    link.start()
    assert party.turned.acquire(timeout=DEADLINE_S)
    party.hold.clear()
    link.wake()
    while party.hold.is_set() or not party.turned.acquire(timeout=DEADLINE_S):
        pass
    with pytest.raises(StopTimeoutError, match="feagi-io-zmq-agent"):
        link.stop(0.05)
    party.hold.set()
    link.stop(1.0)  # the agent is not finished; the link ends all the same
    assert party.ended == [None]


def test_a_stream_at_something_else_is_tried_again_and_again() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    watched: list[zmq.Socket[bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        stream = ClientStream(
            context,
            Role.AGENT_MOTOR,
            f"tcp://127.0.0.1:{listener.getsockname()[1]}",
            SocketOptions(),
            1000,
            watched.append,
            watched.remove,
        )
        now_s = 0.0
        for _ in range(3):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 10)
            # Whichever of the two tries again, the library or the stream: somebody does.
            stream.monitor.poll(int(DEADLINE_S * 1000))
            stream.tend(now_s)
            now_s += 2 * REOPEN_AFTER_S
            stream.tend(now_s)
            assert watched == [stream.socket, stream.monitor]
        stream.close()
    assert watched == []
    context.term()
