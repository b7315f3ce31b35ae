# SPDX-License-Identifier: Apache-2.0
"""Where the data streams of agents go: sockets on ports that are handed out and taken back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import PortBusyError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.transports.zmq.common import (
    Role,
    SocketOptions,
    bind,
    endpoint_url,
    open_socket,
)

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqContext, ZmqSocket

_log = logging.getLogger("feagi_io.zmq")

_ROLES: Final = {
    AgentCapabilities.SEND_SENSOR_DATA: Role.SENSORY,
    AgentCapabilities.RECEIVE_MOTOR_DATA: Role.MOTOR,
    AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: Role.VISUALIZATION,
}


class Slot:
    """One bound socket of one agent. Belongs to one thread at a time, which closes it."""

    __slots__ = ("_free_ports", "_port", "socket")

    def __init__(self, socket: ZmqSocket, port: int, free_ports: deque[int] | None) -> None:
        self.socket = socket
        self._port = port
        self._free_ports = free_ports

    def close(self) -> None:
        """Close the socket, then give its port back; once."""
        self.socket.close(0)
        if self._free_ports is not None:
            self._free_ports.append(self._port)


class EndpointSlots:
    """The server's EndpointAllocator: `allocate` binds, `claim` hands the socket on.

    `ports` are those that may be used (None: any free one); one given back is used again last,
    since the system takes a moment to let go of it. Used by the control thread alone.
    """

    def __init__(
        self,
        context: ZmqContext,
        *,
        address: str,
        advertised_address: str,
        ports: Iterable[int] | None,
        options: SocketOptions,
        max_frame_bytes: int,
    ) -> None:
        self._context = context
        self._address = address
        self._advertised = advertised_address
        self._free_ports = None if ports is None else deque(ports)
        self._options = options
        self._max_frame_bytes = max_frame_bytes
        self._unclaimed: dict[tuple[bytes, AgentCapabilities], Slot] = {}

    def allocate(
        self, agent_id: bytes, capability: AgentCapabilities, protocol: ConnectionProtocol
    ) -> str | None:
        """A URL for one stream; None for another protocol than ZMQ or when no port is left."""
        if protocol is not ConnectionProtocol.ZMQ:
            return None
        # What an agent sends is bounded by the transport; what it may say to a publisher is a
        # subscription of some bytes.
        role = _ROLES[capability]
        limit = self._max_frame_bytes if role is Role.SENSORY else 256
        socket = open_socket(self._context, role, self._options, limit)
        try:
            port = self._bind(socket)
        except BaseException:
            socket.close(0)
            raise
        if port is None:
            socket.close(0)
            return None
        self._unclaimed[agent_id, capability] = Slot(socket, port, self._free_ports)
        return endpoint_url(self._advertised, port)

    def claim(self, agent_id: bytes, capability: AgentCapabilities) -> Slot | None:
        """The socket of a stream, to be closed by the caller; None when it has none."""
        return self._unclaimed.pop((agent_id, capability), None)

    def free(self, agent_id: bytes, capability: AgentCapabilities, endpoint: Endpoint) -> None:
        """Take back what was not claimed; the rest is closed by those who did."""
        slot = self.claim(agent_id, capability)
        if slot is not None:
            slot.close()

    def close(self) -> None:
        """Close everything that nobody claimed."""
        while self._unclaimed:
            self._unclaimed.popitem()[1].close()

    def _bind(self, socket: ZmqSocket) -> int | None:
        if self._free_ports is None:
            return bind(socket, self._address, 0)
        for _ in range(len(self._free_ports)):
            port = self._free_ports.popleft()
            try:
                return bind(socket, self._address, port)
            except BaseException as error:
                self._free_ports.append(port)
                if not isinstance(error, PortBusyError):
                    raise
                _log.debug("data port skipped: %s", error)
        return None
