# SPDX-License-Identifier: Apache-2.0
"""AsyncControlLoop: the control task of an AsyncZmqTransport. It waits; what is done is the desk's.

Messages are served in the turn of the event loop that finds them, without waking the task: that
looks around now and then, and ends the whole. It also takes in the sensory frames of agents that
another transport has let in.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.transports.zmq.async_socket import SocketWatch
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


class AsyncControlLoop:
    """Serves the agents of `owner`. All its state is the event loop's own; it is made there.

    Agents register at `door`; without one nobody does, and only what was adopted is served.
    `guard` looks at the connections. `unpack` gives plain frames of packed ones.
    Raises what SocketWatch raises.
    """

    def __init__(
        self,
        owner: DeskOwner,
        server: RegistrationServer,
        slots: EndpointSlots,
        door: Door | None,
        guard: ConnectionGuard,
        unpack: Callable[[BytesLike], BytesLike] | None = None,
    ) -> None:
        self._desk = None if door is None else ControlDesk(
            owner, server, slots, door, watch=self._watch, unwatch=self._unwatch, unpack=unpack
        )  # fmt: skip
        self._unpack = unpack
        self._slots = slots
        self._adopted: list[ServedAgent] = []
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watches: dict[ServedAgent, SocketWatch] = {}
        self._router_watch: SocketWatch | None = None
        self._guard = guard
        self._next_look: asyncio.TimerHandle | None = None
        if door is not None:
            self._router_watch = SocketWatch(door.socket, lambda: self._safely(self._serve_control))
        self._plan_look()

    def adopt(self, agent: AttachedAgent, slot: Slot) -> None:
        """Serve the sensory stream of an agent of another transport, until the agent is closed.

        Raises what SocketWatch raises; the slot stays the caller's then.
        """
        served = ServedAgent(agent, slot)
        self._watch_by(served, lambda: take_sensory(agent, slot, self._unpack)[1])
        self._adopted.append(served)
        self._plan_look()

    async def run(self, stopping: asyncio.Event) -> None:
        """Serve until `stopping`, of which `wake` tells."""
        desk = self._desk
        try:
            while not self._ended.done():
                wait_s = _LOOK_AROUND_S if desk is None else desk.longest_wait_s()
                await asyncio.wait({self._ended}, timeout=wait_s)
                if not self._ended.done():
                    if desk is not None:
                        desk.look_around()
                    self._let_go_of_adopted()
                    self._plan_look()
            self._ended.result()
        finally:
            self.close()

    def wake(self) -> None:
        """Let `run` see that it is to stop."""
        if not self._ended.done():
            self._ended.set_result(None)

    def close(self) -> None:
        """Let go of everybody and close every socket; once or more often."""
        self.wake()
        if self._router_watch is not None:
            self._router_watch.close()
        if self._next_look is not None:
            self._next_look.cancel()
        if self._desk is not None:
            self._desk.close()
        self._slots.close()
        for served in self._adopted:
            # An agent with a stream that nobody serves any more is better off knowing.
            served.agent.close("zmq transport stopped")
        self._let_go_of_adopted()

    def _serve_control(self) -> bool:
        assert self._desk is not None
        more = self._desk.serve_control()
        self._desk.look_around()
        return more

    def _look_at_connections(self) -> bool:
        self._next_look = None
        self._guard.look()
        # Whether something waits at a socket tells of the connections that were looked at.
        if self._desk is not None and self._desk.is_asked and self._router_watch is not None:
            self._router_watch.again()
        for served, watch in self._watches.items():
            if served.sensory is not None and served.sensory.guard.suspects:
                watch.again()
        self._plan_look()
        return False

    def _plan_look(self) -> None:
        wait_s = self._guard.wait_s
        if self._next_look is None and wait_s < math.inf:
            self._next_look = asyncio.get_running_loop().call_later(
                wait_s, lambda: self._safely(self._look_at_connections)
            )

    def _let_go_of_adopted(self) -> None:
        for served in tuple(self._adopted):
            if served.agent.closed:
                self._adopted.remove(served)
                self._unwatch(served)
                assert served.sensory is not None
                served.sensory.close()

    def _watch(self, served: ServedAgent) -> None:
        desk = self._desk
        assert desk is not None
        self._watch_by(served, lambda: desk.serve_sensory(served))

    def _watch_by(self, served: ServedAgent, serve: Callable[[], bool]) -> None:
        assert served.sensory is not None
        self._watches[served] = SocketWatch(served.sensory.socket, lambda: self._safely(serve))

    def _unwatch(self, served: ServedAgent) -> None:
        watch = self._watches.pop(served, None)
        if watch is not None:
            watch.close()

    def _safely(self, serve: Callable[[], bool]) -> bool:
        """What fails in here ends the task, as it would end a thread."""
        if self._ended.done():
            return False
        try:
            return serve()
        except BaseException as error:
            self._ended.set_exception(error)
            if not isinstance(error, Exception):
                raise  # KeyboardInterrupt and SystemExit are for whoever runs the loop
            return False
