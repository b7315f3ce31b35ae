# SPDX-License-Identifier: Apache-2.0
"""Killed, stopped and slow ends, and a bad network: the brain never waits for one."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.errors import DeliveryTimeoutError
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.testing.proxy import Faults, UdpImpairmentProxy
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW
from tests.feagi_io_host.transports.webrtc.peer import (
    DEADLINE_S,
    VIZ,
    ServedInThreads,
    WebRtcPeer,
)
from tests.feagi_io_host.transports.websocket.test_faults import (
    BURST,
    HERE,
    Start,
    line,
    numbered,
    start,
    until,
)

__all__ = ["start"]  # a fixture

EVERYTHING = SENSE | MOVE | VIEW
LIMITS = ServerLimits(takeover_s=0.0)
WEBRTC = ConnectionProtocol.WEBRTC
ROVER = AgentDescriptor("feagi-io test", "rover", 1)
AGENT = HERE / "agent_process.py"


def agent_process(start: Start, served: ServedInThreads) -> subprocess.Popen[str]:
    other = start(AGENT, served.url, WEBRTC.value)
    assert line(other) == "in"
    until(lambda: served.counted()["connections"] == 1, "not connected")
    return other


def test_a_killed_agent_is_gone_at_once(start: Start) -> None:
    with ServedInThreads(limits=LIMITS) as served:
        other = agent_process(start, served)
        (session,) = served.host.sessions
        other.kill()
        until(lambda: session.closed, "still there")
        until(lambda: not served.counted()["connections"], "its connection is left")


@pytest.mark.slow
def test_a_stopped_agent_is_let_go_within_the_deadline_and_comes_back(start: Start) -> None:
    with ServedInThreads(limits=LIMITS, webrtc={"silence_timeout_s": 3.0}) as served:
        other = agent_process(start, served)
        (session,) = served.host.sessions
        other.send_signal(signal.SIGSTOP)
        stopped_s = time.monotonic()
        _, status = os.waitpid(other.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        waited_s = []
        with numbered(1, BURST) as burst, numbered(2, 2000) as command:
            count = 0
            while count < 2000:
                began_s = time.perf_counter()
                served.handle.publish_visualization(burst)
                waited_s.append(time.perf_counter() - began_s)
                if not taken(served, command):
                    break
                count += 1
        # What was taken lies in the channel of 512 and in buffers that have a bound.
        assert 512 <= count < 530
        assert statistics.median(waited_s) < 0.05
        until(lambda: session.closed, "still there")
        assert time.monotonic() - stopped_s < 3.0 + 1.0 + 1.5 + 3.0  # a check, its answer, slack
        ((_, reason),) = served.host.left
        assert "no sign of life" in reason
        motor = session.snapshot()["motor"]
        # None is lost without a word: those in the channel, and those on their way.
        assert motor["delivered"] == 0
        assert motor["dropped"]["lost with its connection"] == count - motor["dropped"]["closed"]
        other.send_signal(signal.SIGCONT)
        until(lambda: served.counted()["connections"] == 1, "did not come back")


@pytest.mark.slow
def test_bursts_of_200_000_neurons_are_conflated_and_brain_and_motors_go_on() -> None:
    with ServedInThreads(limits=LIMITS) as served:
        timing = ClientTiming(backoff_first_s=0.02)
        rover = FeagiAgent(ROVER, MOVE, served.url, timing=timing, streams_over=WEBRTC)
        viewer = FeagiAgent(
            AgentDescriptor("feagi-io test", "viewer", 1),
            VIEW,
            served.url,
            timing=timing,
            streams_over=WEBRTC,
        )
        with rover, viewer, numbered(0, BURST) as burst:
            until(lambda: served.counted()["connections"] == 2, "not connected")
            shown_s, ways_s = [], []
            began_s = time.monotonic()
            for counter in range(100):
                emitted_s = time.perf_counter()
                served.handle.publish_visualization(burst)
                shown_s.append(time.perf_counter() - emitted_s)
                with numbered(counter) as command:
                    emitted_s = time.perf_counter()
                    served.handle.publish_motor(rover.agent_id, command)
                    received = rover.receive_motor(DEADLINE_S)
                    ways_s.append(time.perf_counter() - emitted_s)
                assert received is not None
                assert received.get_increment_counter() == counter
                time.sleep(max(began_s + 0.02 * (counter + 1) - time.monotonic(), 0.0))
            assert viewer.receive_visualization(DEADLINE_S) is not None
            (session,) = (s for s in served.host.sessions if VIEW in s.capabilities)
            row = session.snapshot()["visualization"]
            assert row["sent"] == 100
            assert row["dropped"]["conflated"] > 50  # a whole burst takes some tenths of a second
            assert row["queued"] <= 1
        assert statistics.median(shown_s) < 0.05
        assert statistics.median(ways_s) < 0.2


@pytest.mark.slow
def test_stopping_waits_for_nobody_who_does_not_listen() -> None:
    with ServedInThreads(limits=LIMITS) as served:
        peer = served.call(WebRtcPeer.connect(served.url, ROVER, EVERYTHING))
        served.call(peer.stop_reading())
        with numbered(1, 2000) as command:
            until(lambda: not taken(served, command), "motor takes everything")
        began_s = time.monotonic()
        served.call(served.transport.stop(2.0))
        assert time.monotonic() - began_s < 2.0
        assert served.counted()["connections"] == 0
        served.call(peer.close())


class BadNetwork:
    """Offers without an address, and answers whose address is that of a proxy: what is sent either
    way goes through it."""

    def __init__(self) -> None:
        self.proxy: UdpImpairmentProxy | None = None

    @staticmethod
    def offer_as(sdp: str) -> str:
        return re.sub(r"a=candidate:[^\r]*\r\n", "", sdp)

    def answer_as(self, sdp: str) -> str:
        found = re.search(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) ", sdp)
        assert found is not None
        self.proxy = UdpImpairmentProxy("127.0.0.1", int(found[1]), seed=7)
        self.proxy.start()
        port = self.proxy.address[1]
        return sdp.replace(f"127.0.0.1 {found[1]} ", f"127.0.0.1 {port} ")


@pytest.fixture
def network() -> Iterator[BadNetwork]:
    bad = BadNetwork()
    yield bad
    if bad.proxy is not None:
        bad.proxy.stop()


@pytest.mark.slow
def test_on_a_bad_network_motor_frames_all_come_in_order_and_losses_are_counted(
    network: BadNetwork,
) -> None:
    frames = 150
    with ServedInThreads(limits=LIMITS) as served:
        peer = served.call(
            WebRtcPeer.connect(
                served.url, ROVER, EVERYTHING,
                offer_as=network.offer_as, answer_as=network.answer_as,
            )
        )  # fmt: skip
        assert network.proxy is not None
        bad = Faults(loss=0.03, duplicate=0.03, reorder=0.05, corrupt=0.02)
        network.proxy.towards = network.proxy.back = bad
        (session,) = served.host.sessions
        came: list[int] = []

        def read() -> None:
            while len(came) < frames:
                fbc = served.call(peer.receive_motor(DEADLINE_S))
                assert fbc is not None
                with fbc:
                    came.append(fbc.container.get_increment_counter())

        reader = threading.Thread(target=read)
        reader.start()
        for counter in range(frames):
            with numbered(counter, 200) as frame:
                served.handle.publish_visualization(frame)
                served.call(peer.send_sensory(frame))
            with numbered(counter) as command:
                until(partial(taken, served, command), "motor is stuck")
        reader.join(3 * DEADLINE_S)
        assert came == list(range(frames))
        counted = peer.line.counters(VIZ)
        told = session.snapshot()
        sent = told["visualization"]["delivered"]
        lost = sum(counted[name] for name in ("lost", "incomplete", "superseded"))
        assert 0 < lost < sent / 2
        assert sent - 5 <= counted["delivered"] + lost <= sent
        # The other way: the server has counted what did not come.
        until(lambda: session.snapshot()["sensory"]["dropped"] != {}, "nothing was lost")
        assert told["motor"]["dropped"] == {}
        network.proxy.towards = network.proxy.back = Faults()
        served.call(peer.close())


def taken(served: ServedInThreads, command: SharedFBC) -> bool:
    """Whether a motor frame was taken: by a full channel it is not, and the brain is told."""
    try:
        served.handle.publish_motor(None, command)
    except DeliveryTimeoutError:
        return False
    return True
