# SPDX-License-Identifier: Apache-2.0
"""RegistrationClient: each rule of its module, against scripted answers and the real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from feagi_io_host.core.agents import AgentCapabilities
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
    Send,
    StateChanged,
)
from feagi_io_host.core.errors import ConfigError, FeagiDataError, LocalError
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.messages import (
    AgentConfiguration,
    ConnectionProtocol,
    DeregistrationRequest,
    DeregistrationResponse,
    Endpoint,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    ReceivedMessage,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
    RegistrationSuccess,
    TimestepRequest,
    decode_control,
    encode_control,
)
from feagi_io_host.core.registration_client import RegistrationClient
from tests.feagi_io_host.core.control import MOVE, SENSE, TOKEN, World, request
from tests.feagi_io_host.core.golden import VECTORS

S = AgentState
ID = b"\x07" * 48
SUCCESS = RegistrationSuccess(
    ID,
    {
        SENSE: Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:1"),
        MOVE: Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:2"),
    },
)
TIMING = ClientTiming(
    answer_timeout_s=2.0,
    backoff_first_s=1.0,
    backoff_limit_s=4.0,
    connect_timeout_s=60.0,
    max_refusals=2,
    configuration_timeout_s=10.0,
    settle_s=1.0,
    leave_timeout_s=1.0,
)
BEATS = HeartbeatTiming(interval_s=5.0, answer_timeout_s=1.0, max_unanswered=2)
DETAILS = next(
    entry["registration"]
    for name, entry in json.loads((VECTORS / "device_registrations.json").read_text()).items()
    if name.startswith("motor_gaze")
)


def client(jitter: float = 1.0, **timing: Any) -> RegistrationClient:
    settings = {name: getattr(TIMING, name) for name in ClientTiming.__slots__}
    return RegistrationClient(
        request(),
        jitter=lambda: jitter,
        timing=ClientTiming(**{**settings, **timing}),
        heartbeat=BEATS,
    )


def sent(actions: tuple[ClientAction, ...]) -> list[ReceivedMessage]:
    return [decode_control(action.data)[1] for action in actions if isinstance(action, Send)]


def kinds(actions: tuple[ClientAction, ...]) -> list[type]:
    return [type(action) for action in actions if not isinstance(action, StateChanged)]


def changes(actions: tuple[ClientAction, ...]) -> list[tuple[AgentState, AgentState]]:
    return [(a.before, a.after) for a in actions if isinstance(a, StateChanged)]


def refusal(reason: RefusalReason) -> bytes:
    return encode_control(RegistrationRefusal(reason), ID)


def active(now_s: float = 0.0) -> RegistrationClient:
    agent = client()
    agent.connect(now_s)
    agent.receive(encode_control(SUCCESS, ID), now_s)
    assert agent.state is S.ACTIVE_WAITING
    return agent


BEAT = encode_control(HeartBeat(), ID)


# -- getting in ---------------------------------------------------------------------------------


def test_registering() -> None:
    agent = client()
    assert agent.state is S.INACTIVE
    actions = agent.connect(10.0)
    assert kinds(actions) == [NewSession, Send]
    assert sent(actions) == [request()]
    assert changes(actions) == [(S.INACTIVE, S.PENDING)]
    assert agent.next_tick_s == 12.0
    assert agent.connect(10.5) == ()
    actions = agent.receive(encode_control(SUCCESS, ID), 11.0)
    assert OpenStreams(ID, SUCCESS.endpoints) in actions
    assert changes(actions) == [(S.PENDING, S.ACTIVE_WAITING)]
    assert (agent.agent_id, agent.registrations) == (ID, 1)
    assert agent.next_tick_s == 16.0


def test_no_answer_is_tried_again_over_a_new_connection_and_in_the_end_given_up() -> None:
    agent = client(connect_timeout_s=20.0)
    agent.connect(0.0)
    log = []
    while agent.next_tick_s is not None:
        now_s = agent.next_tick_s
        actions = agent.tick(now_s)
        log.append((now_s, kinds(actions)))
    # Deadlines of 2 s, waits of 1, 2, 4 and 4 s.
    assert log == [
        (2.0, [NewSession]),
        (3.0, [Send]),
        (5.0, [NewSession]),
        (7.0, [Send]),
        (9.0, [NewSession]),
        (13.0, [Send]),
        (15.0, [NewSession]),
        (19.0, [Send]),
        (21.0, [NewSession, EndSession]),
    ]
    assert agent.state is S.ERRORED
    last = actions[-1]
    assert isinstance(last, StateChanged)
    assert "not registered within 20.0 s and 5 attempts" in last.reason
    assert kinds(agent.connect(30.0)) == [NewSession, Send]


@pytest.mark.parametrize(("jitter", "wait_s"), [(0.0, 0.5), (0.5, 0.75), (0.999, 0.9995)])
def test_the_wait_is_jittered(jitter: float, wait_s: float) -> None:
    agent = client(jitter)
    agent.connect(0.0)
    agent.tick(2.0)
    assert agent.next_tick_s == 2.0 + wait_s


def test_without_a_limit_it_tries_for_ever() -> None:
    agent = client(connect_timeout_s=None)
    agent.connect(0.0)
    for _ in range(200):
        assert agent.next_tick_s is not None
        agent.tick(agent.next_tick_s)
    assert agent.state is S.PENDING


def test_a_wrong_token_stops_it() -> None:
    agent = client()
    agent.connect(0.0)
    actions = agent.receive(refusal(RefusalReason.INVALID_AUTH), 0.5)
    assert kinds(actions) == [EndSession]
    assert agent.state is S.ERRORED
    assert agent.next_tick_s is None


def test_our_own_old_session_is_waited_for() -> None:
    agent = client()
    agent.connect(0.0)
    for _ in range(6):
        assert agent.next_tick_s is not None
        actions = agent.receive(refusal(RefusalReason.ALREADY_REGISTERED), agent.next_tick_s - 1.5)
        assert kinds(actions) == []
        assert agent.state is S.PENDING
        assert kinds(agent.tick(agent.next_tick_s)) == [Send]
    agent.receive(encode_control(SUCCESS, ID), 50.0)
    assert agent.state is S.ACTIVE_WAITING


def test_an_invalid_request_is_tried_again_but_not_for_ever() -> None:
    agent = client()
    agent.connect(0.0)
    now_s = 0.0
    for _ in range(2):
        assert kinds(agent.receive(refusal(RefusalReason.INVALID_REQUEST), now_s)) == []
        assert agent.next_tick_s is not None
        now_s = agent.next_tick_s
        assert kinds(agent.tick(now_s)) == [Send]
    agent.receive(refusal(RefusalReason.INVALID_REQUEST), now_s)
    assert agent.state is S.ERRORED


def test_a_success_without_an_endpoint_is_no_success() -> None:
    agent = client()
    agent.connect(0.0)
    answer = RegistrationSuccess(ID, {SENSE: SUCCESS.endpoints[SENSE]})
    actions = agent.receive(encode_control(answer, ID), 0.5)
    assert kinds(actions) == [Send, EndSession]
    assert isinstance(sent(actions)[0], DeregistrationRequest)
    last = actions[-1]
    assert isinstance(last, StateChanged)
    assert "receive_motor_data" in last.reason
    assert agent.state is S.ERRORED


def test_what_cannot_be_read_or_was_not_asked_for_is_counted() -> None:
    agent = active()
    state = agent.next_tick_s
    for frame in (b"", bytes(60), BEAT, encode_control(SUCCESS), encode_control(request())):
        assert agent.receive(frame, 1.0) == ()
    assert agent.ignored == 5
    assert agent.next_tick_s == state


# -- staying in ---------------------------------------------------------------------------------


def test_beats_carry_the_id_and_keep_it_active() -> None:
    agent = active()
    now_s = 0.0
    for _ in range(5):
        now_s += 5.0
        [action] = agent.tick(now_s)
        assert action == Send(BEAT)
        assert agent.receive(BEAT, now_s) == ()
    assert agent.state is S.ACTIVE_WAITING
    assert agent.ignored == 0


def test_a_server_that_forgot_us_is_found_out_and_registered_with_again() -> None:
    agent = active()
    agent.configure(DETAILS, 0.0)
    agent.receive(BEAT, 0.1)
    agent.note_data(True)
    log = []
    while agent.state is not S.PENDING:
        assert agent.next_tick_s is not None
        actions = agent.tick(agent.next_tick_s)
        log += kinds(actions)
    assert log == [Send, Send, CloseStreams, NewSession]
    assert changes(actions) == [(S.ACTIVE_HAS_DATA, S.PENDING)]
    assert agent.next_tick_s is not None
    # 5.1 and 7.1: a beat and two deadlines; then the first wait.
    assert agent.next_tick_s == pytest.approx(8.1)
    assert isinstance(sent(agent.tick(8.1))[0], RegistrationRequest)
    actions = agent.receive(encode_control(SUCCESS, ID), 8.2)
    assert kinds(actions) == [OpenStreams, Send]
    assert sent(actions) == [AgentConfiguration(DETAILS)]
    assert agent.registrations == 2
    assert agent.receive(BEAT, 8.3) == (ConfigurationSettled(True),)


def test_after_a_loss_it_tries_for_as_long_as_it_takes() -> None:
    agent = active()
    agent.connection_lost("reset by peer", 1.0)
    for _ in range(300):
        assert agent.next_tick_s is not None
        agent.tick(agent.next_tick_s)
    assert agent.state is S.PENDING
    assert agent.next_tick_s is not None
    assert agent.next_tick_s > 800.0


def test_once_in_what_went_wrong_before_counts_no_more() -> None:
    agent = client()
    agent.connect(0.0)
    now_s = 0.0
    for _ in range(2):
        agent.receive(refusal(RefusalReason.INVALID_REQUEST), now_s)
        assert agent.next_tick_s is not None
        now_s = agent.next_tick_s
        agent.tick(now_s)
    agent.receive(encode_control(SUCCESS, ID), now_s)
    agent.connection_lost("reset by peer", now_s)
    assert agent.next_tick_s == now_s + TIMING.backoff_first_s
    for _ in range(2):
        agent.tick(agent.next_tick_s or 0.0)
        agent.receive(refusal(RefusalReason.INVALID_REQUEST), now_s)
        assert agent.state is S.PENDING


def test_data_changes_what_a_user_sees() -> None:
    agent = client()
    assert agent.note_data(True) == ()
    agent = active()
    assert changes(agent.note_data(True)) == [(S.ACTIVE_WAITING, S.ACTIVE_HAS_DATA)]
    assert agent.note_data(True) == ()
    assert changes(agent.note_data(False)) == [(S.ACTIVE_HAS_DATA, S.ACTIVE_WAITING)]


def test_questions() -> None:
    agent = active()
    assert sent(agent.ask(HealthCheckRequest())) == [HealthCheckRequest()]
    report = HealthReport(True, True, True)
    assert agent.receive(encode_control(report, ID), 0.1) == (Answered(report),)
    # The engine's echo of a question is none.
    assert agent.receive(encode_control(HealthCheckRequest(), ID), 0.1) == ()
    with pytest.raises(LocalError, match="inactive"):
        client().ask(TimestepRequest())


# -- configuration ------------------------------------------------------------------------------


def test_a_configuration_waits_until_the_agent_is_in() -> None:
    agent = client()
    assert agent.configure(DETAILS, 0.0) == ()
    agent.connect(0.0)
    actions = agent.receive(encode_control(SUCCESS, ID), 0.1)
    assert sent(actions) == [AgentConfiguration(DETAILS)]


def test_the_answer_to_a_beat_is_not_taken_for_the_acknowledgement() -> None:
    agent = active()
    agent.tick(5.0)
    agent.configure(DETAILS, 5.1)
    assert agent.receive(BEAT, 5.2) == ()
    assert agent.receive(BEAT, 5.3) == (ConfigurationSettled(True),)
    assert agent.next_tick_s == 10.3


def test_no_beats_are_sent_while_a_configuration_is_under_way() -> None:
    agent = active()
    agent.configure(DETAILS, 0.0)
    assert agent.next_tick_s == 10.0
    assert agent.tick(9.9) == ()


def test_a_refused_configuration_is_told_from_a_lost_server() -> None:
    agent = active()
    agent.configure(DETAILS, 0.0)
    assert sent(agent.tick(10.0)) == [HeartBeat()]
    assert agent.receive(BEAT, 10.1) == ()
    assert agent.tick(11.1) == (ConfigurationSettled(False),)
    assert agent.state is S.ACTIVE_WAITING
    assert agent.next_tick_s == pytest.approx(16.1)
    # It is not sent again after the next registration.
    agent.connection_lost("reset", 12.0)
    agent.tick(13.0)
    assert kinds(agent.receive(encode_control(SUCCESS, ID), 13.1)) == [OpenStreams]


def test_a_slow_configuration_is_not_taken_for_a_refused_one() -> None:
    agent = active()
    agent.configure(DETAILS, 0.0)
    agent.tick(10.0)
    assert agent.receive(BEAT, 10.5) == ()
    assert agent.receive(BEAT, 10.6) == (ConfigurationSettled(True),)


def test_a_server_lost_while_configuring() -> None:
    agent = active()
    agent.configure(DETAILS, 0.0)
    agent.tick(10.0)
    assert kinds(agent.tick(12.0)) == [CloseStreams, NewSession]
    agent.tick(13.0)
    assert sent(agent.receive(encode_control(SUCCESS, ID), 13.1)) == [AgentConfiguration(DETAILS)]


def test_one_configuration_at_a_time_and_only_good_ones() -> None:
    agent = active()
    with pytest.raises(FeagiDataError):
        agent.configure({}, 0.0)
    agent.configure(DETAILS, 0.0)
    with pytest.raises(LocalError, match="under way"):
        agent.configure(DETAILS, 0.1)
    agent.receive(BEAT, 0.2)
    assert sent(agent.configure(DETAILS, 0.3)) == [AgentConfiguration(DETAILS)]


# -- getting out --------------------------------------------------------------------------------


def test_leaving() -> None:
    agent = active()
    actions = agent.close(1.0)
    assert kinds(actions) == [CloseStreams, Send]
    assert isinstance(sent(actions)[0], DeregistrationRequest)
    assert agent.state is S.PENDING
    assert agent.close(1.1) == ()
    with pytest.raises(LocalError, match="leaving"):
        agent.connect(1.2)
    actions = agent.receive(encode_control(DeregistrationResponse(True), ID), 1.3)
    assert kinds(actions) == [EndSession]
    assert changes(actions) == [(S.PENDING, S.INACTIVE)]
    assert agent.next_tick_s is None
    assert agent.close(2.0) == ()


def test_leaving_takes_no_longer_than_its_deadline() -> None:
    agent = active()
    agent.close(1.0)
    assert agent.next_tick_s == 2.0
    assert kinds(agent.tick(2.0)) == [EndSession]
    assert agent.state is S.INACTIVE


def _pending() -> RegistrationClient:
    agent = client()
    agent.connect(0.0)
    return agent


def _waiting() -> RegistrationClient:
    agent = _pending()
    agent.tick(2.0)
    return agent


def _failed() -> RegistrationClient:
    agent = _pending()
    agent.receive(refusal(RefusalReason.INVALID_AUTH), 0.1)
    return agent


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (client, []),
        (_pending, [Send]),  # the request may have been granted
        (_waiting, [EndSession]),
        (_failed, []),
    ],
)
def test_closing_in_every_state(
    made: Callable[[], RegistrationClient], expected: list[type]
) -> None:
    agent = made()
    assert kinds(agent.close(3.0)) == expected
    if agent.next_tick_s is not None:
        agent.tick(agent.next_tick_s)
    assert agent.state is S.INACTIVE
    assert kinds(agent.connect(100.0)) == [NewSession, Send]


@pytest.mark.parametrize(
    "settings",
    [
        {"answer_timeout_s": 0.0},
        {"backoff_first_s": -1.0},
        {"settle_s": float("inf")},
        {"connect_timeout_s": 0.0},
        {"max_refusals": -1},
    ],
)
def test_timing_that_makes_no_sense(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ClientTiming(**settings)


# -- against the server -------------------------------------------------------------------------


class Line:
    """A client and a server on one clock; each session of the client is a new peer."""

    def __init__(self, agent: RegistrationClient, world: World) -> None:
        self.agent = agent
        self.world = world
        self.now_s = 0.0
        self.peer = 0
        self.up = True
        self.streams: OpenStreams | None = None
        self.settled: list[bool] = []

    def carry(self, actions: tuple[ClientAction, ...]) -> None:
        for action in actions:
            match action:
                case NewSession():
                    self.peer += 1
                case OpenStreams():
                    self.streams = action
                case CloseStreams():
                    self.streams = None
                case ConfigurationSettled(accepted):
                    self.settled.append(accepted)
                case Send(data) if self.up:
                    reply = self.world.server.receive(self.peer, data, self.now_s).reply
                    if reply is not None:
                        self.carry(self.agent.receive(reply, self.now_s))
                case _:
                    pass

    def until(self, now_s: float) -> None:
        while self.agent.next_tick_s is not None and self.agent.next_tick_s <= now_s:
            self.now_s = max(self.now_s, self.agent.next_tick_s)
            self.world.server.tick(self.now_s)
            self.carry(self.agent.tick(self.now_s))
        self.now_s = now_s


def test_service_resumes_by_itself_after_the_server_forgets_and_after_it_restarts() -> None:
    world = World(token=TOKEN)
    agent = RegistrationClient(request(token=TOKEN), jitter=lambda: 0.5)
    line = Line(agent, world)
    line.carry(agent.configure(DETAILS, 0.0))
    line.carry(agent.connect(0.0))
    line.until(20.0)
    assert agent.state is S.ACTIVE_WAITING
    assert line.settled == [True]
    # A new genome: everybody is out, nobody is told.
    for record in world.registry.records():
        world.server.dismiss(record.agent_id, "new genome")
    line.until(20.0 + 3 * 5.0)
    assert agent.state is S.ACTIVE_WAITING
    assert (agent.registrations, line.settled) == (2, [True, True])
    # A restart: nothing answers for a while, then a server without memory.
    line.up = False
    line.until(60.0)
    assert agent.state is S.PENDING
    assert line.streams is None
    line.world = world = World(token=TOKEN)
    line.up = True
    line.until(75.0)
    assert agent.state is S.ACTIVE_WAITING
    assert line.settled == [True, True, True]
    assert line.streams is not None
    assert line.streams.endpoints == world.registry.get(agent.agent_id).endpoints
    line.carry(agent.close(75.0))
    assert agent.state is S.INACTIVE
    assert len(world.registry) == 0


def test_the_clients_own_old_session_is_taken_over() -> None:
    world = World()
    first = Line(RegistrationClient(request(), jitter=lambda: 0.5), world)
    first.carry(first.agent.connect(0.0))
    # The process dies without a word and is started again at once.
    second = Line(RegistrationClient(request(), jitter=lambda: 0.5), world)
    second.peer = 1000
    second.now_s = 0.5
    second.carry(second.agent.connect(0.5))
    assert second.agent.state is S.PENDING
    second.until(10.0)
    assert second.agent.state is S.ACTIVE_WAITING
    assert len(world.registry) == 1


def test_no_capabilities_need_no_endpoints() -> None:
    line = Line(
        RegistrationClient(request(capabilities=AgentCapabilities(0)), jitter=lambda: 0.0), World()
    )
    line.carry(line.agent.connect(0.0))
    assert line.agent.state is S.ACTIVE_WAITING
