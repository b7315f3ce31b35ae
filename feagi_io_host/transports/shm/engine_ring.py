# SPDX-License-Identifier: Apache-2.0
"""The real engine's rings: FEAGIVIS (visualization) and FEAGIMOT (motor), little-endian.

    0 magic, 8 bytes    8 u32 version 1    12 u32 slots (64)    16 u32 bytes a slot (1 MiB)
    20 u64 sequence: frames written so far    28 u32 index of the slot written next
    256 the slots: u32 length, payload, zeros; "bytes a slot" counts the length as well

Frame number `sequence` lies in the slot before the next one. A frame is certain to have been whole
while it was copied if afterwards its slot is not yet the next one to be written.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from feagi_io_host.core.errors import ConfigError, LocalError, RemoteError
from feagi_io_host.transports.shm.doorbell import deadline
from feagi_io_host.transports.shm.engine_file import (
    ENGINE_VERSION,
    HEADER_BYTES,
    EngineFile,
    check_size,
    make_whole,
    open_for_reading,
    order_memory,
    take_memory,
)

DEFAULT_SLOTS: Final = 64
DEFAULT_SLOT_BYTES: Final = 1 << 20
MAX_SLOTS: Final = 65_536

_HEADER: Final = struct.Struct("<8sIIIQI")
_STATE: Final = struct.Struct("<QI")
_STATE_AT: Final = 20
_LENGTH: Final = struct.Struct("<I")
_TRIES: Final = 16


class EngineRing(enum.Enum):
    """Which of the engine's rings; the value is its magic."""

    VISUALIZATION = b"FEAGIVIS"
    MOTOR = b"FEAGIMOT"


@dataclass(frozen=True, slots=True)
class EngineFrame:
    """One frame: a copy of its bytes, not verified, and its number in the ring."""

    data: bytes
    sequence: int


class EngineRingReader(EngineFile):
    """Reads one of the engine's rings by polling, as agents of the engine do.

    It begins with what is written after it was opened.
    """

    def __init__(self, path: Path, ring: EngineRing) -> None:
        """Raises RemoteError for a file that is no such ring, LocalError when it cannot be read."""
        self.skipped = 0
        """Frames that were written over before they were taken."""
        self.restarts = 0
        """How often the sequence went back: a new writer in the old file."""
        fd, header, actual = open_for_reading(path, ring.value)
        _, _, self._slots, self._slot_bytes, _, _ = _HEADER.unpack_from(header)
        if not 2 <= self._slots <= MAX_SLOTS or self._slot_bytes <= _LENGTH.size:
            check_size(path, fd, 0, actual)
        size = HEADER_BYTES + self._slots * self._slot_bytes
        check_size(path, fd, size, actual)
        super().__init__(path, fd, size, writable=False)
        try:
            self._last = self._state()[0]
        except RemoteError:
            self.close()
            raise

    def take_newest(self, timeout_s: float | None = None) -> EngineFrame | None:
        """The newest frame that was not taken yet; None when `timeout_s` passed first.

        None waits for ever, 0 does not wait. Raises ClosedError when this side closed or the file
        was removed or replaced, RemoteError when it says what cannot be.
        """
        return self._take(timeout_s, newest=True)

    def take_next(self, timeout_s: float | None = None) -> EngineFrame | None:
        """The oldest frame that was not taken yet and is still there; otherwise as
        `take_newest`."""
        return self._take(timeout_s, newest=False)

    def _take(self, timeout_s: float | None, *, newest: bool) -> EngineFrame | None:
        until_s = deadline(timeout_s)
        with self._using:
            self._refuse_if_closed()
            while True:
                self._refuse_if_cut()
                for _ in range(_TRIES):
                    written, next_slot = self._state()
                    if written < self._last:
                        self.restarts += 1
                        self._last = 0
                    if written == self._last:
                        break
                    # The slot that is next may be in the middle of being written over.
                    oldest = max(self._last + 1, written - self._slots + 2)
                    wanted = written if newest else oldest
                    frame = self._copy(wanted, written, next_slot)
                    if frame is not None:
                        self.skipped += wanted - self._last - 1
                        self._last = wanted
                        return frame
                if not self._pause(until_s):
                    return None

    def _copy(self, wanted: int, written: int, next_slot: int) -> EngineFrame | None:
        """A frame, or None when it may have changed meanwhile."""
        slot = (next_slot - 1 - (written - wanted)) % self._slots
        at = HEADER_BYTES + slot * self._slot_bytes
        (length,) = _LENGTH.unpack_from(self._map, at)
        if length > self._slot_bytes - _LENGTH.size:
            raise RemoteError(
                f"{self.path}: frame of {length} bytes in a slot of {self._slot_bytes}"
            )
        data = self._map[at + _LENGTH.size : at + _LENGTH.size + length]
        order_memory()
        now, _ = self._state()
        if now < written or now - wanted >= self._slots - 1:
            return None
        return EngineFrame(data, wanted)

    def _state(self) -> tuple[int, int]:
        """Sequence and next slot, of one moment: both were read twice and did not change."""
        before = self._map[_STATE_AT : _STATE_AT + _STATE.size]
        while True:
            order_memory()
            again = self._map[_STATE_AT : _STATE_AT + _STATE.size]
            if again == before:
                sequence, next_slot = _STATE.unpack(again)
                if next_slot >= self._slots:
                    raise RemoteError(f"{self.path}: next slot {next_slot} of {self._slots}")
                return sequence, next_slot
            before = again
            self._refuse_if_closed()


class EngineRingWriter(EngineFile):
    """Writes one of the engine's rings. Nobody is waited for; the oldest frame is written over."""

    def __init__(
        self,
        path: Path,
        ring: EngineRing,
        *,
        slots: int = DEFAULT_SLOTS,
        slot_bytes: int = DEFAULT_SLOT_BYTES,
    ) -> None:
        """Puts a new file in the place of what `path` was. Raises ConfigError, LocalError."""
        if not 2 <= slots <= MAX_SLOTS or not _LENGTH.size < slot_bytes < 1 << 32:
            raise ConfigError(
                f"{slots} slots of {slot_bytes} bytes; 2 to {MAX_SLOTS} of more than "
                f"{_LENGTH.size} and less than 4 GiB can be had"
            )
        header = _HEADER.pack(ring.value, ENGINE_VERSION, slots, slot_bytes, 0, 0)
        size = HEADER_BYTES + slots * slot_bytes
        super().__init__(path, make_whole(path, header, size), size, writable=True)
        self._slots = slots
        self._slot_bytes = slot_bytes
        self._sequence = 0
        self._used = [0] * slots  # bytes that are not zero any more, per slot

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write one frame; returns its number. Raises LocalError for one that fits no slot or when
        the system has no memory left, ClosedError."""
        size = len(data)
        if size > self._slot_bytes - _LENGTH.size:
            raise LocalError(
                f"frame of {size} bytes; a slot of {self.path} takes "
                f"{self._slot_bytes - _LENGTH.size}"
            )
        with self._using:
            self._refuse_if_closed()
            self._refuse_if_cut()
            slot = self._sequence % self._slots
            at = HEADER_BYTES + slot * self._slot_bytes
            start = at + _LENGTH.size
            if size >= self._used[slot]:
                take_memory(self.path, self._fd, at, _LENGTH.size + size)
            _LENGTH.pack_into(self._map, at, 0)
            order_memory()
            self._map[start : start + size] = data
            if self._used[slot] > size:
                self._map[start + size : start + self._used[slot]] = bytes(self._used[slot] - size)
            self._used[slot] = size
            _LENGTH.pack_into(self._map, at, size)
            order_memory()
            self._sequence += 1
            _STATE.pack_into(self._map, _STATE_AT, self._sequence, self._sequence % self._slots)
            return self._sequence

    def _dispose(self) -> None:
        if not self.is_replaced():
            self.path.unlink(missing_ok=True)
