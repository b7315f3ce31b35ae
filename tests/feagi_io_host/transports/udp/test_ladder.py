# SPDX-License-Identifier: Apache-2.0
"""The ways in and out of a socket: each pair of rungs over loopback, pacing, errors."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

from feagi_io_host.core.datagram import Check, Seal
from feagi_io_host.core.errors import ConfigError, PortError
from feagi_io_host.core.fragment import Burst, Fragmenter, FragmentSettings
from feagi_io_host.core.reassembly import Reassembler, ReceivedBurst
from feagi_io_host.transports.udp import ladder
from feagi_io_host.transports.udp.ladder import BurstReceiver, BurstSender, Pacer, Rung, probe
from feagi_io_host.transports.udp.vectors import SendVector
from tests.feagi_io_host.core.datagrams import VIZ, datagram

SEAL = Seal(Check.CRC)
DEADLINE_S = 5.0
SIZES = [1, 1368, 1369, 5 * 1368, 46 * 1368, 46 * 1368 + 1, 100_000]

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture(params=["127.0.0.1", "::1"])
def sockets(request: pytest.FixtureRequest) -> Iterator[Sockets]:
    """A connected one for sending, a bound one for receiving."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sending,
        socket.socket(family, socket.SOCK_DGRAM) as receiving,
    ):
        receiving.bind((request.param, 0))
        receiving.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sending.connect(receiving.getsockname())
        sending.setblocking(False)
        receiving.setblocking(False)
        yield sending, receiving


def burst_of(size: int, fragmenter: Fragmenter | None = None) -> Burst:
    frame = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    burst = (fragmenter or Fragmenter(1, seal=SEAL)).fragment(VIZ, frame)
    assert burst is not None
    return burst


def send(sender: BurstSender, burst: Burst, sock: socket.socket) -> None:
    sender.begin(burst)
    while sender.step(0.0) is not None:
        assert select.select([], [sock], [], DEADLINE_S)[1]


def take(
    receiver: BurstReceiver, reassembler: Reassembler, sock: socket.socket
) -> list[ReceivedBurst]:
    """Wait for something and take all of it."""
    assert select.select([sock], [], [], DEADLINE_S)[0]
    bursts = []
    while receiver.receive():
        bursts += reassembler.receive_blocks(
            receiver.blocks, receiver.lengths, receiver.segments, 0.0
        )
    return bursts


def test_probe_tells_what_and_why() -> None:
    found = probe()
    assert str(found).startswith(
        f"UDP: sends by {found.send.value}, receives by {found.receive.value}"
    )
    assert len(found.reasons) == list(Rung).index(found.send) + list(Rung).index(found.receive)


def test_probe_goes_down_the_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "UDP_GRO", 9999)
    found = probe()
    assert found.receive is not Rung.SEGMENTS
    assert "receiving by segments: UDP_GRO cannot be switched on" in str(found)
    monkeypatch.setattr(ladder, "why_not", lambda: "no such call")
    assert probe() == ladder.Probe(
        Rung.PLAIN,
        Rung.PLAIN,
        (
            "receiving by segments: no such call",
            "receiving by many: no such call",
            "sending by segments: no such call",
            "sending by many: no such call",
        ),
    )


@pytest.mark.parametrize(("out", "back"), list(product(Rung, Rung)), ids=lambda rung: rung.value)
def test_each_pair_of_rungs_carries_every_size(sockets: Sockets, out: Rung, back: Rung) -> None:
    sending, receiving = sockets
    sender, receiver = BurstSender(sending, out), BurstReceiver(receiving, back, 1400)
    fragmenter = Fragmenter(1, FragmentSettings(group=4), seal=SEAL)
    reassembler = Reassembler(seal=SEAL)
    datagrams = 0
    for sequence, size in enumerate(SIZES + SIZES[::-1] + [SIZES[-1]]):
        burst = burst_of(size, fragmenter)
        send(sender, burst, sending)
        (got,) = take(receiver, reassembler, receiving)
        assert (got.sequence, got.repaired) == (sequence, 0)
        assert got.data == burst.payload
        datagrams += burst.count + len(burst.parity)
    assert sender.counters()["datagrams"] == datagrams
    assert reassembler.counters()["datagrams"] == datagrams
    assert sender.idle
    if out is Rung.SEGMENTS:
        assert sender.counters()["calls"] <= 2 * len(SIZES) + 1
    if (out, back) == (Rung.SEGMENTS, Rung.SEGMENTS):
        assert receiver.counters()["pieces"] < datagrams / 5


@pytest.mark.parametrize("rung", list(Rung))
def test_source_is_told(sockets: Sockets, rung: Rung) -> None:
    sending, receiving = sockets
    receiver = BurstReceiver(receiving, rung)
    assert receiver.receive() == 0
    sending.send(b"one")
    assert select.select([receiving], [], [], DEADLINE_S)[0]
    assert receiver.receive() == 1
    assert receiver.source(0) == sending.getsockname()[:2]
    assert (receiver.lengths, receiver.segments) == ([3], [3])
    assert receiver.blocks[0, :3].tobytes() == b"one"
    assert not receiver.full


def test_cut_of_an_earlier_piece_is_forgotten(sockets: Sockets) -> None:
    sending, receiving = sockets
    receiver = BurstReceiver(receiving, Rung.SEGMENTS)
    small = Fragmenter(1, FragmentSettings(datagram_bytes=96), seal=SEAL)
    send(BurstSender(sending, Rung.SEGMENTS), burst_of(640, small), sending)
    assert select.select([receiving], [], [], DEADLINE_S)[0]
    assert receiver.receive() == 1
    assert (receiver.lengths, receiver.segments) == ([960], [96])
    sending.send(bytes(500))
    send(BurstSender(sending, Rung.SEGMENTS), burst_of(640, small), sending)
    assert select.select([receiving], [], [], DEADLINE_S)[0]
    assert receiver.receive() == 2
    assert (receiver.lengths, receiver.segments) == ([500, 960], [500, 96])


@pytest.mark.parametrize("rung", [Rung.MANY, Rung.PLAIN])
def test_longer_than_a_datagram_may_be(sockets: Sockets, rung: Rung) -> None:
    sending, receiving = sockets
    receiver = BurstReceiver(receiving, rung, 200)
    for size in (208, 5000, 200):
        sending.send(datagram(bytes(size - 32), share=1000, count=1))
    bursts = take(receiver, Reassembler(seal=SEAL), receiving)
    assert [len(burst.data) for burst in bursts] == [168]
    assert receiver.counters()["truncated"] == 2


@pytest.mark.parametrize("rung", list(Rung))
def test_pacing_holds_back_what_is_beyond_the_depth(sockets: Sockets, rung: Rung) -> None:
    sending, receiving = sockets
    sender = BurstSender(sending, rung, Pacer(bytes_per_s=1e6, depth_bytes=1 << 16))
    burst = burst_of(150_000)
    sender.begin(burst)
    pause_s = sender.step(0.0)
    first = sender.counters()["datagrams"]
    assert first == 46
    assert pause_s is not None
    assert pause_s > 0.0
    assert sender.step(0.0) == pytest.approx(pause_s)
    assert sender.counters()["datagrams"] == first
    now_s = 0.0
    while (pause := sender.step(now_s)) is not None:
        now_s += pause + 1e-6
    assert sender.counters()["datagrams"] == burst.count
    # All of it but what may pass at once, at a megabyte a second; whole messages at a time.
    assert 0.08 < now_s < 0.14
    (got,) = take(BurstReceiver(receiving, rung), Reassembler(seal=SEAL), receiving)
    assert got.data == burst.payload


def test_pacer() -> None:
    pacer = Pacer(bytes_per_s=1000.0, depth_bytes=1 << 16)
    assert pacer.allowance(10.0) == 65_536
    pacer.spend(65_536)
    assert pacer.allowance(10.0) == 0
    assert pacer.pause_s(500) == pytest.approx(0.5)
    assert pacer.allowance(10.5) == 500
    assert pacer.allowance(9.0) == 500  # a clock that goes back gives nothing and takes nothing
    assert pacer.allowance(1e9) == 65_536
    assert pacer.pause_s(500) == 0.0
    for wrong in ((0.0, 1 << 16), (float("nan"), 1 << 16), (1.0, 1000)):
        with pytest.raises(ConfigError, match="pacing"):
            Pacer(*wrong)


def test_newer_burst_cuts_the_older_off(sockets: Sockets) -> None:
    sending, receiving = sockets
    sender = BurstSender(sending, Rung.MANY, Pacer(1.0, 1 << 16))
    fragmenter = Fragmenter(1, seal=SEAL)
    sender.begin(burst_of(100_000, fragmenter))
    assert sender.step(0.0)
    assert not sender.idle
    sender.begin(burst_of(100, fragmenter))
    assert sender.step(1e6) is None
    assert sender.counters()["cut_off"] == 1
    (got,) = take(BurstReceiver(receiving, Rung.MANY), Reassembler(seal=SEAL), receiving)
    assert got.sequence == 1


@pytest.mark.parametrize("rung", list(Rung))
def test_nobody_listens(sockets: Sockets, rung: Rung) -> None:
    sending, receiving = sockets
    receiving.close()
    sender = BurstSender(sending, rung)
    burst = burst_of(5 * 1368)
    for _ in range(4):
        send(sender, burst, sending)
    counters = sender.counters()
    assert counters["refused"] > 0
    assert counters["refused"] + counters["datagrams"] == 4 * burst.count


def test_interface_that_cannot_cut_segments(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sending, receiving = sockets
    real = SendVector.send

    def send_singly(self: SendVector, sock: socket.socket, first: int, amount: int) -> int:
        if first == 0:
            return real(self, sock, 0, 1)
        if self.datagrams.max() > 1:
            raise OSError(errno.EIO, "no checksums there")
        return real(self, sock, first, amount)

    monkeypatch.setattr(SendVector, "send", send_singly)
    sender = BurstSender(sending, Rung.SEGMENTS)
    fragmenter = Fragmenter(1, FragmentSettings(group=20), seal=SEAL)
    for _ in range(2):
        burst = burst_of(100_000, fragmenter)
        send(sender, burst, sending)
        receiver = BurstReceiver(receiving, Rung.MANY)
        (got,) = take(receiver, Reassembler(seal=SEAL), receiving)
        assert got.data == burst.payload
        assert sender.rung is Rung.MANY
    assert sender.counters()["datagrams"] == 2 * (burst.count + len(burst.parity))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_kernel_without_buffers_is_asked_again(
    sockets: Sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(self: SendVector, sock: socket.socket, first: int, amount: int) -> int:
        raise OSError(errno.ENOBUFS, "none left")

    sender = BurstSender(sockets[0], Rung.MANY)
    sender.begin(burst_of(10))
    with monkeypatch.context() as patch:
        patch.setattr(SendVector, "send", nothing)
        pause_s = sender.step(0.0)
        assert pause_s is not None
        assert pause_s > 0.0
    assert sender.step(0.0) is None
    assert sender.counters()["no_buffers"] == 1


class Narrow(socket.socket):
    """A socket whose path takes less than is sent."""

    def send(self, *_: object) -> int:
        raise OSError(errno.EMSGSIZE, "Message too long")

    def getsockopt(self, *_: object) -> int:  # type: ignore[override]
        return 1000


def test_path_that_is_too_narrow_is_named() -> None:
    with Narrow(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sender = BurstSender(sock, Rung.PLAIN)
        sender.begin(burst_of(5000))
        with pytest.raises(PortError, match=r"1400 bytes.*takes 972: set datagram_bytes"):
            sender.step(0.0)
        assert sender.idle
        assert sender.step(0.0) is None


@pytest.mark.parametrize("rung", list(Rung))
def test_closed_socket_is_named(sockets: Sockets, rung: Rung) -> None:
    sending, receiving = sockets
    receiver, sender = BurstReceiver(receiving, rung), BurstSender(sending, rung)
    receiving.close()
    sending.close()
    with pytest.raises(PortError, match="cannot be read"):
        receiver.receive()
    sender.begin(burst_of(10))
    with pytest.raises(PortError, match="cannot be sent"):
        sender.step(0.0)
