# SPDX-License-Identifier: Apache-2.0
"""Addresses, ports and the configuration file of one engine.

Besides the ports it is configured with, the engine takes fixed ones for further agents (5566 to
5572, 5574 to 5588 were seen), so two engines on one address collide whatever their configuration.
Linux's loopback is a network of 16 million addresses: each engine gets one to itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from tools.engine.errors import EngineUnavailableError

# Bound, never listened on: who holds it owns the address.
_CLAIM_PORT: Final = 4919
_FIRST_ADDRESS: Final = 0x7F40_0000  # 127.64.0.0
_ADDRESSES: Final = 0x0040_0000  # up to 127.127.255.255
_TRIES: Final = 64
MIN_TIMESTEP_S: Final = 0.001


@dataclass(frozen=True)
class EnginePorts:
    """The TCP ports the engine is configured with. The data ports are those of the first agent."""

    rest: int
    registration: int
    sensory: int
    motor: int
    visualization: int
    websocket_registration: int
    websocket_sensory: int
    websocket_motor: int
    websocket_visualization: int


# What the engine takes when nothing else is said.
FEAGI_PORTS: Final = EnginePorts(8000, 30001, 5558, 5564, 5562, 9053, 9051, 9052, 9050)


def free_ports(host: str) -> EnginePorts:
    """Ports that are free on `host` at this moment, all different."""
    with contextlib.ExitStack() as stack:
        chosen = []
        for _ in fields(EnginePorts):
            probe = stack.enter_context(socket.socket())
            probe.bind((host, 0))
            chosen.append(int(probe.getsockname()[1]))
    return EnginePorts(*chosen)


class OwnAddress:
    """An address of the loopback that no other engine on this machine has. Close it at the end."""

    def __init__(self) -> None:
        """Take one. Raises EngineUnavailableError where the loopback has only 127.0.0.1."""
        for attempt in range(_TRIES):
            # Processes start at different places, so that they seldom meet.
            number = _FIRST_ADDRESS + (os.getpid() * _TRIES + attempt) % _ADDRESSES
            # 0 and 255 at the end read like a network and a broadcast address.
            if number & 0xFF in (0, 0xFF):
                continue
            host = socket.inet_ntoa(number.to_bytes(4, "big"))
            claim = socket.socket()
            try:
                claim.bind((host, _CLAIM_PORT))
            except OSError as error:
                claim.close()
                if error.errno != errno.EADDRINUSE:
                    raise EngineUnavailableError(
                        f"no address of the loopback for the engine: {host}: {error}"
                    ) from None
                continue
            self.host = host
            self._claim = claim
            return
        raise EngineUnavailableError(
            f"{_TRIES} addresses of the loopback were tried and all are taken by other engines"
        )

    def close(self) -> None:
        """Leave the address to others."""
        self._claim.close()


def configuration_text(host: str, ports: EnginePorts, timestep_s: float) -> str:
    """The engine's feagi_configuration.toml: everything on `host`, nothing on the network.

    `timestep_s` is the length of a burst until a genome is loaded, which brings its own.
    """
    if not timestep_s >= MIN_TIMESTEP_S:
        raise ValueError(f"timestep_s is {timestep_s}; it must be at least {MIN_TIMESTEP_S}")
    both = f'bind_host = "{host}"\nadvertised_host = "{host}"\n'
    return (
        f"[api]\n{both}port = {ports.rest}\n\n"
        f"[agent]\n{both}registration_port = {ports.registration}\n"
        "auto_create_missing_cortical_areas = true\n\n"
        f"[zmq]\n{both}\n"
        f"[ports]\nzmq_sensory_port = {ports.sensory}\nzmq_motor_port = {ports.motor}\n"
        f"zmq_visualization_port = {ports.visualization}\n\n"
        f"[websocket]\nenabled = true\n{both}"
        f"registration_port = {ports.websocket_registration}\n"
        f"sensory_port = {ports.websocket_sensory}\nmotor_port = {ports.websocket_motor}\n"
        f"visualization_port = {ports.websocket_visualization}\n\n"
        f"[neural]\nburst_engine_timestep = {timestep_s}\n"
    )


def environment(configuration: Path, base: dict[str, str]) -> dict[str, str]:
    """The environment of the engine's process.

    Left out of `base`: FEAGI_*, which would override the configuration file, and LD_*, which
    would bring the machine's libraries to the engine's loader.
    """
    kept = {name: value for name, value in base.items() if not name.startswith(("FEAGI_", "LD_"))}
    return kept | {
        # Areas that an agent asks for are made by the file named here, not by --config.
        "FEAGI_CONFIG_PATH": str(configuration),
        "HOME": str(configuration.parent),
        "NO_COLOR": "1",
    }
