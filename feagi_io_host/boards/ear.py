# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a board's port: an agent, a REPL, or something that says neither.

Bytes in, findings out. To ask, two things are sent that harm nobody: a carriage return with Ctrl-B,
at which a REPL shows its banner, and a HELLO in which no byte is a control key to a REPL or to a
program that listens for one (an ordinary HELLO holds Ctrl-C).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from feagi_io_host.bridge.declaration import BoardDeclaration, parse_declaration
from feagi_io_host.core.errors import FeagiDataError
from feagi_wire.const import (
    END,
    EV_HELLO,
    EV_VERSION,
    FBC_VERSION,
    FROM_HOST,
    HELLO,
    LINK_VERSION,
)
from feagi_wire.container import StaticFBC
from feagi_wire.framing import Framer, frame_bytes
from feagi_wire.host_link import HostLink

ASK_REPL: Final = b"\r\x02"
_COMPATIBLE_FLAG: Final = 0x10
_MAX_DECLARATION: Final = 16384
_TEXT_BYTES: Final = 4096
_BANNER: Final = re.compile(rb"((?:MicroPython|CircuitPython)[^\r\n]{0,120})[\r\n]")
_CONTROL_KEYS: Final = frozenset(range(1, 9)) | {0x0D, 0x0A, 0x18, 0x1B}


@dataclass(frozen=True, slots=True)
class AgentHeard:
    """An agent said HELLO. `declaration` is None when it could not be read: `fault` says why."""

    link_version: int
    container_version: int
    declaration: BoardDeclaration | None
    fault: str = ""

    @property
    def speaks_ours(self) -> bool:
        """Whether its versions of link and container are this library's."""
        return (self.link_version, self.container_version) == (LINK_VERSION, FBC_VERSION)


class Ear:
    """Listens to one line. `agent` and `banner` are what was heard; `heard` counts bytes."""

    def __init__(self) -> None:
        self.agent: AgentHeard | None = None
        self.banner = ""
        self.prompt = False
        self.heard = 0
        self.text = b""
        room = frame_bytes(_MAX_DECLARATION)
        self._link = HostLink(bytearray(256), StaticFBC(bytearray(room + (-room % 4))))

    def listen(self, data: bytes) -> None:
        """Take bytes of the line."""
        self.heard += len(data)
        self.text = (self.text + data)[-_TEXT_BYTES:]
        found = _BANNER.search(self.text)
        if found:
            self.banner = found[1].decode(errors="replace")
        if b">>> " in self.text:
            self.prompt = True
        link = self._link
        at = 0
        while at < len(data):
            events = link.receive(data, at, len(data), 0)
            if events == END:
                break
            at = link.index
            if events > 0 and events & (EV_HELLO | EV_VERSION):
                self.agent = self._hello(events)

    def _hello(self, events: int) -> AgentHeard:
        link = self._link
        if events & EV_VERSION:
            return AgentHeard(link.peer_link, link.peer_fbc, None, "another version")
        start, end = link.hello_span
        try:
            declaration = parse_declaration(bytes(link.rx.buf[start:end]))
        except FeagiDataError as error:
            return AgentHeard(link.peer_link, link.peer_fbc, None, str(error))
        return AgentHeard(link.peer_link, link.peer_fbc, declaration)


def _gentle_hello() -> bytes:
    framer = Framer(bytearray(32), bytearray(32))
    for number in range(1, 1 << 16):
        # A board looks at neither epoch nor number of a host's HELLO, and ignores this flag.
        header = bytes(
            [HELLO | _COMPATIBLE_FLAG, FROM_HOST | 0xF0, 0x20 | number & 0xDF, 0x20 | number >> 8]
        )
        size = framer.encode(header, 0, len(header))
        frame = bytes(framer.tx[:size])
        if size > 0 and not _CONTROL_KEYS & set(frame) and frame.count(0) == 2:
            return frame
    raise AssertionError("no HELLO without control keys")


ASK_AGENT: Final = _gentle_hello()
