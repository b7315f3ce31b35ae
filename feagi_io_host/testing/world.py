# SPDX-License-Identifier: Apache-2.0
"""What the checks of the transport contract stand in: a running transport, its host, a pool."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.delivery import delivery_table
from feagi_io_host.core.errors import ClosedError, DeliveryTimeoutError
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.testing.host import StandInHost
from feagi_io_host.testing.rig import Peer, Rig, TransportFace

SENSORY_CAPACITY = 8
MOTOR_CAPACITY = 4
# A stream that took no frame for so long takes none any more. Buffers below the channel still make
# room for a while, on a busy machine in fits and starts.
_SETTLED_S = 0.5
PATIENCE_S = 10.0  # how long what must happen may take
SILENCE_S = 0.1  # how long nothing is waited for

ROVER = AgentDescriptor("feagi-io contract", "rover", 1)
EVERYTHING = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
JSON_OVERHEAD_BYTES = 52 + 4 + 2 + 2  # header, length table, struct header, quotes


@dataclass
class World:
    """One transport that runs, its host, and the pool whose leases must all come back."""

    rig: Rig
    transport: TransportFace
    host: StandInHost
    pool: BufferPool = field(default_factory=BufferPool)

    def connect(self, agent_id: bytes | None = None) -> Peer:
        """An agent that does everything."""
        return self.transport.connect(ROVER, EVERYTHING, agent_id)

    def frame(self, counter: int, text: str | None = None) -> SharedFBC:
        """A frame with this increment counter: empty, or holding a JSON text."""
        container = self.pool.acquire()
        if text is None:
            container.overwrite_byte_data_with_multiple_struct_data([], counter)
        else:
            container.overwrite_byte_data_with_single_struct_data(FeagiJSON(text), counter)
        return self.pool.share(container)

    def motor(self, agent_id: bytes | None, counter: int) -> None:
        """Publish an empty motor frame."""
        with self.frame(counter) as fbc:
            self.transport.publish_motor(agent_id, fbc)

    def fill_motor(self, agent_id: bytes, most: int) -> list[int]:
        """Publish numbered motor frames until the agent takes no more; those it took, in order.

        Fails when it takes more than `most`.
        """
        taken: list[int] = []
        progress_s = time.monotonic()
        while time.monotonic() - progress_s < _SETTLED_S:
            try:
                self.motor(agent_id, len(taken))
            except DeliveryTimeoutError:
                continue
            progress_s = time.monotonic()
            taken.append(len(taken))
            if len(taken) > most:
                pytest.fail(f"took {len(taken)} motor frames that nobody read; at most {most} fit")
        return taken

    def show(self, counter: int) -> None:
        """Publish an empty visualization frame."""
        with self.frame(counter) as fbc:
            self.transport.publish_visualization(fbc)

    def sense(self, peer: Peer, counter: int) -> None:
        """Send an empty sensory frame."""
        with self.frame(counter) as fbc:
            peer.send_sensory(fbc)

    def sensed(self, peer: Peer, timeout_s: float = PATIENCE_S) -> int | None:
        """The increment counter of the next sensory frame at the host."""
        data = self.host.take_sensory(peer.agent_id, timeout_s)
        return None if data is None else int.from_bytes(data[1:3], "little")


def counter_of(fbc: SharedFBC | None) -> int | None:
    """The increment counter of a received frame, which is given back."""
    if fbc is None:
        return None
    with fbc:
        return fbc.container.get_increment_counter()


class ContractWorld:
    """Gives the fixture `world`; a subclass gives the fixture `rig`.

    `BUFFERED_FRAMES` is how many frames of one stream the transport holds at most beside the
    channels. `PEER_IS_TOLD`: whether a far end learns at once that the transport stopped or gave
    its place to another; where it is not, it only falls silent.
    """

    BUFFERED_FRAMES: ClassVar[int] = 0
    PEER_IS_TOLD: ClassVar[bool] = True

    @pytest.fixture
    def world(self, rig: Rig) -> Iterator[World]:
        """A transport that runs; at the end it is stopped and every lease is back."""
        host = StandInHost(
            delivery_table(
                capacity={
                    StreamType.SENSORY: SENSORY_CAPACITY,
                    StreamType.MOTOR: MOTOR_CAPACITY,
                },
                deadline_s={StreamType.MOTOR: 0.05},
            )
        )
        world = World(rig, rig.transport(host), host)
        world.transport.start()
        yield world
        world.transport.stop()
        for session in host.sessions:
            session.close()
        assert world.pool.counters()["leased"] == 0, "frames were not given back"

    def assert_cut_off(self, peer: Peer) -> None:
        """Check that nothing reaches a far end any more."""
        if self.PEER_IS_TOLD:
            with pytest.raises(ClosedError):
                peer.receive_motor(PATIENCE_S)
        else:
            assert peer.receive_motor(SILENCE_S) is None
