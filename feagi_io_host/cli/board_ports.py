# SPDX-License-Identifier: Apache-2.0
"""`feagi-io boards list`: the ports of this machine, whose they are, and who answers there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from feagi_io_host.boards import Board, load_board, load_boards
from feagi_io_host.boards.ear import Ear
from feagi_io_host.boards.ports import BOOTLOADER, PortFacts, boards_of, choose_port, same_device
from feagi_io_host.core.errors import ConfigError, FeagiIOError
from feagi_io_host.transports.serial.reasons import access_error, serial_ports, udev_rule

ASK_S: Final = 1.5
USB_DEVICES: Final = Path("/sys/bus/usb/devices")
_NO_DEVICE: Final = "socket://"


@dataclass(frozen=True, slots=True)
class Found:
    """A port and what is known of it. `runs`: "REPL", "agent", "bootloader", "unknown", or ""
    where nobody was asked; `detail` says it in words. `problem`: why it cannot be used, with the
    way out; `udev`: the rule that opens it."""

    port: PortFacts
    boards: dict[str, str]
    runs: str = ""
    detail: str = ""
    problem: str = ""
    udev: str = ""


def port_facts() -> list[PortFacts]:
    """The serial ports of this machine, and boards in a boot loader that is none."""
    ports = [
        PortFacts(port.device, port.vid, port.pid, port.serial_number or "", port.product or "")
        for port in serial_ports()
    ]
    return ports + boot_loaders(load_boards())


def boot_loaders(boards: Iterable[Board], devices: Path = USB_DEVICES) -> list[PortFacts]:
    """Boards in a boot loader that shows no serial port, by USB: a Pico is a disk then."""
    known = {(u.vid, u.pid) for board in boards for u in board.usb if u.what == BOOTLOADER}
    found = []
    for folder in sorted(devices.glob("*")) if devices.exists() else ():
        try:
            vid, pid = (int((folder / name).read_text(), 16) for name in ("idVendor", "idProduct"))
        except (OSError, ValueError):
            continue  # an interface, or unplugged meanwhile
        if (vid, pid) in known:
            found.append(
                PortFacts("", vid, pid, _text(folder / "serial"), _text(folder / "product"))
            )
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def locator(board: Board, port: str | None) -> tuple[str, Callable[[], str | None]]:
    """The port of a board, and a function that says where it is now (None: unplugged).

    Without `port` the only board of its kind. Raises PortNotFoundError for none or several, and
    the error that opening a named port would raise.
    """
    if port is not None and "://" in port:
        return port, lambda: port
    ports = port_facts()
    chosen = choose_port(board, ports) if port is None else _named(port, ports)
    error = access_error(chosen.device)
    if error is not None:
        raise error

    def now() -> str | None:
        if not chosen.serial_number:
            return chosen.device if os.path.exists(chosen.device) else None
        here = same_device(chosen, port_facts())
        return here.device if here is not None and here.device else None

    return chosen.device, now


def _named(port: str, ports: Iterable[PortFacts]) -> PortFacts:
    real = os.path.realpath(port)  # /dev/serial/by-id/...
    for facts in ports:
        if facts.device in (port, real):
            return facts
    return PortFacts(port)  # a pseudo terminal, or none at all


def look(extra: Iterable[str] = (), *, ask: bool = True) -> list[Found]:
    """All ports, and those in `extra`."""
    boards = load_boards()
    ports = port_facts()
    ports += [_named(port, ports) for port in extra if not any(p.device == port for p in ports)]
    return [_looked_at(port, boards, ask) for port in ports]


def _looked_at(port: PortFacts, boards: Iterable[Board], ask: bool) -> Found:
    whose = boards_of(port, boards)
    if not port.device or BOOTLOADER in whose.values():
        return Found(port, whose, BOOTLOADER, "in its boot loader: it takes a firmware now")
    udev = ""
    if not port.device.startswith(_NO_DEVICE):
        error = access_error(port.device)
        if error is not None:
            udev = udev_rule(port.device) or ""
            return Found(port, whose, problem=str(error), udev=udev)
    if not ask:
        return Found(port, whose)
    return _asked(port, whose)


def _asked(port: PortFacts, whose: dict[str, str]) -> Found:
    from feagi_io_host.boards.console import BoardConsole
    from feagi_io_host.boards.hear import hear

    try:
        with BoardConsole(port.device) as console:
            ear = hear(console, ASK_S)
    except FeagiIOError as error:
        return Found(port, whose, problem=str(error))
    return Found(port, whose, *who_answered(ear))


def who_answered(ear: Ear) -> tuple[str, str]:
    """Who was heard: "agent", "REPL" or "unknown", and the rest in words."""
    agent = ear.agent
    if agent is not None:
        versions = f"link {agent.link_version}, container {agent.container_version}"
        if not agent.speaks_ours:
            return "agent", f"feagi-io agent of another version: {versions}"
        if agent.declaration is None:
            return "agent", f"feagi-io agent, {versions}; its declaration is refused: {agent.fault}"
        named = agent.declaration
        return "agent", f"feagi-io agent {named.name!r} on {named.firmware}, {versions}"
    if ear.prompt:
        return "REPL", ear.banner or "a REPL"
    if ear.heard:
        return "unknown", f"something that is neither REPL nor agent ({ear.heard} bytes)"
    return "unknown", "no answer: a program that runs, another baud, or no board"


def as_json(found: Found) -> dict[str, Any]:
    """One entry of `--json`."""
    port = found.port
    return {
        "port": port.device or None,
        "vid": port.vid,
        "pid": port.pid,
        "serial_number": port.serial_number or None,
        "product": port.product or None,
        "boards": sorted(found.boards),
        "runs": found.runs or None,
        "detail": found.detail or None,
        "problem": found.problem or None,
        "udev": found.udev or None,
    }


def as_text(found: list[Found]) -> str:
    """A paragraph for each port."""
    if not found:
        end = "plug a board in by a data cable" if sys.platform != "linux" else (
            "plug a board in by a data cable; in a container, pass its device in"
        )  # fmt: skip
        return f"no serial port: {end}"
    lines = []
    for item in found:
        port = item.port
        ids = f"  {port.vid:04x}:{port.pid:04x}" if port.vid is not None else ""
        number = f"  serial number {port.serial_number}" if port.serial_number else ""
        product = f"  {port.product}" if port.product else ""
        lines.append(f"{port.device or 'no port'}{ids}{number}{product}")
        names = " or ".join(sorted(item.boards))
        lines.append(f"    board: {names or 'none that is known'}")
        if item.detail:
            lines.append(f"    runs:  {item.detail}")
        if item.problem:
            lines.append(f"    problem: {item.problem}")
    return "\n".join(lines)


def known_board(name: str) -> Board:
    """The board of that name. Raises ConfigError for one that is a process, or not known."""
    board = load_board(name)
    if board.rtos == "host":
        raise ConfigError(
            f"{name} is a process of this machine and needs no deployment: "
            "feagi-io boards emulate PROGRAM"
        )
    return board
