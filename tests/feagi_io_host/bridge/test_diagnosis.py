# SPDX-License-Identifier: Apache-2.0
"""Who answers when no board does."""

from __future__ import annotations

import pytest

from feagi_io_host.bridge.diagnosis import LineDiagnosis
from feagi_io_host.core.errors import NotABoardError


@pytest.fixture
def line() -> LineDiagnosis:
    diagnosis = LineDiagnosis("/dev/ttyX")
    diagnosis.start(100.0, 0, 0)
    return diagnosis


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\r\n>>> "],
        [b"\r\n>", b">> "],
        [b"raw REPL; CTRL-B to exit\r\n>"],
        [b'MicroPython v1.24\r\nType "help()" for more information.\r\n'],
    ],
)
def test_a_repl_is_recognised_at_once(line: LineDiagnosis, pieces: list[bytes]) -> None:
    for piece in pieces:
        line.take(memoryview(piece))
    finding = line.judge(100.0, 0, 0, 0)
    assert finding is not None
    cause, error = finding
    assert cause == "REPL"
    assert isinstance(error, NotABoardError)
    assert "mpremote connect /dev/ttyX run main.py" in str(error)


def test_echoes_are_told_with_their_number(line: LineDiagnosis) -> None:
    assert line.judge(100.1, 2, 2, 0) is None
    finding = line.judge(100.2, 3, 3, 0)
    assert finding is not None
    assert finding[0] == "echo"
    assert "3 of our own frames" in str(finding[1])


def test_noise_has_to_last(line: LineDiagnosis) -> None:
    line.take(memoryview(bytes([0xF8]) * 200))
    assert line.judge(102.9, 0, 0, 1) is None
    finding = line.judge(103.0, 0, 0, 7)
    assert finding is not None
    assert finding[0] == "noise"
    assert "200 bytes in 3 s" in str(finding[1])
    assert "(7 damaged)" in str(finding[1])


def test_silence(line: LineDiagnosis) -> None:
    assert line.judge(104.9, 0, 0, 0) is None
    finding = line.judge(105.0, 0, 0, 0)
    assert finding is not None
    assert finding[0] == "silence"
    assert not isinstance(finding[1], NotABoardError)


def test_silence_of_a_network_is_not_about_wires() -> None:
    line = LineDiagnosis("udp://127.0.0.1:5570")
    line.start(100.0, 0, 0)
    finding = line.judge(105.0, 0, 0, 0)
    assert finding is not None
    assert "UdpDriver" in str(finding[1])
    assert "mpremote" not in str(finding[1])


def test_a_good_frame_ends_the_suspicion(line: LineDiagnosis) -> None:
    line.take(memoryview(b"boot\r\n>>> "))
    assert line.judge(101.0, 1, 0, 0) is None
    assert line.judge(105.9, 1, 0, 0) is None
    assert line.judge(106.0, 1, 0, 0) is not None
