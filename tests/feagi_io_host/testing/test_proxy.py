# SPDX-License-Identifier: Apache-2.0
"""UdpImpairmentProxy: each fault alone, all of them again for the same seed, and its own ends."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest

from feagi_io_host.core.errors import ClosedError, ConfigError
from feagi_io_host.testing import Faults, Residue, UdpImpairmentProxy

AMOUNT = 200
FEW = 25
WAIT_S = 5.0


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.settimeout(WAIT_S)
        yield made


def eventually(true: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < until_s, "it never came true"
        time.sleep(0.001)


def through(
    target: socket.socket, faults: Faults, seed: int = 3
) -> tuple[list[bytes], dict[str, int]]:
    """Send numbered datagrams through a proxy: what arrived in which order, what it counted."""
    with (
        UdpImpairmentProxy(*target.getsockname(), towards=faults, seed=seed) as proxy,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.connect(proxy.address)
        for number in range(AMOUNT):
            sender.send(sent(number))
            if number % FEW == FEW - 1:  # the system has no room for all of them at once
                eventually(lambda: proxy.counters()["towards"]["taken"] > number)  # noqa: B023
        counted = proxy.counters()["towards"]
        amount = AMOUNT - counted["lost"] + counted["duplicated"]
        arrived = [target.recv(100) for _ in range(amount)]
        eventually(lambda: proxy.counters()["towards"]["passed"] == amount)
        return arrived, proxy.counters()["towards"]


def sent(number: int) -> bytes:
    return number.to_bytes(4, "big") * 10


def test_nothing_happens_unless_asked_for(target: socket.socket) -> None:
    arrived, counted = through(target, Faults())
    assert arrived == [sent(number) for number in range(AMOUNT)]
    assert counted == {
        "taken": AMOUNT, "passed": AMOUNT, "lost": 0, "duplicated": 0, "reordered": 0,
        "corrupted": 0, "refused": 0,
    }  # fmt: skip


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_some_are_lost(target: socket.socket, share: float) -> None:
    arrived, counted = through(target, Faults(loss=share))
    assert arrived == sorted(set(arrived))
    assert len(arrived) == AMOUNT - counted["lost"]
    assert 0 < counted["lost"] < 2.5 * share * AMOUNT


def test_some_are_doubled(target: socket.socket) -> None:
    arrived, counted = through(target, Faults(duplicate=0.2))
    assert sorted(set(arrived)) == [sent(number) for number in range(AMOUNT)]
    assert len(arrived) == AMOUNT + counted["duplicated"]
    assert counted["duplicated"] > 20


def test_some_are_overtaken(target: socket.socket) -> None:
    arrived, counted = through(target, Faults(reorder=0.2))
    assert arrived != sorted(arrived)
    assert sorted(arrived) == [sent(number) for number in range(AMOUNT)]
    assert counted["reordered"] > 20


def test_some_are_damaged(target: socket.socket) -> None:
    arrived, counted = through(target, Faults(corrupt=0.2))
    assert sum(data != sent(number) for number, data in enumerate(arrived)) == counted["corrupted"]
    assert counted["corrupted"] > 20
    assert min(map(len, arrived)) < 40


def test_the_same_seed_does_the_same(target: socket.socket) -> None:
    faults = Faults(0.1, 0.1, 0.1, 0.1)
    first, counted = through(target, faults)
    again, counted_again = through(target, faults)
    assert (sorted(again), counted_again) == (sorted(first), counted)
    assert sorted(through(target, faults, seed=4)[0]) != sorted(first)


def test_answers_come_back_late_and_from_where_they_were_asked(target: socket.socket) -> None:
    with (
        UdpImpairmentProxy(*target.getsockname(), back=Faults(delay_s=0.05)) as proxy,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        sources = []
        for asker in (one, other):
            asker.settimeout(WAIT_S)
            asker.connect(proxy.address)
            asker.send(b"question")
            data, source = target.recvfrom(100)
            sources.append(source)
            target.sendto(data + b" answered", source)
        assert [asker.recv(100) for asker in (one, other)] == [b"question answered"] * 2
        assert sources[0] != sources[1]
        proxy.move_all()
        one.send(b"from elsewhere")
        while True:
            data, source = target.recvfrom(100)
            if source not in sources:
                break
            one.send(b"from elsewhere")  # sent before it had moved
        assert data == b"from elsewhere"
        assert proxy.url("udp://10.0.0.1:9/?a=b#c") == f"udp://127.0.0.1:{proxy.address[1]}/?a=b#c"


def test_it_leaves_nothing_and_runs_once(target: socket.socket) -> None:
    before = Residue()
    proxy = UdpImpairmentProxy(*target.getsockname())
    with pytest.raises(ClosedError):
        assert proxy.address
    proxy.stop()
    proxy.stop()
    with pytest.raises(ClosedError):
        proxy.start()
    with UdpImpairmentProxy(*target.getsockname()) as running:
        with pytest.raises(ClosedError):
            running.start()
        running.stop()
        with pytest.raises(ClosedError):
            running.move_all()
    assert before.since() == []


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"corrupt": -0.1}, {"delay_s": float("nan")}])
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="needed"):
        Faults(**wrong)
