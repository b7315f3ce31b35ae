# SPDX-License-Identifier: Apache-2.0
"""A Raspberry Pi Pico in rp2040js: the firmware a real one runs, five to ten times slower.

Its clock is exact and its own: what takes 87 us on a wire takes 87 us there, however long that is
here. `tools/emulation/rp2040/pico.mjs` corrects what the emulator gets wrong.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Final

from tools.emulation.board import START_TIMEOUT_S, EmulatedBoard
from tools.emulation.errors import BoardFailedError
from tools.emulation.pico_firmware import find_pico_emulator, pico_firmware
from tools.emulation.process import EmulatorProcess

_PROGRAM: Final = Path(__file__).resolve().parent / "rp2040" / "pico.mjs"
_READY: Final = "READY "
_UART: Final = 0


class Pico(EmulatedBoard):
    """A board rp2040-pico; `with Pico() as board:` builds what is missing and starts it.

    Its console is the USB serial port, its UART number 0; `spi` is the line behind a peripheral on
    SPI 0 (chip select GP17, attention GP20) that carries the bytes of a SpiDriver, `i2c` the one
    behind a target on I2C 0 (address 0x42, attention GP21), of an I2cDriver; TCP `baud_port` says
    the baud rate of the UART, a line each time it changes. The first boot
    makes the file system, during which nothing answers for a moment. What is in flash stays through
    `reset`, not through `stop`.
    """

    name = "rp2040-pico"
    slowness = 10.0

    def __init__(self, *, firmware: Path | None = None, uid: bytes = b"emulated") -> None:
        """Nothing runs before `start`. `uid`: the eight bytes of machine.unique_id().

        Raises EmulatorUnavailableError when the emulator or the firmware cannot be had.
        """
        if len(uid) != 8:
            raise ValueError(f"uid has {len(uid)} bytes, machine.unique_id() has 8")
        emulator = find_pico_emulator()
        flash = firmware or pico_firmware()
        command = [emulator.node, str(_PROGRAM), str(emulator.module), str(emulator.bootrom)]
        super().__init__(
            EmulatorProcess([*command, str(flash), uid.hex()], dict(os.environ), self.name)
        )

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """See EmulatedBoard."""
        self._process.start()
        try:
            line = self._process.wait_for_line(_READY, timeout_s)
            ports = json.loads(line.removeprefix(_READY))
            self.console = f"socket://127.0.0.1:{ports['console']}"
            self.spi = f"socket://127.0.0.1:{ports['spi0']}"
            self.i2c = f"socket://127.0.0.1:{ports['i2c0']}"
            self.baud_port = int(ports["baud0"])
            self.uarts = {_UART: f"socket://127.0.0.1:{ports['uart0']}"}
        finally:
            if not self.uarts:
                self.stop()

    def reset(self) -> None:
        """See EmulatedBoard."""
        self._process.check_running()
        pid = self.pid
        if pid is None:
            raise BoardFailedError(f"{self.name} is switched off; start it first")
        os.kill(pid, signal.SIGUSR2)
