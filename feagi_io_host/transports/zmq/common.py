# SPDX-License-Identifier: Apache-2.0
"""ZMQ sockets: how each is made, with every option in one place, and how frames pass them.

    role           socket  on full                              held at most, frames
    CONTROL        ROUTER  the answer is given up, counted      64 per agent, 8 unread
    SENSORY        PULL    the agent waits                      16
    MOTOR          XPUB    the sender waits (XPUB_NODROP)       16
    VISUALIZATION  XPUB    the sender waits for a newer frame   1

And at an agent, each named AGENT_...:

    CONTROL        DEALER  the message waits in the agent       64, 64 unread
    SENSORY        PUSH    the frame waits for a newer one      16
    MOTOR          SUB     the server waits                     16
    VISUALIZATION  SUB     the server waits                     8

Nothing is handed to a connection that does not stand (ZMQ_IMMEDIATE): what an agent has to say
stays where it can be taken back.

A plain PUB drops without a word when a subscriber is slow, and what is sent before the first
subscription; an XPUB tells of both. On the wire the two are the same.

XPUB knows no CONFLATE; a high-water mark of 1 under a channel that conflates does the same. An
agent reads whatever comes and keeps the newest itself; with a mark of 1 the library would wake its
own thread for every frame that is read, a tenth of a small frame's whole way.
"""

from __future__ import annotations

import enum
import errno
import math
import socket as sockets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import zmq

from feagi_io_host.blocking.listener import bound_socket
from feagi_io_host.core.errors import (
    ConfigError,
    PortBusyError,
    PortError,
    PortPermissionError,
)
from feagi_io_host.core.pool import SharedFBC

if TYPE_CHECKING:
    ZmqContext = zmq.Context[zmq.Socket[bytes]]
    ZmqSocket = zmq.Socket[bytes]

BytesLike = bytes | bytearray | memoryview

# Up to here a copy is as quick as keeping track of memory that the library holds on to: measured
# over TCP, tracking took 1.3 times as long at 128 KB, as long at 512 KB, 0.85 at 3.2 MB.
COPY_LIMIT_BYTES: Final = 256 << 10
# What is received costs nothing to take over; a small piece of a large buffer does.
_TAKE_OVER_BYTES: Final = 64 << 10

# Whoever can reach the control port can fill this many messages of memory for each connection.
_UNREAD_CONTROL: Final = 8
# The library tells the sender's side of room each time that half of them have been read.
_UNREAD_VISUALIZATIONS: Final = 8
_MAX_PORT: Final = 65535
_BACKLOG: Final = 100  # connections that wait to be accepted, as libzmq has it


class Role(enum.Enum):
    """What a socket is for; see the module's tables."""

    CONTROL = "control"
    SENSORY = "sensory"
    MOTOR = "motor"
    VISUALIZATION = "visualization"
    AGENT_CONTROL = "agent's control"
    AGENT_SENSORY = "agent's sensory"
    AGENT_MOTOR = "agent's motor"
    AGENT_VISUALIZATION = "agent's visualization"


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """What can be set of a server's or an agent's sockets. Raises ConfigError for numbers that do
    not fit.

    `zmtp_heartbeat_s` is how often a connection is asked for a sign of life; without one for
    three times as long it is closed. `keepalive_idle_s` is the same on the level of TCP.
    `kernel_buffer_bytes` is asked of the system for each direction (None: the system's own).
    `control_linger_s` is how long last answers may take to leave after a stop.
    """

    zmtp_heartbeat_s: float = 5.0
    keepalive_idle_s: int = 30
    kernel_buffer_bytes: int | None = None
    control_linger_s: float = 0.2
    control_frames: int = 64
    sensory_frames: int = 16
    motor_frames: int = 16

    def __post_init__(self) -> None:
        for name in ("zmtp_heartbeat_s", "keepalive_idle_s", "control_frames", "sensory_frames",
                     "motor_frames"):  # fmt: skip
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}; a number above 0 is needed")
        if not 0.0 <= self.control_linger_s < float("inf"):
            raise ConfigError(f"control_linger_s is {self.control_linger_s}; 0 or more is needed")
        if self.kernel_buffer_bytes is not None and self.kernel_buffer_bytes < 1:
            raise ConfigError(
                f"kernel_buffer_bytes is {self.kernel_buffer_bytes}; at least 1, or None for the "
                "system's own, is needed"
            )


_KINDS: Final[Mapping[Role, int]] = MappingProxyType(
    {
        Role.CONTROL: zmq.ROUTER,
        Role.SENSORY: zmq.PULL,
        Role.MOTOR: zmq.XPUB,
        Role.VISUALIZATION: zmq.XPUB,
        Role.AGENT_CONTROL: zmq.DEALER,
        Role.AGENT_SENSORY: zmq.PUSH,
        Role.AGENT_MOTOR: zmq.SUB,
        Role.AGENT_VISUALIZATION: zmq.SUB,
    }
)


_LINGERING: Final = frozenset({Role.CONTROL, Role.AGENT_CONTROL})


def open_socket(
    context: ZmqContext, role: Role, options: SocketOptions, max_message_bytes: int
) -> ZmqSocket:
    """A socket for `role`, neither bound nor connected yet.

    A peer that sends a part of more than `max_message_bytes` is disconnected before memory is
    taken for it. Raises PortError when the process can have no more sockets.
    """
    frames = {
        Role.CONTROL: options.control_frames,
        Role.SENSORY: options.sensory_frames,
        Role.MOTOR: options.motor_frames,
        Role.VISUALIZATION: 1,
        Role.AGENT_CONTROL: options.control_frames,
        Role.AGENT_SENSORY: options.sensory_frames,
        Role.AGENT_MOTOR: options.motor_frames,
        Role.AGENT_VISUALIZATION: _UNREAD_VISUALIZATIONS,
    }[role]
    heartbeat_ms = max(int(options.zmtp_heartbeat_s * 1000), 1)
    settings: dict[int, int | bytes] = {
        zmq.LINGER: int(options.control_linger_s * 1000) if role in _LINGERING else 0,
        zmq.SNDHWM: frames,
        zmq.RCVHWM: frames,
        zmq.MAXMSGSIZE: max_message_bytes,
        zmq.IMMEDIATE: 1,
        zmq.HEARTBEAT_IVL: heartbeat_ms,
        zmq.HEARTBEAT_TIMEOUT: 3 * heartbeat_ms,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: options.keepalive_idle_s,
    }
    if options.kernel_buffer_bytes is not None:
        settings[zmq.SNDBUF] = settings[zmq.RCVBUF] = options.kernel_buffer_bytes
    if role is Role.CONTROL:
        # An answer that cannot be delivered is an error to count, not a silent loss.
        settings[zmq.ROUTER_MANDATORY] = 1
        # An agent that comes back under an identity it has chosen is heard at once, not only when
        # its old connection has been seen to end. Without a chosen one nobody can be mistaken:
        # identities that the library gives out cannot be chosen.
        settings[zmq.ROUTER_HANDOVER] = 1
        settings[zmq.RCVHWM] = min(frames, _UNREAD_CONTROL)
        settings[zmq.SNDTIMEO] = 0
    elif role in (Role.MOTOR, Role.VISUALIZATION):
        settings[zmq.XPUB_NODROP] = 1
        settings[zmq.XPUB_VERBOSER] = 1  # each subscriber that comes or goes is told of
    elif role in (Role.AGENT_MOTOR, Role.AGENT_VISUALIZATION):
        settings[zmq.SUBSCRIBE] = b""  # this wire has no topics
    try:
        socket = context.socket(_KINDS[role])
    except zmq.ZMQError as error:
        raise PortError(
            f"no {role.value} socket: {error}; the process has all it can have: raise its limit "
            "of open files or let fewer agents in"
        ) from error
    for option, value in settings.items():
        socket.setsockopt(option, value)
    return socket


def endpoint_url(address: str, port: int | str) -> str:
    """The URL of a TCP endpoint; an IPv6 address goes into brackets."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def bind(socket: ZmqSocket, address: str, port: int) -> int:
    """Bind to `address` and return the port; 0 takes any free one.

    Raises PortBusyError, PortPermissionError, PortError when the process can have no more open
    files or, for an address that is none of this machine's, ConfigError.
    """
    if not 0 <= port <= _MAX_PORT:
        raise ConfigError(f"port {port}; 0 (any) to {_MAX_PORT} are possible")
    if ":" in address:
        socket.setsockopt(zmq.IPV6, 1)
    url = endpoint_url(address, port or "*")
    try:
        listener = _listen(socket, address, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortBusyError(
                f"{url} is in use; end the program that holds it or choose another port (0 takes "
                "any free one)"
            ) from error
        if error.errno == errno.EACCES:
            raise PortPermissionError(
                f"{url} is not permitted to this user; choose a port of 1024 or more"
            ) from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise PortError(
                f"{url}: {error}; the process has all it can have: raise its limit of open files "
                "or let fewer agents in"
            ) from error
        raise ConfigError(
            f"{url} cannot be bound: {error}; the address must be one of this machine's"
        ) from error
    # From here on it is the library's own. The URL is not looked at.
    socket.setsockopt(zmq.USE_FD, listener.detach())
    socket.bind(url)
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return int(bound.rstrip(b"\0").rpartition(b":")[2])


def _listen(socket: ZmqSocket, address: str, port: int) -> sockets.socket:
    """A listening TCP socket with the buffer sizes of `socket`.

    Made here and not by libzmq 4.3.5, which looks through the machine's interfaces at each bind
    and ends the process (ip_resolver.cpp:542) when it has no descriptor left to do so: peers that
    open connections until none is left must not be able to bring that about. Raises OSError.
    """
    buffers = {}
    for ours, theirs in ((sockets.SO_SNDBUF, zmq.SNDBUF), (sockets.SO_RCVBUF, zmq.RCVBUF)):
        size = socket.getsockopt(theirs)
        assert isinstance(size, int)
        if size >= 0:
            buffers[ours] = size
    listener = bound_socket(address, port, buffers)
    try:
        listener.setblocking(False)  # a peer may be gone again before it is accepted
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def send_frame(socket: ZmqSocket, fbc: SharedFBC, flags: int = 0) -> zmq.MessageTracker | None:
    """Send one FBC as one message of one part. The caller keeps its own lease.

    Above COPY_LIMIT_BYTES nothing is copied: the tracker says when the library is done with the
    memory, and until then the caller must keep its lease. Raises zmq.Again after the socket's
    SNDTIMEO, at once with zmq.DONTWAIT among the `flags`.
    """
    return send_message(socket, fbc.view, flags)


def send_message(
    socket: ZmqSocket, message: BytesLike, flags: int = 0
) -> zmq.MessageTracker | None:
    """As `send_frame`, for a message that is there already."""
    if len(message) <= COPY_LIMIT_BYTES:
        socket.send(message, flags)
        return None
    return socket.send(message, flags, copy=False, track=True)


def receive_parts(socket: ZmqSocket, most: int, most_read: float = math.inf) -> list[zmq.Frame]:
    """One message that waits: its first `most` parts; further ones are read and let go.

    After `most_read` parts the rest is left for the next call, which takes it for a message: only
    where a message of several parts is refused anyway. Raises zmq.Again when none waits.
    """
    parts: list[zmq.Frame] = []
    read = 0
    while True:
        part = socket.recv(zmq.DONTWAIT, copy=False)
        read += 1
        if len(parts) < most:
            parts.append(part)
        if not part.more or read >= most_read:
            return parts


def frame_bytes(part: zmq.Frame) -> Any:
    """The content of a part: copied when small, else the library's own memory."""
    return part.bytes if len(part) <= _TAKE_OVER_BYTES else part.buffer
