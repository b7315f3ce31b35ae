# SPDX-License-Identifier: Apache-2.0
"""UdpSettings: what follows from the defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.transports.udp import Check, Oversize, UdpSettings


def test_nothing_is_checked_over_loopback_and_everything_elsewhere() -> None:
    assert UdpSettings().agreed_check is Check.NONE
    assert UdpSettings(address="10.0.0.7").agreed_check is Check.TAG
    group = UdpSettings(multicast_group="239.1.2.3", multicast_port=9)
    assert group.agreed_check is Check.TAG
    assert UdpSettings(check=Check.CRC).agreed_check is Check.CRC
    weak = UdpSettings(address="10.0.0.7", check=Check.CRC, open_to_everybody=True)
    assert weak.agreed_check is Check.CRC


def test_words_from_a_configuration() -> None:
    made = UdpSettings.of({"check": "tag", "oversize": "drop", "datagram_bytes": 8972})
    assert made == UdpSettings(check=Check.TAG, oversize=Oversize.DROP, datagram_bytes=8972)
    assert UdpSettings.of({"check": "auto"}) == UdpSettings()
    for wrong in ({"chek": "tag"}, {"check": "sum"}, {"oversize": "keep"}):
        with pytest.raises(ConfigError, match="udp"):
            UdpSettings.of(wrong)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"port": 65536}, "0 to 65535"),
        ({"address": "0.0.0.0"}, "advertised_address"),
        ({"address": "10.0.0.7", "check": Check.NONE}, "could speak for an agent"),
        ({"datagram_bytes": 20}, "datagram_bytes is 20"),
        ({"parity_group": 256}, "parity group"),
        ({"bytes_per_s": 0.0}, "pacing"),
        ({"buffer_bytes": 0}, "buffer_bytes"),
        ({"silence_timeout_s": 1.0}, "between two hellos"),
        ({"multicast_group": "10.0.0.1", "multicast_port": 9}, "no multicast group"),
        ({"multicast_group": "239.1.2.3"}, "multicast port"),
        ({"multicast_group": "239.1.2.3", "multicast_port": 9, "multicast_ttl": 256}, "ttl"),
    ],
)
def test_what_cannot_work_is_refused(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        UdpSettings(**wrong)
