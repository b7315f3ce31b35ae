# SPDX-License-Identifier: Apache-2.0
"""Who answers on a line is told from its bytes, and nothing that is asked can do harm."""

from __future__ import annotations

import json

import pytest

from feagi_io_host.boards.console import goodbye
from feagi_io_host.boards.ear import ASK_AGENT, Ear
from feagi_wire import const
from feagi_wire.board_link import BoardLink
from feagi_wire.container import StaticFBC

DECLARATION = {
    "name": "rover", "uid": "e6", "fw": "micropython 1.25.0 rp2",
    "sensors": [{"u": "iinf", "t": 1, "s": 0, "g": 0, "f": 0, "n": 4, "r": 8, "c": 0}],
    "motors": [],
}  # fmt: skip


def board(declaration: object = DECLARATION) -> BoardLink:
    return BoardLink(bytearray(512), StaticFBC(bytearray(512)), json.dumps(declaration).encode())


def asked(link: BoardLink, question: bytes) -> tuple[int, bytes]:
    """What the board makes of a question, and its answer."""
    events = 0
    at = 0
    while at < len(question):
        got = link.receive(question, at, len(question), 0)
        if got == const.END:
            break
        events |= got
        at = link.index
    link.tick(0)
    return events, bytes(link.framer.tx[: link.tx_len])


def test_the_question_is_a_hello_to_a_board_and_no_key_to_a_repl() -> None:
    assert not set(ASK_AGENT) & {*range(1, 9), 10, 13, 24, 27}
    _, answer = asked(board(), ASK_AGENT)
    ear = Ear()
    for byte in b"boot text\r\n" + answer:
        ear.listen(bytes([byte]))
    agent = ear.agent
    assert agent is not None
    assert agent.declaration is not None
    assert agent.declaration.name == "rover"
    assert (agent.link_version, agent.container_version) == (1, 4)
    assert agent.speaks_ours
    assert not ear.prompt


def test_a_goodbye_is_taken_in_every_state() -> None:
    link = board()
    events, _ = asked(link, goodbye())
    assert events & const.EV_BYE


def test_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feagi_wire.board_link.LINK_VERSION", 9)
    _, answer = asked(board(), ASK_AGENT)
    ear = Ear()
    ear.listen(answer)
    assert ear.agent is not None
    assert (ear.agent.link_version, ear.agent.speaks_ours) == (9, False)


def test_a_declaration_out_of_bounds_is_told() -> None:
    _, answer = asked(board({"name": ""}), ASK_AGENT)
    ear = Ear()
    ear.listen(answer)
    assert ear.agent is not None
    assert ear.agent.declaration is None
    assert "has no name" in ear.agent.fault


def test_a_repl_is_known_by_banner_and_prompt() -> None:
    ear = Ear()
    ear.listen(b"\r\nMicroPython v1.25.0 on 2025-04-15; Raspberry Pi Pico with RP2040\r\nType")
    ear.listen(b' "help()" for more information.\r\n>')
    assert not ear.prompt
    ear.listen(b">> ")
    assert ear.prompt
    assert ear.banner == "MicroPython v1.25.0 on 2025-04-15; Raspberry Pi Pico with RP2040"
    assert ear.agent is None


def test_noise_of_any_length_is_noise() -> None:
    ear = Ear()
    for _ in range(40):
        ear.listen(bytes(range(1, 256)) * 4)
    assert (ear.agent, ear.prompt, ear.banner) == (None, False, "")
    assert len(ear.text) <= 4096
