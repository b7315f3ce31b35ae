# SPDX-License-Identifier: Apache-2.0
"""Processes at the other end of a ring, all of which are gone at the end of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.transports.shm.names import SHM_FOLDER, why_unavailable
from feagi_io_host.transports.shm.stale import remove_stale

ROOT = Path(__file__).parents[4]
_PROGRAMS = {
    "agent": ["agent_process.py"],
    "view": ["viewer_process.py", "view"],
    "fill": ["viewer_process.py", "fill"],
}
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def _shared_memory() -> None:
    reason = why_unavailable()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true everything has to run")
        pytest.skip(reason)


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(role, *arguments)`: a process with pipes of text. Who plays which role
    stands in _PROGRAMS, all others `other_process`; `within` is a command that runs it."""
    processes: list[subprocess.Popen[str]] = []

    def run(role: str, *arguments: str, within: Sequence[str] = ()) -> subprocess.Popen[str]:
        program = _PROGRAMS.get(role, ["other_process.py", role])
        folder = Path(__file__).parent
        process = subprocess.Popen(
            [*within, sys.executable, str(folder / program[0]), *program[1:], *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}"},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate(timeout=10)
    remove_stale()


def own_names() -> set[str]:
    """What of shared memory this process has made; test runs beside this one have theirs."""
    return {name for name in os.listdir(SHM_FOLDER) if name.startswith(f"feagi-io-{os.getpid()}-")}


def line(process: subprocess.Popen[str]) -> str:
    """The next line a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def fbc_bytes() -> bytes:
    """A small valid container."""
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON("shared"), 3)
    return container.copy_out_as_byte_vector()
