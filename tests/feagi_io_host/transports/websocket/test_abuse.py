# SPDX-License-Identifier: Apache-2.0
"""Peers that keep no rule, over raw sockets: each is ended with the code that fits, and a good
agent is served as before."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from feagi_io_host.core.messages import HeartBeat, RegistrationSuccess, decode_control
from feagi_io_host.core.messages import encode_control as encoded
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.transports.websocket.line import MAX_FRAGMENTS
from feagi_io_host.transports.websocket.server_line import MAX_STRANGE_MESSAGES
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW, raw_json_frame
from tests.feagi_io_host.transports.websocket.peer import registration
from tests.feagi_io_host.transports.websocket.raw import (
    BINARY,
    CLOSE,
    CONT,
    DEADLINE_S,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    RawPeer,
    Served,
    frame,
)
from tests.feagi_io_host.transports.zmq.siege import flat_memory

SETTINGS = {
    "open_timeout_s": 0.4,
    "register_timeout_s": 0.4,
    "close_timeout_s": 0.3,
    "ping_interval_s": 0.2,
    "ping_timeout_s": 0.3,
}
MAX_FRAME_BYTES = 1 << 16
HUGE = 1 << 62
# One test after another would soon meet the rate of those that are not registered.
LIMITS = ServerLimits(newcomer_rate=Rate(per_s=1e4, burst=10_000))


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(
        settings=SETTINGS, max_frame_bytes=MAX_FRAME_BYTES, max_agents=4, limits=LIMITS
    ) as server:
        yield server


@pytest.fixture(autouse=True)
def _the_good_are_served(served: Served, request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    with registered(served, f"good {request.node.name}"[:60]) as good:
        good.write(frame(FIN | BINARY, encoded(HeartBeat())))
        assert isinstance(message(good), HeartBeat)


def message(peer: RawPeer) -> Any:
    """The next control message."""
    while (read := peer.next_frame()) is not None:
        if read[0] == FIN | BINARY:
            return decode_control(read[1])[1]
    raise AssertionError("the connection has ended")


def stranger(served: Served) -> RawPeer:
    """A control connection after its handshake."""
    peer = RawPeer(served.url)
    assert peer.shake_hands()[0] == 101
    return peer


def registered(served: Served, name: str, capabilities: Any = SENSE | MOVE | VIEW) -> RawPeer:
    """A control connection of an agent; its `endpoints` as a further attribute."""
    peer = stranger(served)
    request = registration(AgentDescriptor("feagi-io test", name, 1), capabilities)
    peer.write(frame(FIN | BINARY, encoded(request)))
    answer = message(peer)
    assert isinstance(answer, RegistrationSuccess)
    setattr(peer, "endpoints", answer.endpoints)  # noqa: B010
    setattr(peer, "agent_id", answer.agent_id)  # noqa: B010
    return peer


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, struct.pack("!H", code) + reason)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(frame(FIN | BINARY, b"x", masked=False), 1002, id="not masked"),
        pytest.param(frame(FIN | RSV1 | BINARY, b"x"), 1002, id="reserved bit 1"),
        pytest.param(frame(FIN | RSV2 | BINARY, b"x"), 1002, id="reserved bit 2"),
        pytest.param(frame(FIN | RSV3 | PING), 1002, id="reserved bit 3 of a ping"),
        pytest.param(frame(FIN | 3, b"x"), 1002, id="reserved data opcode"),
        pytest.param(frame(FIN | 11), 1002, id="reserved control opcode"),
        pytest.param(frame(PING), 1002, id="ping in pieces"),
        pytest.param(frame(CLOSE, b"\x03\xe8"), 1002, id="close in pieces"),
        pytest.param(frame(FIN | PING, bytes(126)), 1002, id="long ping"),
        pytest.param(frame(FIN | CLOSE, bytes(200)), 1002, id="long close"),
        pytest.param(frame(FIN | CONT, b"x"), 1002, id="end without a beginning"),
        pytest.param(frame(BINARY, b"x") + frame(FIN | BINARY, b"y"), 1002, id="two beginnings"),
        pytest.param(frame(FIN | CLOSE, b"\x03"), 1002, id="half a close code"),
        pytest.param(close_frame(999), 1002, id="close code below all"),
        pytest.param(close_frame(1005), 1002, id="close code that is never sent"),
        pytest.param(close_frame(1000, b"\xff\xfe"), 1007, id="close reason that is no text"),
        pytest.param(frame(FIN | TEXT, b"{}"), 1003, id="text"),
        pytest.param(frame(FIN | TEXT, b"\xff"), 1003, id="text that is none"),
        pytest.param(frame(TEXT, b"{") + frame(FIN | CONT, b"}"), 1003, id="text in pieces"),
        pytest.param(frame(FIN | BINARY, bytes(1025)), 1009, id="one byte too long"),
        pytest.param(
            frame(FIN | BINARY, b"x", length=b"\x7f" + struct.pack("!Q", HUGE)),
            1009,
            id="length of petabytes",
        ),
        pytest.param(
            frame(FIN | BINARY, b"x", length=b"\x7f" + b"\xff" * 8), 1009, id="length of all ones"
        ),
        pytest.param(
            frame(BINARY, bytes(600)) + frame(FIN | CONT, bytes(600)), 1009, id="sum too long"
        ),
        pytest.param(
            frame(BINARY) + frame(CONT) * MAX_FRAGMENTS, 1008, id="pieces without anything in them"
        ),
        pytest.param(
            frame(FIN | BINARY, b"no FBC") * (MAX_STRANGE_MESSAGES + 1), 1008, id="many messages"
        ),
        pytest.param(b"", 1008, id="nothing at all"),
        pytest.param(frame(FIN | BINARY, b"x")[:4], 1008, id="half a frame"),
        pytest.param(frame(BINARY, b"x") + frame(FIN | PING), 1008, id="half a message"),
    ],
)
def test_a_rule_that_is_broken_has_its_close_code(served: Served, data: bytes, code: int) -> None:
    with stranger(served) as peer:
        peer.write(data)
        assert peer.close_code() == code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"method": "POST"}, 405, id="method"),
        pytest.param({"Sec_WebSocket_Key": None}, 400, id="no key"),
        pytest.param({"Sec_WebSocket_Key": "c2hvcnQ="}, 400, id="short key"),
        pytest.param({"Sec_WebSocket_Version": "8"}, 400, id="version"),
        pytest.param({"Upgrade": "h2c"}, 426, id="another upgrade"),
        pytest.param({"Connection": "close"}, 426, id="no upgrade"),
        pytest.param({"Origin": "http://evil.example"}, 403, id="page of another origin"),
        pytest.param({"Origin": "null"}, 403, id="page without an origin"),
        pytest.param({"X_Long": "x" * 10_000}, 431, id="long header"),
        pytest.param({f"X_{number}": "x" * 1000 for number in range(20)}, 0, id="many headers"),
    ],
)
def test_a_handshake_that_is_none_is_refused(
    served: Served, headers: dict[str, Any], status: int
) -> None:
    with RawPeer(served.url) as peer:
        assert peer.shake_hands(**headers)[0] == status


def test_a_page_of_the_servers_own_address_is_let_in(served: Served) -> None:
    for host in ("127.0.0.1", "localhost"):
        with RawPeer(served.url) as peer:
            port = peer.place.rpartition(":")[2]
            assert peer.shake_hands(Origin=f"http://{host}:{port}")[0] == 101
    with RawPeer(served.url) as peer:  # what a name server under another's control may bring about
        port = peer.place.rpartition(":")[2]
        evil = f"evil.example:{port}"
        assert peer.shake_hands(Host=evil, Origin=f"http://{evil}")[0] == 403


@pytest.mark.parametrize(
    "path", ["/stream/", "/stream/AAAA", "/stream/../", "/other", "/?x=1", "*"]
)
def test_paths_that_nobody_was_told_are_unknown(served: Served, path: str) -> None:
    with RawPeer(served.url) as peer:
        peer.path = path
        assert peer.shake_hands()[0] == 404


def test_compression_and_subprotocols_are_not_agreed_to(served: Served) -> None:
    with RawPeer(served.url) as peer:
        status, head = peer.shake_hands(
            "Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: feagi"
        )
        assert status == 101
        assert "extensions" not in head.lower()
        assert "websocket-protocol" not in head.lower()


@pytest.mark.parametrize(
    "data",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\x16\x03\x01\x02\x00" + bytes(30)],
    ids=["nothing", "half a line", "half a request", "TLS"],
)
def test_who_does_not_finish_its_handshake_is_cut_off(served: Served, data: bytes) -> None:
    began_s = time.monotonic()
    with RawPeer(served.url) as peer:
        peer.write(data)
        assert peer.answer() == (0, "")
    assert time.monotonic() - began_s < DEADLINE_S / 2


def test_pings_between_the_pieces_of_a_message_are_answered(served: Served) -> None:
    request = encoded(registration(AgentDescriptor("feagi-io test", "pieces", 1), SENSE))
    with stranger(served) as peer:
        peer.write(frame(BINARY, request[:100]) + frame(FIN | PING, b"there?"))
        peer.write(frame(CONT, request[100:200]) + frame(FIN | CONT, request[200:]))
        assert peer.next_frame() == (FIN | PONG, b"there?")
        assert isinstance(message(peer), RegistrationSuccess)
        peer.write(frame(FIN | CLOSE, b"\x03\xe8"))
        assert peer.close_code() == 1000


def test_control_messages_that_make_no_sense_get_no_answer_and_harm_nothing(
    served: Served,
) -> None:
    ignored = served.transport.counters()["ignored"]["unreadable"]
    with registered(served, "senseless") as peer:
        for nonsense in (b"", b"\x04", bytes(60), raw_json_frame(b"[1}"), os.urandom(500)):
            peer.write(frame(FIN | BINARY, nonsense))
        peer.write(frame(FIN | BINARY, encoded(HeartBeat())))
        assert isinstance(message(peer), HeartBeat)
    assert served.transport.counters()["ignored"]["unreadable"] == ignored + 5


def test_a_stream_takes_only_what_it_is_for(served: Served) -> None:
    with registered(served, "streams") as control:
        endpoints = getattr(control, "endpoints")  # noqa: B009
        with RawPeer(endpoints[MOVE].url) as motor:
            assert motor.shake_hands()[0] == 101
            motor.write(frame(FIN | BINARY, b"I move"))
            assert motor.close_code() == 1008
        with RawPeer(endpoints[SENSE].url) as sensory:
            assert sensory.shake_hands()[0] == 101
            sensory.write(frame(FIN | BINARY, b"no FBC"))
            sensory.write(frame(FIN | BINARY, bytes(MAX_FRAME_BYTES + 1)))
            assert sensory.close_code() == 1009
        rows = served.host.sessions[-1].snapshot()["sensory"]
        assert rows["dropped"] == {"damaged": 1}


def test_a_newer_connection_of_a_stream_takes_over(served: Served) -> None:
    with registered(served, "twice") as control:
        url = getattr(control, "endpoints")[MOVE].url  # noqa: B009
        with RawPeer(url) as old, RawPeer(url) as new:
            assert old.shake_hands()[0] == 101
            assert new.shake_hands()[0] == 101
            assert old.close_code() == 1008
            new.write(frame(FIN | PING, b"!"))
            assert new.next_frame() == (FIN | PONG, b"!")


def test_the_streams_end_with_the_control_connection(served: Served) -> None:
    control = registered(served, "unplugged")
    url = getattr(control, "endpoints")[VIEW].url  # noqa: B009
    with control, RawPeer(url) as shown:
        assert shown.shake_hands()[0] == 101
        control.end_writing()
        assert shown.close_code() == 1001
        with RawPeer(url) as late:
            assert late.shake_hands()[0] == 404


def test_who_gives_no_sign_of_life_is_given_up(served: Served) -> None:
    with registered(served, "silent") as peer:
        seen = []
        while (read := peer.any_frame()) is not None:
            seen.append(read[0])
        assert seen[0] == FIN | PING
        assert len(seen) <= 2  # and perhaps a close frame, before it was cut off
    assert served.transport.counters()["ended"]["1011"] >= 1


def test_who_takes_no_part_in_the_end_is_cut_off(served: Served) -> None:
    with stranger(served) as peer:
        peer.write(frame(FIN | TEXT, b"{}"))
        began_s = time.monotonic()
        assert peer.close_code() == 1003  # which waits for the end of the connection
        assert time.monotonic() - began_s < DEADLINE_S / 2


def test_pongs_that_nobody_reads_are_not_kept(served: Served) -> None:
    peer = RawPeer(served.url, receive_buffer=4096)
    with peer:
        assert peer.shake_hands()[0] == 101
        # Half a gigabyte: far more than the system's own buffers hold.
        flood = itertools.repeat(frame(FIN | PING, bytes(125)) * 4096, 1000)
        with flat_memory(8 << 20), pytest.raises((ConnectionResetError, BrokenPipeError)):
            collections.deque(map(peer.write, flood), maxlen=0)


def test_strangers_take_no_memory() -> None:
    with Served(max_agents=4, limits=LIMITS) as server:

        def besiege(count: int) -> None:
            with contextlib.ExitStack() as stack:
                peers = [stack.enter_context(RawPeer(server.url)) for _ in range(count)]
                for number, peer in enumerate(peers):
                    if number % 2:
                        assert peer.shake_hands()[0] == 101
                        peer.write(frame(BINARY, bytes(1000)) + frame(CONT) * 1000)
                    else:
                        header = b"\r\nX: " + b"x" * 8000
                        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                            peer.write(b"GET / HTTP/1.1" + header * 200)
                            peer.write(header * 200)

        besiege(10)
        with flat_memory(8 << 20):
            besiege(60)


def test_of_too_many_strangers_the_oldest_has_to_go() -> None:
    with Served(max_agents=1) as served:
        crowd = [RawPeer(served.url) for _ in range(80)]
        try:
            with registered(served, "patient") as good:
                assert served.transport.counters()["crowded"] >= 80 + 1 - 65
                assert crowd[0].answer() == (0, "")
                good.write(frame(FIN | BINARY, encoded(HeartBeat())))
                assert isinstance(message(good), HeartBeat)
        finally:
            for peer in crowd:
                peer.__exit__()
