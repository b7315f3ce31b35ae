# SPDX-License-Identifier: Apache-2.0
"""What helps to test must itself notice what it is there for."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from feagi_io_host import testing
from feagi_io_host.testing import FakeClock, Residue


def test_names() -> None:
    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []


def test_a_fake_clock_moves_when_told_and_never_back() -> None:
    clock = FakeClock(5.0)
    assert clock() == 5.0
    assert clock.advance(0.25) == clock() == 5.25
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1.0)


def test_residue_sees_segments_of_this_process_and_of_no_other() -> None:
    before = Residue()
    left = {pid: Path(f"/dev/shm/feagi-io-{pid}-{'f' * 32}") for pid in (os.getpid(), os.getppid())}
    for path in left.values():
        path.touch()
    try:
        assert before.since() == [f"shared memory {left[os.getpid()]}"]
    finally:
        for path in left.values():
            path.unlink()
    assert before.since() == []


def test_residue_sees_threads_and_descriptors() -> None:
    before = Residue()
    assert before.since() == []
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="left over", daemon=True)
    read, write = os.pipe()
    thread.start()
    try:
        found = before.since()
    finally:
        end.set()
        thread.join()
        os.close(read)
        os.close(write)
    assert "thread 'left over'" in found
    assert any(line.startswith(f"descriptor {read} ") for line in found)
    assert before.since() == []


def test_what_another_thread_reads_at_the_moment_is_not_left_behind() -> None:
    ended = threading.Event()

    def read_all_the_time() -> None:
        while not ended.is_set():
            Path("/proc/self/status").read_bytes()
            os.listdir("/proc/self/fd")

    thread = threading.Thread(target=read_all_the_time)
    thread.start()
    try:
        before = Residue()
        assert [found for _ in range(20) for found in before.since()] == []
    finally:
        ended.set()
        thread.join()
