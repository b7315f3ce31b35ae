# SPDX-License-Identifier: Apache-2.0
"""The host's side of the tests of `programs/checked_agent.py`."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable

import serial

from feagi_io_host import PNS, BoardBridge
from feagi_io_host.bridge import BoardDown, BoardUp
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.events import SensoryData
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from feagi_wire.container import StaticFBC
from tools.emulation import EmulatedBoard

EYES = b"iinf\x01\x00\x00\x00"
WHEELS = b"omot\x05\x00\x00\x00"
DEADLINE_S = 30.0


class Host:
    """A PNS with a bridge to the board's UART."""

    def __init__(self, port: str, lost_ms: int = 2000) -> None:
        self.seen: queue.Queue[dict[int, int]] = queue.Queue(1000)
        self.ups: queue.Queue[BoardUp] = queue.Queue()
        self.downs: queue.Queue[BoardDown] = queue.Queue()
        self.pns = PNS()
        self.pns.sensory_data_received.connect(self._on_sensory)
        self.bridge = BoardBridge(self.pns, [port], lost_ms=lost_ms)
        self.bridge.board_up.connect(self.ups.put)
        self.bridge.board_down.connect(self.downs.put)

    def _on_sensory(self, data: SensoryData) -> None:
        container = FeagiByteContainer.new_empty()
        container.try_write_data_by_copy_and_verify(bytes(data.fbc.view))
        struct = container.try_create_new_struct_from_index(0)
        assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
        for area, arrays in struct:
            assert bytes(area) == EYES
            xs, _, zs, _ = arrays.borrow_xyzp_vectors()
            self.seen.put(dict(zip(xs.tolist(), zs.tolist(), strict=True)))

    def move(self, *levels: int) -> None:
        fbc = StaticFBC(bytearray(256))
        assert fbc.begin(1, 1) == 0
        assert fbc.begin_area(WHEELS, len(levels)) == 0
        for channel, level in enumerate(levels):
            assert fbc.add(channel, 0, level, 1.0) >= 0
        assert fbc.end_area() == 0
        with SharedFBC.from_bytes(bytes(fbc.buf[: fbc.end()])) as shared:
            self.pns.publish_motor(None, shared)

    def until(self, holds: Callable[[dict[int, int]], bool]) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not holds(self.seen.get(timeout=DEADLINE_S)):
            assert time.monotonic() < deadline_s

    def __enter__(self) -> Host:
        self.pns.start()
        self.bridge.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bridge.stop()
        self.pns.stop()


def start_program(board: EmulatedBoard, release_ms: int = 0) -> None:
    """The agent on its UART, or with `release_ms` on the line of the REPL."""
    board.mpremote("exec", "--no-follow", f"import checked_agent as it; it.run({release_ms})")
    if release_ms:
        # Until it has the line, what a host says there is for the REPL, and may stop it.
        with serial.serial_for_url(board.console, timeout=DEADLINE_S) as line:
            assert line.read_until(b'"fw"').endswith(b'"fw"')


def counts(board: EmulatedBoard) -> list[int]:
    """Stop the program and ask what it counted: motor values, fail-safes, longest step, steps."""
    said = board.mpremote(
        "resume",
        "exec",
        "a = it.rovers[-1].agent; print(*it.counts, a.frames_sent, a.frames_late)",
    )
    return [int(word) for word in said.split()]
