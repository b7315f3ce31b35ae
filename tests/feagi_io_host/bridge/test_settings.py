# SPDX-License-Identifier: Apache-2.0
"""Settings that cannot work are refused; boards keep their ids."""

from __future__ import annotations

from typing import Any

import pytest

from feagi_io_host.bridge.board import BoardBridge
from feagi_io_host.bridge.settings import AgentIds, LinkSettings
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.pns import PNS


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"beat_ms": 4}, "beat_ms is 4, not 5 to 20000"),
        ({"beat_ms": 300}, "lost_ms is 800; with beat_ms 300 it has to be 900 to 60000"),
        ({"motor_timeout_ms": 0}, "motor_timeout_ms is 0, not 1 to 60000"),
        ({"max_container": 100}, "max_container is 100, not 256 to 65000"),
    ],
)
def test_impossible_times(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        LinkSettings(**changes)


def test_lost_ms_follows_the_beat() -> None:
    # would be refused if the default stayed at 800 ms
    BoardBridge(PNS(), ["/dev/null"], beat_ms=1000)


def test_ports() -> None:
    with pytest.raises(ConfigError, match="no port given"):
        BoardBridge(PNS(), [])
    with pytest.raises(ConfigError, match="named twice among 3 ports: a"):
        BoardBridge(PNS(), ["a", "b", "a"])
    with pytest.raises(ConfigError, match=r"a list of ports is needed: \['/dev/null'\]"):
        BoardBridge(PNS(), "/dev/null")
    with pytest.raises(ConfigError, match="no transport for bogus://"):
        BoardBridge(PNS(), ["bogus://x"])


def test_a_board_keeps_its_id_on_another_port() -> None:
    ids = AgentIds()
    first = ids.claim("a", "cart", "uid1")
    assert len(first) == 48
    ids.give_up("a")
    assert ids.claim("b", "cart", "uid1") == first


def test_a_board_without_uid_is_known_by_its_port() -> None:
    ids = AgentIds()
    first = ids.claim("a", "cart", "")
    assert ids.claim("b", "cart", "") != first
    assert ids.claim("a", "cart", "") == first


def test_twins_get_ids_of_their_own_and_keep_them() -> None:
    ids = AgentIds()
    one = ids.claim("a", "cart", "same")
    two = ids.claim("b", "cart", "same")
    assert one != two
    assert ids.claim("b", "cart", "same") == two
    assert ids.claim("a", "cart", "same") == one
