# SPDX-License-Identifier: Apache-2.0
"""Peers that break the rules: each is told no, or ends its own connection, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from aiortc import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import DataChunk, InitChunk, serialize_packet
from google_crc32c import value as crc32c

from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    HeartBeat,
    PeerAnswer,
    PeerOffer,
    PeerRefusal,
    RegistrationRequest,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.transports.webrtc import WebRtcSettings
from feagi_io_host.transports.webrtc.association import MAX_WAITING_DATAGRAMS, GuardedConnection
from feagi_io_host.transports.webrtc.description import parse_description
from feagi_io_host.transports.webrtc.peer_line import PeerLine
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW
from tests.feagi_io_host.transports.webrtc.peer import (
    DEADLINE_S,
    MOTOR,
    SENSORY,
    VIZ,
    ServedInThreads,
    WebRtcPeer,
)
from tests.feagi_io_host.transports.webrtc.test_description import GOOD
from tests.feagi_io_host.transports.websocket.peer import ask, dial
from tests.feagi_io_host.transports.websocket.test_faults import numbered, until

EVERYTHING = SENSE | MOVE | VIEW
ROVER = AgentDescriptor("feagi-io test", "rover", 1)
HONEST = AgentDescriptor("feagi-io test", "honest", 1)
LIMITS = ServerLimits(takeover_s=0.0)


@pytest.fixture
def served() -> Iterator[ServedInThreads]:
    with ServedInThreads(limits=LIMITS) as server:
        yield server


def registered(served: ServedInThreads, over: ConnectionProtocol) -> Any:
    """A control connection of an agent that has not offered anything yet."""

    async def register() -> Any:
        control = await dial(served.url)
        answer = await ask(control, RegistrationRequest(ROVER, EVERYTHING, over))
        assert isinstance(answer, RegistrationSuccess)
        return control

    return served.call(register())


@contextlib.contextmanager
def connected(served: ServedInThreads, who: AgentDescriptor = ROVER) -> Iterator[WebRtcPeer]:
    peer = served.call(WebRtcPeer.connect(served.url, who, EVERYTHING))
    try:
        yield peer
    finally:
        served.call(peer.close())


# -- offers ---------------------------------------------------------------------------------------


def test_offers_that_are_none_are_refused_and_counted(served: ServedInThreads) -> None:
    control = registered(served, ConnectionProtocol.WEBRTC)
    for bad in ("", "v=0", GOOD.replace("a=setup", "a=set"), GOOD + "m=audio 9 RTP/AVP 0\r\n"):
        answer = served.call(ask(control, PeerOffer(bad)))
        assert isinstance(answer, PeerRefusal)
        assert "description" in answer.reason
    # One of any length is not even read, and the next message is answered.
    served.call(control.send(encode_control(PeerOffer("v=0\n" + "a" * 20_000))))
    assert isinstance(served.call(ask(control, HeartBeat())), HeartBeat)
    counted = served.counted()
    assert (counted["offers"], counted["offers_refused"], counted["connections"]) == (4, 4, 0)
    assert served.transport.counters()["ignored"]["unreadable"] == 1
    served.call(control.close())


def test_who_has_no_stream_so_is_refused(served: ServedInThreads) -> None:
    control = registered(served, ConnectionProtocol.WEBSOCKET)
    answer = served.call(ask(control, PeerOffer(GOOD)))
    assert answer == PeerRefusal("none of this agent's streams goes over WebRTC")
    served.call(control.close())


def test_a_stranger_is_not_heard(served: ServedInThreads) -> None:
    async def offer() -> None:
        control = await dial(served.url)
        await control.send(encode_control(PeerOffer(GOOD[:400])))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await control.recv()
        await control.close()

    served.call(offer())
    assert served.counted()["offers"] == 0
    assert served.transport.counters()["ignored"]["out of place"] == 1


def test_who_offers_again_and_again_waits_for_what_it_leaves_behind(
    served: ServedInThreads,
) -> None:
    control = registered(served, ConnectionProtocol.WEBRTC)

    async def offer() -> list[Any]:
        for _ in range(20):
            await control.send(encode_control(PeerOffer(GOOD)))
        return [decode_control(await control.recv())[1] for _ in range(20)]

    answers = served.call(offer())
    refused = [one for one in answers if isinstance(one, PeerRefusal)]
    assert refused
    counted = served.counted()
    assert counted["offers_too_often"] + counted["offers_failed"] == len(refused)
    assert isinstance(served.call(ask(control, HeartBeat())), HeartBeat)
    served.call(control.close())


def without_addresses(sdp: str) -> str:
    """As of a browser that hides where it is behind a name."""
    return re.sub(r"(a=candidate:\S+ 1 udp \d+) \S+ ", r"\1 1f4712db.local ", sdp)


def test_names_are_not_asked_for_and_the_peer_is_found_by_what_it_sends(
    served: ServedInThreads,
) -> None:
    peer = served.call(
        WebRtcPeer.connect(served.url, ROVER, EVERYTHING, offer_as=without_addresses)
    )
    assert served.counted()["candidates_skipped"] == 1
    assert served.counted()["connections"] == 1
    served.call(peer.close())


def other_fingerprint(sdp: str) -> str:
    return re.sub("(fingerprint:sha-256) ..", r"\1 00", sdp)


def other_password(sdp: str) -> str:
    return re.sub("ice-pwd:.", "ice-pwd:+", sdp)


@pytest.mark.parametrize("change", [other_fingerprint, other_password])
def test_who_is_not_the_one_that_offered_does_not_get_in(change: Callable[[str], str]) -> None:
    with ServedInThreads(limits=LIMITS, webrtc={"connect_timeout_s": 1.0}) as served:
        peer = served.call(
            WebRtcPeer.connect(served.url, ROVER, EVERYTHING, offer_as=change, wait=False)
        )
        until(lambda: served.counted()["not_opened"] == 1, "it got in")
        assert served.counted()["opened"] == 0
        served.call(peer.close())


# -- connections ----------------------------------------------------------------------------------


def text(peer: WebRtcPeer) -> None:
    peer.line.lines[SENSORY].channel.send("hello")


def wrong_channel(peer: WebRtcPeer) -> None:
    line = peer.line._sctp._data_channels[MOTOR.wire]
    line.send(b"x" * 100)


def new_channel(peer: WebRtcPeer) -> None:
    RTCDataChannel(peer.line._sctp, RTCDataChannelParameters(label="mine"))


def send_chunks(peer: WebRtcPeer, count: int, stream_id: int | None, data: bytes) -> None:
    """First pieces of messages that never end."""
    sctp = peer.line._sctp

    async def send() -> None:
        for number in range(count):
            chunk = DataChunk(flags=2 | 4)  # first piece, unordered
            chunk.tsn = sctp._local_tsn
            sctp._local_tsn = (sctp._local_tsn + 1) % (1 << 32)
            chunk.stream_id = number % 65536 if stream_id is None else stream_id
            chunk.protocol = 53
            chunk.user_data = data
            with contextlib.suppress(ConnectionError):
                await peer.line._dtls._send_data(
                    serialize_packet(5000, 5000, sctp._remote_verification_tag, chunk)
                )
            if number % 4 == 0:
                await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(send())
    peer._tasks.add(task)
    task.add_done_callback(peer._tasks.discard)


def endless_messages(peer: WebRtcPeer) -> None:
    send_chunks(peer, 4000, SENSORY.wire, b"x" * 1100)


def many_streams(peer: WebRtcPeer) -> None:
    send_chunks(peer, 40, None, b"x")


def twice_the_same_number(peer: WebRtcPeer) -> None:
    """What the library's own assertions do not survive."""
    sctp = peer.line._sctp
    init = InitChunk()
    packet = serialize_packet(5000, 5000, 0, init)
    both = packet[:12] + bytes(init) + bytes(init)
    bare = both[:8] + bytes(4) + both[12:]
    task = asyncio.get_running_loop().create_task(
        peer.line._dtls._send_data(both[:8] + struct.pack("<L", crc32c(bare)) + both[12:])
    )
    peer._tasks.add(task)
    task.add_done_callback(peer._tasks.discard)
    assert sctp.state == "connected"


BREAKS = {
    text: "text is not taken on the sensory channel",
    wrong_channel: "nothing is taken on the motor channel; 100 came",
    new_channel: "a channel 'mine' was opened that was not agreed on",
    endless_messages: "bytes more than it was told to send",
    many_streams: "streams; 8 are allowed",
    twice_the_same_number: "was no SCTP",
}


@pytest.mark.parametrize("break_rule", BREAKS, ids=lambda rule: rule.__name__)
def test_who_breaks_a_rule_ends_its_own_connection(
    served: ServedInThreads, break_rule: Callable[[WebRtcPeer], None]
) -> None:
    async def do(peer: WebRtcPeer) -> None:
        break_rule(peer)

    with connected(served, HONEST) as honest, connected(served) as peer:
        (session,) = (s for s in served.host.sessions if s.agent_id == peer.agent_id)
        served.call(do(peer))
        until(lambda: session.closed, "still there")
        ((agent_id, reason),) = served.host.left
        assert agent_id == peer.agent_id
        assert BREAKS[break_rule] in reason
        assert served.counted()["lost"] == 1
        with numbered(7) as frame:
            served.call(honest.send_sensory(frame))
            served.handle.publish_motor(honest.agent_id, frame)
            assert served.host.take_sensory(honest.agent_id) == bytes(frame.view)
        received = served.call(honest.receive_motor(DEADLINE_S))
        assert received is not None
        received.release()


def test_bytes_from_anybody_at_the_port_change_nothing(served: ServedInThreads) -> None:
    with connected(served) as peer:
        pair = peer.line._gatherer.connection._nominated[1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for head in (0, 1, 20, 22, 23, 63, 64, 127, 128, 200, 255):
                for size in (1, 12, 13, 100, 1400):
                    stranger.sendto(bytes([head]) + bytes(size - 1), pair.remote_addr)
        with numbered(7) as frame:
            served.call(peer.send_sensory(frame))
            assert served.host.take_sensory(peer.agent_id) == bytes(frame.view)
        assert served.counted()["connections"] == 1


def test_hostile_datagrams_of_a_channel_are_counted(served: ServedInThreads) -> None:
    async def send(peer: WebRtcPeer, data: bytes) -> None:
        peer.line.lines[SENSORY].channel.send(data)

    with connected(served) as peer, numbered(7) as frame:
        fragmenter = peer.line.lines[SENSORY]._fragmenter
        assert fragmenter is not None
        burst = fragmenter.fragment(SENSORY, frame.view)
        assert burst is not None
        ((head, payload),) = burst.datagrams()
        good = bytes(head) + bytes(payload)
        wrong = [good[:31], b"XX" + good[2:], good[:8] + b"XX" + good[10:], good + b"x"]
        wrong += [good[:12] + bytes([StreamType.MOTOR.wire]) + good[13:]]  # of another stream
        wrong += [good[:24] + b"\xff\xff\xff\x7f" + good[28:]]  # two gigabytes
        for data in wrong:
            served.call(send(peer, data))
        served.call(send(peer, good))
        assert served.host.take_sensory(peer.agent_id) == bytes(frame.view)
        assert served.counted()["connections"] == 1


# -- what a server may do to an agent -------------------------------------------------------------


async def line(**settings: Any) -> PeerLine:
    return PeerLine(
        WebRtcSettings(**settings), sends=(SENSORY,), receives=(VIZ,), max_frame_bytes=1 << 20
    )


def test_answers_that_are_none() -> None:
    async def run() -> None:
        one = await line()
        offer = await one.offer()
        with pytest.raises(FeagiDataError, match="no a=ice-ufrag"):
            one.take_answer(offer.replace("a=ice-ufrag", "a=x"))
        with pytest.raises(FeagiDataError, match="who begins"):
            one.take_answer(offer)  # its own
        one.take_answer(offer.replace("actpass", "active"))
        with pytest.raises(FeagiDataError, match="nobody waits for"):
            one.take_answer(offer.replace("actpass", "active"))
        one.end()
        await one.wait_until_gone()

    asyncio.run(run())


def test_a_peer_of_small_messages_gets_small_messages() -> None:
    async def run() -> None:
        ends = [await line(), await line()]
        opened = [asyncio.Event() for _ in ends]
        for end, event in zip(ends, opened, strict=True):
            end.on_open = event.set
        one, other = ends
        offer = parse_description(await one.offer())
        answer = await other.answer(replace(offer, max_message_bytes=1000))
        one.take_answer(answer)
        for event in opened:
            await asyncio.wait_for(event.wait(), DEADLINE_S)
        assert other.lines[SENSORY]._fragmenter is not None
        assert other.lines[SENSORY]._fragmenter.settings.datagram_bytes == 1000
        for end in ends:
            end.end()
            await end.wait_until_gone()

    asyncio.run(run())


def test_what_waits_for_the_loop_is_bounded() -> None:
    async def run() -> None:
        connection = GuardedConnection(("127.0.0.1",), 6.0)
        for _ in range(MAX_WAITING_DATAGRAMS + 5):
            connection.data_received(b"x", 1)
        assert connection.overflowed == 5
        await connection.close()

    asyncio.run(run())


def test_an_answer_is_answer_and_refusal_a_refusal() -> None:
    for message in (PeerOffer("o"), PeerAnswer("a"), PeerRefusal("r")):
        assert type(message).from_json(message.to_json()) == message
        with pytest.raises(FeagiDataError):
            HeartBeat.from_json(message.to_json())
    with pytest.raises(FeagiDataError, match="20000 characters"):
        PeerAnswer.from_json(PeerAnswer("x" * 20_000).to_json())
