# SPDX-License-Identifier: Apache-2.0
"""The ZMQ benchmark: that each row is measured against pyzmq. Speed is judged where it is run."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from zmq.utils.garbage import gc as collector

from tools.bench.__main__ import main


@pytest.fixture(autouse=True)
def _collector_ends() -> Iterator[None]:
    yield
    collector.stop()  # the thread by which pyzmq gives large messages back; one per process


def test_zmq_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zmq", "--quick", "--json"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows) == 19
    for topic, count in {
        "3.2 MB": 6,
        "64 KB": 6,
        "1 KB": 6,
        "emit to an agent's thread": 6,
        "emit to FeagiAgent": 3,
        "sensory": 3,
        "asyncio": 6,
        "AsyncFeagiAgent": 3,
        "200K neurons": 1,
    }.items():
        assert sum(topic in name for name in by_name) == count, topic
    for name, row in by_name.items():
        assert row["ours_s"] > 0
        assert row["reference_s"] > 0
        assert row["ratio"] > 0
        assert row["reference"] == ("zmq.asyncio" if "asyncio" in name else "pyzmq")
        if "200K" in name:
            assert "p50" in row["note"]
            assert "p99" in row["note"]
        else:
            assert row["met"] is (row["ratio"] <= float(row["limit"][3:-1]))
