# SPDX-License-Identifier: Apache-2.0
"""How a WebRTC connection is made and kept."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import ClassVar, Final
from urllib.parse import unquote

from aiortc import RTCIceServer
from aiortc.rtcicetransport import parse_stun_turn_uri

from feagi_io_host.core.carrier_settings import CarrierSettings
from feagi_io_host.core.datagram import HEADER_BYTES, MIN_SHARE_BYTES
from feagi_io_host.core.errors import ConfigError

EVERY_ADDRESS: Final = "*"
# What the library takes, and with it every peer of this library.
MAX_MESSAGE_BYTES: Final = 65_536
MIN_MESSAGE_BYTES: Final = HEADER_BYTES + MIN_SHARE_BYTES


@dataclass(frozen=True, slots=True)
class WebRtcSettings(CarrierSettings):
    """Addresses, servers and seconds. Raises ConfigError for what does not fit.

    `addresses` are those of this machine that are offered to the other end, as numbers; "*" is
    all of them but loopback. With none but loopback only this machine's programs can connect.

    `ice_servers` tell what a machine is called outside its network (`stun:host:port`) or relay
    (`turn:user:password@host:port`, `turns:...`; user and password with %-escapes). Of each kind
    the first is used. On a network of one's own none is needed.

    `connect_timeout_s` is for everything from the offer to open channels. A connection of which
    no sign of life has come for `silence_timeout_s` is over; three are asked for in that time.
    `close_timeout_s` is for letting go of one; while ICE servers are asked it may take the second
    more that they have.

    `message_bytes` is the largest message of a channel; what the other end takes may be less.
    """

    kind: ClassVar[str] = "WebRTC"

    addresses: tuple[str, ...] = ("127.0.0.1",)
    ice_servers: tuple[str, ...] = ()
    connect_timeout_s: float = 10.0
    silence_timeout_s: float = 6.0
    close_timeout_s: float = 2.0
    message_bytes: int = 32_768

    def __post_init__(self) -> None:
        CarrierSettings.__post_init__(self)  # not by super(): slots make another class of this
        if self.silence_timeout_s < 3.0:
            raise ConfigError(
                f"silence_timeout_s is {self.silence_timeout_s}; an answer may take 1.5 s, so 3 or "
                "more is needed"
            )
        if not MIN_MESSAGE_BYTES <= self.message_bytes <= MAX_MESSAGE_BYTES:
            raise ConfigError(
                f"message_bytes is {self.message_bytes}; {MIN_MESSAGE_BYTES} to "
                f"{MAX_MESSAGE_BYTES} needed"
            )
        if not self.addresses:
            raise ConfigError(f"addresses is empty; one address, or {EVERY_ADDRESS!r}, is needed")
        for address in self.addresses:
            if address != EVERY_ADDRESS:
                refuse_no_address(address)
        _ = self.servers

    @property
    def servers(self) -> list[RTCIceServer]:
        """The ICE servers as the library wants them."""
        return [_server(url) for url in self.ice_servers]


def refuse_no_address(address: str) -> None:
    """Raise ConfigError for what is no address of a machine in numbers."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        number = None
    if number is None or number.is_unspecified or number.is_multicast:
        raise ConfigError(
            f"addresses has {address[:60]!r}; an IP address of this machine, or "
            f"{EVERY_ADDRESS!r}, is needed"
        )


def _server(url: str) -> RTCIceServer:
    """One server; what is said of a wrong one does not hold the password."""
    scheme, _, rest = url.partition(":")
    who, at, where = rest.rpartition("@")
    user, colon, password = who.partition(":")
    plain = f"{scheme}:{where}"
    relays = scheme in ("turn", "turns")
    try:
        parse_stun_turn_uri(plain)
    except ValueError:
        raise ConfigError(
            f"ICE server {plain[:80]!r}; stun:host:port or turn:user:password@host:port is needed"
        ) from None
    if relays != bool(at and user and colon and password):
        needed = "user:password@ before the host" if relays else "nothing before the host"
        raise ConfigError(f"ICE server {plain[:80]!r}; {needed} is needed")
    if not relays:
        return RTCIceServer(plain)
    return RTCIceServer(plain, username=unquote(user), credential=unquote(password))
