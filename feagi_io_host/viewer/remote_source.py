# SPDX-License-Identifier: Apache-2.0
"""RemoteSource: a brain of another process, looked at as one of its agents.

    feagi-io-viewer-frames   keeps the agent in and hands on what it is shown
    feagi-io-viewer-looks    twice a second what the server tells over HTTP, where there is some

Frames come from an agent with the right to visualization and no other. Names and sizes of areas
come from the engine's REST, figures from the status page of `feagi-io serve`; what neither tells is
unknown. After a restart of the brain everything comes back by itself, and is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import urlsplit

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import AgentState, StateChanged
from feagi_io_host.core.errors import ClosedError, FeagiIOError, PortError, RemoteError
from feagi_io_host.core.exposure import is_loopback
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.viewer.areas import KnownArea
from feagi_io_host.viewer.figures import UNKNOWN
from feagi_io_host.viewer.looks import ODD, EngineLook, StatusLook
from feagi_io_host.viewer.server import ViewerServer

STATUS_URL: Final = "http://127.0.0.1:30002"
REST_PORT: Final = 8000

_LOOK_S: Final = 0.5
_FRAME_S: Final = 1.0
_PAUSES_S: Final = (0.5, 5.0)
_IN: Final = (AgentState.ACTIVE_WAITING, AgentState.ACTIVE_HAS_DATA)


class RemoteSource:
    """The brain that lets agents register at `registration`, such as tcp://host:30001.

    `token` is the brain's own, 32 bytes, if it wants one. `status_url` is a status page, where
    the server is a `feagi-io serve`; `rest_url` the REST of a FEAGI engine. Both are looked for in
    their usual places unless given. `start` takes the viewer that has been made with this source.

    Raises ConfigError for addresses that cannot be one.
    """

    def __init__(
        self,
        registration: str,
        *,
        token: bytes | None = None,
        status_url: str | None = None,
        rest_url: str | None = None,
    ) -> None:
        self._registration = registration
        self._agent = FeagiAgent(
            AgentDescriptor("feagi-io", "viewer", 1),
            AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS,
            registration,
            token=token,
        )
        host = urlsplit(registration).hostname or "127.0.0.1"
        looks: list[StatusLook | EngineLook] = []
        try:
            if status_url is not None or (rest_url is None and is_loopback(host)):
                looks.append(StatusLook(status_url or STATUS_URL, registration))
            if rest_url is not None or status_url is None:
                bracketed = f"[{host}]" if ":" in host else host
                looks.append(EngineLook(rest_url or f"http://{bracketed}:{REST_PORT}"))
        except BaseException:
            self._agent.close()
            raise
        self._looks = tuple(looks)
        self._found: StatusLook | EngineLook | None = None
        self._state: dict[str, Any] | None = None
        self._viewer: ViewerServer | None = None
        self._is_in = False
        self._was_in = False
        self._frames = Worker("feagi-io-viewer-frames", self._receive, wake=self._agent.close)
        self._looking = Worker("feagi-io-viewer-looks", self._look)
        self._agent.on_state_change(self._on_state_change)

    # -- life -----------------------------------------------------------------------------------

    def start(self, viewer: ViewerServer) -> None:
        """Look for the brain and show it in `viewer`. Never waits: it may come later."""
        self._viewer = viewer
        self._frames.start()
        self._looking.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Leave, within `timeout_s` seconds. Raises StopTimeoutError when something hangs."""
        deadline_s = time.monotonic() + timeout_s
        steps: tuple[Callable[[float], object], ...] = (
            self._frames.stop,
            self._agent.close,
            self._looking.stop,
        )
        failure: FeagiIOError | None = None
        for step in steps:
            try:
                step(max(deadline_s - time.monotonic(), 0.1))
            except FeagiIOError as error:
                failure = error
        if failure is not None:
            raise failure

    # -- as a ViewerSource ------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """What people read at the top of the page."""
        return f"Brain at {self._registration}"

    @property
    def name(self) -> str:
        """The address that is looked at."""
        return self._registration

    @property
    def is_connected(self) -> bool:
        """Whether frames can come."""
        return self._is_in

    def burst_hz(self) -> float | None:
        """The rate that it says it is set to."""
        return None if self._found is None else self._found.rate_hz

    def areas(self) -> Iterable[KnownArea]:
        """The areas that the engine tells of."""
        return self._found.areas if isinstance(self._found, EngineLook) else ()

    def state(self) -> dict[str, Any]:
        """What it told last; nothing but the time where it tells nothing."""
        state = self._state
        return {**UNKNOWN, "at_ms": time.time() * 1000.0} if state is None else state

    def world(self) -> dict[str, Any] | None:
        """There is none."""
        return None

    # -- the agent ------------------------------------------------------------------------------

    def _receive(self, stopping: threading.Event) -> None:
        viewer = self._viewer
        assert viewer is not None
        pause_s = _PAUSES_S[0]
        while not stopping.is_set():
            try:
                self._agent.connect(None)
                frame = self._agent.receive_visualization(_FRAME_S)
            except ClosedError:
                return
            except FeagiIOError as error:
                viewer.say(f"not let in at {self._registration}: {error}")
                stopping.wait(pause_s)
                pause_s = min(2 * pause_s, _PAUSES_S[1])
                continue
            pause_s = _PAUSES_S[0]
            if frame is not None:
                with SharedFBC.adopt(frame) as fbc:
                    viewer.show_frame(fbc)

    def _on_state_change(self, change: StateChanged) -> None:
        """In the agent's own thread."""
        viewer = self._viewer
        is_in = change.after in _IN
        if viewer is None or is_in == self._is_in:
            return
        self._is_in = is_in
        if not is_in:
            for look in self._looks:
                look.forget()
            viewer.say(f"lost the brain at {self._registration}: {change.reason}")
        elif self._was_in:
            viewer.forget_areas()
            viewer.say(f"the brain at {self._registration} is back")
        else:
            self._was_in = True
            viewer.say(f"connected to the brain at {self._registration}")

    # -- looks ----------------------------------------------------------------------------------

    def _look(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            found = self._found
            for look in self._looks if found is None else (found,):
                try:
                    self._state = look.state()
                    self._found = look
                    break
                except (PortError, RemoteError, *ODD):
                    continue
            else:
                self._found = None
                self._state = None
            stopping.wait(_LOOK_S)
