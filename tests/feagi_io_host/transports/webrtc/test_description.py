# SPDX-License-Identifier: Apache-2.0
"""Descriptions: what a browser says is read, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.transports.webrtc import WebRtcSettings
from feagi_io_host.transports.webrtc.description import (
    Description,
    PeerCandidate,
    parse_description,
)

FINGERPRINT = ":".join(f"{byte:02X}" for byte in range(32))
OWN = Description(
    "user",
    "p" * 22,
    FINGERPRINT,
    "active",
    (
        PeerCandidate("f1", 2130706431, "192.0.2.1", 50000),
        PeerCandidate("f2", 5, "2001:db8::1", 50001, "srflx"),
    ),
)
# As Chromium 156 writes it, with what a LAN, a STUN server and TCP may add.
CHROMIUM = f"""v=0
o=- 7218917345911924201 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=candidate:429942814 1 udp 2113937151 31765196-c17a-4e8b-9346-ab4c801363ff.local 47798 typ host generation 0 network-cost 999
a=candidate:3536235006 1 udp 2113942271 192.0.2.7 36799 typ host generation 0 network-cost 999
a=candidate:1 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active
a=candidate:2 2 udp 99 192.0.2.7 36800 typ host
a=candidate:3 1 udp 99 198.51.100.7 36801 typ srflx raddr 0.0.0.0 rport 0
a=ice-ufrag:qi/P
a=ice-pwd:K6ok+Agstl2yg+cKKH6nsYXr
a=ice-options:trickle
a=fingerprint:sha-256 {FINGERPRINT.lower()}
a=setup:actpass
a=mid:0
a=sctp-port:5000
a=max-message-size:262144
"""  # noqa: E501


def test_what_is_written_is_read() -> None:
    assert parse_description(OWN.to_sdp()) == OWN
    assert OWN.password not in repr(OWN)


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_a_browsers_description(ends: str) -> None:
    read = parse_description(CHROMIUM.replace("\n", ends))
    assert (read.ufrag, read.password) == ("qi/P", "K6ok+Agstl2yg+cKKH6nsYXr")
    assert (read.fingerprint, read.setup, read.mid) == (FINGERPRINT, "actpass", "0")
    assert (read.sctp_port, read.max_message_bytes) == (5000, 262144)
    assert [(one.address, one.port, one.kind) for one in read.candidates] == [
        ("192.0.2.7", 36799, "host"),
        ("198.51.100.7", 36801, "srflx"),
    ]
    assert read.skipped == 3  # a name, TCP, a second component


GOOD = OWN.to_sdp()
BAD = {
    "": "opens with ''",
    "v=1\r\n": "opens with 'v=1'",
    "x" * 20_000: "20000 characters",
    "v=0\n" + "a\n" * 300: "301 lines",
    GOOD.replace("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "x"): "0 sections",
    GOOD + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n": "2 sections",
    GOOD.replace("m=application", "m=video"): "m=video",
    GOOD.replace("a=ice-ufrag:user", "a=ice-ufrag:us"): "ice-ufrag of 2",
    GOOD.replace("a=ice-ufrag:user\r\n", ""): "no a=ice-ufrag",
    GOOD + "a=ice-ufrag:other\r\n": "a=ice-ufrag twice",
    GOOD.replace("a=ice-pwd:p", "a=ice-pwd: "): "ice-pwd of 22",
    GOOD.replace("fingerprint:sha-256", "fingerprint:sha-1"): "fingerprint",
    GOOD.replace(":1F", ""): "fingerprint",
    GOOD.replace("a=setup:active", "a=setup:holdconn"): "holdconn",
    GOOD.replace("a=setup:active\r\n", ""): "setup",
    GOOD.replace("a=mid:0", "a=mid:" + "0" * 40): "mid of 40",
    GOOD.replace("sctp-port:5000", "sctp-port:65536"): "65536",
    GOOD.replace("sctp-port:5000", "sctp-port:-1"): "-1",
    GOOD.replace("message-size:65536", "message-size:95"): "95 bytes; at least 96",
    GOOD.replace("192.0.2.1 50000", "192.0.2.1 0"): "port 0 that cannot be",
    GOOD.replace("192.0.2.1 50000", "192.0.2.1 99999"): "port 99999 that cannot be",
    GOOD.replace("192.0.2.1", "224.0.0.1"): "224.0.0.1",
    GOOD.replace("192.0.2.1", "0.0.0.0"): "0.0.0.0",
    GOOD.replace("192.0.2.1", "fe80::1%eth0"): "fe80::1%eth0",
    GOOD.replace("1 udp 2130706431", "1 udp 9999999999"): "cannot be",
    GOOD.replace(" typ host", ""): "that is none",
    GOOD
    + "".join(f"a=candidate:f 1 udp 1 192.0.2.2 {port} typ host\r\n" for port in range(1, 40)): (
        "41 candidates"
    ),
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_none_is_refused_with_numbers(text: str) -> None:
    with pytest.raises(FeagiDataError) as raised:
        parse_description(text)
    assert BAD[text] in str(raised.value)
    assert OWN.password not in str(raised.value)


LINES = [*GOOD.splitlines(), *CHROMIUM.splitlines()]


@given(
    st.lists(
        st.one_of(
            st.sampled_from(LINES),
            st.text(max_size=40),
            st.tuples(st.sampled_from(LINES), st.integers(0, 60), st.text(max_size=5)).map(
                lambda cut: cut[0][: cut[1]] + cut[2]
            ),
        ),
        max_size=30,
    )
)
def test_any_text_is_read_or_refused(lines: list[str]) -> None:
    try:
        read = parse_description("\n".join(["v=0", *lines]))
    except FeagiDataError:
        return
    assert parse_description(read.to_sdp()) == replace(read, skipped=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"addresses": ()}, "addresses is empty"),
        ({"addresses": ("localhost",)}, "'localhost'"),
        ({"addresses": ("::",)}, "'::'"),
        ({"message_bytes": 95}, "96 to 65536"),
        ({"message_bytes": 65537}, "96 to 65536"),
        ({"silence_timeout_s": 2.9}, "3 or more"),
        ({"connect_timeout_s": 0.0}, "connect_timeout_s is 0.0"),
        ({"close_timeout_s": float("nan")}, "close_timeout_s is nan"),
        ({"ice_servers": ("turn:me@turn.example",)}, "user:password@"),
        ({"ice_servers": ("turn:me:secret@:x",)}, "'turn::x'"),
        ({"ice_servers": ("stun:me:secret@stun.example",)}, "nothing before the host"),
        ({"ports": 1}, "no WebRTC setting ports"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        WebRtcSettings.of(settings)
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)
