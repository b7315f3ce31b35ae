# SPDX-License-Identifier: Apache-2.0
"""ControlDesk: what is done with what comes in, whoever waits for it, a thread or an event loop.

control messages  -> RegistrationServer -> events carried out -> answer
sensory messages  -> verified -> the agent's session
silent agents and those that the host has detached -> let go

Nothing here waits: sockets are read as long as something is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import zmq

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError, FeagiDataError
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.reception import Reception, ReceptionOwner
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.common import frame_bytes, receive_parts
from feagi_io_host.transports.zmq.connection_guard import PortGuard
from feagi_io_host.transports.zmq.slots import EndpointSlots, Slot

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import BytesLike, ZmqSocket

_log = logging.getLogger("feagi_io.zmq")

# So many messages of one socket in a row; then the others have their turn.
_FAIR_SHARE: Final = 16
# What has more parts than this is read in several turns.
_MOST_PARTS: Final = 256


@dataclass(frozen=True, slots=True)
class Door:
    """The bound ROUTER that agents register at, and who looks at its connections."""

    socket: ZmqSocket
    guard: PortGuard


@dataclass(slots=True, eq=False)
class ServedAgent:
    """One registered agent, as the desk knows it."""

    agent: AttachedAgent
    sensory: Slot | None


class DeskOwner(ReceptionOwner[ServedAgent], Protocol):
    """The transport, as its desk sees it. Called where the desk is, in its thread or loop."""

    def count_unanswerable(self) -> None:
        """An answer did not reach its peer."""


class ControlDesk:
    """Serves the agents of `owner`. Belongs to one thread or event loop at a time.

    `watch(served)` is called for each agent whose sensory socket is to be waited for from then
    on, `unwatch(served)` before that socket is closed. `unpack` gives plain frames of packed ones.
    The door is closed with it.
    """

    def __init__(
        self,
        owner: DeskOwner,
        server: RegistrationServer,
        slots: EndpointSlots,
        door: Door,
        *,
        watch: Callable[[ServedAgent], object],
        unwatch: Callable[[ServedAgent], object],
        unpack: Callable[[BytesLike], BytesLike] | None = None,
    ) -> None:
        self._owner = owner
        self._unpack = unpack
        self._reception = Reception[ServedAgent](self, server)
        self._slots = slots
        self._router = door.socket
        self._guard = door.guard
        self._watch = watch
        self._unwatch = unwatch

    @property
    def served(self) -> tuple[ServedAgent, ...]:
        """The agents that are in."""
        return self._reception.served

    def longest_wait_s(self) -> float:
        """How long may be waited before `look_around` is due."""
        return self._reception.longest_wait_s()

    def look_around(self) -> None:
        """Let go of agents that are silent and of those that the host has detached."""
        self._reception.look_around()

    def close(self) -> None:
        """Let go of every agent and close every socket."""
        self._reception.close("zmq transport stopped")
        self._slots.close()
        self._guard.close()
        self._router.close()  # with its linger: the last answers

    def serve_control(self) -> bool:
        """Answer the control messages that wait; true when there may be more of them."""
        for _ in range(_FAIR_SHARE):
            try:
                parts = receive_parts(self._router, 3)
            except zmq.Again:
                self._guard.drained()
                return False
            if len(parts) < 2:
                continue  # an identity and nothing else
            peer = parts[0].bytes
            content = frame_bytes(parts[1] if len(parts) == 2 else parts[2])
            reply = self._reception.hear(peer, content)
            if reply is not None:
                self._answer(peer, reply)
            known = self._reception.is_in(peer)
            limit = self._reception.server.limits.registered_bytes if known else None
            self._guard.heard(parts[-1], limit)
        return True

    @property
    def is_asked(self) -> bool:
        """Whether `serve_control` is to be called although nothing waits, for the guard to know."""
        return bool(self._guard.suspects)

    def serve_sensory(self, served: ServedAgent) -> bool:
        """Pass on the sensory frames that wait; true when there may be more of them."""
        if served.sensory is None:
            return False
        taken, more = take_sensory(served.agent, served.sensory, self._unpack)
        if taken:
            self._reception.heard_of(served.agent.agent_id)
        return more

    # -- what the reception asks its owner ------------------------------------------------------

    def take_in(self, agent_id: bytes) -> ServedAgent:
        """Attach a registered agent and watch its sensory socket."""
        served = self._owner.take_in(agent_id)
        if served.sensory is not None:
            try:
                self._watch(served)
            except BaseException:
                self._owner.let_go(served, "not taken in")
                raise
        return served

    def let_go(self, served: ServedAgent, reason: str) -> None:
        """Detach an agent and close its sensory socket."""
        if served.sensory is not None:
            self._unwatch(served)
        self._owner.let_go(served, reason)

    def accepts(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        """Whether the units of an agent can be had."""
        return self._owner.accepts(agent_id, configuration)

    def now_s(self) -> float:
        """The time on the transport's clock."""
        return self._owner.now_s()

    # -- inside ---------------------------------------------------------------------------------

    def _answer(self, peer: bytes, reply: bytes) -> None:
        try:
            self._router.send_multipart([peer, b"", reply])
        except zmq.ZMQError as error:
            self._owner.count_unanswerable()
            _log.debug("answer of %d bytes given up: %s", len(reply), error)


def take_sensory(
    agent: AttachedAgent,
    slot: Slot,
    unpack: Callable[[BytesLike], BytesLike] | None = None,
) -> tuple[int, bool]:
    """Hand the sensory frames that wait in `slot` to `agent`, a fair share of them at most.

    Gives how many messages there were and whether there may be more. What is no frame is counted.
    `unpack` gives plain frames of packed ones; without it these are no frames.
    """
    counters = agent.counters[StreamType.SENSORY]
    socket, guard = slot.socket, slot.guard
    for taken in range(_FAIR_SHARE):
        try:
            parts = receive_parts(socket, 1, _MOST_PARTS)
        except zmq.Again:
            if guard.suspects:
                guard.drained()
            return taken, False
        if guard.listening:
            guard.heard(parts[0])
        try:
            if parts[0].more:
                raise FeagiDataError("message of several parts; one part, one FBC is expected")
            data = frame_bytes(parts[0])
            fbc = SharedFBC.from_bytes(data if unpack is None else unpack(data))
        except FeagiDataError as error:
            counters.count_sent(len(parts[0]))
            counters.count_dropped("damaged")
            _log.debug("sensory frame dropped: %s", error)
            continue
        with fbc:
            try:
                agent.submit_sensory(fbc)
            except ClosedError:
                return taken + 1, False  # detached by the host; `look_around` sees to it
    return _FAIR_SHARE, True
