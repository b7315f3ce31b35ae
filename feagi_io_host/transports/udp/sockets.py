# SPDX-License-Identifier: Apache-2.0
"""What a UDP socket is set to: buffers, the path's MTU, multicast.

A burst of 3.2 MB arrives faster than a sleeping receiver wakes up, so the kernel has to hold it:
2 MiB asked for were enough on loopback, the usual 208 KiB lose a half. What the kernel grants is
twice what was asked for, since it counts its own bookkeeping.
"""

from __future__ import annotations

import logging
import socket
import sys
from dataclasses import dataclass
from typing import Final, Literal

from feagi_io_host.core.errors import ConfigError

logger = logging.getLogger("feagi_io.udp")

DEFAULT_BUFFER_BYTES: Final = 4 << 20

# Numbers of Linux that Python's socket module does not name.
_SO_SNDBUFFORCE: Final = 32
_SO_RCVBUFFORCE: Final = 33
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_PMTUDISC_DONT: Final = 0
_PMTUDISC_DO: Final = 2
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24


@dataclass(frozen=True, slots=True)
class BufferGrant:
    """What the kernel grants of a buffer. `advice` is the line that would raise its limit, None
    when nothing is missing."""

    name: str
    asked_bytes: int
    granted_bytes: int
    advice: str | None


def size_buffer(
    sock: socket.socket, name: Literal["receive", "send"], asked_bytes: int
) -> BufferGrant:
    """Set one of the two buffers of a socket, past the system's limit where that is
    allowed; warns with the line to run when the kernel grants less."""
    receiving = name == "receive"
    option = socket.SO_RCVBUF if receiving else socket.SO_SNDBUF
    force = _SO_RCVBUFFORCE if receiving else _SO_SNDBUFFORCE
    forced = False
    if sys.platform.startswith("linux"):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, asked_bytes)
            forced = True
        except OSError:
            logger.debug("%s buffer: no right to pass the system's limit", name)
    if not forced:
        sock.setsockopt(socket.SOL_SOCKET, option, asked_bytes)
    granted = sock.getsockopt(socket.SOL_SOCKET, option)
    if sys.platform.startswith("linux"):
        granted //= 2  # it doubles what it is asked for, and tells the double
    advice = None
    if granted < asked_bytes:
        limit = "net.core.rmem_max" if receiving else "net.core.wmem_max"
        advice = f"sysctl -w {limit}={asked_bytes}"
        logger.warning(
            "UDP %s buffer of %d bytes asked for, %d granted: bursts will be lost; run: %s",
            name,
            asked_bytes,
            granted,
            advice,
        )
    return BufferGrant(name, asked_bytes, granted, advice)


def forbid_ip_fragments(sock: socket.socket, forbid: bool = True) -> bool:
    """Send with "do not fragment", so that a datagram above the path's MTU is an error here
    instead of 2 or more packets on the way, of which the loss of one costs all. False where the
    system has no such option."""
    if not sys.platform.startswith("linux"):
        return False
    value = _PMTUDISC_DO if forbid else _PMTUDISC_DONT
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, value)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, value)
    return True


def path_datagram_bytes(sock: socket.socket) -> int | None:
    """The largest datagram that the path of a connected socket takes, as far as the kernel knows;
    None where it does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        if sock.family == socket.AF_INET6:
            return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU) - 48
        return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU) - 28
    except OSError:
        return None


def send_to_group(
    sock: socket.socket, *, ttl: int = 1, interface: str | None = None, loop: bool = True
) -> None:
    """Set an IPv4 socket up for sending to a multicast group. `ttl`: networks that it may cross,
    1 for this one alone. `interface`: an address of this machine, None for the system's choice.
    `loop`: whether listeners on this machine get it too. Raises ConfigError."""
    if not 0 <= ttl <= 255:
        raise ConfigError(f"multicast ttl is {ttl}; 0 to 255 needed")
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loop))
    if interface is not None:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _ipv4(interface))


def join_group(sock: socket.socket, group: str, interface: str | None = None) -> None:
    """Receive what is sent to an IPv4 multicast group, through the interface with this address.
    Raises ConfigError for addresses that are none."""
    address = _ipv4(group)
    if not 224 <= address[0] <= 239:
        raise ConfigError(f"{group} is no multicast group; 224.0.0.0 to 239.255.255.255 are")
    own = _ipv4("0.0.0.0" if interface is None else interface)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, address + own)


def _ipv4(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        raise ConfigError(f"{text!r} is no IPv4 address") from None
