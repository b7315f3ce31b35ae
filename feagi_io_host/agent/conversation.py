# SPDX-License-Identifier: Apache-2.0
"""Conversation: all that an agent decides, between its user and its link, whatever the paradigm.

    user  --requests-->    RegistrationClient  --actions-->  link
    user  --sensory-->     outbox (newest wins)          -->  link
    user  <--frames------  inboxes (the newest frame)    <--  link

Requests are handed over as futures and carried out in the link's thread or task, which alone
touches the RegistrationClient and emits `state_changed`. Users wait for the futures, each in the
way of its paradigm.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field, replace
from typing import Any, Final

from feagi_io_host.agent.streams import AgentStreams, Inbox
from feagi_io_host.core.agent_link import AgentLink, AsyncAgentLink
from feagi_io_host.core.client_actions import (
    AgentState,
    Answered,
    ClientAction,
    ClientTiming,
    CloseStreams,
    ConfigurationSettled,
    OpenStreams,
    StateChanged,
)
from feagi_io_host.core.container import BytesLike
from feagi_io_host.core.delivery import DeliveryRule
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigurationRefusedError,
    DeliveryTimeoutError,
    FeagiIOError,
    LocalError,
    RegistrationRefusedError,
)
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    HealthCheckRequest,
    HealthReport,
    RefusalReason,
    RegistrationRequest,
    TimestepChange,
    TimestepChangeAnswer,
    TimestepReport,
    TimestepRequest,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.registration_client import RegistrationClient
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.types import StreamType

_log = logging.getLogger("feagi_io.agent")

_ACTIVE: Final = frozenset({AgentState.ACTIVE_WAITING, AgentState.ACTIVE_HAS_DATA})

Question = HealthCheckRequest | TimestepRequest | TimestepChange
_ANSWERS: Final[Mapping[type, type]] = {
    HealthCheckRequest: HealthReport,
    TimestepRequest: TimestepReport,
    TimestepChange: TimestepChangeAnswer,
}


@dataclass(slots=True, eq=False)
class _Request:
    """Something that a user asked for. `run(now_s)` is called in the link's thread."""

    run: Callable[[float], Sequence[ClientAction]]
    answer: Future[Any] = field(default_factory=Future)


class Conversation(AgentStreams):
    """One agent's side of everything; the LinkParty of its link.

    `make_inbox(stream)` makes the inbox of a stream that the agent asked for. `wake` is called
    after each request, `send_now` after each sensory frame; `lead_to` sets both to the link's.
    """

    def __init__(
        self,
        request: RegistrationRequest,
        inbound: Sequence[StreamType],
        make_inbox: Callable[[StreamType], Inbox],
        *,
        server: str,
        sensory: DeliveryRule,
        timing: ClientTiming | None = None,
        heartbeat: HeartbeatTiming | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        name = request.descriptor.agent_name
        super().__init__(name, inbound, make_inbox, sensory)
        self.state_changed: FeagiSignal[StateChanged] = FeagiSignal(f"{name}.state_changed")
        self._wake: Callable[[], object] = _nobody
        self._send_now: Callable[[], object] = _nobody
        self.trouble = ""
        """What ended the connection to the server last, in words; empty when nothing did."""
        self._server = server
        self._protocol = request.protocol
        self._client = RegistrationClient(
            request, jitter=random.random, timing=timing, heartbeat=heartbeat
        )
        self._timing = self._client.timing
        self._clock = clock
        self._lock = threading.Lock()
        self._requests: deque[_Request] = deque()
        self._over = False  # the link has ended: nobody carries out requests
        self._closing = False
        self._data_told = False
        self._failure: FeagiIOError | None = None
        # Waited for; the link's alone.
        self._connecting: list[Future[Any]] = []
        self._began: Future[Any] | None = None  # whose `connect` the registration is
        self._registrations_before = 0
        self._connect_when_out: list[_Request] = []
        self._configuring: list[Future[Any]] = []
        self._told: Mapping[str, Any] | None = None  # units, as told last
        self._taken: Mapping[str, Any] | None = None  # units that the server has taken once
        self._questions: list[tuple[type, Future[Any]]] = []

    def lead_to(self, link: AgentLink | AsyncAgentLink) -> None:
        """Have this link move the bytes."""
        self._wake = link.wake
        self._send_now = link.send_now

    # -- for users, from any thread -----------------------------------------------------------

    @property
    def state(self) -> AgentState:
        """The agent's state now."""
        state = self._client.state
        if state in _ACTIVE:
            return AgentState.ACTIVE_HAS_DATA if self.has_data else AgentState.ACTIVE_WAITING
        return state

    @property
    def closed(self) -> bool:
        """Whether `close` was asked for, or the link has ended."""
        return self._closing or self._over

    @property
    def agent_id(self) -> bytes:
        """48 bytes; zeros as long as the server has given none."""
        return self._client.agent_id

    def why_no_data(self) -> FeagiIOError:
        """What to raise where an inbox or the outbox is closed."""
        failure = self._failure
        if failure is not None and not self._closing:
            return failure
        return ClosedError(f"agent {self.name} is closed; make a new one")

    def send(self, fbc: SharedFBC) -> None:
        """Hand a sensory frame over, its lease included. Never waits; without a registration it
        is dropped and counted."""
        counters = self.counters[StreamType.SENSORY]
        state = self._client.state
        if self.closed or state in (AgentState.INACTIVE, AgentState.ERRORED):
            fbc.release()
            if self.closed or self._failure is not None:
                raise self.why_no_data()
            raise LocalError(f"agent {self.name} is {state.value}; connect it before it sends")
        counters.count_sent(len(fbc))
        if state not in _ACTIVE:
            counters.count_dropped("not registered")
            fbc.release()
            return
        self._outbox.put(fbc)
        self._send_now()

    def data_was_read(self, stream: StreamType) -> None:
        """A frame was taken from an inbox; whoever listens to states is told soon."""
        self.counters[stream].count_delivered()
        if self.state_changed.listener_count:
            self._wake()

    def connect(self, timeout_s: float | None) -> Future[None]:
        """Register. The future is done when the agent is in, or has given up."""

        def run(now_s: float) -> Sequence[ClientAction]:
            self._reopen()
            if self._client.state in _ACTIVE:
                _settle(request.answer)
                return ()
            if self._client.state is not AgentState.PENDING:
                self._began = request.answer
                self._registrations_before = self._client.registrations
                self._client.timing = self._timing_for(timeout_s)
            try:
                actions = self._client.connect(now_s)
            except LocalError:  # still on its way out
                self._connect_when_out.append(request)
                return ()
            self._connecting.append(request.answer)
            return actions

        request = _Request(run)
        return self._ask_link(request)

    def abandon(self, connecting: Future[None]) -> None:
        """Nobody waits for this `connect` any more: out again, unless others wait too or the
        agent was in before."""

        def run(now_s: float) -> Sequence[ClientAction]:
            if connecting in self._connecting:
                self._connecting.remove(connecting)
            self._connect_when_out = [
                later for later in self._connect_when_out if later.answer is not connecting
            ]
            came_in = self._client.registrations != self._registrations_before
            if self._connecting or (came_in and connecting is not self._began):
                return ()
            if self._client.state in (AgentState.ERRORED, AgentState.INACTIVE):
                return ()
            return self._client.close(now_s)

        with contextlib.suppress(ClosedError):
            self._ask_link(_Request(run))

    def configure(self, details: Mapping[str, Any]) -> Future[None]:
        """Tell which units the agent has. The future is done when the server has taken or
        refused them."""
        self._refuse_unless_connected("configure")

        def run(now_s: float) -> Sequence[ClientAction]:
            actions = self._client.configure(details, now_s)
            self._told = details
            self._configuring.append(request.answer)
            return actions

        request = _Request(run)
        return self._ask_link(request)

    def ask(self, question: Question) -> Future[Any]:
        """Ask the brain. The future's result is the message that answers."""
        self._refuse_unless_connected("ask")

        def run(now_s: float) -> Sequence[ClientAction]:
            actions = self._client.ask(question)
            # Those that nobody waits for any more are let go of here.
            waiting = [(kind, answer) for kind, answer in self._questions if not answer.done()]
            self._questions = [*waiting, (_ANSWERS[type(question)], request.answer)]
            return actions

        request = _Request(run)
        return self._ask_link(request)

    def close(self) -> None:
        """Have the agent leave and its link end. May be called more than once."""

        def run(now_s: float) -> Sequence[ClientAction]:
            return self._client.close(now_s)

        self._closing = True
        self.close_inboxes()
        with contextlib.suppress(ClosedError):
            self._ask_link(_Request(run))

    def snapshot(self) -> dict[str, Any]:
        """Counters as plain data: see `FeagiAgent.counters`."""
        return {
            "state": self.state.value,
            "registrations": self._client.registrations,
            "control_ignored": self._client.ignored,
            **self.rows(),
        }

    # -- for the link: LinkParty --------------------------------------------------------------

    def turn(self) -> Sequence[ClientAction]:
        """Carry out requests, then what is due. What a request brings about is told before the next
        one begins: who connects right after an agent has left must not hear that it has left."""
        actions: list[ClientAction] = []
        client = self._client
        now_s = self._clock()
        while self._requests and not actions:
            request = self._requests.popleft()
            try:
                actions += request.run(now_s)
            except Exception as error:
                _settle(request.answer, error)
        actions += client.tick(now_s)
        self._data_told = self.has_data
        actions += client.note_data(self._data_told)
        return actions

    @property
    def wait_s(self) -> float | None:
        """Seconds until something is due; None when nothing is."""
        due_s = self._client.next_tick_s
        return None if due_s is None else due_s - self._clock()

    @property
    def has_requests(self) -> bool:
        """Whether a user has asked for something, or listeners are to be told of data."""
        if self._requests:
            return True
        return self.state_changed.listener_count > 0 and self.has_data is not self._data_told

    @property
    def finished(self) -> bool:
        """Whether the agent was closed and is out."""
        return (
            self._closing
            and not self._requests
            and self._client.state in (AgentState.INACTIVE, AgentState.ERRORED)
        )

    def control_received(self, data: BytesLike) -> Sequence[ClientAction]:
        """A message of the control channel."""
        return self._client.receive(data, self._clock())

    def connection_lost(self, reason: str) -> Sequence[ClientAction]:
        """The control connection has ended, or the streams cannot be opened."""
        if reason != self.trouble:  # a server that does it again and again is told of once
            _log.warning("agent %s at %s: %s", self.name, self._server, reason)
        self.trouble = reason
        return self._client.connection_lost(reason, self._clock())

    def note(self, action: ClientAction) -> None:
        """Carry out what is the agent's own, and tell who waits."""
        if isinstance(action, StateChanged):
            self._note_state(action)
        elif isinstance(action, ConfigurationSettled):
            self._note_configuration(action.accepted)
        elif isinstance(action, Answered):
            for index, (kind, answer) in enumerate(self._questions):
                if isinstance(action.message, kind):
                    del self._questions[index]
                    _settle(answer, action.message)
                    break
        elif isinstance(action, (OpenStreams, CloseStreams)):
            self.forget_sensory()

    def link_ended(self, error: BaseException | None) -> None:
        """Nothing is carried out from here on: tell everybody who waits."""
        with self._lock:
            self._over = True
            requests = tuple(self._requests)
            self._requests.clear()
        if error is not None:
            self._failure = LocalError(
                f"agent {self.name} has ended with {error!r}; make a new one"
            )
        self._outbox.close()
        self.close_inboxes()
        self._refuse_all(self.why_no_data(), (request.answer for request in requests))

    # -- inside -------------------------------------------------------------------------------

    def _ask_link(self, request: _Request) -> Future[Any]:
        with self._lock:
            if self._over:
                raise self.why_no_data()
            self._requests.append(request)
        self._wake()
        return request.answer

    def _refuse_unless_connected(self, verb: str) -> None:
        state = self._client.state
        if self.closed or self._failure is not None:
            raise self.why_no_data()
        if state is AgentState.INACTIVE:
            raise LocalError(f"agent {self.name} is {state.value}; connect it before you {verb}")

    def _timing_for(self, timeout_s: float | None) -> ClientTiming:
        if timeout_s is None:
            return replace(self._timing, connect_timeout_s=None)
        return replace(
            self._timing,
            connect_timeout_s=timeout_s,
            answer_timeout_s=min(self._timing.answer_timeout_s, timeout_s),
        )

    def _reopen(self) -> None:
        """Begin anew after a failure."""
        self._failure = None
        if not self._closing:
            self.reopen_inboxes()

    def _note_state(self, change: StateChanged) -> None:
        if change.before not in _ACTIVE or change.after not in _ACTIVE:
            _log.info("agent %s is %s: %s", self.name, change.after.value, change.reason)
        if change.after in _ACTIVE and self._client.state in _ACTIVE:
            waiting, self._connecting = self._connecting, []
            for answer in waiting:
                _settle(answer)
        elif change.after is AgentState.ERRORED:
            self._failure = self._failure_of(change.reason)
            self.close_inboxes()
            self._refuse_all(self._failure)
        elif change.after is AgentState.INACTIVE:
            left = LocalError(f"agent {self.name} has left: {change.reason}")
            self._refuse_all(self.why_no_data() if self._closing else left)
            if not self._closing:
                self._requests.extend(self._connect_when_out)
                self._connect_when_out.clear()
        self.state_changed.emit(change)

    def _failure_of(self, reason: str) -> FeagiIOError:
        refusal = self._client.refusal
        if refusal is RefusalReason.INVALID_REQUEST:
            reason += self._advice_on_protocol("refuses")
        if refusal is not None:
            return RegistrationRefusedError(f"{self._server}: {reason}", refusal.value)
        if self._client.agent_id != bytes(len(self._client.agent_id)):
            return RegistrationRefusedError(f"{self._server}: {reason}")
        return DeliveryTimeoutError(
            f"{self._server}: {reason}; is a FEAGI engine or PNS listening there?"
            f"{self._advice_on_protocol('does not answer')}"
        )

    def _advice_on_protocol(self, what: str) -> str:
        """The likely reason when more was asked for than the real engine has."""
        if self._protocol in (ConnectionProtocol.ZMQ, ConnectionProtocol.WEBSOCKET):
            return ""
        asked = self._protocol.value
        return (
            f". The streams were asked for over {asked}: a server that carries none so, such as "
            f"the real engine, {what}; leave streams_over out there"
        )

    def _note_configuration(self, accepted: bool) -> None:
        waiting, self._configuring = self._configuring, []
        refusal = ConfigurationRefusedError(
            f"{self._server} has not acknowledged the units of agent {self.name}, though it "
            "answers heartbeats; look at the names of units and at the keys (the real engine "
            "tells the reason in its log only)"
        )
        if accepted:
            self._taken = self._told
        elif not waiting and self._taken is not None:
            # Good units that a server does not take after it came back: it is busy, with a genome
            # for example. Told again, and again, each time after the wait for the answer.
            _log.warning("%s", refusal)
            units = self._taken
            self._requests.append(_Request(lambda now_s: self._client.configure(units, now_s)))
        for answer in waiting:
            _settle(answer, None if accepted else refusal)

    def _refuse_all(self, error: FeagiIOError, more: Any = ()) -> None:
        asked = (answer for _, answer in self._questions)
        waiting = (*self._connecting, *self._configuring, *asked, *more)
        if self._closing or self._over:
            waiting = (*waiting, *(later.answer for later in self._connect_when_out))
        self._connecting, self._configuring, self._questions = [], [], []
        for answer in waiting:
            _settle(answer, error)


def _nobody() -> None:
    """The link is not made yet."""


def _settle(answer: Future[Any], outcome: object = None) -> None:
    """Give a result or an error to who waits, if he still does."""
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)
