# SPDX-License-Identifier: Apache-2.0
"""SerialPort on real pseudo terminals and TCP sockets."""

from __future__ import annotations

import fcntl
import os
import socket
import termios
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    PortBusyError,
    PortError,
    PortNotFoundError,
)
from feagi_io_host.transports.serial.port import SerialPort

DEADLINE_S = 10.0


@dataclass
class Pty:
    master: int
    slave: int
    path: str

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1


@pytest.fixture
def pty() -> Iterator[Pty]:
    master, slave = os.openpty()
    tty.setraw(slave)
    line = Pty(master, slave, os.ttyname(slave))
    yield line
    for fd in (line.master, line.slave):
        if fd >= 0:
            os.close(fd)


@pytest.fixture
def port(pty: Pty) -> Iterator[SerialPort]:
    with SerialPort(pty.path) as opened:
        yield opened


def in_thread(run: object) -> tuple[threading.Thread, list[BaseException | int]]:
    result: list[BaseException | int] = []

    def main() -> None:
        try:
            result.append(run())  # type: ignore[operator]
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    return thread, result


def test_bytes_go_both_ways_unchanged(pty: Pty, port: SerialPort) -> None:
    every = bytes(range(256))
    os.write(pty.master, every)
    buffer = bytearray(1000)
    got = b""
    while len(got) < 256:
        count = port.read(buffer, DEADLINE_S)
        assert count
        got += buffer[:count]
    assert got == every
    assert port.write(every, DEADLINE_S) == 256
    back = b""
    while len(back) < 256:
        back += os.read(pty.master, 1000)
    assert back == every


def test_read_without_bytes_ends_at_its_deadline(port: SerialPort) -> None:
    buffer = bytearray(10)
    assert port.read(buffer, 0.0) == 0
    begun_s = time.monotonic()
    assert port.read(buffer, 0.05) == 0
    assert time.monotonic() - begun_s >= 0.05


def test_write_to_a_full_line_ends_at_its_deadline(port: SerialPort) -> None:
    # nobody reads the other end; a terminal holds some kilobytes
    assert 0 < port.write(bytes(1 << 20), 0.05) < 1 << 20
    assert port.write_some(b"x") == 0


def test_close_wakes_a_reader_and_may_be_repeated(port: SerialPort) -> None:
    thread, result = in_thread(lambda: port.read(bytearray(10), None))
    port.close()
    thread.join(DEADLINE_S)
    assert isinstance(result[0], ClosedError)
    port.close()
    assert not port.is_open
    with pytest.raises(ClosedError, match="is closed"):
        port.write_some(b"x")


def test_wake_ends_a_wait(port: SerialPort) -> None:
    thread, result = in_thread(lambda: port.wait(None))
    port.wake()
    thread.join(DEADLINE_S)
    assert result == [False]


def test_far_end_gone_is_told_as_such(pty: Pty, port: SerialPort) -> None:
    pty.hang_up()
    with pytest.raises(PortNotFoundError, match=r"is gone .*unplugged"):
        port.read(bytearray(10), DEADLINE_S)


def test_missing_port_names_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PortNotFoundError, match=r"no port /dev/ttyNONE; (ports that|this machine)"):
        SerialPort("/dev/ttyNONE").open()


def test_busy_port_names_the_process_that_holds_it(pty: Pty, port: SerialPort) -> None:
    with pytest.raises(PortBusyError, match=rf"held by process {os.getpid()} \(.*this one"):
        SerialPort(pty.path).open()


def test_a_file_is_no_port(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "wb"):
        pass
    with pytest.raises(PortError, match="has to be a serial port or a terminal"):
        SerialPort(path).open()


def test_closing_keeps_the_control_lines_up(pty: Pty, port: SerialPort) -> None:
    assert not termios.tcgetattr(pty.slave)[2] & termios.HUPCL


def test_close_gives_the_lock_back(pty: Pty) -> None:
    for _ in range(2):
        with SerialPort(pty.path):
            pass
    fcntl.flock(pty.slave, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_reset_needs_control_lines(pty: Pty) -> None:
    port = SerialPort(pty.path, reset=True)
    with pytest.raises(PortError, match="cannot reset a board"):
        port.open()
    assert not port.is_open


def test_name_that_stands_for_another_device_now(tmp_path: os.PathLike[str]) -> None:
    name = os.path.join(tmp_path, "board")
    first, second = os.openpty(), os.openpty()
    try:
        os.symlink(os.ttyname(first[1]), name)
        with SerialPort(name) as port:
            assert port.is_current()
            os.unlink(name)
            assert not port.is_current()
            os.symlink(os.ttyname(second[1]), name)
            assert not port.is_current()
    finally:
        for fd in (*first, *second):
            os.close(fd)


@pytest.mark.parametrize("address", ["spi://0.0", "i2c://1", "/dev/spidev0.0", "/dev/i2c-1"])
def test_a_bus_that_this_machine_controls_is_no_line_to_a_board(address: str) -> None:
    with pytest.raises(ConfigError, match="the board is the controller, and so is Linux"):
        SerialPort(address).open()


def test_bad_baud_and_bad_socket_addresses() -> None:
    with pytest.raises(ConfigError, match="baud is 0"):
        SerialPort("/dev/null", baud=0)
    for address in ("socket://", "socket://host", "socket://host:99999"):
        with pytest.raises(ConfigError, match="line 'socket://"):
            SerialPort(address).open()


def test_socket_line() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    buffer = bytearray(10)
    with server, SerialPort(f"socket://127.0.0.1:{server.getsockname()[1]}") as port:
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"hello")
            assert port.read(buffer, DEADLINE_S) == 5
            assert port.write(b"world", DEADLINE_S) == 5
            peer.settimeout(DEADLINE_S)
            assert peer.recv(10) == b"world"
            port.drop_output()
        with pytest.raises(PortNotFoundError, match="is gone"):
            port.read(buffer, DEADLINE_S)


def test_socket_nobody_listens_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"socket://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(PortNotFoundError, match="nothing answers at socket://"):
        SerialPort(address).open()
