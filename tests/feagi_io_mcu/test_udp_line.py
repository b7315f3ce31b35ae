# SPDX-License-Identifier: Apache-2.0
"""UdpDriver on MicroPython's Unix port, over loopback, against the bridge; steps of the agent run
with the heap locked."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feagi_io_host.transports.serial.ends import DatagramEnd
from tests.emulated.agent_host import DEADLINE_S, EYES, Host
from tests.micropython import ROOT, interpreter

pytestmark = [pytest.mark.micropython]

ROVER = Path(__file__).with_name("programs") / "udp_rover.py"


@contextmanager
def rover(port: int, way: str) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "MICROPYPATH": f"{ROOT}:{ROOT / 'shared'}:.frozen"}
    command = [*interpreter(), "-X", "heapsize=512K", str(ROVER), str(port), way]
    board = subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield board
    finally:
        ended = board.poll()
        board.kill()
        said = board.communicate()[0]
    assert ended is None, said


@pytest.fixture
def port() -> int:
    """A free port, for both to know before either is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.bind(("127.0.0.1", 0))
        return int(line.getsockname()[1])


@pytest.mark.parametrize("way", ["step", "aio"])
def test_a_board_over_udp_senses_and_is_moved(port: int, way: str) -> None:
    with rover(port, way), Host(f"udp://127.0.0.1:{port}") as host:
        up = host.ups.get(timeout=DEADLINE_S)
        assert up.declaration.name == "udp rover"
        assert [unit.cortical_id for unit in up.declaration.sensors] == [EYES]
        host.until(lambda voxels: len(voxels) == 250)
        host.move(0, 8)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (0, 7))
        host.move(8, 0)
        host.until(lambda voxels: (voxels[0], voxels[1]) == (7, 0))
        (status,) = host.bridge.status()
        assert status["state"] == "CONNECTED"


def test_either_side_may_come_again(port: int) -> None:
    address = f"udp://127.0.0.1:{port}"
    with Host(address) as host:
        with rover(port, "step"):
            host.ups.get(timeout=DEADLINE_S)
        with rover(port, "step"):  # from another port of its own
            host.ups.get(timeout=DEADLINE_S)
            host.until(lambda voxels: len(voxels) == 250)
            host.bridge.stop()
            with Host(address) as second:
                second.ups.get(timeout=DEADLINE_S)
                second.until(lambda voxels: len(voxels) == 250)


def test_while_a_board_is_heard_nobody_else_is() -> None:
    now_s = 10.0
    end = DatagramEnd("udp://127.0.0.1:0", clock=lambda: now_s)
    here = ("127.0.0.1", end.port)
    buffer = bytearray(64)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as board,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        assert end.write(b"nobody yet") == 10
        board.sendto(b"a board", here)
        assert end.read_into(buffer) == 7
        other.sendto(b"me too", here)
        board.sendto(b"", here)
        board.sendto(b"still here", here)
        assert bytes(buffer[: end.read_into(buffer)]) == b"still here"
        assert end.strangers == 1
        with pytest.raises(BlockingIOError):
            end.read_into(buffer)
        board.settimeout(DEADLINE_S)
        assert end.write(bytes(3000)) == 3000
        assert [len(board.recv(4096)) for _ in range(3)] == [1400, 1400, 200]
        now_s = 12.0
        other.sendto(b"a board, restarted", here)
        assert bytes(buffer[: end.read_into(buffer)]) == b"a board, restarted"
    end.close()


def test_what_is_longer_than_the_buffer_comes_in_pieces() -> None:
    end = DatagramEnd("udp://127.0.0.1:0")
    data = bytes(range(256)) * 5
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as board:
        board.sendto(data[:1000], ("127.0.0.1", end.port))
        board.sendto(data[1000:], ("127.0.0.1", end.port))
    got = bytearray()
    buffer = bytearray(300)
    while len(got) < len(data):
        got += buffer[: end.read_into(buffer)]
    end.close()
    assert got == data
