# SPDX-License-Identifier: Apache-2.0
"""A Cortex-M3 board in QEMU, at about the speed of a Pico, in real time.

Machine mps2-an385 with the firmware of `tools/emulation/cortex_m3`: real MicroPython, 187 KiB of
heap, a littlefs file system of 1.4 MB that stays through resets, a console and UARTs 1 to 4. QEMU
hands UART bytes over one by one, up to about 15 kB/s.

QEMU's own control line (QMP) says which ports it took, and presses the reset button.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any, Final, Literal

from tools.emulation.board import START_TIMEOUT_S, EmulatedBoard
from tools.emulation.errors import BoardFailedError
from tools.emulation.firmware import cortex_m3_firmware, find_qemu
from tools.emulation.process import STOP_TIMEOUT_S, EmulatorProcess

UARTS: Final = (1, 2, 3, 4)
Line = Literal["tcp", "pty"]

_CONTROL_TIMEOUT_S: Final = 5.0
_MAX_CONTROL_BYTES: Final = 1 << 20
# See cortex_m3/board.h.
_HEAP_BYTES_ADDRESS: Final = 0x21FFFFE0
_UNIQUE_ID_ADDRESS: Final = 0x21FFFFF0
_ROMFS_ADDRESS: Final = 0x21800000
_MAX_ROMFS_BYTES: Final = 1 << 20


class Cortex(EmulatedBoard):
    """A board qemu-mps2-an385; `with Cortex() as board:` builds what is missing and starts it."""

    name = "qemu-mps2-an385"

    def __init__(
        self,
        *,
        firmware: Path | None = None,
        console: Line = "pty",
        uarts: Line = "tcp",
        uid: bytes = b"emulated",
        heap_bytes: int = 196_608,
        instruction_ns_log2: int | None = None,
        romfs: Path | None = None,
    ) -> None:
        """Nothing runs before `start`.

        `console`, `uarts`: pseudo terminals, which QEMU looks at once a second until somebody has
        opened them, or TCP servers on 127.0.0.1, which answer at once and take half as many bytes
        per second. `uid`: the eight bytes of machine.unique_id(). `heap_bytes`: what MicroPython
        gets, by default about what it has on a Pico; 8192 to 4096000.

        `romfs`: the image of a read-only file system (tools/emulation/romfs.py), found at /rom and
        on sys.path; the interpreter runs the files there in place, as from a chip's flash.

        With `instruction_ns_log2` = n every instruction takes 2**n ns of the board's clock, which
        stands still while this machine has no time for QEMU: what a program measures there is the
        same on every run. Without, the board's clock is the host's.
        Raises EmulatorUnavailableError when QEMU or the firmware cannot be had.
        """
        if len(uid) != 8:
            raise ValueError(f"uid has {len(uid)} bytes, machine.unique_id() has 8")
        qemu = find_qemu()
        if not 8192 <= heap_bytes <= 4_096_000:
            raise ValueError(f"heap_bytes is {heap_bytes}, the board has 8192 to 4096000")
        number = int.from_bytes(uid, "little")
        command = [
            qemu.need("qemu-system-arm"),
            *("-machine", "mps2-an385", "-display", "none"),
            *("-kernel", str(firmware or cortex_m3_firmware())),
            *("-device", f"loader,addr={_UNIQUE_ID_ADDRESS:#x},data={number:#x},data-len=8"),
            *("-device", f"loader,addr={_HEAP_BYTES_ADDRESS:#x},data={heap_bytes:#x},data-len=4"),
        ]
        if romfs is not None:
            size = romfs.stat().st_size
            if size > _MAX_ROMFS_BYTES:
                raise ValueError(f"romfs has {size} bytes, the board takes {_MAX_ROMFS_BYTES}")
            command += ["-device", f"loader,file={romfs},addr={_ROMFS_ADDRESS:#x},force-raw=on"]
        if instruction_ns_log2 is not None:
            command += ["-icount", f"shift={instruction_ns_log2}"]
        for line in range(5):
            if (uarts if line else console) == "pty":
                chardev = f"pty,id=line{line}"
            else:
                chardev = (
                    f"socket,id=line{line},host=127.0.0.1,port=0,server=on,wait=off,nodelay=on"
                )
            command += ["-chardev", chardev, "-serial", f"chardev:line{line}"]
        super().__init__(EmulatorProcess(command, qemu.environment(), self.name))
        self._control: _Control | None = None

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """See EmulatedBoard."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                control = ("-chardev", f"socket,id=control,fd={theirs.fileno()}")
                self._process.start(
                    [*control, "-mon", "chardev=control,mode=control"], [theirs.fileno()]
                )
            self._control = _Control(ours, time.monotonic() + timeout_s)
            found = {item["label"]: item["filename"] for item in self._ask("query-chardev")}
            self.console, *uarts = (_address(found[f"line{line}"]) for line in range(5))
            self.uarts = dict(zip(UARTS, uarts, strict=True))
        except (OSError, EOFError, KeyError, ValueError) as error:
            self._process.check_running()
            raise BoardFailedError(
                f"QEMU did not come up: {error!r}; its log:\n{self.log_tail()}"
            ) from error
        finally:
            if not self.console:
                ours.close()
                self.stop()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """See EmulatedBoard."""
        super().stop(timeout_s)
        if self._control is not None:
            self._control.close()
            self._control = None

    def reset(self) -> None:
        """See EmulatedBoard."""
        self._ask("system_reset")

    def pause(self) -> None:
        """Let no instruction pass until `resume`, as a debugger would. Its clock stands, too."""
        self._ask("stop")

    def resume(self) -> None:
        """Go on after `pause`."""
        self._ask("cont")

    def _ask(self, command: str) -> Any:
        if self._control is None:
            raise BoardFailedError(f"{self.name} is switched off; start it first")
        try:
            return self._control.ask(command)
        except (OSError, EOFError, ValueError) as error:
            raise BoardFailedError(
                f"QEMU did not answer {command}: {error!r}; its log:\n{self.log_tail()}"
            ) from error


def _address(filename: str) -> str:
    """What can be connected to, from QEMU's name for a line.

    Known forms: "pty:/dev/pts/3" and "disconnected:tcp:127.0.0.1:40213,server=on".
    """
    kind, _, rest = filename.removeprefix("disconnected:").partition(":")
    if kind == "pty":
        return rest
    if kind == "tcp":
        return f"socket://{rest.partition(',')[0]}"
    raise ValueError(f"QEMU calls a line {filename!r}; expected pty:... or tcp:...")


class _Control:
    """QEMU's control line: a command, an answer, events between them that nobody waits for."""

    def __init__(self, line: socket.socket, deadline_s: float) -> None:
        self._line = line
        self._received = b""
        line.settimeout(max(0.0, deadline_s - time.monotonic()) or 0.001)
        if "QMP" not in self._next():
            raise ValueError("no greeting")
        line.settimeout(_CONTROL_TIMEOUT_S)
        self.ask("qmp_capabilities")

    def ask(self, command: str) -> Any:
        self._line.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while True:
            message = self._next()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise ValueError(message["error"])

    def close(self) -> None:
        self._line.close()

    def _next(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            data = self._line.recv(1 << 16)
            if not data:
                raise EOFError("QEMU closed its control line")
            self._received += data
            if len(self._received) > _MAX_CONTROL_BYTES:
                raise ValueError(f"a message of over {_MAX_CONTROL_BYTES} bytes")
        text, _, self._received = self._received.partition(b"\n")
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError(f"not an object: {text[:80]!r}")
        return message
