# SPDX-License-Identifier: Apache-2.0
"""EngineRelay: played boards on one side, a PNS of our own in the engine's place on the other."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from feagi_io_host.bridge import (
    BoardBridge,
    BoardProblem,
    EngineRelay,
    EngineState,
    EngineStateChanged,
    engine_agent,
)
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    ConfigurationRefusedError,
    DeliveryTimeoutError,
    FeagiDataError,
    RemoteError,
)
from feagi_io_host.core.events import AgentDisconnected, AgentRegistered, SensoryData
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.units import DeclaredUnit, agent_configuration
from feagi_io_host.pns import PNS
from feagi_io_host.transports.zmq import ZmqTransport
from feagi_wire.const import STREAM_MOTOR, STREAM_VISUALIZATION
from tests.feagi_io_host.bridge.conftest import Rig
from tests.feagi_io_host.bridge.played_board import (
    CART,
    DEADLINE_S,
    MOTOR,
    SENSOR,
    PlayedBoard,
    PtyLine,
)
from tests.feagi_io_host.bridge.test_board import BODY, MOVED, SENSED, frame, received

UP, WAITING = EngineState.UP, EngineState.WAITING
NO_BOARD, REFUSED = EngineState.NO_BOARD, EngineState.REFUSED
TOKEN = bytes(range(32))
# Motors as deep as the engine makes them: nothing to warn of.
ROVER = {
    **CART,
    "name": "rover",
    "motors": [{"u": "omot", "t": 5, "s": 0, "g": 0, "f": 0, "n": 1, "r": 9, "c": 1}],
}


class Brain:
    """A PNS that agents register with, and what it hears of them."""

    def __init__(self, port: int = 0, token: bytes | None = None) -> None:
        self.accept = True
        self.came: queue.Queue[AgentRegistered] = queue.Queue()
        self.left: queue.Queue[AgentDisconnected] = queue.Queue()
        self.configured: queue.Queue[AgentConfiguration] = queue.Queue()
        self.sensed: queue.Queue[tuple[bytes, bytes]] = queue.Queue()
        self.pns = PNS()
        self.pns.agent_registered.connect(self.came.put)
        self.pns.agent_disconnected.connect(self.left.put)
        self.pns.sensory_data_received.connect(self._on_sensory)
        self.transport = ZmqTransport(
            self.pns, control_port=port, token=token, on_configured=self._on_configured
        )
        self.pns.start()
        self.transport.start()
        self.url = self.transport.control_url

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def agent(self) -> AgentRegistered:
        return self.came.get(timeout=DEADLINE_S)

    def _on_configured(self, agent_id: bytes, configuration: AgentConfiguration) -> bool:
        self.configured.put(configuration)
        return self.accept

    def _on_sensory(self, data: SensoryData) -> None:
        self.sensed.put((data.agent_id, bytes(data.fbc.view)))

    def stop(self) -> None:
        self.transport.stop()
        self.pns.stop()


@pytest.fixture
def brains() -> Iterator[Callable[..., Brain]]:
    made: list[Brain] = []

    def make(*args: Any, **settings: Any) -> Brain:
        made.append(Brain(*args, **settings))
        return made[-1]

    yield make
    for brain in made:
        brain.stop()


class Relayed:
    """A relay and what it tells."""

    def __init__(self, bridge: BoardBridge, url: str, **settings: Any) -> None:
        self.relay = EngineRelay(bridge, url, **settings)
        self.states: queue.Queue[EngineStateChanged] = queue.Queue()
        self.problems: queue.Queue[BoardProblem] = queue.Queue()
        self.relay.state_changed.connect(self.states.put)
        self.relay.problem.connect(self.problems.put)

    def expect(self, *states: EngineState) -> None:
        for state in states:
            change = self.states.get(timeout=DEADLINE_S)
            assert change.state is state, change

    def problem(self) -> BoardProblem:
        return self.problems.get(timeout=DEADLINE_S)


@pytest.fixture
def relays() -> Iterator[Callable[..., Relayed]]:
    made: list[Relayed] = []

    def make(*args: Any, **settings: Any) -> Relayed:
        made.append(Relayed(*args, **settings))
        made[-1].relay.start()
        return made[-1]

    yield make
    for relayed in made:
        relayed.relay.stop(DEADLINE_S)
        assert relayed.relay.pool.counters()["leased"] == 0


Brains = Callable[..., Brain]
Relays = Callable[..., Relayed]


def carried_both_ways(brain: Brain, board: PlayedBoard, agent_id: bytes) -> None:
    board.send(SENSED)
    sender, data = brain.sensed.get(timeout=DEADLINE_S)
    assert sender == agent_id
    assert data == SENSED[:4] + agent_id + SENSED[BODY]
    assert brain.transport.wait_until_subscribed(agent_id, DEADLINE_S)
    move = frame({MOTOR: [(0, 5)]}, 42)
    with SharedFBC.from_bytes(move) as fbc:
        brain.pns.publish_motor(agent_id, fbc)
    assert received(board)[BODY] == move[BODY]


def test_a_board_is_an_agent_of_the_engine(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    brain = brains()
    with PlayedBoard(pty, ROVER) as board:
        bridge = rig.bridge(pty.address)
        relayed = relays(bridge, brain.url)
        agent = brain.agent()
        assert agent.descriptor.manufacturer == "feagi-io board"
        assert agent.descriptor.agent_name == "rover 0badcafe"
        (session,) = brain.pns.sessions
        assert session.capabilities == (
            AgentCapabilities.SEND_SENSOR_DATA | AgentCapabilities.RECEIVE_MOTOR_DATA
        )
        configured = brain.configured.get(timeout=DEADLINE_S)
        assert configured.details == agent_configuration(
            [DeclaredUnit("iagp", channels=4, resolution=256), DeclaredUnit("omot", resolution=9)]
        )
        relayed.expect(WAITING, UP)
        carried_both_ways(brain, board, agent.agent_id)
        (status,) = relayed.relay.status()
        assert status["port"] == pty.address
        assert status["state"] == "up"
        assert status["board"] == "rover"
        assert (status["registrations"], status["sensory"], status["motor"]) == (1, 1, 1)
        bridge.stop()
        relayed.expect(NO_BOARD)
        assert brain.left.get(timeout=DEADLINE_S).reason == "left: 'closed'"
    assert relayed.problems.empty()


def test_a_board_that_comes_back_registers_again(
    rig: Rig, new_pty: Callable[[], PtyLine], brains: Brains, relays: Relays
) -> None:
    brain = brains()
    line = new_pty()
    with PlayedBoard(line, ROVER) as board:
        relayed = relays(rig.bridge(line.address), brain.url)
        relayed.expect(WAITING, UP)
        first = brain.agent()
        carried_both_ways(brain, board, first.agent_id)
    line.hang_up()
    relayed.expect(NO_BOARD)
    assert brain.left.get(timeout=DEADLINE_S).agent_id == first.agent_id
    with PlayedBoard(new_pty(), ROVER) as board:
        relayed.expect(WAITING, UP)
        carried_both_ways(brain, board, brain.agent().agent_id)
    assert relayed.relay.status()[0]["registrations"] == 2


def test_an_engine_that_comes_back_is_told_everything_again(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    brain = brains()
    with PlayedBoard(pty, ROVER) as board:
        relayed = relays(rig.bridge(pty.address), brain.url)
        relayed.expect(WAITING, UP)
        first = brain.configured.get(timeout=DEADLINE_S)
        brain.stop()
        relayed.expect(WAITING)
        before = relayed.relay.status()[0]
        board.send(SENSED)
        rig.sensory.get(timeout=DEADLINE_S)
        again = brains(brain.port)
        relayed.expect(UP)
        assert again.configured.get(timeout=DEADLINE_S) == first
        carried_both_ways(again, board, again.agent().agent_id)
        after = relayed.relay.status()[0]
        assert after["sensory_dropped"] == before["sensory_dropped"] + 1
        assert after["registrations"] == 2
        assert rig.downs.empty()  # the board knows nothing of it but silence


def test_an_engine_that_comes_late_is_waited_for(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = brains()
    gone.stop()
    monkeypatch.setattr(engine_agent, "CONNECT_S", 0.2)
    monkeypatch.setattr(engine_agent, "RETRY_S", 0.01)
    with PlayedBoard(pty, ROVER) as board:
        relayed = relays(rig.bridge(pty.address), gone.url)
        relayed.expect(WAITING)
        problem = relayed.problem()
        assert isinstance(problem.error, (DeliveryTimeoutError, RemoteError))
        assert gone.url in str(problem.error)
        brain = brains(gone.port)
        relayed.expect(UP)
        carried_both_ways(brain, board, brain.agent().agent_id)
    assert relayed.problems.empty()  # told once, though tried again and again


def test_a_board_that_was_up_before_is_taken_over(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    brain = brains()
    with PlayedBoard(pty, ROVER) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        assert list(bridge.boards_up) == [up]
        relayed = relays(bridge, brain.url)
        relayed.expect(WAITING, UP)
        carried_both_ways(brain, board, brain.agent().agent_id)
        bridge.stop()
        assert not list(bridge.boards_up)


def test_units_that_an_engine_cannot_be_told_are_named(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain = brains()
    monkeypatch.setattr(engine_agent, "RETRY_S", 0.01)
    other = PtyLine()
    strange = {**ROVER, "name": "strange", "uid": "", "sensors": [{**ROVER["sensors"][0]}]}
    strange["sensors"][0]["u"] = "ixyz"
    try:
        with PlayedBoard(pty, strange), PlayedBoard(other, ROVER) as board:
            relayed = relays(rig.bridge(pty.address, other.address), brain.url)
            problem = relayed.problem()
            assert problem.port == pty.address
            assert isinstance(problem.error, FeagiDataError)
            assert "b'ixyz\\x01\\x00\\x00\\x00': no unit has the code 'ixyz'" in str(problem.error)
            agent = brain.agent()
            assert agent.descriptor.agent_name == "rover 0badcafe"
            while relayed.states.get(timeout=DEADLINE_S).state is not UP:
                continue
            carried_both_ways(brain, board, agent.agent_id)
            states = {row["board"]: row["state"] for row in relayed.relay.status()}
            assert states == {"strange": "refused", "rover": "up"}
        assert relayed.problems.empty()
        assert brain.came.empty()
    finally:
        other.close()


def test_boards_of_one_name_are_several_agents(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    brain = brains()
    other = PtyLine()
    nameless = {**ROVER, "uid": ""}
    try:
        with PlayedBoard(pty, nameless) as one, PlayedBoard(other, nameless) as two:
            relayed = relays(rig.bridge(pty.address, other.address), brain.url)
            agents = {a.descriptor.agent_name: a.agent_id for a in (brain.agent(), brain.agent())}
            assert set(agents) == {f"rover {line.address}" for line in (pty, other)}
            for _ in range(4):
                relayed.states.get(timeout=DEADLINE_S)
            carried_both_ways(brain, one, agents[f"rover {pty.address}"])
            carried_both_ways(brain, two, agents[f"rover {other.address}"])
    finally:
        other.close()


def test_the_token(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_agent, "RETRY_S", 0.01)
    brain = brains(token=TOKEN)
    with PlayedBoard(pty, ROVER) as board:
        bridge = rig.bridge(pty.address)
        wrong = relays(bridge, brain.url, token=bytes(32))
        wrong.expect(WAITING, REFUSED)
        assert "token" in str(wrong.problem().error)
        wrong.relay.stop()
        assert [change.state for change in list(wrong.states.queue)] == [NO_BOARD]
        assert wrong.problems.empty()
        right = relays(bridge, brain.url, token=TOKEN)
        right.expect(WAITING, UP)
        carried_both_ways(brain, board, brain.agent().agent_id)
        assert TOKEN.hex() not in repr(vars(next(iter(right.relay._agents.values()))))


def test_an_engine_that_does_not_take_the_units(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_agent, "RETRY_S", 0.01)
    quick = ClientTiming(answer_timeout_s=0.5, configuration_timeout_s=0.1, settle_s=0.1)
    monkeypatch.setattr(engine_agent, "TIMING", quick)
    brain = brains()
    brain.accept = False
    with PlayedBoard(pty, ROVER):
        relayed = relays(rig.bridge(pty.address), brain.url)
        relayed.expect(WAITING, REFUSED)
        assert isinstance(relayed.problem().error, ConfigurationRefusedError)
        brain.accept = True
        relayed.expect(UP)


def test_motors_deeper_than_the_engine_makes_them_are_told(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    brain = brains()
    with PlayedBoard(pty, CART):
        relayed = relays(rig.bridge(pty.address), brain.url)
        problem = relayed.problem()
        assert isinstance(problem.error, RemoteError)
        assert "RotaryMotor 0 1 wide and 9 deep, the board uses 1 and 255" in str(problem.error)
        assert relayed.relay.status()[0]["last_problem"] == str(problem.error)


def test_a_board_that_wants_to_see(rig: Rig, pty: PtyLine, brains: Brains, relays: Relays) -> None:
    brain = brains()
    with PlayedBoard(pty, {**ROVER, "viz": 1, "motors": []}) as board:
        relayed = relays(rig.bridge(pty.address), brain.url)
        relayed.expect(WAITING, UP)
        agent_id = brain.agent().agent_id
        assert brain.transport.wait_until_subscribed(agent_id, DEADLINE_S)
        with SharedFBC.from_bytes(MOVED) as fbc:
            brain.pns.publish_visualization(fbc)
        assert received(board, STREAM_VISUALIZATION)[BODY] == MOVED[BODY]
        board.send(SENSED)
        assert brain.sensed.get(timeout=DEADLINE_S)[0] == agent_id


def test_only_its_own_motors_reach_a_board(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    brain = brains()
    with PlayedBoard(pty, ROVER) as board:
        relayed = relays(rig.bridge(pty.address), brain.url)
        relayed.expect(WAITING, UP)
        agent_id = brain.agent().agent_id
        assert brain.transport.wait_until_subscribed(agent_id, DEADLINE_S)
        mixed = frame({b"omot\x05\x00\x07\x00": [(0, 1)], MOTOR: [(0, 5)]}, 42)
        with SharedFBC.from_bytes(mixed) as fbc:
            brain.pns.publish_motor(None, fbc)
        stream, data = board.frames.get(timeout=DEADLINE_S)
        assert stream == STREAM_MOTOR
        assert data[BODY] == frame({MOTOR: [(0, 5)]}, 42)[BODY]


def test_sensors_of_other_agents_are_not_the_relays(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    brain = brains()
    with PlayedBoard(pty, ROVER) as board:
        relayed = relays(rig.bridge(pty.address), brain.url)
        relayed.expect(WAITING, UP)
        stranger = rig.pns.attach_agent(
            brain.agent().descriptor, AgentCapabilities.SEND_SENSOR_DATA
        )
        with SharedFBC.from_bytes(SENSED) as fbc:
            stranger.submit_sensory(fbc)
        rig.sensory.get(timeout=DEADLINE_S)
        board.send(frame({SENSOR: [(1, 1)]}, 7))
        _, data = brain.sensed.get(timeout=DEADLINE_S)
        assert data[1] == 7
        stranger.close()


def test_stop_is_bounded_while_the_engine_is_away(
    rig: Rig, pty: PtyLine, brains: Brains, relays: Relays
) -> None:
    gone = brains()
    gone.stop()
    with PlayedBoard(pty, ROVER):
        relayed = relays(rig.bridge(pty.address), gone.url)
        relayed.expect(WAITING)
        began_s = time.monotonic()
        relayed.relay.stop()
        assert time.monotonic() - began_s < engine_agent.CONNECT_S + engine_agent.LEAVE_S + 1.0
        relayed.relay.stop()
        with pytest.raises(ClosedError, match="make a new one"):
            relayed.relay.start()


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("carrier-pigeon://x", {}),
        ("tcp://127.0.0.1", {}),
        ("tcp://127.0.0.1:30001", {"token": b"short"}),
    ],
)
def test_what_cannot_be_an_engine(rig: Rig, url: str, settings: dict[str, Any]) -> None:
    bridge = BoardBridge(rig.pns, ["/dev/no-such-port"])
    with pytest.raises(ConfigError):
        EngineRelay(bridge, url, **settings)
