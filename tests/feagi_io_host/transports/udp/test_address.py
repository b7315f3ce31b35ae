# SPDX-License-Identifier: Apache-2.0
"""udp:// URLs: there and back, and everything that is none."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from feagi_io_host.core.datagram import Check
from feagi_io_host.core.errors import FeagiDataError, PortError
from feagi_io_host.core.fragment import Oversize
from feagi_io_host.transports.udp.address import (
    StreamAddress,
    is_loopback,
    new_key,
    new_session,
    parse_stream_address,
    resolve,
)

SECRET = "00000000000000ff-" + "5a" * 32


@pytest.mark.parametrize(
    "address",
    [
        StreamAddress("127.0.0.1", 41234, Check.NONE, 1400),
        StreamAddress("::1", 1, Check.TAG, 65507, 255, True, True),
        StreamAddress("robot-7.lab", 65535, Check.CRC, 96),
        StreamAddress("239.1.2.3", 5562, Check.TAG, 1400, 8, via="127.0.0.1"),
    ],
    ids=lambda address: address.host,
)
def test_a_url_says_all_of_it(address: StreamAddress) -> None:
    made = StreamAddress(
        **{
            name: getattr(address, name)
            for name in StreamAddress.__dataclass_fields__
            if name not in ("session", "key")
        },
        session=new_session(),
        key=new_key(),
    )
    assert parse_stream_address(made.url) == made


def test_what_follows_from_it() -> None:
    address = parse_stream_address(
        f"udp://239.1.2.3:9/?check=tag&datagram=1400&oversize=drop&parity=4&via=10.0.0.7#{SECRET}"
    )
    assert address.multicast
    assert address.data_key == address.key == b"\x5a" * 32
    assert (address.session, address.place) == (255, "239.1.2.3:9")
    assert (address.fragments.oversize, address.fragments.group) == (Oversize.DROP, 4)
    plain = parse_stream_address(f"udp://[::1]:9/?check=crc&datagram=1400#{SECRET}")
    assert (plain.data_key, plain.multicast, plain.place) == (None, False, "[::1]:9")


def test_the_secret_is_not_shown() -> None:
    address = parse_stream_address(f"udp://127.0.0.1:9/?check=none&datagram=1400#{SECRET}")
    assert "5a5a" not in repr(address)
    for url in (f"udp://127.0.0.1:9/?check=loud&datagram=1400#{SECRET}", f"udp://x/#{SECRET}"):
        with pytest.raises(FeagiDataError) as error:
            parse_stream_address(url)
        assert "5a5a" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tcp://127.0.0.1:9",
        "udp://127.0.0.1:9",
        f"udp://127.0.0.1:0/?check=none&datagram=1400#{SECRET}",
        f"udp://127.0.0.1:65536/?check=none&datagram=1400#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1400#{SECRET[:-2]}",
        f"udp://127.0.0.1:9/?datagram=1400#{SECRET}",
        f"udp://127.0.0.1:9/?check=none#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=20#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1e3#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1400&parity=256#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1400&pack=zip#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1400&oversize=keep#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1400&via=nowhere#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1400&more=1#{SECRET}",
        f"udp://127.0.0.1:9/?check=none&datagram=1400#{SECRET}" + " " * 400,
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(FeagiDataError):
        parse_stream_address(url)


@given(st.text(max_size=200))
def test_no_text_is_a_surprise(text: str) -> None:
    for url in (text, f"udp://127.0.0.1:9/?{text}#{SECRET}"):
        try:
            parse_stream_address(url)
        except FeagiDataError:
            continue


def test_hosts() -> None:
    assert resolve("127.0.0.1", 9)[1] == ("127.0.0.1", 9)
    assert resolve("::1", 9)[1] == ("::1", 9)
    with pytest.raises(PortError, match="is the name right"):
        resolve("name with spaces", 9)
    assert is_loopback("127.3.2.1")
    assert is_loopback("localhost")
    assert not is_loopback("10.0.0.1")
    assert not is_loopback("loopback.example")
