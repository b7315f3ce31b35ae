# SPDX-License-Identifier: Apache-2.0
"""BoardBridge against boards played over real terminals and sockets.

Long because a bridge is tried as one thing: all of it needs the same rig and played board.
"""

from __future__ import annotations

import errno
import os
import queue
import random
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from feagi_io_host.bridge import BoardBridge
from feagi_io_host.core.errors import (
    FeagiDataError,
    LinkVersionError,
    NotABoardError,
    PortBusyError,
    PortNotFoundError,
    PortPermissionError,
    RemoteError,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.transports.serial.port import SerialPort
from feagi_wire import board_link
from feagi_wire.board_link import BoardLink
from feagi_wire.const import (
    ACK,
    BEAT,
    BYE_REFUSED,
    BYE_STOPPED,
    DATA,
    EV_BYE,
    EV_FAILSAFE,
    LOG,
    NAK,
    STREAM_CONTROL,
    STREAM_MOTOR,
    STREAM_SENSORY,
    STREAM_VISUALIZATION,
)
from feagi_wire.container import StaticFBC
from feagi_wire.framing import Framer
from tests.feagi_io_host.bridge.conftest import Rig, SkippingClock
from tests.feagi_io_host.bridge.played_board import (
    CART,
    DEADLINE_S,
    MOTOR,
    SENSOR,
    PlayedBoard,
    PtyLine,
    TcpLine,
)


def frame(areas: dict[bytes, list[tuple[int, int]]], counter: int = 1) -> bytes:
    """A container of voxels (x, z) per area."""
    size = 64 + sum(16 + 16 * len(rows) for rows in areas.values())
    fbc = StaticFBC(bytearray(size))
    assert fbc.begin(counter, len(areas)) == 0
    for cortical_id, rows in areas.items():
        assert fbc.begin_area(cortical_id, len(rows)) == 0
        for x, z in rows:
            assert fbc.add(x, 0, z, 1.0) >= 0
        assert fbc.end_area() == 0
    return bytes(fbc.buf[: fbc.end()])


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what no signal tells."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def publish(rig: Rig, data: bytes, agent_id: bytes | None = None) -> None:
    with SharedFBC.from_bytes(data) as fbc:
        rig.pns.publish_motor(agent_id, fbc)


def received(board: PlayedBoard, stream: int = STREAM_MOTOR) -> bytes:
    got, data = board.frames.get(timeout=DEADLINE_S)
    assert got == stream
    return data


# What follows the version byte, the counter and the struct count, which travel as they are, and
# the agent id, which the link restores.
BODY = slice(52, None)
SENSED = frame({SENSOR: [(0, 3), (3, 255)]}, 41)
MOVED = frame({MOTOR: [(0, 254)]}, 42)


def both_ways(rig: Rig, board: PlayedBoard, agent_id: bytes) -> None:
    board.send(SENSED)
    sender, data = rig.sensory.get(timeout=DEADLINE_S)
    assert sender == agent_id
    assert data == SENSED[:4] + agent_id + SENSED[BODY]
    publish(rig, MOVED, agent_id)
    assert received(board)[BODY] == MOVED[BODY]


def test_a_board_becomes_an_agent_and_frames_pass_both_ways(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        assert (up.port, up.declaration.name) == (pty.address, "cart")
        registered = rig.registered.get(timeout=DEADLINE_S)
        assert registered.agent_id == up.agent_id
        assert registered.descriptor.agent_name == "cart"
        assert board.up.wait(DEADLINE_S)
        assert bytes(board.link.agent_id) == up.agent_id
        both_ways(rig, board, up.agent_id)
        board.log(30, "warm \u2603\x1b[2J".encode())
        log = rig.logs.get(timeout=DEADLINE_S)
        assert (log.level, log.text) == (30, "warm \u2603\ufffd[2J")
        (status,) = bridge.status()
        assert (status["state"], status["sensory"], status["motor_sent"]) == ("CONNECTED", 1, 1)
        assert status["board"]["uid"] == "0badcafe"
        assert rig.problems.empty()


def test_stopping_says_goodbye(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        assert board.up.wait(DEADLINE_S)
        bridge.stop(DEADLINE_S)
        assert rig.down().reason == "the bridge stops"
        gone = rig.disconnected.get(timeout=DEADLINE_S)
        assert (gone.agent_id, gone.reason) == (up.agent_id, "the bridge stops")
        board.wait_for(EV_BYE)
        assert board.link.bye_reason == BYE_STOPPED
        bridge.stop(DEADLINE_S)


def test_over_tcp_and_again_after_a_hang_up(rig: Rig) -> None:
    line = TcpLine()
    try:
        rig.bridge(line.address)
        line.accept()
        with PlayedBoard(line) as board:
            up = rig.up()
            both_ways(rig, board, up.agent_id)
        line.hang_up()
        assert rig.down().reason == "the line is gone"
        assert isinstance(rig.problem().error, PortNotFoundError)
        line.accept()
        with PlayedBoard(line) as board:
            again = rig.up()
            assert again.agent_id == up.agent_id
            both_ways(rig, board, up.agent_id)
    finally:
        line.close()


def test_unplugged_and_back_under_the_same_name(rig: Rig, new_pty: Callable[[], PtyLine]) -> None:
    line = new_pty()
    bridge = rig.bridge(line.address)
    ids = set()
    for _ in range(3):
        with PlayedBoard(line) as board:
            up = rig.up()
            ids.add(up.agent_id)
            both_ways(rig, board, up.agent_id)
        line.close()
        assert rig.down().reason == "the line is gone"
        assert rig.disconnected.get(timeout=DEADLINE_S).agent_id == up.agent_id
        assert "is gone" in str(rig.problem().error)
        line = new_pty()
    assert len(ids) == 1
    assert bridge.status()[0]["sessions"] == 3


def test_a_board_that_resets_starts_a_new_session(rig: Rig, pty: PtyLine) -> None:
    bridge = rig.bridge(pty.address)
    with PlayedBoard(pty):
        first = rig.up()
    with PlayedBoard(pty) as board:
        assert rig.down().port == pty.address
        second = rig.up()
        assert second.agent_id == first.agent_id
        both_ways(rig, board, second.agent_id)
    assert bridge.status()[0]["openings"] == 1


def test_silence_ends_the_session_and_stale_set_points_are_dropped(rig: Rig, pty: PtyLine) -> None:
    clock = SkippingClock()
    bridge = rig.bridge(pty.address, clock=clock)
    with PlayedBoard(pty) as board:
        up = rig.up()
        both_ways(rig, board, up.agent_id)
        board.mute.set()
        clock.skip(6.0)
        assert rig.down().reason == "no frame for 5000 ms"
        assert rig.disconnected.get(timeout=DEADLINE_S).agent_id == up.agent_id
        board.mute.clear()
        assert rig.up().agent_id == up.agent_id
        both_ways(rig, board, up.agent_id)
        assert board.frames.empty()
    assert bridge.status()[0]["sessions"] == 2


def test_frames_queued_when_the_line_stops_taking_them_never_arrive(rig: Rig, pty: PtyLine) -> None:
    clock = SkippingClock()
    bridge = rig.bridge(pty.address, clock=clock)
    many = 200
    with PlayedBoard(pty) as board:
        up = rig.up()
        both_ways(rig, board, up.agent_id)
        # From here on the board reads nothing: its line fills up, then the stage, then the queue.
        board.deaf.set()
        board.mute.set()
        old = frame({MOTOR: [(0, 7)] * 60}, 7)
        for _ in range(many):
            publish(rig, old, up.agent_id)
        clock.skip(6.0)
        rig.down()
        status = bridge.status()[0]
        assert status["motor_dropped"] > 0
        assert status["motor_dropped"] + status["motor_sent"] == many + 1
        board.mute.clear()
        board.deaf.clear()
        rig.up()
        publish(rig, MOVED, up.agent_id)
        while (data := received(board))[BODY] != MOVED[BODY]:
            assert data[BODY] == old[BODY]  # had left the host before the silence began
        assert board.frames.empty()


def test_motor_frames_keep_their_order(rig: Rig, pty: PtyLine) -> None:
    bridge = rig.bridge(pty.address)
    with PlayedBoard(pty) as board:
        up = rig.up()
        for number in range(300):
            publish(rig, frame({MOTOR: [(0, number % 255)]}, number), up.agent_id)
        counters = [struct.unpack_from("<H", received(board), 1)[0] for _ in range(300)]
        assert counters == list(range(300))
        (agent,) = rig.pns.telemetry()["agents"]
    status = bridge.status()[0]
    assert (status["motor_sent"], status["motor_superseded"]) == (300, 0)
    motor = agent["motor"]
    assert (motor["sent"], motor["delivered"], motor["in_flight"]) == (300, 300, 0)
    assert motor["latency"]["count"] == 300, "from the brain until the line had it"


def test_superseded_motor_frames_are_counted_and_the_newest_arrives(rig: Rig, pty: PtyLine) -> None:
    bridge = rig.bridge(pty.address, supersede_motor=True)
    with PlayedBoard(pty) as board:
        up = rig.up()
        board.deaf.set()
        for number in range(1, 301):
            publish(rig, frame({MOTOR: [(0, 1)] * 60}, number), up.agent_id)
        # more than the line holds, and nobody reads: the bridge has to come to this
        eventually(lambda: bridge.status()[0]["motor_superseded"] > 0)
        board.deaf.clear()
        counter, seen = 0, 0
        while counter < 300:
            data = received(board)
            assert struct.unpack_from("<H", data, 1)[0] > counter
            counter = struct.unpack_from("<H", data, 1)[0]
            seen += 1
        status = bridge.status()[0]
        assert status["motor_superseded"] > 0
        assert status["motor_superseded"] + seen == 300


def test_visualization_only_for_boards_that_ask_for_it(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty, {**CART, "viz": 1}) as board:
        rig.bridge(pty.address)
        rig.up()
        shown = frame({b"cSHOWN\0\0": [(1, 2)]})
        with SharedFBC.from_bytes(shown) as fbc:
            rig.pns.publish_visualization(fbc)
        assert received(board, STREAM_VISUALIZATION)[BODY] == shown[BODY]


def test_a_motor_frame_is_cut_down_to_the_boards_areas(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        rig.bridge(pty.address)
        rig.up()
        other = b"omot\x05\x00\x09\x00"
        publish(rig, frame({other: [(0, 1)], MOTOR: [(0, 2)]}))
        assert received(board)[BODY] == frame({MOTOR: [(0, 2)]})[BODY]
        publish(rig, frame({other: [(0, 1)]}))
        publish(rig, frame({}))  # the brain's sign of life
        assert received(board)[BODY] == frame({})[BODY]


def test_undeclared_voxels_are_dropped_and_told_once(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        for _ in range(3):
            board.send(frame({SENSOR: [(0, 1), (4, 1), (0, 256)]}))
            _, data = rig.sensory.get(timeout=DEADLINE_S)
            assert data[BODY] == frame({SENSOR: [(0, 1)]})[BODY]
        board.send(frame({b"iinf\x01\0\0\0": [(0, 0)]}))
        both_ways(rig, board, up.agent_id)
        error = rig.problem().error
        assert isinstance(error, RemoteError)
        assert "2 voxels so far" in str(error)
        assert "4 channels x 256" in str(error)
        assert rig.problems.empty()
        refused = bridge.status()[0]["refused"]
        assert refused == {"frames_refused": 1, "areas_refused": 1, "voxels_refused": 7}


def test_frames_of_other_streams_from_a_board_are_counted(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        board.send(MOVED, STREAM_MOTOR)
        board.send(MOVED, STREAM_CONTROL)
        both_ways(rig, board, up.agent_id)
        assert bridge.status()[0]["unexpected"] == 2


def test_a_frame_too_large_for_the_board_is_told_once(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty, max_container=512) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        large = frame({MOTOR: [(0, 1)] * 60})
        for _ in range(3):
            publish(rig, large, up.agent_id)
        both_ways(rig, board, up.agent_id)
        error = rig.problem().error
        assert f"{len(large)} bytes is too large" in str(error)
        assert "at most 512" in str(error)
        assert rig.problems.empty()
        status = bridge.status()[0]
        assert (status["too_large"], status["motor_dropped"]) == (3, 3)


def test_noise_between_frames_costs_nothing(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        for noise in (b"\x00", b">>> \r\n", b"\xff" * 300, b"\x05ab\x00", bytes(range(256))):
            board.send_raw(noise)
            both_ways(rig, board, up.agent_id)
        status = bridge.status()[0]
        assert status["link"]["crc_errors"] + status["link"]["resyncs"] > 0
        assert rig.problems.empty()
        assert rig.downs.empty()


def test_damaged_frames_of_every_kind_cost_themselves_only(rig: Rig, pty: PtyLine) -> None:
    # Frames of all kinds with a valid checksum and a payload cut short or changed, under the
    # running session's epoch: what a board with a broken program would send.
    choose = random.Random(7)
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address)
        up = rig.up()
        both_ways(rig, board, up.agent_id)
        framer = Framer(bytearray(2048), bytearray(16))
        for number in range(600):
            kind = choose.choice([DATA, BEAT, ACK, NAK, LOG, 9, 15, DATA | 0x40])
            stream = choose.choice([STREAM_SENSORY, STREAM_CONTROL, 7])
            body = SENSED[1:4] + SENSED[BODY] if choose.random() < 0.5 else choose.randbytes(60)
            body = bytearray(body[: choose.randrange(len(body) + 1)])
            if body:
                body[choose.randrange(len(body))] ^= 1 << choose.randrange(8)
            payload = bytes([kind, stream, board.link.epoch, number & 255]) + body
            size = framer.encode(payload, 0, len(payload))
            board.send_raw(bytes(framer.tx[:size]))
        board.wait_until_sent()
    # Sequence numbers were made up, so the board's own frames would count as stale for a while:
    # it starts anew.
    with PlayedBoard(pty) as board:
        rig.down()
        assert rig.up().agent_id == up.agent_id
        board.send(SENSED)
        while rig.sensory.get(timeout=DEADLINE_S)[1][BODY] != SENSED[BODY]:
            pass  # one of the made-up frames was valid
        publish(rig, MOVED, up.agent_id)
        assert received(board)[BODY] == MOVED[BODY]
    link = bridge.status()[0]["link"]
    assert link["malformed"] > 0
    assert link["unknown"] > 0


@pytest.mark.parametrize(
    ("declaration", "text"),
    [
        ({**CART, "name": ""}, "has no name"),
        ({**CART, "sensors": CART["sensors"] * 2}, "the same area"),
        (b"not json", "JSON text of 8 bytes"),
    ],
)
def test_a_bad_declaration_is_refused_and_told_once(
    rig: Rig, pty: PtyLine, declaration: dict[str, Any] | bytes, text: str
) -> None:
    with PlayedBoard(pty, declaration) as board:
        rig.bridge(pty.address)
        error = rig.problem().error
        assert isinstance(error, FeagiDataError)
        assert text in str(error)
        board.wait_for(EV_BYE, times=2)
        assert board.link.bye_reason == BYE_REFUSED
        assert rig.problems.empty()
        assert rig.ups.empty()


def test_another_link_version_is_told_with_its_number(
    rig: Rig, pty: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The host's link reads the same constant: so the board's HELLO is made before the bridge
    # exists, and played back.
    with monkeypatch.context() as newer:
        newer.setattr(board_link, "LINK_VERSION", 9)
        board = BoardLink(bytearray(2048), StaticFBC(bytearray(1024)), b'{"name": "new"}')
        board.tick(0)
    hello = bytes(board.framer.tx[: board.tx_len])
    rig.bridge(pty.address)
    pty.wait_for_host()
    os.write(pty.master, hello)
    error = rig.problem().error
    assert isinstance(error, LinkVersionError)
    assert "speaks link 9 and container 4; this host speaks link 1 and container 4" in str(error)
    os.write(pty.master, hello)
    with PlayedBoard(pty) as good:
        both_ways(rig, good, rig.up().agent_id)
    assert rig.problems.empty()


def test_a_repl_answers(rig: Rig, pty: PtyLine) -> None:
    rig.bridge(pty.address)
    pty.wait_for_host()
    os.write(pty.master, b"MicroPython v1.24 on 2024-11-29; Raspberry Pi Pico with RP2040\r\n>>> ")
    error = rig.problem().error
    assert isinstance(error, NotABoardError)
    assert "REPL" in str(error)
    assert "mpremote" in str(error)
    os.write(pty.master, b">>> ")
    with PlayedBoard(pty) as board:
        both_ways(rig, board, rig.up().agent_id)
    assert rig.problems.empty()


def test_our_own_frames_come_back(rig: Rig, pty: PtyLine) -> None:
    stop = threading.Event()

    def echo() -> None:
        os.set_blocking(pty.master, True)
        while not stop.is_set():
            os.write(pty.master, os.read(pty.master, 4096))

    thread = threading.Thread(target=echo, daemon=True)
    thread.start()
    try:
        rig.bridge(pty.address)
        error = rig.problem().error
        assert isinstance(error, NotABoardError)
        assert "3 of our own frames came back" in str(error)
    finally:
        stop.set()
        rig.stop()
        os.write(pty.slave, b"x")  # the last thing the echo waits for
        thread.join(DEADLINE_S)


def at_a_higher_rate(bridge: BoardBridge) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while bridge.status()[0]["baud"]["changes"] == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def follows(link: BoardLink) -> None:
    link.max_baud = 921_600


def test_a_session_that_the_pns_closes_leaves_its_line_at_the_first_rate(
    rig: Rig, pty: PtyLine
) -> None:
    speeds: queue.Queue[int] = queue.Queue()
    with PlayedBoard(pty, before=follows):
        bridge = rig.bridge(pty.address)
        bridge.board_down.connect(lambda _: speeds.put(termios.tcgetattr(pty.slave)[4]))
        rig.up()
        at_a_higher_rate(bridge)
        assert termios.tcgetattr(pty.slave)[4] == termios.B921600
        rig.pns.stop(DEADLINE_S)
        assert rig.down().reason == "the PNS closed the agent's session"
        assert speeds.get(timeout=DEADLINE_S) == termios.B115200, "where the board goes, too"


def test_a_missing_port_is_told_once_and_found_when_it_comes(
    rig: Rig, new_pty: Callable[[], PtyLine], tmp_path: Any
) -> None:
    rig.bridge(str(tmp_path / "board"))
    assert isinstance(rig.problem().error, PortNotFoundError)
    with PlayedBoard(new_pty()) as board:
        both_ways(rig, board, rig.up().agent_id)
    assert rig.problems.empty()


def test_a_busy_port_is_told_and_taken_when_it_is_free(rig: Rig, pty: PtyLine) -> None:
    with SerialPort(pty.address):
        bridge = rig.bridge(pty.address)
        error = rig.problem().error
        assert isinstance(error, PortBusyError)
        assert f"process {os.getpid()}" in str(error)
        assert bridge.status()[0]["state"] == "CLOSED"
    with PlayedBoard(pty) as board:
        both_ways(rig, board, rig.up().agent_id)


def test_a_forbidden_port_is_told_when_it_stays_forbidden(
    rig: Rig, pty: PtyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tests may run as root, whom no mode keeps out: so opening itself is made to fail.
    real_open = os.open
    attempts: queue.Queue[None] = queue.Queue()

    def refuse(name: Any, *rest: Any, **more: Any) -> int:
        if name == pty.address:
            attempts.put(None)
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return real_open(name, *rest, **more)

    clock = SkippingClock()
    with monkeypatch.context() as forbidden:
        forbidden.setattr(os, "open", refuse)
        rig.bridge(pty.address, clock=clock)
        for _ in range(2):
            attempts.get(timeout=DEADLINE_S)
        assert rig.problems.empty()  # udev may still be at it
        clock.skip(1.0)
        error = rig.problem().error
        assert isinstance(error, PortPermissionError)
        assert f"may not open {pty.address}: it belongs to " in str(error)
    with PlayedBoard(pty) as board:
        both_ways(rig, board, rig.up().agent_id)
    assert rig.problems.empty()


def test_several_boards_at_once_twins_included(rig: Rig) -> None:
    lines = [PtyLine() for _ in range(3)]
    boards = [PlayedBoard(line).start() for line in lines]
    try:
        rig.bridge(*(line.address for line in lines))
        ids = {up.port: up.agent_id for up in (rig.up() for _ in lines)}
        assert len(set(ids.values())) == 3
        for line, board in zip(lines, boards, strict=True):
            both_ways(rig, board, ids[line.address])
        lines[0].hang_up()
        assert rig.down().port == lines[0].address
        for line, board in zip(lines[1:], boards[1:], strict=True):
            both_ways(rig, board, ids[line.address])
    finally:
        for board in boards:
            board.stop()
        for line in lines:
            line.close()


def test_the_pns_stops_first(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        rig.bridge(pty.address)
        rig.up()
        assert board.up.wait(DEADLINE_S)
        rig.pns.stop(DEADLINE_S)
        assert rig.down().reason == "the PNS closed the agent's session"
        board.wait_for(EV_BYE)
        assert "takes no more agents" in str(rig.problem().error)


def test_an_agent_goes_fail_safe_when_the_brain_falls_silent(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        rig.bridge(pty.address, motor_timeout_ms=60)
        up = rig.up()
        both_ways(rig, board, up.agent_id)
        board.wait_for(EV_FAILSAFE)
        assert rig.downs.empty()


def test_a_listener_may_stop_the_bridge(rig: Rig, pty: PtyLine) -> None:
    stopped: queue.Queue[str] = queue.Queue()
    bridge = BoardBridge(rig.pns, [pty.address])
    rig.bridges.append(bridge)

    def stop(_: object) -> None:
        bridge.stop(DEADLINE_S)
        stopped.put("stopped")

    bridge.board_up.connect(stop)
    with PlayedBoard(pty):
        bridge.start()
        assert stopped.get(timeout=DEADLINE_S) == "stopped"


def test_round_trip_and_clock_offset_are_measured(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address, beat_ms=5)
        up = rig.up()
        while bridge.status()[0]["rtt"]["count"] < 5:
            both_ways(rig, board, up.agent_id)
        status = bridge.status()[0]
        assert 0.0 < status["rtt"]["p50_ms"] <= status["rtt"]["p99_ms"]
        # the played board reads the clock that the bridge reads
        assert abs(status["clock_offset_ms"]) <= 1 + status["rtt"]["max_ms"]


def test_sensory_frames_arrive_in_order_and_complete(rig: Rig, pty: PtyLine) -> None:
    with PlayedBoard(pty) as board:
        bridge = rig.bridge(pty.address)
        rig.up()
        for number in range(300):
            board.send(frame({SENSOR: [(0, number % 256)]}, number), STREAM_SENSORY)
        got = [rig.sensory.get(timeout=DEADLINE_S)[1] for _ in range(300)]
        assert [struct.unpack_from("<H", data, 1)[0] for data in got] == list(range(300))
        assert bridge.status()[0]["link"]["lost"] == 0
