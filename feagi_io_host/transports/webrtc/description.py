# SPDX-License-Identifier: Apache-2.0
"""Descriptions: what the two ends of a WebRTC connection have to know of each other.

They are SDP (RFC 8866, RFC 8829, RFC 8841), since browsers take nothing else, with one section for
data channels and with all candidates in them. Only what is needed is read, and each value is
checked: a description comes from a peer, and what it says is used to send packets somewhere.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.messages import MAX_DESCRIPTION_CHARS
from feagi_io_host.transports.webrtc.settings import MIN_MESSAGE_BYTES

MAX_CANDIDATES: Final = 32
_MAX_LINES: Final = 256
# RFC 8841, section 6: who says nothing takes so much.
_DEFAULT_MESSAGE_BYTES: Final = 65_536
_DEFAULT_SCTP_PORT: Final = 5000

_SECTION: Final = re.compile(r"m=application \d{1,5} UDP/DTLS/SCTP webrtc-datachannel")
_UFRAG: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PASSWORD: Final = re.compile(r"[A-Za-z0-9+/]{22,256}")
_FINGERPRINT: Final = re.compile(r"(?i:sha-256) ((?:[0-9A-Fa-f]{2}:){31}[0-9A-Fa-f]{2})")
_MID: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,32}")
_NUMBER: Final = re.compile(r"\d{1,10}")
_CANDIDATE: Final = re.compile(
    r"([A-Za-z0-9+/]{1,32}) (\d{1,3}) (\S{1,8}) (\d{1,10}) (\S{1,253}) (\d{1,5}) typ (\S{1,16})"
    r"(?: .*)?"
)
_SETUPS: Final = frozenset({"actpass", "active", "passive"})
_TYPES: Final = frozenset({"host", "srflx", "relay"})


@dataclass(frozen=True, slots=True)
class PeerCandidate:
    """A place at which the other end may be found, over UDP."""

    foundation: str
    priority: int
    address: str
    port: int
    kind: str = "host"


@dataclass(frozen=True, slots=True)
class Description:
    """One end of a connection. `password` stays out of `repr`.

    `skipped` is how many candidates could not be used: names (as browsers give them to hide the
    addresses of their machine), TCP, second components.
    """

    ufrag: str
    password: str
    fingerprint: str
    setup: str
    candidates: tuple[PeerCandidate, ...] = ()
    mid: str = "0"
    sctp_port: int = _DEFAULT_SCTP_PORT
    max_message_bytes: int = _DEFAULT_MESSAGE_BYTES
    skipped: int = 0

    def __repr__(self) -> str:
        return (
            f"<Description {self.setup}, {len(self.candidates)} candidates, messages up to "
            f"{self.max_message_bytes} bytes>"
        )

    def to_sdp(self) -> str:
        """The text of it."""
        candidates = [
            f"a=candidate:{one.foundation} 1 udp {one.priority} {one.address} {one.port} "
            f"typ {one.kind}" + ("" if one.kind == "host" else " raddr 0.0.0.0 rport 0")
            for one in self.candidates
        ]
        lines = [
            "v=0",
            "o=- 1 1 IN IP4 0.0.0.0",
            "s=-",
            "t=0 0",
            f"a=group:BUNDLE {self.mid}",
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
            "c=IN IP4 0.0.0.0",
            *candidates,
            "a=end-of-candidates",
            f"a=ice-ufrag:{self.ufrag}",
            f"a=ice-pwd:{self.password}",
            f"a=fingerprint:sha-256 {self.fingerprint}",
            f"a=setup:{self.setup}",
            f"a=mid:{self.mid}",
            f"a=sctp-port:{self.sctp_port}",
            f"a=max-message-size:{self.max_message_bytes}",
        ]
        return "".join(f"{line}\r\n" for line in lines)


def parse_description(sdp: str) -> Description:
    """The description in a text from a peer; FeagiDataError for anything that is none, or that
    asks for more than data channels."""
    if len(sdp) > MAX_DESCRIPTION_CHARS:
        raise FeagiDataError(
            f"description of {len(sdp)} characters; at most {MAX_DESCRIPTION_CHARS} are read"
        )
    lines = sdp.replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) > _MAX_LINES:
        raise FeagiDataError(f"description of {len(lines)} lines; at most {_MAX_LINES} are read")
    if lines[0] != "v=0":
        raise FeagiDataError(f"description opens with {lines[0][:40]!r}; 'v=0' is expected")
    sections = [line for line in lines if line.startswith("m=")]
    if len(sections) != 1 or not _SECTION.fullmatch(sections[0]):
        said = "; ".join(line[:60] for line in sections[:3]) or "none"
        raise FeagiDataError(
            f"description has {len(sections)} sections ({said}); one, for data channels, is "
            "expected"
        )
    values: dict[str, str] = {}
    candidates: list[PeerCandidate] = []
    skipped = 0
    for line in lines:
        if not line.startswith("a="):
            continue
        name, _, value = line[2:].partition(":")
        if name == "candidate":
            found = _candidate(value)
            if found is None:
                skipped += 1
            elif found not in candidates:
                candidates.append(found)
        elif name in _WANTED and values.setdefault(name, value) != value:
            raise FeagiDataError(f"description says a={name} twice, and not the same")
    if len(candidates) > MAX_CANDIDATES:
        raise FeagiDataError(
            f"description has {len(candidates)} candidates; at most {MAX_CANDIDATES} are tried"
        )
    fingerprint = _matching(values, "fingerprint", _FINGERPRINT)
    setup = values.get("setup", "")
    if setup not in _SETUPS:
        raise FeagiDataError(f"description has a=setup:{setup[:20]!r}; {sorted(_SETUPS)} are known")
    most = _number(values, "max-message-size", _DEFAULT_MESSAGE_BYTES, 0, 1 << 32)
    if 0 < most < MIN_MESSAGE_BYTES:
        raise FeagiDataError(
            f"description takes messages of {most} bytes; at least {MIN_MESSAGE_BYTES} are needed"
        )
    return Description(
        _matching(values, "ice-ufrag", _UFRAG),
        _matching(values, "ice-pwd", _PASSWORD),
        fingerprint.partition(" ")[2].upper(),
        setup,
        tuple(candidates),
        _matching(values, "mid", _MID),
        _number(values, "sctp-port", _DEFAULT_SCTP_PORT, 1, 0xFFFF),
        most,
        skipped,
    )


_WANTED: Final = frozenset(
    {"ice-ufrag", "ice-pwd", "fingerprint", "setup", "mid", "sctp-port", "max-message-size"}
)


def _matching(values: dict[str, str], name: str, form: re.Pattern[str]) -> str:
    value = values.get(name)
    if value is None:
        raise FeagiDataError(f"description has no a={name}")
    if not form.fullmatch(value):
        raise FeagiDataError(f"description has an a={name} of {len(value)} characters that is none")
    return value


def _number(values: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = values.get(name)
    if text is None:
        return default
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise FeagiDataError(f"description has a={name}:{text[:20]!r}; {least} to {most} expected")
    return int(text)


def _candidate(text: str) -> PeerCandidate | None:
    """A candidate that can be tried; None for one that is good and cannot. FeagiDataError for what
    is none."""
    match = _CANDIDATE.fullmatch(text)
    if match is None:
        raise FeagiDataError(f"description has a candidate {text[:80]!r} that is none")
    foundation, component, protocol, priority, host, port, kind = match.groups()
    if component != "1" or protocol.lower() != "udp" or kind not in _TYPES:
        return None
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None  # a name; nothing is asked for it
    unusable = address.is_multicast or address.is_unspecified or "%" in host
    if unusable or not 1 <= int(port) <= 0xFFFF or not 0 < int(priority) < 1 << 32:
        raise FeagiDataError(f"description has a candidate {host[:40]} port {port} that cannot be")
    return PeerCandidate(foundation, int(priority), str(address), int(port), kind)
