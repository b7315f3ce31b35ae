# SPDX-License-Identifier: Apache-2.0
"""Reception: control messages in, agents in and out, whatever they come over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from feagi_io_host.core.carrier import AttachedAgent
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.messages import (
    AgentConfiguration,
    DeregistrationRequest,
    DeregistrationResponse,
    HeartBeat,
    RegistrationSuccess,
    decode_control,
    encode_control,
)
from feagi_io_host.core.reception import LOOK_AROUND_S, Reception, accepted_by
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.testing import FakeClock, StandInHost
from tests.feagi_io_host.core.control import World, request

DETAILS = {
    "feedbacks": {"registered_feedbacks": []},
    "input_units_and_encoder_properties": {},
    "output_units_and_decoder_properties": {},
}


@dataclass(frozen=True, slots=True, eq=False)
class Guest:
    agent: AttachedAgent


class House:
    """The owner of a reception, with a host behind it."""

    def __init__(self) -> None:
        self.world = World(limits=ServerLimits(takeover_s=0.0))
        self.host = StandInHost()
        self.clock = FakeClock()
        self.let_out: list[str] = []
        self.accepting = True
        self.reception: Reception[Guest] = Reception(self, self.world.server)

    def take_in(self, agent_id: bytes) -> Guest:
        record = self.world.registry.get(agent_id)
        if record.descriptor.agent_name == "unlucky":
            raise ClosedError("nobody is let in any more")
        return Guest(self.host.attach_agent(record.descriptor, record.capabilities, agent_id))

    def let_go(self, served: Guest, reason: str) -> None:
        self.let_out.append(reason)
        served.agent.close(reason)

    def accepts(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        return self.accepting

    def now_s(self) -> float:
        return self.clock.now_s

    def say(self, peer: object, message: Any) -> Any:
        reply = self.reception.hear(peer, encode_control(message))
        return None if reply is None else decode_control(reply)[1]


@pytest.fixture
def house() -> House:
    return House()


def test_an_agent_comes_beats_and_leaves(house: House) -> None:
    assert not house.reception.is_in("peer")
    assert isinstance(house.say("peer", request()), RegistrationSuccess)
    assert house.reception.is_in("peer")
    assert len(house.reception.served) == len(house.host.sessions) == 1
    assert isinstance(house.say("peer", HeartBeat()), HeartBeat)
    assert house.say("peer", DeregistrationRequest("enough")) == DeregistrationResponse(True)
    assert house.let_out == ["left: 'enough'"]
    assert house.reception.served == ()


def test_one_that_cannot_be_attached_gets_no_answer_and_its_endpoints_come_back(
    house: House,
) -> None:
    assert house.say("peer", request("unlucky")) is None
    assert not house.reception.is_in("peer")
    assert house.world.slots.out == {}


def test_a_lost_connection_is_the_end_of_its_agent_alone(house: House) -> None:
    for name in ("rover", "scout"):
        house.say(name, request(name))
    house.reception.lose("rover", "unplugged")
    house.reception.lose("nobody", "unplugged")
    assert house.let_out == ["unplugged"]
    assert house.reception.is_in("scout")


def test_units_are_acknowledged_only_when_they_can_be_had(house: House) -> None:
    house.say("peer", request())
    configuration = AgentConfiguration(DETAILS)
    assert isinstance(house.say("peer", configuration), HeartBeat)
    house.accepting = False
    assert house.say("peer", configuration) is None


def test_silent_ones_and_those_the_host_has_enough_of_are_let_go(house: House) -> None:
    assert house.reception.longest_wait_s() == LOOK_AROUND_S
    for name in ("silent", "lively", "detached"):
        house.say(name, request(name))
    house.clock.advance(20.0)
    lively = house.world.registry.find_by_peer("lively")
    assert lively is not None
    house.reception.heard_of(lively.agent_id)
    house.say("detached", HeartBeat())
    house.reception.served[2].agent.close("the brain has enough of it")
    house.clock.advance(10.1)
    assert house.reception.longest_wait_s() == 0.0
    house.reception.look_around()
    assert sorted(house.let_out) == ["detached by the host", "silent for 30.0 s"]
    assert [guest.agent.descriptor.agent_name for guest in house.reception.served] == ["lively"]


def test_one_that_the_host_has_detached_learns_of_it_by_silence(house: House) -> None:
    house.say("peer", request())
    house.reception.served[0].agent.close("the brain has enough of it")
    assert house.say("peer", HeartBeat()) is None
    assert isinstance(house.say("peer", request()), RegistrationSuccess)


def test_at_the_end_everybody_has_to_go(house: House) -> None:
    for name in ("rover", "scout"):
        house.say(name, request(name))
    house.reception.close("stopped")
    assert house.let_out == ["stopped", "stopped"]


def test_who_is_asked_about_units_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    configuration = AgentConfiguration(DETAILS)

    def fail(agent_id: bytes, units: AgentConfiguration) -> bool:
        raise RuntimeError("a fault of the program")

    assert accepted_by(None, bytes(48), configuration)
    assert not accepted_by(lambda *_: False, bytes(48), configuration)
    assert not accepted_by(fail, bytes(48), configuration)
    assert "units of agent 00000000... refused" in caplog.text
