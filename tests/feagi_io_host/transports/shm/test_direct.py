# SPDX-License-Identifier: Apache-2.0
"""Direct mode: two arrays in, views of the same memory out."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    LocalError,
    RemoteError,
    VoxelArrayError,
)
from feagi_io_host.create import create_pns_with_config
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.shm import AsyncShmTransport, ShmTransport
from feagi_io_host.transports.shm.direct import ShmDirectReader, ShmDirectTransport
from feagi_io_host.transports.shm.header import ShmMode
from feagi_io_host.transports.shm.reader import RingReader
from feagi_io_host.transports.shm.ring import RingWriter, newest_wins

PATIENCE_S = 10.0


def neurons(count: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    return np.arange(count, dtype=np.uint32), np.linspace(-1, 1, count, dtype=np.float32)


@pytest.mark.parametrize("count", [0, 1, 999, 1000])
def test_views_of_what_was_published_arrive(count: int) -> None:
    ids, potentials = neurons(count)
    with ShmDirectTransport(max_neurons=1000) as transport, ShmDirectReader(transport.url) as end:
        assert transport.publish_neural_activity_direct(ids, potentials) == 1
        got = end.receive(PATIENCE_S)
        assert got is not None
        assert (len(got), got.sequence) == (count, 1)
        assert (got.neuron_ids.dtype, got.potentials.dtype) == (np.uint32, np.float32)
        assert got.neuron_ids.tolist() == ids.tolist()
        assert got.potentials.tobytes() == potentials.tobytes()
        assert not got.neuron_ids.flags.writeable
        assert not got.neuron_ids.flags.owndata
        assert end.ring.kept == 1
        del got
        assert end.ring.kept == 0
        assert end.receive(0.0) is None


def test_strided_arrays_and_a_task_that_receives() -> None:
    ids, potentials = neurons(100)

    async def main() -> None:
        with ShmDirectTransport() as transport, ShmDirectReader(transport.url) as end:
            waiting = asyncio.ensure_future(end.receive_async(PATIENCE_S))
            await asyncio.sleep(0)
            transport.publish_neural_activity_direct(ids[::2], potentials[::-2])
            got = await waiting
            assert got is not None
            assert got.neuron_ids.tolist() == ids[::2].tolist()
            assert got.potentials.tolist() == potentials[::-2].tolist()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("ids", "potentials", "text"),
    [
        (np.zeros(3, np.int64), np.zeros(3, np.float32), "neuron_ids is int64"),
        (np.zeros(3, np.uint32), np.zeros(3, np.float64), "potentials is float64"),
        (np.zeros((3, 1), np.uint32), np.zeros(3, np.float32), r"shape \(3, 1\)"),
        ([1, 2], np.zeros(2, np.float32), "neuron_ids is list"),
        (np.zeros(3, np.uint32), np.zeros(2, np.float32), "3 neuron ids and 2 potentials"),
    ],
)
def test_other_arrays_are_refused(ids: object, potentials: object, text: str) -> None:
    with ShmDirectTransport() as transport, pytest.raises(VoxelArrayError, match=text):
        transport.publish_neural_activity_direct(ids, potentials)  # type: ignore[arg-type]


def test_limits_and_life() -> None:
    transport = ShmDirectTransport(max_neurons=10)
    with pytest.raises(ClosedError, match="not started"):
        transport.publish_neural_activity_direct(*neurons(1))
    transport.start()
    transport.start()
    with pytest.raises(LocalError, match="11 neurons; max_neurons is 10"):
        transport.publish_neural_activity_direct(*neurons(11))
    with ShmDirectReader(transport.url) as end:
        transport.stop()
        transport.stop()
        with pytest.raises(ClosedError, match="closed by its writer"):
            end.receive(PATIENCE_S)
    with pytest.raises(ClosedError):
        transport.start()
    with pytest.raises(ClosedError):
        transport.publish_neural_activity_direct(*neurons(1))
    with pytest.raises(ConfigError):
        ShmDirectTransport(max_neurons=1 << 30)


def test_modes_are_not_mixed_up_and_counts_are_checked() -> None:
    with ShmDirectTransport() as transport, pytest.raises(RemoteError, match="holds DIRECT"):
        RingReader(transport.url)
    with (
        RingWriter(newest_wins(1000, mode=ShmMode.DIRECT)) as writer,
        ShmDirectReader(writer.url) as end,
    ):
        for data in (b"", bytes(63), struct.pack("=I", 9) + bytes(60), b"\xff" * 200):
            writer.write(data)
            with pytest.raises(RemoteError, match="says it holds"):
                end.receive(PATIENCE_S)


@pytest.mark.parametrize("paradigm", ["blocking", "nonblocking"])
def test_a_configuration_may_ask_for_it_beside_the_streams(
    require: Callable[[str], ModuleType | str], paradigm: str
) -> None:
    require("zmq")
    arguments: dict[str, object] = dict.fromkeys(
        ("zmq.rest", "zmq.motor", "zmq.viz", "zmq.sensory"), "tcp://127.0.0.1:0"
    )
    arguments["transport.visualization"] = f"shm.{paradigm}"
    plain = create_pns_with_config(PNSConfig.from_sources(arguments=arguments))
    (without,) = [h.transport for h in plain.transports if h.backend_name == "shm"]
    assert isinstance(without, ShmTransport | AsyncShmTransport)
    with pytest.raises(ConfigError, match="has no direct ring; set its mode"):
        _ = without.direct
    arguments.update({"shm.mode": "direct", "shm.direct_neurons": 10})
    pns = create_pns_with_config(PNSConfig.from_sources(arguments=arguments))
    (transport,) = [h.transport for h in pns.transports if h.backend_name == "shm"]
    assert isinstance(transport, ShmTransport | AsyncShmTransport)
    ids, potentials = np.arange(10, dtype=np.uint32), np.ones(10, np.float32)
    with pytest.raises(ClosedError):
        transport.direct.publish_neural_activity_direct(ids, potentials)
    with pns, ShmDirectReader(transport.direct.url) as reader:
        transport.direct.publish_neural_activity_direct(ids, potentials)
        activity = reader.receive(10.0)
        assert activity is not None
        assert activity.neuron_ids.tolist() == list(range(10))
        del activity
        with pytest.raises(LocalError, match="max_neurons is 10"):
            transport.direct.publish_neural_activity_direct(
                np.arange(11, dtype=np.uint32), np.ones(11, np.float32)
            )
        pns.stop()
        with pytest.raises(ClosedError):
            reader.receive(10.0)


def test_a_mode_that_there_is_not_is_refused() -> None:
    for made in (ShmTransport, AsyncShmTransport):
        with pytest.raises(ConfigError, match="one of fbc, direct"):
            made(StandInHost(), mode="array")
