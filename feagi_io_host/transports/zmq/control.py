# SPDX-License-Identifier: Apache-2.0
"""ControlLoop: the control thread of a ZmqTransport. It waits; what is done is the desk's.

It also takes in the sensory frames of agents that another transport has let in.
"""

from __future__ import annotations

import contextlib
import socket as sockets
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.transports.zmq.connection_guard import ConnectionGuard
from feagi_io_host.transports.zmq.desk import (
    ControlDesk,
    DeskOwner,
    Door,
    ServedAgent,
    take_sensory,
)
from feagi_io_host.transports.zmq.slots import EndpointSlots, Slot

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike

# Agents of another transport that have gone are looked for this often.
_LOOK_AROUND_S: Final = 0.25


class ControlLoop:
    """Serves the agents of `owner`. All its state but `adopt`'s is the control thread's own.

    Agents register at `door`; without one nobody does, and only what was adopted is served. The
    far end of `waiting` wakes it. `guard` looks at the connections; it is the caller's. `unpack`
    gives plain frames of packed ones.
    """

    def __init__(
        self,
        owner: DeskOwner,
        server: RegistrationServer,
        slots: EndpointSlots,
        door: Door | None,
        guard: ConnectionGuard,
        waiting: sockets.socket,
        unpack: Callable[[BytesLike], BytesLike] | None = None,
    ) -> None:
        self._desk = None if door is None else ControlDesk(
            owner, server, slots, door, watch=self._watch, unwatch=self._unwatch, unpack=unpack
        )  # fmt: skip
        self._guard = guard
        self._unpack = unpack
        self._slots = slots
        self._router = None if door is None else door.socket
        self._waiting = waiting
        self._adopted: list[ServedAgent] = []
        self._arriving: deque[ServedAgent] = deque()
        self._arrivals = threading.Lock()
        self._ended = False
        self._poller = zmq.Poller()
        if self._router is not None:
            self._poller.register(self._router, zmq.POLLIN)
        self._poller.register(waiting, zmq.POLLIN)

    def adopt(self, agent: AttachedAgent, slot: Slot) -> bool:
        """From any thread: serve the sensory stream of an agent of another transport, until the
        agent is closed. False when the loop has ended; the slot stays the caller's then. The
        caller wakes the loop."""
        with self._arrivals:
            if not self._ended:
                self._arriving.append(ServedAgent(agent, slot))
            return not self._ended

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stopping`."""
        try:
            while not stopping.is_set():
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        desk = self._desk
        guard = self._guard
        wait_s = _LOOK_AROUND_S if desk is None else desk.longest_wait_s()
        wait_s = min(wait_s, guard.wait_s)
        # A millisecond early would be a wasted turn.
        ready = [source for source, _ in self._poller.poll(int(wait_s * 1000) + 1)]
        if self._waiting.fileno() in ready:
            with contextlib.suppress(BlockingIOError):
                self._waiting.recv(4096)
        # Before the sockets are read: whether something waits there tells of those looked at.
        if not guard.wait_s:
            guard.look()
        if desk is not None:
            if self._router in ready or desk.is_asked:
                desk.serve_control()
            for served in desk.served:
                desk.serve_sensory(served)
            desk.look_around()
        self._serve_adopted()

    def _serve_adopted(self) -> None:
        while self._arriving:
            served = self._arriving.popleft()
            self._adopted.append(served)
            self._watch(served)
        for served in tuple(self._adopted):
            assert served.sensory is not None
            if not served.agent.closed:
                take_sensory(served.agent, served.sensory, self._unpack)
            if served.agent.closed:
                self._adopted.remove(served)
                self._unwatch(served)
                served.sensory.close()

    def _close(self) -> None:
        if self._desk is not None:
            self._desk.close()
        self._slots.close()
        with self._arrivals:
            self._ended = True
        for served in (*self._adopted, *self._arriving):
            # An agent with a stream that nobody serves any more is better off knowing.
            served.agent.close("zmq transport stopped")
            assert served.sensory is not None
            served.sensory.close()

    def _watch(self, served: ServedAgent) -> None:
        assert served.sensory is not None
        self._poller.register(served.sensory.socket, zmq.POLLIN)

    def _unwatch(self, served: ServedAgent) -> None:
        assert served.sensory is not None
        self._poller.unregister(served.sensory.socket)
