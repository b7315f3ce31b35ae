# SPDX-License-Identifier: Apache-2.0
"""FeagiSignal: one emitter, any number of listeners, nothing in between.

The rules
  1. `emit` calls the listeners in the emitter's own thread, in the order they connected. There
     is no queue: when `emit` returns, every listener has seen the value.
  2. A listener that raises is reported (error hook and log, with its name) and the others
     still run. Only `Exception` is caught: KeyboardInterrupt and SystemExit go through.
  3. Connecting inside a listener takes effect with the next emission. Disconnecting inside a
     listener takes effect at once: the disconnected listener is not called any more, not even
     by the emission under way.
  4. `emit` reads one tuple that connect and disconnect replace as a whole (copy on write), so
     it takes no lock and builds no list.
"""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NewType, TypeVar

from feagi_io_host.core.errors import UnknownHandleError

T = TypeVar("T")
S = TypeVar("S")

SignalHandle = NewType("SignalHandle", int)
"""What `connect` gives and `disconnect` takes. Unique in the process, never used again."""

_log = logging.getLogger("feagi_io.core")
# One count for all signals: a handle given to the wrong signal is then unknown there.
_handles = itertools.count(1)


@dataclass(frozen=True, slots=True)
class ListenerFailure:
    """One listener raised: the signal's name, the listener's name, what it raised, and how
    often this listener has failed so far (1 for the first time)."""

    signal: str
    listener: str
    error: Exception
    failures: int


ErrorHook = Callable[[ListenerFailure], object]


class _Connection(Generic[T]):
    __slots__ = ("call", "failures", "handle", "live", "name")

    def __init__(self, handle: SignalHandle, name: str, call: Callable[[T], object]) -> None:
        self.handle = handle
        self.name = name
        self.call = call
        self.live = True
        self.failures = 0


def _name_of(callback: Callable[..., object]) -> str:
    """The name a reader would look for: module and qualified name, or the repr."""
    qualified = getattr(callback, "__qualname__", None)
    if qualified is None and isinstance(callback, functools.partial):
        return _name_of(callback.func)
    if qualified is None:
        return repr(callback)
    return f"{getattr(callback, '__module__', None) or '?'}.{qualified}"


class FeagiSignal(Generic[T]):
    """A typed signal. Every method may be called from any thread.

    `name` stands in logs and failures. `on_error` receives a ListenerFailure for each listener
    that raised; it can be replaced at any time through the attribute. An error hook that
    raises is logged and otherwise ignored, so that it cannot silence the other listeners.
    """

    __slots__ = ("_connections", "_failures", "_lock", "name", "on_error")

    def __init__(self, name: str = "signal", *, on_error: ErrorHook | None = None) -> None:
        self.name = name
        self.on_error = on_error
        self._lock = threading.Lock()
        self._connections: tuple[_Connection[T], ...] = ()
        self._failures = 0

    def connect(self, callback: Callable[[T], object]) -> SignalHandle:
        """Call `callback(value)` at each emission from the next one on.

        The same callback may be connected several times; each connection has its own handle.
        """
        return self._add(_name_of(callback), callback)

    def connect_with_shared_state(
        self, state: S, callback: Callable[[S, T], object]
    ) -> SignalHandle:
        """Call `callback(state, value)` at each emission from the next one on.

        `state` is handed over as it is, not copied: whoever shares it guards it.
        """
        return self._add(_name_of(callback), functools.partial(callback, state))

    def disconnect(self, handle: SignalHandle) -> None:
        """End one connection. Raises UnknownHandleError when this signal has no such handle."""
        with self._lock:
            for index, connection in enumerate(self._connections):
                if connection.handle == handle:
                    connection.live = False
                    self._connections = self._connections[:index] + self._connections[index + 1 :]
                    return
            count = len(self._connections)
        raise UnknownHandleError(
            f"signal {self.name!r} has no connection {handle}; it has {count} connections. "
            "A handle is good for one disconnect, at the signal that gave it."
        )

    def disconnect_all(self) -> None:
        """End all connections. Their handles are unknown from here on."""
        with self._lock:
            for connection in self._connections:
                connection.live = False
            self._connections = ()

    def emit(self, value: T) -> None:
        """Call every listener with `value`, here and now, in order of connection.

        Never raises what a listener raised (see rule 2 of this module).
        """
        for connection in self._connections:
            if connection.live:
                try:
                    connection.call(value)
                except Exception as error:
                    self._report(connection, error)

    @property
    def listener_count(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @property
    def failure_count(self) -> int:
        """How many calls of listeners have raised since the signal was made."""
        return self._failures

    def _add(self, name: str, call: Callable[[T], object]) -> SignalHandle:
        handle = SignalHandle(next(_handles))
        with self._lock:
            self._connections = (*self._connections, _Connection(handle, name, call))
        return handle

    def _report(self, connection: _Connection[T], error: Exception) -> None:
        with self._lock:
            self._failures += 1
            connection.failures += 1
            failures = connection.failures
        # A listener that fails on every frame must not fill the log a hundred times a second:
        # the first failure stands out, the others are there for whoever looks for them.
        _log.log(
            logging.ERROR if failures == 1 else logging.DEBUG,
            "listener %s of signal %s raised %r (failure %d of this listener)",
            connection.name,
            self.name,
            error,
            failures,
            exc_info=error,
        )
        hook = self.on_error
        if hook is None:
            return
        try:
            hook(ListenerFailure(self.name, connection.name, error, failures))
        except Exception:
            level = logging.ERROR if failures == 1 else logging.DEBUG
            _log.log(level, "error hook of signal %s raised", self.name, exc_info=True)
