# SPDX-License-Identifier: Apache-2.0
"""Nobody fills memory through a port: endless messages, endless subscriptions, many connections.

Real ones must not suffer from that: large and slow messages, and many small ones at once.
"""

from __future__ import annotations

import logging
import socket as sockets
import struct
import sys
import time
from collections.abc import Iterator

import pytest
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.messages import (
    ControlMessage,
    HealthReport,
    HeartBeat,
    ReceivedMessage,
    RegistrationSuccess,
    TimestepRequest,
    decode_control,
    encode_control,
)
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq import connection_guard, tcp_facts
from feagi_io_host.transports.zmq.connection_guard import (
    SLACK_BYTES,
    ConnectionGuard,
    PortGuard,
    publisher_rule,
    sensory_rule,
)
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.raw_peer import GREETING, RawPeer, flooding, message, part
from tests.feagi_io_host.transports.zmq.siege import (
    Paradigm,
    Siege,
    frame,
    hostile,
    open_fds,
    registration,
    resident_bytes,
    until,
)

KB = 1 << 10
MB = 1 << 20
CONTROL = "control"
SENSORY = AgentCapabilities.SEND_SENSOR_DATA
MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
# Without a guard these floods come to 8 GB and more. What is allowed for here is a machine that is
# busy with other things: with the processors free it is a tenth.
MOST_BYTES = 1024 * MB

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux tells what a connection has received"
)


@pytest.fixture(params=["blocking", "nonblocking"])
def paradigm(request: pytest.FixtureRequest) -> Paradigm:
    chosen: Paradigm = request.param
    return chosen


@pytest.fixture(autouse=True)
def _collector_ends() -> Iterator[None]:
    yield
    collector.stop()  # the thread by which pyzmq gives large messages back; one per process


def url_of(siege: Siege, port: AgentCapabilities | str) -> str:
    if port == CONTROL:
        return siege.transport.control_url
    record = siege.transport.registry.get(siege.good.agent_id)
    return record.endpoints[AgentCapabilities(port)].url


def ended(siege: Siege) -> dict[str, int]:
    counters = siege.transport.counters()
    return {why: counters[why] for why in ("flooded", "crowded") if counters[why]}


# -- messages without end ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "kind", "part_bytes"),
    [
        *((CONTROL, "DEALER", size) for size in (0, 255, 60_000)),
        *((SENSORY, "PUSH", size) for size in (0, 255, 60_000)),
        *((MOTOR, "SUB", size) for size in (0, 255)),  # longer ones the library refuses
    ],
    ids=str,
)
def test_a_message_without_end_ends_its_connection(
    paradigm: Paradigm, port: AgentCapabilities | str, kind: str, part_bytes: int
) -> None:
    with Siege(paradigm) as siege:
        siege.check_good_is_served()
        descriptors, before = open_fds(), resident_bytes()
        most = before
        # One descriptor more is the pipe to the other process.
        with flooding(url_of(siege, port), kind, part_bytes, 4 << 30):
            deadline_s = time.monotonic() + DEADLINE_S
            while not ended(siege):
                assert time.monotonic() < deadline_s, f"{most - before} bytes, and no end"
                siege.check_good_is_served()
                most = max(most, resident_bytes())
            assert most - before < MOST_BYTES
            until(lambda: open_fds() <= descriptors + 1, "the connection is closed here too")
            after = resident_bytes()
            siege.check_good_is_served()
        assert ended(siege) == {"flooded": 1}
        assert after - before < MOST_BYTES
        assert len(siege.transport.registry) == 1


def test_a_registered_agent_may_not_send_one_either(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:
        peer = RawPeer(siege.transport.control_url, b"DEALER")
        try:
            peer.send(message(b"", registration(hostile())))
            assert isinstance(answer(peer), RegistrationSuccess)
            # As much as an agent may send at once, of which nothing is known to be wrong yet.
            peer.send(part(255, more=True) * (MB // 257))
            siege.check_good_is_served()
            assert ended(siege) == {}
            peer.flood(part(255, more=True) * 1000, 64 * MB)
            assert peer.is_shut()
        finally:
            peer.close()
        assert ended(siege) == {"flooded": 1}
        siege.check_good_is_served()


def test_an_unregistered_peer_has_less(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:
        peer = RawPeer(siege.transport.control_url, b"DEALER")
        try:
            peer.send(message(b"", bytes(MB))[: 64 * KB])
            assert peer.is_shut()
        finally:
            peer.close()
        assert ended(siege) == {"flooded": 1}
        assert siege.ignored() == {}


def test_subscriptions_without_end(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:
        peer = RawPeer(url_of(siege, MOTOR), b"SUB")
        try:
            number = 0
            while not ended(siege) and number < 20_000:
                peer.flood(message(b"\x01" + struct.pack(">I", number) * 50), 1)
                number += 1
            assert peer.is_shut()
        finally:
            peer.close()
        assert ended(siege) == {"flooded": 1}
        siege.check_good_is_served()


def test_it_is_said_once_and_not_for_each_of_many(
    paradigm: Paradigm, caplog: pytest.LogCaptureFixture
) -> None:
    with Siege(paradigm) as siege, caplog.at_level(logging.WARNING, "feagi_io.zmq"):
        for _ in range(10):
            peer = RawPeer(siege.transport.control_url, b"DEALER")
            peer.flood(part(255, more=True) * 1000, MB)
            assert peer.is_shut()
            peer.close()
        until(lambda: ended(siege) == {"flooded": 10}, "each counted")
    said = [record.getMessage() for record in caplog.records if "ended" in record.getMessage()]
    assert 1 <= len(said) <= 6
    assert "127.0.0.1 to control port" in said[0]


# -- messages that do end ---------------------------------------------------------------------


def answer(peer: RawPeer) -> ReceivedMessage:
    empty, data = peer.receive()
    assert empty == b""
    _, told = decode_control(data)
    return told


def drip(peer: RawPeer, data: bytes, pieces: int) -> None:
    """Send in pieces, with time for some looks between them."""
    size = -(-len(data) // pieces)
    for begin in range(0, len(data), size):
        peer.send(data[begin : begin + size])
        time.sleep(0.03)


def test_a_large_and_slow_control_message_is_heard(paradigm: Paradigm) -> None:
    def ask(peer: RawPeer, told: ControlMessage) -> ReceivedMessage:
        peer.send(message(b"", encode_control(told, bytes(48))))
        return answer(peer)

    with Siege(paradigm) as siege:
        peer = RawPeer(siege.transport.control_url, b"DEALER")
        try:
            drip(peer, message(b"", registration(hostile())), 20)
            assert isinstance(answer(peer), RegistrationSuccess)
            for _ in range(2):
                drip(peer, message(b"", bytes(MB)), 20)
                assert ask(peer, HeartBeat()) == HeartBeat()
        finally:
            peer.close()
        assert ended(siege) == {}
        assert siege.ignored() == {"unreadable": 2}


def test_a_large_and_slow_sensory_frame_arrives(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege, frame(7, 60 * MB) as fbc:
        sent = bytes(fbc.view)
        peer = RawPeer(url_of(siege, SENSORY), b"PUSH")
        try:
            drip(peer, message(sent), 20)
            assert siege.hear_of(siege.good.agent_id) == sent
        finally:
            peer.close()
        assert ended(siege) == {}
        siege.check_good_is_served()


def test_many_small_messages_at_once_are_many_messages(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:
        stranger = siege.stranger()
        total = 20_000
        for _ in range(total):
            stranger.send_raw(b"", bytes(500))  # ten MB, 600 times what may come in one
        until(lambda: siege.ignored() == {"unreadable": total}, "every message counted")
        assert ended(siege) == {}
        siege.check_good_is_served()


def test_a_sensory_message_of_many_parts_is_one_bad_message(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:
        peer = RawPeer(url_of(siege, SENSORY), b"PUSH")
        try:
            peer.send(part(1, more=True) * 10_000 + part(1, more=False))
            siege.check_good_is_served()
            until(
                lambda: (
                    set(siege.dropped_of(siege.good.agent_id, StreamType.SENSORY)) == {"damaged"}
                ),
                "it is refused",
            )
            with frame(9) as fbc:
                peer.send(message(bytes(fbc.view)))
                assert siege.hear_of(siege.good.agent_id) == bytes(fbc.view)
        finally:
            peer.close()


# -- many connections -------------------------------------------------------------------------


def lines_to(url: str, count: int) -> list[sockets.socket]:
    host, _, port = url.removeprefix("tcp://").rpartition(":")
    return [sockets.create_connection((host, int(port)), DEADLINE_S) for _ in range(count)]


def is_open(line: sockets.socket) -> bool:
    line.setblocking(False)
    try:
        while line.recv(4096):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


@pytest.mark.parametrize("greeting", [b"", GREETING], ids=["silent", "greeting"])
def test_connections_that_do_not_register_are_so_many(paradigm: Paradigm, greeting: bytes) -> None:
    with Siege(paradigm, max_agents=2) as siege:
        most = 4 * 2 + 64
        lines: list[sockets.socket] = []
        try:
            for line in lines_to(siege.transport.control_url, most + 20):
                lines.append(line)
                line.sendall(greeting)
            until(lambda: ended(siege) == {"crowded": 20}, "those too many are ended")
            assert sum(map(is_open, lines)) == most
            newcomer = siege.agent(hostile())
            assert newcomer.ask(HeartBeat()) == HeartBeat()
            until(lambda: ended(siege) == {"crowded": 20}, "one that registers is not one of them")
        finally:
            for line in lines:
                line.close()
        siege.check_good_is_served()


def test_connections_to_a_stream_are_so_many(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:
        siege.check_good_is_served()
        lines = lines_to(url_of(siege, MOTOR), 20)
        try:
            until(lambda: ended(siege) == {"crowded": 5}, "those too many are ended")
            siege.check_good_is_served()
        finally:
            for line in lines:
                line.close()


# -- what cannot be looked at -----------------------------------------------------------------


def test_a_system_that_does_not_tell_is_no_error(
    paradigm: Paradigm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with caplog.at_level(logging.DEBUG, "feagi_io.zmq"), Siege(paradigm) as siege:
        siege.check_good_is_served()
        assert ended(siege) == {}
    assert "cannot be looked at: darwin" in caplog.text


# -- one guard, and a system that says what the test says ------------------------------------------


class Told(tcp_facts.TcpFacts):
    """Facts of connections that are not there."""

    def __init__(self) -> None:
        super().__init__()
        self.received: dict[int, int] = {}
        self.unread: dict[int, int] = {}
        self.resident = 0
        self.ended: list[int] = []

    def received_bytes(self, descriptor: int) -> int | None:
        return self.received.get(descriptor)

    def unread_bytes(self, descriptor: int) -> int:
        return self.unread.get(descriptor, 0)

    def local(self, descriptor: int) -> bytes | None:
        return HERE

    def peer(self, descriptor: int) -> bytes | None:
        return struct.pack("=H", sockets.AF_INET) + struct.pack(">H", descriptor) + bytes(12)

    def shut(self, descriptor: int) -> None:
        self.ended.append(descriptor)

    def descriptors(self) -> list[int]:
        return list(self.received)

    def resident_bytes(self) -> int:
        return self.resident


HERE = struct.pack("=H", sockets.AF_INET) + struct.pack(">H", 30001) + bytes(12)
LARGEST = 8 * MB


class Part:
    """A part of a message from a connection."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def get(self, option: int) -> int:
        assert option == zmq.SRCFD
        return self._descriptor


class Bench:
    """A guard of one sensory port with two connections."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, rule: connection_guard.PortRule | None = None
    ) -> None:
        self.now_s = 0.0
        self.guard = ConnectionGuard(clock=lambda: self.now_s)
        self.told = Told()
        monkeypatch.setattr(self.guard, "_facts", self.told)
        self.port = PortGuard(self.guard, rule or sensory_rule(LARGEST), HERE)
        self.guard._ports[30001] = (self.port,)
        self.told.received = {5: 0, 6: 0}
        self.guard.look()

    def bring(self, descriptor: int, size_bytes: int) -> None:
        self.told.received[descriptor] += size_bytes
        self.guard.look()

    def hear(self, descriptor: int) -> None:
        self.port.heard(Part(descriptor))  # type: ignore[arg-type]


def test_nothing_is_ended_as_long_as_messages_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.bring(5, 10 * KB)
    assert bench.port.listening
    bench.bring(5, LARGEST + SLACK_BYTES + 1)
    assert bench.told.ended == []
    bench.hear(5)
    bench.port.drained()
    assert bench.told.ended == []
    assert not bench.port.listening


def test_one_is_ended_when_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.bring(5, 10 * KB)
    bench.bring(5, LARGEST + SLACK_BYTES)
    bench.port.drained()
    assert bench.told.ended == []
    bench.bring(5, 1)
    bench.port.drained()
    assert bench.told.ended == [5]
    assert bench.guard.counters() == {"flooded": 1, "crowded": 0}
    bench.bring(5, MB)  # its owner has not closed it yet
    bench.port.drained()
    assert bench.told.ended == [5]


def test_one_that_keeps_the_socket_busy_does_not_cover_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.bring(5, 10 * KB)
    bench.bring(5, LARGEST + SLACK_BYTES + 1)
    for _ in range(128 + 2):
        bench.hear(6)
    assert bench.told.ended == []
    bench.hear(6)
    assert bench.told.ended == [5]


def test_what_nobody_has_read_yet_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.bring(5, 10 * KB)
    bench.told.unread[5] = 100
    bench.bring(5, LARGEST + SLACK_BYTES + 100)
    bench.port.drained()
    assert bench.told.ended == []


def test_a_message_of_countless_parts_is_known_by_the_memory_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch)
    bench.told.resident = 100 * MB
    bench.bring(5, 10 * KB)
    bench.told.resident = 100 * MB + 128 * MB + 4 * 2 * MB
    bench.bring(5, 2 * MB)
    bench.port.drained()
    assert bench.told.ended == []
    bench.told.resident += 1
    bench.guard.look()
    bench.port.drained()
    assert bench.told.ended == [5]


def test_pings_are_no_flood(monkeypatch: pytest.MonkeyPatch) -> None:
    for rule in (publisher_rule("motor"), sensory_rule(LARGEST)):
        bench = Bench(monkeypatch, rule)
        for _ in range(100_000):  # 16 bytes each time: 1.6 MB in three hours
            bench.now_s += 0.1
            bench.bring(5, 16)
        bench.port.drained()
        assert bench.told.ended == []


def test_a_number_that_was_given_to_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, publisher_rule("motor"))
    bench.bring(5, SLACK_BYTES)
    monkeypatch.setattr(bench.told, "peer", lambda descriptor: HERE)
    bench.bring(5, 100)  # more, were it the same one
    assert bench.told.ended == [5]  # it is new here, and nothing of what it says may be so long
    bench.told.received = {5: 10}
    bench.port.close()
    bench.guard.look()
    assert bench.guard.wait_s == float("inf")


# -- a brain that fails -----------------------------------------------------------------------


class FailingBrain:
    """Raises at the first question."""

    def health(self) -> HealthReport:
        raise RuntimeError("no health")

    def timestep_s(self) -> float:
        raise RuntimeError("no time step")

    def change_timestep(self, agent_id: bytes, timestep_s: float) -> bool:
        raise RuntimeError("no change")


def test_a_brain_that_fails_does_not_end_the_service(paradigm: Paradigm) -> None:
    with Siege(paradigm, brain=FailingBrain()) as siege:
        siege.good.send_raw(b"", encode_control(TimestepRequest(), siege.good.agent_id))
        assert siege.good.ask(HeartBeat()) == HeartBeat()
        assert siege.ignored() == {"brain failed": 1}
        siege.check_good_is_served()
