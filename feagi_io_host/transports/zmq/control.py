# SPDX-License-Identifier: Apache-2.0
"""ControlLoop: what the control thread of a ZmqTransport does, turn after turn.

control messages  -> RegistrationServer -> events carried out -> answer
sensory messages  -> verified -> the agent's session
silent agents and those that the host has detached -> let go
"""

from __future__ import annotations

import logging
import socket as sockets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError, FeagiDataError, FeagiIOError
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.core.server_seams import ServerEvent
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.common import frame_bytes, receive_parts
from feagi_io_host.transports.zmq.slots import EndpointSlots, Slot

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.blocking_impl import ZmqTransport
    from feagi_io_host.transports.zmq.common import ZmqSocket

_log = logging.getLogger("feagi_io.zmq")

# Sweeps and agents that the host itself has detached are looked for this often.
_LOOK_AROUND_S: Final = 0.25
# So many messages of one socket in a row; then the others have their turn.
_FAIR_SHARE: Final = 16


@dataclass(slots=True)
class ServedAgent:
    """One registered agent, as the control thread knows it."""

    agent: AttachedAgent
    sensory: Slot | None


class ControlLoop:
    """Serves the agents of `transport`. All its state is the control thread's own."""

    def __init__(
        self,
        transport: ZmqTransport,
        server: RegistrationServer,
        slots: EndpointSlots,
        router: ZmqSocket,
        waiting: sockets.socket,
    ) -> None:
        self._transport = transport
        self._server = server
        self._slots = slots
        self._router = router
        self._served: dict[bytes, ServedAgent] = {}
        self._poller = zmq.Poller()
        self._poller.register(router, zmq.POLLIN)
        self._poller.register(waiting, zmq.POLLIN)

    def run(self, stopping: threading.Event) -> None:
        """Serve until `stopping`."""
        try:
            while not stopping.is_set():
                ready = self._poller.poll(self._longest_wait_ms())
                if any(socket is self._router for socket, _ in ready):
                    self._serve_control()
                for served in tuple(self._served.values()):
                    self._serve_sensory(served)
                self._look_around()
        finally:
            for agent_id in tuple(self._served):
                self._forget(agent_id, "zmq transport stopped")
            self._slots.close()
            self._router.close()  # with its linger: the last answers

    def _longest_wait_ms(self) -> int:
        due_s = self._server.next_tick_s
        left_s = _LOOK_AROUND_S
        if due_s is not None:
            left_s = min(max(due_s - self._transport.now_s(), 0.0), left_s)
        return int(left_s * 1000) + 1  # a millisecond early would be a wasted turn

    def _look_around(self) -> None:
        self._act(self._server.tick(self._transport.now_s()))
        for agent_id, served in tuple(self._served.items()):
            if served.agent.closed:
                self._act(self._server.dismiss(agent_id, "detached by the host"))

    def _serve_control(self) -> None:
        for _ in range(_FAIR_SHARE):
            try:
                parts = receive_parts(self._router, 3)
            except zmq.Again:
                return
            if len(parts) < 2:
                continue  # an identity and nothing else
            peer = parts[0].bytes
            content = frame_bytes(parts[1] if len(parts) == 2 else parts[2])
            self._let_go_if_detached(peer)
            outcome = self._server.receive(peer, content, self._transport.now_s())
            if self._act(outcome.events) and outcome.reply is not None:
                self._answer(peer, outcome.reply)

    def _let_go_if_detached(self, peer: bytes) -> None:
        """An agent that the host has detached learns of it by its next message at the latest."""
        record = self._server.registry.find_by_peer(peer)
        if record is None:
            return
        served = self._served.get(record.agent_id)
        if served is not None and served.agent.closed:
            self._act(self._server.dismiss(record.agent_id, "detached by the host"))

    def _answer(self, peer: bytes, reply: bytes) -> None:
        try:
            self._router.send_multipart([peer, b"", reply])
        except zmq.ZMQError as error:
            self._transport.count_unanswerable()
            _log.debug("answer of %d bytes given up: %s", len(reply), error)

    def _act(self, events: Sequence[ServerEvent]) -> bool:
        """Carry out what the server decided; false when it must not be answered after all."""
        answer = True
        for event in events:
            if isinstance(event, AgentDisconnected):
                self._forget(event.agent_id, event.reason)
            elif isinstance(event, AgentRegistered):
                answer = self._welcome(event.agent_id)
            else:
                answer = self._transport.accepts(event.agent_id, event.configuration)
        return answer

    def _welcome(self, agent_id: bytes) -> bool:
        try:
            served = self._transport.take_in(agent_id, self._slots)
        except FeagiIOError as error:
            _log.warning("agent not taken in: %s", error)
            self._server.dismiss(agent_id, "not taken in")
            return False
        self._served[agent_id] = served
        if served.sensory is not None:
            self._poller.register(served.sensory.socket, zmq.POLLIN)
        return True

    def _forget(self, agent_id: bytes, reason: str) -> None:
        served = self._served.pop(agent_id, None)
        if served is None:
            return
        if served.sensory is not None:
            self._poller.unregister(served.sensory.socket)
        self._transport.let_go(served, reason)

    def _serve_sensory(self, served: ServedAgent) -> None:
        if served.sensory is None:
            return
        agent = served.agent
        counters = agent.counters[StreamType.SENSORY]
        heard = False
        for _ in range(_FAIR_SHARE):
            try:
                parts = receive_parts(served.sensory.socket, 1)
            except zmq.Again:
                break
            heard = True
            try:
                if parts[0].more:
                    raise FeagiDataError("message of several parts; one part, one FBC is expected")
                fbc = SharedFBC.from_bytes(frame_bytes(parts[0]))
            except FeagiDataError as error:
                counters.count_sent(len(parts[0]))
                counters.count_dropped("damaged")
                _log.debug("sensory frame dropped: %s", error)
                continue
            with fbc:
                try:
                    agent.submit_sensory(fbc)
                except ClosedError:
                    break  # detached by the host; the next look around sees to it
        if heard:
            self._server.registry.touch(agent.agent_id, self._transport.now_s())
