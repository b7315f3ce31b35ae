# SPDX-License-Identifier: Apache-2.0
"""TransportHandle: a transport of either paradigm, behind one face for threads.

A PNS holds its transports by handles, so that one can be made of threads and the next live in an
event loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.core.carrier import AttachedAgent, StreamCarrier
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    DeliveryTimeoutError,
    LocalError,
    StopTimeoutError,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.nonblocking.transport import NonBlockingTransport
from feagi_io_host.transports.registry import Paradigm

__all__ = ["TransportHandle"]

_START_S: Final = 10.0  # to open a few sockets
_STOP_GRACE_S: Final = 0.5
_PUBLISH_S: Final = 5.0  # above any deadline of the delivery table that makes sense
_CARRIER_METHODS: Final = ("channel", "offer", "withdraw", "serve")


class TransportHandle:
    """One transport and the streams it carries.

    `carriers` are the streams that others carry for the agents of this one; it must have been
    made with their `carrier`. Every method may be called from any thread, except that those of a
    nonblocking transport wait for its event loop and so raise LocalError inside one: call them by
    `asyncio.to_thread` there. `transport` is the transport itself.
    """

    def __init__(
        self,
        transport: BlockingTransport | NonBlockingTransport,
        *,
        streams: Iterable[StreamType] = tuple(StreamType),
        carriers: Mapping[StreamType, TransportHandle] | None = None,
    ) -> None:
        self.transport = transport
        self.carriers: Mapping[StreamType, TransportHandle] = dict(carriers or {})
        self.streams = tuple(s for s in StreamType if s in set(streams) - set(self.carriers))
        self._lock = threading.Lock()  # guards the runtime
        self._runtime: Runtime | None = None
        self._ended = False
        self._pid = os.getpid()

    @property
    def backend_name(self) -> str:
        """The transport's name in the registry."""
        return self.transport.backend_name

    @property
    def paradigm(self) -> Paradigm:
        """Whether the transport works with threads or in an event loop."""
        return "blocking" if isinstance(self.transport, BlockingTransport) else "nonblocking"

    @property
    def agents(self) -> tuple[AttachedAgent, ...]:
        """The agents that it has let in and that are here now."""
        return self.transport.agents

    @property
    def carrier(self) -> StreamCarrier:
        """The transport as a carrier of single streams for another one.

        Raises ConfigError when it cannot be one.
        """
        missing = [name for name in _CARRIER_METHODS if not hasattr(self.transport, name)]
        if missing:
            raise ConfigError(
                f"{self.paradigm} transport {self.backend_name!r} cannot carry single streams of "
                f"agents that another one lets in: it has no {', '.join(missing)}"
            )
        return cast("StreamCarrier", self.transport)

    @property
    def control_url(self) -> str | None:
        """Where agents register; None while it does not run, and where there is no such place."""
        try:
            url: str | None = getattr(self.transport, "control_url", None)
        except (ClosedError, ConfigError):  # it does not run, or only carries
            return None
        return url

    # -- life ---------------------------------------------------------------------------------

    def start(self, timeout_s: float = _START_S) -> None:
        """Start the transport; does nothing when started before.

        A nonblocking one runs in the process's event loop thread. Raises what the transport
        raises (ClosedError after `stop`), DeliveryTimeoutError when a nonblocking one takes longer
        than `timeout_s` seconds.
        """
        if isinstance(self.transport, BlockingTransport):
            self.transport.start()
            return
        with self._lock:
            if self._ended:
                raise ClosedError(f"{self.backend_name} transport was stopped; make a new one")
            fresh = self._runtime is None
            runtime = self._lease() if self._runtime is None else self._runtime
            self._runtime = runtime
        try:
            runtime.call(self.transport.start(), timeout_s)
        except BaseException:
            if fresh:
                with self._lock:
                    self._runtime = None
                runtime.close()
            raise

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop the transport within `timeout_s` seconds.

        May be called more than once. From the event loop of a nonblocking one, by a listener for
        example, it is asked to end but not waited for; a second call elsewhere does that. Raises
        StopTimeoutError naming what did not end.
        """
        if isinstance(self.transport, BlockingTransport):
            self.transport.stop(timeout_s)
            return
        deadline_s = time.monotonic() + timeout_s
        with self._lock:
            self._ended = True
            runtime = self._runtime
        if runtime is None or self._pid != os.getpid():  # the loop stayed with the parent
            return
        stopping = self.transport.stop(timeout_s)
        if asyncio._get_running_loop() is runtime.loop:
            asyncio.run_coroutine_threadsafe(stopping, runtime.loop)
            return
        try:
            # Longer than the transport's own deadline, whose error says more.
            runtime.call(stopping, timeout_s + _STOP_GRACE_S)
        except DeliveryTimeoutError as error:
            raise StopTimeoutError(
                f"{self.backend_name} transport did not end within {timeout_s} s: something in its "
                "event loop does not return"
            ) from error
        with self._lock:
            self._runtime = None
        runtime.close(max(deadline_s - time.monotonic(), 0.5))

    def _lease(self) -> Runtime:
        if asyncio._get_running_loop() is not None:
            raise LocalError(
                f"the nonblocking {self.backend_name} transport is started from inside an event "
                "loop, which would wait for itself: `await asyncio.to_thread(pns.start)`, and "
                "stop it the same way"
            )
        return Runtime()

    # -- towards its agents -------------------------------------------------------------------

    def publish_visualization(self, fbc: SharedFBC) -> None:
        """Show a frame to every agent that this transport has let in, as its own
        `publish_visualization`. The caller keeps its own lease."""
        if isinstance(self.transport, BlockingTransport):
            self.transport.publish_visualization(fbc)
        else:
            runtime = self._running()
            runtime.call(self.transport.publish_visualization(fbc), _PUBLISH_S)

    def publish_motor(self, agent_id: bytes | None, fbc: SharedFBC) -> None:
        """Hand a motor frame to one agent or (None) to all of this transport, as its own
        `publish_motor`. The caller keeps its own lease."""
        if isinstance(self.transport, BlockingTransport):
            self.transport.publish_motor(agent_id, fbc)
        else:
            self._running().call(self.transport.publish_motor(agent_id, fbc), _PUBLISH_S)

    def _running(self) -> Runtime:
        runtime = self._runtime
        if runtime is None:
            raise ClosedError(f"{self.backend_name} transport does not run; start it first")
        return runtime

    # -- figures ------------------------------------------------------------------------------

    def counters(self) -> dict[str, Any]:
        """What happened on the control channel, as the transport counts it; empty where it does
        not."""
        count = getattr(self.transport, "counters", None)
        return {} if count is None else dict(count())

    def endpoint(self) -> dict[str, Any]:
        """What listens where, as plain data: `transport`, `paradigm`, the `streams` it carries,
        `control_url`, and by stream the `carried_by` of those that others carry."""
        return {
            "transport": self.backend_name,
            "paradigm": self.paradigm,
            "streams": [stream.value for stream in self.streams],
            "control_url": self.control_url,
            "carried_by": {
                stream.value: f"{handle.backend_name}.{handle.paradigm}"
                for stream, handle in self.carriers.items()
            },
        }
