# SPDX-License-Identifier: Apache-2.0
"""Boards on one side, the PNS on the other."""

from feagi_io_host.bridge.board import BoardBridge
from feagi_io_host.bridge.declaration import BoardDeclaration, UnitDeclaration
from feagi_io_host.bridge.engine_agent import EngineState, EngineStateChanged
from feagi_io_host.bridge.engine_areas import AreaMismatch, mismatched_areas
from feagi_io_host.bridge.engine_relay import EngineRelay
from feagi_io_host.bridge.events import BoardDown, BoardLog, BoardProblem, BoardUp

__all__ = [
    "AreaMismatch",
    "BoardBridge",
    "BoardDeclaration",
    "BoardDown",
    "BoardLog",
    "BoardProblem",
    "BoardUp",
    "EngineRelay",
    "EngineState",
    "EngineStateChanged",
    "UnitDeclaration",
    "mismatched_areas",
]
