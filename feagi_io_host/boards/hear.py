# SPDX-License-Identifier: Apache-2.0
"""Listen on a board's port until it is known who talks there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Final

from feagi_io_host.boards.console import BoardConsole, ConsoleLostError
from feagi_io_host.boards.ear import ASK_AGENT, ASK_REPL, Ear
from feagi_io_host.core.errors import PortNotFoundError

_ASK_S: Final = 0.4
_READ_S: Final = 0.1
_BANNER_S: Final = 0.8


def hear(console: BoardConsole, timeout_s: float) -> Ear:
    """Ask who is there until an agent or a prompt answers, or `timeout_s` passed.

    A prompt is given a moment to say whose it is. Nothing that runs on the board is disturbed.
    Raises ConsoleLostError when the board goes away.
    """
    ear = Ear()
    deadline_s = time.monotonic() + timeout_s
    asked_s = prompt_s = float("-inf")
    question = ASK_REPL
    while (now_s := time.monotonic()) < deadline_s and ear.agent is None:
        if ear.prompt and prompt_s == float("-inf"):
            prompt_s = now_s
            question = ASK_REPL  # the frame would be a line of nonsense to a REPL
        if ear.prompt and (ear.banner or now_s - prompt_s >= _BANNER_S):
            break
        if now_s - asked_s >= _ASK_S:
            asked_s = now_s
            console.write(question)
            question = ASK_REPL + ASK_AGENT
        ear.listen(console.read(_READ_S))
    return ear


def hear_after_reset(
    locate: Callable[[], str | None], timeout_s: float, *, baud: int = 115200, slowness: float = 1.0
) -> Ear:
    """As `hear`, on a board that is restarting: its port may go and come meanwhile.

    `locate`: its port now, None while there is none.
    """
    deadline_s = time.monotonic() + timeout_s
    ear = Ear()
    while (left_s := deadline_s - time.monotonic()) > 0.0 and not (ear.agent or ear.prompt):
        port = locate()
        if port is None:
            time.sleep(_READ_S)
            continue
        with (
            contextlib.suppress(ConsoleLostError, PortNotFoundError),
            BoardConsole(port, baud=baud, slowness=slowness) as console,
        ):
            ear = hear(console, left_s)
            continue
        time.sleep(_READ_S)
    return ear
