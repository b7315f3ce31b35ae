# SPDX-License-Identifier: Apache-2.0
"""ShmDirectTransport: firing neurons as two plain arrays in shared memory, without a container.

A frame is `count` (u32, native), 60 bytes of nothing so that the arrays are aligned, then `count`
neuron ids (u32), then `count` potentials (f32), all native: both ends are on one machine.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from feagi_io_host.core.errors import ClosedError, LocalError, RemoteError, VoxelArrayError
from feagi_io_host.core.voxels import U8Array
from feagi_io_host.transports.shm.header import ShmMode
from feagi_io_host.transports.shm.names import SHM_FOLDER
from feagi_io_host.transports.shm.reader import RingReader, ShmFrame
from feagi_io_host.transports.shm.ring import DEFAULT_READERS, RingWriter, newest_wins

NeuronIds = npt.NDArray[np.uint32]
Potentials = npt.NDArray[np.float32]

HEADER_BYTES: Final = 64
NEURON_BYTES: Final = 8
DEFAULT_NEURONS: Final = 1_000_000


class ShmDirectTransport:
    """Publishes neural activity to up to `max_readers` readers; the newest wins, nobody is waited
    for.

    Runs once: `start`, `stop`. Memory is taken for what is published, `max_neurons` bounds it.
    """

    mode: Final = ShmMode.DIRECT

    def __init__(
        self,
        *,
        max_neurons: int = DEFAULT_NEURONS,
        max_readers: int = DEFAULT_READERS,
        folder: Path = SHM_FOLDER,
    ) -> None:
        """Raises ConfigError for limits that cannot be."""
        self.max_neurons = max_neurons
        self._shape = newest_wins(
            HEADER_BYTES + NEURON_BYTES * max_neurons, mode=self.mode, max_readers=max_readers
        )
        self._folder = folder
        self._ring: RingWriter | None = None
        self._header: U8Array = np.zeros(HEADER_BYTES, np.uint8)
        self._count: NeuronIds = self._header.view(np.uint32)

    def start(self) -> None:
        """Create the segment; nothing when started before. Raises LocalError where there is no
        shared memory, ClosedError after `stop`."""
        if self._ring is None:
            self._ring = RingWriter(self._shape, folder=self._folder)
        elif self._ring.closed:
            raise ClosedError("this direct transport was stopped; make a new one")

    def stop(self) -> None:
        """Remove the segment; readers get ClosedError. May be called more than once."""
        if self._ring is not None:
            self._ring.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """What readers are given. Raises ClosedError before `start`."""
        return self._running().url

    @property
    def ring(self) -> RingWriter:
        """The ring below, with its counters. Raises ClosedError before `start`."""
        return self._running()

    def publish_neural_activity_direct(self, neuron_ids: NeuronIds, potentials: Potentials) -> int:
        """Publish `n` neurons: ids u32 and potentials f32, both of shape (n,). Never waits.

        Each array is copied once, into shared memory. Returns how many readers there are. One
        thread at a time. Raises VoxelArrayError for other shapes or types, LocalError above
        `max_neurons` or when the system has no memory left, ClosedError when not running.
        """
        ring = self._running()
        ids = _bytes_of("neuron_ids", neuron_ids, np.dtype(np.uint32))
        values = _bytes_of("potentials", potentials, np.dtype(np.float32))
        count = len(neuron_ids)
        if count != len(potentials):
            raise VoxelArrayError(f"{count} neuron ids and {len(potentials)} potentials")
        if count > self.max_neurons:
            raise LocalError(f"{count} neurons; max_neurons is {self.max_neurons}")
        self._count[0] = count
        return ring.write_parts((self._header, ids, values))

    def _running(self) -> RingWriter:
        if self._ring is None:
            raise ClosedError("this direct transport was not started")
        return self._ring


class NeuralActivity:
    """One publication: `neuron_ids` (u32) and `potentials` (f32), both (n,), read-only views of the
    writer's memory. Arrays made from them keep that piece of memory; let go of them soon."""

    __slots__ = ("neuron_ids", "potentials", "sequence", "written_at_ns")

    def __init__(self, frame: ShmFrame) -> None:
        """For users: see `ShmDirectReader.receive`. RemoteError for a frame that is none."""
        size = len(frame)
        array = frame.array
        count = int(array[:4].view(np.uint32)[0]) if size >= HEADER_BYTES else -1
        if size != HEADER_BYTES + NEURON_BYTES * count:
            raise RemoteError(f"direct frame of {size} bytes says it holds {count} neurons")
        middle = HEADER_BYTES + 4 * count
        self.neuron_ids: NeuronIds = array[HEADER_BYTES:middle].view(np.uint32)
        self.potentials: Potentials = array[middle:].view(np.float32)
        self.sequence = frame.sequence
        """Counts the writer's publications from 1."""
        self.written_at_ns = frame.written_at_ns
        """On the monotonic clock."""

    def __len__(self) -> int:
        return len(self.neuron_ids)


class ShmDirectReader:
    """Receives what a ShmDirectTransport publishes. One thread or task at a time."""

    def __init__(self, url: str, *, folder: Path = SHM_FOLDER) -> None:
        """Raises as RingReader does."""
        self.ring = RingReader(url, mode=ShmMode.DIRECT, folder=folder)

    def receive(self, timeout_s: float | None = None) -> NeuralActivity | None:
        """The newest publication; None when `timeout_s` passed first (None: wait for ever).

        Nothing is copied. Raises ClosedError when either end is closed or the writer died,
        RemoteError for a publication that makes no sense.
        """
        frame = self.ring.take(timeout_s)
        return None if frame is None else NeuralActivity(frame)

    async def receive_async(self, timeout_s: float | None = None) -> NeuralActivity | None:
        """As `receive`, waiting in the running event loop."""
        frame = await self.ring.take_async(timeout_s)
        return None if frame is None else NeuralActivity(frame)

    def close(self) -> None:
        """End; arrays that are kept stay as they are. May be called more than once."""
        self.ring.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _bytes_of(name: str, array: object, dtype: np.dtype[np.generic]) -> U8Array:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        what = (
            f"{array.dtype} of shape {array.shape}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        raise VoxelArrayError(f"{name} is {what}; a numpy array {dtype} of shape (n,) is needed")
    contiguous: U8Array = (array if array.flags.c_contiguous else np.ascontiguousarray(array)).view(
        np.uint8
    )
    return contiguous
