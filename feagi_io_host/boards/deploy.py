# SPDX-License-Identifier: Apache-2.0
"""Put files on a board: only what changed, checked there, and all of it or nothing.

Files go there under temporary names and are renamed together once the board has told the digest
of each: modules of two releases do not fit together. A board that goes away in the middle, by a
plug or a reset, is waited for and gets the rest: what it already has is found by digests that it
takes of its own files.
"""

from __future__ import annotations

import binascii
import contextlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final

from feagi_io_host.boards.board_file import Board
from feagi_io_host.boards.board_tree import BOARD_PACKAGES, board_sources
from feagi_io_host.boards.console import (
    CHUNK_BYTES,
    HASH_S,
    WRITE_S,
    BoardCodeError,
    BoardConsole,
    ConsoleLostError,
)
from feagi_io_host.boards.manifest import (
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    TEMPORARY,
    Manifest,
    Plan,
    make_plan,
    parse_manifest,
)
from feagi_io_host.boards.mpy import Firmware, check_firmware
from feagi_io_host.boards.payload import BoardFile, own_version
from feagi_io_host.boards.rom import build_rom, has_rom, write_rom
from feagi_io_host.core.errors import PortNotFoundError, RemoteError
from feagi_wire.const import FBC_VERSION, LINK_VERSION

RETURN_S: Final = 30.0
_LOOK_S: Final = 0.1
# Unplugged so many times without a single file in between: something else is wrong.
_FRUITLESS: Final = 4

_ABOUT: Final = """\
import sys, os
i = sys.implementation
m = getattr(i, '_machine', '')
print(repr((i[0], tuple(i[1])[:3], sys.platform, m, getattr(i, '_mpy', 0))))
"""

# What the code below uses; a soft reset forgets it.
_TOOLS: Final = """\
import os
from binascii import a2b_base64 as _a, hexlify
from hashlib import sha256
def _drop(folder):
    try:
        os.rmdir(folder)
    except OSError:
        pass
def _digest(path):
    h = sha256()
    b = bytearray(512)
    m = memoryview(b)
    with open(path, 'rb') as f:
        while True:
            n = f.readinto(b)
            if not n:
                return hexlify(h.digest()).decode()
            h.update(m[:n])
def _tree(folder):
    try:
        found = list(os.ilistdir(folder))
    except OSError:
        return
    for entry in found:
        path = folder + '/' + entry[0]
        if entry[1] & 0x4000:
            yield from _tree(path)
        else:
            yield path
def _size(path):
    try:
        s = os.stat(path)
        return -1 if s[0] & 0x4000 else s[6]
    except OSError:
        return -1
def _place(temporary, path):
    try:
        os.rename(temporary, path)
    except OSError:
        os.remove(path)
        os.rename(temporary, path)
def _folder(path):
    try:
        os.mkdir(path)
    except OSError:
        os.stat(path)
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """`sent` of `size` bytes of `path` are on the board; of all files `total_sent` of `total`."""

    path: str
    sent: int
    size: int
    total_sent: int
    total: int


@dataclass(slots=True)
class DeployReport:
    """What was done. Paths; `resumed`: how many times the board went away and came back."""

    board: str
    port: str
    firmware: Firmware
    sent: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    resumed: int = 0
    seconds: float = 0.0
    dry_run: bool = False


class BoardFullError(RemoteError):
    """The board's file system has no room for a file."""


class Deployment:
    """Files for one board. `run` does it all.

    `files`: what the board shall have. `rom`: what it shall have in its read-only file system; our
    packages in its own one are removed then, since they would hide it. `locate`: its port now, None
    while it is not there; asked again after the board went away. `return_s`: how long it may stay
    away. `say` is told what happens in words, `progress` as numbers. `slowness` multiplies
    deadlines.
    """

    def __init__(
        self,
        board: Board,
        files: Iterable[BoardFile],
        locate: Callable[[], str | None],
        *,
        say: Callable[[str], None] = lambda text: None,
        progress: Callable[[Progress], None] = lambda progress: None,
        return_s: float = RETURN_S,
        slowness: float = 1.0,
        dry_run: bool = False,
        rom: Iterable[BoardFile] = (),
    ) -> None:
        self.board = board
        self.files = tuple(files)
        self._rom_files = tuple(rom)
        self._rom = build_rom(self._rom_files) if self._rom_files else None
        self._locate = locate
        self._say = say
        self._progress = progress
        self._return_s = return_s
        self._slowness = slowness
        self._dry_run = dry_run
        self._report: DeployReport | None = None
        self._total = 0
        self._total_sent = 0

    def run(self, *, reset: bool = True) -> DeployReport:
        """Deploy; with `reset` the board starts anew at the end, even if nothing had changed.

        Raises FirmwareMismatchError, BoardFullError, ReplBusyError, PortError when the board
        stays away, or another RemoteError with what the board said. The files that were sent
        before that are in place and whole.
        """
        start_s = time.monotonic()
        fruitless = 0
        while True:
            done = len(self._report.sent) if self._report is not None else 0
            try:
                with self._console() as console:
                    console.take_over()
                    try:
                        report = self._deploy(console)
                    finally:
                        if self._dry_run:  # also where it is refused: what ran before runs on
                            console.restart()
                    if reset and not self._dry_run:
                        console.reset()
                break
            except ConsoleLostError as error:
                fruitless = (
                    0
                    if self._report is not None and len(self._report.sent) > done
                    else fruitless + 1
                )
                if fruitless >= _FRUITLESS:
                    raise
                self._say(f"{error}; waiting up to {self._return_s:g} s for it to come back")
                if self._report is not None:
                    self._report.resumed += 1
        report.seconds = time.monotonic() - start_s
        return report

    def _console(self) -> BoardConsole:
        """The board's console, as soon as it is somewhere and can be opened."""
        deadline_s = time.monotonic() + self._return_s
        while True:
            port = self._locate()
            why = ""
            if port is not None:
                try:
                    return BoardConsole(port, slowness=self._slowness)
                except PortNotFoundError as error:
                    why = f" ({error})"
            if time.monotonic() >= deadline_s:
                raise PortNotFoundError(
                    f"no {self.board.name} within {self._return_s:g} s{why}; plug it in and deploy "
                    "again: only what is missing is sent"
                )
            time.sleep(_LOOK_S)

    def _deploy(self, console: BoardConsole) -> DeployReport:
        firmware = ask_firmware(console)
        check_firmware(firmware, self.board, (*self.files, *self._rom_files))
        rom = self._rom
        if rom is not None and has_rom(console, rom):
            rom = None
        console.run(_TOOLS)
        manifest = self._manifest()
        before = parse_manifest(read_file(console, MANIFEST_PATH, MAX_MANIFEST_BYTES))
        plan = make_plan(self.files, survey(console, self.files), before, board_sources())
        report = self._report
        if report is None:
            report = DeployReport(self.board.name, console.port, firmware, dry_run=self._dry_run)
            report.kept = [file.path for file in (*plan.keep, *plan.staged)]
            if self._rom is not None and rom is None:
                report.kept.insert(0, self._rom.path)
            self._report = report
            plan_to_say = plan if rom is None else replace(plan, send=(rom, *plan.send))
            self._total = plan_to_say.send_bytes
            self._announce(firmware, plan_to_say, len(report.kept))
        if self._dry_run:
            to_send = plan.send if rom is None else (rom, *plan.send)
            report.sent = [file.path for file in to_send]
            report.sent_bytes = sum(file.size for file in to_send)
            report.removed = list(plan.remove)
            return report
        report.port = console.port
        if rom is not None:
            self._send(rom, lambda file, sent: write_rom(console, file, sent))
        for file in plan.send:
            self._send(file, lambda file, sent: self._stage(console, file, sent))
        # A module that hides ours goes first: the moment with neither is short, and harmless.
        _finish(console, plan)
        if self._rom_files:
            # An empty folder hides a package of the image, too.
            parents = {PurePosixPath(path).parent for path in board_sources()}
            console.run("".join(f"_drop({str(p)!r})\n" for p in sorted(parents, reverse=True)))
        report.removed += plan.remove
        if before != manifest:
            file = BoardFile(MANIFEST_PATH, manifest.text())
            self._stage(console, file, lambda sent: None)
            _finish(console, Plan((file,), (), (), ()))
        return report

    def _announce(self, firmware: Firmware, plan: Plan, there: int) -> None:
        self._say(f"{self.board.name}: {firmware}")
        self._say(
            f"{len(plan.send)} files to send ({plan.send_bytes} bytes), {there} are there, "
            f"{len(plan.remove)} to remove"
        )

    def _manifest(self) -> Manifest:
        ours = {
            file.path: file.sha256
            for file in self.files
            if PurePosixPath(file.path).parts[0] in BOARD_PACKAGES
        }
        return Manifest(own_version(), self.board.name, (LINK_VERSION, FBC_VERSION), ours)

    def _send(
        self, file: BoardFile, write: Callable[[BoardFile, Callable[[int], None]], None]
    ) -> None:
        """Have `write` send a file, and tell how far it is."""
        before = self._total_sent

        def sent(count: int) -> None:
            self._total_sent = before + count
            self._progress(Progress(file.path, count, file.size, self._total_sent, self._total))

        try:
            write(file, sent)
        except BaseException:
            self._total_sent = before
            raise
        assert self._report is not None
        self._report.sent.append(file.path)
        self._report.sent_bytes += file.size

    def _stage(self, console: BoardConsole, file: BoardFile, sent: Callable[[int], None]) -> None:
        temporary = file.path + TEMPORARY
        parents = [str(folder) for folder in PurePosixPath(file.path).parents if str(folder) != "."]
        try:
            folders = "".join(f"_folder({folder!r})\n" for folder in reversed(parents))
            console.run(f"{folders}_f = open({temporary!r}, 'wb'); _w = _f.write")
            for at in range(0, file.size, CHUNK_BYTES):
                chunk = file.data[at : at + CHUNK_BYTES]
                console.run(f"_w(_a({binascii.b2a_base64(chunk, newline=False)!r}))", WRITE_S)
                sent(at + len(chunk))
            console.run("_f.close()")
            digest = console.run(f"print(_digest({temporary!r}))", HASH_S).strip()
        except BoardCodeError as error:
            raise _refused(console, file, temporary, error) from None
        if digest != file.sha256:
            console.run(f"os.remove({temporary!r})")
            raise RemoteError(
                f"{file.path}: the board holds other bytes than were sent (digest "
                f"{digest[:16]}..., sent {file.sha256[:16]}...): its flash or its line is damaged; "
                "the old file is still in place"
            )
        sent(file.size)


def _finish(console: BoardConsole, plan: Plan) -> None:
    """Put in place what was staged and remove what is to go, without the line in between."""
    lines = [f"os.remove({path!r})" for path in plan.remove]
    lines += [
        f"_place({file.path + TEMPORARY!r}, {file.path!r})" for file in (*plan.staged, *plan.send)
    ]
    if lines:
        console.run("\n".join(lines), HASH_S)


def ask_firmware(console: BoardConsole) -> Firmware:
    """What runs on a board whose REPL was taken over. RemoteError for an answer that is none."""
    import ast

    said = console.run(_ABOUT).strip()
    try:
        name, version, platform, machine, mpy = ast.literal_eval(said)
        whole = (*version, 0, 0, 0)[:3]
        return Firmware(
            str(name), (int(whole[0]), int(whole[1]), int(whole[2])), str(platform), str(machine),
            int(mpy),
        )  # fmt: skip
    except (ValueError, SyntaxError, TypeError, RecursionError):
        raise RemoteError(
            f"the board at {console.port} does not say what it runs: {said[:80]!r}"
        ) from None


def read_file(console: BoardConsole, path: str, limit: int) -> bytes:
    """The file `path` of a board that was given `_TOOLS`; b"" when there is none or it is longer
    than `limit` bytes."""
    said = console.run(
        f"if 0 <= _size({path!r}) <= {limit}:\n"
        f" with open({path!r}, 'rb') as _f: print(hexlify(_f.read()).decode())"
    )
    try:
        return bytes.fromhex(said.strip())
    except ValueError:
        return b""


def survey(console: BoardConsole, files: Iterable[BoardFile]) -> dict[str, str]:
    """Path to digest of what stands in our packages and under the names of `files`, temporary ones
    included; "" for what has another size than the file that is to be there, or none is to."""
    sizes = {file.path: file.size for file in files}
    sizes |= {path + TEMPORARY: size for path, size in sizes.items()}
    found: dict[str, str] = {}
    names = []
    for package in BOARD_PACKAGES:
        said = console.run(f"for _p in _tree({package!r}): print(_p, _size(_p))", HASH_S)
        names += [line.rpartition(" ") for line in said.splitlines()]
    for path in sizes:
        if path.split("/")[0] not in BOARD_PACKAGES:
            size = console.run(f"print(_size({path!r}))").strip()
            if size != "-1":
                names.append((path, " ", size))
    for path, _, size in names:
        same = str(sizes.get(path, -1)) == size
        found[path] = console.run(f"print(_digest({path!r}))", HASH_S).strip() if same else ""
    return found


def _refused(
    console: BoardConsole, file: BoardFile, temporary: str, error: BoardCodeError
) -> RemoteError:
    """Why the board did not take a file; what of it was written is removed."""
    for code in ("_f.close()", f"os.remove({temporary!r})"):
        with contextlib.suppress(BoardCodeError):  # never opened, or no room for closing either
            console.run(code)
    if "ENOSPC" in error.traceback or "OSError: 28" in error.traceback:
        try:
            free = console.run("_s = os.statvfs('/'); print(_s[0] * _s[3])").strip()
        except BoardCodeError:
            free = "an unknown number of"
        return BoardFullError(
            f"{file.path} ({file.size} bytes) does not fit: the board's file system has {free} "
            "bytes free; remove what is not needed there (mpremote rm :NAME) and deploy again"
        )
    return RemoteError(f"{file.path} could not be written: {error}")
