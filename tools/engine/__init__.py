# SPDX-License-Identifier: Apache-2.0
"""The real FEAGI engine as a tool: installed once, started and stopped at will.

`find_or_install` brings the engine to this machine, `Engine` runs one, `python -m tools.engine`
runs one for people.
"""

from tools.engine.engine import Engine
from tools.engine.errors import EngineFailedError, EngineRestError, EngineUnavailableError
from tools.engine.installation import ENGINE_VERSION, Installation, find_or_install
from tools.engine.namespace import NetworkNamespace
from tools.engine.settings import FEAGI_PORTS, EnginePorts, OwnAddress, free_ports

__all__ = [
    "ENGINE_VERSION",
    "Installation",
    "find_or_install",
    "Engine",
    "EnginePorts",
    "FEAGI_PORTS",
    "free_ports",
    "OwnAddress",
    "NetworkNamespace",
    "EngineUnavailableError",
    "EngineFailedError",
    "EngineRestError",
]
