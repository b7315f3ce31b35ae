# SPDX-License-Identifier: Apache-2.0
"""RegistrationServer: the server's side of the control channel, without sockets or clocks.

    receive(peer, bytes, now_s) -> ServerOutcome(reply, events)        tick(now_s) -> events

A session is a peer; the agent id in a message's header is not looked at, as in the engine. What
may happen in which state stands in the table at the end of this module; what it does not hold is
met with silence, and counted. The rules:

  1  An unregistered peer may send 1024 bytes; longer messages, and what cannot be read, get no
     answer. The session stays usable, unless a transport ends the connection of one that goes on
     sending far more.
  2  Messages are counted against the peer's own rate; those of unregistered peers also against
     one rate for all of them together, so that many new peers cost no more than a few. Agents
     that are in do not feel it.
  3  The token is compared first, so that only who knows it learns anything else.
  4  A second registration on a live session gets no answer.
  5  A descriptor that another peer holds: `already_registered` while that one was heard of
     within 2 s and asked for the same capabilities, else the newcomer replaces it.
  6  A peer has one agent id for good: who comes back over the same peer gets the same id, also
     after leaving. So many peers are remembered; then the one not seen for longest is forgotten.
  7  All endpoints or none: if one cannot be had, the others are given back.
"""

from __future__ import annotations

import hmac
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, TypeVar

from feagi_io_host.core.agent_registry import AgentRecord, AgentRegistry, Peer
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ConfigError, FeagiDataError, LocalError
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered
from feagi_io_host.core.messages import (
    AUTH_TOKEN_BYTES,
    NO_AGENT_ID,
    AgentConfiguration,
    ControlMessage,
    DeregistrationRequest,
    DeregistrationResponse,
    Endpoint,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    PeerOffer,
    ReceivedMessage,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
    RegistrationSuccess,
    TimestepChange,
    TimestepChangeAnswer,
    TimestepReport,
    TimestepRequest,
    UnacceptableRequest,
    decode_control,
    encode_control,
)
from feagi_io_host.core.rate_limit import TokenBucket
from feagi_io_host.core.server_seams import (
    AgentConfigured,
    BrainControl,
    EndpointAllocator,
    Ignored,
    PeerOffered,
    ServerEvent,
    ServerLimits,
    ServerOutcome,
)
from feagi_wire.const import AGENT_ID_BYTES

_log = logging.getLogger("feagi_io.core")

_SILENCE: Final = ServerOutcome()
_Answer = TypeVar("_Answer")


class _Session:
    """What is remembered of a peer whether it is registered or not."""

    __slots__ = ("agent_id", "bucket", "peer")

    def __init__(self, peer: Peer, bucket: TokenBucket) -> None:
        self.peer = peer
        self.bucket = bucket
        self.agent_id = NO_AGENT_ID  # until it gets its first answer


class RegistrationServer:
    """Answers the control messages of agents and keeps the registry.

    `new_agent_id` makes 48 bytes that nobody can guess. With `token` (32 bytes) an agent must
    know it; without, every agent is let in. The events tell of ids; `registry` has the records.
    `takes_offers`: whether somebody acts on PeerOffered, which the answer comes after; else offers
    are out of place. Used by one thread; `registry` may be used by all. Raises ConfigError for
    another length of the token.
    """

    def __init__(
        self,
        registry: AgentRegistry,
        endpoints: EndpointAllocator,
        *,
        new_agent_id: Callable[[], bytes],
        token: bytes | None = None,
        brain: BrainControl | None = None,
        limits: ServerLimits | None = None,
        takes_offers: bool = False,
    ) -> None:
        if token is not None and len(token) != AUTH_TOKEN_BYTES:
            raise ConfigError(f"token of {len(token)} bytes; {AUTH_TOKEN_BYTES} are needed")
        self.registry = registry
        self.limits = ServerLimits() if limits is None else limits
        self._endpoints = endpoints
        self._new_agent_id = new_agent_id
        self._token = token
        self._brain = brain
        self._takes_offers = takes_offers
        self._sessions: OrderedDict[Peer, _Session] = OrderedDict()
        self._newcomers: TokenBucket | None = None
        self._ignored = dict.fromkeys(Ignored, 0)
        self._refused = dict.fromkeys(RefusalReason, 0)
        self._counted = {"registered": 0, "replaced": 0, "left": 0, "timed_out": 0}

    # -- in and out ---------------------------------------------------------------------------

    def receive(
        self, peer: Peer, data: bytes | bytearray | memoryview, now_s: float
    ) -> ServerOutcome:
        """Act on one message of `peer`. `data` must not change any more; whatever it holds,
        nothing is raised for it."""
        session = self._sessions.get(peer)
        record = self.registry.find_by_peer(peer)
        limits = self.limits
        # A refusal by rate comes before anything is looked at or remembered: it has to be the
        # cheapest one, and a flood of new peers must not make us forget the others.
        if session is not None and not session.bucket.take(now_s):
            return self._ignore(Ignored.TOO_OFTEN)
        if record is None and not self._admit(now_s):
            return self._ignore(Ignored.TOO_OFTEN)
        session = self._remember(peer, session, now_s)
        size = memoryview(data).nbytes
        if size > (limits.unregistered_bytes if record is None else limits.registered_bytes):
            return self._ignore(Ignored.OVERSIZED, f"{size} bytes")
        depth = limits.unregistered_depth if record is None else limits.registered_depth
        try:
            _, message = decode_control(data, max_depth=depth)
        except FeagiDataError as error:
            return self._ignore(Ignored.UNREADABLE, str(error))
        if record is None:
            act = _UNREGISTERED.get(type(message))
        else:
            act = _REGISTERED.get(type(message))
            session.agent_id = record.agent_id
            self.registry.touch(record.agent_id, now_s)
        if act is None:
            return self._ignore(Ignored.OUT_OF_PLACE, type(message).__name__)
        return act(self, session, message, now_s)

    def tick(self, now_s: float) -> tuple[AgentDisconnected, ...]:
        """Let go of agents that were silent for the registry's timeout."""
        events = []
        for record in self.registry.expire(now_s):
            self._free(record)
            self._counted["timed_out"] += 1
            events.append(
                AgentDisconnected(record.agent_id, f"silent for {self.registry.timeout_s} s")
            )
        return tuple(events)

    @property
    def next_tick_s(self) -> float | None:
        """When `tick` is next of use; None while nobody is registered."""
        return self.registry.next_expiry_s

    def dismiss(self, agent_id: bytes, reason: str) -> tuple[AgentDisconnected, ...]:
        """Put an agent out, when its connection has ended for example; nothing when it is not
        registered any more."""
        record = self.registry.remove(agent_id)
        if record is None:
            return ()
        self._free(record)
        self._counted["left"] += 1
        return (AgentDisconnected(agent_id, reason),)

    def counters(self) -> dict[str, Any]:
        """What happened so far: `registered`, `replaced`, `left`, `timed_out`, and by reason
        `refused` and `ignored`. `sessions` are the peers remembered now."""
        return {
            **self._counted,
            "refused": {reason.value: count for reason, count in self._refused.items()},
            "ignored": {reason.value: count for reason, count in self._ignored.items()},
            "sessions": len(self._sessions),
        }

    # -- sessions -----------------------------------------------------------------------------

    def _remember(self, peer: Peer, session: _Session | None, now_s: float) -> _Session:
        if session is None:
            session = _Session(peer, TokenBucket(self.limits.peer_rate, now_s))
            session.bucket.take(now_s)
            if len(self._sessions) >= self.limits.remembered_peers:
                self._sessions.popitem(last=False)
            self._sessions[peer] = session
        else:
            self._sessions.move_to_end(peer)
        return session

    def _admit(self, now_s: float) -> bool:
        if self._newcomers is None:
            self._newcomers = TokenBucket(self.limits.newcomer_rate, now_s)
        return self._newcomers.take(now_s)

    def _ignore(self, reason: Ignored, detail: str = "") -> ServerOutcome:
        self._ignored[reason] += 1
        _log.debug("control message ignored, %s: %s", reason.value, detail)
        return _SILENCE

    def _identify(self, session: _Session) -> bytes:
        if session.agent_id == NO_AGENT_ID:
            agent_id = self._new_agent_id()
            if len(agent_id) != AGENT_ID_BYTES or agent_id == NO_AGENT_ID:
                raise LocalError(
                    f"new_agent_id gave {len(agent_id)} bytes; {AGENT_ID_BYTES} that are not all "
                    "zero are needed"
                )
            session.agent_id = agent_id
        return session.agent_id

    def _answer(
        self, session: _Session, message: ControlMessage, *events: ServerEvent
    ) -> ServerOutcome:
        return ServerOutcome(encode_control(message, self._identify(session)), events)

    # -- what the tables name -----------------------------------------------------------------

    def _refuse(
        self, session: _Session, reason: RefusalReason, why: str, *events: ServerEvent
    ) -> ServerOutcome:
        self._refused[reason] += 1
        _log.info("registration refused, %s: %s", reason.value, why)
        return self._answer(session, RegistrationRefusal(reason), *events)

    def _refuse_unacceptable(
        self, session: _Session, message: UnacceptableRequest, now_s: float
    ) -> ServerOutcome:
        if not self._knows_token(message.auth_token):
            return self._refuse(session, RefusalReason.INVALID_AUTH, "wrong token")
        return self._refuse(session, RefusalReason.INVALID_REQUEST, message.reason)

    def _register(
        self, session: _Session, message: RegistrationRequest, now_s: float
    ) -> ServerOutcome:
        if not self._knows_token(message.auth_token):
            return self._refuse(session, RefusalReason.INVALID_AUTH, "wrong token")
        events: list[ServerEvent] = []
        holder = self.registry.find_by_descriptor(message.descriptor)
        if holder is not None:
            if self._is_lively(holder, message, now_s):
                return self._refuse(
                    session, RefusalReason.ALREADY_REGISTERED, message.descriptor.agent_name
                )
            # First out, then in: the newcomer may need the endpoints of the one it replaces.
            if self.registry.remove(holder.agent_id) is not None:
                self._free(holder)
                self._counted["replaced"] += 1
                events.append(
                    AgentDisconnected(holder.agent_id, "replaced by a new session of its own")
                )
        return self._take_in(session, message, now_s, events)

    def _take_in(
        self,
        session: _Session,
        message: RegistrationRequest,
        now_s: float,
        events: list[ServerEvent],
    ) -> ServerOutcome:
        record = AgentRecord(
            self._identify(session),
            session.peer,
            message.descriptor,
            message.capabilities,
            message.protocol,
            MappingProxyType({}),
            now_s,
        )
        endpoints = self._allocate(record)
        if endpoints is None:
            return self._refuse(
                session, RefusalReason.INVALID_REQUEST,
                f"no {message.protocol.value} endpoint left", *events,
            )  # fmt: skip
        record = replace(record, endpoints=endpoints)
        conflict = self.registry.add(record)
        if conflict is not None:
            self._free(record)
            return self._refuse(session, RefusalReason.INVALID_REQUEST, conflict.value, *events)
        self._counted["registered"] += 1
        success = RegistrationSuccess(record.agent_id, endpoints)
        return self._answer(
            session, success, *events, AgentRegistered(record.agent_id, record.descriptor)
        )

    def _deregister(
        self, session: _Session, message: DeregistrationRequest, now_s: float
    ) -> ServerOutcome:
        # The text is the agent's own: cut and quoted before it gets near a log.
        reason = "left" if message.reason is None else f"left: {message.reason[:80]!r}"
        events = self.dismiss(session.agent_id, reason)
        return self._answer(session, DeregistrationResponse(bool(events)), *events)

    def _deny_leaving(
        self, session: _Session, message: DeregistrationRequest, now_s: float
    ) -> ServerOutcome:
        return self._answer(session, DeregistrationResponse(False))

    def _beat(self, session: _Session, message: HeartBeat, now_s: float) -> ServerOutcome:
        return self._answer(session, HeartBeat())

    def _configure(
        self, session: _Session, message: AgentConfiguration, now_s: float
    ) -> ServerOutcome:
        return self._answer(session, HeartBeat(), AgentConfigured(session.agent_id, message))

    def _pass_on_offer(self, session: _Session, message: PeerOffer, now_s: float) -> ServerOutcome:
        if not self._takes_offers:
            return self._ignore(Ignored.OUT_OF_PLACE, "nobody here makes peer connections")
        return ServerOutcome(None, (PeerOffered(session.agent_id, message.sdp),))

    def _tell_health(
        self, session: _Session, message: HealthCheckRequest, now_s: float
    ) -> ServerOutcome:
        brain = self._brain
        report = HealthReport(False, False, False) if brain is None else self._ask(brain.health)
        if report is None:
            return self._ignore(Ignored.BRAIN_FAILED)
        return self._answer(session, replace(report, connected_agents=len(self.registry)))

    def _tell_timestep(
        self, session: _Session, message: TimestepRequest, now_s: float
    ) -> ServerOutcome:
        if self._brain is None:
            return self._ignore(Ignored.NO_BRAIN)
        timestep_s = self._ask(self._brain.timestep_s)
        if timestep_s is None:
            return self._ignore(Ignored.BRAIN_FAILED)
        return self._answer(session, TimestepReport(timestep_s))

    def _change_timestep(
        self, session: _Session, message: TimestepChange, now_s: float
    ) -> ServerOutcome:
        brain = self._brain
        if brain is None or not message.timestep_s > 0.0:
            return self._answer(session, TimestepChangeAnswer(False))
        changed = self._ask(
            lambda: bool(brain.change_timestep(session.agent_id, message.timestep_s))
        )
        if changed is None:
            return self._ignore(Ignored.BRAIN_FAILED)
        return self._answer(session, TimestepChangeAnswer(changed))

    # -- inside -------------------------------------------------------------------------------

    def _ask(self, question: Callable[[], _Answer]) -> _Answer | None:
        """What the brain says; None when it raised. One question must not end the service."""
        try:
            return question()
        except Exception:
            _log.exception("the brain failed at a question of an agent; it gets no answer")
            return None

    def _knows_token(self, token: bytes) -> bool:
        return self._token is None or hmac.compare_digest(self._token, token)

    def _is_lively(self, holder: AgentRecord, message: RegistrationRequest, now_s: float) -> bool:
        if holder.capabilities != message.capabilities:
            return False
        return self.registry.silent_for_s(holder.agent_id, now_s) < self.limits.takeover_s

    def _allocate(self, record: AgentRecord) -> Mapping[AgentCapabilities, Endpoint] | None:
        found: dict[AgentCapabilities, Endpoint] = {}
        for capability in record.capabilities:
            try:
                endpoint = self._endpoints.allocate(record.agent_id, capability, record.protocol)
            except Exception:
                # A carrier that cannot open a port must not end the service for everybody.
                _log.exception("no endpoint for %s", capability)
                endpoint = None
            if endpoint is None:
                self._free(replace(record, endpoints=found))
                return None
            found[capability] = endpoint
        return MappingProxyType(found)

    def _free(self, record: AgentRecord) -> None:
        for capability, endpoint in record.endpoints.items():
            try:
                self._endpoints.free(record.agent_id, capability, endpoint)
            except Exception:
                _log.exception("endpoint %s could not be given back", endpoint.url)


_Act = Callable[[RegistrationServer, _Session, Any, float], ServerOutcome]

# The state of a session and the message that came -> what is done. Nothing else gets an answer.
_UNREGISTERED: Final[Mapping[type[ReceivedMessage], _Act]] = {
    RegistrationRequest: RegistrationServer._register,
    UnacceptableRequest: RegistrationServer._refuse_unacceptable,
    DeregistrationRequest: RegistrationServer._deny_leaving,
}
_REGISTERED: Final[Mapping[type[ReceivedMessage], _Act]] = {
    HeartBeat: RegistrationServer._beat,
    AgentConfiguration: RegistrationServer._configure,
    DeregistrationRequest: RegistrationServer._deregister,
    HealthCheckRequest: RegistrationServer._tell_health,
    TimestepRequest: RegistrationServer._tell_timestep,
    TimestepChange: RegistrationServer._change_timestep,
    PeerOffer: RegistrationServer._pass_on_offer,
}
