# SPDX-License-Identifier: Apache-2.0
"""When a frame is compressed, and what a compressed frame must look like to be unpacked.

A packed frame is ours, not FEAGI's: both ends have to have agreed on it, and a real engine or
client never gets one. Layout: magic `FLZ1` (4 bytes), size unpacked (u32, little-endian), one LZ4
block. A container begins with its version byte 4, so that the two are told apart by one byte.

The decision is arithmetic on what was measured; the compressor itself and the clock come in from
the rooms `blocking` and `nonblocking`.

    auto: compressing pays while    link speed < compressor speed * (1 - 1 / ratio)
"""

from __future__ import annotations

import enum
import struct
import threading
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.errors import ConfigError, ContainerLimitError, StructCorruptError
from feagi_wire.const import FBC_VERSION, HEADER_BYTES

_HEADER: Final = struct.Struct("<4sI")
MAGIC: Final = b"FLZ1"
PACKED_HEADER_BYTES: Final = _HEADER.size

DEFAULT_THRESHOLD_BYTES: Final = 4096  # below it the header and the call cost more than is saved
DEFAULT_MAX_FRAME_BYTES: Final = 64 << 20
# Bursts reach 3 to 6, a block of zeros 255. What a sender finds above this it sends plain, so
# no honest frame is ever refused.
DEFAULT_MAX_RATIO: Final = 64

# While `auto` sends plain, so many frames pass between two trials of the compressor.
_TRIAL_EVERY: Final = 64
_WEIGHT: Final = 0.25  # of the newest measurement in the running averages


class CompressionMode(enum.Enum):
    """Whether frames above the threshold are compressed."""

    OFF = "off"
    ON = "on"
    AUTO = "auto"
    """Where the measured link is slower than compressing; off until it has been measured."""


@dataclass(frozen=True, slots=True)
class CompressionSettings:
    """`threshold_bytes`: smaller frames stay plain. `max_frame_bytes` and `max_ratio` bound what
    a packed frame may unpack to, checked before any memory is taken. Raises ConfigError for
    numbers that cannot work."""

    mode: CompressionMode = CompressionMode.AUTO
    threshold_bytes: int = DEFAULT_THRESHOLD_BYTES
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    max_ratio: int = DEFAULT_MAX_RATIO

    def __post_init__(self) -> None:
        if self.threshold_bytes < 0:
            raise ConfigError(f"threshold_bytes is {self.threshold_bytes}; 0 or more needed")
        if not HEADER_BYTES <= self.max_frame_bytes <= 0xFFFF_FFFF:
            raise ConfigError(
                f"max_frame_bytes is {self.max_frame_bytes}; {HEADER_BYTES} to 4294967295 needed"
            )
        if self.max_ratio < 1:
            raise ConfigError(f"max_ratio is {self.max_ratio}; at least 1 needed")


class CompressionChoice:
    """Decides frame by frame, from the speeds that it is told. Thread-safe."""

    def __init__(self, settings: CompressionSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._link_bytes_per_s = 0.0
        self._packer_bytes_per_s = 0.0
        self._ratio = 0.0
        self._until_trial = 0

    def wants(self, size_bytes: int) -> bool:
        """Whether a frame of `size_bytes` is to be given to the compressor.

        In AUTO, now and then also when it does not seem to pay, to measure it again.
        """
        settings = self.settings
        if settings.mode is CompressionMode.OFF or size_bytes < settings.threshold_bytes:
            return False
        if settings.mode is CompressionMode.ON:
            return True
        with self._lock:
            if not self._link_bytes_per_s:
                return False
            if self._pays():
                return True
            self._until_trial -= 1
            if self._until_trial > 0:
                return False
            self._until_trial = _TRIAL_EVERY
            return True

    def link_took(self, size_bytes: int, seconds: float) -> None:
        """The link took `seconds` to carry `size_bytes`; 0 or less is left out."""
        if seconds > 0.0 and size_bytes > 0:
            with self._lock:
                self._link_bytes_per_s = _average(self._link_bytes_per_s, size_bytes / seconds)

    def packing_took(self, plain_bytes: int, packed_bytes: int, seconds: float) -> None:
        """The compressor took `seconds` to make `packed_bytes` of `plain_bytes`."""
        if plain_bytes > 0 and packed_bytes > 0:
            speed = plain_bytes / max(seconds, 1e-9)
            with self._lock:
                self._packer_bytes_per_s = _average(self._packer_bytes_per_s, speed)
                self._ratio = _average(self._ratio, plain_bytes / packed_bytes)

    def keeps(self, plain_bytes: int, packed_bytes: int) -> bool:
        """Whether a packed frame is worth sending: smaller, and not beyond the receiver's cap."""
        return packed_bytes < plain_bytes <= packed_bytes * self.settings.max_ratio

    def snapshot(self) -> dict[str, float]:
        """`link_bytes_per_s`, `packer_bytes_per_s` and `ratio`, 0 until measured."""
        with self._lock:
            return {
                "link_bytes_per_s": self._link_bytes_per_s,
                "packer_bytes_per_s": self._packer_bytes_per_s,
                "ratio": self._ratio,
            }

    def _pays(self) -> bool:
        if self._ratio <= 1.0:
            return False
        return self._link_bytes_per_s < self._packer_bytes_per_s * (1.0 - 1.0 / self._ratio)


def packed_header(plain_bytes: int) -> bytes:
    """The 8 bytes in front of the LZ4 block."""
    return _HEADER.pack(MAGIC, plain_bytes)


def unpacked_size(data: memoryview, settings: CompressionSettings) -> int | None:
    """The size that a received packed frame will have; None for a plain one.

    Looks at 8 bytes and at the length, so that a bomb is refused before memory is taken for it.
    Raises StructCorruptError for neither a container nor a packed frame, ContainerLimitError
    above a cap.
    """
    size = len(data)
    most = settings.max_frame_bytes
    if size and data[0] == FBC_VERSION:
        if size > most:
            raise ContainerLimitError(f"frame of {size} bytes; at most {most} are taken")
        return None
    if size <= PACKED_HEADER_BYTES or bytes(data[:4]) != MAGIC:
        raise StructCorruptError(
            f"{size} bytes opening with {bytes(data[:4])!r}: neither a container (version "
            f"{FBC_VERSION}) nor a packed frame ({MAGIC!r})"
        )
    plain_bytes: int = _HEADER.unpack_from(data)[1]
    ratio = settings.max_ratio
    if plain_bytes > most:
        raise ContainerLimitError(
            f"packed frame says it holds {plain_bytes} bytes; at most {most} are unpacked"
        )
    if plain_bytes < HEADER_BYTES or plain_bytes > (size - PACKED_HEADER_BYTES) * ratio:
        raise ContainerLimitError(
            f"packed frame of {size} bytes says it holds {plain_bytes}; expected {HEADER_BYTES} "
            f"to {(size - PACKED_HEADER_BYTES) * ratio}, {ratio} times its block"
        )
    return plain_bytes


def _average(before: float, now: float) -> float:
    return before + _WEIGHT * (now - before) if before else now
