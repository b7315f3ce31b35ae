# SPDX-License-Identifier: Apache-2.0
"""LineImpairmentProxy between two real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from feagi_io_host.core.errors import ClosedError, ConfigError
from feagi_io_host.testing import LineFaults, LineImpairmentProxy

DEADLINE_S = 10.0
DATA = bytes(range(256)) * 40


@pytest.fixture
def board() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        yield listener


def proxy(board: socket.socket, **settings: LineFaults | int) -> LineImpairmentProxy:
    return LineImpairmentProxy("127.0.0.1", board.getsockname()[1], **settings)  # type: ignore[arg-type]


def connect(wire: LineImpairmentProxy, board: socket.socket) -> tuple[socket.socket, socket.socket]:
    near = socket.create_connection(("127.0.0.1", int(wire.url.rpartition(":")[2])), DEADLINE_S)
    far, _ = board.accept()
    far.settimeout(DEADLINE_S)
    return near, far


def read(line: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = line.recv(size - len(got))
        assert more, f"ended after {len(got)} of {size} bytes"
        got += more
    return got


def journey(board: socket.socket, faults: LineFaults, seed: int) -> bytes:
    with proxy(board, towards=faults, seed=seed) as wire:
        near, far = connect(wire, board)
        with near, far:
            near.sendall(DATA)
            near.shutdown(socket.SHUT_WR)
            got = b""
            while more := far.recv(1 << 16):
                got += more
        counts = wire.counters()["towards"]
    assert counts["passed"] + counts["dropped"] == len(DATA)
    assert len(got) <= counts["passed"] + counts["inserted"]
    return got


def test_a_good_wire_changes_nothing(board: socket.socket) -> None:
    with proxy(board) as wire:
        near, far = connect(wire, board)
        with near, far:
            near.sendall(DATA)
            assert read(far, len(DATA)) == DATA
            far.sendall(DATA)
            assert read(near, len(DATA)) == DATA
            wire.say("towards", b"noise")
            wire.say("back", b"more noise")
            assert read(far, 5) == b"noise"
            assert read(near, 10) == b"more noise"


@pytest.mark.parametrize("fault", ["drop", "corrupt", "insert"])
def test_the_same_seed_is_the_same_journey(board: socket.socket, fault: str) -> None:
    faults = LineFaults(**{fault: 0.01})
    first = journey(board, faults, seed=3)
    assert first != DATA
    shortest = min(len(first), len(again := journey(board, faults, seed=3)))
    assert first[:shortest] == again[:shortest]
    other = journey(board, faults, seed=4)
    assert other[:shortest] != first[:shortest]


def test_stalls_and_cuts(board: socket.socket) -> None:
    with proxy(board) as wire:
        near, far = connect(wire, board)
        with near, far:
            wire.stall()
            near.sendall(b"later")
            far.settimeout(0.2)
            with pytest.raises(TimeoutError):
                far.recv(5)
            far.settimeout(DEADLINE_S)
            wire.go_on()
            assert read(far, 5) == b"later"
            wire.cut()
            assert far.recv(5) == near.recv(5) == b""
        near, far = connect(wire, board)
        with near, far:
            near.sendall(b"again")
            assert read(far, 5) == b"again"


def test_refusals(board: socket.socket) -> None:
    with pytest.raises(ConfigError, match=r"drop is 1.5; 0 to 1 needed"):
        LineFaults(drop=1.5)
    wire = proxy(board)
    wire.stop()
    wire.stop()
    with pytest.raises(ClosedError):
        wire.say("back", b"too late")
