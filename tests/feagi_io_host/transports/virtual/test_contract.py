# SPDX-License-Identifier: Apache-2.0
"""The virtual transport keeps the contract in both paradigms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from feagi_io_host.testing import (
    AsyncRig,
    BlockingRig,
    CancellationContract,
    Rig,
    TransportContract,
)
from feagi_io_host.transports.virtual import AsyncVirtualTransport, VirtualTransport

MAX_FRAME_BYTES = 4096


def blocking_rig() -> Rig:
    return BlockingRig(
        lambda host: VirtualTransport(host, max_frame_bytes=MAX_FRAME_BYTES),
        VirtualTransport.connect,
    )


def nonblocking_rig() -> Rig:
    return AsyncRig(
        lambda host: AsyncVirtualTransport(host, max_frame_bytes=MAX_FRAME_BYTES),
        AsyncVirtualTransport.connect,
    )


class TestVirtual(TransportContract):
    @pytest.fixture(params=[blocking_rig, nonblocking_rig])
    def rig(self, request: pytest.FixtureRequest) -> Iterator[Rig]:
        rig: Rig = request.param()
        yield rig
        rig.close()


class TestVirtualCancelled(CancellationContract):
    @pytest.fixture
    def rig(self) -> Iterator[Rig]:
        rig = nonblocking_rig()
        yield rig
        rig.close()
