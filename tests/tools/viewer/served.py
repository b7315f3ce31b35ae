# SPDX-License-Identifier: Apache-2.0
"""A server that speaks the viewer's protocol and says what a test tells it to, byte for byte.

The real one sends what a brain does; this one can also send the golden vectors, hostile bytes and
bursts of a chosen size at a chosen moment. The page is that of the library, under the headers that
docs/viewer.md promises.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import threading
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tools.viewer import ASSETS

DEADLINE_S = 20.0
TOKEN = "open-sesame"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
HEADER = struct.Struct("<BBHIdII")
COMPACT_AREA = struct.Struct("<8sHHHHfII")

Message = dict[str, Any]


class ServedPage:
    """One page's server on the loopback, in a thread of its own; a context manager.

    `received` are the page's texts after hello. Sends go to whoever is connected.
    """

    def __init__(self, *, port: int = 0, control: bool = False) -> None:
        self.port = port
        self.control = control
        self.received: list[Message] = []
        self.hellos = 0
        self.refused = 0
        self.sequence = 0
        self._asked = port
        self._news = threading.Condition()
        self._live: ServerConnection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/#token={TOKEN}"

    def __enter__(self) -> ServedPage:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(ready)), name="served-page", daemon=True
        )
        self._thread.start()
        assert ready.wait(DEADLINE_S)

    def stop(self) -> None:
        if self._thread is not None and self._loop is not None and self._end is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(DEADLINE_S)
            assert not self._thread.is_alive()
            self._thread = None

    async def _run(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        server: Server
        async with serve(
            self._serve,
            "127.0.0.1",
            self.port,
            process_request=self._http,
            compression=None,
            max_size=4096,
            close_timeout=1,
        ) as server:
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._end.wait()
        with self._news:
            self._live = None

    def _http(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/live":
            return None
        path = ASSETS / ("index.html" if request.path == "/" else request.path[1:])
        if path.parent != ASSETS or path.suffix not in TYPES or not path.is_file():
            return connection.respond(HTTPStatus.NOT_FOUND, "no such file\n")
        body = path.read_bytes()
        headers = Headers(
            {
                "Content-Type": TYPES[path.suffix],
                "Content-Length": str(len(body)),
                "Content-Security-Policy": POLICY,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-store",
                "Cross-Origin-Opener-Policy": "same-origin",
                "Connection": "close",
            }
        )
        return Response(HTTPStatus.OK, "OK", headers, body)

    async def _serve(self, connection: ServerConnection) -> None:
        hello = json.loads(await connection.recv())
        if hello.get("token") != TOKEN:
            self.refused += 1
            await connection.close(4401, "wrong token")
            return
        with self._news:
            self._live = connection
            self.sequence = 0
            self.hellos += 1
            self._news.notify_all()
        await connection.send(json.dumps(self.welcome()))
        try:
            async for text in connection:
                with self._news:
                    self.received.append(json.loads(text))
                    self._news.notify_all()
        except ConnectionClosed:
            pass

    def welcome(self) -> Message:
        return {
            "type": "welcome",
            "protocol": 1,
            "version": "0.1.0",
            "title": "Test brain",
            "source": "demo",
            "control": self.control,
            "burst_hz": 50.0,
        }

    # -- from the test's thread ------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that comes with a message of the page."""
        deadline_s = time.monotonic() + DEADLINE_S
        with self._news:
            while not condition():
                left = deadline_s - time.monotonic()
                assert left > 0, f"{what} did not happen; received {self.received[-5:]}"
                self._news.wait(left)

    def until_hello(self, number: int = 1) -> None:
        self.until(lambda: self.hellos >= number and self._live is not None, f"hello {number}")

    def until_received(self, kind: str) -> Message:
        """The newest message of a type, waited for."""
        self.until(lambda: any(m["type"] == kind for m in self.received), f"'{kind}'")
        return next(m for m in reversed(self.received) if m["type"] == kind)

    def until_shown(self, sequence: int) -> None:
        self.until(
            lambda: any(
                m["type"] == "shown" and m["sequence"] >= sequence for m in list(self.received)
            ),
            f"frame {sequence} shown",
        )

    def send(self, message: Message | str | bytes) -> None:
        """Send a message (made JSON), a text, or bytes."""
        self.until_hello()
        data = json.dumps(message) if isinstance(message, dict) else message
        assert self._loop is not None
        connection = self._live
        assert connection is not None
        asyncio.run_coroutine_threadsafe(connection.send(data), self._loop).result(DEADLINE_S)

    def show(self, container: bytes, fired: int = 0) -> int:
        """Send a container as a frame of kind 1; its sequence number."""
        self.sequence += 1
        head = HEADER.pack(1, 0, 0, self.sequence, time.time() * 1000, fired, fired)
        self.send(head + container)
        return self.sequence

    def show_compact(
        self, body: bytes, *, fired: int, voxels: int, whole: bool = True, thinned: bool = False
    ) -> int:
        """Send a compact body as a frame of kind 2; its sequence number."""
        self.sequence += 1
        flags = (1 if whole else 0) | (2 if thinned else 0)
        now_ms = time.time() * 1000
        self.send(HEADER.pack(2, flags, 0, self.sequence, now_ms, fired, voxels) + body)
        return self.sequence

    def areas(self, *areas: tuple[bytes, str, str, tuple[int, int, int]]) -> None:
        """Tell the areas: id, name, kind, dimensions."""
        self.send(
            {
                "type": "areas",
                "areas": [
                    {
                        "id": base64.b64encode(id_).decode(),
                        "name": name,
                        "kind": kind,
                        "width": width,
                        "height": height,
                        "depth": depth,
                    }
                    for id_, name, kind, (width, height, depth) in areas
                ],
            }
        )


def compact(
    areas: Sequence[
        tuple[bytes, tuple[int, int, int], float, npt.ArrayLike, npt.ArrayLike, npt.ArrayLike]
    ],
) -> bytes:
    """A body of kind 2 of (id, dimensions, scale, changed cells, potentials 0..255, gone cells)."""
    parts = [struct.pack("<HH", len(areas), 0)]
    for id_, size, scale, changed, potentials, gone in areas:
        cells = np.asarray(changed, "<u4")
        values = np.asarray(potentials, "u1")
        left = np.asarray(gone, "<u4")
        parts += [
            COMPACT_AREA.pack(id_, *size, 0, scale, len(cells), len(left)),
            cells.tobytes(),
            values.tobytes(),
            bytes(-len(values) % 4),
            left.tobytes(),
        ]
    return b"".join(parts)


def stream(rate_hz: float, **more: float | None) -> Message:
    return {
        "rate_hz": rate_hz,
        "delivered": 100,
        "dropped": 0,
        "queue": 0,
        "p50_ms": 0.4,
        "p99_ms": 1.9,
        **more,
    }


def state(number: int, **more: Any) -> Message:
    """The `number`-th state of a running brain with one agent; `more` replaces parts of it."""
    return {
        "type": "state",
        "at_ms": 1_800_000_000_000 + 500 * number,
        "paused": False,
        "bursts": 50 * number,
        "burst_hz": 50.0,
        "viewers": 1,
        "conflated": 0,
        "streams": {
            "sensory": stream(100 + number),
            "motor": stream(50 + number % 5, p50_ms=0.7),
            "visualization": stream(50, dropped=3 * number),
        },
        "agents": [
            {
                "id": "a1" * 48,
                "name": "cart-pole",
                "manufacturer": "feagi-io",
                "state": "UP",
                "capabilities": ["send_sensor_data", "receive_motor_data"],
                "transport": "serial",
                "attached_s": 12.0 + number / 2,
                "sensory_hz": 100.0 + number,
                "motor_hz": 50.0,
                "dropped": 2 * number,
                "p50_ms": 0.5,
                "p99_ms": 2.5,
                "queue": 1,
            }
        ],
        **more,
    }
