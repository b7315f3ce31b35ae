# SPDX-License-Identifier: Apache-2.0
"""Leased buffers: who owns a container's bytes while several receivers still read them.

    acquire() -> container, writable, exclusive
    share(container) -> SharedFBC, sealed, one lease; retain() adds one, release() gives one back
    the last release gives the memory back to the pool

After warm-up a burst allocates no payload memory. Memory that somebody still looks at when the
last lease is given back (a kept array, a frame in flight inside a socket library) rests until
nobody does: nobody ever sees a buffer change under him.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType
from typing import Final

from feagi_io_host.core.container import BytesLike, FeagiByteContainer
from feagi_io_host.core.errors import LeaseError
from feagi_io_host.core.frame import FrameBuffer

DEFAULT_MAX_FREE: Final = 64


class SharedFBC:
    """A leased, immutable, reference-counted container: what channels and signals pass on.

    Made by `BufferPool.share`, `from_bytes` or `adopt`, with one lease, which belongs to the
    maker. Whoever keeps it longer than the call it was handed in with takes a lease of his own by
    `retain` and gives it back by `release`. As a context manager it releases at exit. Use after
    the last release raises LeaseError. Safe to use from several threads.
    """

    __slots__ = ("_container", "_leases", "_lock", "_pool", "emitted_at_s")

    def __init__(self, container: FeagiByteContainer, pool: BufferPool | None = None) -> None:
        """Seals `container`. For users: see `BufferPool.share`, `from_bytes` and `adopt`."""
        container._seal()
        self.emitted_at_s: float | None = None
        """When the brain emitted it, on the clock of the PNS; None before that."""
        self._container = container
        self._leases = 1
        self._lock = threading.Lock()
        self._pool = pool

    @classmethod
    def from_bytes(cls, data: BytesLike) -> SharedFBC:
        """Received data, verified whole and taken over without a copy; it must not change.

        Raises the FeagiDataError that says what is wrong with it.
        """
        container = FeagiByteContainer.__new__(FeagiByteContainer)
        container._attach_received(data)
        return cls(container)

    @classmethod
    def adopt(cls, container: FeagiByteContainer) -> SharedFBC:
        """Share a container that belongs to no pool; it is sealed and its memory not reused.

        Raises LeaseError when it is leased from a pool (use the pool's `share`) or shared
        already, FeagiDataError when it holds no valid data.
        """
        if container._lessor is not None:
            raise LeaseError("this container is leased from a pool: use BufferPool.share")
        container._refuse_if_closed_for_writing()
        container._valid_frame()
        return cls(container)

    def retain(self) -> SharedFBC:
        """One more lease; returns the same object."""
        with self._lock:
            if self._leases == 0:
                raise _too_late()
            self._leases += 1
        return self

    def release(self) -> None:
        """Give one lease back; the last one ends every use and frees the memory."""
        with self._lock:
            if self._leases == 0:
                raise LeaseError("given back more often than it was leased")
            self._leases -= 1
            if self._leases:
                return
        pool = self._pool
        if pool is None:
            self._container._detach()
        else:
            pool._take_back(self._container)

    @property
    def lease_count(self) -> int:
        """Leases that are out now; 0 after the last release."""
        return self._leases

    @property
    def container(self) -> FeagiByteContainer:
        """The sealed container, for reading."""
        if self._leases == 0:
            raise _too_late()
        return self._container

    @property
    def view(self) -> memoryview:
        """The container's bytes, read-only; nothing is copied."""
        return self.container.get_byte_ref()

    def __len__(self) -> int:
        """Size on the wire, in bytes."""
        return self.container.get_number_of_bytes_used()

    def __enter__(self) -> SharedFBC:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<SharedFBC, {self._leases} leases>"


def _too_late() -> LeaseError:
    return LeaseError("used after the last release; retain() what outlives the call")


class BufferPool:
    """Containers whose memory is used again. Safe to use from several threads.

    At most `max_free` idle buffers are kept, and as many that somebody still looks at; further ones
    are let go.
    """

    def __init__(self, max_free: int = DEFAULT_MAX_FREE) -> None:
        if max_free < 1:
            raise ValueError(f"max_free is {max_free}; a pool keeps at least 1 buffer")
        self._max_free = max_free
        # The buffer given back last is handed out first: its memory is still in the cache, and
        # its remembered layout is most likely the one of the next burst.
        self._free: deque[FrameBuffer] = deque()
        self._resting: deque[FrameBuffer] = deque(maxlen=max_free)
        self._lock = threading.Lock()
        self._created = 0
        self._leased = 0
        self._released = 0
        self._let_go = 0
        self._still_viewed = 0

    def acquire(self) -> FeagiByteContainer:
        """An empty, writable container for the caller alone.

        It ends in `share` or `discard`.
        """
        with self._lock:
            self._leased += 1
            buffer = self._free.pop() if self._free else self._take_rested()
            if buffer is None:
                self._created += 1
        container = FeagiByteContainer.__new__(FeagiByteContainer)
        container._attach(FrameBuffer() if buffer is None else buffer)
        container._lessor = self
        return container

    def share(self, container: FeagiByteContainer) -> SharedFBC:
        """Seal an acquired container and make it shareable, with one lease.

        Raises LeaseError when it is not an open lease of this pool, FeagiDataError when it holds
        no valid data.
        """
        self._check_lease(container)
        container._valid_frame()
        return SharedFBC(container, self)

    def discard(self, container: FeagiByteContainer) -> None:
        """Give an acquired container back unshared; LeaseError when it is no open lease."""
        self._check_lease(container)
        self._take_back(container)

    def counters(self) -> dict[str, int]:
        """What happened so far.

        created: buffers made; leased: out now; free: idle now; released: leases ended;
        let_go: not kept because the pool was full; still_viewed: put to rest because somebody still
        looked at the memory.
        """
        with self._lock:
            return {
                "created": self._created,
                "leased": self._leased,
                "free": len(self._free),
                "released": self._released,
                "let_go": self._let_go,
                "still_viewed": self._still_viewed,
            }

    def _check_lease(self, container: FeagiByteContainer) -> None:
        if container._lessor is not self:
            raise LeaseError("this container was not acquired from this pool, or was given back")
        container._refuse_if_closed_for_writing()

    def _take_rested(self) -> FrameBuffer | None:
        """A buffer that was still looked at when it came back, and is not any more."""
        for _ in range(len(self._resting)):
            buffer = self._resting.popleft()
            if buffer.outstanding_views() == 0:
                return buffer
            self._resting.append(buffer)
        return None

    def _take_back(self, container: FeagiByteContainer) -> None:
        container._lessor = None
        buffer = container._detach()
        viewed = buffer is not None and buffer.outstanding_views() > 0
        with self._lock:
            self._leased -= 1
            self._released += 1
            if buffer is not None and viewed:
                self._still_viewed += 1
                self._resting.append(buffer)
            elif buffer is None or len(self._free) >= self._max_free:
                self._let_go += 1
            else:
                self._free.append(buffer)
