# SPDX-License-Identifier: Apache-2.0
"""RegistrationClient: the agent's side of the control channel, without sockets or clocks.

    connect, configure, close, receive(bytes), tick, connection_lost -> actions to carry out

What happens in which phase stands in the table at the end of this module; an answer that the
table does not hold for a phase is ignored and counted. The rules:

  1  A registration is asked for once per attempt and awaited to a deadline; then the connection
     is given up with whatever still waits in it, for a server that starts late would read the
     request twice, and the next attempt goes over a new one.
  2  `already_registered` is our own session from before, which ends by itself: try again.
     `failed_invalid_request` may be a slot not free yet: try again, but not for ever.
     `failed_invalid_auth` will not change: stop.
  3  Who was registered once comes back by itself for as long as it takes: a silent heartbeat
     means that the server has forgotten us, by a restart or a new genome. The configuration is
     then sent again too.
  4  Waiting between attempts doubles up to a limit; between half and all of it is waited, as the
     jitter from outside has it, so that many agents do not come back at one moment.
  5  A configuration is acknowledged by `heart_beat`, which looks like the answer to a beat, and a
     bad one by silence. Answers come in order, so the beats under way are counted; no more are
     sent until the configuration is settled. If the acknowledgement does not come, a beat asks
     whether anybody is there: one answer says yes, and that the configuration was refused; two
     say that it was only slow.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final

from feagi_io_host.core.client_actions import (
    AgentState,
    Answered,
    ClientAction,
    ClientTiming,
    CloseStreams,
    ConfigurationSettled,
    EndSession,
    NewSession,
    OpenStreams,
    PeerAnswered,
    Send,
    StateChanged,
)
from feagi_io_host.core.container import BytesLike
from feagi_io_host.core.errors import FeagiDataError, LocalError
from feagi_io_host.core.heartbeat import Beat, Heartbeat, HeartbeatTiming
from feagi_io_host.core.messages import (
    CAPABILITY_NAMES,
    NO_AGENT_ID,
    AgentConfiguration,
    ControlMessage,
    DeregistrationRequest,
    DeregistrationResponse,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    PeerAnswer,
    PeerRefusal,
    ReceivedMessage,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
    RegistrationSuccess,
    TimestepChange,
    TimestepChangeAnswer,
    TimestepReport,
    TimestepRequest,
    decode_control,
    encode_control,
)

_MAX_DOUBLINGS: Final = 32


class _Phase(enum.Enum):
    IDLE = "idle"
    REGISTERING = "registering"
    BACKING_OFF = "backing off"
    ACTIVE = "active"
    LEAVING = "leaving"
    FAILED = "failed"


class _Input(enum.Enum):
    CONNECT = "connect"
    CLOSE = "close"
    LET_IN = "let in"
    REFUSED = "refused"
    LEFT = "left"
    DEADLINE = "deadline"
    LOST = "lost"


class _Settling(enum.Enum):
    """How far the configuration of this registration is; see rule 5."""

    NOTHING = "nothing under way"
    SENT = "sent"
    PROBING = "probing"
    LINGERING = "lingering"


_STATES: Final[Mapping[_Phase, AgentState]] = {
    _Phase.IDLE: AgentState.INACTIVE,
    _Phase.REGISTERING: AgentState.PENDING,
    _Phase.BACKING_OFF: AgentState.PENDING,
    _Phase.ACTIVE: AgentState.ACTIVE_WAITING,
    _Phase.LEAVING: AgentState.PENDING,
    _Phase.FAILED: AgentState.ERRORED,
}


class RegistrationClient:
    """Gets an agent in, keeps it in, and gets it out.

    `jitter` gives numbers from 0 to below 1. Every call returns what is to be done now, in
    order; hand in what has arrived before calling `tick`. Not thread-safe.
    """

    def __init__(
        self,
        request: RegistrationRequest,
        *,
        jitter: Callable[[], float],
        timing: ClientTiming | None = None,
        heartbeat: HeartbeatTiming | None = None,
    ) -> None:
        self.request = request
        self.timing = ClientTiming() if timing is None else timing
        self.agent_id = NO_AGENT_ID
        self.registrations = 0
        """How often the agent was let in; more than once means that it came back."""
        self.ignored = 0
        """Messages that could not be read or that nobody waited for."""
        self.refusal: RefusalReason | None = None
        """Why the last attempt was refused; None when it was not, or had no answer."""
        self._jitter = jitter
        self._heartbeat = Heartbeat(heartbeat)
        self._phase = _Phase.IDLE
        self._has_data = False
        self._due_s: float | None = None
        self._connect_by_s: float | None = None
        self._attempts = 0
        self._refusals = 0
        self._configuration: AgentConfiguration | None = None
        self._settling = _Settling.NOTHING
        self._beats_out = 0  # beats without an answer yet, in the session
        self._actions: list[ClientAction] = []

    @property
    def state(self) -> AgentState:
        """What a user sees."""
        if self._has_data and self._phase is _Phase.ACTIVE:
            return AgentState.ACTIVE_HAS_DATA
        return _STATES[self._phase]

    @property
    def next_tick_s(self) -> float | None:
        """When `tick` has something to do; None when only a call or a message can change
        anything."""
        due = [at for at in (self._due_s, self._heartbeat.next_tick_s) if at is not None]
        return min(due, default=None)

    # -- what a user wants --------------------------------------------------------------------

    def connect(self, now_s: float) -> tuple[ClientAction, ...]:
        """Register; nothing when that is under way or done. Raises LocalError while leaving."""
        if self._phase is _Phase.LEAVING:
            raise LocalError("the agent is still leaving; connect again when it is inactive")
        self._step(_Input.CONNECT, "connect", now_s)
        return self._flush()

    def configure(self, details: Mapping[str, Any], now_s: float) -> tuple[ClientAction, ...]:
        """Tell which units the agent has: now, or as soon as it is in, and again each time that
        it has come back. ConfigurationSettled tells the outcome.

        Raises FeagiDataError for details of the wrong shape, LocalError while another
        configuration is not settled.
        """
        if self._settling is not _Settling.NOTHING:
            raise LocalError("a configuration is under way; wait for ConfigurationSettled")
        configuration = AgentConfiguration(details)
        self._configuration = configuration
        if self._phase is _Phase.ACTIVE:
            self._send_configuration(configuration, now_s)
        return self._flush()

    def ask(
        self, question: HealthCheckRequest | TimestepRequest | TimestepChange
    ) -> tuple[ClientAction, ...]:
        """Ask the brain something; `Answered` brings what it says, if it says anything: an
        engine that only echoes the question does not count. Raises LocalError unless active."""
        if self._phase is not _Phase.ACTIVE:
            raise LocalError(f"the agent is {self.state.value}; only an active one can ask")
        self._send(question)
        return self._flush()

    def close(self, now_s: float) -> tuple[ClientAction, ...]:
        """Leave; may be called in any state and more than once."""
        self._step(_Input.CLOSE, "closed", now_s)
        return self._flush()

    def note_data(self, waiting: bool) -> tuple[ClientAction, ...]:
        """Whether received data waits to be read, as far as an active agent is concerned."""
        before = self.state
        self._has_data = waiting and self._phase is _Phase.ACTIVE
        self._tell_change(before, "data came" if waiting else "data was read")
        return self._flush()

    # -- what happens -------------------------------------------------------------------------

    def connection_lost(self, reason: str, now_s: float) -> tuple[ClientAction, ...]:
        """The control connection has ended, where a transport can tell."""
        self._step(_Input.LOST, reason, now_s)
        return self._flush()

    def receive(self, data: BytesLike, now_s: float) -> tuple[ClientAction, ...]:
        """One message from the control connection; whatever it holds, nothing is raised."""
        try:
            _, message = decode_control(data)
        except FeagiDataError:
            self.ignored += 1
            return ()
        self._take(message, now_s)
        return self._flush()

    def tick(self, now_s: float) -> tuple[ClientAction, ...]:
        """Do what is due."""
        if self._due_s is not None and now_s >= self._due_s:
            self._due_s = None
            if self._settling is not _Settling.NOTHING:
                self._settling_due(now_s)
            else:
                self._step(_Input.DEADLINE, "no answer in time", now_s)
        beat = self._heartbeat.tick(now_s)
        if beat is Beat.SEND:
            self._beats_out += 1
            self._send(HeartBeat())
        elif beat is Beat.SILENT:
            missed = self._heartbeat.timing.max_unanswered
            self._step(_Input.LOST, f"{missed} heartbeats without an answer", now_s)
        return self._flush()

    def _take(self, message: ReceivedMessage, now_s: float) -> None:
        if isinstance(message, HeartBeat) and self._phase is _Phase.ACTIVE:
            self._take_beat(now_s)
        elif isinstance(message, RegistrationSuccess):
            self._step(_Input.LET_IN, "registered", now_s, message)
        elif isinstance(message, RegistrationRefusal):
            self._step(_Input.REFUSED, message.reason.value, now_s, message)
        elif isinstance(message, DeregistrationResponse):
            self._step(_Input.LEFT, "left", now_s)
        elif (
            isinstance(message, (HealthReport, TimestepReport, TimestepChangeAnswer))
            and self._phase is _Phase.ACTIVE
        ):
            self._actions.append(Answered(message))
        elif isinstance(message, (PeerAnswer, PeerRefusal)) and self._phase is _Phase.ACTIVE:
            self._actions.append(PeerAnswered(message))
        else:
            self.ignored += 1

    def _step(self, what: _Input, reason: str, now_s: float, message: Any = None) -> None:
        act = _TABLE.get((self._phase, what))
        if act is not None:
            act(self, reason, now_s, message)
        elif what not in (_Input.CONNECT, _Input.CLOSE, _Input.LOST):
            self.ignored += 1

    # -- what the table names -----------------------------------------------------------------

    def _begin(self, reason: str, now_s: float, message: Any) -> None:
        limit = self.timing.connect_timeout_s
        self._connect_by_s = None if limit is None else now_s + limit
        self._attempts = 0
        self._refusals = 0
        self.agent_id = NO_AGENT_ID
        self._actions.append(NewSession())
        self._ask_in(reason, now_s, message)

    def _ask_in(self, reason: str, now_s: float, message: Any) -> None:
        self._attempts += 1
        self.refusal = None
        self._move(_Phase.REGISTERING, reason)
        self._due_s = now_s + self.timing.answer_timeout_s
        self._actions.append(Send(encode_control(self.request)))

    def _no_answer(self, reason: str, now_s: float, message: Any) -> None:
        self._actions.append(NewSession())
        self._back_off(reason, now_s)

    def _refused(self, reason: str, now_s: float, message: RegistrationRefusal) -> None:
        self.refusal = message.reason
        if message.reason is RefusalReason.INVALID_AUTH:
            self._fail(f"{reason}: the server does not take this token", now_s)
            return
        if message.reason is RefusalReason.INVALID_REQUEST:
            self._refusals += 1
            if self._refusals > self.timing.max_refusals:
                self._fail(f"{reason}, {self._refusals} times in a row", now_s)
                return
        self._back_off(reason, now_s)

    def _let_in(self, reason: str, now_s: float, message: RegistrationSuccess) -> None:
        missing = [flag for flag in self.request.capabilities if flag not in message.endpoints]
        self.agent_id = message.agent_id
        if missing:
            self._send(DeregistrationRequest("no endpoint"))
            names = ", ".join(CAPABILITY_NAMES[flag] for flag in missing)
            self._fail(f"the server gave no endpoint for {names}", now_s)
            return
        self.registrations += 1
        self._attempts = 0
        self._refusals = 0
        self._connect_by_s = None
        self._beats_out = 0
        self._due_s = None
        asked_for = {flag: message.endpoints[flag] for flag in self.request.capabilities}
        self._actions.append(OpenStreams(message.agent_id, asked_for))
        self._move(_Phase.ACTIVE, reason)
        if self._configuration is None:
            self._heartbeat.start(now_s)
        else:
            self._send_configuration(self._configuration, now_s)

    def _forgotten(self, reason: str, now_s: float, message: Any) -> None:
        self._withdraw()
        self._actions.append(NewSession())
        self._back_off(reason, now_s)

    def _leave(self, reason: str, now_s: float, message: Any) -> None:
        # From REGISTERING too: the request may have been granted, and would hold a slot.
        if self._phase is _Phase.ACTIVE:
            self._withdraw()
        self._send(DeregistrationRequest(reason))
        self._move(_Phase.LEAVING, reason)
        self._due_s = now_s + self.timing.leave_timeout_s

    def _gone(self, reason: str, now_s: float, message: Any) -> None:
        self._due_s = None
        if self._phase is not _Phase.FAILED:
            self._actions.append(EndSession())
        self.agent_id = NO_AGENT_ID
        self._move(_Phase.IDLE, reason)

    # -- inside -------------------------------------------------------------------------------

    def _back_off(self, reason: str, now_s: float) -> None:
        timing = self.timing
        doubled = timing.backoff_first_s * 2.0 ** min(max(self._attempts - 1, 0), _MAX_DOUBLINGS)
        wait_s = min(doubled, timing.backoff_limit_s) * (0.5 + 0.5 * self._jitter())
        if self._connect_by_s is not None and now_s + wait_s >= self._connect_by_s:
            self._fail(
                f"not registered within {timing.connect_timeout_s} s and {self._attempts} "
                f"attempts; the last one: {reason}",
                now_s,
            )
            return
        self._move(_Phase.BACKING_OFF, reason)
        self._due_s = now_s + wait_s

    def _fail(self, reason: str, now_s: float) -> None:
        self._due_s = None
        self._actions.append(EndSession())
        self._move(_Phase.FAILED, reason)

    def _withdraw(self) -> None:
        """What ends with a registration."""
        self._heartbeat.stop()
        self._settling = _Settling.NOTHING
        self._due_s = None
        self._actions.append(CloseStreams())

    def _send_configuration(self, configuration: AgentConfiguration, now_s: float) -> None:
        self._heartbeat.stop()
        self._settling = _Settling.SENT
        self._due_s = now_s + self.timing.configuration_timeout_s
        self._send(configuration)

    def _take_beat(self, now_s: float) -> None:
        if self._beats_out > 0:
            self._beats_out -= 1
            if self._settling is _Settling.NOTHING:
                self._heartbeat.answered(now_s)
        elif self._settling is _Settling.PROBING:
            self._settling = _Settling.LINGERING
            self._due_s = now_s + self.timing.settle_s
        elif self._settling is not _Settling.NOTHING:
            self._settled(True, now_s)
        else:
            self.ignored += 1

    def _settling_due(self, now_s: float) -> None:
        if self._settling is _Settling.SENT:
            self._settling = _Settling.PROBING
            self._due_s = now_s + self.timing.answer_timeout_s
            self._send(HeartBeat())
        elif self._settling is _Settling.PROBING:
            self._step(_Input.LOST, "neither configuration nor heartbeat was answered", now_s)
        else:
            self._configuration = None
            self._settled(False, now_s)

    def _settled(self, accepted: bool, now_s: float) -> None:
        self._settling = _Settling.NOTHING
        self._due_s = None
        self._actions.append(ConfigurationSettled(accepted))
        self._heartbeat.start(now_s)

    def _send(self, message: ControlMessage) -> None:
        self._actions.append(Send(encode_control(message, self.agent_id)))

    def _move(self, phase: _Phase, reason: str) -> None:
        before = self.state
        self._phase = phase
        if phase is not _Phase.ACTIVE:
            self._has_data = False
        self._tell_change(before, reason)

    def _tell_change(self, before: AgentState, reason: str) -> None:
        if self.state is not before:
            self._actions.append(StateChanged(before, self.state, reason))

    def _flush(self) -> tuple[ClientAction, ...]:
        actions = tuple(self._actions)
        self._actions.clear()
        return actions


_Act = Callable[[RegistrationClient, str, float, Any], None]

_TABLE: Final[Mapping[tuple[_Phase, _Input], _Act]] = {
    (_Phase.IDLE, _Input.CONNECT): RegistrationClient._begin,
    (_Phase.FAILED, _Input.CONNECT): RegistrationClient._begin,
    (_Phase.FAILED, _Input.CLOSE): RegistrationClient._gone,
    (_Phase.REGISTERING, _Input.LET_IN): RegistrationClient._let_in,
    (_Phase.REGISTERING, _Input.REFUSED): RegistrationClient._refused,
    (_Phase.REGISTERING, _Input.DEADLINE): RegistrationClient._no_answer,
    (_Phase.REGISTERING, _Input.LOST): RegistrationClient._no_answer,
    (_Phase.REGISTERING, _Input.CLOSE): RegistrationClient._leave,
    (_Phase.BACKING_OFF, _Input.DEADLINE): RegistrationClient._ask_in,
    (_Phase.BACKING_OFF, _Input.CLOSE): RegistrationClient._gone,
    (_Phase.ACTIVE, _Input.LOST): RegistrationClient._forgotten,
    (_Phase.ACTIVE, _Input.CLOSE): RegistrationClient._leave,
    (_Phase.LEAVING, _Input.LEFT): RegistrationClient._gone,
    (_Phase.LEAVING, _Input.DEADLINE): RegistrationClient._gone,
    (_Phase.LEAVING, _Input.LOST): RegistrationClient._gone,
}
