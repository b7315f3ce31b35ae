# SPDX-License-Identifier: Apache-2.0
"""The engine's own files, against bytes made here from the description of their layouts."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feagi_io_host.core.errors import ClosedError, ConfigError, LocalError, RemoteError
from feagi_io_host.transports.shm.engine_file import EngineFile
from feagi_io_host.transports.shm.engine_latest import EngineLatestReader, EngineLatestWriter
from feagi_io_host.transports.shm.engine_ring import (
    EngineFrame,
    EngineRing,
    EngineRingReader,
    EngineRingWriter,
)
from tests.feagi_io_host.transports.shm.conftest import ROOT

PATIENCE_S = 10.0
SLOTS, SLOT_BYTES = 64, 1 << 20


def ring_header(magic: bytes, slots: int, slot_bytes: int, sequence: int, index: int) -> bytes:
    """256 bytes as the engine's source lays them out."""
    header = bytearray(256)
    header[0:8] = magic
    header[8:12] = (1).to_bytes(4, "little")
    header[12:16] = slots.to_bytes(4, "little")
    header[16:20] = slot_bytes.to_bytes(4, "little")
    header[20:28] = sequence.to_bytes(8, "little")
    header[28:32] = index.to_bytes(4, "little")
    return bytes(header)


class HandMadeRing:
    """A ring written byte by byte, without any of the code that is tested."""

    def __init__(self, path: Path, magic: bytes, slots: int = 4, slot_bytes: int = 64) -> None:
        self.path, self.magic, self.slots, self.slot_bytes = path, magic, slots, slot_bytes
        self.sequence = self.index = 0
        path.write_bytes(ring_header(magic, slots, slot_bytes, 0, 0) + bytes(slots * slot_bytes))

    def write(self, payload: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(256 + self.index * self.slot_bytes)
            file.write(struct.pack("<I", len(payload)) + payload)
            self.sequence += 1
            self.index = (self.index + 1) % self.slots
            file.seek(0)
            file.write(
                ring_header(self.magic, self.slots, self.slot_bytes, self.sequence, self.index)
            )


# -- rings --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", list(EngineRing))
def test_a_reader_reads_what_the_description_says(tmp_path: Path, ring: EngineRing) -> None:
    made = HandMadeRing(tmp_path / "ring", ring.value)
    made.write(b"before")
    with EngineRingReader(made.path, ring) as reader:
        assert reader.take_newest(0.0) is None
        made.write(b"one")
        assert reader.take_newest(0.0) == EngineFrame(b"one", 2)
        assert reader.take_newest(0.0) is None
        for number in range(3):
            made.write(bytes([number]) * 60)  # as much as a slot of 64 takes
        assert reader.take_next(0.0) == EngineFrame(b"\0" * 60, 3)
        assert reader.take_newest(0.0) == EngineFrame(b"\2" * 60, 5)
        assert reader.skipped == 1


def test_in_order_a_reader_that_is_too_slow_goes_on_with_the_oldest_that_is_certain(
    tmp_path: Path,
) -> None:
    made = HandMadeRing(tmp_path / "ring", b"FEAGIMOT")
    with EngineRingReader(made.path, EngineRing.MOTOR) as reader:
        for number in range(10):
            made.write(bytes([number]))
        # Of the four slots the next one may be being written over at any moment.
        got = [reader.take_next(0.0) for _ in range(4)]
        assert got == [EngineFrame(bytes([n]), n + 1) for n in (7, 8, 9)] + [None]
        assert reader.skipped == 7


def test_a_writer_writes_what_the_description_says(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    with EngineRingWriter(path, EngineRing.VISUALIZATION) as writer:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_size == 256 + SLOTS * SLOT_BYTES
        assert path.stat().st_blocks * 512 < 100_000
        with path.open("rb", buffering=0) as file:
            assert file.read(256) == ring_header(b"FEAGIVIS", SLOTS, SLOT_BYTES, 0, 0)
            for number in range(SLOTS + 1):
                assert writer.write(bytes([number]) * (100 - number)) == number + 1
            file.seek(0)
            assert file.read(256) == ring_header(b"FEAGIVIS", SLOTS, SLOT_BYTES, 65, 1)
            # Slot 0 was written twice: 36 bytes over 100, and zeros after them.
            assert file.read(200) == b"\x24\0\0\0" + bytes([64]) * 36 + bytes(160)
            file.seek(256 + 63 * SLOT_BYTES)
            assert file.read(50) == b"\x25\0\0\0" + bytes([63]) * 37 + bytes(9)
    assert not path.exists()


def test_writer_and_reader_agree_at_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    with (
        EngineRingWriter(path, EngineRing.MOTOR, slots=2, slot_bytes=100) as writer,
        EngineRingReader(path, EngineRing.MOTOR) as reader,
    ):
        for size in (96, 0, 1, 96, 95):
            data = os.urandom(size)
            number = writer.write(data)
            assert reader.take_next(0.0) == EngineFrame(data, number)
        with pytest.raises(LocalError, match=r"frame of 97 bytes; .* takes 96"):
            writer.write(bytes(97))


@pytest.mark.parametrize(
    ("at", "data", "text"),
    [
        (0, b"FEAGIVIX", "beginning with b'FEAGIVIX'"),
        (8, struct.pack("<I", 2), "version 2; version 1"),
        (12, struct.pack("<I", 1), "its header makes it 0 bytes"),
        (12, struct.pack("<I", 65_537), "its header makes it 0 bytes"),
        (12, struct.pack("<I", 5), "its header makes it 576 bytes, it has 512"),
        (16, struct.pack("<I", 4), "its header makes it 0 bytes"),
        (16, struct.pack("<I", 0xFFFF_FFFF), "it has 512"),
        (28, struct.pack("<I", 4), "next slot 4 of 4"),
    ],
)
def test_rings_that_cannot_be_are_refused(tmp_path: Path, at: int, data: bytes, text: str) -> None:
    made = HandMadeRing(tmp_path / "ring", b"FEAGIVIS")
    content = bytearray(made.path.read_bytes())
    content[at : at + len(data)] = data
    made.path.write_bytes(content)
    with pytest.raises(RemoteError, match=text):
        EngineRingReader(made.path, EngineRing.VISUALIZATION)


def test_what_is_no_file_or_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="does not use shared memory"):
        EngineRingReader(tmp_path / "none", EngineRing.MOTOR)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "short").write_bytes(b"FEAGIMOT")
    for name in ("pipe", "short", "."):
        with pytest.raises(RemoteError, match="bytes of header"):
            EngineRingReader(tmp_path / name, EngineRing.MOTOR)
    with pytest.raises(ConfigError):
        EngineRingWriter(tmp_path / "x", EngineRing.MOTOR, slots=1)
    with pytest.raises(LocalError, match="cannot be made"):
        EngineRingWriter(tmp_path / "no" / "x", EngineRing.MOTOR)


def test_lengths_and_cuts_that_come_later_are_refused(tmp_path: Path) -> None:
    made = HandMadeRing(tmp_path / "ring", b"FEAGIVIS")
    with EngineRingReader(made.path, EngineRing.VISUALIZATION) as reader:
        made.write(b"x")
        with made.path.open("r+b") as file:
            file.seek(256)
            file.write(struct.pack("<I", 61))
        with pytest.raises(RemoteError, match="frame of 61 bytes in a slot of 64"):
            reader.take_newest(0.0)
        os.truncate(made.path, 300)
        with pytest.raises(RemoteError, match="was cut from 512 to 300"):
            reader.take_newest(0.0)


def test_a_new_writer_in_the_old_file_is_a_restart_a_new_file_an_end(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    made = HandMadeRing(path, b"FEAGIMOT")
    for _ in range(5):
        made.write(b"old")
    with EngineRingReader(path, EngineRing.MOTOR) as reader:
        made.sequence = made.index = 0
        made.write(b"new")
        assert reader.take_next(0.0) == EngineFrame(b"new", 1)
        assert reader.restarts == 1
        assert not reader.is_replaced()
        with EngineRingWriter(path, EngineRing.MOTOR, slots=2, slot_bytes=64):
            assert reader.is_replaced()
            with pytest.raises(ClosedError, match="removed or replaced"):
                reader.take_next(PATIENCE_S)


# -- latest -------------------------------------------------------------------------------------


def latest(sequence: int, payload: bytes, *, at_ns: int = 5, most: int = 100) -> bytes:
    """A whole file as the engine's source lays it out."""
    header = b"FEAGILAT" + struct.pack("<IIIQQII", 1, most, 4242, at_ns, sequence, len(payload), 0)
    assert len(header) == 44
    return header.ljust(256, b"\0") + payload.ljust(most, b"\0")


def test_the_latest_is_read_as_the_description_says(tmp_path: Path) -> None:
    path = tmp_path / "latest"
    path.write_bytes(latest(0, b""))
    with EngineLatestReader(path) as reader:
        assert reader.writer_pid == 4242
        assert reader.take(0.0) is None
        for sequence, payload in ((1, b"one"), (4, b"x" * 100)):
            with path.open("r+b") as file:
                file.write(latest(sequence, payload, at_ns=77))
            frame = reader.take(0.0)
            assert frame is not None
            assert (frame.data, frame.sequence, frame.written_at_ns) == (payload, sequence, 77)
            assert reader.take(0.0) is None
        assert reader.skipped == 2


def test_the_latest_is_written_as_the_description_says(tmp_path: Path) -> None:
    path = tmp_path / "latest"
    before_ns = time.time_ns()
    with EngineLatestWriter(path, payload_bytes=100) as writer:
        assert writer.write(b"first") == 1
        assert writer.write(b"2nd") == 2
        content = path.read_bytes()
        magic, version, most, pid, at_ns, sequence, size, reserved = struct.unpack_from(
            "<8sIIIQQII", content
        )
        assert (magic, version, most, pid) == (b"FEAGILAT", 1, 100, os.getpid())
        assert (sequence, size, reserved) == (2, 3, 0)
        assert before_ns <= at_ns <= time.time_ns()
        assert (content[44:256], content[256:259]) == (bytes(212), b"2nd")
        with EngineLatestReader(path) as reader:
            assert reader.writer_lives()
            frame = reader.take(0.0)
            assert frame is not None
            assert frame.data == b"2nd"
        for data in (b"", bytes(101)):
            with pytest.raises(LocalError, match="takes 1 to 100"):
                writer.write(data)
    assert not path.exists()
    with pytest.raises(ClosedError):
        writer.write(b"late")


def test_a_payload_that_is_being_written_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "latest"
    content = bytearray(latest(3, b"half"))
    content[36:40] = bytes(4)  # size 0: this side's mark
    path.write_bytes(content)
    with EngineLatestReader(path) as reader:
        assert reader.take(0.0) is None
        with path.open("r+b") as file:
            file.write(latest(3, b"x" * 100)[:36] + struct.pack("<I", 101))
        with pytest.raises(RemoteError, match="payload of 101 bytes, at most 100"):
            reader.take(0.0)


# -- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ring", "latest"])
def test_close_wakes_who_waits_and_removes_nothing_of_others(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    writer: EngineFile
    if kind == "ring":
        writer = EngineRingWriter(path, EngineRing.MOTOR, slots=2, slot_bytes=64)
        reader: EngineRingReader | EngineLatestReader = EngineRingReader(path, EngineRing.MOTOR)
    else:
        writer = EngineLatestWriter(path)
        reader = EngineLatestReader(path)
    take = reader.take_next if isinstance(reader, EngineRingReader) else reader.take
    began = threading.Event()

    def wait() -> object:
        began.set()
        return take(None)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        assert began.wait(PATIENCE_S)
        reader.close()
        with pytest.raises(ClosedError, match="closed by this program"):
            waiting.result(PATIENCE_S)
    reader.close()
    assert take_after_close(take)
    other = HandMadeRing(tmp_path / "other", b"FEAGIMOT")
    other.path.rename(path)
    writer.close()
    writer.close()
    assert path.exists()


def take_after_close(take: object) -> bool:
    assert callable(take)
    with pytest.raises(ClosedError):
        take(0.0)
    return True


WRITER = """
import sys, time
from pathlib import Path
from feagi_io_host.transports.shm.engine_latest import EngineLatestWriter
from feagi_io_host.transports.shm.engine_ring import EngineRing, EngineRingWriter
size = 40_000
path = Path(sys.argv[2])
writer = (EngineLatestWriter(path, payload_bytes=size) if sys.argv[1] == "latest" else
          EngineRingWriter(path, EngineRing.VISUALIZATION, slots=4, slot_bytes=size + 4))
print("ready", flush=True)
number = 0
while True:
    number += 1
    writer.write(number.to_bytes(4, "little") * (size // 4))
"""


@pytest.mark.parametrize("kind", ["ring", "latest"])
def test_a_hammering_process_tears_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'shared'}"},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if kind == "ring":
            reader: EngineRingReader | EngineLatestReader = EngineRingReader(
                path, EngineRing.VISUALIZATION
            )
            take = reader.take_newest
        else:
            reader = EngineLatestReader(path)
            take = reader.take  # type: ignore[assignment]
        with reader:
            for _ in range(50):
                frame = take(PATIENCE_S)
                assert frame is not None
                assert frame.data == (frame.sequence & 0xFFFF_FFFF).to_bytes(4, "little") * 10_000
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE_S)
