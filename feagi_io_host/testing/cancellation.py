# SPDX-License-Identifier: Apache-2.0
"""CancellationContract: what the coroutines of a transport owe when they are cancelled.

For NonBlockingTransport only; threads are not cancelled, there `close` wakes who waits. Each check
cuts a call off after 0, 1, 2 ... turns of the event loop, so at each of its awaits.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from feagi_io_host.core.errors import ClosedError
from feagi_io_host.testing.host import StandInHost
from feagi_io_host.testing.rig import AsyncFace, PeerFace
from feagi_io_host.testing.world import (
    EVERYTHING,
    MOTOR_CAPACITY,
    PATIENCE_S,
    ROVER,
    ContractWorld,
    World,
    counter_of,
)

TURNS = range(8)


class CancellationContract(ContractWorld):
    """The checks. A subclass gives the fixture `rig`, an AsyncRig."""

    @pytest.mark.parametrize("stream", ["motor", "visualization"])
    def test_a_cancelled_receive_loses_no_frame(self, world: World, stream: str) -> None:
        transport, peer = _in_a_loop(world)
        receive = partial(getattr(peer.peer, f"receive_{stream}"), None)
        for turns in TURNS:
            assert transport.cut_off(receive, turns) == (False, None)
            if stream == "motor":
                world.motor(peer.agent_id, turns)
            else:
                world.show(turns)
            done, fbc = transport.cut_off(receive, turns)
            # Cancelled before it had the frame: then the frame is still there.
            left = fbc if done else getattr(peer, f"receive_{stream}")(PATIENCE_S)
            assert counter_of(left) == turns

    def test_a_cancelled_publish_keeps_no_lease_and_the_order(self, world: World) -> None:
        transport, peer = _in_a_loop(world)
        taken = world.fill_motor(peer.agent_id, MOTOR_CAPACITY + self.BUFFERED_FRAMES)
        for turns in TURNS:
            with world.frame(5000) as fbc:
                publish = partial(transport.transport.publish_motor, peer.agent_id, fbc)
                assert transport.cut_off(publish, turns) == (False, None)
                assert fbc.lease_count == 1
        assert [counter_of(peer.receive_motor(PATIENCE_S)) for _ in taken] == taken

    def test_a_cancelled_connect_leaves_no_half_agent(self, world: World) -> None:
        transport, peer = _in_a_loop(world)
        for turns in TURNS:
            transport.cut_off(lambda: transport.connect_in_loop(ROVER, EVERYTHING), turns)
            world.motor(peer.agent_id, turns)
            assert counter_of(peer.receive_motor(PATIENCE_S)) == turns
        transport.stop()
        assert world.host.sessions == ()

    def test_cancelled_starts_and_stops_can_be_asked_for_again(self, world: World) -> None:
        transport, _ = _in_a_loop(world)
        for turns in TURNS:
            other = world.rig.transport(StandInHost())
            assert isinstance(other, AsyncFace)
            transport.cut_off(other.transport.start, turns)
            other.start()
            other.connect(ROVER, EVERYTHING, None)
            transport.cut_off(other.transport.stop, turns)
            other.stop()
            with pytest.raises(ClosedError):
                other.start()


def _in_a_loop(world: World) -> tuple[AsyncFace[Any], PeerFace]:
    peer = world.connect()
    assert isinstance(world.transport, AsyncFace), "this contract is for an AsyncRig"
    assert isinstance(peer, PeerFace)
    return world.transport, peer
