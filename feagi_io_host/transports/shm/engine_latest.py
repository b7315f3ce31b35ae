# SPDX-License-Identifier: Apache-2.0
"""The real engine's FEAGILAT: one agent's sensory data, of which only the latest counts.

Little-endian, packed, 256 bytes, then the payload:

    0 magic, 8 bytes    8 u32 version 1    12 u32 most bytes of payload    16 u32 writer's pid
    20 u64 unix time, ns    28 u64 sequence    36 u32 bytes of payload    40 u32 reserved

The layout has no mark for "being written". This writer sets the payload's size to 0 meanwhile, and
this reader takes a payload only if size and sequence are the same after it was copied.
"""

from __future__ import annotations

import os
import struct
import time
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

MAGIC: Final = b"FEAGILAT"
DEFAULT_PAYLOAD_BYTES: Final = 1 << 20

_HEADER: Final = struct.Struct("<8sIIIQQII")
_STATE: Final = struct.Struct("<QQI")  # time, sequence, size
_STATE_AT: Final = 20
_SIZE: Final = struct.Struct("<I")
_SIZE_AT: Final = 36
_TRIES: Final = 64


@dataclass(frozen=True, slots=True)
class LatestFrame:
    """A copy of the payload, not verified; its number, and when it was written (unix time, ns)."""

    data: bytes
    sequence: int
    written_at_ns: int


class EngineLatestWriter(EngineFile):
    """Writes sensory data for an engine on the same machine."""

    def __init__(self, path: Path, *, payload_bytes: int = DEFAULT_PAYLOAD_BYTES) -> None:
        """Puts a new file in the place of what `path` was. Raises ConfigError, LocalError."""
        if not 1 <= payload_bytes < 1 << 32:
            raise ConfigError(f"payload_bytes is {payload_bytes}; 1 to {(1 << 32) - 1} can be had")
        self._payload_bytes = payload_bytes
        self._sequence = 0
        self._allocated = 0
        header = _HEADER.pack(MAGIC, ENGINE_VERSION, payload_bytes, os.getpid(), 0, 0, 0, 0)
        size = HEADER_BYTES + payload_bytes
        super().__init__(path, make_whole(path, header, size), size, writable=True)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Put a payload in the place of the one before; returns its number.

        Raises LocalError for an empty or too large one or when the system has no memory left,
        ClosedError.
        """
        size = len(data)
        if not 1 <= size <= self._payload_bytes:
            raise LocalError(
                f"payload of {size} bytes; {self.path} takes 1 to {self._payload_bytes}"
            )
        with self._using:
            self._refuse_if_closed()
            self._refuse_if_cut()
            if size > self._allocated:
                take_memory(self.path, self._fd, HEADER_BYTES, size)
                self._allocated = size
            _SIZE.pack_into(self._map, _SIZE_AT, 0)
            order_memory()
            self._map[HEADER_BYTES : HEADER_BYTES + size] = data
            order_memory()
            self._sequence += 1
            _STATE.pack_into(self._map, _STATE_AT, time.time_ns(), self._sequence, size)
            return self._sequence

    def _dispose(self) -> None:
        if not self.is_replaced():
            self.path.unlink(missing_ok=True)


class EngineLatestReader(EngineFile):
    """Reads an agent's sensory data by polling, as the engine does."""

    def __init__(self, path: Path) -> None:
        """Raises RemoteError for a file that is no such one, LocalError when it cannot be read."""
        self.skipped = 0
        """Payloads that were replaced before they were taken."""
        fd, header, actual = open_for_reading(path, MAGIC)
        _, _, self._payload_bytes, self.writer_pid, _, _, _, _ = _HEADER.unpack_from(header)
        size = HEADER_BYTES + self._payload_bytes
        check_size(path, fd, size, actual)
        super().__init__(path, fd, size, writable=False)
        self._last = 0

    def take(self, timeout_s: float | None = None) -> LatestFrame | None:
        """The latest payload if it was not taken yet; None when `timeout_s` passed first.

        None waits for ever, 0 does not wait. Raises ClosedError when this side closed or the file
        was removed or replaced, RemoteError when it says what cannot be.
        """
        until_s = deadline(timeout_s)
        with self._using:
            self._refuse_if_closed()
            while True:
                self._refuse_if_cut()
                for _ in range(_TRIES):
                    before = self._state()
                    written_at_ns, sequence, size = _STATE.unpack(before)
                    if sequence == self._last or size == 0:
                        break
                    if size > self._payload_bytes:
                        raise RemoteError(
                            f"{self.path}: payload of {size} bytes, at most {self._payload_bytes}"
                        )
                    data = self._map[HEADER_BYTES : HEADER_BYTES + size]
                    order_memory()
                    if self._state() == before:
                        self.skipped += max(sequence - self._last - 1, 0) if self._last else 0
                        self._last = sequence
                        return LatestFrame(data, sequence, written_at_ns)
                if not self._pause(until_s):
                    return None

    def writer_lives(self) -> bool:
        """Whether there is a process with the writer's id, as far as this one can see."""
        return self.writer_pid > 0 and os.path.exists(f"/proc/{self.writer_pid}")

    def _state(self) -> bytes:
        state = self._map[_STATE_AT : _STATE_AT + _STATE.size]
        order_memory()
        return state
