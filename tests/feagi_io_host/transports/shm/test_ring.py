# SPDX-License-Identifier: Apache-2.0
"""Rings within one process: what each order promises, leases, ends, threads and event loops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from feagi_io_host.core.errors import (
    ClosedError,
    DeliveryTimeoutError,
    LeaseError,
    LocalError,
    RemoteError,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.transports.shm.header import Word
from feagi_io_host.transports.shm.reader import RingReader, ShmFrame, WriterState
from feagi_io_host.transports.shm.ring import SLOT, RingWriter, in_order, newest_wins

PATIENCE_S = 10.0


def read(reader: RingReader, timeout_s: float = PATIENCE_S) -> bytes | None:
    frame = reader.take(timeout_s)
    if frame is None:
        return None
    with frame:
        return bytes(frame.view)


def entered(writer: RingWriter, *readers: RingReader) -> None:
    """Have the readers let in."""
    assert writer.serve() == len(readers)


# -- newest wins --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 999, 1000])
def test_every_size_arrives_unchanged_and_aligned(size: int) -> None:
    data = os.urandom(size)
    with RingWriter(newest_wins(1000)) as writer, RingReader(writer.url) as reader:
        assert writer.write(data) == 1
        frame = reader.take(PATIENCE_S)
        assert frame is not None
        with frame:
            assert bytes(frame.view) == data
            assert frame.view.readonly
            assert frame.array.__array_interface__["data"][0] % 64 == 0 or size == 0
            assert (frame.sequence, len(frame)) == (1, size)
            assert 0 <= time.monotonic_ns() - frame.written_at_ns < 60e9
        with pytest.raises(LeaseError):
            _ = frame.array
        assert reader.take(0.0) is None


def test_the_newest_is_taken_and_what_was_missed_is_counted() -> None:
    with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as reader:
        for number in range(50):
            writer.write(bytes([number]))
        assert read(reader) == bytes([49])
        for number in range(5):
            writer.write(bytes([number]))
        assert read(reader) == bytes([4])
        assert reader.skipped == 4
        assert reader.take(0.0) is None


def test_readers_go_at_their_own_pace_and_a_late_one_gets_the_newest() -> None:
    with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as quick:
        with RingReader(writer.url) as slow:
            for number in range(10):
                writer.write(bytes([number]))
                assert read(quick) == bytes([number])
            assert read(slow) == bytes([9])
        with RingReader(writer.url) as late:
            entered(writer, quick, late)  # the slow one has gone
            assert read(late) == bytes([9])


def test_a_kept_frame_never_changes_and_stops_nobody() -> None:
    shape = newest_wins(1000, max_readers=2)
    with (
        RingWriter(shape) as writer,
        RingReader(writer.url) as reader,
        RingReader(writer.url) as other,
    ):
        kept: list[tuple[ShmFrame, bytes]] = []
        for number in range(20):
            data = bytes([number]) * 1000
            writer.write(data)
            frame = reader.take(PATIENCE_S)
            assert frame is not None
            kept.append((frame, data))
            assert read(other) == data
        # Two were kept in place, the others copied so that the writer finds a slot.
        assert (reader.kept, reader.copied, writer.no_slot) == (2, 18, 0)
        assert all(bytes(frame.view) == data for frame, data in kept)


def test_arrays_made_from_a_frame_keep_its_slot() -> None:
    with RingWriter(newest_wins(1000)) as writer, RingReader(writer.url) as reader:
        writer.write(np.arange(100, dtype=np.uint32).view(np.uint8))
        frame = reader.take(PATIENCE_S)
        assert frame is not None
        views = [frame.array.view(np.uint32)[10:20], np.frombuffer(frame.view, np.uint32)[10:20]]
        frame.release()
        for number in range(10):
            writer.write(bytes([number]) * 1000)
        while views:
            assert reader.kept == 1
            assert views.pop().tolist() == list(range(10, 20))
        assert reader.kept == 0


def test_a_frame_becomes_a_container_without_a_copy(fbc_bytes: bytes) -> None:
    with RingWriter(newest_wins(1000)) as writer, RingReader(writer.url) as reader:
        writer.write(fbc_bytes)
        frame = reader.take(PATIENCE_S)
        assert frame is not None
        with SharedFBC.from_bytes(frame.view) as fbc:
            address = frame.array.__array_interface__["data"][0]
            frame.release()
            assert np.frombuffer(fbc.view, np.uint8).__array_interface__["data"][0] == address
            assert bytes(fbc.view) == fbc_bytes
            assert reader.kept == 1
        assert reader.kept == 0


def test_a_reader_that_holds_everything_costs_frames_and_no_time() -> None:
    with RingWriter(newest_wins(100, max_readers=1)) as writer, RingReader(writer.url) as reader:
        locks = reader._segment.locks
        writer.write(b"first")
        assert all(locks.try_shared(slot) for slot in range(writer.shape.slots))
        assert writer.write(b"lost") == 1
        assert writer.no_slot == 1
        locks.release(1)
        writer.write(b"found")
        assert read(reader) == b"found"


def test_one_reader_too_many_is_cut_off() -> None:
    with RingWriter(newest_wins(100, max_readers=2)) as writer:
        with RingReader(writer.url) as one, RingReader(writer.url) as two:
            entered(writer, one, two)
            with RingReader(writer.url) as three:
                entered(writer, one, two)
                with pytest.raises(ClosedError, match=r"cut off by its writer.*2 readers"):
                    three.take(PATIENCE_S)
                assert three.writer_state() is WriterState.GONE
            writer.write(b"x")
            assert read(one) == read(two) == b"x"
        with RingReader(writer.url) as again:
            entered(writer, again)


# -- in order -----------------------------------------------------------------------------------


def test_frames_come_in_order_and_a_slow_reader_holds_the_writer_to_its_deadline() -> None:
    with RingWriter(in_order(100, slots=4)) as writer, RingReader(writer.url) as reader:
        for number in range(4):
            writer.write(bytes([number]), 0.0)
        began_s = time.monotonic()
        with pytest.raises(DeliveryTimeoutError, match=r"1 of 1 readers have not done with 4"):
            writer.write(b"x", 0.05)
        assert time.monotonic() - began_s >= 0.05
        for number in range(100):
            assert read(reader, 0.0) == bytes([number])
            writer.write(bytes([number + 4]), 0.0)
        assert reader.skipped == 0


def test_a_writer_waits_for_the_slowest_until_it_takes_or_goes() -> None:
    with RingWriter(in_order(100, slots=2)) as writer, RingReader(writer.url) as quick:
        slow = RingReader(writer.url)
        for number in range(2):
            writer.write(bytes([number]))
            assert read(quick) == bytes([number])
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(writer.write, b"third", PATIENCE_S)
            assert read(slow) == b"\0"
            assert waiting.result(PATIENCE_S) == 2
            assert read(quick) == b"third"
            waiting = pool.submit(writer.write, b"fourth", PATIENCE_S)
            slow.close()
            assert waiting.result(PATIENCE_S) == 1
        assert read(quick) == b"fourth"


def test_frames_given_back_out_of_order_are_not_written_over() -> None:
    with RingWriter(in_order(100, slots=3)) as writer, RingReader(writer.url) as reader:
        for number in range(3):
            writer.write(bytes([number]))
        first = reader.take(PATIENCE_S)
        assert first is not None
        assert read(reader) == b"\1"
        with pytest.raises(DeliveryTimeoutError):
            writer.write(b"x", 0.05)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(writer.write, b"x", PATIENCE_S)
            assert bytes(first.view) == b"\0"
            first.release()
            waiting.result(PATIENCE_S)
        assert [read(reader), read(reader)] == [b"\2", b"x"]


def test_a_reader_gets_what_comes_after_it_was_let_in() -> None:
    with RingWriter(in_order(100, slots=4)) as writer:
        assert writer.write(b"before") == 0
        with RingReader(writer.url) as reader:
            assert reader.take(0.0) is None
            writer.write(b"after")
            assert read(reader) == b"after"


def test_a_reader_that_gives_back_too_much_is_cut_off() -> None:
    with RingWriter(in_order(100, slots=2)) as writer, RingReader(writer.url) as reader:
        writer.write(b"x")
        assert read(reader) == b"x"
        for _ in range(5):
            reader._end.took()
        writer.write(b"y")
        assert writer.readers == 1
        writer.write(b"z")  # here the count is looked at
        assert writer.readers == 0
        with pytest.raises(ClosedError, match="cut off"):
            reader.take(PATIENCE_S)


# -- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["reader", "writer"])
def test_close_wakes_a_waiting_thread(who: str) -> None:
    with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as reader:
        entered(writer, reader)
        began = threading.Event()

        def wait() -> None:
            began.set()
            reader.take(None)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            assert began.wait(PATIENCE_S)
            (reader if who == "reader" else writer).close()
            with pytest.raises(ClosedError, match="is closed" if who == "reader" else "was closed"):
                waiting.result(PATIENCE_S)


def test_close_wakes_a_writer_that_waits_for_room() -> None:
    with RingWriter(in_order(100, slots=2)) as writer, RingReader(writer.url):
        writer.write(b"1")
        writer.write(b"2")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(writer.write, b"3", None)
            writer.close()
            with pytest.raises(ClosedError):
                waiting.result(PATIENCE_S)


def test_use_after_close_is_an_error_and_close_is_idempotent() -> None:
    writer = RingWriter(newest_wins(100))
    reader = RingReader(writer.url)
    writer.write(b"x")
    frame = reader.take(PATIENCE_S)
    assert frame is not None
    for _ in range(2):
        reader.close()
    with pytest.raises(ClosedError):
        reader.take(0.0)
    with pytest.raises(ClosedError):
        reader.writer_state()
    for _ in range(2):
        writer.close()
    for call in (lambda: writer.write(b"y"), writer.serve):
        with pytest.raises(ClosedError):
            call()
    assert bytes(frame.view) == b"x"  # still whole, until it is let go
    with pytest.raises(RemoteError, match="there is no segment"):
        RingReader(writer.url)


def test_a_frame_too_large_and_a_second_taker_are_refused() -> None:
    with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as reader:
        with pytest.raises(LocalError, match=r"frame of 101 bytes.*takes 100"):
            writer.write(bytes(101))
        entered(writer, reader)
        began = threading.Event()

        def wait() -> bytes | None:
            began.set()
            return read(reader)

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(wait)
            assert began.wait(PATIENCE_S)
            while not reader._users:
                pass
            with pytest.raises(LocalError, match="another thread or task"):
                reader.take(0.0)
            writer.write(b"x")
            assert waiting.result(PATIENCE_S) == b"x"


def test_nonsense_in_the_memory_is_an_error_and_no_crash() -> None:
    with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as reader:
        entered(writer, reader)
        memory, words = writer._segment.map, writer._segment.words
        words[Word.NEWEST] = 1 << 40
        with pytest.raises(RemoteError, match="newest slot"):
            reader.take(0.0)
        words[Word.NEWEST] = 1
        SLOT.pack_into(memory, writer.shape.slot_at(0), 5, 1 << 50, 0)
        with pytest.raises(RemoteError, match=r"frame of \d+ bytes in a slot of 100"):
            reader.take(0.0)
        os.truncate(writer.path, 4096)
        with pytest.raises(RemoteError, match="was cut from"):
            reader.take(0.0)
        with pytest.raises(RemoteError, match="was cut from"):
            writer.write(b"x")


def test_a_connection_that_says_something_is_dropped() -> None:
    with RingWriter(newest_wins(100)) as writer, socket.socket(socket.AF_UNIX) as talker:
        talker.connect(str(writer._segment.socket_path))
        assert writer.serve() == 1
        talker.send(b"hello")
        assert writer.serve() == 0


def test_without_descriptors_who_knocks_is_cut_off_and_later_ones_come_in() -> None:
    with RingWriter(newest_wins(100)) as writer, socket.socket(socket.AF_UNIX) as unlucky:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        top = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        fillers = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.open(os.devnull, os.O_RDONLY))
            unlucky.settimeout(PATIENCE_S)
            unlucky.connect(str(writer._segment.socket_path))
            assert writer.serve() == 0
            assert unlucky.recv(10) == b"\0"
            assert writer._epoll.poll(0) == []  # nobody is kept busy by it
            writer.write(b"x")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fillers:
                os.close(fd)
        with RingReader(writer.url) as reader:
            assert read(reader) == b"x"


def test_what_was_written_before_a_reader_came_is_there_though_not_kept_for_it() -> None:
    with RingWriter(newest_wins(100)) as writer:
        writer.write(b"x")
        with RingReader(writer.url) as reader:
            frame = reader.take(0.0)  # nobody has let it in: the writer does not write
            assert frame is not None
            assert bytes(frame.view) == b"x"
            assert (reader.kept, reader.copied) == (0, 1)
            assert not frame.array.flags.writeable
            assert reader.take(0.0) is None
            writer.write(b"y")
            assert read(reader) == b"y"


def test_an_unlinked_ring_goes_on_for_those_who_are_in() -> None:
    with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as reader:
        entered(writer, reader)
        assert not writer.is_unlinked()
        writer.path.unlink()
        assert writer.is_unlinked()
        writer.write(b"x")
        assert read(reader) == b"x"
        with pytest.raises(RemoteError, match="there is no segment"):
            RingReader(writer.url)


def test_a_forked_child_takes_nothing_with_it() -> None:
    with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as reader:
        writer.write(b"x")
        frame = reader.take(PATIENCE_S)
        assert frame is not None
        waits, says = os.pipe()
        pid = os.fork()
        if pid == 0:
            fault = 1
            try:
                for call in (lambda: writer.write(b"no"), lambda: reader.take(0.0)):
                    try:
                        call()
                    except ClosedError:
                        continue
                    os._exit(2)
                writer.close()
                reader.close()
                fault = 0 if bytes(frame.view) == b"x" else 3
                os.read(waits, 1)
            finally:
                os._exit(fault)
        # The child lives, and must not keep anything of this process alive.
        url = writer.url
        frame.release()
        writer.write(b"y")
        assert read(reader) == b"y"
        writer.close()
        with pytest.raises(ClosedError, match="was closed by its writer"):
            reader.take(PATIENCE_S)
        os.write(says, b"x")
        _, status = os.waitpid(pid, 0)
        os.close(waits)
        os.close(says)
        assert os.waitstatus_to_exitcode(status) == 0
        assert url


# -- event loops --------------------------------------------------------------------------------


def test_a_task_takes_frames_as_they_come() -> None:
    async def main() -> None:
        with RingWriter(newest_wins(100)) as writer, RingReader(writer.url) as reader:
            assert await reader.take_async(0.0) is None
            assert await reader.take_async(0.01) is None
            for number in range(20):
                waiting = asyncio.ensure_future(reader.take_async(PATIENCE_S))
                await asyncio.sleep(0)
                writer.write(bytes([number]))
                frame = await waiting
                assert frame is not None
                assert bytes(frame.view) == bytes([number])
                del frame

    asyncio.run(main())


def test_a_cancelled_take_loses_nothing_and_close_ends_a_waiting_one() -> None:
    async def main() -> None:
        with RingWriter(in_order(100)) as writer, RingReader(writer.url) as reader:
            entered(writer, reader)
            for turns in range(6):
                waiting = asyncio.ensure_future(reader.take_async(None))
                for _ in range(turns):
                    await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                writer.write(bytes([turns]))
                assert read(reader) == bytes([turns])
            waiting = asyncio.ensure_future(reader.take_async(None))
            await asyncio.sleep(0)
            reader.close()
            with pytest.raises(ClosedError):
                await waiting

    asyncio.run(main())


# -- memory -------------------------------------------------------------------------------------


def test_memory_stays_what_the_largest_frames_need() -> None:
    with RingWriter(newest_wins(1 << 20)) as writer, RingReader(writer.url) as reader:
        data = bytes(1 << 20)
        for _ in range(50):
            writer.write(data)
            assert len(read(reader) or b"") == len(data)
        gc.collect()
        # Ping and pong, and no third slot: the cache holds what is used again.
        assert writer.path.stat().st_blocks * 512 < 2 * (len(data) + 8192) + 8192


def test_no_payload_is_allocated_per_frame() -> None:
    with RingWriter(newest_wins(1 << 20)) as writer, RingReader(writer.url) as reader:
        data = np.ones(1 << 20, np.uint8)

        def once() -> None:
            writer.write(data)
            frame = reader.take(PATIENCE_S)
            assert frame is not None
            frame.release()

        once()
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(20):
                once()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - before < 20_000


def test_in_order_a_slot_that_a_dying_reader_still_holds_is_tried_again_soon() -> None:
    with RingWriter(in_order(100, slots=2)) as writer, RingReader(writer.url) as reader:
        writer.serve(PATIENCE_S)
        assert reader.take(0.0) is None
        writer.write(b"one")
        writer.write(b"two")
        frame = reader.take(PATIENCE_S)
        assert frame is not None
        # As the kernel does it: the connection first, and nobody is told of the locks.
        reader._end.close()
        began_s = time.monotonic()
        release = threading.Timer(0.05, frame.release)
        release.start()
        del frame
        assert writer.write(b"three", PATIENCE_S) == 0
        release.join()
        assert time.monotonic() - began_s < PATIENCE_S / 2
