# SPDX-License-Identifier: Apache-2.0
"""The WebRTC benchmark: each row is measured against the library. Speed is judged where it is
run."""

from __future__ import annotations

import json

import pytest

from tools.bench.__main__ import main


@pytest.mark.slow
def test_webrtc_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["webrtc", "--quick", "--json"]) in (0, 1)
    rows = json.loads(capsys.readouterr().out)
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows) == 9
    topics = ("3.2 MB", "64 KB", "1 KB", "visualization", "motor", "sensory")
    for topic in topics:
        assert sum(topic in name for name in by_name) == 3, topic
    for name, row in by_name.items():
        assert row["reference"] == "aiortc"
        assert min(row["ours_s"], row["reference_s"], row["ratio"]) > 0
        assert "MB/s" in row["note"]
        judged = "sensory" not in name and "3.2 MB" in name
        assert row["met"] is (row["ratio"] <= 1.15 if judged else None)
