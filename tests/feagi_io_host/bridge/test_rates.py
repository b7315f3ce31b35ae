# SPDX-License-Identifier: Apache-2.0
"""The rate of a line: a board's real transport and UartDriver, the host's real link and RateKeeper,
between them a wire that garbles what is sent at one rate and received at another. The UART and the
time are stand-ins: a wire that carries one rate well and another badly is not to be had here. The
chip's own UART is met in tests/emulated/test_baud.py."""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Callable

import pytest

from feagi_io_host.bridge.rates import RateKeeper, RateState
from feagi_io_mcu import transport as transport_module
from feagi_io_mcu.drivers import uart as uart_module
from feagi_io_mcu.drivers.uart import UartDriver
from feagi_io_mcu.transport import RTOSTransport
from feagi_wire.const import (
    BYE_STOPPED,
    CONNECTED,
    CRC_BYTES,
    END,
    EV_DOWN,
    EV_FAILSAFE,
    EV_HELLO,
    EV_LOST,
    OK,
    STREAM_MOTOR,
)
from feagi_wire.container import StaticFBC
from feagi_wire.host_link import HostLink

BASE, MOST = 115_200, 921_600
MOTOR_EVERY_MS = 20
# A frame is taken out of both ends' way for so long by a change that works.
MOTOR_GAP_MS = 60


class Wire:
    """Both ends, a millisecond a step. `bad[rate]`: the share of bytes that are hurt there."""

    uart: StandInUart

    def __init__(self, most: int, max_baud: int) -> None:
        self.now_ms = 0
        self.rng = random.Random(7)
        self.bad: dict[int, float] = {}
        self.most = most
        self.max_baud = max_baud
        self.unsettable: set[int] = set()
        self.failsafes = self.downs = self.motor_gap_ms = 0
        self._motor_at_ms = 0
        self.start_host()

    def start_host(self) -> None:
        """A host that has just come up, at its first rate."""
        self.host_baud = BASE
        self.to_host = bytearray()
        self.keeper = RateKeeper(BASE, self.most)
        self.host = HostLink(bytearray(512), StaticFBC(bytearray(512 + CRC_BYTES)))

    def start_board(self) -> None:
        """A board that has just been reset."""
        self.driver = UartDriver(0, BASE, max_baud=self.max_baud)
        self.board = RTOSTransport(self.driver, b'{"name": "board"}', 512)

    def carried(self, data: bytes, there: int, here: int) -> bytes:
        """What arrives of it."""
        share = self.bad.get(there, 0.0) if there == here else 1.0
        if not share:
            return data
        return bytes(self.rng.randrange(256) if self.rng.random() < share else b for b in data)

    def run(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.now_ms += 1
            self.failsafes += bool(self.board.pump() & EV_FAILSAFE)
            if self.board.poll(STREAM_MOTOR) is not None:
                self.motor_gap_ms = max(self.motor_gap_ms, self.now_ms - self._motor_at_ms)
                self._motor_at_ms = self.now_ms
            self._step_host()

    def _step_host(self) -> None:
        chunk = bytes(self.to_host)
        self.to_host.clear()
        link = self.host
        at = 0
        while (events := link.receive(chunk, at, len(chunk), self.now_ms)) != END:
            at = link.index
            self._act(events)
        if link.state == CONNECTED and self.now_ms % MOTOR_EVERY_MS == 0:
            fbc = StaticFBC(bytearray(64))
            fbc.begin(0, 0)
            link.send(STREAM_MOTOR, fbc, fbc.end(), self.now_ms)
        for _ in range(2):
            if link.pending():
                data = bytes(link.framer.tx[link.tx_pos : link.tx_len])
                link.written(len(data))
                self.uart.inward += self.carried(data, self.host_baud, self.uart.baud)
            self._act(link.tick(self.now_ms))

    def _act(self, events: int) -> None:
        self.downs += bool(events & (EV_LOST | EV_DOWN))
        if events & EV_HELLO:
            most = min(self.max_baud, 6_553_500)
            assert self.host.peer_max_baud == (most if most > BASE else 0)
        now_s = self.now_ms / 1000.0
        baud = self.keeper.step(self.host, events, now_s, self.now_ms)
        if baud in self.unsettable:
            self.host_baud = self.keeper.not_set(now_s) or self.host_baud
        elif baud:
            self.host_baud = baud

    def is_at(self, baud: int) -> bool:
        """Whether both ends are there, and in a session."""
        return (self.host_baud, self.uart.baud, self.host.state) == (baud, baud, CONNECTED)


class StandInUart:
    """What UartDriver uses of machine.UART, with rings that are never full."""

    def __init__(self, wire: Wire, baud: int) -> None:
        self.wire = wire
        self.baud = baud
        self.inward = bytearray()

    def any(self) -> int:
        return len(self.inward)

    def readinto(self, buf: bytearray, n: int) -> int:
        buf[:n] = self.inward[:n]
        del self.inward[:n]
        return n

    def write(self, buf: bytearray, start: int, n: int) -> int:
        wire = self.wire
        wire.to_host += wire.carried(bytes(buf[start : start + n]), self.baud, wire.host_baud)
        return n

    def txdone(self) -> bool:
        return True


Make = Callable[..., Wire]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(most: int = MOST, max_baud: int = MOST) -> Wire:
        wire = Wire(most, max_baud)

        def opened(number: int, baud: int, **settings: object) -> StandInUart:
            wire.uart = StandInUart(wire, baud)
            return wire.uart

        machine = types.ModuleType("machine")
        machine.UART = opened  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "machine", machine)
        for module in (uart_module, transport_module):
            monkeypatch.setattr(module, "ticks", lambda: wire.now_ms)
        wire.start_board()
        return wire

    return made


def test_a_line_goes_to_the_highest_rate_both_can_and_nobody_notices(make: Make) -> None:
    wire = make()
    wire.run(2000)
    assert wire.is_at(MOST)
    assert (wire.keeper.changes, wire.keeper.failures) == (1, 0)
    wire.run(5000)
    assert wire.is_at(MOST)
    assert (wire.downs, wire.failsafes) == (0, 0)
    assert wire.motor_gap_ms <= MOTOR_GAP_MS


@pytest.mark.parametrize(
    ("most", "max_baud", "reached"),
    [(MOST, 0, BASE), (0, MOST, BASE), (BASE, MOST, BASE), (500_000, MOST, 460_800),
     (MOST, 460_800, 460_800), (MOST, 230_400, 230_400)],
)  # fmt: skip
def test_no_higher_than_either_may(make: Make, most: int, max_baud: int, reached: int) -> None:
    wire = make(most, max_baud)
    wire.run(2000)
    assert wire.is_at(reached)
    assert wire.keeper.failures == 0


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_rate_that_does_not_carry_makes_nobody_fail_safe(make: Make, share: float) -> None:
    wire = make()
    wire.bad = {921_600: share}
    wire.run(5000)
    assert wire.is_at(460_800)
    assert (wire.keeper.changes, wire.keeper.failures) == (1, 1)
    assert (wire.downs, wire.failsafes) == (0, 0)
    # it is tried again after a minute, and carries now
    wire.bad = {}
    wire.run(65_000)
    assert wire.is_at(921_600)
    assert (wire.downs, wire.failsafes) == (0, 0)


def test_none_carries(make: Make) -> None:
    wire = make()
    wire.bad = {230_400: 1.0, 460_800: 1.0, 921_600: 1.0}
    wire.run(10_000)
    assert wire.is_at(BASE)
    assert wire.keeper.failures == 3
    assert (wire.downs, wire.failsafes) == (0, 0)


def test_damage_takes_it_down_a_step_and_keeps_the_session(make: Make) -> None:
    wire = make()
    wire.run(2000)
    assert wire.is_at(921_600)
    wire.bad = {921_600: 0.003}
    wire.run(10_000)
    assert wire.is_at(460_800)
    assert wire.downs == 0
    wire.bad = {}
    wire.run(20_000)
    assert wire.is_at(460_800), "what failed is left alone for a minute"


def test_a_line_that_is_dead_at_its_rate_meets_again_at_the_first_one(make: Make) -> None:
    wire = make()
    wire.run(2000)
    wire.bad = {921_600: 1.0}
    wire.run(1200)
    assert wire.downs > 0
    assert wire.failsafes == 1
    wire.run(5000)
    assert wire.is_at(460_800)


def test_a_board_that_restarts_is_met_at_the_first_rate(make: Make) -> None:
    wire = make()
    wire.run(2000)
    wire.start_board()
    assert wire.uart.baud == BASE
    wire.run(3000)
    assert wire.host.state == CONNECTED
    assert wire.host_baud == wire.uart.baud


def test_a_host_that_restarts_is_met_at_the_first_rate(make: Make) -> None:
    wire = make()
    wire.run(2000)
    wire.start_host()
    wire.run(4000)
    assert wire.is_at(MOST)
    assert wire.failsafes == 1


def test_a_rate_that_the_system_refuses(make: Make) -> None:
    wire = make()
    wire.unsettable = {921_600, 460_800}
    wire.run(5000)
    assert wire.is_at(230_400)
    assert (wire.downs, wire.failsafes) == (0, 0)


@pytest.mark.parametrize("lost", ["question", "answer"])
def test_a_question_or_answer_that_is_lost(make: Make, lost: str) -> None:
    wire = make()
    while wire.keeper.state is not RateState.ASKED:
        wire.run(1)
    if lost == "question":
        wire.uart.inward.clear()
    else:
        wire.board.pump()
    wire.to_host.clear()
    assert wire.uart.baud == (BASE if lost == "question" else MOST)
    wire.run(400)
    assert wire.host.state == CONNECTED
    assert wire.host_baud == wire.uart.baud
    assert (wire.downs, wire.failsafes, wire.keeper.failures) == (0, 0, 1)


def test_a_goodbye_does_not_wait_for_an_answer(make: Make) -> None:
    wire = make()
    wire.run(100)
    assert wire.host.ask_rate(MOST) == OK
    wire.host.bye(BYE_STOPPED)
    wire.run(5)
    assert wire.board.link.bye_reason == BYE_STOPPED


def test_a_lost_question_ends_no_session_however_patient_motors_are(make: Make) -> None:
    wire = make()
    wire.host.motor_timeout_ms = 3000
    while wire.keeper.state is not RateState.ASKED:
        wire.run(1)
    wire.uart.inward.clear()
    wire.to_host.clear()
    for _ in range(1600):
        wire.run(1)
        assert wire.board.link.state == CONNECTED


def test_a_dead_rate_ends_no_session_however_patient_motors_are(make: Make) -> None:
    wire = make()
    wire.host.motor_timeout_ms = 3000
    wire.bad = {230_400: 1.0, 460_800: 1.0, 921_600: 1.0}
    wire.run(100)
    for _ in range(5000):
        wire.run(1)
        assert wire.board.link.state == CONNECTED


def test_a_board_goes_no_lower_than_its_first_rate(make: Make) -> None:
    """machine.UART raises for rates that a chip cannot have, which would end the board's loop."""
    wire = make()
    wire.run(100)
    assert wire.host.ask_rate(1) == OK
    wire.run(5)
    assert wire.uart.baud == BASE


@pytest.mark.parametrize("leaves", [True, False])
def test_a_boards_goodbye_leaves_before_its_rate_changes(make: Make, leaves: bool) -> None:
    wire = make()
    wire.run(2000)
    fast = wire.uart
    fast.txdone = lambda: False  # type: ignore[method-assign]
    wire.board.link.bye(BYE_STOPPED)
    wire.run(10)
    assert wire.uart is fast
    if leaves:
        fast.txdone = lambda: True  # type: ignore[method-assign]
        wire.run(1)
    else:
        wire.run(50)
    assert wire.uart.baud == BASE


def test_no_other_rate_is_left_behind_where_the_lower_one_is_refused(make: Make) -> None:
    wire = make()
    wire.run(2000)
    assert wire.is_at(921_600)
    wire.unsettable = {460_800}
    wire.bad = {921_600: 0.003}
    wire.run(10_000)
    assert wire.host.state == CONNECTED
    assert wire.host_baud == wire.uart.baud


def test_a_rate_beyond_what_hello_can_tell(make: Make) -> None:
    wire = make(max_baud=8_000_000)
    wire.run(2000)
    assert wire.is_at(MOST)


def test_random_faults_never_part_the_ends_for_good(make: Make) -> None:
    rng = random.Random(11)
    for _ in range(6):
        wire = make()
        for _ in range(12):
            wire.bad = {
                rate: rng.choice((0.0, 0.0, 0.001, 0.02, 1.0)) for rate in (230_400, 460_800, MOST)
            }
            wire.run(rng.randrange(50, 1500))
            if rng.random() < 0.2:
                rng.choice((wire.start_board, wire.start_host))()
        wire.bad = {}
        wire.run(8000)
        assert wire.host.state == CONNECTED
        assert wire.host_baud == wire.uart.baud
