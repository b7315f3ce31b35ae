# SPDX-License-Identifier: Apache-2.0
"""What holds for the server and its registry after any history of messages, losses and time."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered
from feagi_io_host.core.messages import (
    DeregistrationRequest,
    DeregistrationResponse,
    HeartBeat,
    RefusalReason,
    RegistrationRefusal,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.server_seams import ServerLimits
from tests.feagi_io_host.core.control import MOVE, SENSE, TOKEN, World, request

SLOTS = 5
MAX_AGENTS = 3
PEERS = st.sampled_from(["p0", "p1", "p2", "p3", "p4", "p5"])
NAMES = st.sampled_from(["n0", "n1", "n2", "n3", "n4"])
CAPABILITIES = st.sampled_from([AgentCapabilities(0), SENSE, SENSE | MOVE])


class Registrations(RuleBasedStateMachine):
    """A server with few slots, a model of who is in, and peers that do as they like."""

    def __init__(self) -> None:
        super().__init__()
        wide = Rate(1e6, 10**6)
        self.world = World(
            slots=SLOTS,
            max_agents=MAX_AGENTS,
            token=TOKEN,
            limits=ServerLimits(peer_rate=wide, newcomer_rate=wide),
        )
        self.now_s = 0.0
        self.inside: dict[bytes, tuple[str, str]] = {}  # as the events tell it
        self.last_seen_s: dict[bytes, float] = {}
        self.ids: dict[str, bytes] = {}

    def take(self, events: tuple[Any, ...]) -> None:
        for event in events:
            if isinstance(event, AgentRegistered):
                assert event.agent_id not in self.inside
                record = self.world.registry.find_by_descriptor(event.descriptor)
                assert record is not None
                peer = str(record.peer)
                self.inside[event.agent_id] = (peer, event.descriptor.agent_name)
                self.last_seen_s[event.agent_id] = self.now_s
            else:
                assert isinstance(event, AgentDisconnected)
                del self.inside[event.agent_id]

    def say(self, peer: str, data: bytes) -> Any:
        was_in = self.agent_of(peer)
        outcome = self.world.server.receive(peer, data, self.now_s)
        self.take(outcome.events)
        if outcome.reply is None:
            return None
        agent_id, message = decode_control(outcome.reply)
        assert self.ids.setdefault(peer, agent_id) == agent_id, "a peer has one id for good"
        if was_in is not None and was_in in self.inside:
            self.last_seen_s[was_in] = self.now_s
        return message

    def agent_of(self, peer: str) -> bytes | None:
        return next((i for i, (p, _) in self.inside.items() if p == peer), None)

    @rule(peer=PEERS, name=NAMES, capabilities=CAPABILITIES)
    def register(self, peer: str, name: str, capabilities: AgentCapabilities) -> None:
        was_in = self.agent_of(peer)
        holder = next((i for i, (_, n) in self.inside.items() if n == name), None)
        answer = self.say(peer, encode_control(request(name, capabilities, TOKEN)))
        if was_in is not None:
            assert answer is None
            self.last_seen_s[was_in] = self.now_s
        elif isinstance(answer, RegistrationSuccess):
            assert self.inside[answer.agent_id] == (peer, name)
            assert set(answer.endpoints) == set(capabilities)
            assert holder not in self.inside or holder == answer.agent_id
        else:
            assert isinstance(answer, RegistrationRefusal)
            if answer.reason is RefusalReason.ALREADY_REGISTERED:
                assert holder is not None
                assert self.now_s - self.last_seen_s[holder] < 2.0

    @rule(peer=PEERS, name=NAMES)
    def guess_the_token(self, peer: str, name: str) -> None:
        before = dict(self.inside)
        was_in = self.agent_of(peer)
        answer = self.say(peer, encode_control(request(name, SENSE, bytes(32))))
        if was_in is None:
            assert answer == RegistrationRefusal(RefusalReason.INVALID_AUTH)
        else:
            assert answer is None
            self.last_seen_s[was_in] = self.now_s
        assert self.inside == before

    @rule(peer=PEERS)
    def beat(self, peer: str) -> None:
        was_in = self.agent_of(peer)
        answer = self.say(peer, encode_control(HeartBeat()))
        assert (answer == HeartBeat()) is (was_in is not None)

    @rule(peer=PEERS)
    def leave(self, peer: str) -> None:
        was_in = self.agent_of(peer)
        answer = self.say(peer, encode_control(DeregistrationRequest()))
        assert answer == DeregistrationResponse(was_in is not None)
        assert self.agent_of(peer) is None

    @rule(peer=PEERS, junk=st.binary(max_size=80))
    def babble(self, peer: str, junk: bytes) -> None:
        before = dict(self.inside)
        assert self.say(peer, junk) is None
        assert self.inside == before

    @rule(step_s=st.sampled_from([0.5, 1.9, 2.0, 15.0, 29.0, 31.0]))
    def time_passes(self, step_s: float) -> None:
        self.now_s += step_s
        due = {i for i in self.inside if self.now_s >= self.last_seen_s[i] + 30.0}
        before = set(self.inside)
        self.take(self.world.server.tick(self.now_s))
        assert before - set(self.inside) == due

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def data_arrives(self, data: st.DataObject) -> None:
        agent_id = data.draw(st.sampled_from(sorted(self.inside)))
        assert self.world.registry.touch(agent_id, self.now_s)
        self.last_seen_s[agent_id] = self.now_s

    @rule()
    def everybody_dies(self) -> None:
        self.now_s += 31.0
        self.take(self.world.server.tick(self.now_s))
        assert not self.inside
        assert len(self.world.registry) == 0
        assert self.world.slots.out == {}

    @invariant()
    def the_registry_is_what_the_events_told(self) -> None:
        records = self.world.registry.records()
        assert {r.agent_id: (r.peer, r.descriptor.agent_name) for r in records} == self.inside
        assert len(records) <= MAX_AGENTS

    @invariant()
    def one_session_for_a_descriptor_and_for_a_peer(self) -> None:
        peers = [peer for peer, _ in self.inside.values()]
        names = [name for _, name in self.inside.values()]
        assert len(set(peers)) == len(peers)
        assert len(set(names)) == len(names)

    @invariant()
    def endpoints_are_out_exactly_for_those_who_are_in(self) -> None:
        expected = {
            (record.agent_id, capability): endpoint.url
            for record in self.world.registry.records()
            for capability, endpoint in record.endpoints.items()
        }
        assert self.world.slots.out == expected

    @invariant()
    def nobody_overstays(self) -> None:
        for agent_id in self.inside:
            assert self.now_s < self.last_seen_s[agent_id] + 30.0


TestRegistrations = Registrations.TestCase
TestRegistrations.settings = settings(max_examples=150, stateful_step_count=40, deadline=None,
                                      derandomize=True)  # fmt: skip
