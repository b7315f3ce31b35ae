# SPDX-License-Identifier: Apache-2.0
"""The leak guards catch each kind of leak, name it, and leave clean tests alone."""

from __future__ import annotations

from pathlib import Path

import pytest

LEAKS = '''
import asyncio, os, socket, subprocess, sys, threading
from multiprocessing import shared_memory
import pytest

kept = []
release = threading.Event()

@pytest.fixture(scope="session", autouse=True)
def end_what_leaked():
    """The inner run must not outlive its tests."""
    yield
    release.set()
    for item in kept:
        item()

def test_thread():
    thread = threading.Thread(target=release.wait, name="left-thread")
    kept.append(thread.join)
    thread.start()

def test_fd(tmp_path):
    file = open(tmp_path / "left-file", "w")
    kept.append(file.close)

def test_socket():
    left = socket.socket()
    left.bind(("127.0.0.1", 0))
    kept.append(left.close)

def test_segment():
    segment = shared_memory.SharedMemory(create=True, size=64)
    segment.close()
    kept.append(segment.unlink)

def test_child():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    kept.append(lambda: child.communicate(b"\\n"))

def test_zombie():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    kept.append(child.wait)

def test_task_that_run_cancels():
    async def main():
        kept.append(lambda task=asyncio.create_task(asyncio.sleep(60), name="left-task"): None)
    asyncio.run(main())

def test_task_on_a_loop():
    loop = asyncio.new_event_loop()
    task = loop.create_task(asyncio.sleep(60), name="left-on-loop")
    loop.call_soon(loop.stop)
    loop.run_forever()
    def end():
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
    kept.append(end)

def test_failed_already(tmp_path):
    file = open(tmp_path / "left-by-failure", "w")
    kept.append(file.close)
    assert not file.writable()
'''

CLEAN = """
import asyncio, socket, subprocess, sys, threading
from multiprocessing import shared_memory

def test_everything_closed(tmp_path):
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, daemon=True)
    thread.start()
    stop.set()                      # ends within the grace, never joined here
    (tmp_path / "file").write_text("closed")
    with socket.socket() as left:
        left.bind(("127.0.0.1", 0))
    segment = shared_memory.SharedMemory(create=True, size=64)
    segment.close()
    segment.unlink()
    subprocess.run([sys.executable, "-c", ""], check=True)
    async def main():
        await asyncio.create_task(asyncio.sleep(0))
    asyncio.run(main())

def test_collected_by_the_cycle_collector(tmp_path):
    class Cycle:
        pass
    cycle = Cycle()
    cycle.self = cycle
    cycle.thread = threading.Thread(target=print)
    cycle.thread.start()
"""

NEEDS = """
def test_missing(require):
    require("no-such-thing-anywhere")

def test_module(require):
    assert require("json").loads("1") == 1

def test_program(require):
    assert "/" in require("sh")
"""

NAMED_SEGMENTS = """
import os, subprocess, sys
from pathlib import Path
import pytest

kept = []

@pytest.fixture(scope="session", autouse=True)
def end_what_leaked():
    yield
    for path in kept:
        path.unlink()

def leave(pid, digit):
    path = Path(f"/dev/shm/feagi-io-{pid}-" + digit * 32 + ".sock")
    path.touch()
    kept.append(path)

def test_mine():
    leave(os.getpid(), "a")

def test_of_a_child_that_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    leave(child.pid, "b")

def test_of_a_process_beside_this_one():
    leave(os.getppid(), "c")
"""

MODULE_FIXTURE = """
import socket
import pytest

kept = []

@pytest.fixture(scope="module")
def left():
    yield kept.append(socket.socket())

def test_innocent(left):
    pass
"""


@pytest.fixture
def inner(pytester: pytest.Pytester) -> pytest.Pytester:
    """A test run of its own, with the guards of this one."""
    pytester.makeconftest(Path(__file__).with_name("conftest.py").read_text(encoding="utf-8"))
    return pytester


def run(inner: pytest.Pytester, source: str) -> pytest.RunResult:
    """Run `source` as a test file in a process of its own, so that leaks end with it."""
    inner.makepyfile(source)
    return inner.runpytest_subprocess("-p", "no:cacheprovider", "-rA", timeout=60)


@pytest.mark.slow
def test_each_kind_of_leak_fails_its_test(inner: pytest.Pytester) -> None:
    result = run(inner, LEAKS)
    # Eight tests pass and fail in teardown; the ninth fails by itself and is not failed twice.
    result.assert_outcomes(passed=8, failed=1, errors=8)
    text = result.stdout.str()
    for leaked in (
        r"test_thread left behind:",
        r"thread 'left-thread', started at",
        r"left-file",
        r"socket descriptor",
        r"shared memory /dev/shm/psm_",
        r"child process",
        r"zombie: ended, never waited for",
        r"asyncio task left-task (sleep)",
        r"asyncio task left-on-loop (sleep)",
        r"asyncio event loop not closed, made at",
        r"left-by-failure",
    ):
        assert leaked in text, leaked


def test_segments_named_by_other_processes_are_not_this_runs(inner: pytest.Pytester) -> None:
    result = run(inner, NAMED_SEGMENTS)
    result.assert_outcomes(passed=3, errors=2)
    text = result.stdout.str()
    assert f"{'a' * 32}.sock" in text
    assert f"{'b' * 32}.sock" in text
    assert f"{'c' * 32}.sock" not in text


def test_a_clean_test_passes(inner: pytest.Pytester) -> None:
    run(inner, CLEAN).assert_outcomes(passed=2)


def test_a_fixture_of_wider_scope_is_checked_at_the_end(inner: pytest.Pytester) -> None:
    result = run(inner, MODULE_FIXTURE)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixtures left behind:*"])


def test_what_is_missing_is_skipped(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    run(inner, NEEDS).assert_outcomes(passed=2, skipped=1)


def test_what_is_missing_fails_in_ci(
    inner: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    result = run(inner, NEEDS)
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*with CI=true everything has to run*"])
