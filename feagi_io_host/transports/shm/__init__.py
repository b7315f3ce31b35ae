# SPDX-License-Identifier: Apache-2.0
"""Shared memory between processes of one machine, or containers with one /dev/shm."""

from feagi_io_host.transports.shm.agent import ShmAgent
from feagi_io_host.transports.shm.blocking_impl import ShmInvitation, ShmTransport
from feagi_io_host.transports.shm.direct import (
    NeuralActivity,
    ShmDirectReader,
    ShmDirectTransport,
)
from feagi_io_host.transports.shm.engine_latest import EngineLatestReader, EngineLatestWriter
from feagi_io_host.transports.shm.engine_ring import (
    EngineRing,
    EngineRingReader,
    EngineRingWriter,
)
from feagi_io_host.transports.shm.header import ShmMode
from feagi_io_host.transports.shm.names import why_unavailable
from feagi_io_host.transports.shm.nonblocking_impl import AsyncShmTransport
from feagi_io_host.transports.shm.reader import RingReader, ShmFrame, WriterState
from feagi_io_host.transports.shm.ring import RingWriter, in_order, newest_wins
from feagi_io_host.transports.shm.stream_end import shm_stream_end

__all__ = [
    "ShmTransport",
    "AsyncShmTransport",
    "ShmInvitation",
    "ShmAgent",
    "ShmMode",
    "ShmDirectTransport",
    "ShmDirectReader",
    "NeuralActivity",
    "RingWriter",
    "RingReader",
    "ShmFrame",
    "WriterState",
    "newest_wins",
    "in_order",
    "EngineRing",
    "EngineRingReader",
    "EngineRingWriter",
    "EngineLatestReader",
    "EngineLatestWriter",
    "why_unavailable",
    "shm_stream_end",
]
