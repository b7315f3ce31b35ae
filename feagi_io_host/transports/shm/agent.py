# SPDX-License-Identifier: Apache-2.0
"""ShmAgent: the far end of shared-memory streams, in whatever process the agent lives."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from feagi_io_host.blocking.transport import DEFAULT_MAX_FRAME_BYTES
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import FeagiDataError, LocalError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.transports.shm.intake import SensoryLine
from feagi_io_host.transports.shm.names import SHM_FOLDER
from feagi_io_host.transports.shm.reader import RingReader, ShmFrame
from feagi_io_host.transports.shm.ring import newest_wins


class ShmAgent:
    """Sends and receives through the endpoints that registration gave, one `shm://` each.

    One thread or task per stream at a time; `close` from any. `damaged` counts frames that came
    and were no containers.
    """

    def __init__(
        self,
        endpoints: Mapping[AgentCapabilities, str],
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        folder: Path = SHM_FOLDER,
    ) -> None:
        """Raises RemoteError when an endpoint is gone or none, LocalError where there is no shared
        memory."""
        self.damaged = 0
        self._sensory: SensoryLine | None = None
        self._readers: dict[AgentCapabilities, RingReader] = {}
        try:
            for capability, url in endpoints.items():
                if capability is AgentCapabilities.SEND_SENSOR_DATA:
                    shape = newest_wins(max_frame_bytes, max_readers=1)
                    self._sensory = SensoryLine(url, shape, folder)
                else:
                    self._readers[capability] = RingReader(url, folder=folder)
        except BaseException:
            self.close()
            raise

    @property
    def overtaken(self) -> int:
        """Visualization frames that a newer one replaced in shared memory before they were
        taken."""
        return sum(reader.skipped for reader in self._readers.values())

    def send_sensory(self, frame: SharedFBC | bytes | memoryview) -> None:
        """Send what was sensed, in the place of what the host has not taken yet. Never waits.

        Raises LocalError above `max_frame_bytes` or without a sensory endpoint, ClosedError when
        either end is closed.
        """
        if self._sensory is None:
            raise LocalError("this agent has no sensory endpoint; ask for SEND_SENSOR_DATA")
        self._sensory.send(frame.view if isinstance(frame, SharedFBC) else frame)

    def receive_motor(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The next motor frame, with a lease for the caller; None when `timeout_s` passed first.

        A copy: a command that is kept must not hold up the ones after it. None waits for ever, 0
        does not wait. Raises ClosedError when either end is closed or the host died.
        """
        return self._receive(AgentCapabilities.RECEIVE_MOTOR_DATA, timeout_s)

    def receive_visualization(self, timeout_s: float | None = None) -> SharedFBC | None:
        """The newest visualization frame, a view of the host's memory; otherwise as
        `receive_motor`. Release it soon."""
        return self._receive(AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS, timeout_s)

    async def receive_motor_async(self, timeout_s: float | None = None) -> SharedFBC | None:
        """As `receive_motor`, waiting in the running event loop."""
        return await self._receive_async(AgentCapabilities.RECEIVE_MOTOR_DATA, timeout_s)

    async def receive_visualization_async(self, timeout_s: float | None = None) -> SharedFBC | None:
        """As `receive_visualization`, waiting in the running event loop."""
        return await self._receive_async(AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS, timeout_s)

    def close(self) -> None:
        """End every stream; may be called more than once."""
        if self._sensory is not None:
            self._sensory.close()
        for reader in self._readers.values():
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _receive(self, capability: AgentCapabilities, timeout_s: float | None) -> SharedFBC | None:
        reader = self._reader(capability)
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if until_s is None else max(until_s - time.monotonic(), 0.0)
            frame = reader.take(left_s)
            if frame is None:
                return None
            fbc = self._container(capability, frame)
            if fbc is not None:
                return fbc

    async def _receive_async(
        self, capability: AgentCapabilities, timeout_s: float | None
    ) -> SharedFBC | None:
        reader = self._reader(capability)
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if until_s is None else max(until_s - time.monotonic(), 0.0)
            frame = await reader.take_async(left_s)
            if frame is None:
                return None
            fbc = self._container(capability, frame)
            if fbc is not None:
                return fbc

    def _reader(self, capability: AgentCapabilities) -> RingReader:
        reader = self._readers.get(capability)
        if reader is None:
            raise LocalError(f"this agent has no endpoint for it; ask for {capability.name}")
        return reader

    def _container(self, capability: AgentCapabilities, frame: ShmFrame) -> SharedFBC | None:
        with frame:
            keeps = capability is AgentCapabilities.RECEIVE_MOTOR_DATA
            try:
                return SharedFBC.from_bytes(bytes(frame.view) if keeps else frame.view)
            except FeagiDataError:
                self.damaged += 1
                return None
