# SPDX-License-Identifier: Apache-2.0
"""OnLoop: an AsyncZmqTransport for tests that have no event loop, with the face of ZmqTransport."""

from __future__ import annotations

import inspect
from typing import Any

from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.zmq import AsyncZmqTransport, ZmqTransport
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S
from tests.feagi_io_host.transports.zmq.scene import Scene


class OnLoop:
    """What is awaited there is called here; the rest is the transport's own."""

    def __init__(self, host: StandInHost, **settings: Any) -> None:
        self.inner = AsyncZmqTransport(host, **settings)
        self.runtime = Runtime()
        self._open = True

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop it and let its loop go; once or more often."""
        if self._open:
            self._open = False
            try:
                self.runtime.call(self.inner.stop(timeout_s), 2 * DEADLINE_S)
            finally:
                self.runtime.close()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute
        return lambda *given: self.runtime.call(attribute(*given), 2 * DEADLINE_S)


class LoopScene(Scene):
    """A Scene whose transports run in an event loop."""

    def start(self, host: Any = None, **settings: Any) -> Any:
        """A transport that runs, on a free port unless told otherwise."""
        return self._begin(OnLoop, host, settings)

    def _begin(self, kind: type[OnLoop | ZmqTransport], host: Any, settings: Any) -> Any:
        options = {"control_port": 0, **settings}
        transport = kind(self.host if host is None else host, **options)
        self._stack.callback(transport.stop)
        transport.start()
        return transport


class CarriedInLoop(LoopScene):
    """Threads let agents in, and an event loop carries what is given away."""

    def start(self, host: Any = None, **settings: Any) -> Any:
        """A transport that runs."""
        carries = settings.get("control_port", 0) is None
        return self._begin(OnLoop if carries else ZmqTransport, host, settings)


class CarriedInThreads(LoopScene):
    """An event loop lets agents in, and threads carry what is given away."""

    def start(self, host: Any = None, **settings: Any) -> Any:
        """A transport that runs."""
        carries = settings.get("control_port", 0) is None
        return self._begin(ZmqTransport if carries else OnLoop, host, settings)
