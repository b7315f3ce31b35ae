# SPDX-License-Identifier: Apache-2.0
"""RegistrationServer: each rule of its module, and what hostile peers get out of it."""

from __future__ import annotations

import json
import logging
import random
import tracemalloc
from typing import Any

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ConfigError, LocalError
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered
from feagi_io_host.core.messages import (
    AgentConfiguration,
    ConnectionProtocol,
    DeregistrationRequest,
    DeregistrationResponse,
    Endpoint,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    RefusalReason,
    RegistrationRefusal,
    RegistrationSuccess,
    TimestepChange,
    TimestepChangeAnswer,
    TimestepReport,
    TimestepRequest,
    decode_control,
    encode_control,
)
from feagi_io_host.core.rate_limit import Rate
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.core.server_seams import AgentConfigured, ServerLimits
from tests.feagi_io_host.core.control import (
    MOVE,
    SENSE,
    TOKEN,
    VIEW,
    Ids,
    Slots,
    World,
    descriptor,
    json_frame,
    raw_json_frame,
    request,
)
from tests.feagi_io_host.core.golden import MALFORMED, VECTORS

INVALID = RegistrationRefusal(RefusalReason.INVALID_REQUEST)
TAKEN = RegistrationRefusal(RefusalReason.ALREADY_REGISTERED)
UNKNOWN_TOKEN = RegistrationRefusal(RefusalReason.INVALID_AUTH)
WIDE = ServerLimits(peer_rate=Rate(1e6, 10**6), newcomer_rate=Rate(1e6, 10**6))
DETAILS = next(
    entry["registration"]
    for name, entry in json.loads((VECTORS / "device_registrations.json").read_text()).items()
    if name.startswith("motor_gaze")
)


def request_of_size(size: int) -> bytes:
    """A good registration request of exactly `size` bytes (blanks around the JSON are legal)."""
    frame = encode_control(request())
    text = frame[58:]
    return raw_json_frame(text + b" " * (size - len(frame)))


# -- letting in ---------------------------------------------------------------------------------


def test_an_agent_gets_an_id_and_an_endpoint_for_each_capability() -> None:
    world = World()
    outcome = world.server.receive("a", encode_control(request(capabilities=SENSE | VIEW)), 7.0)
    assert outcome.reply is not None
    header_id, answer = decode_control(outcome.reply)
    assert isinstance(answer, RegistrationSuccess)
    assert header_id == answer.agent_id
    assert set(answer.endpoints) == {SENSE, VIEW}
    assert outcome.events == (AgentRegistered(answer.agent_id, descriptor()),)
    record = world.registry.get(answer.agent_id)
    assert (record.peer, record.capabilities, record.registered_at_s) == ("a", SENSE | VIEW, 7.0)
    assert record.endpoints == answer.endpoints


def test_no_capabilities_are_a_success_without_endpoints() -> None:
    answer = World().say("a", request(capabilities=AgentCapabilities(0)))
    assert isinstance(answer, RegistrationSuccess)
    assert answer.endpoints == {}


def test_a_second_registration_on_a_live_session_gets_silence() -> None:
    world = World()
    world.say("a", request())
    assert world.say("a", request("other")) is None
    assert world.ignored() == {"out of place": 1}
    assert world.say("a", HeartBeat()) == HeartBeat()


@pytest.mark.parametrize(
    ("spoil", "answer"),
    [
        (lambda body: body.update(requested_capabilities=["send_sensor_data"] * 2), INVALID),
        (lambda body: body.update(requested_capabilities=["receive_system_messages"]), INVALID),
        (lambda body: body["agent_descriptor"].update(agent_name=""), INVALID),
        (lambda body: body["agent_descriptor"].update(agent_version=0), INVALID),
        (lambda body: body.update(connection_protocol="SharedMemory"), INVALID),
        (lambda body: body.update(connection_protocol="Pigeon"), None),
        (lambda body: body["auth_token"]["value"].pop(), None),
        (lambda body: body.pop("api_version"), None),
    ],
)
def test_what_is_refused_and_what_gets_silence(spoil: Any, answer: Any) -> None:
    world = World()
    value = request().to_json()
    spoil(value["agent_registration"]["client_request_registration"])
    assert world.say("a", value) == answer
    assert len(world.registry) == 0
    assert world.slots.out == {}
    assert isinstance(world.say("a", request()), RegistrationSuccess)


@pytest.mark.parametrize(("size", "let_in"), [(1024, True), (1025, False)])
def test_the_limit_before_registration_is_1024_bytes(size: int, let_in: bool) -> None:
    world = World()
    frame = request_of_size(size)
    assert len(frame) == size
    assert (world.say("a", frame) is not None) is let_in
    assert world.ignored() == ({} if let_in else {"oversized": 1})


def test_after_registration_more_is_read_but_not_everything() -> None:
    world = World(limits=ServerLimits(registered_bytes=5000))
    world.say("a", request())
    assert world.say("a", raw_json_frame(b'"heart_beat"' + b" " * 4000)) == HeartBeat()
    assert world.say("a", raw_json_frame(b'"heart_beat"' + b" " * 6000)) is None
    assert world.ignored() == {"oversized": 1}


# -- tokens -------------------------------------------------------------------------------------


def test_without_a_token_any_is_taken() -> None:
    assert isinstance(World().say("a", request(token=TOKEN)), RegistrationSuccess)


@pytest.mark.parametrize(
    "wrong", [bytes(32), TOKEN[::-1], TOKEN[:31] + b"\xff", b"\xff" + TOKEN[1:]]
)
def test_a_wrong_token_is_refused_before_anything_else(wrong: bytes) -> None:
    world = World(token=TOKEN)
    assert isinstance(world.say("first", request(token=TOKEN)), RegistrationSuccess)
    # Neither that the descriptor is taken nor that a request is bad is told to strangers.
    assert world.say("a", request(token=wrong)) == UNKNOWN_TOKEN
    bad = request(token=wrong).to_json()
    body = bad["agent_registration"]["client_request_registration"]
    body["requested_capabilities"] = ["receive_system_messages"]
    assert world.say("a", bad) == UNKNOWN_TOKEN
    assert len(world.registry) == 1
    assert world.server.counters()["refused"]["failed_invalid_auth"] == 2


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr("hmac.compare_digest", compare)
    World(token=TOKEN).say("a", request(token=bytes(32)))
    assert compared == [(TOKEN, bytes(32))]


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_configured_token_has_32_bytes(length: int) -> None:
    with pytest.raises(ConfigError, match=str(length)):
        World(token=bytes(length))


def test_tokens_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    world = World(token=TOKEN)
    world.say("a", request(token=b"\xee" * 32))
    world.say("a", request(token=TOKEN))
    text = caplog.text
    assert "refused" in text
    assert "xee" not in text
    assert "238" not in text


# -- identity -----------------------------------------------------------------------------------


def test_a_peer_keeps_its_id_after_leaving() -> None:
    world = World()
    first = world.say("a", request())
    assert world.say("a", DeregistrationRequest()) == DeregistrationResponse(True)
    again = world.say("a", request("other name"))
    assert isinstance(first, RegistrationSuccess)
    assert isinstance(again, RegistrationSuccess)
    assert first.agent_id == again.agent_id
    assert first.endpoints != again.endpoints


def test_a_peer_keeps_its_id_after_a_timeout_and_after_a_refusal() -> None:
    world = World(slots=0)
    refused = world.server.receive("a", encode_control(request()), 0.0)
    assert refused.reply is not None
    given, _ = decode_control(refused.reply)
    world.slots.count = 10
    answer = world.say("a", request())
    assert isinstance(answer, RegistrationSuccess)
    assert answer.agent_id == given
    world.server.tick(31.0)
    later = world.say("a", request(), 32.0)
    assert isinstance(later, RegistrationSuccess)
    assert later.agent_id == given


def test_only_so_many_peers_are_remembered() -> None:
    limits = ServerLimits(remembered_peers=3, newcomer_rate=WIDE.newcomer_rate)
    world = World(limits=limits)
    answer = world.say("kept", request("kept"))
    for number in range(10):
        world.say(f"passing {number}", DeregistrationRequest())
    assert world.server.counters()["sessions"] == 3
    assert world.say("kept", HeartBeat()) == HeartBeat()
    assert isinstance(answer, RegistrationSuccess)
    assert world.registry.get(answer.agent_id).peer == "kept"


# -- the same descriptor ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("silent_s", "capabilities", "replaced"),
    [(1.9, SENSE | MOVE, False), (2.0, SENSE | MOVE, True), (0.0, SENSE, True)],
)
def test_the_same_descriptor_from_another_peer(
    silent_s: float, capabilities: AgentCapabilities, replaced: bool
) -> None:
    world = World()
    old = world.say("a", request())
    assert isinstance(old, RegistrationSuccess)
    world.say("a", HeartBeat(), 10.0)
    answer, events = world.hear("b", request(capabilities=capabilities), 10.0 + silent_s)
    if not replaced:
        assert answer == TAKEN
        assert events == ()
        return
    assert isinstance(answer, RegistrationSuccess)
    assert [type(event) for event in events] == [AgentDisconnected, AgentRegistered]
    assert events[0].agent_id == old.agent_id
    assert len(world.registry) == 1
    assert {agent_id for agent_id, _ in world.slots.out} == {answer.agent_id}
    assert world.say("a", HeartBeat(), 13.0) is None


def test_a_replacement_may_have_the_slots_of_the_one_it_replaces() -> None:
    world = World(slots=2)
    world.say("a", request())
    assert isinstance(world.say("b", request(), 5.0), RegistrationSuccess)


def test_data_keeps_an_agent_alive() -> None:
    world = World()
    answer = world.say("a", request())
    assert isinstance(answer, RegistrationSuccess)
    world.registry.touch(answer.agent_id, 9.5)
    assert world.say("b", request(), 10.0) == TAKEN


# -- endpoints ----------------------------------------------------------------------------------


def test_all_endpoints_or_none() -> None:
    world = World(slots=3)
    assert isinstance(world.say("a", request("a")), RegistrationSuccess)
    assert world.say("b", request("b")) == INVALID
    assert len(world.slots.out) == 2
    assert isinstance(world.say("c", request("c", SENSE)), RegistrationSuccess)


def test_leaving_gives_the_endpoints_back() -> None:
    world = World()
    world.say("a", request())
    world.say("a", DeregistrationRequest("enough"))
    assert world.slots.out == {}


def test_a_full_registry_refuses_and_gives_the_endpoints_back() -> None:
    world = World(max_agents=1)
    world.say("a", request("a"))
    assert world.say("b", request("b")) == INVALID
    assert len(world.slots.out) == 2


def test_an_allocator_that_fails_refuses_one_agent_only(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Slots):
        def allocate(
            self, agent_id: bytes, capability: AgentCapabilities, protocol: ConnectionProtocol
        ) -> Endpoint | None:
            if capability is MOVE:
                raise OSError("address in use")
            return super().allocate(agent_id, capability, protocol)

    world = World()
    world.slots = Failing()
    world.server = RegistrationServer(world.registry, world.slots, new_agent_id=Ids())
    assert world.say("a", request()) == INVALID
    assert world.slots.out == {}
    assert "address in use" in caplog.text
    assert isinstance(world.say("a", request(capabilities=SENSE)), RegistrationSuccess)


def test_bad_ids_from_the_program_are_an_error() -> None:
    for made in (b"", bytes(48), bytes(47)):
        server = RegistrationServer(World().registry, Slots(), new_agent_id=lambda made=made: made)
        with pytest.raises(LocalError, match=str(len(made))):
            server.receive("a", encode_control(request()), 0.0)


# -- in session ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        HeartBeat(),
        AgentConfiguration(DETAILS),
        HealthCheckRequest(),
        TimestepRequest(),
        TimestepChange(0.1),
    ],
)
def test_strangers_get_silence(message: Any) -> None:
    world = World(limits=ServerLimits(unregistered_bytes=10_000, unregistered_depth=64))
    assert world.say("a", message) is None
    assert world.ignored() == {"out of place": 1}


def test_strangers_are_told_that_they_are_not_registered() -> None:
    assert World().say("a", DeregistrationRequest()) == DeregistrationResponse(False)


def test_leaving() -> None:
    world = World()
    world.say("a", request())
    answer, events = world.hear("a", DeregistrationRequest("x" * 500 + "\n"))
    assert answer == DeregistrationResponse(True)
    assert [type(event) for event in events] == [AgentDisconnected]
    assert len(events[0].reason) < 100
    assert world.say("a", DeregistrationRequest()) == DeregistrationResponse(False)
    assert world.say("a", HeartBeat()) is None


def test_a_configuration_is_handed_on_and_acknowledged() -> None:
    world = World()
    success = world.say("a", request())
    assert isinstance(success, RegistrationSuccess)
    answer, events = world.hear("a", AgentConfiguration(DETAILS))
    assert answer == HeartBeat()
    assert events == (AgentConfigured(success.agent_id, AgentConfiguration(DETAILS)),)


def test_a_configuration_without_its_keys_gets_silence() -> None:
    world = World()
    world.say("a", request())
    assert world.say("a", {"agent_configuration": {"AgentConfigurationDetails": {}}}) is None
    assert world.ignored() == {"unreadable": 1}


class Brain:
    def __init__(self) -> None:
        self.timestep = 0.05

    def health(self) -> HealthReport:
        return HealthReport(True, True, True, neuron_count=12)

    def timestep_s(self) -> float:
        return self.timestep

    def change_timestep(self, agent_id: bytes, timestep_s: float) -> bool:
        if timestep_s > 1.0:
            return False
        self.timestep = timestep_s
        return True


def test_the_brain_answers() -> None:
    brain = Brain()
    world = World(brain=brain)
    world.say("a", request())
    report = world.say("a", HealthCheckRequest())
    assert report == HealthReport(True, True, True, neuron_count=12, connected_agents=1)
    assert world.say("a", TimestepRequest()) == TimestepReport(0.05)
    assert world.say("a", TimestepChange(0.02)) == TimestepChangeAnswer(True)
    assert world.say("a", TimestepChange(5.0)) == TimestepChangeAnswer(False)
    assert world.say("a", TimestepChange(0.0)) == TimestepChangeAnswer(False)
    assert world.say("a", TimestepChange(-1.0)) == TimestepChangeAnswer(False)
    assert brain.timestep == 0.02


class FailingBrain:
    """Raises whatever it is asked."""

    def health(self) -> HealthReport:
        raise RuntimeError("no health")

    def timestep_s(self) -> float:
        raise RuntimeError("no time step")

    def change_timestep(self, agent_id: bytes, timestep_s: float) -> bool:
        raise RuntimeError("no change")


def test_a_brain_that_fails_gives_no_answers(caplog: pytest.LogCaptureFixture) -> None:
    world = World(brain=FailingBrain())
    world.say("a", request())
    for question in (HealthCheckRequest(), TimestepRequest(), TimestepChange(0.1)):
        assert world.say("a", question) is None
    assert world.ignored() == {"brain failed": 3}
    assert world.say("a", HeartBeat()) == HeartBeat()
    for text in ("no health", "no time step", "no change"):
        assert text in caplog.text


def test_without_a_brain() -> None:
    world = World()
    world.say("a", request())
    report = world.say("a", HealthCheckRequest())
    assert report == HealthReport(False, False, False, connected_agents=1)
    assert world.say("a", TimestepRequest()) is None
    assert world.say("a", TimestepChange(0.1)) == TimestepChangeAnswer(False)
    assert world.ignored() == {"no brain to ask": 1}


# -- time ---------------------------------------------------------------------------------------


def test_silence_ends_a_session_and_a_heartbeat_keeps_it() -> None:
    world = World()
    assert world.server.next_tick_s is None
    quiet = world.say("quiet", request("quiet"))
    world.say("lively", request("lively"))
    world.say("lively", HeartBeat(), 20.0)
    assert world.server.tick(29.9) == ()
    assert isinstance(quiet, RegistrationSuccess)
    assert world.server.next_tick_s == 30.0
    assert [event.agent_id for event in world.server.tick(30.0)] == [quiet.agent_id]
    assert world.say("quiet", HeartBeat(), 30.5) is None
    assert len(world.slots.out) == 2
    assert world.server.counters()["timed_out"] == 1


def test_dismissing_an_agent_works_once() -> None:
    world = World()
    answer = world.say("a", request())
    assert isinstance(answer, RegistrationSuccess)
    assert world.server.dismiss(answer.agent_id, "gone") == (
        AgentDisconnected(answer.agent_id, "gone"),
    )
    assert world.server.dismiss(answer.agent_id, "gone") == ()
    assert world.slots.out == {}


# -- abuse --------------------------------------------------------------------------------------


def test_bytes_that_are_no_container_get_silence_and_leave_the_session_usable() -> None:
    world = World(limits=WIDE)
    frames = [vector.data for vector in MALFORMED]
    frames += [b"", b"\x04", bytes(52), raw_json_frame(b"{"), raw_json_frame(b"\xff" * 20)]
    frames += [raw_json_frame(b"[" * 900), raw_json_frame(b'{"a":' * 150 + b"1" + b"}" * 150)]
    frames += [random.Random(size).randbytes(size) for size in range(0, 1024, 64)]
    before = len(frames)
    for frame in frames:
        assert world.say("a", frame) is None
    assert sum(world.ignored().values()) == before
    assert isinstance(world.say("a", request()), RegistrationSuccess)
    for frame in frames:
        world.say("a", frame)
    assert world.say("a", HeartBeat()) == HeartBeat()


def test_nesting_is_limited_more_tightly_before_registration() -> None:
    nested: Any = 1
    for _ in range(20):
        nested = [nested]
    value = request().to_json()
    value["agent_registration"]["client_request_registration"]["note"] = nested
    world = World()
    assert world.say("a", json_frame(value)) is None
    assert world.ignored() == {"unreadable": 1}


def test_a_replayed_registration_does_not_disturb_the_session() -> None:
    world = World(token=TOKEN)
    frame = encode_control(request(token=TOKEN))
    assert isinstance(world.say("a", frame), RegistrationSuccess)
    for attempt in range(50):
        assert world.say(f"thief {attempt}", frame, 1.0) == TAKEN
        assert world.say("a", frame, 1.0) is None
    assert world.say("a", HeartBeat(), 2.0) == HeartBeat()
    assert len(world.registry) == 1


def test_one_loud_peer_is_limited_alone() -> None:
    world = World(limits=ServerLimits(peer_rate=Rate(10.0, 20), newcomer_rate=Rate(1e6, 10**6)))
    world.say("quiet", request("quiet"))
    answered = sum(world.say("loud", DeregistrationRequest(), 1.0) is not None for _ in range(1000))
    assert answered == 20
    assert world.ignored() == {"too often": 980}
    assert world.say("quiet", HeartBeat(), 1.0) == HeartBeat()
    assert world.say("loud", DeregistrationRequest(), 2.0) is not None


def test_a_thousand_registrations_a_second_do_not_reach_the_agents_that_are_in() -> None:
    world = World()
    assert isinstance(world.say("ours", request("ours")), RegistrationSuccess)
    let_in = 0
    for number in range(3000):
        now_s = 1.0 + number / 1000
        answer = world.say(f"peer {number}", request(f"agent {number}"), now_s)
        let_in += isinstance(answer, RegistrationSuccess)
        if number % 1000 == 0:
            assert world.say("ours", HeartBeat(), now_s) == HeartBeat()
    # The burst of 200 and 100 a second for 3 seconds.
    assert 495 <= let_in <= 501
    assert world.ignored() == {"too often": 3000 - let_in}
    assert world.server.counters()["sessions"] == let_in + 1
    assert world.say("ours", HeartBeat(), 5.0) == HeartBeat()


def test_memory_stays_flat_under_a_flood_of_peers() -> None:
    world = World(max_agents=50, limits=ServerLimits(remembered_peers=100,
        newcomer_rate=WIDE.newcomer_rate))  # fmt: skip
    frame = encode_control(request("flood"))

    def flood(first: int) -> None:
        for number in range(first, first + 1500):
            world.server.receive(number.to_bytes(8, "big"), frame, 0.0)

    flood(0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        flood(10_000)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert world.server.counters()["sessions"] == 100
    # Unbounded sessions would be a quarter of a megabyte and more.
    assert after - before < 60_000


@pytest.mark.parametrize(
    "settings",
    [
        {"unregistered_bytes": 0},
        {"registered_bytes": 0},
        {"unregistered_depth": 0},
        {"remembered_peers": 0},
        {"takeover_s": -1.0},
        {"takeover_s": float("nan")},
    ],
)
def test_limits_that_make_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ServerLimits(**settings)
