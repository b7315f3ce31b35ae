# SPDX-License-Identifier: Apache-2.0
"""ViewerServer: the page, and what it shows, for some browsers at a time.

    GET /         the page, out of a fixed table
    /live         the WebSocket: frames, figures and what happens; see `protocol`

Everything runs in an event loop and thread of its own (`stage`). The thread that emits a frame only
leaves a lease of it behind; what is made of the frame is made here, once for all pages that need
the same. The thread works for a third of the time at most, sending and all, and then gives pages
fewer frames: so no number of viewers slows the brain.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Self

from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.blocking.listener import server_socket
from feagi_io_host.blocking.worker import Worker
from feagi_io_host.core.delivery import OnFull
from feagi_io_host.core.errors import (
    ClosedError,
    ConfigError,
    FeagiIOError,
    StopTimeoutError,
)
from feagi_io_host.core.events import BrainSignals, VisualizationReady
from feagi_io_host.core.exposure import is_loopback
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.signal import SignalHandle
from feagi_io_host.nonblocking.runtime import LoopThread
from feagi_io_host.viewer.assets import Asset, page_assets
from feagi_io_host.viewer.frames import NewestFrame
from feagi_io_host.viewer.protocol import text
from feagi_io_host.viewer.source import Controls, ViewerSource
from feagi_io_host.viewer.stage import Order, Stage, Timing

_START_S: Final = 10.0
_MOST_NEWS: Final = 64
_MOST_ORDERS: Final = 16
_LEAST_TOKEN: Final = 16


class ViewerServer:
    """Shows what `source` tells, and the frames given to `show_frame`, to pages in browsers.

    Listens at `address` and `port`, 0 for any free one; `url` is what to open. Addresses that other
    machines can reach need `open_to_network`; the token then crosses the network as it is.
    `token` is 43 random letters unless given. With `controls` pages may pause the brain, resume it
    and let it fire one burst. Use as a context manager, or call `start` and `stop`; it runs once.

    Raises ConfigError for settings that do not fit.
    """

    def __init__(
        self,
        source: ViewerSource,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        open_to_network: bool = False,
        controls: Controls | None = None,
        assets: Mapping[str, Asset] | None = None,
        timing: Timing | None = None,
    ) -> None:
        if not 0 <= port <= 65535:
            raise ConfigError(f"port {port} of the viewer; 0 to 65535 are possible")
        if not is_loopback(address) and not open_to_network:
            raise ConfigError(
                f"viewer at {address}: other machines can reach that, and read the token on its "
                "way; say that you want it (open_to_network, on the command line "
                "--open-to-network) or keep to 127.0.0.1"
            )
        if token is not None and not (
            len(token) >= _LEAST_TOKEN and token.isascii() and token.isprintable()
        ):
            raise ConfigError(
                f"a viewer's token of {len(token)} characters; {_LEAST_TOKEN} or more of ASCII "
                "are needed"
            )
        self.source = source
        self.token = secrets.token_urlsafe(32) if token is None else token
        self._address = address
        self._port = port
        self._controls = controls
        self._assets = page_assets() if assets is None else assets
        self._life = threading.Lock()
        self._stopped = False
        self._thread: LoopThread | None = None
        self._newest = NewestFrame(self._wake)
        self._brains: list[tuple[BrainSignals, SignalHandle]] = []
        self._news: BoundedChannel[str] = BoundedChannel(
            _MOST_NEWS, OnFull.DROP_OLDEST, name="viewer news"
        )
        self._orders: BoundedChannel[Order] = BoundedChannel(
            _MOST_ORDERS, OnFull.DROP_OLDEST, name="viewer orders"
        )
        self._stage = Stage(
            source,
            self._newest,
            self._news,
            None if controls is None else self._orders,
            token=self.token,
            timing=Timing() if timing is None else timing,
        )
        self._controller = Worker(
            "feagi-io-viewer-control", self._carry_out, wake=self._orders.close
        )

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen; does nothing when started before.

        Raises PortBusyError or PortError where it cannot listen, ClosedError after `stop`.
        """
        with self._life:
            if self._stopped:
                raise ClosedError("viewer was stopped; make a new one")
            if self._thread is not None:
                return
            listening = server_socket(
                "viewer", self._address, self._port, advice="; choose another port, or 0 for any"
            )
            thread = self._thread = LoopThread("feagi-io-viewer")
            thread.start()
            try:
                self._call(self._stage.open(listening, self._address, self._assets), _START_S)
            except BaseException:
                listening.close()
                self._thread = None
                thread.stop()
                raise
            if self._controls is not None:
                self._controller.start()

    def stop(self, timeout_s: float = 2.0) -> None:
        """Say goodbye to the pages and end, within `timeout_s` seconds. May be called again.

        Raises StopTimeoutError naming what did not end.
        """
        with self._life:
            if self._stopped:
                return
            self._stopped = True
        deadline_s = time.monotonic() + timeout_s
        for brain, handle in self._brains:
            brain.visualization_ready.disconnect(handle)
        self._brains.clear()
        self._newest.close()
        late: list[str] = []
        for step in (self._close_stage, self._end_thread, self._controller.stop):
            try:
                step(max(deadline_s - time.monotonic(), 0.1))
            except FeagiIOError as error:
                late.append(str(error))
        self._news.close()
        if late:
            raise StopTimeoutError(f"viewer: {'; '.join(late)}")

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

    @property
    def base_url(self) -> str:
        """`http://host:port`. Raises ClosedError before `start`."""
        if self._stage.base_url is None:
            raise ClosedError("viewer was not started; start it first")
        return self._stage.base_url

    @property
    def url(self) -> str:
        """What to open in a browser. The token stands behind the #, which is not sent to anybody;
        the page tells it over the WebSocket. Raises ClosedError before `start`."""
        return f"{self.base_url}/#token={self.token}"

    # -- what is shown, from any thread -----------------------------------------------------------

    def connect_to_burst_engine(self, engine: BrainSignals) -> None:
        """Show every frame of `engine` until `stop`. Raises ClosedError after that."""
        if self._stopped:
            raise ClosedError("viewer was stopped; make a new one")
        self._brains.append((engine, engine.visualization_ready.connect(self._on_visualization)))

    def show_frame(self, fbc: SharedFBC, at_ms: float | None = None) -> None:
        """Show a frame; never waits, and the caller keeps its own lease. `at_ms` is when the brain
        emitted it, in Unix milliseconds; now, if not given."""
        self._newest.put(fbc, time.time() * 1000.0 if at_ms is None else at_ms)

    def say(self, words: str) -> None:
        """Tell the pages that something happened. Never waits; of more than 64 the oldest go."""
        with contextlib.suppress(ClosedError):
            self._news.put(words)

    def forget_areas(self) -> None:
        """Another brain is shown from here on: its areas are asked for anew, and the newest frame
        of the one before is not shown any more."""
        self._newest.forget()
        self._stage.forget_areas = True

    def counters(self) -> dict[str, Any]:
        """A snapshot: `pages`, for each that is here what `Page.counters` has; `frames` emitted,
        `refused` by reason (token, protocol, late, full, senseless), `crowded` (connections that
        had to go for others), `news_dropped` and `orders_dropped`."""
        return {
            **self._stage.counters(),
            "frames": self._newest.count,
            "news_dropped": self._news.dropped,
            "orders_dropped": self._orders.dropped,
        }

    def _on_visualization(self, event: VisualizationReady) -> None:
        self.show_frame(event.fbc)

    # -- inside ---------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._in_loop(self._stage.wake)

    def _in_loop(self, call: Callable[..., object], *values: Any) -> None:
        thread = self._thread
        if thread is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                thread.loop.call_soon_threadsafe(call, *values)

    def _call(self, coroutine: Coroutine[Any, Any, None], timeout_s: float) -> None:
        assert self._thread is not None
        future = asyncio.run_coroutine_threadsafe(coroutine, self._thread.loop)
        try:
            future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise StopTimeoutError(
                f"its event loop did not answer within {timeout_s:.1f} s"
            ) from None

    def _close_stage(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._call(self._stage.close(0.6 * timeout_s), 0.8 * timeout_s)

    def _end_thread(self, timeout_s: float) -> None:
        if self._thread is not None:
            self._thread.stop(timeout_s)

    def _carry_out(self, stopping: threading.Event) -> None:
        """The control thread: what pages order may have to wait for a burst."""
        controls = self._controls
        assert controls is not None
        acts = {"pause": controls.pause, "resume": controls.resume, "step": controls.step}
        while not stopping.is_set():
            try:
                order = self._orders.get()
            except ClosedError:
                return
            if order is None:
                continue
            page, what = order
            answer = None
            try:
                acts[what]()
            except FeagiIOError as error:
                answer = text("refused", what=what, why=str(error))
            self._in_loop(self._stage.answer, page, answer)
