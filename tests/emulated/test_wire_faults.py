# SPDX-License-Identifier: Apache-2.0
"""Bad wires between the bridge and the UART of the emulated Cortex-M3: how long until all is well
again, and that actuators are safe in time whatever happens."""

from __future__ import annotations

import time

import pytest

from feagi_io_host.testing import LineFaults, LineImpairmentProxy
from tests.emulated.agent_host import DEADLINE_S, Host, counts, start_program
from tools.emulation import Cortex

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

SEED = 5
LOST_MS = 2000


def wire(board: Cortex, **faults: LineFaults) -> LineImpairmentProxy:
    host, _, port = board.uarts[1].removeprefix("socket://").partition(":")
    return LineImpairmentProxy(host, int(port), seed=SEED, **faults)


def moved(host: Host) -> float:
    """Seconds until a command has gone to the board and its effect has come back. Commands are
    repeated as a brain repeats them: data that is lost is not sent again."""
    start_s = time.monotonic()
    for left, right, seen in ((8, 0, (7, 0)), (0, 8, (0, 7))):
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            host.move(left, right)
            voxels = host.seen.get(timeout=DEADLINE_S)
            if (voxels.get(0), voxels.get(1)) == seen:
                break
            assert time.monotonic() < deadline_s
    return time.monotonic() - start_s


@pytest.mark.parametrize(
    "faults",
    [
        LineFaults(drop=0.002),
        LineFaults(corrupt=0.002),
        LineFaults(insert=0.002),
        LineFaults(drop=0.001, corrupt=0.001, insert=0.001),
    ],
    ids=["drop", "corrupt", "insert", "all"],
)
def test_damaged_bytes_cost_frames_and_no_session(board: Cortex, faults: LineFaults) -> None:
    start_program(board)
    with wire(board) as line, Host(line.url, LOST_MS) as host:
        host.ups.get(timeout=DEADLINE_S)
        moved(host)
        line.towards = line.back = faults
        bad_s = moved(host)
        deadline_s = time.monotonic() + DEADLINE_S
        while sum(sum(way.values()) - way["passed"] for way in line.counters().values()) < 4:
            assert time.monotonic() < deadline_s
            moved(host)
        line.towards = line.back = LineFaults()
        good_s = moved(host)
        (status,) = host.bridge.status()
        print(f"{faults}: moved in {bad_s:.2f} s, after it in {good_s:.2f} s; {line.counters()}")
        assert host.downs.empty(), "a session ended for damaged bytes"
        assert status["sessions"] == 1
        assert status["state"] == "CONNECTED"
    counts(board)


def test_a_stall_makes_actuators_safe_and_is_got_over(board: Cortex) -> None:
    start_program(board)
    with wire(board) as line, Host(line.url, LOST_MS) as host:
        host.ups.get(timeout=DEADLINE_S)
        moved(host)
        line.stall()
        down = host.downs.get(timeout=DEADLINE_S)
        line.go_on()
        host.ups.get(timeout=DEADLINE_S)
        took_s = moved(host)
        print(f"stalled: {down.reason}; up and moved {took_s:.2f} s after it")
    assert counts(board)[1] >= 1, "no fail-safe"


def test_a_cut_wire_makes_actuators_safe_and_service_comes_back(board: Cortex) -> None:
    start_program(board)
    with wire(board) as line, Host(line.url, LOST_MS) as host:
        host.ups.get(timeout=DEADLINE_S)
        moved(host)
        for _ in range(3):
            line.cut()
            start_s = time.monotonic()
            host.downs.get(timeout=DEADLINE_S)
            host.ups.get(timeout=DEADLINE_S)
            up_s = time.monotonic() - start_s
            print(f"cut: up after {up_s:.2f} s, moved {moved(host):.2f} s later")
    counts(board)


def test_a_boot_loader_and_a_prompt_cost_nothing_but_time(board: Cortex) -> None:
    start_program(board)
    noise = b"ets Jul 29 2019 12:21:46\r\nrst:0x1 (POWERON_RESET)\r\n>>> " + bytes(range(1, 256))
    with wire(board) as line, Host(line.url, LOST_MS) as host:
        host.ups.get(timeout=DEADLINE_S)
        for _ in range(5):
            line.say("back", noise)
            line.say("towards", noise)
            moved(host)
        assert host.downs.empty()
        (status,) = host.bridge.status()
        assert status["sessions"] == 1
    counts(board)


def test_a_line_at_another_baud_rate_is_silence_and_is_got_over(board: Cortex) -> None:
    """Every byte is another one, both ways, as when the rates of the ends are swapped."""
    start_program(board)
    with wire(board) as line, Host(line.url, LOST_MS) as host:
        host.ups.get(timeout=DEADLINE_S)
        moved(host)
        line.towards = line.back = LineFaults(corrupt=1.0)
        down = host.downs.get(timeout=DEADLINE_S)
        line.towards = line.back = LineFaults()
        host.ups.get(timeout=DEADLINE_S)
        print(f"rates swapped: {down.reason}; up and moved {moved(host):.2f} s after it")
        (status,) = host.bridge.status()
        assert status["sessions"] == 2
    assert counts(board)[1] >= 1, "no fail-safe"
