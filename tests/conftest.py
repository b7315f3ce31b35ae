# SPDX-License-Identifier: Apache-2.0
"""Leak guards, and what tests need from the machine.

A test that leaves a thread, task, event loop, file descriptor, socket, child process or
shared-memory segment behind fails in its teardown, with what leaked and, where the interpreter
knows it, where it was made. Fixtures of a wider scope are set up before the guard of the test
that asks for them first; the session's own guard checks that those clean up as well.

A test that failed anyway keeps its own report: its traceback holds on to what it used, so the
leaks are added to it as a section instead of as a second failure.

The process-wide context of a library (`zmq.Context.instance()`) counts as a leak.
Tests make their own and close it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from multiprocessing import resource_tracker
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tools.browser import Chromium

# The same examples on every run, and no deadline that a busy machine could miss.
# `pytest --hypothesis-profile=explore` looks further, at random.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=5000, deadline=None)
settings.load_profile("steady")

# How long threads that were told to stop may take to end, all of them together.
THREAD_GRACE_S = 1.0
LOOK_S = 0.01
SHM = Path("/dev/shm")
FD = Path("/proc/self/fd")
# What this library names its segments and sockets: with the process that made them.
SEGMENT = re.compile(r"feagi-io-([0-9]+)-[0-9a-f]{32}(?:\.sock)?")

_failed = pytest.StashKey[bool]()
_thread_origin: weakref.WeakKeyDictionary[threading.Thread, str] = weakref.WeakKeyDictionary()
_loop_origin: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, str] = (
    weakref.WeakKeyDictionary()
)
_abandoned_tasks: list[str] = []
_started: set[int] = set()  # every process that this one started, the dead ones too


def _caller() -> str:
    """The innermost line of the running stack that belongs to no library of the interpreter."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if not name.startswith((sys.base_prefix, sys.prefix, "<")) and name != __file__:
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"


def _task_text(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    where = f" at {stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else ""
    return f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')}){where}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """A board on the table for the tests of tests/emulated."""
    group = parser.getgroup("boards")
    group.addoption("--board-port", help="port of a board's REPL: run the on-board tests there")
    group.addoption("--board", default="rp2040-pico", help="which board that is, as in boards/")
    group.addoption(
        "--board-link", default="", help="host's end of the UART that the board's file names first"
    )


@pytest.fixture(scope="session", autouse=True)
def _origins() -> Iterator[None]:
    """Note where threads and loops come from, the tasks that `asyncio.run` has to cancel, and
    which processes are started."""
    patch = pytest.MonkeyPatch()
    thread_start = threading.Thread.start
    loop_init = asyncio.BaseEventLoop.__init__
    runner_close = asyncio.Runner.close
    popen_init = subprocess.Popen.__init__
    fork = os.fork

    def start(self: threading.Thread) -> None:
        _thread_origin[self] = _caller()
        thread_start(self)

    def init(self: asyncio.BaseEventLoop) -> None:
        loop_init(self)
        _loop_origin[self] = _caller()

    def close(self: asyncio.Runner) -> None:
        # After this call the tasks are cancelled and gone; asyncio says nothing about them.
        loop = getattr(self, "_loop", None)
        if loop is not None and not loop.is_closed():
            _abandoned_tasks.extend(_task_text(task) for task in asyncio.all_tasks(loop))
        runner_close(self)

    def popen(self: subprocess.Popen[Any], *arguments: Any, **options: Any) -> None:
        popen_init(self, *arguments, **options)
        _started.add(self.pid)

    def forked() -> int:
        pid = fork()
        _started.add(pid)
        return pid

    patch.setattr(subprocess.Popen, "__init__", popen)
    patch.setattr(os, "fork", forked)
    patch.setattr(threading.Thread, "start", start)
    patch.setattr(asyncio.BaseEventLoop, "__init__", init)
    patch.setattr(asyncio.Runner, "close", close)
    yield
    patch.undo()


def _tracker(attribute: str) -> int | None:
    """`_pid` or `_fd` of the process that multiprocessing starts with the first segment and keeps.

    Starting it up front instead would cost every test a walk through /proc.
    """
    return getattr(resource_tracker._resource_tracker, attribute, None)


def _open_fds() -> dict[int, str]:
    """Open file descriptors and what each stands for; empty where /proc does not exist."""
    found = {}
    for name in os.listdir(FD) if FD.exists() else ():
        try:
            found[int(name)] = os.readlink(FD / name)
        except FileNotFoundError:
            continue  # the descriptor of this very listing
    found.pop(_tracker("_fd") or -1, None)
    return found


def _children() -> dict[int, str]:
    """Child processes, zombies included: pid and command line; empty where /proc does not exist."""
    if not hasattr(os, "waitid") or not FD.exists():
        return {}
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}
    found = {}
    own = str(os.getpid())
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            # The command in brackets may hold anything; the fields after it are plain.
            state, parent = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[:2]
            if parent != own:
                continue
            command = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        text = "zombie: ended, never waited for" if state == "Z" else command.strip()
        found[int(name)] = text
    found.pop(_tracker("_pid") or -1, None)
    return found


def _segments() -> frozenset[str]:
    return frozenset(os.listdir(SHM)) if SHM.exists() else frozenset()


def _line_of(pid: int) -> Iterator[int]:
    """A living process, who started it, and so on up."""
    while pid > 0:
        yield pid
        try:
            pid = int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return


def _of_another_process(segment: str) -> bool:
    """True when a process outside this one's family made or holds it: another test run's."""
    named = SEGMENT.fullmatch(segment)
    if named is not None:
        pid = int(named[1])
        return pid not in _started and os.getpid() not in _line_of(pid)
    family = {os.getpid(), *_children()}
    path = str(SHM / segment)
    for name in os.listdir("/proc") if Path("/proc").exists() else ():
        if name.isdigit() and int(name) not in family:
            try:
                if path in Path("/proc", name, "maps").read_text():
                    return True
                if any(os.readlink(fd) == path for fd in Path("/proc", name, "fd").iterdir()):
                    return True
            except OSError:
                continue
    return False


def _threads() -> frozenset[threading.Thread]:
    # Threads that C code attached to the interpreter cannot be joined and end with their owner.
    # The watch of pytest-timeout outlives every fixture.
    return frozenset(
        thread
        for thread in threading.enumerate()
        if not isinstance(thread, threading._DummyThread)
        and not thread.name.startswith("pytest_timeout")
    )


@dataclass
class Snapshot:
    """What this process holds at one moment."""

    threads: frozenset[threading.Thread] = field(default_factory=_threads)
    fds: dict[int, str] = field(default_factory=_open_fds)
    children: dict[int, str] = field(default_factory=_children)
    segments: frozenset[str] = field(default_factory=_segments)
    loops: frozenset[int] = field(default_factory=lambda: frozenset(map(id, _loop_origin)))

    def leaks(self) -> list[str]:
        """What the process holds now beyond this snapshot, a line each."""
        found = self._differences()
        if not found:
            return []
        # Give what only waits for the collector its chance, and descriptors that a loop of the test
        # is just closing theirs; then look again. What is left lasts.
        gc.collect()
        deadline_s = time.monotonic() + THREAD_GRACE_S
        while any(self._fd_leaks()) and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        return self._differences()

    def _differences(self) -> list[str]:
        return [
            *self._thread_leaks(),
            *self._loop_leaks(),
            *self._child_leaks(),
            *self._fd_leaks(),
            *self._segment_leaks(),
        ]

    def _thread_leaks(self) -> Iterator[str]:
        deadline_s = time.monotonic() + THREAD_GRACE_S
        for thread in _threads() - self.threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
            if not thread.is_alive():
                continue
            frame = sys._current_frames().get(thread.ident or 0)
            now = traceback.extract_stack(frame)[-1] if frame is not None else None
            place = f", now at {now.filename}:{now.lineno} in {now.name}" if now else ""
            origin = _thread_origin.get(thread, "an unknown place")
            yield f"thread {thread.name!r}, started at {origin}{place}"

    def _loop_leaks(self) -> Iterator[str]:
        for loop, origin in list(_loop_origin.items()):
            if id(loop) in self.loops:
                continue
            for task in asyncio.all_tasks(loop):
                yield f"asyncio task {_task_text(task)}"
            if not loop.is_closed():
                yield f"asyncio event loop not closed, made at {origin}"

    def _child_leaks(self) -> Iterator[str]:
        for pid, text in _children().items():
            if pid not in self.children:
                yield f"child process {pid}: {text}"

    def _fd_leaks(self) -> Iterator[str]:
        for fd, target in _open_fds().items():
            if self.fds.get(fd) != target:
                kind = "socket" if target.startswith("socket:") else "file"
                yield f"{kind} {_fd_text(fd, target)}"

    def _segment_leaks(self) -> Iterator[str]:
        for segment in sorted(_segments() - self.segments):
            if not _of_another_process(segment):
                yield f"shared memory {SHM / segment}"


def _fd_text(fd: int, target: str) -> str:
    """The descriptor, and the live Python object that owns it if there is one."""
    for owner in gc.get_objects():
        # By type, not isinstance: a proxy must not be asked what it is.
        if issubclass(type(owner), (io.IOBase, socket.socket)):
            try:
                if owner.fileno() == fd:
                    return f"descriptor {fd} ({target}): {owner!r}"
            except (OSError, ValueError):
                continue  # closed, or no file of the system
    return f"descriptor {fd} ({target})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test failed, so that its leaks are told but not counted twice."""
    report = yield
    if call.when in ("setup", "call") and call.excinfo is not None:
        item.stash[_failed] = not call.excinfo.errisinstance(pytest.skip.Exception)
    return report


@pytest.fixture(scope="session", autouse=True)
def _session_leak_guard(_origins: None) -> Iterator[None]:
    before = Snapshot()
    yield
    leaks = before.leaks()
    if leaks:
        pytest.fail("fixtures left behind:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture(autouse=True)
def _leak_guard(request: pytest.FixtureRequest, _session_leak_guard: None) -> Iterator[None]:
    before = Snapshot()
    _abandoned_tasks.clear()
    yield
    leaks = [f"asyncio task {text}" for text in _abandoned_tasks] + before.leaks()
    if not leaks:
        return
    text = f"{request.node.nodeid} left behind:\n  " + "\n  ".join(leaks)
    if request.node.stash.get(_failed, False):
        request.node.add_report_section("teardown", "leaks", text)
    else:
        pytest.fail(text, pytrace=False)


@pytest.fixture(scope="session")
def require() -> Callable[[str], ModuleType | str]:
    """`require(name)`: the module, or the path of the program, of that name.

    Where it is missing the test is skipped with the reason; with CI=true it fails, so that a
    green run has run everything. A program is looked for beside the interpreter first.
    """

    def find(name: str) -> ModuleType | str:
        beside = Path(sys.executable).with_name(name)
        path = str(beside) if beside.exists() else shutil.which(name)
        if path is not None:
            return path
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = f"neither a program nor a module {name!r} on this machine ({error})"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true everything has to run")
        pytest.skip(reason)

    return find


# The first run may fetch the browser, in a fixture.
FETCH_S = 500


# What tries whole systems, peers and faults for long: each of these takes more than about three
# seconds, together five minutes. `make test-fast` leaves them out; what they stand for is in it:
# the contract by `virtual`, the conversation of agents by tests/feagi_io_host/agent.
SLOW = (
    "examples/*", "interop/*", "test_conftest.py", "tools/engine/*", "tools/viewer/*",
    "feagi_io_host/agent/test_bad_servers.py",
    "feagi_io_host/agent/test_interface_gone.py",
    "feagi_io_host/agent/test_streams_over.py",
    "feagi_io_host/bench/*",
    "feagi_io_host/bridge/test_engine_relay.py",
    "feagi_io_host/bridge/test_rates.py",
    "feagi_io_host/cli/test_monitor.py",
    "feagi_io_host/core/test_reassembly_properties.py",
    "feagi_io_host/transports/shm/test_contract*.py",
    "feagi_io_host/transports/shm/test_engine_files.py",
    "feagi_io_host/transports/shm/test_faults.py",
    "feagi_io_host/transports/shm/test_processes.py",
    "feagi_io_host/transports/udp/test_contract*.py",
    "feagi_io_host/transports/udp/test_faults.py",
    "feagi_io_host/transports/webrtc/*",
    "feagi_io_host/transports/websocket/*",
    "feagi_io_host/transports/zmq/test_abuse*.py",
    "feagi_io_host/transports/zmq/test_connection_guard.py",
    "feagi_io_host/transports/zmq/test_contract*.py",
    "feagi_io_host/viewer/*",
    "feagi_io_mcu/test_udp_line.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Room for the first download of the browser, and what is slow as a whole."""
    here = Path(__file__).parent
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(FETCH_S))
        if not item.path.is_relative_to(here):
            continue
        place = item.path.relative_to(here).as_posix()
        if any(fnmatch(place, pattern) for pattern in SLOW):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    """The browser on this machine; fetched on the first run.

    Where it cannot be had the test is skipped with the reason; with CI=true it fails.
    """
    from tools.browser import BrowserUnavailableError, find_chromium

    try:
        return find_chromium()
    except BrowserUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))


@pytest.fixture
def page(chromium: Chromium) -> Iterator[Page]:
    """A page in a browser of the test's own, driven by Playwright.

    It keeps an event loop running in the test's thread: what needs one of its own runs in another
    thread or process.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path,
            env={**chromium.environment},
            args=list(chromium.flags),
        )
        try:
            yield browser.new_page()
        finally:
            browser.close()
