# SPDX-License-Identifier: Apache-2.0
"""The shared-memory benchmark runs, gives its rows and leaves nothing behind."""

from __future__ import annotations

import os
import sys

import pytest

from feagi_io_host.bench import shm


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shared memory needs Linux")
def test_every_row_is_there_and_the_processor_is_given_back() -> None:
    allowed = os.sched_getaffinity(0)
    rows = shm.run(quick=True)
    assert os.sched_getaffinity(0) == allowed
    assert [row.limit for row in rows] == ["-", "-", "-", "<= 1.3x", "-", "<= 1.1x", "0 bytes"]
    assert all(row.ours_s and row.reference_s for row in rows[:-1])
    assert rows[-1].met  # the one that is no matter of time


def test_where_there_is_no_shared_memory_a_row_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shm, "why_unavailable", lambda: "there is none")
    (row,) = shm.run()
    assert (row.reference, row.met) == ("there is none", None)
