# SPDX-License-Identifier: Apache-2.0
"""UdpSettings: everything that can be set about a server's UDP streams, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from feagi_io_host.core.datagram import DEFAULT_DATAGRAM_BYTES, Check
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.fragment import FragmentSettings, Oversize
from feagi_io_host.transports.udp.address import is_loopback
from feagi_io_host.transports.udp.group import GroupSettings
from feagi_io_host.transports.udp.ladder import DEFAULT_BYTES_PER_S, DEFAULT_DEPTH_BYTES, Pacer
from feagi_io_host.transports.udp.sockets import DEFAULT_BUFFER_BYTES

# Two hellos may get lost.
DEFAULT_SILENCE_S: Final = 3.5
_EVERYWHERE: Final = ("0.0.0.0", "::", "*")
_MAX_PORT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class UdpSettings:
    """Settings of UdpTransport. Raises ConfigError for what cannot work.

    `address`, `port` (0: any free one): where agents say hello and whence they are sent to.
    `advertised_address`: what they are told, where that is another one.
    `check`: what stands in front of each datagram; None for a keyed tag, or nothing over
        loopback. Other addresses than loopback take nothing less than the tag, unless
        `open_to_everybody`.
    `datagram_bytes`: 28 (IPv6: 48) below the path's MTU. `oversize`, `parity_group`: see
        FragmentSettings.
    `buffer_bytes`: asked of the system for either direction.
    `depth_bytes` pass at once, then `bytes_per_s`: so that a burst does not overrun its receiver.
    `silence_timeout_s`: an agent that has not been heard for so long is sent nothing.
    `multicast_group`, `_port`, `_ttl`, `_interface`: visualization goes there, once for all,
        instead of to each agent.
    """

    address: str = "127.0.0.1"
    port: int = 0
    advertised_address: str | None = None
    open_to_everybody: bool = False
    check: Check | None = None
    datagram_bytes: int = DEFAULT_DATAGRAM_BYTES
    oversize: Oversize = Oversize.COMPRESS
    parity_group: int = 0
    buffer_bytes: int = DEFAULT_BUFFER_BYTES
    bytes_per_s: float = DEFAULT_BYTES_PER_S
    depth_bytes: int = DEFAULT_DEPTH_BYTES
    silence_timeout_s: float = DEFAULT_SILENCE_S
    multicast_group: str | None = None
    multicast_port: int = 0
    multicast_ttl: int = 1
    multicast_interface: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= _MAX_PORT:
            raise ConfigError(f"udp port is {self.port}; 0 to {_MAX_PORT} needed")
        if self.advertised_address is None and self.address in _EVERYWHERE:
            raise ConfigError(
                f"udp address {self.address} is every address of this machine: say by "
                "advertised_address which one agents are to use"
            )
        weak = self.check in (Check.NONE, Check.CRC)
        if weak and not self.is_loopback and not self.open_to_everybody:
            raise ConfigError(
                f"udp check {self.agreed_check.value!r} at {self.address}: whoever can send there "
                "could speak for an agent; leave it out, for a tag, or say open_to_everybody"
            )
        if self.buffer_bytes < 1 or not self.silence_timeout_s > 1.0:
            raise ConfigError(
                f"udp buffer_bytes is {self.buffer_bytes}, silence_timeout_s "
                f"{self.silence_timeout_s}; at least 1, and above the second between two hellos"
            )
        _ = self.fragments, self.group, self.pacer()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Settings from their names, `check` and `oversize` as words, `check` also "auto". Raises
        ConfigError for a name or a word that there is not."""
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ConfigError(f"no udp setting {', '.join(unknown)}; known: {', '.join(names)}")
        given = dict(values)
        try:
            if "check" in given:
                given["check"] = None if given["check"] in (None, "auto") else Check(given["check"])
            if "oversize" in given:
                given["oversize"] = Oversize(given["oversize"])
        except ValueError as error:
            raise ConfigError(f"udp: {error}") from None
        return cls(**given)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        return is_loopback(self.address) and self.multicast_group is None

    @property
    def agreed_check(self) -> Check:
        """What stands in front of each datagram."""
        if self.check is not None:
            return self.check
        return Check.NONE if self.is_loopback else Check.TAG

    @property
    def advertised(self) -> str:
        """What agents are told."""
        return self.address if self.advertised_address is None else self.advertised_address

    @property
    def fragments(self) -> FragmentSettings:
        """How frames are cut."""
        return FragmentSettings(self.datagram_bytes, self.oversize, self.parity_group)

    @property
    def group(self) -> GroupSettings | None:
        """The multicast group; None without one."""
        if self.multicast_group is None:
            return None
        return GroupSettings(
            self.multicast_group,
            self.multicast_port,
            self.multicast_ttl,
            self.multicast_interface,
        )

    def pacer(self) -> Pacer:
        """A pacer for one receiver."""
        return Pacer(self.bytes_per_s, self.depth_bytes)
