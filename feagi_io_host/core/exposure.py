# SPDX-License-Identifier: Apache-2.0
"""Who can reach a server: the address it listens at, the one it tells, and its token."""

from __future__ import annotations

import ipaddress

from feagi_io_host.core.errors import ConfigError


def advertised(
    address: str, advertised_address: str | None, token: bytes | None, open_to_everybody: bool
) -> str:
    """The address that agents are told to connect to.

    Raises ConfigError when other machines can reach a server that lets everybody in without
    being told to, and when there is no address that could be told.
    """
    if token is None and not open_to_everybody and not is_loopback(address):
        raise ConfigError(
            f"address {address} can be reached from other machines and there is no token: "
            "give a token of 32 bytes or say open_to_everybody=True"
        )
    if advertised_address is None and address in ("0.0.0.0", "::", "*"):
        raise ConfigError(
            f"address {address} is every address of this machine: say by advertised_address "
            "which one agents are to use"
        )
    return address if advertised_address is None else advertised_address


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an address."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
