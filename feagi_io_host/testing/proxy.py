# SPDX-License-Identifier: Apache-2.0
"""UdpImpairmentProxy: a bad network between two ends that speak UDP over this machine.

    proxy = UdpImpairmentProxy("127.0.0.1", port, back=Faults(loss=0.05), seed=7)
    with proxy:
        ...  # have one end speak to proxy.address instead

The fate of the n-th datagram of a flow in one direction depends on the seed, the flow (they are
numbered as they come) and n alone: who sends the same sees the same again. A kernel without netem
is enough, and no rights are needed.
"""

from __future__ import annotations

import heapq
import itertools
import os
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Final, Literal, Self

from feagi_io_host.core.errors import ClosedError, ConfigError, StopTimeoutError

Direction = Literal["towards", "back"]
Address = tuple[str, int]

_LARGEST: Final = 65_507
_BUFFER_BYTES: Final = 4 << 20
_MOST_FLOWS: Final = 64
_MOST_WAITING: Final = 4096
_FAIR_SHARE: Final = 64
# One that is overtaken goes on after so many others, or when none comes.
_OVERTAKEN_BY: Final = 3
_PATIENCE_S: Final = 0.02
_STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How bad one direction is: `loss`, `duplicate`, `reorder`, `corrupt` are the shares of
    datagrams that are lost, doubled, overtaken by later ones, or have bits turned over or their
    end cut off; each is late by `delay_s`. Raises ConfigError."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            most = 60.0 if field.name == "delay_s" else 1.0
            if not 0.0 <= value <= most:
                raise ConfigError(f"{field.name} is {value}; 0 to {most} needed")


class UdpImpairmentProxy:
    """Passes datagrams on to `host:port`, and what comes back, badly. Runs once.

    Each end that speaks to it is a flow of its own, with a socket of its own `towards` the target.
    `towards` and `back` may be set while it runs. What it does not pass on it counts.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        towards: Faults | None = None,
        back: Faults | None = None,
        seed: int = 0,
    ) -> None:
        self.towards = towards or Faults()
        self.back = back or Faults()
        self._target = (host, port)
        self._seed = seed
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._front: socket.socket | None = None
        self._flows: dict[Address, _Flow] = {}
        self._selector = selectors.DefaultSelector()
        self._waiting: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._wanted: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._thread = threading.Thread(target=self._run, name="udp impairment proxy", daemon=True)
        names = ("taken", "passed", "lost", "duplicated", "reordered", "corrupted", "refused")
        self._counters: dict[Direction, dict[str, int]] = {
            "towards": dict.fromkeys(names, 0),
            "back": dict.fromkeys(names, 0),
        }

    # -- for users ----------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Host and port to speak to. Raises ClosedError before `start`."""
        if self._front is None:
            raise ClosedError("the proxy was not started; start it first")
        host, port = self._front.getsockname()[:2]
        return str(host), int(port)

    def url(self, url: str) -> str:
        """A URL with the proxy in the place of the target."""
        host, port = self.address
        scheme, _, rest = url.partition("://")
        _, mark, path = rest.partition("/")
        shown = f"[{host}]" if ":" in host else host
        return f"{scheme}://{shown}:{port}{mark}{path}"

    def start(self) -> None:
        """Begin. Raises ClosedError the second time."""
        if self._stopping or self._front is not None:
            raise ClosedError("the proxy runs once; make a new one")
        front = self._socket()
        front.bind(("::1" if self._family == socket.AF_INET6 else "127.0.0.1", 0))
        self._front = front
        self._selector.register(front, selectors.EVENT_READ, self._from_front)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._woken)
        self._thread.start()

    def stop(self, timeout_s: float = _STOP_S) -> None:
        """End, within `timeout_s` seconds; what is under way is dropped. May be called more than
        once. Raises StopTimeoutError."""
        with self._lock:
            first, self._stopping = not self._stopping, True
            if first:
                os.write(self._wake_write, b"\0")
        if self._thread.ident is None:
            if first:
                self._let_go()
            return
        self._thread.join(max(timeout_s, 0.0))
        if self._thread.is_alive():
            raise StopTimeoutError(f"the proxy did not end within {timeout_s} s")

    def move_all(self) -> None:
        """Have every flow come from another port from here on, as a router does that was restarted
        or has forgotten them."""
        self._in_thread(self._renew_all)

    def counters(self) -> dict[Direction, dict[str, int]]:
        """Per direction how many datagrams were `taken` in and `passed` on, `lost`, `duplicated`,
        `reordered`, `corrupted`, and `refused`: by the system, or because too many were waiting."""
        return {direction: dict(counted) for direction, counted in self._counters.items()}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- the thread ---------------------------------------------------------------------------

    def _in_thread(self, call: Callable[[], object]) -> None:
        with self._lock:
            if self._stopping:
                raise ClosedError("the proxy was stopped; make a new one")
            self._wanted.append(call)
            os.write(self._wake_write, b"\0")

    def _renew_all(self) -> None:
        for flow in self._flows.values():
            flow.renew()

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                for key, _ in self._selector.select(None if wait_s is None else max(wait_s, 0.0)):
                    key.data()
                now_s = time.monotonic()
                while self._waiting and self._waiting[0][0] <= now_s:
                    heapq.heappop(self._waiting)[2]()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        self._selector.close()
        for flow in self._flows.values():
            flow.close()
        if self._front is not None:
            self._front.close()
        with self._lock:
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _woken(self) -> None:
        os.read(self._wake_read, 4096)
        with self._lock:
            wanted = tuple(self._wanted)
            self._wanted.clear()
        for call in wanted:
            call()

    def _from_front(self) -> None:
        front = self._front
        assert front is not None
        for _ in range(_FAIR_SHARE):
            try:
                data, source = front.recvfrom(_LARGEST)
            except OSError:
                return
            flow = self._flows.get(source)
            if flow is None:
                if len(self._flows) >= _MOST_FLOWS:
                    self._counters["towards"]["refused"] += 1
                    continue
                flow = self._flows[source] = _Flow(self, source, len(self._flows))
            flow.lines["towards"].take(data)

    # -- for flows and lines --------------------------------------------------------------------

    def _socket(self) -> socket.socket:
        made = socket.socket(self._family, socket.SOCK_DGRAM)
        made.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            made.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        return made

    def _later(self, due_s: float, call: Callable[[], object]) -> bool:
        if len(self._waiting) >= _MOST_WAITING:
            return False
        heapq.heappush(self._waiting, (due_s, next(self._order), call))
        return True


class _Flow:
    """One end that speaks to the proxy: its socket towards the target, its two lines."""

    def __init__(self, proxy: UdpImpairmentProxy, source: Address, number: int) -> None:
        self._proxy = proxy
        self._source = source
        self._socket = self._open()
        self.lines: dict[Direction, _Line] = {
            "towards": _Line(proxy, "towards", number, self._send_on),
            "back": _Line(proxy, "back", number, self._send_back),
        }

    def renew(self) -> None:
        """Another socket, on another port."""
        old, self._socket = self._socket, self._open()
        self._proxy._selector.unregister(old)
        old.close()

    def close(self) -> None:
        self._socket.close()

    def _open(self) -> socket.socket:
        made = self._proxy._socket()
        made.connect(self._proxy._target)
        self._proxy._selector.register(made, selectors.EVENT_READ, self._from_target)
        return made

    def _from_target(self) -> None:
        for _ in range(_FAIR_SHARE):
            try:
                data = self._socket.recv(_LARGEST)
            except OSError:
                return
            self.lines["back"].take(data)

    def _send_on(self, data: bytes) -> None:
        self._socket.send(data)

    def _send_back(self, data: bytes) -> None:
        front = self._proxy._front
        assert front is not None
        front.sendto(data, self._source)


@dataclass(slots=True, eq=False)
class _Held:
    """A datagram that lets others pass it."""

    data: bytes
    to_come: int = _OVERTAKEN_BY


class _Line:
    """One direction of one flow."""

    def __init__(
        self,
        proxy: UdpImpairmentProxy,
        direction: Direction,
        number: int,
        send: Callable[[bytes], object],
    ) -> None:
        self._proxy = proxy
        self._direction: Direction = direction
        self._send = send
        self._random = random.Random(f"{proxy._seed} {direction} {number}")
        self._counters = proxy._counters[direction]
        self._overtaken: list[_Held] = []

    def take(self, data: bytes) -> None:
        """Decide what becomes of a datagram."""
        self._counters["taken"] += 1
        faults: Faults = getattr(self._proxy, self._direction)
        # The same draws for each, so that one fault more or less leaves the others as they are.
        lost, doubled, overtaken, hurt, how = (self._random.random() for _ in range(5))
        if lost < faults.loss:
            self._counters["lost"] += 1
            return
        if hurt < faults.corrupt:
            self._counters["corrupted"] += 1
            data = _hurt(data, how)
        if overtaken < faults.reorder:
            self._counters["reordered"] += 1
            held = _Held(data)
            self._overtaken.append(held)
            if not self._proxy._later(time.monotonic() + _PATIENCE_S, lambda: self._release(held)):
                self._release(held)
        else:
            self._pass_on(data, faults.delay_s)
            self._pass_overtaken()
        if doubled < faults.duplicate:
            self._counters["duplicated"] += 1
            self._pass_on(data, faults.delay_s)

    def _pass_overtaken(self) -> None:
        for held in tuple(self._overtaken):
            held.to_come -= 1
            if not held.to_come:
                self._release(held)

    def _release(self, held: _Held) -> None:
        if held in self._overtaken:
            self._overtaken.remove(held)
            self._pass_on(held.data, 0.0)

    def _pass_on(self, data: bytes, delay_s: float) -> None:
        if not delay_s:
            self._pass_now(data)
        elif not self._proxy._later(time.monotonic() + delay_s, lambda: self._pass_now(data)):
            self._counters["refused"] += 1

    def _pass_now(self, data: bytes) -> None:
        try:
            self._send(data)
        except OSError:
            self._counters["refused"] += 1
        else:
            self._counters["passed"] += 1


def _hurt(data: bytes, how: float) -> bytes:
    """Its end cut off, or up to four bits turned over: which ones depends on `how`, 0 to 1."""
    choose = random.Random(how)
    if not data or choose.random() < 0.2:
        return data[: choose.randrange(max(len(data), 1))]
    changed = bytearray(data)
    for bit in choose.sample(range(8 * len(changed)), choose.randrange(1, 5)):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
