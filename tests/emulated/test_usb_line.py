# SPDX-License-Identifier: Apache-2.0
"""UsbCdcDriver: the line of the REPL is the link's while a host talks, and mpremote's again after
it said goodbye or fell silent. On the console of the Cortex-M3, and on the USB port of a Pico."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.emulated.agent_host import DEADLINE_S, EYES, Host, counts, start_program
from tools.emulation import BoardFailedError, Cortex, EmulatedBoard, Pico

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

LOST_MS = 20_000  # of this machine; an emulated Pico is many times slower than a real one
FOR_EVER_MS = 100_000_000


def a_session(board: EmulatedBoard) -> None:
    """Senses and is moved there and back."""
    with Host(board.console, LOST_MS) as host:
        up = host.ups.get(timeout=DEADLINE_S)
        assert [unit.cortical_id for unit in up.declaration.sensors] == [EYES]
        host.move(0, 8)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (0, 7))
        host.move(8, 0)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (7, 0))
        (status,) = host.bridge.status()
        assert status["state"] == "CONNECTED"


def test_bye_gives_the_line_back_to_the_repl(board: Cortex) -> None:
    start_program(board, FOR_EVER_MS)
    a_session(board)
    values, failsafes, *_ = counts(board)  # which stops the program by Ctrl-C
    assert values >= 4
    assert failsafes >= 1


def test_a_host_comes_back_to_a_line_that_was_given_back(board: Cortex) -> None:
    start_program(board, FOR_EVER_MS)
    for _ in range(3):
        a_session(board)
    assert counts(board)[0] >= 12


def test_silence_gives_it_back_too(board: Cortex) -> None:
    start_program(board, 200)
    assert counts(board)[0] == 0


def test_before_that_nobody_stops_the_program(board: Cortex) -> None:
    start_program(board, FOR_EVER_MS)
    with pytest.raises(BoardFailedError):
        board.mpremote("resume", "exec", "pass", timeout_s=5)
    a_session(board)
    counts(board)


def test_the_usb_port_of_a_pico(pico: Pico) -> None:
    """Asked by hand and again: what is typed before the board has read the BYE is lost, and an
    emulated Pico reads late."""
    start_program(pico, FOR_EVER_MS)
    a_session(pico)
    host, _, port = pico.console.removeprefix("socket://").partition(":")
    deadline_s = time.monotonic() + 100
    with socket.create_connection((host, int(port)), timeout=2) as line:
        said = b""
        while b"KeyboardInterrupt" not in said:
            assert time.monotonic() < deadline_s, said
            line.sendall(b"\r\x03")
            with contextlib.suppress(TimeoutError):
                said = said[-1000:] + line.recv(1000)
    assert counts(pico)[0] >= 4
