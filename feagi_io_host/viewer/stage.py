# SPDX-License-Identifier: Apache-2.0
"""Stage: what of a viewer lives in its event loop, the connections and what is sent to them.

frames   the newest one to every page that has room, 60 times a second at most
world    30 times a second, state twice, signs of life once
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import math
import socket as sockets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from feagi_io_host.blocking.channels import BoundedChannel
from feagi_io_host.viewer.areas import AreaTable
from feagi_io_host.viewer.assets import Asset, Door, safe_headers
from feagi_io_host.viewer.frames import NewestFrame, Picture
from feagi_io_host.viewer.page import Page, PageConnection, Room, library_log
from feagi_io_host.viewer.protocol import (
    FULL,
    LATE,
    LIVE_PATH,
    MAX_MESSAGE_BYTES,
    PROTOCOL,
    WRONG_PROTOCOL,
    WRONG_TOKEN,
    Control,
    Detail,
    Hello,
    Offer,
    PageError,
    Shown,
    parse,
    text,
)
from feagi_io_host.viewer.source import ViewerSource

_log = logging.getLogger("feagi_io.viewer")

MAX_PAGES: Final = 16
_MOST_STRANGERS: Final = 48
_GOING_AWAY: Final = 1001

_LEAST_GAP_S: Final = 1 / 60
_SHARE: Final = 3.0  # of the time this thread works for one part of so many
_WORLD_S: Final = 1 / 30
_LAST_WORDS_S: Final = 0.2

Order = tuple[Page, str]
"""Which page wants the brain to pause, resume or step."""


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds: for the first message of a page, before it is asked for a sign of life, before it
    is given up; and from one state to the next."""

    hello_s: float = 5.0
    ping_s: float = 10.0
    give_up_s: float = 20.0
    state_s: float = 0.5


class Stage:
    """Belongs to one event loop, `newest` and the two channels aside.

    `orders` is None where pages may not control the brain.
    """

    def __init__(
        self,
        source: ViewerSource,
        newest: NewestFrame,
        news: BoundedChannel[str],
        orders: BoundedChannel[Order] | None,
        *,
        token: str,
        timing: Timing,
    ) -> None:
        self._source = source
        self._newest = newest
        self._news = news
        self._orders = orders
        self._token = token
        self._timing = timing
        self.base_url: str | None = None
        self.forget_areas = False
        """Set from any thread: another brain is shown from here on."""
        self._table = AreaTable()
        self._pages: dict[Page, None] = {}
        self._room = Room(_MOST_STRANGERS)
        self._picture: Picture | None = None
        self._looked_at = 0
        self._listener: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._refused: dict[str, int] = dict.fromkeys((*_REASONS.values(), "senseless"), 0)
        self._failing: set[str] = set()
        self._work = asyncio.Event()

    # -- life -----------------------------------------------------------------------------------

    async def open(
        self, listening: sockets.socket, address: str, assets: Mapping[str, Asset]
    ) -> None:
        """Serve at a bound socket; `address` is the one that the user gave."""
        port = listening.getsockname()[1]
        host = f"[{address}]" if ":" in address else address
        if address in ("0.0.0.0", "::", ""):
            host = "127.0.0.1"
        self._door = Door(address, port, assets)
        self._listener = await serve(
            self._serve,
            sock=listening,
            create_connection=self._room.make,  # type: ignore[arg-type]  # made like the class
            process_request=self._admit,
            compression=None,
            server_header=None,
            open_timeout=10.0,
            close_timeout=1.0,
            ping_interval=None,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=16,
            logger=library_log,
        )
        self.base_url = f"http://{host}:{port}"
        loop = asyncio.get_running_loop()
        for name, coroutine in (
            ("frames", self._pump()),
            ("world", self._tick(_WORLD_S, self._show_world)),
            ("state", self._tick(self._timing.state_s, self._show_state)),
            ("tend", self._tick(self._timing.ping_s / 8, self._tend)),
        ):
            self._tasks.append(loop.create_task(coroutine, name=f"feagi-io-viewer-{name}"))
        _log.info("viewer at %s", self.base_url)

    async def close(self, timeout_s: float) -> None:
        """Say goodbye to everybody, within `timeout_s` seconds."""
        self._room.closed = True
        for task in self._tasks:
            task.cancel()
        self._show_world()  # as it ended, and the last words
        self._show_state()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(_LAST_WORDS_S, 0.2 * timeout_s)):
                for page in tuple(self._pages):
                    await page.has_written()
        if self._listener is not None:
            self._listener.close(close_connections=False)
            goodbyes = [
                asyncio.ensure_future(connection.end(_GOING_AWAY, "the viewer was stopped"))
                for connection in tuple(self._room.all)
            ]
            if goodbyes:
                await asyncio.wait(goodbyes, timeout=0.5 * timeout_s)
            for connection in tuple(self._room.all):
                connection.transport.abort()
            closing = asyncio.ensure_future(self._listener.wait_closed())
            await asyncio.wait({closing}, timeout=0.5 * timeout_s)
            closing.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=0.1)
        if self._picture is not None:
            self._picture.close()
            self._picture = None

    def wake(self) -> None:
        """There is a newer frame, or a page with room."""
        self._work.set()

    def counters(self) -> dict[str, Any]:
        """As `ViewerServer.counters`; from any thread."""
        return {
            "pages": [page.counters(self._newest.count) for page in tuple(self._pages)],
            "refused": dict(self._refused),
            "crowded": self._room.crowded,
        }

    def answer(self, page: Page, words: str | None) -> None:
        """An order of a page was carried out, or (`words`) not."""
        if words is not None:
            page.tell(words)
        self._show_state()

    # -- connections ------------------------------------------------------------------------------

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """For the library: the answer to a request, None for a WebSocket that may be."""
        hosts = request.headers.get_all("Host")
        own = len(hosts) == 1 and self._door.own_host(hosts[0])
        if own and request.method == "GET" and request.path == LIVE_PATH:
            origins = request.headers.get_all("Origin")
            if len(origins) == 1 and self._door.own_origin(origins[0], hosts[0]):
                return None
            return _response(403, "Forbidden", _ONLY_OWN_PAGE, "")
        status, asset = self._door.answer(request.method, request.path, hosts)
        return _response(status.value, status.phrase, asset, hosts[0] if own else "")

    async def _serve(self, connection: ServerConnection) -> None:
        """For the library: one connection, after its handshake, until it is over."""
        assert isinstance(connection, PageConnection)
        code, reason = _GOING_AWAY, ""
        try:
            await self._greet(connection)
            await self._serve_page(connection)
        except PageError as error:
            code, reason = error.code, str(error)
            self._refused[_REASONS.get(code, "senseless")] += 1
        except ConnectionClosed:
            pass
        await connection.end(code, reason)

    async def _greet(self, connection: PageConnection) -> None:
        try:
            async with asyncio.timeout(self._timing.hello_s):
                hello = parse(await connection.recv())
        except TimeoutError:
            raise PageError(LATE, f"no hello within {self._timing.hello_s:.1f} s") from None
        if not isinstance(hello, Hello):
            raise PageError(1008, f"{type(hello).__name__.lower()} before hello")
        if not hmac.compare_digest(hello.token.encode(errors="replace"), self._token.encode()):
            raise PageError(WRONG_TOKEN, "wrong token; open the URL that the viewer printed")
        if hello.protocol != PROTOCOL:
            raise PageError(
                WRONG_PROTOCOL, f"page speaks protocol {hello.protocol}, viewer {PROTOCOL}"
            )
        if len(self._pages) >= MAX_PAGES:
            raise PageError(FULL, f"{MAX_PAGES} pages look on already")

    async def _serve_page(self, connection: PageConnection) -> None:
        self._room.know(connection)
        page = Page(
            connection,
            self._table,
            emitted=max(self._newest.count - 1, 0),
            on_room=self._work.set,
            welcome=self._welcome(),
        )
        self._pages[page] = None
        writer = asyncio.ensure_future(page.write())
        try:
            self._show_state()
            self._work.set()
            async for message in connection:
                page.heard()
                self._take(page, message)
        finally:
            del self._pages[page]
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            await page.end_peer()

    def _take(self, page: Page, message: str | bytes) -> None:
        what = parse(message)
        match what:
            case Shown():
                page.take_shown(what)
                self._work.set()
            case Detail():
                page.take_detail(what)
            case Control():
                if self._orders is None:
                    page.tell(text("refused", what=what.what, why="started without --control"))
                else:
                    self._orders.put((page, what.what))
            case Offer():
                page.take_offer(what.sdp)
            case Hello():
                raise PageError(1008, "a second hello")

    def _welcome(self) -> str:
        return text(
            "welcome",
            protocol=PROTOCOL,
            version=_version(),
            title=self._source.title,
            source=self._source.name,
            control=self._orders is not None,
            burst_hz=self._asked("burst_hz", self._source.burst_hz),
        )

    # -- what is done over and over ---------------------------------------------------------------

    async def _pump(self) -> None:
        """Give the newest frame to every page that has room for one."""
        begun_s, worked_s = -math.inf, 0.0
        while True:
            await self._work.wait()
            # What this thread has worked since the last round, sending and all, decides when the
            # next one may be.
            while True:
                due_s = begun_s + max(_SHARE * (time.thread_time() - worked_s), _LEAST_GAP_S)
                if (early_s := due_s - time.monotonic()) <= 0.0:
                    break
                await asyncio.sleep(early_s)
            self._work.clear()
            begun_s, worked_s = time.monotonic(), time.thread_time()
            waiting = [page for page in self._pages if page.has_room]
            if not waiting:
                continue
            try:
                self._show_newest(waiting)
            except Exception as error:  # a frame must not end the viewer
                self._report("frame", error)
            if self._newest.want(self._looked_at):
                self._work.set()

    def _show_newest(self, waiting: list[Page]) -> None:
        self._forget_if_asked()
        self._looked_at = self._newest.count
        emitted = self._newest.lease()
        if emitted is None:
            return
        self._looked_at = emitted.number
        waiting = [page for page in waiting if page.number < emitted.number]
        if not waiting:
            emitted.fbc.release()
            return
        picture = self._picture
        if picture is not None and (picture.number, picture.epoch) == (
            emitted.number, self._table.epoch
        ):  # fmt: skip
            emitted.fbc.release()
        else:
            if picture is not None:
                picture.close()
                self._picture = None
            try:
                self._picture = picture = Picture(emitted, self._table)
            except BaseException:
                emitted.fbc.release()
                raise
        for page in waiting:
            page.show(picture)

    async def _tick(self, every_s: float, act: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s = max(due_s + every_s, loop.time())
            await asyncio.sleep(due_s - loop.time())
            try:
                act()
            except Exception as error:  # nor may this
                self._report(act.__name__, error)

    def _show_world(self) -> None:
        if not self._pages:
            return
        world = self._asked("world", self._source.world)
        if world is not None:
            message = text("world", **world)
            for page in self._pages:
                page.tell_world(message)

    def _show_state(self) -> None:
        while (words := self._news.get_nowait()) is not None:
            for page in self._pages:
                page.tell(text("say", text=words))
        self._forget_if_asked()
        if not self._pages:
            return
        areas = self._asked("areas", lambda: list(self._source.areas()))
        if areas:
            self._table.declare(areas)
        state = self._asked("state", self._source.state)
        if state is not None:
            emitted = self._newest.count
            for page in self._pages:
                page.tell_state(
                    text(
                        "state",
                        **state,
                        viewers=len(self._pages),
                        conflated=page.conflated(emitted),
                    )
                )

    def _forget_if_asked(self) -> None:
        if self.forget_areas:
            self.forget_areas = False
            self._table.clear()

    def _tend(self) -> None:
        for connection in tuple(self._room.all):
            connection.tend(self._timing.ping_s, self._timing.give_up_s)

    def _asked(self, what: str, ask: Callable[[], Any]) -> Any:
        """What the source says; None, and a line in the log, when it fails."""
        try:
            return ask()
        except Exception as error:
            self._report(what, error)
            return None

    def _report(self, what: str, error: Exception) -> None:
        known = what in self._failing
        self._failing.add(what)
        _log.log(logging.DEBUG if known else logging.ERROR, "viewer: %s", what, exc_info=error)


def _version() -> str:
    try:
        return version("feagi-io")
    except PackageNotFoundError:  # the sources are run as they lie
        return "unknown"


_REASONS: Final = {WRONG_TOKEN: "token", WRONG_PROTOCOL: "protocol", LATE: "late", FULL: "full"}
_ONLY_OWN_PAGE: Final = Asset("text/plain; charset=utf-8", b"only for the viewer's own page\n")


def _response(status: int, phrase: str, asset: Asset, host: str) -> Response:
    headers = Headers(
        {
            "Content-Type": asset.content_type,
            "Content-Length": str(len(asset.body)),
            "Connection": "close",
            **safe_headers(host),
        }
    )
    return Response(status, phrase, headers, asset.body)
