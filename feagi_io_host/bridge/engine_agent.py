# SPDX-License-Identifier: Apache-2.0
"""BoardAgent: the board of one port as an agent of an engine.

One thread per port does all that waits: it registers, configures, and carries motor frames down.
Sensory frames are handed up in the thread that brings them, which never waits.

    board up   -> register -> configure -> carry frames
    board down -> deregister
    engine gone, or its genome changed -> the agent comes back by itself; meanwhile no motor frame
                  reaches the board, which goes fail-safe by that silence
"""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.bridge.declaration import BoardDeclaration
from feagi_io_host.bridge.engine_areas import AreaMismatch, mismatched_areas
from feagi_io_host.bridge.events import BoardDown, BoardProblem, BoardUp
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import AgentState, ClientTiming, StateChanged
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    FeagiDataError,
    FeagiIOError,
    RemoteError,
    StopTimeoutError,
    UnknownHandleError,
)
from feagi_io_host.core.heartbeat import HeartbeatTiming
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.signal import FeagiSignal
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.core.units import agent_configuration
from feagi_io_host.pns import PNS, AgentSession

_log = logging.getLogger("feagi_io.bridge")

MANUFACTURER: Final = "feagi-io board"
# An engine is given so long to let the agent in before that is told as a problem; then it is
# tried again. It also bounds how long a board that leaves is waited for.
CONNECT_S: Final = 2.0
TIMING: Final = ClientTiming(
    answer_timeout_s=1.0, configuration_timeout_s=2.0, settle_s=0.5, leave_timeout_s=1.0
)
# Longer than it takes to know by its silence that the engine does not take the units.
CONFIGURE_S: Final = 4.0
LEAVE_S: Final = 2.0
RETRY_S: Final = 1.0
# How long a frame is waited for before looking whether the board is still there.
_LOOK_S: Final = 0.1
_NAME_PART_CHARS: Final = 31

_ACTIVE: Final = frozenset({AgentState.ACTIVE_WAITING, AgentState.ACTIVE_HAS_DATA})


class EngineState(enum.Enum):
    """How a board stands with its engine."""

    NO_BOARD = "no board"
    WAITING = "waiting for the engine"
    UP = "up"
    REFUSED = "refused"
    """What the board declares cannot be told to an engine, or the engine does not take it."""


@dataclass(frozen=True, slots=True)
class EngineStateChanged:
    """A board stands otherwise with its engine; `reason` is for people."""

    port: str
    state: EngineState
    reason: str


@dataclass(frozen=True, slots=True)
class RelaySignals:
    """The signals of a relay, shared by its agents."""

    state_changed: FeagiSignal[EngineStateChanged]
    problem: FeagiSignal[BoardProblem]


@dataclass(frozen=True, slots=True)
class EngineAddress:
    """Where boards register, and how. `token` is 32 bytes and is not shown."""

    registration: str
    token: bytes | None = field(repr=False)
    heartbeat: HeartbeatTiming
    settings: Mapping[str, Any]


class BoardAgent:
    """What a relay has for each port. `start` once, then tell it who is there by `board_up` and
    `board_down`, from any thread."""

    def __init__(
        self, port: str, pns: PNS, engine: EngineAddress, signals: RelaySignals, pool: BufferPool
    ) -> None:
        self.port = port
        self._pns = pns
        self._engine = engine
        self._signals = signals
        self._pool = pool
        self._turn = threading.Condition()
        self._board: BoardUp | None = None
        self._stopping = False
        self._state = EngineState.NO_BOARD
        self._agent: FeagiAgent | None = None  # connected once; it comes back by itself
        self._told: set[str] = set()
        self._last_problem = ""
        self._counted = dict.fromkeys(
            ("registrations", "sensory", "sensory_dropped", "motor", "motor_dropped",
             "visualization"), 0,
        )  # fmt: skip
        self._worker = Worker(f"feagi-io-engine {port}", self._run, wake=self._ring)

    # -- for the relay, from any thread ---------------------------------------------------------

    def start(self) -> None:
        """Begin; does nothing when started before."""
        self._worker.start()

    def ask_to_stop(self) -> None:
        """Begin to end, without waiting."""
        with self._turn:
            self._stopping = True
            self._turn.notify_all()

    def stop(self, timeout_s: float) -> None:
        """Deregister and end. Raises StopTimeoutError when that takes longer."""
        self.ask_to_stop()
        self._worker.stop(timeout_s)

    def board_up(self, event: BoardUp) -> None:
        """This board is there now."""
        with self._turn:
            self._board = event
            self._turn.notify_all()

    def board_down(self, event: BoardDown) -> None:
        """This board is there no more."""
        with self._turn:
            if self._board is not None and self._board.agent_id == event.agent_id:
                self._board = None
                self._turn.notify_all()

    def sense(self, agent_id: bytes, fbc: SharedFBC) -> bool:
        """A sensory frame; whether it was this board's. Never waits: while the engine is not
        there it is dropped and counted."""
        board, agent = self._board, self._agent
        if board is None or board.agent_id != agent_id:
            return False
        if agent is None or agent.state not in _ACTIVE:
            self._counted["sensory_dropped"] += 1
            return True
        container = self._pool.acquire()
        try:
            # The board's frame bears the id that the bridge gave it; an engine has its own.
            container.try_write_data_by_copy_and_verify(fbc.view)
            container.set_agent_identifier(agent.agent_id)
            own = self._pool.share(container)
        except BaseException:
            self._pool.discard(container)
            raise
        with own:
            try:
                agent.send_sensory(own)
            except FeagiIOError as error:
                self._counted["sensory_dropped"] += 1
                _log.debug("%s: sensory frame for an engine that is gone: %s", self.port, error)
                return True
        self._counted["sensory"] += 1
        return True

    def status(self) -> dict[str, Any]:
        """State and counters as plain data."""
        board, agent = self._board, self._agent
        registrations = 0 if agent is None else int(agent.counters()["registrations"])
        return {
            "port": self.port,
            "state": self._state.value,
            "engine": self._engine.registration,
            "board": None if board is None else board.declaration.name,
            **self._counted,
            "registrations": self._counted["registrations"] + registrations,
            "last_problem": self._last_problem,
        }

    # -- the thread -----------------------------------------------------------------------------

    def _ring(self) -> None:
        with self._turn:
            self._turn.notify_all()

    def _run(self, stopping: threading.Event) -> None:
        while not (self._stopping or stopping.is_set()):
            with self._turn:
                board = self._board
                if board is None:
                    self._turn.wait_for(lambda: self._stopping or self._board is not None, 1.0)
                    continue
            if not self._serve(board):
                self._wait_while_here(board, RETRY_S)
            if not self._is_here(board):
                self._told.clear()
                self._move(EngineState.NO_BOARD, "the board is gone")

    def _is_here(self, board: BoardUp) -> bool:
        return self._board is board and not self._stopping

    def _wait_while_here(self, board: BoardUp, timeout_s: float) -> None:
        with self._turn:
            self._turn.wait_for(lambda: not self._is_here(board), timeout_s)

    def _serve(self, board: BoardUp) -> bool:
        """Be this board's agent until it is gone; false when it could not be."""
        try:
            units = board.declaration.declared_units()
            details = agent_configuration(units)
        except (FeagiDataError, FeagiIOError) as error:
            self._refused(error)
            return False
        agent = FeagiAgent(
            AgentDescriptor(MANUFACTURER, agent_name(board), 1),
            _capabilities(board.declaration),
            self._engine.registration,
            token=self._engine.token,
            timing=TIMING,
            heartbeat=self._engine.heartbeat,
            **self._engine.settings,
        )
        agent.on_state_change(self._on_state)
        try:
            # who was refused stays so until he is let in, however often he asks
            if self._state is not EngineState.REFUSED:
                self._move(EngineState.WAITING, f"registering at {self._engine.registration}")
            agent.connect(CONNECT_S)
            if self._is_here(board):
                agent.configure(details, CONFIGURE_S)
            if self._is_here(board):
                self._told.clear()
                self._agent = agent
                if agent.state in _ACTIVE:
                    self._move(EngineState.UP, "registered and configured")
                self._tell_mismatches(mismatched_areas(units))
                self._carry(agent, board)
        except ClosedError as error:
            _log.debug("%s: %s", self.port, error)
        except RemoteError as error:
            self._refused(error)
        except FeagiIOError as error:
            self._report(type(error).__name__, error)
        finally:
            self._agent = None
            self._counted["registrations"] += int(agent.counters()["registrations"])
            self._let_go(agent)
        return not self._is_here(board)

    def _let_go(self, agent: FeagiAgent) -> None:
        try:
            agent.close(LEAVE_S)
        except StopTimeoutError as error:
            # Its thread ends with the process; the port goes on with another agent.
            self._report("close", error)

    def _carry(self, agent: FeagiAgent, board: BoardUp) -> None:
        """Bring frames down until the board is gone; raises what the agent gives up with."""
        wants = agent.capabilities
        motor = AgentCapabilities.RECEIVE_MOTOR_DATA in wants
        shown = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS in wants
        while self._is_here(board):
            if motor:
                self._bring_motor(agent.receive_motor(_LOOK_S), board)
            if shown:
                frame = agent.receive_visualization(0.0 if motor else _LOOK_S)
                self._bring_visualization(frame, board)
            if not (motor or shown):
                self._wait_while_here(board, 1.0)

    def _bring_motor(self, frame: FeagiByteContainer | None, board: BoardUp) -> None:
        if frame is None:
            return
        with SharedFBC.adopt(frame) as fbc:
            try:
                self._pns.publish_motor(board.agent_id, fbc)
            except UnknownHandleError:
                return  # the board has just gone
            except DeliveryTimeoutError as error:
                self._counted["motor_dropped"] += 1
                self._report("motor", error)
                return
        self._counted["motor"] += 1

    def _bring_visualization(self, frame: FeagiByteContainer | None, board: BoardUp) -> None:
        session = self._session(board)
        if frame is None or session is None:
            return
        with SharedFBC.adopt(frame) as fbc:
            session.show(fbc)
        self._counted["visualization"] += 1

    def _session(self, board: BoardUp) -> AgentSession | None:
        for session in self._pns.sessions:
            if session.agent_id == board.agent_id:
                return session
        return None

    # -- telling --------------------------------------------------------------------------------

    def _on_state(self, change: StateChanged) -> None:
        """In the agent's own thread. What comes before the units are told is not of interest."""
        if self._agent is not None:
            up = change.after in _ACTIVE
            self._move(EngineState.UP if up else EngineState.WAITING, change.reason)

    def _refused(self, error: FeagiDataError | FeagiIOError) -> None:
        self._report(str(error), error)
        self._move(EngineState.REFUSED, str(error))

    def _tell_mismatches(self, mismatches: tuple[AreaMismatch, ...]) -> None:
        for mismatch in mismatches:
            self._report(f"area {mismatch.cortical_id}", RemoteError(str(mismatch)))

    def _move(self, state: EngineState, reason: str) -> None:
        with self._turn:
            if state is self._state:
                return
            self._state = state
        _log.info("%s: engine: %s: %s", self.port, state.value, reason)
        self._signals.state_changed.emit(EngineStateChanged(self.port, state, reason))

    def _report(self, cause: str, error: FeagiDataError | FeagiIOError) -> None:
        """Tell a problem once per cause, until the board is another or the engine let it in."""
        self._last_problem = str(error)
        if cause in self._told:
            return
        self._told.add(cause)
        _log.warning("%s: %s", self.port, error, extra={"port": self.port})
        self._signals.problem.emit(BoardProblem(self.port, error))


def agent_name(board: BoardUp) -> str:
    """The name under which a board registers: an engine tells agents apart by it.

    The board's own name, and its unique id; the port of one that has none.
    """
    declaration = board.declaration
    where = declaration.uid or board.port
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in where)
    return f"{declaration.name[:_NAME_PART_CHARS]} {shown[-_NAME_PART_CHARS:]}"


def _capabilities(declaration: BoardDeclaration) -> AgentCapabilities:
    wanted = AgentCapabilities(0)
    if declaration.sensors:
        wanted |= AgentCapabilities.SEND_SENSOR_DATA
    if declaration.motors:
        wanted |= AgentCapabilities.RECEIVE_MOTOR_DATA
    if declaration.visualization:
        wanted |= AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
    return wanted
