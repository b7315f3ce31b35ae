# SPDX-License-Identifier: Apache-2.0
"""How the two ends of a stream find each other and tell each other what arrived: 80 bytes.

     0  8s   keyed BLAKE2s of everything behind it, its first 8 bytes
     8  2s   magic "FH"
    10  u8   version, 1
    11  u8   kind: 1 hello, 2 welcome, 3 bye, 4 gone
    12  u32  sent: bursts that this end has sent so far
    16  u64  session
    24  u64  counter: of the agent's greetings; a welcome has that of the hello it answers
    32  8s   token: what the server makes of the session and of the address it heard it from
    40  10 x u32  report: what became of what this end received so far, by the names in REPORT

Little-endian. The rules:

  1  An agent says hello until it is welcomed, then once a second. Whoever does not know the key
     of the session cannot, and gets no answer.
  2  An answer is as long as what it answers. A burst goes only to an address from which the token
     came back that was sent there: nobody can have the server pour data on somebody else.
  3  The newest address proven so is the agent's: a router on the way may give it another one.
  4  Counters only count up, so nothing that was said once is believed twice.
  5  An agent that has said nothing for a while gets nothing more until it says hello again.
  6  What was sent before the hello before is either reported as delivered by now or was lost.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from feagi_io_host.core.datagram import BytesLike
from feagi_io_host.transports.udp.vectors import Address

MAGIC: Final = b"FH"
VERSION: Final = 1
TAG_BYTES: Final = 8
TOKEN_BYTES: Final = 8
NO_TOKEN: Final = bytes(TOKEN_BYTES)
_FORM: Final = struct.Struct("<8s2sBBIQQ8s10I")
GREETING_BYTES: Final = _FORM.size
_U32: Final = 0xFFFF_FFFF

# Each figure of a report and the counters of a Reassembler that it adds up.
REPORT: Final[Mapping[str, tuple[str, ...]]] = {
    "delivered": ("delivered",),
    "lost": ("lost",),
    "incomplete": ("incomplete", "superseded", "restarted"),
    "evicted": ("evicted",),
    "late": ("late", "stale_epoch", "far_ahead"),
    "duplicate": ("duplicate",),
    "reordered": ("reordered",),
    "unauthenticated": ("unauthenticated",),
    "corrupt": ("corrupt", "malformed", "unsupported", "contradicting"),
    "refused_memory": ("refused_memory",),
}
NO_REPORT: Final = (0,) * len(REPORT)

FIRST_PAUSE_S: Final = 0.05
HELLO_EVERY_S: Final = 1.0


class GreetingKind(enum.IntEnum):
    """What is said."""

    HELLO = 1
    WELCOME = 2
    BYE = 3
    GONE = 4


_KINDS: Final = {kind.value: kind for kind in GreetingKind}


@dataclass(frozen=True, slots=True)
class Greeting:
    """One greeting; see above."""

    kind: GreetingKind
    session: int
    counter: int
    token: bytes = NO_TOKEN
    sent: int = 0
    report: tuple[int, ...] = NO_REPORT

    def reported(self) -> dict[str, int]:
        """The report by name."""
        return dict(zip(REPORT, self.report, strict=True))


def report_of(counters: Mapping[str, int]) -> tuple[int, ...]:
    """The report that a Reassembler's counters make."""
    return tuple(sum(counters[name] for name in names) & _U32 for names in REPORT.values())


def session_of(datagram: BytesLike) -> int | None:
    """Which session a datagram says it greets; None for what is no greeting."""
    if len(datagram) != GREETING_BYTES:
        return None
    _, magic, version, _, _, session, *_ = _FORM.unpack(datagram)
    return int(session) if (magic, version) == (MAGIC, VERSION) else None


class GreetingSeal:
    """Signs and proves the greetings of one session. `key` has 32 bytes."""

    def __init__(self, key: bytes) -> None:
        # Not the key of the data: a tag of the one is never one of the other.
        own = hashlib.blake2s(b"feagi-io udp greeting", key=key).digest()
        self._keyed = hashlib.blake2s(key=own, digest_size=TAG_BYTES)

    def sign(self, greeting: Greeting) -> bytes:
        """The 80 bytes."""
        body = _FORM.pack(
            b"",
            MAGIC,
            VERSION,
            greeting.kind,
            greeting.sent & _U32,
            greeting.session,
            greeting.counter,
            greeting.token,
            *greeting.report,
        )[TAG_BYTES:]
        return self._tag(body) + body

    def prove(self, datagram: BytesLike) -> Greeting | None:
        """What was said; None when it was not said by who has the key, or not in this form."""
        if session_of(datagram) is None:
            return None
        data = bytes(datagram)
        if not hmac.compare_digest(self._tag(data[TAG_BYTES:]), data[:TAG_BYTES]):
            return None
        _, _, _, number, sent, session, counter, token, *report = _FORM.unpack(data)
        kind = _KINDS.get(number)
        if kind is None:
            return None
        return Greeting(kind, session, counter, token, sent, tuple(report))

    def _tag(self, body: bytes) -> bytes:
        digest = self._keyed.copy()
        digest.update(body)
        return digest.digest()

    def __repr__(self) -> str:
        return "<GreetingSeal>"


def token_for(secret: bytes, session: int, address: Address) -> bytes:
    """What has to come back from an address. `secret` is the server's alone."""
    text = f"{session:x} {address[0]} {address[1]}".encode()
    return hashlib.blake2s(text, key=secret, digest_size=TOKEN_BYTES).digest()


class LossCount:
    """How many of the bursts that one end sent never reached the other; see rule 6."""

    def __init__(self) -> None:
        self._sent_before = 0
        self._lost = 0

    def note(self, sent: int, delivered: int) -> int:
        """One end has sent so many until now, the other has got so many; how many more are known
        to be lost than at the call before. Both count modulo 2^32."""
        missing = (self._sent_before - delivered) & _U32
        self._sent_before = sent & _U32
        if missing > _U32 // 2:  # some of those sent since have arrived, too
            return 0
        more = max(0, missing - self._lost)
        self._lost += more
        return more


class Heard(enum.Enum):
    """What a server makes of a greeting."""

    NOTHING = "nothing"
    """Not from this agent, or not new: no answer."""
    UNPROVEN = "unproven"
    """From somewhere that the agent has yet to prove to be at: the answer says how."""
    HELLO = "hello"
    BYE = "bye"


class HostGreeter:
    """The server's side of one session: whom it belongs to, and where that is now."""

    def __init__(self, session: int, key: bytes, secret: bytes) -> None:
        self.address: Address | None = None
        """Where the agent was heard last and has proven to be."""
        self.heard_s = 0.0
        self.reported = Greeting(GreetingKind.HELLO, session, 0)
        """The last greeting that came from there."""
        self.counters = {"hellos": 0, "refused": 0, "replayed": 0, "unproven": 0, "moved": 0}
        self._session = session
        self._seal = GreetingSeal(key)
        self._secret = secret
        self._last_counter = 0

    def receive(self, datagram: BytesLike, source: Address, now_s: float) -> Heard:
        """Take a greeting that came from `source`; what does not count is counted as that."""
        greeting = self._seal.prove(datagram)
        if greeting is None or greeting.kind not in (GreetingKind.HELLO, GreetingKind.BYE):
            self.counters["refused"] += 1
            return Heard.NOTHING
        if greeting.counter <= self._last_counter:
            self.counters["replayed"] += 1
            return Heard.NOTHING
        self._last_counter = greeting.counter
        token = token_for(self._secret, self._session, source)
        if not hmac.compare_digest(token, greeting.token):
            self.counters["unproven"] += 1
            return Heard.UNPROVEN
        self.reported = greeting
        if greeting.kind is GreetingKind.BYE:
            self.address = None
            return Heard.BYE
        self.counters["hellos"] += 1
        self.counters["moved"] += self.address not in (None, source)
        self.address = source
        self.heard_s = now_s
        return Heard.HELLO

    def answer(self, source: Address, sent: int, report: tuple[int, ...]) -> bytes:
        """The welcome for what came last from `source`."""
        return self._seal.sign(
            Greeting(
                GreetingKind.WELCOME,
                self._session,
                self._last_counter,
                token_for(self._secret, self._session, source),
                sent,
                report,
            )
        )

    def gone(self) -> bytes:
        """What tells the agent that its session has ended."""
        return self._seal.sign(Greeting(GreetingKind.GONE, self._session, self._last_counter))


class AgentGreeter:
    """The agent's side of one session."""

    def __init__(self, session: int, key: bytes) -> None:
        self.welcomed = False
        """Whether the server has taken this end's address."""
        self.gone = False
        """Whether the server has said that the session is over."""
        self.due_s = float("-inf")
        """When the next hello is to be said."""
        self.answered_s: float | None = None
        """When the last answer came."""
        self.reported = Greeting(GreetingKind.WELCOME, session, 0)
        """The last answer."""
        self.counters = {"hellos": 0, "welcomes": 0, "refused": 0}
        self._session = session
        self._seal = GreetingSeal(key)
        self._counter = 0
        self._answered = 0
        self._token = NO_TOKEN
        self._token_since = 1  # the first hello with this token
        self._pause_s = FIRST_PAUSE_S

    def hello(self, now_s: float, sent: int, report: tuple[int, ...]) -> bytes:
        """What to send now."""
        waiting = self._counter > self._answered
        self._pause_s = min(2 * self._pause_s, HELLO_EVERY_S) if waiting else self._pause_s
        self.due_s = now_s + (self._pause_s if not self.welcomed else HELLO_EVERY_S)
        self.counters["hellos"] += 1
        return self._say(GreetingKind.HELLO, sent, report)

    def bye(self, sent: int, report: tuple[int, ...]) -> bytes:
        """What to send last."""
        return self._say(GreetingKind.BYE, sent, report)

    def receive(self, datagram: BytesLike, now_s: float) -> bool:
        """Take a greeting; whether it was one from the session's server and new."""
        greeting = self._seal.prove(datagram)
        if greeting is None or greeting.session != self._session:
            self.counters["refused"] += 1
            return False
        if greeting.kind is GreetingKind.GONE:
            self.gone = True
            return True
        fresh = self._answered < greeting.counter <= self._counter
        if greeting.kind is not GreetingKind.WELCOME or not fresh:
            self.counters["refused"] += 1
            return False
        self._answered = greeting.counter
        self.answered_s = now_s
        self.counters["welcomes"] += 1
        self.reported = greeting
        self._pause_s = FIRST_PAUSE_S
        if greeting.token != self._token:
            self._token = greeting.token
            self._token_since = self._counter + 1
            self.due_s = now_s  # at once, from where the server has just heard us
        self.welcomed = greeting.counter >= self._token_since
        return True

    def _say(self, kind: GreetingKind, sent: int, report: tuple[int, ...]) -> bytes:
        self._counter += 1
        return self._seal.sign(
            Greeting(kind, self._session, self._counter, self._token, sent, report)
        )
