# SPDX-License-Identifier: Apache-2.0
"""How a WebSocket server treats its connections: deadlines, browsers, encryption."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from feagi_io_host.core.carrier_settings import CarrierSettings
from feagi_io_host.core.errors import ConfigError

ANY_ORIGIN = "*"


@dataclass(frozen=True, slots=True)
class WebSocketSettings(CarrierSettings):
    """Seconds, origins and files. Raises ConfigError for what does not fit.

    `open_timeout_s` is for the HTTP handshake (and TLS before it), `register_timeout_s` for the
    registration after it, `close_timeout_s` for an orderly end. After `ping_interval_s` without
    a sign of life a connection is asked for one; `ping_timeout_s` later it is ended.

    `send_buffer_bytes` is how much the system holds for each connection beside what this process
    does (None: as much as it likes, some megabytes): less is newer, and slower over a long way.

    `origins` are the pages that a browser may connect from beside the server's own address, such
    as `http://localhost:8080`; "null" is a page from a file, "*" any page at all. Programs that
    are no browsers send no origin and are not asked for one.

    With `certificate` and `private_key`, files in PEM form, the server speaks wss:// only.
    """

    kind: ClassVar[str] = "WebSocket"

    open_timeout_s: float = 5.0
    register_timeout_s: float = 10.0
    close_timeout_s: float = 1.0
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 30.0
    send_buffer_bytes: int | None = None
    origins: tuple[str, ...] = ()
    certificate: Path | None = None
    private_key: Path | None = None

    def __post_init__(self) -> None:
        CarrierSettings.__post_init__(self)  # not by super(): slots make another class of this
        if self.send_buffer_bytes is not None and self.send_buffer_bytes < 1:
            raise ConfigError(f"send_buffer_bytes is {self.send_buffer_bytes}; 1 or more is needed")
        if (self.certificate is None) != (self.private_key is None):
            given = "certificate" if self.private_key is None else "private_key"
            raise ConfigError(f"{given} alone; wss:// needs certificate and private_key")

    @property
    def secure(self) -> bool:
        """Whether the server speaks wss://."""
        return self.certificate is not None

    def tls(self) -> ssl.SSLContext | None:
        """The context of a server with these files; ConfigError when they cannot be used."""
        if self.certificate is None or self.private_key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.private_key)
        except OSError as error:  # SSLError is one
            raise ConfigError(
                f"certificate {self.certificate} with private key {self.private_key}: {error}"
            ) from None
        return context

    def admits(self, origin: str, own: frozenset[str]) -> bool:
        """Whether a page of `origin` may connect; `own` are those of the server itself."""
        return origin in own or origin in self.origins or ANY_ORIGIN in self.origins
