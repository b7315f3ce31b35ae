# SPDX-License-Identifier: Apache-2.0
"""Streams of an agent that do not go over ZMQ, by ends that do what a test wants."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import pytest

from feagi_io_host.core.container import BytesLike, FeagiByteContainer
from feagi_io_host.core.errors import ClosedError, FeagiDataError, FeagiIOError, LocalError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.client_ends import FAIR_SHARE, ClientEnds, EndMaker
from feagi_io_host.transports.zmq.client_sensory import SensorySender
from tests.feagi_io_host.transports.zmq.test_client_sensory import SensoryParty

UDP, SHARED = ConnectionProtocol.UDP, ConnectionProtocol.SHARED_MEMORY
HERE = Endpoint(UDP, "udp://here")
SENSORY, MOTOR, VIEW = StreamType.SENSORY, StreamType.MOTOR, StreamType.VISUALIZATION
LIMIT_BYTES = 1000


class EndsParty(SensoryParty):
    """An agent that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[StreamType, BytesLike]] = []
        self.counted: dict[StreamType, dict[str, int]] = {}

    def frame_received(self, stream: StreamType, data: BytesLike) -> None:
        self.frames.append((stream, data))

    def stream_end_counted(self, stream: StreamType, counters: Mapping[str, int]) -> None:
        self.counted[stream] = dict(counters)


class PlayedEnd:
    """An end that gives `waiting`, takes frames while there is `room`, and is `gone` when told."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.waiting: deque[bytes] = deque()
        self.sent: list[bytes] = []
        self.room = 1 << 30
        self.gone: FeagiIOError | None = None
        self.refusal: FeagiIOError | None = None
        self.due_s: float | None = None
        self.tended: list[float] = []
        self.counts = {"overtaken": 1}
        self.closed = 0

    def fileno(self) -> int:
        return self.descriptor

    def take(self) -> bytes | None:
        if self.gone is not None:
            raise self.gone
        return self.waiting.popleft() if self.waiting else None

    def send(self, fbc: SharedFBC) -> bool:
        if self.refusal is not None:
            raise self.refusal
        if self.room <= len(self.sent):
            return False
        self.sent.append(bytes(fbc.view))
        return True

    def tend(self, now_s: float) -> float | None:
        self.tended.append(now_s)
        return self.due_s

    def counters(self) -> dict[str, int]:
        return self.counts

    def close(self) -> None:
        self.closed += 1


class Stage:
    """The ends of an agent; `open` gives the next one."""

    def __init__(self) -> None:
        self.party = EndsParty()
        self.sender = SensorySender(self.party, None)
        self.made: list[tuple[Endpoint, StreamType, int]] = []
        self.watched: list[int] = []
        self.ends = ClientEnds(
            self.party,
            self.sender,
            EndMaker(UDP, self._make),
            LIMIT_BYTES,
            self.watched.append,
            self.watched.remove,
        )
        self._next: PlayedEnd | None = None

    def open(self, stream: StreamType, descriptor: int = 5) -> PlayedEnd:
        self._next = end = PlayedEnd(descriptor)
        self.ends.open(HERE, stream)
        return end

    def offer(self, counter: int) -> SharedFBC:
        container = FeagiByteContainer.new_empty()
        container.set_increment_counter_state(counter)
        self.party.outbox.append(SharedFBC.adopt(container))
        return self.party.outbox[-1]

    def _make(self, endpoint: Endpoint, stream: StreamType, *, max_frame_bytes: int) -> PlayedEnd:
        self.made.append((endpoint, stream, max_frame_bytes))
        assert self._next is not None
        return self._next


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.ends.close()
    assert made.watched == []
    assert made.ends.descriptors == ()


def test_an_end_is_watched_heard_and_let_go(stage: Stage) -> None:
    end = stage.open(VIEW)
    assert stage.made == [(HERE, VIEW, LIMIT_BYTES)]
    assert (stage.watched, stage.ends.descriptors) == ([5], (5,))
    end.waiting.extend([b"one", b"two"])
    assert stage.ends.hear(5)
    assert stage.party.frames == [(VIEW, b"one"), (VIEW, b"two")]
    assert stage.ends.hear(5)  # nothing was there after all
    assert not stage.ends.hear(6)  # another's
    stage.ends.close()
    stage.ends.close()
    assert end.closed == 1
    assert stage.ends.take_failure() is None


def test_one_stream_takes_no_more_than_its_share(stage: Stage) -> None:
    chatty, other = stage.open(VIEW, 5), stage.open(MOTOR, 6)
    chatty.waiting.extend([b"v"] * (2 * FAIR_SHARE + 1))
    other.waiting.append(b"m")
    assert not stage.ends.hear(5)
    assert len(stage.party.frames) == FAIR_SHARE
    # No descriptor need tell of the rest: the end may have read it already.
    assert stage.ends.has_work
    stage.ends.take_all()
    assert stage.party.frames.count((VIEW, b"v")) == 2 * FAIR_SHARE
    assert stage.party.frames[-1] == (MOTOR, b"m")
    assert stage.ends.has_work
    stage.ends.take_all()
    assert not stage.ends.has_work
    assert len(stage.party.frames) == 2 * FAIR_SHARE + 2


@pytest.mark.parametrize("stream", [SENSORY, MOTOR, VIEW])
def test_an_end_that_is_gone_is_let_go_and_told_of_once(stage: Stage, stream: StreamType) -> None:
    end = stage.open(stream)
    end.gone = ClosedError("nobody there")
    assert not stage.ends.hear(5)
    assert stage.ends.has_work
    assert (end.closed, stage.watched, stage.ends.descriptors) == (1, [], ())
    failure = f"the {stream.value} stream over Udp has ended: nobody there"
    assert stage.ends.take_failure() == failure
    assert stage.ends.take_failure() is None
    assert not stage.ends.has_work
    assert not stage.sender.leads_somewhere


def test_what_ends_have_counted_adds_up(stage: Stage) -> None:
    end = stage.open(VIEW)
    stage.ends.tend(1.0)
    assert stage.party.counted == {VIEW: {"overtaken": 1}}
    end.counts = {"overtaken": 2, "lost": 0}
    stage.ends.close()
    assert stage.party.counted == {VIEW: {"overtaken": 2, "lost": 0}}
    stage.open(VIEW)
    stage.ends.tend(2.0)
    assert stage.party.counted == {VIEW: {"overtaken": 3, "lost": 0}}


def test_each_is_tended_and_the_soonest_is_told(stage: Stage) -> None:
    first, second = stage.open(VIEW, 5), stage.open(SENSORY, 6)
    stage.ends.tend(1.0)
    assert stage.ends.due_s is None
    first.due_s, second.due_s = 9.0, 3.0
    stage.ends.tend(2.0)
    assert stage.ends.due_s == stage.sender.end_due_s == 3.0
    assert first.tended == second.tended == [1.0, 2.0]


def test_sensory_frames_go_out_at_once_and_come_from_nowhere(stage: Stage) -> None:
    end = stage.open(SENSORY)
    fbc = stage.offer(1)
    assert stage.sender.send_now()
    assert (len(end.sent), stage.party.sent, fbc.lease_count) == (1, 1, 0)
    end.waiting.append(b"what?")
    assert not stage.ends.hear(5)  # there may be room now: a turn is due
    assert stage.party.frames == []
    stage.ends.tend(1.0)
    assert stage.party.counted[SENSORY] == {"overtaken": 1, "unexpected": 1}


def test_the_link_looks_sooner_when_the_end_has_to_send_on(stage: Stage) -> None:
    end = stage.open(SENSORY)
    end.due_s = 50.0
    stage.ends.tend(1.0)
    stage.offer(1)
    assert stage.sender.send_now()
    end.due_s = 2.0
    stage.offer(2)
    assert not stage.sender.send_now()
    assert (len(end.sent), stage.party.outbox) == (2, deque())


def test_without_room_the_newest_waits(stage: Stage) -> None:
    end = stage.open(SENSORY)
    end.room = 0
    first = stage.offer(1)
    assert not stage.sender.send_now()
    second, third = stage.offer(2), stage.offer(3)
    assert not stage.sender.send_now()  # the link's, from here on
    stage.sender.send()
    assert [fbc.lease_count for fbc in (first, second, third)] == [0, 0, 1]
    assert (stage.party.dropped, stage.sender.waits_for_room) == (["replaced"] * 2, True)
    end.room = 1
    sent = bytes(third.view)
    stage.sender.send()
    assert (end.sent, third.lease_count, stage.sender.waits_for_room) == ([sent], 0, False)


def test_who_uses_the_sensory_end_is_alone_there(stage: Stage) -> None:
    end = stage.open(SENSORY)
    stage.offer(1)
    with stage.sender.turn:
        assert not stage.sender.send_now()
    assert end.sent == []
    stage.sender.send()
    assert len(end.sent) == 1


def test_a_frame_that_an_end_refuses_is_dropped_and_the_next_is_sent(stage: Stage) -> None:
    end = stage.open(SENSORY)
    end.refusal = LocalError("too large")
    fbc = stage.offer(1)
    assert stage.sender.send_now()
    assert (stage.party.dropped, fbc.lease_count) == (["refused"], 0)
    end.refusal = None
    stage.offer(2)
    assert stage.sender.send_now()
    assert len(end.sent) == 1


def test_an_end_that_is_gone_when_a_frame_is_sent_is_met_by_the_link(stage: Stage) -> None:
    end = stage.open(SENSORY)
    end.refusal = ClosedError("the server has ended it")
    fbc = stage.offer(1)
    assert not stage.sender.send_now()
    stage.ends.tend(1.0)
    assert stage.ends.take_failure() == (
        "the sensory stream over Udp has ended: the server has ended it"
    )
    assert (end.closed, fbc.lease_count, stage.party.dropped) == (1, 0, ["not registered"])
    stage.open(SENSORY)
    assert stage.sender.gone is None
    stage.offer(2)
    assert stage.sender.send_now()


def test_only_what_was_asked_for_is_opened(stage: Stage) -> None:
    with pytest.raises(FeagiDataError, match=r"visualization .*over SharedMemory; Udp was asked"):
        stage.ends.open(Endpoint(SHARED, "shm://feagi-io-1-" + "0" * 32), VIEW)
    with pytest.raises(FeagiDataError, match="Zmq was asked for"):
        EndMaker().open(HERE, VIEW, LIMIT_BYTES)
    assert stage.made == []


def test_an_end_that_cannot_be_watched_is_closed() -> None:
    def refuse(descriptor: int) -> None:
        raise LocalError(f"no room for {descriptor}")

    end = PlayedEnd(5)
    party = EndsParty()
    maker = EndMaker(UDP, lambda *_, **__: end)
    ends = ClientEnds(party, SensorySender(party, None), maker, LIMIT_BYTES, refuse, lambda _: None)
    with pytest.raises(LocalError, match="no room for 5"):
        ends.open(HERE, VIEW)
    assert (end.closed, ends.descriptors) == (1, ())
