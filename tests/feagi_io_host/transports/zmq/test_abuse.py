# SPDX-License-Identifier: Apache-2.0
"""Bad input at the sockets of a running PNS: refused or dropped, counted, nobody else harmed."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.messages import (
    DeregistrationRequest,
    DeregistrationResponse,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
    RegistrationSuccess,
    encode_control,
)
from feagi_io_host.core.server_seams import NEWCOMER_RATE, ServerLimits
from feagi_io_host.core.types import StreamType
from feagi_io_host.testing import FakeClock
from feagi_io_host.transports.zmq import SocketOptions
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ControlPeer
from tests.feagi_io_host.transports.zmq.siege import (
    EVERYTHING,
    GOOD,
    Paradigm,
    Siege,
    flat_memory,
    frame,
    hostile,
    json_message,
    registration,
    until,
)

SENSORY = AgentCapabilities.SEND_SENSOR_DATA
TOKEN = bytes(range(32))
MB = 1 << 20


@pytest.fixture(params=["blocking", "nonblocking"])
def paradigm(request: pytest.FixtureRequest) -> Paradigm:
    chosen: Paradigm = request.param
    return chosen


@pytest.fixture(autouse=True)
def _collector_ends() -> Iterator[None]:
    yield
    collector.stop()  # the thread by which pyzmq gives large messages back; one per process


def total(counts: dict[str, int]) -> int:
    return sum(counts.values())


# -- bytes that mean nothing ------------------------------------------------------------------


def test_random_bytes_on_the_control_port(paradigm: Paradigm) -> None:
    generator = random.Random(3)
    with Siege(paradigm) as siege:
        strangers = [siege.stranger() for _ in range(5)]

        def round_of_garbage() -> int:
            before = total(siege.ignored())
            for _ in range(100):
                for stranger in strangers:
                    stranger.send_raw(b"", generator.randbytes(generator.randrange(1200)))
            until(lambda: total(siege.ignored()) == before + 500, "every message counted")
            siege.check_good_is_served()
            return 500

        sent = round_of_garbage()
        with flat_memory(4 * MB):
            for _ in range(5):
                sent += round_of_garbage()
        ignored = siege.ignored()
        assert set(ignored) == {"unreadable", "oversized"}
        assert total(ignored) == sent
        assert len(siege.transport.registry) == 1
        # A stranger that sent garbage has lost nothing by it.
        answer = strangers[0].ask(RegistrationRequest(hostile(), EVERYTHING))
        assert isinstance(answer, RegistrationSuccess)


def test_random_bytes_as_sensory_frames(paradigm: Paradigm) -> None:
    generator = random.Random(4)
    with Siege(paradigm) as siege:
        attacker = siege.agent(hostile())
        stream = attacker._streams[SENSORY]

        def round_of_garbage() -> None:
            before = total(siege.dropped_of(attacker.agent_id, StreamType.SENSORY))
            for number in range(200):
                head = b"\x04\0\0\x02" if number % 2 else b""
                stream.send(head + generator.randbytes(generator.randrange(100_000)))
            until(
                lambda: (
                    total(siege.dropped_of(attacker.agent_id, StreamType.SENSORY)) == before + 200
                ),
                "every frame counted",
            )
            siege.check_good_is_served()

        round_of_garbage()
        with flat_memory(16 * MB):  # 40 MB pass
            for _ in range(4):
                round_of_garbage()
        assert siege.dropped_of(attacker.agent_id, StreamType.SENSORY) == {"damaged": 1000}
        assert siege.dropped_of(siege.good.agent_id, StreamType.SENSORY) == {}
        with frame(7) as fbc:
            stream.send(fbc.view)
            assert siege.hear_of(attacker.agent_id) == bytes(fbc.view)


# -- too large, too deep ----------------------------------------------------------------------


def test_an_unregistered_peer_may_send_1024_bytes(paradigm: Paradigm) -> None:
    request = registration(hostile())
    text = request[request.index(b"{") :]
    padding = 1024 - len(request)
    with Siege(paradigm) as siege:
        stranger = siege.stranger()
        stranger.send_raw(b"", json_message(text + b" " * (padding + 1)))
        stranger.send_raw(b"", bytes(1025))
        stranger.send_raw(b"", bytes(8 << 10))  # far more ends the connection
        until(lambda: siege.ignored() == {"oversized": 3}, "three oversized messages")
        stranger.send_raw(b"", bytes(1024))
        until(lambda: siege.ignored() == {"oversized": 3, "unreadable": 1}, "one that is read")
        siege.check_good_is_served()
        stranger.send_raw(b"", json_message(text + b" " * padding))
        assert isinstance(stranger.answer(), RegistrationSuccess)


def test_a_registered_peer_may_send_a_megabyte_and_not_one_byte_more(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:
        attacker = siege.agent(hostile())
        attacker.send_raw(b"", bytes(MB))
        until(lambda: siege.ignored() == {"unreadable": 1}, "a megabyte of nothing")
        assert attacker.ask(HeartBeat()) == HeartBeat()
        with flat_memory(8 * MB):
            for size in (MB + 1, 4 * MB, 64 * MB):
                attacker.send_raw(b"", bytes(size))
                assert attacker.monitor.poll(int(DEADLINE_S * 1000)), "it was not disconnected"
                while attacker.monitor.poll(0):
                    attacker.monitor.recv_multipart()
                siege.check_good_is_served()
        assert siege.ignored() == {"unreadable": 1}  # what is cut off is never read
        assert len(siege.pns.sessions) == 2


def test_a_sensory_frame_above_the_limit_ends_its_connection_and_the_next_one_arrives(
    paradigm: Paradigm,
) -> None:
    with Siege(paradigm, max_frame_bytes=100_000) as siege:
        attacker = siege.agent(hostile())
        stream, monitor = attacker._streams[SENSORY], attacker._monitors[SENSORY]
        with flat_memory(16 * MB):
            for size in (100_001, 10 * MB, 64 * MB):
                stream.send(bytes(size))
                assert monitor.poll(int(DEADLINE_S * 1000)), "it was not disconnected"
                while monitor.poll(0):
                    monitor.recv_multipart()
                siege.check_good_is_served()
        with frame(9, 99_900) as fbc:
            stream.send(fbc.view)  # waits until the connection stands again
            assert siege.hear_of(attacker.agent_id) == bytes(fbc.view)


@pytest.mark.parametrize(("opening", "inmost", "closing"), [("[", "", "]"), ('{"a":', "1", "}")])
def test_deeply_nested_json(paradigm: Paradigm, opening: str, inmost: str, closing: str) -> None:
    def nested(depth: int) -> bytes:
        return json_message(f"{opening * depth}{inmost}{closing * depth}".encode())

    with Siege(paradigm) as siege:
        stranger, attacker = siege.stranger(), siege.agent(hostile())
        for depth in (9, 60, 128, 150):
            stranger.send_raw(b"", nested(depth))
        for depth in (65, 127, 128, 1000, 100_000):
            attacker.send_raw(b"", nested(depth))
            attacker.send_raw(b"", json_message(opening.encode() * depth))  # never closed
        until(lambda: siege.ignored() == {"unreadable": 14}, "each ignored")
        siege.check_good_is_served()
        assert attacker.ask(HeartBeat()) == HeartBeat()


# -- who says what he is not ------------------------------------------------------------------


def test_wrong_tokens_learn_nothing_and_let_nobody_in(paradigm: Paradigm) -> None:
    refused = RegistrationRefusal(RefusalReason.INVALID_AUTH)
    with Siege(paradigm, token=TOKEN) as siege:
        stranger = siege.stranger()
        for wrong in (bytes(32), TOKEN[:-1] + b"\0", TOKEN[::-1]):
            # The good agent's descriptor, which is held, gets the same answer as any other.
            for descriptor in (hostile(), GOOD):
                request = RegistrationRequest(descriptor, EVERYTHING, auth_token=wrong)
                assert stranger.ask(request) == refused
        assert siege.transport.counters()["refused"][RefusalReason.INVALID_AUTH.value] == 6
        assert len(siege.transport.registry) == 1
        siege.check_good_is_served()


def test_a_replayed_registration_gets_nothing_while_its_owner_lives(paradigm: Paradigm) -> None:
    clock = FakeClock()
    with Siege(paradigm, clock=clock) as siege:
        victim = siege.agent(hostile())
        captured = registration(hostile())
        victim.send_raw(b"", captured)  # twice on one session: silence
        until(lambda: siege.ignored() == {"out of place": 1}, "the second one ignored")
        thief = siege.stranger()
        for _ in range(10):
            thief.send_raw(b"", captured)
            assert thief.answer() == RegistrationRefusal(RefusalReason.ALREADY_REGISTERED)
        assert thief.agent_id != victim.agent_id
        assert victim.ask(HeartBeat()) == HeartBeat()
        siege.check_good_is_served()
        assert siege.gone == []
        # When the owner has been silent for two seconds, it is taken to have started anew.
        clock.advance(2.5)
        siege.good.ask(HeartBeat())
        thief.send_raw(b"", captured)
        assert isinstance(thief.answer(), RegistrationSuccess)
        until(lambda: len(siege.gone) == 1, "the old session ended")
        assert siege.gone[0].agent_id == victim.agent_id
        assert len(siege.transport.registry) == 2
        siege.check_good_is_served()


def test_of_many_with_one_descriptor_one_is_let_in(paradigm: Paradigm) -> None:
    clock = FakeClock()
    with Siege(paradigm, clock=clock) as siege:
        peers = [siege.stranger() for _ in range(20)]
        for peer in peers:
            peer.send_raw(b"", registration(hostile()))
        answers = [peer.answer() for peer in peers]
        won = [answer for answer in answers if isinstance(answer, RegistrationSuccess)]
        assert len(won) == 1
        assert answers.count(RegistrationRefusal(RefusalReason.ALREADY_REGISTERED)) == 19
        assert len(siege.pns.sessions) == 2
        siege.check_good_is_served()


# -- too often --------------------------------------------------------------------------------


def test_a_thousand_registrations_a_second_from_many_peers(paradigm: Paradigm) -> None:
    clock = FakeClock()  # stands still: the thousand come in no time at all
    with Siege(paradigm, clock=clock, token=TOKEN, limits=ServerLimits()) as siege:
        burst = NEWCOMER_RATE.burst
        strangers = [siege.stranger() for _ in range(50)]
        for turn in range(20):
            for number, stranger in enumerate(strangers):
                stranger.send_raw(b"", registration(hostile(number)))
            if turn % 4 == 0:
                siege.check_good_is_served()
        until(lambda: total(siege.ignored()) + _refused(siege) == 1000, "each refused or ignored")
        # One of the newcomers' tokens went to the good agent.
        assert _refused(siege) == burst - 1
        assert siege.ignored() == {"too often": 1000 - (burst - 1)}
        assert len(siege.pns.sessions) == 1

        late = siege.stranger()
        late.send_raw(b"", registration(hostile(99), TOKEN))
        until(lambda: siege.ignored() == {"too often": 1001 - (burst - 1)}, "one more ignored")
        clock.advance(1.0)
        late.send_raw(b"", registration(hostile(99), TOKEN))
        assert isinstance(late.answer(), RegistrationSuccess)
        siege.check_good_is_served()


def _refused(siege: Siege) -> int:
    return total(siege.transport.counters()["refused"])


def test_one_registered_agent_that_talks_too_much_is_not_answered(paradigm: Paradigm) -> None:
    with Siege(paradigm, clock=FakeClock(), limits=ServerLimits()) as siege:
        attacker = siege.agent(hostile())
        message = encode_control(HealthCheckRequest())
        for _ in range(1000):
            attacker.send_raw(b"", message)
        until(lambda: siege.ignored().get("too often", 0) == 901, "all but a hundred ignored")
        siege.check_good_is_served()
        assert isinstance(attacker.answer(), HealthReport)


def test_coming_and_going_leaves_nothing_behind(paradigm: Paradigm) -> None:
    with Siege(paradigm) as siege:

        def come_and_go(number: int) -> None:
            peer = ControlPeer(siege.transport.control_url)
            try:
                answer = peer.ask(RegistrationRequest(hostile(number), EVERYTHING))
                assert isinstance(answer, RegistrationSuccess)
                gone = peer.ask(DeregistrationRequest("enough"))
                assert gone == DeregistrationResponse(True)
            finally:
                peer.close()

        for number in range(20):
            come_and_go(number)
        with flat_memory(16 * MB):
            for number in range(100):
                come_and_go(number)
        siege.check_good_is_served()
        assert len(siege.pns.sessions) == len(siege.transport.registry) == 1
        assert len(siege.gone) == 120


def test_answers_that_nobody_reads_are_given_up_and_counted(paradigm: Paradigm) -> None:
    small = 4096
    with Siege(paradigm, options=SocketOptions(kernel_buffer_bytes=small)) as siege:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            deaf = context.socket(zmq.DEALER)
            deaf.rcvhwm = 1
            deaf.sndtimeo = int(DEADLINE_S * 1000)
            deaf.setsockopt(zmq.RCVBUF, small)
            deaf.connect(siege.transport.control_url)
            deaf.send_multipart([b"", registration(hostile())])
            message = encode_control(HealthCheckRequest())
            with flat_memory(4 * MB):
                for _ in range(20):
                    for _ in range(200):
                        deaf.send_multipart([b"", message])
                    siege.check_good_is_served()
                until(lambda: siege.transport.counters()["unanswerable"] > 1000, "they give up")
            siege.check_good_is_served()
        finally:
            context.destroy(linger=0)
