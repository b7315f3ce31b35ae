# SPDX-License-Identifier: Apache-2.0
"""UdpTransport and its far ends: who is sent what, what is counted, how they part."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.errors import ClosedError, ConfigError, LocalError, PortBusyError
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.udp import Check
from feagi_io_host.transports.udp.address import parse_stream_address
from feagi_io_host.transports.udp.greeting import GREETING_BYTES, AgentGreeter
from feagi_io_host.transports.udp.ladder import Probe, Rung
from tests.feagi_io_host.transports.udp.far import (
    DEADLINE_S,
    ROVER,
    SENSE,
    VIEW,
    Far,
    Running,
    counter_of,
    frame,
)

Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Running] = []

    def begin(**settings: Any) -> Running:
        running.append(Running(**settings))
        return running[-1]

    yield begin
    for one in running:
        one.close()


def eventually(true: Callable[[], object]) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < until_s, "it never came true"
        time.sleep(0.005)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"address": "::1"},
    {"check": "crc"},
    {"check": "tag"},
    {"parity_group": 4},
    {"oversize": "fragment", "datagram_bytes": 8972},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
@pytest.mark.parametrize("chars", [0, 500_000])
def test_frames_go_both_ways(start: Start, settings: dict[str, Any], chars: int) -> None:
    running = start(**settings)
    invitation = running.admit()
    viewer, sensor = running.viewer(invitation), running.sensor(invitation)
    for counter in range(3):
        running.show(counter, chars)
        with frame(counter, chars) as sent:
            assert bytes(viewer.take()) == bytes(sent.view)
        sensor.send(frame(counter, chars))
        sensor.turn()
        data = running.host.take_sensory(invitation.agent_id, DEADLINE_S)
        with frame(counter, chars) as sent:
            assert data == bytes(sent.view)
    (session,) = running.host.sessions
    assert session.counters[StreamType.VISUALIZATION].delivered == 3
    assert running.row("sensory")["delivered"] == 3


def test_frames_are_packed_where_that_is_asked_for(start: Start) -> None:
    running = start(compression=CompressionSettings(CompressionMode.ON))
    invitation = running.admit()
    assert "pack=lz4" in invitation.endpoints[VIEW]
    viewer, sensor = running.viewer(invitation), running.sensor(invitation)
    running.show(1, 500_000)
    assert counter_of(viewer.take()) == 1
    sensor.send(frame(2, 500_000))
    data = running.host.take_sensory(invitation.agent_id, DEADLINE_S)
    assert data is not None
    assert len(data) > 500_000
    # What repeats itself so much fits into a handful of datagrams.
    assert running.transport.counters()["socket"]["pieces"] < 20


def test_by_every_rung(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for rung in (Rung.MANY, Rung.PLAIN):
        rungs = Probe(rung, rung, ("as asked",))
        for room in ("nonblocking_impl", "stream_end"):
            monkeypatch.setattr(
                f"feagi_io_host.transports.udp.{room}.best_rungs", lambda rungs=rungs: rungs
            )
        running = start()
        invitation = running.admit()
        viewer, sensor = running.viewer(invitation), running.sensor(invitation)
        running.show(7, 100_000)
        assert counter_of(viewer.take()) == 7
        sensor.send(frame(8, 100_000))
        for _ in range(5):
            sensor.turn(0.0)
        data = running.host.take_sensory(invitation.agent_id, DEADLINE_S)
        assert counter_of(data) == 8
        counted = running.transport.counters()
        assert (counted["send"], counted["reasons"]) == (rung.value, ["as asked"])


# -- who is sent what ---------------------------------------------------------------------------


def test_nothing_is_sent_before_an_agent_has_proven_where_it_is(start: Start) -> None:
    running = start()
    invitation = running.admit(VIEW)
    address = parse_stream_address(invitation.endpoints[VIEW])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofed:
        spoofed.connect((address.host, address.port))
        spoofed.settimeout(DEADLINE_S)
        greeter = AgentGreeter(address.session, address.key)
        running.show(1, 50_000)
        spoofed.send(greeter.hello(0.0, 0, (0,) * 10))
        assert len(spoofed.recv(65536)) == GREETING_BYTES  # and not the frame that waits
        eventually(lambda: running.row("visualization")["greetings"]["unproven"] == 1)
        # Who only sees the answer and not the key gets no further.
        spoofed.send(AgentGreeter(address.session, bytes(32)).hello(0.0, 0, (0,) * 10))
        eventually(lambda: running.row("visualization")["greetings"]["refused"] == 1)
        spoofed.settimeout(0.05)
        with pytest.raises(TimeoutError):
            spoofed.recv(65536)
    viewer = running.viewer(invitation)
    assert counter_of(viewer.take()) == 1  # it has waited


def test_strangers_and_unknown_sessions_are_counted_and_get_no_answer(start: Start) -> None:
    running = start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", running.transport.port))
        stranger.send(b"what is this")
        stranger.send(AgentGreeter(12345, bytes(32)).hello(0.0, 0, (0,) * 10))
        eventually(lambda: running.transport.counters()["strangers"] == 1)
        eventually(lambda: running.transport.counters()["unknown_sessions"] == 1)
        stranger.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stranger.recv(100)


def test_an_agent_that_comes_from_elsewhere_is_found_again(start: Start) -> None:
    running = start()
    invitation = running.admit(VIEW)
    viewer = running.viewer(invitation)
    # A router gives it another port: the same end, another socket.
    moved = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    moved.setblocking(False)
    moved.connect(viewer.end._socket.getpeername())
    os.dup2(moved.fileno(), viewer.end.fileno())
    moved.close()
    viewer.end._greeter.due_s = 0.0  # type: ignore[union-attr]
    viewer.until(lambda: running.row("visualization")["greetings"]["moved"] == 1)
    running.show(5)
    assert counter_of(viewer.take()) == 5


def test_a_silent_agent_is_sent_nothing_until_it_speaks_again(start: Start) -> None:
    running = start(silence_timeout_s=1.05)
    viewer = running.viewer()
    eventually(lambda: running.row("visualization")["peer"] is None)
    running.show(3)
    assert running.row("visualization")["bursts"] == 0
    assert counter_of(viewer.take()) == 3


def test_several_agents_share_the_port_and_none_hears_another(start: Start) -> None:
    running = start(check="tag")
    viewers = [running.viewer() for _ in range(3)]
    running.show(4, 20_000)
    assert [counter_of(viewer.take()) for viewer in viewers] == [4, 4, 4]
    assert {row["unauthenticated"] for row in running.transport.counters()["sessions"]} == {0}


# -- what is counted ----------------------------------------------------------------------------


def test_what_was_lost_is_taken_back_from_what_was_delivered(start: Start) -> None:
    running = start()
    invitation = running.admit(VIEW)
    viewer = running.viewer(invitation)
    (session,) = running.host.sessions
    counters = session.counters[StreamType.VISUALIZATION]
    running.show(1)
    assert counter_of(viewer.take()) == 1
    viewer.end._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for counter in range(2, 6):
        running.show(counter, 100_000)  # more than it has room for
        eventually(lambda counter=counter: counters.delivered == counter)
    viewer.end._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    for _ in range(2):
        viewer.end._greeter.due_s = 0.0  # type: ignore[union-attr]
        hellos = running.row("visualization")["greetings"]["hellos"]
        viewer.until(
            lambda hellos=hellos: running.row("visualization")["greetings"]["hellos"] > hellos
        )
    assert counters.snapshot()["dropped"] == {"lost on the way": 4}
    assert (counters.sent, counters.delivered) == (5, 1)


def test_sensory_frames_that_never_came_are_counted(start: Start) -> None:
    running = start()
    invitation = running.admit(SENSE)
    sensor = running.sensor(invitation)
    (session,) = running.host.sessions
    counters = session.counters[StreamType.SENSORY]
    sensor.end._sent += 3  # it sends them, and they arrive nowhere
    for _ in range(2):
        sensor.end._greeter.due_s = 0.0  # type: ignore[union-attr]
        hellos = running.row("sensory")["greetings"]["hellos"]
        sensor.until(lambda hellos=hellos: running.row("sensory")["greetings"]["hellos"] > hellos)
    sensor.until(lambda: sensor.end.counters()["lost"] == 3)
    snapshot = counters.snapshot()
    assert (snapshot["sent"], snapshot["dropped"]) == (3, {"lost on the way": 3})


def test_frames_that_do_not_fit_are_dropped_where_that_is_the_policy(start: Start) -> None:
    running = start(oversize="drop")
    invitation = running.admit()
    viewer, sensor = running.viewer(invitation), running.sensor(invitation)
    (session,) = running.host.sessions
    running.show(1, 5000)
    counters = session.counters[StreamType.VISUALIZATION]
    eventually(lambda: counters.snapshot()["dropped"] == {"oversize": 1})
    running.show(2)
    assert counter_of(viewer.take()) == 2
    sensor.send(frame(1, 5000))
    assert sensor.end.counters()["oversize"] == 1


def test_nobody_takes_more_than_the_newest_few(start: Start) -> None:
    running = start()
    viewer = running.viewer()
    for counter in range(10):
        running.show(counter)
        eventually(lambda counter=counter: running.row("visualization")["bursts"] == counter + 1)
    viewer.end._greeter.due_s = 0.0  # type: ignore[union-attr]
    viewer.end.tend(time.monotonic())  # takes in what has come before it speaks
    seen = [counter_of(viewer.end.take()) for _ in range(4)]
    assert seen == [6, 7, 8, 9]
    assert viewer.end.counters()["overtaken"] == 6


# -- how they part ------------------------------------------------------------------------------


def test_stop_tells_the_agents(start: Start) -> None:
    running = start()
    invitation = running.admit()
    ends = [running.viewer(invitation), running.sensor(invitation)]
    running.handle.stop()
    for far in ends:
        with pytest.raises(ClosedError, match="register again"):
            far.take()
    assert running.host.left == [(invitation.agent_id, "udp transport stopped")]


def test_an_agent_that_was_dismissed_is_told(start: Start) -> None:
    running = start()
    invitation = running.admit()
    viewer, sensor = running.viewer(invitation), running.sensor(invitation)

    async def dismiss() -> None:
        running.transport.dismiss(invitation.agent_id)

    running.call(dismiss())
    for far in (viewer, sensor):
        with pytest.raises(ClosedError):
            far.take()
    eventually(lambda: running.transport.counters()["sessions"] == [])


def test_an_agent_that_leaves_is_sent_nothing_more(start: Start) -> None:
    running = start()
    viewer = running.viewer()
    viewer.close()
    viewer.close()
    eventually(lambda: running.row("visualization")["peer"] is None)
    with pytest.raises(ClosedError):
        viewer.end.take()
    assert viewer.end.tend(0.0) is None


def test_who_takes_over_gets_the_frames(start: Start) -> None:
    running = start()
    invitation = running.admit()
    old = running.viewer(invitation)
    new = running.viewer(running.admit(agent_id=invitation.agent_id))
    running.show(6)
    assert counter_of(new.take()) == 6
    with pytest.raises(ClosedError):
        old.take()


# -- refused ------------------------------------------------------------------------------------


def test_motor_is_never_carried(start: Start) -> None:
    running = start()
    with pytest.raises(ConfigError, match="a robot would not get a command"):
        running.admit(AgentCapabilities.RECEIVE_MOTOR_DATA)
    with pytest.raises(ConfigError, match="another transport for the motor stream"):
        running.transport.offer(bytes([1]) * 48, AgentCapabilities.RECEIVE_MOTOR_DATA)
    assert running.transport.protocol is ConnectionProtocol.UDP


def test_what_was_not_offered_is_not_served(start: Start) -> None:
    running = start()
    transport = running.transport
    session = running.host.attach_agent(
        ROVER, SENSE | VIEW, bytes([1]) * 48, channel=transport.channel
    )
    with pytest.raises(LocalError, match="call offer first"):
        transport.serve(session, StreamType.SENSORY)
    assert transport.offer(session.agent_id, SENSE) != transport.offer(session.agent_id, SENSE)
    transport.withdraw(session.agent_id, SENSE)
    transport.withdraw(session.agent_id, SENSE)
    with pytest.raises(LocalError, match="call offer first"):
        transport.serve(session, StreamType.SENSORY)
    foreign = running.host.attach_agent(ROVER, VIEW, bytes([2]) * 48)
    assert transport.offer(foreign.agent_id, VIEW) is not None
    with pytest.raises(LocalError, match="own `channel`"):
        transport.serve(foreign, StreamType.VISUALIZATION)
    running.handle.stop()
    assert transport.offer(session.agent_id, VIEW) is None
    with pytest.raises(ClosedError):
        transport.serve(session, StreamType.SENSORY)


def test_a_port_in_use_is_one_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(PortBusyError, match="udp://127"):
            Running(port=held.getsockname()[1])


def test_the_far_end_refuses_what_cannot_be(start: Start) -> None:
    running = start()
    invitation = running.admit()
    viewer, sensor = running.viewer(invitation), running.sensor(invitation)
    with frame(1) as fbc, pytest.raises(LocalError, match="only sensory"):
        viewer.end.send(fbc)
    with frame(1, 1 << 20) as fbc, pytest.raises(LocalError, match=str(1 << 20)):
        sensor.end.send(fbc)
    unheard = Far(invitation.endpoints[SENSE].replace("127.0.0.1", "127.0.0.9"), StreamType.SENSORY)
    with frame(1) as fbc:
        assert not unheard.end.send(fbc)  # nobody knows it yet
    unheard.close()


def test_no_answer_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        secret = "0000000000000001-" + "00" * 32
        url = f"udp://127.0.0.1:{deaf.getsockname()[1]}/?check=none&datagram=1400#{secret}"
        now_s = [0.0]
        far = Far(url, StreamType.VISUALIZATION, clock=lambda: now_s[0])
        for _ in range(8):
            now_s[0] += 1.0
            far.end.tend(now_s[0])
        far.close()
    (record,) = [r for r in caplog.records if "no answer over UDP" in r.getMessage()]
    assert "firewall" in record.getMessage()
    assert "0000" not in record.getMessage()


# -- a group ------------------------------------------------------------------------------------


def test_a_group_is_sent_to_once(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    running = start(
        multicast_group="239.77.1.2", multicast_port=port, multicast_interface="127.0.0.1"
    )
    viewers = [running.viewer() for _ in range(3)]
    assert len({viewer.end._place for viewer in viewers}) == 1
    for counter in range(5):
        running.show(counter, 5000)
        assert [counter_of(viewer.take()) for viewer in viewers] == [counter] * 3
    assert [viewer.end.counters()["delivered"] for viewer in viewers] == [5, 5, 5]
    for session in running.host.sessions:
        counters = session.counters[StreamType.VISUALIZATION]
        eventually(lambda counters=counters: counters.delivered == 5)
    assert parse_stream_address(running.admit(VIEW).endpoints[VIEW]).check is Check.TAG
