# SPDX-License-Identifier: Apache-2.0
"""FEAGI's peripheral nervous system for CPython: the public names.

Each is imported from its home when first used, so that `import feagi_io_host` costs nothing.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feagi_io_host.agent.async_feagi_agent import AsyncFeagiAgent
    from feagi_io_host.agent.feagi_agent import FeagiAgent
    from feagi_io_host.blocking.transport import BlockingTransport
    from feagi_io_host.bridge import BoardBridge, EngineRelay
    from feagi_io_host.burst.engine import BurstEngine
    from feagi_io_host.burst.reflex import ReflexEngine
    from feagi_io_host.burst.wiring import Reflex, linear_weights
    from feagi_io_host.core.agents import AgentCapabilities
    from feagi_io_host.core.client_actions import AgentState, StateChanged
    from feagi_io_host.core.config import PNSConfig
    from feagi_io_host.core.container import FeagiByteContainer
    from feagi_io_host.core.errors import FeagiDataError, FeagiIOError
    from feagi_io_host.core.events import (
        AgentDisconnected,
        AgentRegistered,
        MotorCommand,
        SensoryData,
        VisualizationReady,
    )
    from feagi_io_host.core.json_struct import FeagiJSON
    from feagi_io_host.core.messages import ConnectionProtocol
    from feagi_io_host.core.pool import BufferPool, SharedFBC
    from feagi_io_host.core.signal import FeagiSignal
    from feagi_io_host.core.types import (
        AgentDescriptor,
        CorticalID,
        FeagiByteStructureType,
        StreamType,
    )
    from feagi_io_host.core.units import DeclaredUnit
    from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
    from feagi_io_host.create import create_pns, create_pns_with_config
    from feagi_io_host.handles import TransportHandle
    from feagi_io_host.nonblocking.transport import NonBlockingTransport
    from feagi_io_host.pns import PNS

# Without a handler of the program's own, warnings would land on standard error by themselves.
logging.getLogger("feagi_io").addHandler(logging.NullHandler())

_HOMES = {
    "AgentCapabilities": "core.agents",
    "AgentDescriptor": "core.types",
    "AgentDisconnected": "core.events",
    "AgentRegistered": "core.events",
    "AgentState": "core.client_actions",
    "AsyncFeagiAgent": "agent.async_feagi_agent",
    "BlockingTransport": "blocking.transport",
    "BoardBridge": "bridge",
    "BufferPool": "core.pool",
    "BurstEngine": "burst.engine",
    "ConnectionProtocol": "core.messages",
    "CorticalID": "core.types",
    "CorticalMappedXYZPNeuronVoxels": "core.voxels",
    "DeclaredUnit": "core.units",
    "EngineRelay": "bridge",
    "FeagiAgent": "agent.feagi_agent",
    "FeagiByteContainer": "core.container",
    "FeagiByteStructureType": "core.types",
    "FeagiDataError": "core.errors",
    "FeagiIOError": "core.errors",
    "FeagiJSON": "core.json_struct",
    "FeagiSignal": "core.signal",
    "MotorCommand": "core.events",
    "NeuronVoxelXYZPArrays": "core.voxels",
    "NonBlockingTransport": "nonblocking.transport",
    "PNS": "pns",
    "PNSConfig": "core.config",
    "Reflex": "burst.wiring",
    "ReflexEngine": "burst.reflex",
    "SensoryData": "core.events",
    "SharedFBC": "core.pool",
    "StateChanged": "core.client_actions",
    "StreamType": "core.types",
    "TransportHandle": "handles",
    "VisualizationReady": "core.events",
    "create_pns": "create",
    "create_pns_with_config": "create",
    "linear_weights": "burst.wiring",
}

__all__ = [
    "PNS",
    "AgentCapabilities",
    "AgentDescriptor",
    "AgentDisconnected",
    "AgentRegistered",
    "AgentState",
    "AsyncFeagiAgent",
    "BlockingTransport",
    "BoardBridge",
    "BufferPool",
    "BurstEngine",
    "ConnectionProtocol",
    "CorticalID",
    "CorticalMappedXYZPNeuronVoxels",
    "DeclaredUnit",
    "EngineRelay",
    "FeagiAgent",
    "FeagiByteContainer",
    "FeagiByteStructureType",
    "FeagiDataError",
    "FeagiIOError",
    "FeagiJSON",
    "FeagiSignal",
    "MotorCommand",
    "NeuronVoxelXYZPArrays",
    "NonBlockingTransport",
    "PNSConfig",
    "Reflex",
    "ReflexEngine",
    "SensoryData",
    "SharedFBC",
    "StateChanged",
    "StreamType",
    "TransportHandle",
    "VisualizationReady",
    "create_pns",
    "create_pns_with_config",
    "linear_weights",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
