# SPDX-License-Identifier: Apache-2.0
"""BoardConsole: a board's REPL. The only file that knows mpremote.

mpremote's modules are not declared stable; what is used here is the same in 1.25 and 1.29:
`romfs.VfsRomWriter`, `SerialTransport(port, baudrate=)` with its `serial`, `read_until`,
`enter_raw_repl`, `exec_raw_no_follow`, `follow`, and `TransportError`. All waits are bounded here:
mpremote's own are not, so the serial port gets a time-out, and what mpremote makes of a short read
becomes an error with the next step.
"""

from __future__ import annotations

import contextlib
import io
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Final, Self

from feagi_io_host.core.errors import (
    ClosedError,
    MissingExtraError,
    PortNotFoundError,
    RemoteError,
)
from feagi_wire.const import BYE_STOPPED
from feagi_wire.container import StaticFBC
from feagi_wire.host_link import HostLink

try:
    from mpremote.romfs import VfsRomWriter
    from mpremote.transport import TransportError
    from mpremote.transport_serial import SerialTransport
except ImportError as error:
    raise MissingExtraError("mpremote", "boards") from error

CTRL_B: Final = b"\x02"
CTRL_C: Final = b"\x03"
CTRL_D: Final = b"\x04"
PROMPT: Final = b">>> "

# The pieces that files are sent in, how long one may take, since a flash may have to erase first,
# and how long a digest may.
CHUNK_BYTES: Final = 768  # base64 makes 1 KB of it: a line that the smallest heap holds
WRITE_S: Final = 4.0
HASH_S: Final = 30.0

ANSWER_S: Final = 1.0
RUN_TIMEOUT_S: Final = 10.0
RESTART_S: Final = 20.0  # a boot.py may look for a network first
_STALL_S: Final = 3.0
_POLL_S: Final = 0.01
_TAIL_CHARS: Final = 300
_INTERRUPTS: Final = 3


class _Transport(SerialTransport):  # type: ignore[misc]
    """mpremote's, which gives up after `stall_s` wherever it has no limit of its caller's: 10 s or
    for ever otherwise."""

    stall_s = _STALL_S

    def read_until(
        self, min_num_bytes: int, ending: bytes, timeout: float | None = -1.0, **options: Any
    ) -> Any:
        """See mpremote."""
        limit = self.stall_s if timeout == -1.0 else timeout
        return super().read_until(min_num_bytes, ending, timeout=limit, **options)


class ConsoleLostError(PortNotFoundError):
    """The board was unplugged or reset while it was talked to; it may come back."""


class BoardCodeError(RemoteError):
    """Code that was run on the board raised; `traceback` is what it said."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


class ReplBusyError(RemoteError):
    """Whatever runs on the board did not give its REPL back."""


class BoardConsole:
    """One board's REPL. `with BoardConsole(port) as console: console.take_over()`.

    `port`: a device or socket://host:port. `slowness` multiplies every deadline, for emulated
    boards. Not for use by several threads. Raises PortNotFoundError when it cannot be opened.
    """

    def __init__(self, port: str, *, baud: int = 115200, slowness: float = 1.0) -> None:
        self.port = port
        self._slowness = slowness
        try:
            self._transport: Any = _Transport(port, baudrate=baud)
        except (TransportError, OSError, ValueError) as error:
            raise PortNotFoundError(
                f"port {port} cannot be opened ({error}); `feagi-io boards list` shows the ports "
                "that can"
            ) from None
        self._transport.stall_s = _STALL_S * slowness
        self._transport.serial.timeout = _STALL_S * slowness
        self._transport.serial.write_timeout = _STALL_S * slowness

    def close(self) -> None:
        """Close the port. May be called again."""
        if self._transport is not None:
            port = self._transport.serial
            self._transport = None
            line = getattr(port, "_socket", None)
            with contextlib.suppress(OSError):  # unplugged
                # mpremote's own close drops RTS before DTR, which resets some boards
                port.close()
            if line is not None:
                line.close()  # pyserial forgets that of a socket which the far end has closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- bytes --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes as they are. Raises ConsoleLostError when the board is gone."""
        with self._guarded("writing"):
            self._serial.write(data)

    def read(self, timeout_s: float) -> bytes:
        """What has come, after waiting at most `timeout_s` for a first byte; b"" for nothing."""
        deadline_s = time.monotonic() + timeout_s
        with self._guarded("reading"):
            while not (count := self._serial.in_waiting):
                left_s = deadline_s - time.monotonic()
                if left_s <= 0.0:
                    return b""
                # A pseudo terminal whose far end is gone has nothing waiting, for ever.
                time.sleep(min(_POLL_S, left_s))
            return bytes(self._serial.read(count))

    def read_until(self, ending: bytes, timeout_s: float) -> bytes:
        """All bytes until `ending` is among them, or until `timeout_s` (times slowness) passed."""
        deadline_s = time.monotonic() + timeout_s * self._slowness
        found = b""
        while ending not in found and (left_s := deadline_s - time.monotonic()) > 0.0:
            found += self.read(left_s)
        return found

    @property
    def _serial(self) -> Any:
        if self._transport is None:
            raise ClosedError(f"the console of {self.port} is closed")
        return self._transport.serial

    @contextlib.contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        """mpremote's and pyserial's errors as ours; what mpremote prints goes nowhere."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                yield
        except (OSError, TypeError) as error:  # pyserial's is an OSError; closed under it, a Type
            raise ConsoleLostError(
                f"port {self.port} is gone while {doing} ({error}): unplugged or reset"
            ) from None
        except (TransportError, struct.error, IndexError) as error:
            detail = f"{error} {said.getvalue()}".strip()[:_TAIL_CHARS]
            raise ConsoleLostError(
                f"the board at {self.port} stopped answering while {doing} ({detail}): was it "
                "reset, or has another program written to its port?"
            ) from None

    # -- the REPL -----------------------------------------------------------------------------

    def take_over(self) -> None:
        """Stop whatever runs and restart the interpreter, without boot's main.py.

        An agent that talks on this very line hears a goodbye first: it takes Ctrl-C for data.
        Raises ReplBusyError when there is no prompt after that.
        """
        if not (self._interrupted() or self._dismissed()):
            raise ReplBusyError(
                f"the board at {self.port} gives no prompt, neither for Ctrl-C nor for a goodbye: "
                "press its reset button (or unplug it) and try again within a second of that, or "
                "start it in a safe mode without main.py; is it the port of its REPL at all?"
            )
        with self._guarded("entering its raw REPL"):
            self._transport.stall_s = RESTART_S * self._slowness
            self._transport.enter_raw_repl(
                soft_reset=True, timeout_overall=RESTART_S * self._slowness
            )
            self._transport.stall_s = _STALL_S * self._slowness

    def _interrupted(self) -> bool:
        for _ in range(_INTERRUPTS):
            # Ctrl-B leaves a raw REPL that another program left behind.
            self.write(b"\r" + CTRL_C + CTRL_B)
            if PROMPT in self.read_until(PROMPT, ANSWER_S):
                return True
        return False

    def _dismissed(self) -> bool:
        self.write(goodbye())
        self.read_until(PROMPT, ANSWER_S)
        return self._interrupted()

    def run(self, code: str, timeout_s: float = RUN_TIMEOUT_S) -> str:
        """Run `code` on the board after `take_over`; what it printed.

        `timeout_s` (times slowness) may pass between two bytes of its output. Raises
        BoardCodeError when it raises there, ConsoleLostError when the board goes away.
        """
        with self._guarded("running code"):
            self._transport.exec_raw_no_follow(code)
            out, err = self._transport.follow(timeout_s * self._slowness)
        if err:
            text = err.decode(errors="replace").strip()
            last = text.splitlines()[-1] if text else ""
            raise BoardCodeError(f"the board at {self.port} says {last!r}", text)
        return bytes(out).decode(errors="replace")

    def start(self, code: str) -> None:
        """Run `code` and do not wait for its end: for what resets the board."""
        with self._guarded("running code"):
            self._transport.exec_raw_no_follow(code)

    def reset(self) -> None:
        """Have the board's chip reset itself after `take_over`; the console is of no use then."""
        # What was answered has to leave a USB port first.
        self.start("import machine, time; time.sleep_ms(100); machine.reset()")

    def restart(self) -> None:
        """Leave the raw REPL and restart the interpreter, main.py included."""
        self.write(b"\r" + CTRL_B)
        self.read_until(PROMPT, ANSWER_S)
        self.write(CTRL_D)


def romfs_image(files: Mapping[str, bytes]) -> bytes:
    """The image of a read-only file system with these files, path to bytes."""
    writer = VfsRomWriter()
    open_folders: list[str] = []
    for path, data in sorted(files.items(), key=lambda item: PurePosixPath(item[0]).parts):
        *folders, name = PurePosixPath(path).parts
        while open_folders != folders[: len(open_folders)]:
            writer.closedir()
            open_folders.pop()
        for folder in folders[len(open_folders) :]:
            writer.opendir(folder)
            open_folders.append(folder)
        writer.mkfile(name, data)
    for _ in open_folders:
        writer.closedir()
    return bytes(writer.finalise())


def goodbye() -> bytes:
    """A frame that ends a board's session and, on its REPL's line, gives the line back.

    Its epoch is 0, which a board takes in every state (feagi_wire/link.py, `_on_bye`).
    """
    link = HostLink(bytearray(128), StaticFBC(bytearray(128)))
    link.bye(BYE_STOPPED)
    link.tick(0)
    return b"\0" + bytes(link.framer.tx[: link.tx_len])
