# SPDX-License-Identifier: Apache-2.0
"""Who can reach a server, and what agents are told of its address."""

from __future__ import annotations

import pytest

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.exposure import advertised, is_loopback

TOKEN = bytes(range(32))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_alone_needs_no_token(address: str) -> None:
    assert is_loopback(address)
    assert advertised(address, None, None, False) == address


@pytest.mark.parametrize("address", ["10.0.0.7", "0.0.0.0", "::", "*", "brain.example", ""])
def test_other_machines_need_a_token_or_an_open_door(address: str) -> None:
    assert not is_loopback(address)
    with pytest.raises(ConfigError, match="no token"):
        advertised(address, "10.0.0.7", None, False)
    assert advertised(address, "10.0.0.7", TOKEN, False) == "10.0.0.7"
    assert advertised(address, "10.0.0.7", None, True) == "10.0.0.7"


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "*"])
def test_every_address_is_none_to_connect_to(address: str) -> None:
    with pytest.raises(ConfigError, match="advertised_address"):
        advertised(address, None, TOKEN, False)
