# SPDX-License-Identifier: Apache-2.0
"""Why a port cannot be used, in words that end with what to do next."""

from __future__ import annotations

import errno
import getpass
import os
import stat
import sys
from pathlib import Path

from serial.tools import list_ports
from serial.tools.list_ports_common import ListPortInfo

from feagi_io_host.core.errors import (
    PortBusyError,
    PortError,
    PortNotFoundError,
    PortPermissionError,
)

_GONE = frozenset({errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR})
_HELD = frozenset({errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_LISTED = 8


def open_error(path: str, error: OSError) -> PortError:
    """The error to raise when opening the device `path` failed with `error`."""
    if error.errno in _GONE:
        return PortNotFoundError(f"no port {path}; {existing_ports()}")
    if error.errno in _HELD:
        return PortBusyError(
            f"port {path} is held by {holders(path)}; end that program "
            "(a serial monitor, mpremote, another bridge) and this goes on by itself"
        )
    if error.errno in _FORBIDDEN:
        return PortPermissionError(_forbidden(path))
    return PortError(
        f"port {path} cannot be used: {error.strerror or error}; "
        f"it has to be a serial port or a terminal; {existing_ports()}"
    )


def vanished(path: str, detail: str) -> PortNotFoundError:
    """The error for a line that was open and is gone."""
    return PortNotFoundError(
        f"port {path} is gone ({detail}): unplugged, reset or its far end closed; "
        "it is opened again when it comes back"
    )


def existing_ports() -> str:
    """The serial ports that exist, as half a sentence."""
    found = [_described(port.device, port.vid, port.pid, port.product) for port in serial_ports()]
    if not found:
        return "this machine has no serial port now: is the board plugged in by a data cable?"
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return f"ports that exist: {', '.join(found[:_LISTED])}{more}"


def _described(device: str, vid: int | None, pid: int | None, product: str | None) -> str:
    if vid is None or pid is None:
        return device
    return f"{device} ({vid:04x}:{pid:04x}{' ' + product if product else ''})"


def serial_ports() -> list[ListPortInfo]:
    """The serial ports of this machine that have hardware behind them, sorted."""
    # ttyS0 to ttyS31 exist on most machines without any hardware behind them
    return sorted(port for port in list_ports.comports() if port.hwid != "n/a")


def access_error(path: str) -> PortError | None:
    """Why the device `path` cannot be opened now, without opening it; None when nothing is known
    against it."""
    if not os.path.exists(path):
        return PortNotFoundError(f"no port {path}; {existing_ports()}")
    if not os.access(path, os.R_OK | os.W_OK):
        return PortPermissionError(_forbidden(path))
    held = _holders(path)
    return PortBusyError(f"port {path} is held by {', '.join(held)}") if held else None


def holders(path: str) -> str:
    """Who has the device open: "process 123 (minicom)" for each one that /proc shows."""
    return ", ".join(_holders(path)) or "a process that this user may not see"


def _holders(path: str) -> list[str]:
    found = []
    real = os.path.realpath(path)
    try:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        pids = []
    for pid in pids:
        try:
            if any(os.readlink(link) == real for link in Path(f"/proc/{pid}/fd").iterdir()):
                name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
                found.append(f"process {pid} ({name}{', this one' if pid == os.getpid() else ''})")
        except OSError:
            continue  # ended meanwhile, or another user's
    return found


def _forbidden(path: str) -> str:
    user = _user()
    try:
        node = os.stat(path)
    except OSError as error:
        return f"user {user} may not open {path}, nor look at it ({error.strerror})"
    group = _group_name(node.st_gid)
    text = (
        f"user {user} may not open {path}: it belongs to {_owner_name(node.st_uid)}:{group}, "
        f"mode {stat.S_IMODE(node.st_mode):o}"
    )
    if node.st_mode & stat.S_IRGRP and node.st_mode & stat.S_IWGRP:
        text += f"; join the group: sudo usermod -aG {group} {user} (then log in again)"
    rule = udev_rule(path)
    if rule is not None:
        text += f"; or put this line into /etc/udev/rules.d/99-feagi-io.rules: {rule}"
    return text


def udev_rule(path: str) -> str | None:
    """The udev rule that opens this USB port to whoever sits at the machine; None for no USB."""
    real = os.path.realpath(path)
    for port in list_ports.comports():
        if port.vid is not None and port.pid is not None and port.device in (path, real):
            return (
                f'SUBSYSTEM=="tty", ATTRS{{idVendor}}=="{port.vid:04x}", '
                f'ATTRS{{idProduct}}=="{port.pid:04x}", TAG+="uaccess"'
            )
    return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid()) if sys.platform != "win32" else "?"


def _group_name(gid: int) -> str:
    if sys.platform != "win32":
        import grp

        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            pass
    return str(gid)


def _owner_name(uid: int) -> str:
    if sys.platform != "win32":
        import pwd

        try:
            return pwd.getpwuid(uid).pw_name
        except KeyError:
            pass
    return str(uid)
