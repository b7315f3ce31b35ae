# SPDX-License-Identifier: Apache-2.0
"""Rings between real processes: torn frames, stopped and killed ends, nothing left behind."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import subprocess
import time

import numpy as np
import pytest

from feagi_io_host.core.errors import ClosedError, DeliveryTimeoutError
from feagi_io_host.transports.shm.names import SHM_FOLDER, name_from_url
from feagi_io_host.transports.shm.reader import RingReader, WriterState
from feagi_io_host.transports.shm.ring import RingWriter, in_order, newest_wins
from tests.feagi_io_host.transports.shm.conftest import Start, line
from tests.feagi_io_host.transports.shm.other_process import WORDS, pattern

PATIENCE_S = 10.0


def wait_until_stopped(process: subprocess.Popen[str]) -> None:
    """Wait until SIGSTOP has taken hold."""
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def readers_in(writer: RingWriter, count: int) -> None:
    """Wait until so many readers are connected."""
    deadline_s = time.monotonic() + PATIENCE_S
    while writer.serve(0.05) != count:
        assert time.monotonic() < deadline_s, f"{writer.readers} readers, not {count}"


def end_of(reader: RingReader) -> str:
    """Take until the reader's end, and say what it says."""
    try:
        while reader.take(PATIENCE_S) is not None:
            pass
    except ClosedError as error:
        return str(error)
    return "nothing came"


def report(process: subprocess.Popen[str]) -> tuple[int, int, int, int, str]:
    """What `count` prints at its end: taken, torn, skipped, copied and why it ended."""
    taken, torn, skipped, copied, *why = line(process).split(" ")
    return int(taken), int(torn), int(skipped), int(copied), " ".join(why)


def test_a_hammering_writer_tears_no_frame_of_any_reader(start: Start) -> None:
    with RingWriter(newest_wins(4 * WORDS, max_readers=3)) as writer:
        counting = [start("count", writer.url) for _ in range(3)]
        assert [line(process) for process in counting] == ["ready"] * 3
        readers_in(writer, 3)
        frames = [pattern(number).view(np.uint8) for number in range(1, 3001)]
        for frame in frames:
            writer.write(frame)
        assert writer.no_slot == 0
        writer.close()
        for process in counting:
            taken, torn, skipped, copied, why = report(process)
            assert (torn, copied) == (0, 0)
            assert 1 <= taken <= len(frames)
            assert taken + skipped <= len(frames)
            assert "was closed by its writer" in why


def test_a_reader_of_a_hammering_process_sees_no_torn_frame(start: Start) -> None:
    writer = start("write", "newest", "0")
    with RingReader(line(writer)) as reader:
        last = 0
        for _ in range(1000):
            frame = reader.take(PATIENCE_S)
            assert frame is not None
            with frame:
                words = frame.array.view(np.uint32)
                first = int(words[0])
                assert (words == first).all()
                assert first == frame.sequence > last
                last = first


def test_in_order_no_frame_is_lost_between_processes(start: Start) -> None:
    writer = start("write", "order", "0")
    with RingReader(line(writer)) as reader:
        first = None
        for number in range(500):
            frame = reader.take(PATIENCE_S)
            assert frame is not None
            with frame:
                first = frame.sequence if first is None else first
                assert frame.sequence == first + number
                assert (frame.array.view(np.uint32) == frame.sequence).all()


def test_a_stopped_reader_slows_nobody_and_goes_on_with_the_newest(start: Start) -> None:
    with RingWriter(newest_wins(4 * WORDS, max_readers=2)) as writer:
        stopped, other = start("count", writer.url), RingReader(writer.url)
        assert line(stopped) == "ready"
        readers_in(writer, 2)
        stopped.send_signal(signal.SIGSTOP)
        wait_until_stopped(stopped)
        sent = 300
        for number in range(1, sent + 1):
            writer.write(pattern(number).view(np.uint8))
            frame = other.take(0.0)
            assert frame is not None
            assert frame.sequence == number
            frame.release()
        assert writer.no_slot == 0
        other.close()
        readers_in(writer, 1)
        stopped.send_signal(signal.SIGCONT)
        deadline_s = time.monotonic() + PATIENCE_S
        # It has seen the newest when nothing announced is left and no slot is read.
        (reader,) = writer._readers.values()
        while _is_readable(reader.data):
            writer.serve(0.01)
            assert time.monotonic() < deadline_s
        writer.close()
        taken, torn, skipped, _, _ = report(stopped)
        assert torn == 0
        assert taken < sent
        assert taken + skipped <= sent


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def test_a_stopped_reader_holds_a_writer_in_order_to_its_deadline_only(start: Start) -> None:
    with RingWriter(in_order(4 * WORDS, slots=2)) as writer:
        stopped = start("count", writer.url)
        assert line(stopped) == "ready"
        readers_in(writer, 1)
        stopped.send_signal(signal.SIGSTOP)
        wait_until_stopped(stopped)
        data = pattern(1).view(np.uint8)
        for _ in range(writer.shape.slots):
            writer.write(data, PATIENCE_S)
        with pytest.raises(DeliveryTimeoutError):
            writer.write(data, 0.05)
        stopped.kill()
        # Its death makes room at once, long before the deadline.
        assert writer.write(pattern(9).view(np.uint8), PATIENCE_S) == 0


def test_a_killed_reader_gives_its_slot_and_its_descriptors_back(start: Start) -> None:
    with RingWriter(newest_wins(4 * WORDS, max_readers=1)) as writer:
        before = len(os.listdir("/proc/self/fd"))
        for number in range(1, 6):
            keeper = start("keep", writer.url)
            readers_in(writer, 1)
            writer.write(pattern(number).view(np.uint8))
            assert int(line(keeper)) in (number - 1, number)
            keeper.kill()
            keeper.wait()
            readers_in(writer, 0)
            # (Where Python's resource tracker meddled, the first reader's end took it away.)
            assert writer.path.exists()
        assert all(writer._segment.locks.try_exclusive(slot) for slot in range(writer.shape.slots))
        # Two pipe ends of each process that was started, and nothing else.
        assert len(os.listdir("/proc/self/fd")) - before == 2 * 5


@pytest.mark.parametrize("role", [("write", "newest", "0.005"), ("mid",)])
def test_a_killed_writer_is_noticed_at_once_and_named(start: Start, role: tuple[str, ...]) -> None:
    writer = start(*role)
    url = line(writer)
    with RingReader(url) as reader:
        if role[0] == "write":
            frame = reader.take(PATIENCE_S)
            assert frame is not None
            frame.release()
            assert reader.writer_state(PATIENCE_S) is WriterState.ALIVE
        writer.kill()
        assert f"process {writer.pid}, died; register again" in end_of(reader)
        assert reader.writer_state() is WriterState.GONE
    # Dead, and not yet waited for.
    os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
    with RingWriter(newest_wins(100)):
        assert name_from_url(url) not in os.listdir(SHM_FOLDER)


def test_a_stopped_writer_is_silent_and_then_alive_again(start: Start) -> None:
    writer = start("write", "newest", "0.001")
    with RingReader(line(writer)) as reader:
        assert reader.take(PATIENCE_S) is not None
        writer.send_signal(signal.SIGSTOP)
        wait_until_stopped(writer)
        while reader.take(0.0) is not None:
            pass
        assert reader.take(0.2) is None
        assert reader.writer_state(0.1) is WriterState.SILENT
        writer.send_signal(signal.SIGCONT)
        assert reader.take(PATIENCE_S) is not None
        assert reader.writer_state(PATIENCE_S) is WriterState.ALIVE


def test_unlinked_under_both_the_frames_still_come_and_nothing_stays(start: Start) -> None:
    writer = start("write", "newest", "0.001")
    url = line(writer)
    with RingReader(url) as reader:
        assert reader.take(PATIENCE_S) is not None
        for suffix in ("", ".sock"):
            (SHM_FOLDER / (name_from_url(url) + suffix)).unlink()
        frame = reader.take(PATIENCE_S)
        assert frame is not None
        frame.release()
        writer.kill()
        assert "died" in end_of(reader)
    assert not [name for name in os.listdir(SHM_FOLDER) if name.startswith(name_from_url(url))]


def test_memory_and_descriptors_are_flat_under_a_stopped_reader_and_churn(start: Start) -> None:
    with RingWriter(newest_wins(4 * WORDS, max_readers=4)) as writer:
        stopped = start("count", writer.url)
        assert line(stopped) == "ready"
        readers_in(writer, 1)
        stopped.send_signal(signal.SIGSTOP)
        wait_until_stopped(stopped)
        data = pattern(1).view(np.uint8)

        def churn(rounds: int) -> None:
            for _ in range(rounds):
                with RingReader(writer.url) as reader:
                    for _ in range(5):
                        writer.write(data)
                        frame = reader.take(PATIENCE_S)
                        assert frame is not None
                        del frame
            readers_in(writer, 1)

        churn(20)
        fds = len(os.listdir("/proc/self/fd"))
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        blocks = writer.path.stat().st_blocks
        churn(200)
        assert len(os.listdir("/proc/self/fd")) == fds
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 4096
        assert writer.path.stat().st_blocks == blocks
        stopped.send_signal(signal.SIGCONT)


def test_the_residue_of_all_this_is_nothing() -> None:
    ours = re.compile(r"feagi-io-[0-9]+-[0-9a-f]{32}(\.sock)?")
    with RingWriter(newest_wins(100)) as writer:
        mine = {writer.path.name, writer.path.name + ".sock"}
        assert mine <= {name for name in os.listdir(SHM_FOLDER) if ours.fullmatch(name)}
    assert not mine & set(os.listdir(SHM_FOLDER))
