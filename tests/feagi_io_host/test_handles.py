# SPDX-License-Identifier: Apache-2.0
"""TransportHandle: both paradigms behind one face, from threads, with a bounded end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError, ConfigError, LocalError, StopTimeoutError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.handles import TransportHandle
from feagi_io_host.nonblocking.transport import NonBlockingTransport
from feagi_io_host.pns import PNS
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.virtual import AsyncVirtualTransport, VirtualTransport

PATIENCE_S = 10.0
ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
EVERYTHING = ~AgentCapabilities(0)


def frame(counter: int = 0) -> SharedFBC:
    container = FeagiByteContainer.new_empty()
    container.set_increment_counter_state(counter)
    return SharedFBC.adopt(container)


def counter_of(fbc: SharedFBC | None) -> int:
    assert fbc is not None
    with fbc:
        return fbc.container.get_increment_counter()


def threads_named_loop() -> int:
    return sum(thread.name == "feagi-io-loop" for thread in threading.enumerate())


class Unwilling(NonBlockingTransport):
    """Neither opens nor ends as it should."""

    backend_name = "unwilling"
    opening: Exception | None = None
    closing: Exception | None = None

    async def _open(self) -> None:
        if self.opening is not None:
            raise self.opening

    async def _close(self, timeout_s: float) -> None:
        if self.closing is not None:
            closing, self.closing = self.closing, None
            raise closing


def test_a_blocking_one_is_used_directly() -> None:
    transport = VirtualTransport(StandInHost())
    handle = TransportHandle(transport)
    assert (handle.backend_name, handle.paradigm) == ("virtual", "blocking")
    handle.start()
    agent = transport.connect(ROVER, EVERYTHING)
    with frame(3) as fbc:
        handle.publish_motor(agent.agent_id, fbc)
        handle.publish_visualization(fbc)
    assert counter_of(agent.receive_motor(PATIENCE_S)) == 3
    assert counter_of(agent.receive_visualization(PATIENCE_S)) == 3
    assert [a.agent_id for a in handle.agents] == [agent.agent_id]
    handle.stop()
    handle.stop()
    assert agent.closed
    with pytest.raises(ClosedError):
        handle.start()


def test_a_nonblocking_one_runs_in_the_loop_thread_until_it_is_stopped() -> None:
    transport = AsyncVirtualTransport(StandInHost())
    handle = TransportHandle(transport)
    assert handle.paradigm == "nonblocking"
    with frame() as fbc, pytest.raises(ClosedError, match="start it first"):
        handle.publish_motor(None, fbc)
    assert threads_named_loop() == 0
    handle.start()
    handle.start()
    assert threads_named_loop() == 1
    runtime = handle._running()
    agent = runtime.call(transport.connect(ROVER, EVERYTHING), PATIENCE_S)
    with frame(4) as fbc:
        handle.publish_motor(None, fbc)
        handle.publish_visualization(fbc)
    assert counter_of(runtime.call(agent.receive_motor(PATIENCE_S), PATIENCE_S)) == 4
    assert counter_of(runtime.call(agent.receive_visualization(PATIENCE_S), PATIENCE_S)) == 4
    handle.stop()
    handle.stop()
    assert agent.closed
    assert threads_named_loop() == 0
    with pytest.raises(ClosedError, match="was stopped"):
        handle.start()


def test_a_start_that_fails_keeps_no_loop_and_may_be_tried_again() -> None:
    transport = Unwilling(StandInHost())
    transport.opening = ConfigError("no such thing")
    handle = TransportHandle(transport)
    with pytest.raises(ConfigError, match="no such thing"):
        handle.start()
    assert threads_named_loop() == 0
    transport.opening = None
    handle.start()
    handle.stop()
    assert threads_named_loop() == 0


def test_a_stop_that_fails_may_be_tried_again() -> None:
    transport = Unwilling(StandInHost())
    handle = TransportHandle(transport)
    handle.start()
    transport.closing = StopTimeoutError("still busy")
    with pytest.raises(StopTimeoutError, match="still busy"):
        handle.stop(0.5)
    handle.stop()
    assert threads_named_loop() == 0


def test_a_loop_that_is_held_up_is_named_in_time_and_may_be_stopped_again() -> None:
    handle = TransportHandle(AsyncVirtualTransport(StandInHost()))
    handle.start()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait(PATIENCE_S)

    handle._running().loop.call_soon_threadsafe(hold)
    assert held.wait(PATIENCE_S)
    with pytest.raises(StopTimeoutError, match=r"virtual transport did not end within 0\.01 s"):
        handle.stop(0.01)
    release.set()
    handle.stop()
    assert threads_named_loop() == 0


def test_it_is_not_started_inside_an_event_loop() -> None:
    handle = TransportHandle(AsyncVirtualTransport(StandInHost()))

    async def in_a_loop(call: Callable[[], None]) -> None:
        call()

    with pytest.raises(LocalError, match=r"asyncio\.to_thread\(pns\.start\)"):
        asyncio.run(in_a_loop(handle.start))

    async def elsewhere() -> None:
        await asyncio.to_thread(handle.start)
        await asyncio.to_thread(handle.stop)

    asyncio.run(elsewhere())
    assert threads_named_loop() == 0


def test_stop_from_its_own_loop_asks_and_does_not_wait() -> None:
    transport = AsyncVirtualTransport(StandInHost())
    handle = TransportHandle(transport)
    handle.start()
    runtime = handle._running()
    agent = runtime.call(transport.connect(ROVER, EVERYTHING), PATIENCE_S)

    async def from_inside() -> None:
        handle.stop()

    runtime.call(from_inside(), PATIENCE_S)
    handle.stop()
    assert agent.closed
    assert threads_named_loop() == 0


def test_what_cannot_carry_single_streams_says_so() -> None:
    handle = TransportHandle(VirtualTransport(StandInHost()))
    with pytest.raises(ConfigError, match=r"blocking transport 'virtual' cannot carry .*offer"):
        _ = handle.carrier
    with pytest.raises(ConfigError, match="cannot carry"):
        PNS().add_transport("virtual", carriers={StreamType.VISUALIZATION: handle})


def test_its_endpoint_is_plain_data() -> None:
    other = TransportHandle(AsyncVirtualTransport(StandInHost()), streams=[StreamType.MOTOR])
    handle = TransportHandle(VirtualTransport(StandInHost()), carriers={StreamType.MOTOR: other})
    assert handle.endpoint() == {
        "transport": "virtual",
        "paradigm": "blocking",
        "streams": ["sensory", "visualization", "control"],
        "control_url": None,
        "carried_by": {"motor": "virtual.nonblocking"},
    }
    assert other.endpoint()["streams"] == ["motor"]
    assert handle.counters() == {}
