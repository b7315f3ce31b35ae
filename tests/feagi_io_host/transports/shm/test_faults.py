# SPDX-License-Identifier: Apache-2.0
"""What befalls shared memory: kills at any moment, stopped readers, containers, a full system."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.shm import ShmTransport
from feagi_io_host.transports.shm.names import SHM_FOLDER, name_from_url
from feagi_io_host.transports.shm.reader import RingReader
from feagi_io_host.transports.shm.ring import RingWriter, in_order, newest_wins
from feagi_io_host.transports.shm.stale import remove_stale
from tests.feagi_io_host.transports.shm.conftest import Start, line
from tests.feagi_io_host.transports.shm.other_process import WORDS, pattern

PATIENCE_S = 10.0
ROUNDS = 6
STOPPED_S = float(os.environ.get("FEAGI_IO_STOPPED_S", "5"))
VISUALIZATION = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
VIEWER = AgentDescriptor("feagi-io test", "viewer", 1)


def take_whole(reader: RingReader, last: int) -> int:
    """Take a frame, check that it is of one piece and newer; its number."""
    frame = reader.take(PATIENCE_S)
    assert frame is not None, "nothing came"
    with frame:
        words = frame.array.view("uint32")
        first = int(words[0])
        assert (words == first).all(), "torn"
        assert first > last
        return first


def end_of(reader: RingReader, last: int) -> str:
    """Take whole frames until the reader's end, and say what it says."""
    try:
        while True:
            last = take_whole(reader, last)
    except ClosedError as error:
        return str(error)


# -- kill -9 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["newest", "order"])
def test_a_writer_killed_at_any_moment_leaves_whole_frames_and_nothing_else(
    start: Start, order: str
) -> None:
    moments = random.Random(4)
    for _ in range(ROUNDS):
        writer = start("write", order, "0")
        url = line(writer)
        with RingReader(url) as reader:
            last = take_whole(reader, 0)
            # From the middle of a frame to many frames later: one takes some 20 us.
            until_s = time.monotonic() + moments.uniform(0.0, 0.02)
            while time.monotonic() < until_s:
                last = take_whole(reader, last)
            writer.kill()
            assert f"process {writer.pid}, died; register again" in end_of(reader, last)
        writer.wait()
        remove_stale()
        assert not (SHM_FOLDER / name_from_url(url)).exists()
        assert not (SHM_FOLDER / (name_from_url(url) + ".sock")).exists()


@pytest.mark.parametrize("order", ["newest", "order"])
def test_a_reader_killed_at_any_moment_gives_everything_back(start: Start, order: str) -> None:
    moments = random.Random(5)
    shape = newest_wins(4 * WORDS, max_readers=2) if order == "newest" else in_order(4 * WORDS)
    with RingWriter(shape) as writer:
        descriptors = len(os.listdir("/proc/self/fd"))
        number = 0
        for _ in range(ROUNDS):
            reader = start("count", writer.url)
            assert line(reader) == "ready"
            until_s = time.monotonic() + moments.uniform(0.0, 0.02)
            while time.monotonic() < until_s:
                number += 1
                writer.write(pattern(number).view("uint8"), PATIENCE_S)
            reader.kill()
            # Its death makes room: nothing waits for it, and no frame is given up.
            for _ in range(writer.shape.slots + 1):
                number += 1
                writer.write(pattern(number).view("uint8"), PATIENCE_S)
            reader.communicate()
            deadline_s = time.monotonic() + PATIENCE_S
            while writer.serve(0.05):
                assert time.monotonic() < deadline_s, "a dead reader is still there"
        assert writer.no_slot == 0
        assert len(os.listdir("/proc/self/fd")) == descriptors
        with RingReader(writer.url) as last:
            writer.serve(PATIENCE_S)
            assert last.take(0.0) is None or order == "newest"
            writer.write(pattern(number + 1).view("uint8"))
            assert take_whole(last, 0) == number + 1


# -- SIGSTOP --------------------------------------------------------------------------------------


def numbered(number: int) -> SharedFBC:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON("x" * 50_000), number)
    return SharedFBC.adopt(container)


@pytest.mark.slow
def test_a_stopped_viewer_costs_the_brain_nothing_and_goes_on_with_the_newest(
    start: Start,
) -> None:
    """For FEAGI_IO_STOPPED_S seconds, five unless set."""
    host = StandInHost()
    with ShmTransport(host) as transport:
        invitations = [transport.admit(VIEWER, VISUALIZATION) for _ in range(2)]
        stopped, other = (start("view", i.endpoints[VISUALIZATION]) for i in invitations)
        assert [line(stopped), line(other)] == ["ready"] * 2
        with numbered(1) as fbc:
            transport.publish_visualization(fbc)
        assert [line(stopped), line(other)] == ["1", "1"]
        stopped.send_signal(signal.SIGSTOP)
        os.waitpid(stopped.pid, os.WUNTRACED)
        number = 1
        until_s = time.monotonic() + STOPPED_S
        longest_s = 0.0
        while time.monotonic() < until_s or number < 20:
            number += 1
            with numbered(number) as fbc:
                began_s = time.monotonic()
                transport.publish_visualization(fbc)
                longest_s = max(longest_s, time.monotonic() - began_s)
            # Whoever is not stopped is shown each one.
            assert line(other) == str(number)
        assert longest_s < 1.0
        stopped.send_signal(signal.SIGCONT)
        assert stopped.stdout is not None
        seen = [int(line(stopped))]
        while seen[-1] != number:
            seen.append(int(line(stopped)))
        # What it had been told of, the one in the hands of its thread, and the newest.
        assert seen == sorted(set(seen))
        assert len(seen) <= 4


# -- containers and file systems of their own -----------------------------------------------------


def namespaces(*kinds: str) -> list[str]:
    """A command that runs another one in namespaces of its own; skips where it may not."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) here")
    command = [unshare, *kinds]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    return command


@pytest.fixture
def container() -> Sequence[str]:
    """Processes of their own, and one /dev/shm with everybody: docker run --ipc=host."""
    return namespaces("--mount", "--pid", "--fork", "--mount-proc", "--kill-child")


def test_two_containers_share_frames_and_learn_of_each_others_death(
    start: Start, container: Sequence[str]
) -> None:
    writer = start("write", "newest", "0.002", within=container)
    url = line(writer)
    reader = start("count", url, within=container)
    assert line(reader) == "ready"
    with RingReader(url) as third:
        last = 0
        for _ in range(20):
            last = take_whole(third, last)
        # Alive, whatever this process can see of its id.
        assert name_from_url(url) not in remove_stale()
        writer.kill()
        assert "of another container, died; register again" in end_of(third, last)
    taken, torn, _, _, *why = line(reader).split(" ")
    assert int(taken) > 0
    assert torn == "0"
    assert " ".join(why).endswith("of another container, died; register again")
    remove_stale()
    assert not (SHM_FOLDER / name_from_url(url)).exists()


def test_a_reader_that_dies_in_its_container_gives_its_slot_back(
    start: Start, container: Sequence[str]
) -> None:
    with RingWriter(newest_wins(4 * WORDS, max_readers=1)) as writer:
        keeper = start("keep", writer.url, within=container)
        deadline_s = time.monotonic() + PATIENCE_S
        while not writer.serve(0.05):
            assert time.monotonic() < deadline_s
        writer.write(pattern(1).view("uint8"))
        assert line(keeper) == "1"
        keeper.kill()
        while writer.serve(0.05):
            assert time.monotonic() < deadline_s
        # The kernel gives the locks of a dead process back a moment after its connection.
        locks = writer._segment.locks
        while not all(locks.try_exclusive(slot) for slot in range(writer.shape.slots)):
            assert time.monotonic() < deadline_s


def test_a_full_file_system_drops_counts_and_recovers(start: Start) -> None:
    mounted = 'mount -t tmpfs -o size=2m none /dev/shm && exec "$@"'
    within = [*namespaces("--mount"), "sh", "-c", mounted, "sh"]
    tried = subprocess.run([*within, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no file system may be mounted here: {tried.stderr.strip()}")
    process = start("fill", str(SHM_FOLDER), within=within)
    assert [line(process) for _ in range(4)] == ["1 1", "2 no memory", "3 3", "4 4"]
    assert line(process) == "[]"
    assert process.wait(PATIENCE_S) == 0
