# SPDX-License-Identifier: Apache-2.0
"""Agents in this very process, with losses and delays that happen the same way every time."""

from feagi_io_host.transports.virtual.blocking_impl import VirtualAgent, VirtualTransport
from feagi_io_host.transports.virtual.nonblocking_impl import (
    AsyncVirtualAgent,
    AsyncVirtualTransport,
)
from feagi_io_host.transports.virtual.patterns import Impairment

__all__ = [
    "AsyncVirtualAgent",
    "AsyncVirtualTransport",
    "Impairment",
    "VirtualAgent",
    "VirtualTransport",
]
