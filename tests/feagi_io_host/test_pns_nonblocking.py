# SPDX-License-Identifier: Apache-2.0
"""PNS with agents of both paradigms at once: each gets its frames in its own way."""

from __future__ import annotations

import asyncio
import threading

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.pns import PNS
from feagi_io_host.transports.virtual import AsyncVirtualTransport, VirtualTransport

PATIENCE_S = 10.0
ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
EVERYTHING = ~AgentCapabilities(0)


def frame(counter: int) -> SharedFBC:
    container = FeagiByteContainer.new_empty()
    container.set_increment_counter_state(counter)
    return SharedFBC.adopt(container)


def counter_of(fbc: SharedFBC | None) -> int:
    assert fbc is not None
    with fbc:
        return fbc.container.get_increment_counter()


def test_one_pns_serves_threads_and_a_loop() -> None:
    runtime = Runtime()
    with PNS() as pns, VirtualTransport(pns) as threads:
        loop_transport = AsyncVirtualTransport(pns)
        runtime.call(loop_transport.start(), PATIENCE_S)
        here = threads.connect(ROVER, EVERYTHING)
        there = runtime.call(loop_transport.connect(ROVER, EVERYTHING), PATIENCE_S)
        waiting = asyncio.run_coroutine_threadsafe(there.receive_motor(PATIENCE_S), runtime.loop)
        with frame(7) as fbc:
            pns.publish_motor(None, fbc)
            pns.publish_visualization(fbc)
        assert counter_of(waiting.result(PATIENCE_S)) == 7
        assert counter_of(here.receive_motor(PATIENCE_S)) == 7
        shown = runtime.call(there.receive_visualization(PATIENCE_S), PATIENCE_S)
        assert counter_of(shown) == 7
        arrived = threading.Event()
        came: list[bytes] = []

        def listen(data: SensoryData) -> None:
            came.append(data.agent_id)
            arrived.set()

        pns.sensory_data_received.connect(listen)
        with frame(8) as fbc:
            runtime.call(there.send_sensory(fbc), PATIENCE_S)
        assert arrived.wait(PATIENCE_S)
        assert came == [there.agent_id]
        runtime.call(loop_transport.stop(), PATIENCE_S)
        assert [session.agent_id for session in pns.sessions] == [here.agent_id]
    runtime.close()
