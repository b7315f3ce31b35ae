# SPDX-License-Identifier: Apache-2.0
"""Errors of ports say what to do next."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest

from feagi_io_host.core.errors import PortBusyError, PortPermissionError
from feagi_io_host.transports.serial import reasons
from feagi_io_host.transports.serial.port import SerialPort


@pytest.fixture
def usb_port(monkeypatch: pytest.MonkeyPatch) -> str:
    """A device that this user may not open.

    Tests may run as root, to whom no mode of a file forbids anything: so opening, looking at the
    node and listing USB ports are replaced, for this one path only.
    """
    path = "/dev/ttyACM77"
    real_open, real_stat = os.open, os.stat

    def refuse(name: object, *rest: object, **more: object) -> int:
        if name == path:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real_open(name, *rest, **more)  # type: ignore[arg-type]

    def look(name: object, *rest: object, **more: object) -> os.stat_result:
        if name == path:
            return os.stat_result((0o020660, 0, 0, 1, 0, 4242, 0, 0, 0, 0))
        return real_stat(name, *rest, **more)  # type: ignore[arg-type]

    port = SimpleNamespace(device=path, vid=0x2E8A, pid=0x0005, product="Board", hwid="USB")
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "stat", look)
    monkeypatch.setattr(reasons.list_ports, "comports", lambda: [port])
    monkeypatch.setattr(reasons, "_group_name", lambda gid: {4242: "plugdev"}[gid])
    monkeypatch.setattr(reasons, "_user", lambda: "ada")
    return path


def test_forbidden_port_names_the_group_and_the_udev_rule(usb_port: str) -> None:
    with pytest.raises(PortPermissionError) as caught:
        SerialPort(usb_port).open()
    text = str(caught.value)
    assert "user ada may not open /dev/ttyACM77: it belongs to root:plugdev, mode 660" in text
    assert "sudo usermod -aG plugdev ada" in text
    rule = 'SUBSYSTEM=="tty", ATTRS{idVendor}=="2e8a", ATTRS{idProduct}=="0005", TAG+="uaccess"'
    assert text.endswith(rule)


def test_group_without_access_is_not_recommended(
    usb_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = os.stat_result((0o020600, 0, 0, 1, 0, 4242, 0, 0, 0, 0))
    monkeypatch.setattr(os, "stat", lambda *rest, **more: node)
    text = str(reasons.open_error(usb_port, PermissionError(errno.EACCES, "no")))
    assert "mode 600" in text
    assert "usermod" not in text


def test_existing_ports_are_listed_with_their_usb_ids(usb_port: str) -> None:
    assert reasons.existing_ports() == "ports that exist: /dev/ttyACM77 (2e8a:0005 Board)"


def test_busy_without_a_visible_holder() -> None:
    error = reasons.open_error("/dev/ttyNONE", OSError(errno.EBUSY, "busy"))
    assert isinstance(error, PortBusyError)
    assert "a process that this user may not see" in str(error)


def test_no_port_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasons.list_ports, "comports", list)
    assert "no serial port now" in reasons.existing_ports()
