# SPDX-License-Identifier: Apache-2.0
"""ConnectionGuard: nobody fills memory through a port with messages that never end.

libzmq 4.3.5 holds every part of a message until the last one has come. Its limits are per part
(MAXMSGSIZE) and per whole message (the high-water marks), so a peer that sends parts without end
fills memory as fast as the wire goes, more than one GB in a second over loopback, and no socket
tells of it. A flood of subscriptions does the same to a publisher, slower.

So the connections themselves are looked at: how many bytes the system has received from each, and
how many of them belong to messages that have arrived.

  1  All connections are looked at 50 times a second; 100 times while something comes.
  2  A connection that has brought some KB since that was last known is listened to: the next
     whole message from it proves it. One that brings more than the largest message that it may
     send, and nothing waits to be read, sends no message: it is shut. Where agents register, all
     are always listened to.
  3  Who subscribes has nothing to say but some bytes; there whole messages prove nothing.
  4  A few bytes a second are nobody's fault: pings are not messages.
  5  Connections beyond what a port can need are shut: where agents register the oldest of those
     that are not registered, elsewhere the newest.

What a part costs in memory is at least 64 bytes, also for an empty one of 2 bytes on the wire. So
  6  a message of which more than 1 MB has come while the process has grown by more than four times
     as much and 128 MB is taken for one of many parts.

The memory is given back to the allocator when the connection has been shut; the allocator uses it
again but need not give it back to the system.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zmq

from feagi_io_host.core.rate_limit import Rate, TokenBucket
from feagi_io_host.transports.zmq.tcp_facts import TcpFacts, host_of, is_at, port_of

if TYPE_CHECKING:
    from feagi_io_host.transports.zmq.common import ZmqSocket

_log = logging.getLogger("feagi_io.zmq")

# Over loopback 1 MB of memory is filled in a millisecond. In one, some 100 connections are
# looked at.
_LOOK_S: Final = 0.02
_LOOK_CLOSER_S: Final = 0.01
# Looking takes a hundredth of the time at most.
_LOOK_SHARE: Final = 100.0
# Greeting, handshake, and what the library has read at once and not passed on yet (8 KB).
SLACK_BYTES: Final = 16 << 10
_LISTEN_AFTER_BYTES: Final = 8 << 10
# Pings and answers, of 9 and 7 bytes, are 7 a second as both ends have it by default. There is room
# for ends that ask 30 times a second.
TRICKLE_BYTES_PER_S: Final = 512.0
# A socket gives each of its connections a turn. When so many messages more than there are
# connections have come from others, nothing of this one waits.
_OTHERS: Final = 128
# One message cannot make the process grow by more than its own size. Parts of no bytes can, by 32
# times that; what else the process does meanwhile is allowed for.
_SWELLING_BYTES: Final = 1 << 20
_SWELLING_FACTOR: Final = 4
_MOST_SWOLLEN_BYTES: Final = 128 << 20
_WARNINGS: Final = Rate(per_s=0.1, burst=5)


@dataclass(frozen=True, slots=True)
class PortRule:
    """What peers may do at one port. `most_bytes` may come between two messages, or, without
    `proven_by_messages`, at all, on each of `most_connections`."""

    name: str
    most_bytes: int
    most_connections: int
    proven_by_messages: bool = True
    newest_stays: bool = False
    hears_all: bool = False  # `heard` is called whether the port is listening or not


def control_rule(unregistered_bytes: int, max_agents: int) -> PortRule:
    """For the port that agents register at; registered ones may do more, see `heard`."""
    return PortRule(
        "control", unregistered_bytes, 4 * max_agents + 64, newest_stays=True, hears_all=True
    )


def sensory_rule(max_frame_bytes: int) -> PortRule:
    """For the port that one agent sends its frames to."""
    return PortRule("sensory", max_frame_bytes, 16)


def publisher_rule(name: str) -> PortRule:
    """For a port that one agent subscribes at."""
    return PortRule(name, 0, 16, proven_by_messages=False)


@dataclass(slots=True, eq=False)
class _Connection:
    descriptor: int
    peer: bytes
    port: PortGuard
    most_bytes: int
    base_bytes: int  # received when it last was proven
    base_at_s: float
    memory_bytes: int = 0  # of the process, then
    known: bool = False
    listened: bool = False
    suspect: bool = False
    others: int = 0
    ended: bool = False  # by us

    def unproven(self, count_bytes: int, now_s: float) -> float:
        """How much of `count_bytes` received counts against it."""
        return count_bytes - self.base_bytes - TRICKLE_BYTES_PER_S * (now_s - self.base_at_s)


class PortGuard:
    """The connections of one listening socket. For who reads that socket, in the thread or loop
    of the ConnectionGuard; `close` from any thread, before the socket.

    While `listening`, `heard` is to be called for each whole message, and while there are
    `suspects`, `drained` when none waits.
    """

    __slots__ = (
        "_guard", "address", "closed", "connections", "early", "listening", "rule", "suspects"
    )  # fmt: skip

    def __init__(self, guard: ConnectionGuard, rule: PortRule, address: bytes | None) -> None:
        self._guard = guard
        self.rule = rule
        self.address = address
        self.connections: dict[int, _Connection] = {}
        self.suspects: list[_Connection] = []
        # By their descriptors, connections that were heard before they were found: what they may
        # send, and what they had.
        self.early: dict[int, tuple[int | None, int]] = {}
        self.listening = False
        self.closed = False

    def heard(self, part: zmq.Frame, most_bytes: int | None = None) -> None:
        """A message has come, of which `part` is one. `most_bytes` may come before its peer's
        next one from now on (None: as the port's rule says); a peer for which that is said is
        one that is let in."""
        descriptor = int(part.get(zmq.SRCFD))
        connection = self.connections.get(descriptor)
        if connection is None:
            self.early[descriptor] = most_bytes, self._guard.received_bytes(descriptor)
        else:
            self.allow(connection, most_bytes)
            if connection.listened:
                self._guard.prove(connection)
        for suspect in tuple(self.suspects):
            suspect.others += 1
            if suspect.others > _OTHERS + len(self.connections):
                self._guard.shut(suspect, "flooded")

    def drained(self) -> None:
        """Nothing waits at the socket: what has not come from a suspect by now will not come."""
        for suspect in tuple(self.suspects):
            self._guard.shut(suspect, "flooded")

    def allow(self, connection: _Connection, most_bytes: int | None) -> None:
        """From now on a connection may bring so much between two messages."""
        connection.known = most_bytes is not None
        allowed = self.rule.most_bytes if most_bytes is None else most_bytes
        connection.most_bytes = allowed + SLACK_BYTES

    def see(self) -> None:
        """Bring `listening` and `suspects` up to date."""
        self.suspects = [one for one in self.connections.values() if one.suspect]
        self.listening = any(one.listened for one in self.connections.values())

    def close(self) -> None:
        """The socket is about to be closed."""
        if not self.closed:
            self.closed = True
            self._guard.let_go(self)


class ConnectionGuard:
    """Looks at the connections of the listening sockets of one transport.

    Call `look` every `wait_s` seconds, in the one thread or loop that reads the sockets, and then
    read those with `suspects`. `watch` may be called by any thread. Where the system does not
    tell what is needed, nothing is done.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counters = {"flooded": 0, "crowded": 0}
        self._ports: dict[int, tuple[PortGuard, ...]] = {}
        self._ports_lock = threading.Lock()  # for changes
        self._connections: dict[int, _Connection] = {}
        self._look_at_s = -math.inf
        self._moved = False
        self._warnings = TokenBucket(_WARNINGS, clock())
        self._facts: TcpFacts | None = None
        try:
            self._facts = TcpFacts.probe()
        except OSError as error:
            _log.debug("connections cannot be looked at: %s", error)

    def counters(self) -> dict[str, int]:
        """Connections that were shut: `flooded` for what came over them, `crowded` because there
        were too many."""
        return dict(self._counters)

    @property
    def wait_s(self) -> float:
        """In how many seconds `look` has something to do; infinity for no time."""
        return max(self._look_at_s - self._clock(), 0.0) if self._ports else math.inf

    def watch(self, socket: ZmqSocket, rule: PortRule) -> PortGuard:
        """Guard `socket`, which has just been bound by `common.bind`."""
        if self._facts is None:
            return PortGuard(self, rule, None)
        # Facts of its own: another thread may be asking at this moment.
        address = TcpFacts().local(int(socket.getsockopt(zmq.USE_FD)))
        port = PortGuard(self, rule, address)
        number = port_of(address)
        if number is not None:
            with self._ports_lock:
                self._ports[number] = (*self._ports.get(number, ()), port)
        return port

    def let_go(self, port: PortGuard) -> None:
        """For the port: it is no more."""
        number = port_of(port.address)
        if number is None:
            return
        with self._ports_lock:
            left = tuple(one for one in self._ports.get(number, ()) if one is not port)
            if left:
                self._ports[number] = left
            else:
                self._ports.pop(number, None)

    def look(self) -> None:
        """Look at every connection. Does not wait.

        They are looked for: libzmq tells of them only if it is given two more sockets for each
        port, which take more descriptors than the connections themselves; and the system tells of
        bytes only as long as nobody has read them.
        """
        facts = self._facts
        if facts is None or not self._ports:
            return
        now_s, began_s = self._clock(), time.thread_time()
        self._moved = False
        found: set[int] = set()
        for descriptor in facts.descriptors():
            local = facts.local(descriptor)
            port = None if local is None else self._port_at(local)
            peer = None if port is None else facts.peer(descriptor)
            if port is None or peer is None:
                continue
            found.add(descriptor)
            connection = self._connections.get(descriptor)
            if connection is None or connection.peer != peer or connection.port is not port:
                connection = self._begin(descriptor, peer, port, now_s)
            self._examine(connection, now_s)
        for connection in tuple(self._connections.values()):
            if connection.descriptor not in found:
                self._forget(connection)
        for ports in tuple(self._ports.values()):
            for port in ports:
                port.early.clear()
        pause_s = _LOOK_CLOSER_S if self._moved else _LOOK_S
        self._look_at_s = now_s + max(pause_s, _LOOK_SHARE * (time.thread_time() - began_s))

    # -- one connection -----------------------------------------------------------------------

    def _port_at(self, local: bytes) -> PortGuard | None:
        for port in self._ports.get(port_of(local) or 0, ()):
            if port.address is not None and is_at(local, port.address):
                return port
        return None

    def _begin(self, descriptor: int, peer: bytes, port: PortGuard, now_s: float) -> _Connection:
        assert self._facts is not None
        before = self._connections.get(descriptor)
        if before is not None:
            self._forget(before)
        rule = port.rule
        connection = _Connection(descriptor, peer, port, rule.most_bytes + SLACK_BYTES, 0, now_s)
        self._connections[descriptor] = port.connections[descriptor] = connection
        if descriptor in port.early:
            most_bytes, connection.base_bytes = port.early[descriptor]
            connection.listened = rule.hears_all
            port.allow(connection, most_bytes)
        elif rule.hears_all:
            connection.listened = True
            port.see()
        elif rule.proven_by_messages:  # what has come by now may have been messages
            connection.base_bytes = self._facts.received_bytes(descriptor) or 0
        strangers = [one for one in port.connections.values() if not (one.known or one.ended)]
        if len(strangers) > rule.most_connections:
            self.shut(strangers[0 if rule.newest_stays else -1], "crowded")
        return connection

    def _examine(self, connection: _Connection, now_s: float) -> None:
        assert self._facts is not None
        port = connection.port
        received = self._facts.received_bytes(connection.descriptor)
        if received is None or connection.ended:
            return
        if not port.rule.proven_by_messages:
            if connection.unproven(received, now_s) > connection.most_bytes:
                self.shut(connection, "flooded")
            return
        few_bytes = min(connection.most_bytes, _SWELLING_BYTES)
        if not connection.listened:
            few_bytes = _LISTEN_AFTER_BYTES
        if connection.unproven(received, now_s) <= few_bytes:
            return
        self._moved = True
        # Asked for after the number received, so that too little is found rather than too much.
        taken = received - self._facts.unread_bytes(connection.descriptor)
        if not connection.listened:
            self._listen(connection, taken, now_s)
        elif not connection.suspect:
            unproven = connection.unproven(taken, now_s)
            if unproven > connection.most_bytes or self._swells(connection, unproven):
                connection.suspect = True
                connection.others = 0
                port.see()

    def _listen(self, connection: _Connection, base_bytes: int, now_s: float) -> None:
        assert self._facts is not None
        connection.base_bytes, connection.base_at_s = base_bytes, now_s
        connection.memory_bytes = self._facts.resident_bytes()
        connection.listened = True
        connection.port.see()

    def _swells(self, connection: _Connection, unproven: float) -> bool:
        assert self._facts is not None
        if unproven <= _SWELLING_BYTES or connection.port.rule.hears_all:
            return False
        grown_bytes = self._facts.resident_bytes() - connection.memory_bytes
        return grown_bytes > _MOST_SWOLLEN_BYTES + _SWELLING_FACTOR * unproven

    def received_bytes(self, descriptor: int) -> int:
        """For the port: what a connection has received that is not known yet."""
        return 0 if self._facts is None else self._facts.received_bytes(descriptor) or 0

    def prove(self, connection: _Connection) -> None:
        """For the port: a whole message has come over a connection."""
        assert self._facts is not None
        received = self._facts.received_bytes(connection.descriptor)
        # None: it has ended by now, which the next look finds.
        connection.base_bytes, connection.base_at_s = received or 0, self._clock()
        connection.listened = connection.port.rule.hears_all
        if connection.suspect or not connection.listened:
            connection.suspect = False
            connection.port.see()

    def shut(self, connection: _Connection, why: str) -> None:
        """For the port: end a connection, and count it under `why`."""
        assert self._facts is not None
        descriptor, peer, port = connection.descriptor, connection.peer, connection.port
        # By now the number may belong to something else.
        if not port.closed and not connection.ended and self._facts.peer(descriptor) == peer:
            received = self._facts.received_bytes(descriptor) or 0
            self._counters[why] += 1  # first: the peer may be quick to ask
            self._tell(connection, why, received - connection.base_bytes)
            self._facts.shut(descriptor)
        # Known until its owner has closed it: as long it must not be taken for a new one.
        connection.ended = True
        connection.listened = connection.suspect = False
        port.see()

    def _tell(self, connection: _Connection, why: str, unproven_bytes: int) -> None:
        port, host = connection.port, host_of(connection.peer)
        name, number = port.rule.name, port_of(port.address)
        level = logging.WARNING if self._warnings.take(self._clock()) else logging.DEBUG
        if why == "crowded":
            _log.log(
                level, "connection from %s to %s port %s ended: more than %d of them; let fewer "
                "in, or find out who opens them",
                host, name, number, port.rule.most_connections,
            )  # fmt: skip
        else:
            _log.log(
                level, "connection from %s to %s port %s ended: %d bytes without an end of what "
                "it says (%d are the most, in few parts); find out what it sends",
                host, name, number, unproven_bytes, connection.most_bytes,
            )  # fmt: skip

    def _forget(self, connection: _Connection) -> None:
        for known in (self._connections, connection.port.connections):
            if known.get(connection.descriptor) is connection:
                del known[connection.descriptor]
        connection.port.see()
