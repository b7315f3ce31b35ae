# SPDX-License-Identifier: Apache-2.0
"""Which board is behind a serial port, by its USB ids, and which port is meant when none is named.

Pure: what is plugged in comes in as a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from feagi_io_host.boards.board_file import Board
from feagi_io_host.core.errors import PortNotFoundError

BOOTLOADER: Final = "bootloader"


@dataclass(frozen=True, slots=True)
class PortFacts:
    """A serial port, or a USB device in its boot loader (`device` is "" then).

    `vid`, `pid`: None without USB. `serial_number`, `product`: "" where the device says none.
    """

    device: str
    vid: int | None = None
    pid: int | None = None
    serial_number: str = ""
    product: str = ""


def boards_of(port: PortFacts, boards: Iterable[Board]) -> dict[str, str]:
    """Name of each board that shows these USB ids -> what it is when it does ("MicroPython", ...).

    Several share the ids of a common bridge chip or of a chip's USB port.
    """
    return {
        board.name: usb.what
        for board in boards
        for usb in board.usb
        if (usb.vid, usb.pid) == (port.vid, port.pid)
    }


def choose_port(board: Board, ports: Sequence[PortFacts]) -> PortFacts:
    """The only port that shows a USB identity of `board`; never one of several.

    Raises PortNotFoundError for none, with what there is instead, and for several, naming them.
    """
    fitting = [port for port in ports if board.name in boards_of(port, [board])]
    working = [port for port in fitting if port.device]
    if len(working) == 1:
        return working[0]
    if working:
        raise PortNotFoundError(
            f"{len(working)} ports may be a {board.name}: {_listed(working)}; say which: --port"
        )
    if fitting:
        raise PortNotFoundError(
            f"a {board.name} is there in its boot loader, which is no serial port: copy the "
            f"firmware {board.firmware} onto the disk that it shows "
            "(https://micropython.org/download)"
        )
    if not board.usb:
        raise PortNotFoundError(
            f"a {board.name} has no USB identity of its own to be found by; name its port: --port"
        )
    there = f"ports that exist: {_listed(ports)}" if ports else "this machine has no serial port"
    ids = ", ".join(f"{usb.vid:04x}:{usb.pid:04x}" for usb in board.usb)
    raise PortNotFoundError(
        f"no port shows the USB ids of a {board.name} ({ids}); {there}. Is the cable a data cable? "
        "Else name the port: --port"
    )


def same_device(port: PortFacts, ports: Iterable[PortFacts]) -> PortFacts | None:
    """`port` as it is now: a USB device with a serial number may come back under another name."""
    for other in ports:
        if port.serial_number:
            if (other.vid, other.pid, other.serial_number) == (
                port.vid, port.pid, port.serial_number,
            ):  # fmt: skip
                return other
        elif other.device == port.device:
            return other
    return None


def _listed(ports: Iterable[PortFacts]) -> str:
    return ", ".join(
        f"{port.device}"
        + (f" ({port.vid:04x}:{port.pid:04x}" if port.vid is not None else " (no USB")
        + (f", serial number {port.serial_number})" if port.serial_number else ")")
        for port in ports
        if port.device
    )
