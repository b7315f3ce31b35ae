# SPDX-License-Identifier: Apache-2.0
"""The PNS benchmark: that each row is measured, and what does not depend on speed is met."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from zmq.utils.garbage import gc as collector

from feagi_io_host.bench import pns_load
from feagi_io_host.bench.lines import (
    Line,
    QueueLine,
    SocketLine,
    VirtualLine,
    ZmqLine,
    frame,
)
from tools.bench.__main__ import main


@pytest.fixture(autouse=True)
def _collector_ends() -> Iterator[None]:
    yield
    collector.stop()  # the thread by which pyzmq gives large messages back; one per process


def test_pns_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pns", "--quick", "--json"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows) == 21
    for topic, count in {
        "payloads allocated": 2,
        "emit to": 3,
        "at twice what is taken": 2,
        "motor": 3,
        "to an agent": 6,
        "memory of": 2,
        "subscriber": 4,
    }.items():
        assert sum(topic in name for name in by_name) == count, topic
    for name, row in by_name.items():
        assert row["ours_s"] is None or row["ours_s"] > 0
        if any(topic in name for topic in ("payloads", "at twice", "memory")):
            assert row["met"] is True, row
            assert row["note"]


@pytest.mark.parametrize("make", [VirtualLine, QueueLine, ZmqLine, SocketLine])
def test_a_line_carries_frames_in_order(make: type[Line]) -> None:
    with make() as line, frame(10) as small, frame(20_000) as large:
        for _ in range(3):
            line.send(small)
            line.send(large)
            assert line.receive() == len(small)
            assert line.receive() == len(large)


def test_an_allocated_payload_would_show() -> None:
    class Copying(VirtualLine):
        """Keeps a copy of every frame it is given."""

        def receive(self) -> int:
            self.kept = bytearray(16 * 20_000)
            return super().receive()

    with Copying() as line:
        figures = pns_load.allocation_figures(line, 20_000, 3)
    assert figures["peak"] > figures["payload"] // 10
