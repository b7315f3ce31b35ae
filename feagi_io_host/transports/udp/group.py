# SPDX-License-Identifier: Apache-2.0
"""GroupSettings: the multicast group that viewers listen to."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from feagi_io_host.core.errors import ConfigError, PortError
from feagi_io_host.transports.udp.address import refuse_unless_group
from feagi_io_host.transports.udp.sockets import send_to_group


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Where viewers listen. `ttl`: networks that may be crossed; `interface`: an address of this
    machine to send from and the one that viewers join by, None for the system's choice. Raises
    ConfigError."""

    group: str
    port: int
    ttl: int = 1
    interface: str | None = None

    def __post_init__(self) -> None:
        refuse_unless_group(self.group)
        if not 1 <= self.port <= 0xFFFF:
            raise ConfigError(f"multicast port is {self.port}; 1 to 65535 needed")
        if not 0 <= self.ttl <= 255:
            raise ConfigError(f"multicast ttl is {self.ttl}; 0 to 255 needed")

    def prepare(self, sock: socket.socket) -> None:
        """Set a socket up for sending to the group. Raises PortError, ConfigError."""
        try:
            send_to_group(sock, ttl=self.ttl, interface=self.interface)
        except OSError as error:
            raise PortError(
                f"multicast to {self.group} by {self.interface}: {error.strerror}"
            ) from error
