# SPDX-License-Identifier: Apache-2.0
"""Connections that do not do what is expected: they do not read, do not speak, or are just gone."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import ConfigError, DeliveryTimeoutError, PortBusyError
from feagi_io_host.core.messages import HeartBeat
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.types import StreamType
from feagi_io_host.pns import PNS
from feagi_io_host.testing import FakeClock
from feagi_io_host.transports.zmq import SocketOptions
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.siege import (
    Paradigm,
    Siege,
    flat_memory,
    frame,
    hostile,
    open_fds,
    transport_of,
    until,
)

ROOT = Path(__file__).resolve().parents[4]
MB = 1 << 20
SMALL_BUFFERS = SocketOptions(kernel_buffer_bytes=4096, motor_frames=2)
MOTOR_DEADLINE_S = 0.1
HURRIED = delivery_table(
    capacity={StreamType.MOTOR: 4}, deadline_s={StreamType.MOTOR: MOTOR_DEADLINE_S}
)


@pytest.fixture(params=["blocking", "nonblocking"])
def paradigm(request: pytest.FixtureRequest) -> Paradigm:
    chosen: Paradigm = request.param
    return chosen


@pytest.fixture(autouse=True)
def _collector_ends() -> Iterator[None]:
    yield
    collector.stop()  # the thread by which pyzmq gives large messages back; one per process


# -- who does not read ------------------------------------------------------------------------


def fill(siege: Siege, agent_id: bytes) -> tuple[float, int]:
    """Publish motor frames until nothing on the way takes any more.

    Returns how long the first refused frame was waited with, and how many were refused.
    """
    waited_s: list[float] = []
    in_a_row = 0
    with frame(1, 20_000) as fbc:
        for _ in range(1000):
            start_s = time.monotonic()
            try:
                siege.pns.publish_motor(agent_id, fbc)
            except DeliveryTimeoutError:
                waited_s.append(time.monotonic() - start_s)
                in_a_row += 1
            else:
                in_a_row = 0
            if in_a_row == 3:  # more than one: buffers below may still make room for a moment
                return waited_s[0], len(waited_s)
    pytest.fail("1000 frames of 20 KB were taken by nobody")


def test_a_subscriber_that_never_reads_motor_data(paradigm: Paradigm) -> None:
    with Siege(paradigm, delivery=HURRIED, options=SMALL_BUFFERS) as siege:
        deaf = siege.agent(hostile(), kernel_buffer_bytes=4096)
        with flat_memory(16 * MB):
            waited_s, refused = fill(siege, deaf.agent_id)
            assert MOTOR_DEADLINE_S * 0.99 <= waited_s < DEADLINE_S
            with frame(2, 20_000) as fbc:
                for _ in range(20):
                    with pytest.raises(DeliveryTimeoutError, match="1 of 2 agents: hostile 0"):
                        siege.pns.publish_motor(None, fbc)
                    received = siege.good.receive_motor(DEADLINE_S)
                    assert received is not None
                    received.release()
            siege.check_good_is_served()
        dropped = siege.dropped_of(deaf.agent_id, StreamType.MOTOR)
        assert dropped == {"timeout": refused + 20}
        assert siege.dropped_of(siege.good.agent_id, StreamType.MOTOR) == {}


def test_a_subscriber_that_never_reads_visualization(paradigm: Paradigm) -> None:
    pool = BufferPool()
    bursts = 100
    with Siege(paradigm) as siege, frame(0, MB) as source:
        deaf = siege.agent(hostile())

        def burst(counter: int) -> None:
            container = pool.acquire()
            container.try_write_data_by_copy_and_verify(source.view)
            container.set_increment_counter_state(counter)
            with pool.share(container) as fbc:
                siege.pns.publish_visualization(fbc)
            seen = siege.good.receive_visualization(DEADLINE_S)
            assert seen is not None
            with seen:
                assert seen.container.get_increment_counter() == counter

        for counter in range(20):  # until all buffers on the way to the deaf one are full
            burst(counter)
        made = pool.counters()["created"]
        with flat_memory(24 * MB):
            for counter in range(bursts):
                burst(counter)
        dropped = siege.dropped_of(deaf.agent_id, StreamType.VISUALIZATION)
        assert set(dropped) <= {"conflated", "replaced"}
        assert sum(dropped.values()) >= bursts
        assert siege.dropped_of(siege.good.agent_id, StreamType.VISUALIZATION) == {}
        assert pool.counters()["created"] <= made + 4
        siege.check_good_is_served()


# -- who is gone ------------------------------------------------------------------------------

_DOOMED = """
import sys
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.types import AgentDescriptor
from tests.feagi_io_host.transports.zmq.peer import ZmqPeer
from tests.feagi_io_host.transports.zmq.siege import EVERYTHING, hostile
peer = ZmqPeer(sys.argv[1], hostile(), EVERYTHING, 1 << 20)
print(peer.agent_id.hex(), flush=True)
sys.stdin.read()
"""


def test_a_client_that_is_killed_is_swept_when_it_has_been_silent(paradigm: Paradigm) -> None:
    clock = FakeClock()
    with Siege(paradigm, clock=clock, silence_timeout_s=30.0) as siege:
        before = open_fds()
        client = subprocess.Popen(
            [sys.executable, "-c", _DOOMED, siege.transport.control_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])},
        )
        with client:
            assert client.stdout is not None
            agent_id = bytes.fromhex(client.stdout.readline().decode())
            assert siege.transport.wait_until_subscribed(agent_id, DEADLINE_S)
            client.send_signal(signal.SIGKILL)
            client.wait(DEADLINE_S)
        siege.check_good_is_served()
        with frame(1) as fbc:
            siege.pns.publish_motor(agent_id, fbc)  # it may come back: the frame waits for it
        clock.advance(29.0)
        siege.good.ask(HeartBeat())
        assert len(siege.pns.sessions) == 2
        clock.advance(2.0)
        until(lambda: len(siege.gone) == 1, "the sweep")
        assert siege.gone[0].agent_id == agent_id
        assert siege.gone[0].reason == "silent for 30.0 s"
        assert len(siege.pns.sessions) == len(siege.transport.registry) == 1
        siege.check_good_is_served()
        until(lambda: open_fds() <= before, "its sockets are closed")


# -- who does not speak -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\0\0\0\0\0\0\0\x01\x7f", id="half a signature"),
        pytest.param(b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL" + bytes(48), id="no READY"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="HTTP"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", id="a length without end"),
        pytest.param(bytes(1000), id="zeros"),
    ],
)
def test_peers_that_never_finish_their_greeting(paradigm: Paradigm, greeting: bytes) -> None:
    with Siege(paradigm) as siege:
        urls = [siege.transport.control_url, *_data_urls(siege)]
        before = open_fds()
        lines: list[sockets.socket] = []
        try:
            with flat_memory(16 * MB):
                for number in range(80):
                    _, _, address = urls[number % len(urls)].partition("//")
                    host, _, port = address.rpartition(":")
                    lines.append(sockets.create_connection((host, int(port)), DEADLINE_S))
                    lines[-1].sendall(greeting)
                    if number % 20 == 0:
                        siege.check_good_is_served()
                newcomer = siege.agent(hostile())
                assert newcomer.ask(HeartBeat()) == HeartBeat()
                newcomer.close()
        finally:
            for line in lines:
                line.close()
        siege.check_good_is_served()
        assert siege.ignored() == {}
        until(lambda: open_fds() <= before, "the connections are closed at our end too")


def _data_urls(siege: Siege) -> list[str]:
    record = siege.transport.registry.get(siege.good.agent_id)
    return [endpoint.url for endpoint in record.endpoints.values()]


# -- where it cannot be ------------------------------------------------------------------------


def test_a_port_in_use_is_one_error_and_is_had_when_it_is_free(paradigm: Paradigm) -> None:
    with sockets.socket() as holder, PNS() as pns:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        transport = transport_of(paradigm, pns, control_port=port)
        try:
            for _ in range(2):
                with pytest.raises(PortBusyError, match=rf"127\.0\.0\.1:{port} is in use"):
                    transport.start()
            holder.close()
            transport.start()
            assert transport.control_url == f"tcp://127.0.0.1:{port}"
        finally:
            transport.stop()


@pytest.mark.parametrize("address", ["192.0.2.1", "no.such.host.invalid", "2001:db8::1"])
def test_an_address_of_no_interface_here_is_one_error(paradigm: Paradigm, address: str) -> None:
    with PNS() as pns:
        transport = transport_of(
            paradigm, pns, address=address, control_port=0, token=bytes(range(32))
        )
        before = open_fds()
        try:
            with pytest.raises(ConfigError, match="one of this machine's"):
                transport.start()
            assert open_fds() == before
        finally:
            transport.stop()
