# SPDX-License-Identifier: Apache-2.0
"""A board on the table behind the face of the emulated ones, so that the same tests run on it."""

from __future__ import annotations

import time
from typing import Final

from feagi_io_host.boards import load_board
from tools.emulation.board import START_TIMEOUT_S, EmulatedBoard
from tools.emulation.errors import BoardFailedError
from tools.emulation.process import STOP_TIMEOUT_S

_LOOK_S: Final = 0.5


class PluggedBoard(EmulatedBoard):
    """The board `name` of boards/ whose REPL is at `port`.

    `link`: the host's end of the UART that the board's file names first, "" for none. It has no
    process and no switch: `stop` leaves it running, `reset` goes through its REPL.
    """

    def __init__(self, name: str, port: str, link: str = "") -> None:
        facts = load_board(name)
        self.name = name
        self.architecture = facts.deploy.architecture
        self.console = port
        self.uarts: dict[int, str] = {}
        if link and facts.uart and isinstance(facts.uart[0].id, int):
            self.uarts[facts.uart[0].id] = link

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until its REPL answers. Raises BoardFailedError when it does not."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                self.mpremote("exec", "pass", timeout_s=timeout_s)
                return
            except BoardFailedError:
                if time.monotonic() >= deadline_s:
                    raise
            time.sleep(_LOOK_S)

    def reset(self) -> None:
        """See EmulatedBoard; what runs is interrupted first."""
        self.mpremote("reset")
        self.start()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Nothing: it is not ours to switch off."""

    def close(self) -> None:
        """Nothing."""

    @property
    def running(self) -> bool:
        """As far as is known."""
        return True

    @property
    def pid(self) -> int | None:
        """It is no process."""
        return None

    def log_tail(self, lines: int = 40) -> str:
        """It keeps no log."""
        return ""
