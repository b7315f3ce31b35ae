# SPDX-License-Identifier: Apache-2.0
"""WebSocketAgentLink: an agent at a server that speaks WebSocket, for threads.

It is the link for event loops in a loop of its own thread: what waits and what is woken is the
same, and a listener that holds up one agent holds up no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final

from feagi_io_host.core.agent_link import LinkParty
from feagi_io_host.core.errors import ClosedError, LocalError, StopTimeoutError
from feagi_io_host.nonblocking.runtime import LoopThread
from feagi_io_host.transports.websocket.async_client import AsyncWebSocketAgentLink

# Beside the link's own deadline, whose error says more.
_GRACE_S: Final = 0.5


class WebSocketAgentLink:
    """The AgentLink for ws:// and wss:// addresses; see AsyncWebSocketAgentLink."""

    def __init__(self, address: str, party: LinkParty, **settings: Any) -> None:
        self._link = AsyncWebSocketAgentLink(address, party, **settings)
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        self._stopped = False
        self._ends_by_itself = False
        self._called: set[Callable[[], object]] = set()  # what the loop was asked to do already

    def start(self) -> None:
        """Begin; does nothing when started before. Raises ClosedError after `stop`, LocalError
        when the system has no thread left."""
        with self._lock:
            if self._stopped:
                raise ClosedError("the websocket link was stopped; make a new agent")
            if self._thread is not None:
                return
            thread = LoopThread("feagi-io-websocket-agent")
            try:
                thread.start()
            except RuntimeError as error:
                thread.loop.close()
                raise LocalError(f"no thread for the agent: {error}") from error
            self._thread = thread
        thread.loop.call_soon_threadsafe(self._link.start)

    def wake(self) -> None:
        """Have the agent's turn come soon."""
        self._call(self._link.wake)

    def send_now(self) -> None:
        """Have what the agent has to send sent soon."""
        self._call(self._link.send_now)

    @property
    def is_current(self) -> bool:
        """Whether the caller runs in the link's own thread."""
        thread = self._thread
        return thread is not None and thread.is_current()

    def stop(self, timeout_s: float) -> None:
        """Wait until the agent is out, `timeout_s` seconds at most, then let go of everything.

        May be called more than once. From inside, by a listener, it is asked to end but not
        waited for. Raises StopTimeoutError when the thread is still there afterwards.
        """
        with self._lock:
            self._stopped = True
            thread = self._thread
        if thread is None or thread.loop.is_closed():
            return
        if thread.is_current():
            self._ends_by_itself = True  # nobody may come to wait for the thread
            ending = thread.loop.create_task(self._link.stop(timeout_s))
            ending.add_done_callback(lambda _: thread.loop.stop())
            return
        try:
            if not self._ends_by_itself:
                asyncio.run_coroutine_threadsafe(self._link.stop(timeout_s), thread.loop).result(
                    timeout_s + _GRACE_S
                )
        except FutureTimeoutError:
            raise StopTimeoutError(
                f"the websocket link did not end within {timeout_s} s: something in its event "
                "loop does not return"
            ) from None
        finally:
            with contextlib.suppress(RuntimeError):  # it has ended just now
                thread.stop(timeout_s if self._ends_by_itself else _GRACE_S)

    def _call(self, what: Callable[[], object]) -> None:
        """In the loop, soon; once, however often it is asked for until then."""
        thread = self._thread
        if thread is None or what in self._called:
            return
        self._called.add(what)

        def run() -> None:
            self._called.discard(what)
            what()

        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the agent
            thread.loop.call_soon_threadsafe(run)
