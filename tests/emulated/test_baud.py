# SPDX-License-Identifier: Apache-2.0
"""The firmware's own UART goes to another baud rate with a host on a serial port, and back.

Between the host's pseudo terminal, whose settings tell its rate, and the emulator, which tells the
chip's, a wire garbles what is sent at one rate and received at another."""

from __future__ import annotations

import os
import queue
import random
import selectors
import socket
import termios
import threading
import time
import tty
from types import TracebackType

import pytest

from feagi_io_host import PNS, BoardBridge
from feagi_io_host.bridge import BoardUp
from feagi_io_host.core.events import SensoryData
from tests.emulated.agent_host import DEADLINE_S
from tools.emulation import Pico

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

# Emulated time goes a few times slower than the host's, so the host's is slowed down, too: both
# agree on when a rate on trial has failed, which is after half the motor timeout.
SLOWER = 6.0
MOTOR_TIMEOUT_MS = 2000
LOST_MS = 6000
SPEEDS = {getattr(termios, f"B{baud}"): baud for baud in (115200, 230400, 460800, 921600)}
TOLERANCE = 0.03


class Wire:
    """`path` is the host's end. `bad`: rates at which nothing arrives whole."""

    def __init__(self, pico: Pico) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.bad: set[int] = set()
        self.host_baud = self.board_baud = 0
        self.rates: queue.Queue[int] = queue.Queue()
        address, port = pico.uarts[0].removeprefix("socket://").split(":")
        self._line = socket.create_connection((address, int(port)))
        self._told = socket.create_connection((address, pico.baud_port))
        self._rng = random.Random(5)
        self._stop_r, self._stop_w = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="wire")

    def __enter__(self) -> Wire:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_w.close()
        self._thread.join()
        for end in (self._line, self._told, self._stop_r):
            end.close()
        os.close(self._master)
        os.close(self._slave)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for end in (self._master, self._line, self._told, self._stop_r):
                selector.register(end, selectors.EVENT_READ)
            told = b""
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._stop_r in ready:
                    return
                if self._told in ready:
                    told += self._told.recv(100)
                    *rates, told = told.split(b"\n")
                    for rate in rates:
                        self.board_baud = int(rate)
                        self.rates.put(self.board_baud)
                if self._master in ready:
                    self._line.sendall(self._carried(os.read(self._master, 4096)))
                if self._line in ready:
                    os.write(self._master, self._carried(self._line.recv(4096)))

    def _carried(self, data: bytes) -> bytes:
        # asked of the master, a pseudo terminal's settings are those of the other side
        self.host_baud = SPEEDS[termios.tcgetattr(self._master)[5]]
        same = abs(self.board_baud / self.host_baud - 1) < TOLERANCE
        if same and self.host_baud not in self.bad:
            return data
        return self._rng.randbytes(len(data))


@pytest.mark.parametrize(
    ("bad", "reached", "failures"), [(set(), 460_800, 0), ({460_800}, 230_400, 1)]
)
def test_a_uart_goes_to_the_highest_rate_that_carries(
    pico: Pico, bad: set[int], reached: int, failures: int
) -> None:
    pico.mpremote("exec", "--no-follow", "import fast_agent as it; it.run()")
    pns = PNS()
    ups: queue.Queue[BoardUp] = queue.Queue()
    frames: queue.Queue[SensoryData] = queue.Queue(1000)
    with Wire(pico) as wire:
        wire.bad = bad
        bridge = BoardBridge(
            pns,
            [wire.path],
            lost_ms=LOST_MS,
            motor_timeout_ms=MOTOR_TIMEOUT_MS,
            clock=lambda: time.monotonic() / SLOWER,
        )
        bridge.board_up.connect(ups.put)
        pns.start()
        bridge.start()
        try:
            ups.get(timeout=DEADLINE_S)
            while abs(wire.rates.get(timeout=DEADLINE_S) / reached - 1) > TOLERANCE:
                pass
            pns.sensory_data_received.connect(frames.put)
            for _ in range(20):
                frames.get(timeout=DEADLINE_S)
            (status,) = bridge.status()
        finally:
            bridge.stop()
            pns.stop()
        # the host said goodbye, and the board went back to where the next host will look for it
        while abs(wire.rates.get(timeout=DEADLINE_S) / 115_200 - 1) > TOLERANCE:
            pass
    assert status["baud"] == {"now": reached, "changes": 1, "failures": failures}
    # What a change costs is tried in emulated time alone, in tests/feagi_io_host/bridge: here the
    # two clocks only roughly agree.
    assert failures or (status["sessions"], status["link"]["crc_errors"]) == (1, 0)
