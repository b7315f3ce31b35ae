# SPDX-License-Identifier: Apache-2.0
"""Where the data streams of agents go: sockets on ports that are handed out and taken back."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import StreamCarrier
from feagi_io_host.core.endpoints import CAPABILITY_OF, STREAM_OF
from feagi_io_host.core.errors import ConfigError, PortBusyError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.zmq.common import (
    Role,
    SocketOptions,
    bind,
    endpoint_url,
    open_socket,
)
from feagi_io_host.transports.zmq.connection_guard import (
    ConnectionGuard,
    PortGuard,
    publisher_rule,
    sensory_rule,
)

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqContext, ZmqSocket

_log = logging.getLogger("feagi_io.zmq")

_ROLES: Final = {
    StreamType.SENSORY: Role.SENSORY,
    StreamType.MOTOR: Role.MOTOR,
    StreamType.VISUALIZATION: Role.VISUALIZATION,
}
_MAX_PORT: Final = 65535
# A socket is closed behind the scenes: so long its port may still be taken by ourselves.
_CLOSING_S: Final = 2.0


class Slot:
    """One bound socket of one agent. Belongs to one thread at a time, which closes it."""

    __slots__ = ("_give_back", "_port", "guard", "socket")

    def __init__(
        self,
        socket: ZmqSocket,
        port: int,
        guard: PortGuard,
        give_back: Callable[[int], object],
    ) -> None:
        self.socket = socket
        self.guard = guard
        self._port = port
        self._give_back = give_back

    def close(self) -> None:
        """Close the socket, then give its port back; once."""
        self.guard.close()
        self.socket.close(0)
        self._give_back(self._port)


class EndpointSlots:
    """The server's EndpointAllocator: `allocate` binds, `claim` hands the socket on. Thread-safe.
    The connections of every socket are looked at by `guard`.

    `ports` are those that may be used (None: any free one); one given back is used again last,
    since the system takes a moment to let go of it. `preferred_ports` are tried first, one for
    each stream; who comes second gets another.
    """

    def __init__(
        self,
        context: ZmqContext,
        guard: ConnectionGuard,
        *,
        address: str,
        advertised_address: str,
        ports: Iterable[int] | None,
        options: SocketOptions,
        max_frame_bytes: int,
        preferred_ports: Mapping[StreamType, int] | None = None,
    ) -> None:
        self._context = context
        self._guard = guard
        self._address = address
        self._advertised = advertised_address
        self._free_ports = None if ports is None else deque(ports)
        self._own_ports = frozenset(self._free_ports or ())
        self._options = options
        self._max_frame_bytes = max_frame_bytes
        self._preferred = dict(preferred_ports or {})
        self._lock = threading.Lock()
        self._held: set[int] = set()
        self._let_go_at_s: dict[int, float] = {}
        self._warned: set[StreamType] = set()
        self._closed = False
        self._unclaimed: dict[tuple[bytes, AgentCapabilities], Slot] = {}

    def allocate(
        self, agent_id: bytes, capability: AgentCapabilities, protocol: ConnectionProtocol
    ) -> Endpoint | None:
        """Where one stream goes; None for another protocol than ZMQ, when no port is left and
        after `close`."""
        if protocol is not ConnectionProtocol.ZMQ:
            return None
        stream = STREAM_OF[capability]
        # What an agent sends is bounded by the transport; what it may say to a publisher is a
        # subscription of some bytes.
        limit = self._max_frame_bytes if stream is StreamType.SENSORY else 256
        with self._lock:
            if self._closed:
                return None
            socket = open_socket(self._context, _ROLES[stream], self._options, limit)
            try:
                port = self._bind(socket, stream)
            except BaseException:
                socket.close(0)
                raise
            if port is None:
                socket.close(0)
                return None
            self._held.add(port)
            sensory = stream is StreamType.SENSORY
            guard = self._guard.watch(
                socket, sensory_rule(limit) if sensory else publisher_rule(stream.value)
            )
            self._unclaimed[agent_id, capability] = Slot(socket, port, guard, self._give_back)
        return Endpoint(ConnectionProtocol.ZMQ, endpoint_url(self._advertised, port))

    def claim(self, agent_id: bytes, capability: AgentCapabilities) -> Slot | None:
        """The socket of a stream, to be closed by the caller; None when it has none."""
        with self._lock:
            return self._unclaimed.pop((agent_id, capability), None)

    def free(self, agent_id: bytes, capability: AgentCapabilities, endpoint: Endpoint) -> None:
        """Take back what was not claimed; the rest is closed by those who did."""
        self.withdraw(agent_id, capability)

    def withdraw(self, agent_id: bytes, capability: AgentCapabilities) -> None:
        """As `free`, for who does not know the endpoint."""
        slot = self.claim(agent_id, capability)
        if slot is not None:
            slot.close()

    def close(self) -> None:
        """Close everything that nobody claimed, and hand out no more."""
        with self._lock:
            self._closed = True
            left = tuple(self._unclaimed.values())
            self._unclaimed.clear()
        for slot in left:
            slot.close()

    def _bind(self, socket: ZmqSocket, stream: StreamType) -> int | None:
        preferred = self._preferred.get(stream)
        if preferred is not None and preferred not in self._held:
            try:
                port = bind(socket, self._address, preferred)
            except PortBusyError as error:
                self._warn_once(stream, preferred, error)
            else:
                if self._free_ports is not None and port in self._free_ports:
                    self._free_ports.remove(port)
                return port
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

    def _warn_once(self, stream: StreamType, port: int, error: PortBusyError) -> None:
        ours = time.monotonic() - self._let_go_at_s.get(port, float("-inf")) < _CLOSING_S
        if ours or stream in self._warned:
            return
        self._warned.add(stream)
        _log.warning(
            "%s: %s; agents get other ports for it, as their registration tells them",
            stream.value, error,
        )  # fmt: skip

    def _give_back(self, port: int) -> None:
        with self._lock:
            self._held.discard(port)
            if port in self._preferred.values():
                self._let_go_at_s[port] = time.monotonic()
            if self._free_ports is not None and port in self._own_ports:
                self._free_ports.append(port)


def refuse_unfit_streams(
    carriers: Mapping[StreamType, StreamCarrier],
    preferred_ports: Mapping[StreamType, int],
    control_port: int | None,
) -> None:
    """Raise ConfigError for streams or ports that a transport cannot be asked for."""
    for stream in (*carriers, *preferred_ports):
        if stream not in CAPABILITY_OF:
            raise ConfigError(
                f"stream {stream.value!r} in carriers or preferred_ports; only sensory, motor and "
                "visualization have an endpoint of their own"
            )
    taken = {control_port: "control_port"} if control_port else {}
    for stream, port in preferred_ports.items():
        if not 1 <= port <= _MAX_PORT:
            raise ConfigError(f"preferred port {port} of {stream.value}; 1 to {_MAX_PORT} possible")
        if port in taken:
            raise ConfigError(
                f"preferred port {port} of {stream.value} is {taken[port]} already; give each its "
                "own"
            )
        taken[port] = f"that of {stream.value}"
