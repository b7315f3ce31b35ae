# SPDX-License-Identifier: Apache-2.0
"""The table of transports names things that exist."""

from __future__ import annotations

from importlib import import_module

import pytest

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.transports.registry import LINE_TRANSPORTS, line_scheme


@pytest.mark.parametrize("target", sorted(set(LINE_TRANSPORTS.values())))
def test_every_entry_names_a_class(target: str) -> None:
    module, _, name = target.partition(":")
    assert isinstance(getattr(import_module(module), name), type)


@pytest.mark.parametrize(
    ("address", "scheme"),
    [("/dev/ttyACM0", ""), ("COM3", ""), ("socket://h:1", "socket"), ("SOCKET://h:1", "socket")],
)
def test_scheme_of_an_address(address: str, scheme: str) -> None:
    assert line_scheme(address) == scheme


def test_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"rfc2217://; known: a path, socket://"):
        line_scheme("rfc2217://host:1")
