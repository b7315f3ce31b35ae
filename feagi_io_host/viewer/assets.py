# SPDX-License-Identifier: Apache-2.0
"""What the viewer answers to HTTP: a fixed table of files, and who may ask for them.

Nothing is ever read by a path out of a request. The Host header has to be an address of this
server's own: a page of some web site that has its name point here is told apart by it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from feagi_io_host.core.exposure import is_loopback

_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "html": "text/html; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "txt": "text/plain; charset=utf-8",
        "svg": "image/svg+xml",
        "png": "image/png",
        "ico": "image/vnd.microsoft.icon",
        "webmanifest": "application/manifest+json",
    }
)
_INDEX: Final = "index.html"
_HOST: Final = re.compile(r"[0-9A-Za-z.:\[\]_-]{1,255}")


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the page."""

    content_type: str
    body: bytes


def page_assets() -> Mapping[str, Asset]:
    """The files of the page by the path of a request, all of them in memory."""
    table: dict[str, Asset] = {}
    folder = files("feagi_io_host.viewer").joinpath("assets")
    for entry in folder.iterdir() if folder.is_dir() else ():
        content_type = _TYPES.get(entry.name.rpartition(".")[2])
        if entry.is_file() and content_type is not None:
            asset = Asset(content_type, entry.read_bytes())
            table[f"/{entry.name}"] = asset
            if entry.name == _INDEX:
                table["/"] = asset
    return MappingProxyType(table)


class Door:
    """Which requests are let in, at `address` (as the user gave it) and `port`."""

    def __init__(self, address: str, port: int, assets: Mapping[str, Asset]) -> None:
        self._address = address.lower()
        self._port = port
        self._assets = assets

    def own_host(self, host: str) -> bool:
        """Whether a Host header names this server: by the address that it listens at, by the
        loopback, and where others may come in, by any address that is a number."""
        if not _HOST.fullmatch(host):
            return False
        if host.startswith("["):
            name, _, rest = host[1:].partition("]")
            port = rest.removeprefix(":")
        else:
            name, _, port = host.partition(":")
        if port != str(self._port) and not (port == "" and self._port == 80):
            return False
        name = name.lower()
        if name == self._address or is_loopback(name):
            return True
        if is_loopback(self._address):
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def own_origin(self, origin: str, host: str) -> bool:
        """Whether a page with this Origin came from the server that `host` names."""
        return origin.lower() == f"http://{host.lower()}"

    def answer(self, method: str, path: str, hosts: list[str]) -> tuple[HTTPStatus, Asset]:
        """What a request that is no WebSocket gets."""
        if len(hosts) != 1 or not self.own_host(hosts[0]):
            return HTTPStatus.MISDIRECTED_REQUEST, _words("not an address of this viewer")
        if method != "GET":
            return HTTPStatus.METHOD_NOT_ALLOWED, _words("GET is all there is")
        asset = self._assets.get(path.partition("?")[0])
        if asset is not None:
            return HTTPStatus.OK, asset
        if not self._assets:
            return HTTPStatus.NOT_FOUND, _words("the page is not in this installation")
        return HTTPStatus.NOT_FOUND, _words("no such file")


def _words(text: str) -> Asset:
    return Asset(_TYPES["txt"], f"{text}\n".encode())


def safe_headers(host: str) -> dict[str, str]:
    """The headers of every answer. `host` is the server's own, as the request had it."""
    return {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
            f"connect-src 'self'{f' ws://{host}' if host else ''}; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
