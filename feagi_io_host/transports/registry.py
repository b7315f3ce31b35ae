# SPDX-License-Identifier: Apache-2.0
"""Transports by name: the table that other rooms go through, so that none of them names a class.

A transport is imported when it is first asked for; one that is not used costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, cast

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.transports.endpoint import LineParty, LineTransport

# The scheme of a line's address -> "module:class". "" is a path or the name of a port.
LINE_TRANSPORTS: Mapping[str, str] = MappingProxyType(
    {
        "": "feagi_io_host.transports.serial:SerialTransport",
        "socket": "feagi_io_host.transports.serial:SerialTransport",
    }
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def line_scheme(address: str) -> str:
    """The scheme of a line's address, "" for a plain path. ConfigError for an unknown one."""
    match = _SCHEME.match(address)
    scheme = match.group(1).lower() if match else ""
    if scheme not in LINE_TRANSPORTS:
        known = ", ".join(f"{name}://" for name in LINE_TRANSPORTS if name)
        raise ConfigError(f"line {address!r}: no transport for {scheme}://; known: a path, {known}")
    return scheme


def line_transport(address: str, party: LineParty, **settings: Any) -> LineTransport:
    """The transport for a line's address, not yet started.

    `settings` are its keyword arguments. Raises ConfigError for an unknown scheme.
    """
    module, _, name = LINE_TRANSPORTS[line_scheme(address)].partition(":")
    make = cast("Callable[..., LineTransport]", getattr(import_module(module), name))
    return make(address, party, **settings)
