# SPDX-License-Identifier: Apache-2.0
"""Greetings: who may have bursts sent where, and what both ends tell each other."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from feagi_io_host.core.reassembly import COUNTERS
from feagi_io_host.transports.udp.greeting import (
    GREETING_BYTES,
    REPORT,
    AgentGreeter,
    GreetingSeal,
    Heard,
    HostGreeter,
    LossCount,
    report_of,
    session_of,
)

SESSION, KEY, SECRET = 0x1122334455667788, bytes(range(32)), b"s" * 32
HERE, THERE = ("10.0.0.1", 5000), ("10.0.0.2", 6000)
NOTHING = (0,) * len(REPORT)


class Ends:
    """Both greeters of one session; what the agent says comes from `source`."""

    def __init__(self) -> None:
        self.host = HostGreeter(SESSION, KEY, SECRET)
        self.agent = AgentGreeter(SESSION, KEY)
        self.source = HERE
        self.now_s = 0.0

    def hello(self, sent: int = 0, report: tuple[int, ...] = NOTHING) -> bytes:
        return self.agent.hello(self.now_s, sent, report)

    def hear(self, greeting: bytes) -> Heard:
        return self.host.receive(greeting, self.source, self.now_s)

    def answer(self) -> bytes:
        return self.host.answer(self.source, 0, NOTHING)

    def meet(self) -> None:
        for _ in range(2):
            assert self.hear(self.hello()) is not Heard.NOTHING
            assert self.agent.receive(self.answer(), self.now_s)


def test_two_hellos_and_the_agent_is_where_it_is() -> None:
    ends = Ends()
    assert ends.hear(ends.hello()) is Heard.UNPROVEN
    assert ends.host.address is None
    assert ends.agent.receive(ends.answer(), 0.0)
    assert not ends.agent.welcomed
    assert ends.agent.due_s == 0.0  # at once
    assert ends.hear(ends.hello()) is Heard.HELLO
    assert ends.host.address == HERE
    assert ends.agent.receive(ends.answer(), 0.0)
    assert ends.agent.welcomed


def test_no_answer_is_longer_than_what_it_answers() -> None:
    ends = Ends()
    hello = ends.hello()
    ends.hear(hello)
    assert len(hello) == len(ends.answer()) == len(ends.host.gone()) == GREETING_BYTES


def test_a_hello_that_somebody_else_repeats_moves_nothing() -> None:
    ends = Ends()
    ends.meet()
    caught = ends.hello()  # on its way, and not let through
    ends.source = THERE
    assert ends.hear(caught) is Heard.UNPROVEN
    assert ends.host.address == HERE
    assert ends.hear(caught) is Heard.NOTHING  # a second time
    assert ends.host.counters["replayed"] == 1


def test_an_agent_whose_address_changes_is_found_again_when_it_proves_it() -> None:
    ends = Ends()
    ends.meet()
    ends.source = THERE
    assert ends.hear(ends.hello()) is Heard.UNPROVEN
    assert ends.host.address == HERE
    assert ends.agent.receive(ends.answer(), 0.0)
    assert not ends.agent.welcomed
    assert ends.hear(ends.hello()) is Heard.HELLO
    assert ends.host.address == THERE
    assert ends.host.counters["moved"] == 1
    assert ends.agent.receive(ends.answer(), 0.0)
    assert ends.agent.welcomed


def test_who_does_not_know_the_key_is_not_heard() -> None:
    ends = Ends()
    stranger = AgentGreeter(SESSION, bytes(32))
    assert ends.hear(stranger.hello(0.0, 0, NOTHING)) is Heard.NOTHING
    assert ends.host.counters["refused"] == 1
    ends.hear(ends.hello())
    false = HostGreeter(SESSION, bytes(32), SECRET)
    assert not ends.agent.receive(false.answer(HERE, 0, NOTHING), 0.0)
    assert not ends.agent.receive(false.gone(), 0.0)
    assert ends.agent.counters["refused"] == 2


def test_one_end_does_not_take_its_own_words_for_the_other() -> None:
    ends = Ends()
    hello = ends.hello()
    assert not ends.agent.receive(hello, 0.0)
    ends.hear(hello)
    assert ends.hear(ends.answer()) is Heard.NOTHING


def test_an_old_welcome_is_not_believed() -> None:
    ends = Ends()
    ends.hear(ends.hello())
    first = ends.answer()
    assert ends.agent.receive(first, 0.0)
    assert not ends.agent.receive(first, 0.0)
    ends.hello()
    assert not ends.agent.receive(first, 0.0)


def test_two_hellos_under_way_prove_nothing_yet() -> None:
    ends = Ends()
    answers = []
    for _ in range(2):
        ends.hear(ends.hello())
        answers.append(ends.answer())
    for answer in answers:
        assert ends.agent.receive(answer, 0.0)
        assert not ends.agent.welcomed


def test_bye_and_gone() -> None:
    ends = Ends()
    ends.meet()
    assert ends.hear(ends.agent.bye(0, NOTHING)) is Heard.BYE
    assert ends.host.address is None
    assert ends.agent.receive(ends.host.gone(), 0.0)
    assert ends.agent.gone


def test_hellos_come_less_often_until_somebody_answers() -> None:
    ends = Ends()
    pauses = []
    for _ in range(8):
        ends.hello()
        pauses.append(round(ends.agent.due_s - ends.now_s, 3))
        ends.now_s = ends.agent.due_s
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    ends.meet()
    ends.hello()
    assert ends.agent.due_s == ends.now_s + 1.0


def test_what_is_reported_arrives() -> None:
    ends = Ends()
    ends.meet()
    counters = {name: place for place, name in enumerate(COUNTERS)}
    assert ends.hear(ends.hello(7, report_of(counters))) is Heard.HELLO
    assert ends.host.reported.sent == 7
    told = ends.host.reported.reported()
    assert list(told) == list(REPORT)
    assert told["delivered"] == counters["delivered"]
    names = ("incomplete", "superseded", "restarted")
    assert told["incomplete"] == sum(counters[name] for name in names)


def test_every_bit_counts() -> None:
    seal = GreetingSeal(KEY)
    hello = AgentGreeter(SESSION, KEY).hello(0.0, 3, NOTHING)
    assert seal.prove(hello) is not None
    for bit in range(8 * len(hello)):
        changed = bytearray(hello)
        changed[bit // 8] ^= 1 << bit % 8
        assert seal.prove(changed) is None


@given(st.binary(max_size=2 * GREETING_BYTES))
def test_no_bytes_are_a_surprise(data: bytes) -> None:
    assert session_of(data) is None or len(data) == GREETING_BYTES
    ends = Ends()
    assert ends.hear(data) is Heard.NOTHING
    assert not ends.agent.receive(data, 0.0)


@pytest.mark.parametrize("start", [0, 2**32 - 3])
def test_what_was_lost_is_counted_once(start: int) -> None:
    losses = LossCount()
    for half in (start // 2, start):  # as after a long time
        assert losses.note(half, min(half, start // 2)) == 0
    assert losses.note(start, start) == 0
    sent, delivered = start, start
    random_ = random.Random(4)
    lost = counted = 0
    for _ in range(200):
        amount = random_.randrange(5)
        gone = random_.randrange(amount + 1)
        counted += losses.note((sent + amount) % 2**32, delivered % 2**32)
        sent, delivered, lost = sent + amount, delivered + amount - gone, lost + gone
    counted += losses.note(sent % 2**32, delivered % 2**32)
    counted += losses.note(sent % 2**32, delivered % 2**32)
    assert counted == lost > 0


def test_what_arrived_since_the_last_hello_is_not_lost() -> None:
    losses = LossCount()
    assert losses.note(10, 10) == 0
    assert losses.note(20, 15) == 0  # of the ten sent since some have arrived
    assert losses.note(20, 20) == 0
