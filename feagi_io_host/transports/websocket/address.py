# SPDX-License-Identifier: Apache-2.0
"""ws:// and wss:// addresses, and the paths of this library's own server.

/                control: registration, heartbeats, configuration
/stream/KEY      one stream of one agent; KEY is secret and is handed out with the registration
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from feagi_io_host.core.errors import ConfigError

DEFAULT_PORT: Final = 9053  # the engine's registration_port of its section [websocket]
CONTROL_PATH: Final = "/"
STREAM_PATH: Final = "/stream/"

_URL: Final = re.compile(
    r"(wss?)://(\[[0-9A-Fa-f:.]{2,45}(?:%\w{1,15})?\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?"
    r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,512})?",
    re.IGNORECASE,
)
_MAX_PORT: Final = 65535
_OWN_PORTS: Final = {"ws": 80, "wss": 443}
# What a server that listens on all its addresses may say of itself.
_UNSPECIFIED: Final = frozenset({"0.0.0.0", "[::]"})


@dataclass(frozen=True, slots=True)
class WebSocketAddress:
    """Where a server is. `host` is as in a URL: an IPv6 address is in brackets."""

    secure: bool
    host: str
    port: int
    path: str = CONTROL_PATH

    @classmethod
    def of(cls, url: str) -> WebSocketAddress:
        """The parts of ws://host:port/path; ConfigError for anything else. Port and path may be
        missing; there is no query and no fragment."""
        match = _URL.fullmatch(url)
        port = 0
        if match is not None:
            port = int(match[3]) if match[3] else _OWN_PORTS[match[1].lower()]
        if match is None or not 1 <= port <= _MAX_PORT:
            raise ConfigError(
                f"address {url[:80]!r}; ws://host:port or wss://host:port, with a port from 1 to "
                f"{_MAX_PORT}, is needed"
            )
        return cls(match[1].lower() == "wss", match[2].lower(), port, match[4] or CONTROL_PATH)

    @property
    def url(self) -> str:
        """As text."""
        return f"{self.origin}{self.path}"

    @property
    def origin(self) -> str:
        """As text, without the path."""
        return f"{'wss' if self.secure else 'ws'}://{self.host}:{self.port}"

    @property
    def connect_to(self) -> str:
        """The host for the system: an IPv6 address without brackets."""
        return self.host.strip("[]")

    def stream(self, url: str) -> WebSocketAddress:
        """Where a stream is that this server has handed out as `url`.

        ConfigError for what is no address, and for one without encryption from a server with: the
        stream would go in the clear, where the agent has asked for better.
        """
        address = WebSocketAddress.of(url)
        if self.secure and not address.secure:
            raise ConfigError(f"stream {url[:80]!r} from {self.url}: a wss:// address is needed")
        if address.host in _UNSPECIFIED:
            return replace(address, host=self.host)
        return address


def in_url(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
