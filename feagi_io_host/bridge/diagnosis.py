# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a line, when it is not a board that runs the agent.

Bytes and the time in, at most one error out. Consulted only while no session is up.
"""

from __future__ import annotations

from typing import Final

from feagi_io_host.core.errors import NotABoardError, RemoteError

SILENCE_S: Final = 5.0
# A board that starts up talks too: its boot loader at another baud, its banner. Noise is what
# goes on after that.
NOISE_S: Final = 3.0
NOISE_BYTES: Final = 64
ECHOES: Final = 3
_TAIL_BYTES: Final = 64

# What MicroPython and CircuitPython print when nobody runs a program.
_REPL: Final = (b">>> ", b"raw REPL; CTRL-B to exit", b'Type "help()" for more information')

_NETWORK_LINE: Final = (
    "does the board run the agent with UdpDriver, is it on this network, does it send to this "
    "address and port?"
)
START_THE_AGENT: Final = (
    "copy feagi_io_mcu, feagi_wire and a main.py that runs the agent to the board and reset it "
    "(mpremote connect PORT reset), or run it now: mpremote connect PORT run main.py"
)


class LineDiagnosis:
    """Watches a line on which no session is up. `start` begins a new watch."""

    def __init__(self, port: str) -> None:
        self._port = port
        self.start(0.0, 0, 0)

    def start(self, now_s: float, good_frames: int, echoed: int) -> None:
        """Begin: `good_frames` and `echoed` are the link's counters at this moment."""
        self._since_s = now_s
        self._good = good_frames
        self._echoed = echoed
        self._bytes = 0
        self._tail = b""
        self._repl = b""

    def take(self, chunk: memoryview) -> None:
        """These bytes came in."""
        self._bytes += len(chunk)
        # the end of the last chunk comes first: a prompt may be cut in two
        text = self._tail + bytes(chunk)
        for sign in _REPL:
            if sign in text:
                self._repl = sign
        self._tail = text[-_TAIL_BYTES:]

    def judge(
        self, now_s: float, good_frames: int, echoed: int, damaged: int
    ) -> tuple[str, RemoteError] | None:
        """What is wrong, by cause and as an error, or None as long as nothing is known.

        `good_frames`, `echoed` and `damaged` are the link's counters now.
        """
        echoes = echoed - self._echoed
        if echoes >= ECHOES:
            return "echo", NotABoardError(
                f"{self._port}: {echoes} of our own frames came back: the line is looped "
                "(TX wired to RX) or a terminal echoes; wire TX to RX crosswise and start the "
                "agent on the board"
            )
        if good_frames - self._good > echoes:
            # a board is there, and talking: the link deals with it
            self.start(now_s, good_frames, echoed)
            return None
        waited_s = now_s - self._since_s
        if self._repl:
            steps = START_THE_AGENT.replace("PORT", self._port)
            return "REPL", NotABoardError(
                f"{self._port}: a REPL prompt ({self._repl.decode()!r}) answers instead of a "
                f"board's agent; {steps}"
            )
        if self._bytes >= NOISE_BYTES and waited_s >= NOISE_S:
            return "noise", NotABoardError(
                f"{self._port}: {self._bytes} bytes in {waited_s:.0f} s, none of them a valid "
                f"frame ({damaged} damaged); last: {self._tail[-16:]!r}. Is the baud the board's, "
                "and does the board run the agent?"
            )
        if self._bytes == 0 and waited_s >= SILENCE_S:
            if self._port.lower().startswith("udp://"):
                return "silence", RemoteError(
                    f"{self._port}: no byte in {waited_s:.0f} s; {_NETWORK_LINE}"
                )
            steps = START_THE_AGENT.replace("PORT", self._port)
            return "silence", RemoteError(
                f"{self._port}: no byte in {waited_s:.0f} s; is it the right port, is the board "
                f"powered, do TX and RX cross? If it does not run the agent: {steps}"
            )
        return None
