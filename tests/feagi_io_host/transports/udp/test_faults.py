# SPDX-License-Identifier: Apache-2.0
"""UDP streams over bad networks, and with ends that stop, die or move.

What must hold in each: nothing arrives that was not sent, in the order of sending; what was sent
is delivered or counted; the brain is never held up; memory does not grow; afterwards all works.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.types import StreamType
from feagi_io_host.testing import Faults, UdpImpairmentProxy
from tests.feagi_io_host.transports.udp.far import (
    DEADLINE_S,
    SENSE,
    VIEW,
    Far,
    Running,
    counter_of,
    frame,
)

ROOT: Final = Path(__file__).parents[4]
BURSTS: Final = 40
CHARS: Final = 20_000
DATAGRAMS: Final = 15  # that make a burst of so many
STOPPED_S: Final = float(os.environ.get("FEAGI_IO_STOPPED_S", "5"))
HELD_UP_S: Final = 0.25  # a call that takes so long was waiting for somebody


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    running: list[Running] = []

    def begin(**settings: Any) -> Running:
        running.append(Running(**settings))
        return running[-1]

    yield begin
    for one in running:
        one.close()


@pytest.fixture
def process() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        places = [str(ROOT), str(ROOT / "shared"), *filter(None, sys.path)]
        made = subprocess.Popen(
            [sys.executable, "-m", "tests.feagi_io_host.transports.udp.other_process", *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        started.append(made)
        return made

    yield begin
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


class Lines:
    """What a process prints, line by line, without waiting for ever."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self._fd = process.stdout.fileno()
        self._rest = b""

    def next(self, timeout_s: float = DEADLINE_S) -> str | None:
        until_s = time.monotonic() + timeout_s
        while b"\n" not in self._rest:
            left_s = max(until_s - time.monotonic(), 0.0)
            if not select.select([self._fd], [], [], left_s)[0]:
                return None
            data = os.read(self._fd, 1 << 16)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def all(self) -> list[int]:
        """Every number that is there now."""
        found = []
        while (line := self.next(0.05)) is not None:
            found.append(int(line))
        return found


def eventually(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < until_s, "it never came true"
        time.sleep(0.002)


def greet(far: Far, running: Running, stream: str) -> None:
    """Have the far end say hello now, and be heard."""
    before = running.row(stream)["greetings"]["hellos"]
    while running.row(stream)["greetings"]["hellos"] == before:
        far.end._greeter.due_s = 0.0  # type: ignore[union-attr]
        far.turn()


# -- bad networks -------------------------------------------------------------------------------


def taken_from(viewer: Far) -> list[int]:
    """What is there, each byte of it compared."""
    arrived = []
    while (data := viewer.end.take()) is not None:
        with frame(counter_of(data), CHARS) as right:
            assert bytes(data) == bytes(right.view)
        arrived.append(counter_of(data))
    return arrived


def all_passed(counted: dict[str, int]) -> bool:
    """Whether a proxy holds nothing back."""
    return counted["passed"] == counted["taken"] - counted["lost"] + counted["duplicated"]


def journey(running: Running, faults: Faults, seed: int) -> tuple[list[int], dict[str, Any]]:
    """Publish through a bad network, one burst after the other: which arrived, what was counted."""
    invitation = running.admit(VIEW)
    url = invitation.endpoints[VIEW]
    host, port = "127.0.0.1", running.transport.port
    with UdpImpairmentProxy(host, port, seed=seed) as proxy:
        viewer = running.open(proxy.url(url), StreamType.VISUALIZATION).welcome()
        # No greeting while it is bad, so that the n-th datagram is the same in every journey.
        greeter = viewer.end._greeter
        assert greeter is not None
        greeter.due_s = float("inf")
        taken = proxy.counters()["back"]["taken"]
        proxy.back = faults
        arrived = []
        group = running.transport.settings.parity_group
        for counter in range(BURSTS):
            running.show(counter, CHARS)
            taken += DATAGRAMS + (-(-DATAGRAMS // group) if group else 0)
            eventually(lambda taken=taken: proxy.counters()["back"]["taken"] >= taken)
            arrived += taken_from(viewer)
        eventually(lambda: all_passed(proxy.counters()["back"]))
        arrived += taken_from(viewer)
        proxy.back = Faults()
        for _ in range(2):
            greet(viewer, running, "visualization")
        counted = proxy.counters()["back"]
        session = running.host.sessions[-1]
        row = session.counters[StreamType.VISUALIZATION].snapshot()
        assert row["sent"] == BURSTS
        dropped = row["dropped"]
        assert isinstance(dropped, dict)
        assert row["sent"] == row["delivered"] + sum(dropped.values())
        return arrived, {**viewer.end.counters(), "proxy": counted, "delivered_": row["delivered"]}


@pytest.mark.parametrize(
    ("share", "parity_group"), [(0.01, 0), (0.05, 0), (0.3, 0), (0.05, 4), (0.3, 4)]
)
def test_nothing_wrong_arrives_over_a_bad_network(
    start: Callable[..., Running], share: float, parity_group: int
) -> None:
    running = start(check="crc", parity_group=parity_group)
    arrived, counted = journey(running, Faults(share, share, share, share), seed=11)
    assert arrived == sorted(set(arrived))
    assert len(arrived) < BURSTS
    assert counted["proxy"]["lost"] > 0
    assert counted["corrupt"] <= counted["proxy"]["corrupted"] + counted["proxy"]["duplicated"]


@pytest.mark.parametrize("faults", [Faults(loss=0.02), Faults(reorder=0.3), Faults(corrupt=0.02)])
def test_the_same_seed_is_the_same_journey(start: Callable[..., Running], faults: Faults) -> None:
    journeys = []
    for _ in range(2):
        running = start(check="crc")
        arrived, counted = journey(running, faults, seed=5)
        journeys.append((arrived, counted["delivered_"], counted["proxy"]["lost"]))
    assert journeys[0] == journeys[1]


def test_disorder_and_doubles_alone_cost_nothing(start: Callable[..., Running]) -> None:
    arrived, counted = journey(start(), Faults(duplicate=0.3, reorder=0.3), seed=2)
    assert arrived == list(range(BURSTS))
    assert counted["duplicate"] > 50
    assert counted["reordered"] > 50


def test_parity_saves_most_of_a_little_loss(start: Callable[..., Running]) -> None:
    plain, _ = journey(start(check="crc"), Faults(loss=0.03), seed=9)
    running = start(check="crc", parity_group=4)
    invitation = running.admit(VIEW)
    with UdpImpairmentProxy("127.0.0.1", running.transport.port, seed=9) as proxy:
        viewer = running.open(proxy.url(invitation.endpoints[VIEW]), StreamType.VISUALIZATION)
        viewer.welcome()
        proxy.back = Faults(loss=0.03)
        saved = 0
        for counter in range(BURSTS):
            taken = proxy.counters()["back"]["taken"]
            running.show(counter, CHARS)
            eventually(lambda taken=taken: proxy.counters()["back"]["taken"] >= taken + 19)
            saved += viewer.take(0.1) is not None
    assert saved > len(plain) + 5


def test_sensory_over_a_bad_network(start: Callable[..., Running]) -> None:
    running = start(check="crc")
    invitation = running.admit(SENSE)
    url = invitation.endpoints[SENSE]
    with UdpImpairmentProxy("127.0.0.1", running.transport.port, seed=6) as proxy:
        sensor = running.open(proxy.url(url), StreamType.SENSORY).welcome()
        proxy.towards = Faults(0.03, 0.03, 0.03, 0.03)
        for counter in range(BURSTS):
            sensor.send(frame(counter, CHARS))
        eventually(lambda: proxy.counters()["towards"]["taken"] >= DATAGRAMS * BURSTS)
        proxy.towards = Faults()
        for _ in range(2):
            greet(sensor, running, "sensory")
    arrived = []
    while (data := running.host.take_sensory(invitation.agent_id, 0.1)) is not None:
        with frame(counter_of(data), CHARS) as right:
            assert data == bytes(right.view)
        arrived.append(counter_of(data))
    (session,) = running.host.sessions
    row = session.counters[StreamType.SENSORY].snapshot()
    assert arrived == sorted(set(arrived))
    assert 0 < len(arrived) < BURSTS
    assert row["sent"] == BURSTS
    assert row["dropped"] == {"lost on the way": BURSTS - len(arrived)}


def test_hellos_that_get_lost_are_said_again(start: Callable[..., Running]) -> None:
    running = start()
    invitation = running.admit(VIEW)
    bad = Faults(loss=0.3, duplicate=0.3, reorder=0.3, corrupt=0.1)
    with UdpImpairmentProxy(
        "127.0.0.1", running.transport.port, towards=bad, back=bad, seed=1
    ) as proxy:
        viewer = running.open(proxy.url(invitation.endpoints[VIEW]), StreamType.VISUALIZATION)
        viewer.welcome()
        proxy.back = Faults()
        running.show(1)
        assert counter_of(viewer.take()) == 1


def test_a_router_that_forgets_is_got_over(start: Callable[..., Running]) -> None:
    running = start()
    invitation = running.admit(VIEW)
    with UdpImpairmentProxy("127.0.0.1", running.transport.port) as proxy:
        viewer = running.open(proxy.url(invitation.endpoints[VIEW]), StreamType.VISUALIZATION)
        viewer.welcome()
        running.show(1)
        assert counter_of(viewer.take()) == 1
        proxy.move_all()
        greet(viewer, running, "visualization")
        viewer.until(lambda: running.row("visualization")["greetings"]["moved"] == 1)
        running.show(2)
        assert counter_of(viewer.take()) == 2


# -- ends that stop or die ----------------------------------------------------------------------


def publish(running: Running, pool: BufferPool, first: int, seconds: float) -> tuple[int, float]:
    """Publish 200 bursts a second: the counter after the last one, the longest call."""
    counter, longest_s = first, 0.0
    began_s = time.monotonic()
    while time.monotonic() - began_s < seconds:
        container = pool.acquire()
        container.overwrite_byte_data_with_single_struct_data(FeagiJSON("x" * CHARS), counter)
        with pool.share(container) as fbc:
            before_s = time.monotonic()
            for session in running.host.sessions:
                session.show(fbc)  # as a PNS does in the brain's thread
            longest_s = max(longest_s, time.monotonic() - before_s)
        counter += 1
        time.sleep(0.005)
    return counter, longest_s


@pytest.mark.slow
def test_a_reader_that_is_stopped_holds_up_nobody_and_goes_on_with_the_newest(
    start: Callable[..., Running], process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    running = start()
    pool = BufferPool()
    stopped = process("viewer", running.admit(VIEW).endpoints[VIEW])
    lines = Lines(stopped)
    eventually(lambda: running.row("visualization")["peer"])
    counter, _ = publish(running, pool, 0, 0.1)
    assert lines.next() is not None
    made = pool.counters()["created"]
    stopped.send_signal(signal.SIGSTOP)
    counter, longest_s = publish(running, pool, counter, STOPPED_S)
    assert longest_s < HELD_UP_S
    stopped.send_signal(signal.SIGCONT)
    newest, longest_s = publish(running, pool, counter, 0.2)
    assert longest_s < HELD_UP_S
    seen = [int(line) for line in iter(lambda: lines.next(0.5), None)]
    assert seen == sorted(set(seen))
    assert seen[-1] >= counter  # of those published after it went on
    assert newest > counter
    # Nothing piles up at the sender: as many buffers as before, and all of them back.
    assert pool.counters()["created"] <= made + 2
    eventually(lambda: pool.counters()["leased"] == 0)


def test_a_reader_that_was_killed_is_sent_nothing_soon(
    start: Callable[..., Running], process: Callable[..., subprocess.Popen[bytes]]
) -> None:
    running = start(silence_timeout_s=1.05)
    pool = BufferPool()
    invitation = running.admit(VIEW)
    killed = process("viewer", invitation.endpoints[VIEW])
    eventually(lambda: running.row("visualization")["peer"])
    counter, _ = publish(running, pool, 0, 0.05)
    killed.kill()
    counter, longest_s = publish(running, pool, counter, 0.1)
    assert longest_s < HELD_UP_S
    eventually(lambda: running.row("visualization")["peer"] is None)
    sent = running.row("visualization")["bursts"]
    counter, _ = publish(running, pool, counter, 0.05)
    assert running.row("visualization")["bursts"] == sent
    # Who comes back with the same invitation gets the newest.
    viewer = running.viewer(invitation)
    assert counter_of(viewer.take()) == counter - 1
    eventually(lambda: pool.counters()["leased"] == 0)


def test_a_server_that_was_killed_is_missed_and_the_next_one_found(
    process: Callable[..., subprocess.Popen[bytes]],
) -> None:
    server = process("server")
    url = Lines(server).next()
    assert url is not None
    viewer = Far(url, StreamType.VISUALIZATION)
    try:
        assert viewer.take() is not None
        server.kill()
        server.wait()
        while viewer.end.take() is not None:
            pass
        until_s = time.monotonic() + 0.3
        while time.monotonic() < until_s:  # the machine says that nobody listens there any more
            viewer.end._greeter.due_s = 0.0  # type: ignore[union-attr]
            assert viewer.turn() is None
    finally:
        viewer.close()
    again = Lines(process("server")).next()
    assert again is not None
    viewer = Far(again, StreamType.VISUALIZATION)
    try:
        assert viewer.take() is not None
    finally:
        viewer.close()
