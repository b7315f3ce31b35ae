# SPDX-License-Identifier: Apache-2.0
"""Segments: names, headers that cannot be, what is left behind and who may remove it."""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from feagi_io_host.core.delivery import Order
from feagi_io_host.core.errors import ConfigError, LocalError, RemoteError
from feagi_io_host.transports.shm import names
from feagi_io_host.transports.shm.header import Creator, SegmentShape, ShmMode
from feagi_io_host.transports.shm.names import SHM_FOLDER, name_from_url, why_unavailable
from feagi_io_host.transports.shm.ring import RingWriter, newest_wins
from feagi_io_host.transports.shm.segment import Segment
from feagi_io_host.transports.shm.stale import remove_stale
from tests.feagi_io_host.transports.shm.conftest import Start, line

SHAPE = SegmentShape(ShmMode.FBC, Order.NEWEST_WINS, 4, 1000, 2)


def drop(segment: Segment) -> None:
    segment.unlink()
    segment.locks.close()
    segment.close()


def test_a_segment_is_private_unguessable_and_takes_no_memory_for_what_is_empty() -> None:
    segment = Segment.create(SegmentShape(ShmMode.FBC, Order.IN_ORDER, 8, 64 << 20))
    try:
        facts = segment.path.stat()
        assert stat.S_IMODE(facts.st_mode) == 0o600
        assert re.fullmatch(rf"shm://feagi-io-{os.getpid()}-[0-9a-f]{{32}}", segment.url)
        assert facts.st_size > 8 * (64 << 20)
        assert facts.st_blocks * 512 <= 8192
        segment.allocate(2, 10_000)
        assert segment.path.stat().st_blocks * 512 <= 8192 + 12_288
    finally:
        drop(segment)
    assert not segment.path.exists()


def test_a_reader_sees_the_shape_and_cannot_write() -> None:
    segment = Segment.create(SHAPE)
    other = Segment.attach(segment.url, ShmMode.FBC)
    try:
        assert other.shape == SHAPE
        assert other.creator == Creator.this_process()
        assert other.locks.creator_lives()
        assert other.silence_s() < 60.0
        with pytest.raises(TypeError, match="readonly"):
            other.map[0] = 1
    finally:
        other.locks.close()
        other.close()
        drop(segment)


@pytest.mark.parametrize(
    ("at", "data", "text"),
    [
        (0, b"SOMETHIN", "no segment of feagi-io"),
        (8, struct.pack("=I", 2), "version 2.*reads.*version 1"),
        (12, struct.pack("=I", 0x04030201), "byte order 0x04030201"),
        (16, struct.pack("=I", 9), "header that cannot be"),
        (20, struct.pack("=I", 7), "header that cannot be"),
        (24, struct.pack("=I", 0), "0 slots"),
        (24, struct.pack("=I", 0xFFFF_FFFF), "4294967295 slots"),
        (28, struct.pack("=I", 0), "max_readers is 0"),
        (32, struct.pack("=Q", 0), "payload_bytes is 0"),
        (32, struct.pack("=Q", 1 << 63), "payload_bytes"),
        (40, struct.pack("=Q", 5), "says 5 bytes a slot"),
        (48, struct.pack("=Q", 5), "5 in all"),
    ],
)
def test_headers_that_cannot_be_are_refused(at: int, data: bytes, text: str) -> None:
    segment = Segment.create(SHAPE)
    try:
        segment.map[at : at + len(data)] = data
        with pytest.raises(RemoteError, match=text):
            Segment.attach(segment.url, ShmMode.FBC)
    finally:
        drop(segment)


def test_what_is_cut_short_gone_or_for_another_purpose_is_refused() -> None:
    segment = Segment.create(SHAPE)
    try:
        with pytest.raises(RemoteError, match="holds FBC, not DIRECT"):
            Segment.attach(segment.url, ShmMode.DIRECT)
        segment.refuse_if_cut()
        os.truncate(segment.path, 5000)
        with pytest.raises(RemoteError, match=r"cut short: 5000 of \d+"):
            Segment.attach(segment.url, ShmMode.FBC)
        with pytest.raises(RemoteError, match=r"was cut from \d+ to 5000"):
            segment.refuse_if_cut()
        os.truncate(segment.path, 10)
        with pytest.raises(RemoteError, match="10 bytes"):
            Segment.attach(segment.url, ShmMode.FBC)
        assert not segment.is_unlinked()
        segment.path.unlink()
        assert segment.is_unlinked()
        with pytest.raises(RemoteError, match="there is no segment"):
            Segment.attach(segment.url, ShmMode.FBC)
    finally:
        drop(segment)


@pytest.mark.parametrize(
    "url", ["", "shm://", "shm://../etc/passwd", "tcp://x", "shm://feagi-io-xyz", "a" * 1000]
)
def test_urls_that_name_nothing_are_refused(url: str) -> None:
    with pytest.raises(RemoteError, match="names no shared memory"):
        name_from_url(url)


def test_a_link_or_a_pipe_of_that_name_is_not_followed(tmp_path: Path) -> None:
    name = names.new_name()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(LocalError, match="cannot be used"):
        Segment.attach(names.SCHEME + name, ShmMode.FBC, tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(RemoteError, match="no segment of feagi-io"):
        Segment.attach(names.SCHEME + name, ShmMode.FBC, tmp_path)


@pytest.mark.parametrize(
    ("order", "slots", "payload", "readers"),
    [
        (Order.NEWEST_WINS, 3, 100, 2),
        (Order.IN_ORDER, 1, 100, 2),
        (Order.IN_ORDER, 2, 0, 2),
        (Order.IN_ORDER, 2, 1 << 31, 2),
        (Order.IN_ORDER, 2, 100, 0),
        (Order.IN_ORDER, 2000, 100, 1),
    ],
)
def test_shapes_that_cannot_work_are_refused(
    order: Order, slots: int, payload: int, readers: int
) -> None:
    with pytest.raises(ConfigError):
        SegmentShape(ShmMode.FBC, order, slots, payload, readers)


def test_where_there_is_no_shared_memory_the_error_says_what_to_do(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert why_unavailable() is None
    with pytest.raises(LocalError, match=r"there is no .*nowhere; mount a tmpfs.*ZMQ"):
        Segment.create(SHAPE, nowhere)
    with pytest.raises(LocalError, match="there is no"):
        Segment.attach(names.SCHEME + names.new_name(), ShmMode.FBC, nowhere)


def test_a_full_file_system_is_an_error_and_no_death() -> None:
    segment = Segment.create(SegmentShape(ShmMode.FBC, Order.IN_ORDER, 1024, 1 << 30))
    try:
        free = os.statvfs(SHM_FOLDER).f_bavail * os.statvfs(SHM_FOLDER).f_frsize
        # A fallocate that cannot be met takes nothing.
        with pytest.raises(LocalError, match=r"no room for \d+ bytes"):
            segment.allocate(0, free + (1 << 30))
    finally:
        drop(segment)


def test_segments_of_killed_writers_are_removed_and_no_others(start: Start) -> None:
    dead, alive = start("write", "newest", "0.01"), start("write", "newest", "0.01")
    dead_url, alive_url = line(dead), line(alive)
    dead.kill()
    dead.wait()
    stranger = SHM_FOLDER / names.new_name()
    stranger.write_bytes(b"not ours" * 100)
    try:
        with RingWriter(newest_wins(100)) as writer:  # a new segment looks for old ones
            left = os.listdir(SHM_FOLDER)
            assert name_from_url(dead_url) not in left
            assert name_from_url(dead_url) + ".sock" not in left
            for url in (alive_url, writer.url):
                assert name_from_url(url) in left
                assert name_from_url(url) + ".sock" in left
            assert stranger.name in left
    finally:
        stranger.unlink()


def test_a_dead_segment_of_another_version_is_removed_too(
    start: Callable[..., subprocess.Popen[str]],
) -> None:
    process = start("write", "newest", "0.01")
    path = SHM_FOLDER / name_from_url(line(process))
    with path.open("r+b") as file:
        file.seek(8)
        file.write(struct.pack("=I", 99))
    assert path.name not in remove_stale()
    process.kill()
    process.wait()
    remove_stale()  # or that of a test run beside this one
    assert not path.exists()


def test_a_pipe_or_a_link_of_such_a_name_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / names.new_name())
    (tmp_path / names.new_name()).symlink_to("/dev/zero")
    (tmp_path / names.new_name()).mkdir()
    assert remove_stale(tmp_path) == []


def test_an_orphaned_socket_is_removed_when_it_is_old() -> None:
    # A folder of its own with a short name: paths of sockets have 107 bytes at most.
    with (
        tempfile.TemporaryDirectory(dir=SHM_FOLDER) as name,
        RingWriter(newest_wins(100), folder=Path(name)) as writer,
    ):
        folder = Path(name)
        socket_path = writer._segment.socket_path
        old = 1.0
        os.utime(socket_path, (old, old))
        writer.path.unlink()
        assert remove_stale(folder) == []  # somebody listens
        writer._listener.close()
        os.utime(socket_path, None)
        assert remove_stale(folder) == []  # too young to tell
        os.utime(socket_path, (old, old))
        assert remove_stale(folder) == [socket_path.name]
