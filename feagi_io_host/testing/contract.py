# SPDX-License-Identifier: Apache-2.0
"""TransportContract: what every transport owes, in both paradigms, as a pytest class.

    class TestMyTransport(TransportContract):
        @pytest.fixture(params=["blocking", "nonblocking"])
        def rig(self, request):
            rig = BlockingRig(...) if request.param == "blocking" else AsyncRig(...)
            yield rig
            rig.close()

Build the transports with a small `max_frame_bytes` (some kilobytes) and take the delivery table
from the host they are given. What a transport may do otherwise than the virtual one it says by the
class attributes `BUFFERED_FRAMES` and `PEER_IS_TOLD`, see `world`.
"""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LocalError,
    UnknownHandleError,
)
from feagi_io_host.core.types import StreamType
from feagi_io_host.testing.host import StandInHost
from feagi_io_host.testing.residue import Residue
from feagi_io_host.testing.world import (
    EVERYTHING,
    JSON_OVERHEAD_BYTES,
    MOTOR_CAPACITY,
    PATIENCE_S,
    ROVER,
    SENSORY_CAPACITY,
    ContractWorld,
    World,
    counter_of,
)


class TransportContract(ContractWorld):
    """The checks. A subclass gives the fixture `rig`."""

    # -- order and sizes ----------------------------------------------------------------------

    def test_motor_frames_arrive_in_order(self, world: World) -> None:
        peer = world.connect()
        for counter in range(200):
            world.motor(peer.agent_id, counter)
            assert counter_of(peer.receive_motor(PATIENCE_S)) == counter

    def test_sensory_frames_arrive_in_order(self, world: World) -> None:
        peer = world.connect()
        for counter in range(200):
            world.sense(peer, counter)
            assert world.sensed(peer) == counter

    def test_visualization_frames_arrive_in_order(self, world: World) -> None:
        peer = world.connect()
        for counter in range(200):
            world.show(counter)
            assert counter_of(peer.receive_visualization(PATIENCE_S)) == counter

    @pytest.mark.parametrize("size", ["empty", "one", "largest"])
    def test_every_size_arrives_unchanged(self, world: World, size: str) -> None:
        peer = world.connect()
        chars = {"one": 1, "largest": world.transport.max_frame_bytes - JSON_OVERHEAD_BYTES}
        with world.frame(7, "x" * chars[size] if size in chars else None) as fbc:
            sent = bytes(fbc.view)
            if size == "largest":
                assert len(sent) == world.transport.max_frame_bytes
            world.transport.publish_motor(peer.agent_id, fbc)
            world.transport.publish_visualization(fbc)
            peer.send_sensory(fbc)
        for receive in (peer.receive_motor, peer.receive_visualization):
            received = receive(PATIENCE_S)
            assert received is not None
            with received:
                assert bytes(received.view) == sent
        assert world.host.take_sensory(peer.agent_id) == sent

    def test_one_byte_too_many_is_refused_and_harms_nobody(self, world: World) -> None:
        peer = world.connect()
        chars = world.transport.max_frame_bytes - JSON_OVERHEAD_BYTES + 1
        with world.frame(1, "x" * chars) as fbc:
            with pytest.raises(LocalError, match=str(world.transport.max_frame_bytes)):
                world.transport.publish_motor(peer.agent_id, fbc)
            with pytest.raises(LocalError, match=str(world.transport.max_frame_bytes)):
                world.transport.publish_visualization(fbc)
            with pytest.raises(LocalError, match=str(world.transport.max_frame_bytes)):
                peer.send_sensory(fbc)
        world.motor(peer.agent_id, 2)
        assert counter_of(peer.receive_motor(PATIENCE_S)) == 2

    # -- what a full stream does --------------------------------------------------------------

    def test_a_slow_brain_gets_the_newest_sensory_frames(self, world: World) -> None:
        peer = world.connect()
        sent = SENSORY_CAPACITY + self.BUFFERED_FRAMES + 20
        for counter in range(sent):
            world.sense(peer, counter)
        seen: list[int] = []
        while not seen or seen[-1] != sent - 1:
            counter_seen = world.sensed(peer)
            assert counter_seen is not None, f"the newest frame never came; seen: {seen}"
            seen.append(counter_seen)
        assert seen == sorted(set(seen))
        assert len(seen) <= SENSORY_CAPACITY + self.BUFFERED_FRAMES

    def test_motor_raises_when_nobody_reads_and_loses_nothing_it_took(self, world: World) -> None:
        peer = world.connect()
        taken = world.fill_motor(peer.agent_id, MOTOR_CAPACITY + self.BUFFERED_FRAMES)
        with pytest.raises(DeliveryTimeoutError, match="not taken"):
            world.motor(peer.agent_id, 999)
        assert len(taken) >= MOTOR_CAPACITY
        assert [counter_of(peer.receive_motor(PATIENCE_S)) for _ in taken] == taken
        world.motor(peer.agent_id, 1000)
        assert counter_of(peer.receive_motor(PATIENCE_S)) == 1000

    def test_visualization_never_waits_and_the_newest_arrives(self, world: World) -> None:
        peer = world.connect()
        sent = self.BUFFERED_FRAMES + 50
        for counter in range(sent):
            world.show(counter)
        seen: list[int] = []
        while not seen or seen[-1] != sent - 1:
            counter_seen = counter_of(peer.receive_visualization(PATIENCE_S))
            assert counter_seen is not None, f"the newest frame never came; seen: {seen}"
            seen.append(counter_seen)
        assert seen == sorted(set(seen))
        assert len(seen) <= 1 + self.BUFFERED_FRAMES

    def test_one_agent_that_does_not_read_harms_no_other(self, world: World) -> None:
        stuck = world.connect()
        reader = world.connect()
        world.fill_motor(stuck.agent_id, MOTOR_CAPACITY + self.BUFFERED_FRAMES)
        for counter in range(5):
            with pytest.raises(DeliveryTimeoutError, match="1 of 2"):
                world.motor(None, counter)
            assert counter_of(reader.receive_motor(PATIENCE_S)) == counter

    # -- ends ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("who", ["transport", "peer"])
    @pytest.mark.parametrize("stream", ["motor", "visualization"])
    def test_close_wakes_who_is_blocked(self, world: World, who: str, stream: str) -> None:
        peer = world.connect()
        entered = threading.Event()

        def receive() -> None:
            entered.set()
            getattr(peer, f"receive_{stream}")(None)

        with ThreadPoolExecutor(1) as pool:
            waiting: Future[None] = pool.submit(receive)
            assert entered.wait(PATIENCE_S)
            if who == "transport":
                world.transport.stop()
            if who == "peer" or not self.PEER_IS_TOLD:
                peer.close()
            with pytest.raises(ClosedError):
                waiting.result(PATIENCE_S)

    def test_a_peer_that_starts_anew_takes_over(self, world: World) -> None:
        old = world.connect()
        world.motor(old.agent_id, 1)
        new = world.connect(old.agent_id)
        world.motor(new.agent_id, 2)
        assert counter_of(new.receive_motor(PATIENCE_S)) == 2
        self.assert_cut_off(old)
        world.sense(new, 3)
        assert world.sensed(new) == 3

    def test_a_transport_that_starts_anew_is_found_again(self, world: World) -> None:
        old = world.connect()
        world.transport.stop()
        self.assert_cut_off(old)
        old.close()
        world.transport = world.rig.transport(world.host)
        world.transport.start()
        new = world.connect(old.agent_id)
        world.motor(new.agent_id, 5)
        assert counter_of(new.receive_motor(PATIENCE_S)) == 5

    def test_an_agent_that_left_is_unknown(self, world: World) -> None:
        peer = world.connect()
        peer.close()
        peer.close()
        with pytest.raises(UnknownHandleError):
            world.motor(peer.agent_id, 1)
        world.motor(None, 2)
        assert [agent for agent, _ in world.host.left] == [peer.agent_id]

    def test_life_is_start_and_stop_once_each_however_often_asked(self, world: World) -> None:
        world.transport.start()
        world.transport.stop()
        world.transport.stop()
        with pytest.raises(ClosedError):
            world.transport.start()
        with pytest.raises(ClosedError):
            world.show(1)
        with pytest.raises(ClosedError):
            world.motor(None, 1)
        never_started = world.rig.transport(world.host)
        with pytest.raises(ClosedError), world.frame(1) as fbc:
            never_started.publish_visualization(fbc)
        never_started.stop()

    # -- company ------------------------------------------------------------------------------

    def test_capabilities_are_kept(self, world: World) -> None:
        viewer = world.transport.connect(
            ROVER, AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS, None
        )
        with pytest.raises(UnknownHandleError, match="no motor data"):
            world.motor(viewer.agent_id, 1)
        world.sense(viewer, 2)
        assert world.sensed(viewer, 0.0) is None
        world.show(3)
        assert counter_of(viewer.receive_visualization(PATIENCE_S)) == 3

    @pytest.mark.parametrize(
        "data", [b"", b"\x04", b"\x03" + bytes(51), b"\xff" * 200, b"\x04\0\0\xff" + bytes(48)]
    )
    def test_hostile_bytes_are_dropped_and_counted(self, world: World, data: bytes) -> None:
        peer = world.connect()
        peer.send_sensory(data)
        world.sense(peer, 9)
        assert world.sensed(peer) == 9
        (session,) = world.host.sessions
        assert session.counters[StreamType.SENSORY].dropped == 1

    def test_two_transports_in_one_process_know_nothing_of_each_other(self, world: World) -> None:
        peer = world.connect()
        other_host = StandInHost()
        other = world.rig.transport(other_host)
        other.start()
        try:
            stranger = other.connect(ROVER, EVERYTHING, peer.agent_id)
            world.motor(None, 1)
            with world.frame(2) as fbc:
                other.publish_motor(None, fbc)
            assert counter_of(peer.receive_motor(PATIENCE_S)) == 1
            assert counter_of(stranger.receive_motor(PATIENCE_S)) == 2
        finally:
            other.stop()
        world.motor(None, 3)
        assert counter_of(peer.receive_motor(PATIENCE_S)) == 3

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_child_has_a_closed_copy_and_the_parent_goes_on(self, world: World) -> None:
        peer = world.connect()
        with world.frame(1) as fbc, warnings.catch_warnings():
            # Newer interpreters warn of forks beside threads, which is what is tried here.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
            if pid == 0:
                faults = ["interrupted"]
                try:
                    faults = world.transport.after_fork(fbc)
                finally:
                    os._exit(min(len(faults), 100))
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        world.motor(peer.agent_id, 2)
        assert counter_of(peer.receive_motor(PATIENCE_S)) == 2

    def test_nothing_is_left_behind(self, world: World) -> None:
        def live_once() -> None:
            transport = world.rig.transport(StandInHost())
            transport.start()
            peer = transport.connect(ROVER, EVERYTHING, None)
            with world.frame(1) as fbc:
                transport.publish_visualization(fbc)
            assert counter_of(peer.receive_visualization(PATIENCE_S)) == 1
            transport.stop()
            peer.close()

        live_once()  # whatever a library keeps for the process is there from here on
        before = Residue()
        for _ in range(5):
            live_once()
        left = before.since()
        assert not left, f"left behind: {'; '.join(left)}"
