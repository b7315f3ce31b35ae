# SPDX-License-Identifier: Apache-2.0
"""Impairments: what is lost, doubled and late is decided by the pattern alone."""

from __future__ import annotations

import asyncio

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.pns import PNS
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.virtual import AsyncVirtualTransport, Impairment, VirtualTransport
from feagi_io_host.transports.virtual.patterns import ImpairedLine

ROVER = AgentDescriptor("feagi-io tests", "rover", 1)
EVERYTHING = ~AgentCapabilities(0)


def frame(counter: int) -> SharedFBC:
    container = FeagiByteContainer.new_empty()
    container.set_increment_counter_state(counter)
    return SharedFBC.adopt(container)


def through(impairment: Impairment, count: int) -> list[list[int]]:
    """What comes out after each of `count` frames; whatever is inside at the end is given up."""
    line = ImpairedLine(impairment)
    frames = [frame(counter) for counter in range(count)]
    out: list[list[int]] = []
    for fbc in frames:
        line.feed(fbc.retain())
        out.append([])
        while (taken := line.take()) is not None:
            with taken:
                out[-1].append(taken.container.get_increment_counter())
    line.close()
    assert [fbc.lease_count for fbc in frames] == [1] * count
    return out


@pytest.mark.parametrize(
    ("impairment", "expected"),
    [
        (Impairment(), [[0], [1], [2], [3]]),
        (Impairment(loss=(False, True)), [[0], [], [2], []]),
        (Impairment(duplicate=(False, True)), [[0], [1, 1], [2], [3, 3]]),
        (Impairment(reorder=(True, False)), [[], [1, 0], [], [3, 2]]),
        (Impairment(delay=(2, 0, 0)), [[], [1], [2, 0], [], [4], [5, 3]]),
        (Impairment(delay=(2,)), [[], [], [0], [1]]),
        (Impairment(loss=(True, False), delay=(1, 1)), [[], [], [1], []]),
    ],
)
def test_patterns(impairment: Impairment, expected: list[list[int]]) -> None:
    assert through(impairment, len(expected)) == expected
    assert through(impairment, len(expected)) == expected


@pytest.mark.parametrize("frames", [-1, 513])
def test_delays_are_bounded(frames: int) -> None:
    with pytest.raises(ConfigError, match=f"delay of {frames} frames"):
        Impairment(delay=(frames,))


LOSSY = {
    StreamType.MOTOR: Impairment(loss=(False, False, True)),
    StreamType.SENSORY: Impairment(duplicate=(True,)),
}


def test_impairments_apply_to_the_streams_they_name() -> None:
    host = StandInHost()
    with VirtualTransport(host, impairments=LOSSY) as transport:
        agent = transport.connect(ROVER, EVERYTHING)
        seen = []
        for counter in range(6):
            with frame(counter) as fbc:
                transport.publish_motor(agent.agent_id, fbc)
            received = agent.receive_motor(0.0)
            if received is not None:
                with received:
                    seen.append(received.container.get_increment_counter())
        assert seen == [0, 1, 3, 4]
        with frame(9) as fbc:
            agent.send_sensory(fbc)
        sensed = [host.take_sensory(agent.agent_id, 0.0) for _ in range(3)]
        assert [data and data[1] for data in sensed] == [9, 9, None]
        assert agent.line_counters()["motor"] == {"fed": 6, "lost": 2, "duplicated": 0}


def test_impairments_are_the_same_in_a_loop() -> None:
    async def main() -> None:
        async with AsyncVirtualTransport(StandInHost(), impairments=LOSSY) as transport:
            agent = await transport.connect(ROVER, EVERYTHING)
            seen = []
            for counter in range(6):
                with frame(counter) as fbc:
                    await transport.publish_motor(None, fbc)
                received = await agent.receive_motor(0.0)
                if received is not None:
                    with received:
                        seen.append(received.container.get_increment_counter())
            assert seen == [0, 1, 3, 4]

    asyncio.run(main())


def test_a_pns_is_a_host() -> None:
    with PNS() as pns, VirtualTransport(pns) as transport:
        with transport.connect(ROVER, EVERYTHING) as agent:
            with frame(3) as fbc:
                pns.publish_motor(agent.agent_id, fbc)
            received = agent.receive_motor(5.0)
            assert received is not None
            with received:
                assert received.container.get_increment_counter() == 3
            assert len(pns.sessions) == 1
        assert pns.sessions == ()
