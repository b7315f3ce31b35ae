# SPDX-License-Identifier: Apache-2.0
"""udp:// URLs: where one stream of one agent goes, and what only its two ends know.

    udp://127.0.0.1:41234/?check=none&datagram=1400#8b5c1f4e2d9a7036-<64 hexadecimal digits>
    udp://239.1.2.3:5562/?check=tag&datagram=1400&via=192.168.1.7#8b5c...

`check` is what stands in front of each datagram, `datagram` the largest one in bytes, `parity` the
fragments that share one parity fragment, `pack=lz4` that frames may be packed,
`oversize=drop` that frames for more than one datagram are dropped. `via` is the
interface on which a multicast group is to be joined, if the system is not to choose. Behind # are
the number of the session and its key: they are handed out over the control channel and go into no
log and no error.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from feagi_io_host.core.datagram import KEY_BYTES, Check
from feagi_io_host.core.errors import ConfigError, FeagiDataError, FeagiIOError, PortError
from feagi_io_host.core.fragment import FragmentSettings, Oversize
from feagi_io_host.transports.udp.vectors import Address

SCHEME: Final = "udp://"
SESSION_BYTES: Final = 8
PACKED: Final = "lz4"

_MAX_URL_CHARS: Final = 400
_URL: Final = re.compile(
    r"udp://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})/\?([a-z0-9=&.:]{0,120})"
    r"#([0-9a-f]{16})-([0-9a-f]{64})"
)
_NUMBER: Final = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Where a stream goes. `host` is without brackets. `key` has 32 bytes and is not shown."""

    host: str
    port: int
    check: Check
    datagram_bytes: int
    group: int = 0
    packed: bool = False
    drops: bool = False
    via: str | None = None
    session: int = field(default=0, repr=False)
    key: bytes = field(default=bytes(KEY_BYTES), repr=False)

    @property
    def url(self) -> str:
        """The URL, its secret included."""
        said = [f"check={self.check.value}", f"datagram={self.datagram_bytes}"]
        if self.group:
            said.append(f"parity={self.group}")
        if self.packed:
            said.append(f"pack={PACKED}")
        if self.drops:
            said.append(f"oversize={Oversize.DROP.value}")
        if self.via is not None:
            said.append(f"via={self.via}")
        secret = f"{self.session:016x}-{self.key.hex()}"
        return f"{SCHEME}{self.place}/?{'&'.join(said)}#{secret}"

    @property
    def place(self) -> str:
        """host:port, for logs and errors."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def data_key(self) -> bytes | None:
        """The key of the tag of data; None for another check."""
        return self.key if self.check is Check.TAG else None

    @property
    def multicast(self) -> bool:
        """Whether the host is a group and not a machine."""
        return is_multicast(self.host)

    @property
    def fragments(self) -> FragmentSettings:
        """How an end of this stream cuts what it sends. Raises ConfigError for numbers that cannot
        work."""
        oversize = Oversize.DROP if self.drops else Oversize.FRAGMENT
        return FragmentSettings(self.datagram_bytes, oversize, self.group)


def parse_stream_address(url: str) -> StreamAddress:
    """What a URL from a server says; FeagiDataError, without the secret in it, for anything that
    is no such URL."""
    match = _URL.fullmatch(url) if len(url) <= _MAX_URL_CHARS else None
    if match is None or not 1 <= int(match[2]) <= 0xFFFF:
        raise FeagiDataError(
            f"{len(url)} characters that open with {url[:40].partition('#')[0]!r}; "
            "udp://host:port/?check=...&datagram=...#session-key is expected"
        )
    said = dict(parse_qsl(match[3]))
    known = {"pack": PACKED, "oversize": Oversize.DROP.value}
    unknown = set(said) - {"check", "datagram", "parity", "via", *known}
    unknown |= {name for name, value in known.items() if said.get(name, value) != value}
    try:
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is unknown here")
        address = StreamAddress(
            match[1].strip("[]"),
            int(match[2]),
            Check(said.get("check")),
            _number(said.get("datagram", "")),
            _number(said.get("parity", "0")),
            "pack" in said,
            "oversize" in said,
            str(ipaddress.IPv4Address(said["via"])) if "via" in said else None,
            int(match[4], 16),
            bytes.fromhex(match[5]),
        )
        _ = address.fragments
    except (ValueError, FeagiIOError) as error:
        raise FeagiDataError(f"udp://{match[1]}:{match[2]}/?{match[3]}: {error}") from None
    return address


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number from 0 to 99999")
    return int(text)


def new_session() -> int:
    """A number for a session that nobody can guess."""
    return int.from_bytes(secrets.token_bytes(SESSION_BYTES), "big")


def new_key() -> bytes:
    """A key for a session."""
    return secrets.token_bytes(KEY_BYTES)


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, Address]:
    """The family and the address, in numbers, of a host. Raises PortError when it has none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise PortError(f"udp://{host}:{port}: {error}; is the name right?") from None
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the host; of names, only localhost is known to be."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_multicast(host: str) -> bool:
    """Whether the host is an IPv4 multicast group."""
    try:
        return ipaddress.IPv4Address(host).is_multicast
    except ValueError:
        return False


def refuse_unless_group(host: str) -> None:
    """Raise ConfigError for what is no IPv4 multicast group."""
    if not is_multicast(host):
        raise ConfigError(f"{host!r} is no multicast group; 224.0.0.0 to 239.255.255.255 are")
