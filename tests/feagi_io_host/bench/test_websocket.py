# SPDX-License-Identifier: Apache-2.0
"""The WebSocket benchmark: each row is measured against the library. Speed is judged where it is
run."""

from __future__ import annotations

import json

import pytest

from tools.bench.__main__ import main


def test_websocket_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["websocket", "--quick", "--json"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows) == 12
    for topic, count in {"3.2 MB": 4, "64 KB": 4, "1 KB": 4, "loop": 9, "threads": 3}.items():
        assert sum(topic in name for name in by_name) == count, topic
    for name, row in by_name.items():
        assert row["reference"] == "websockets"
        assert min(row["ours_s"], row["reference_s"], row["ratio"]) > 0
        assert "p50" in row["note"]
        assert "p99" in row["note"]
        judged = "loop, PNS to" in name and "3.2 MB" in name
        assert row["met"] is (row["ratio"] <= 1.15 if judged else None)
