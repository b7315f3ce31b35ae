# SPDX-License-Identifier: Apache-2.0
"""StatusPage: what a server tells of itself, read-only, as JSON over HTTP on the loopback.

    /telemetry                    everything, for `feagi-io agents`
    /v1/agent/list                ids of the agents, as the engine of feagi-core 2.6.10 answers
    /v1/agent/capabilities/all    name and capabilities by id, likewise

Only GET, only for programs of this machine: a page of some web site that has its name point to the
loopback is told apart by the Host header. A peer that says nothing is let go after seconds, and no
more than some are served at a time.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import Any, Final, Self

from feagi_io_host.core.errors import PortBusyError, PortError

_log = logging.getLogger("feagi_io.cli")

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 30002

_PEER_S: Final = 2.0
_AT_A_TIME: Final = 8
# Who was hung up on is gone as soon as his thread has its turn.
_ROOM_S: Final = 1.0
# An answer is this old at most: who asks in a loop costs no more than who asks now and then.
_FRESH_S: Final = 0.2
_OWN_NAMES: Final = frozenset({HOST, "localhost"})


class StatusPage:
    """Answers with what `snapshot` gives, which has `agents` as `PNS.telemetry` does.

    `port` 0 is any free one; `url` tells which. Raises PortBusyError or PortError where it cannot
    listen. Use as a context manager, or call `start` and `stop`.
    """

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]], port: int = DEFAULT_PORT) -> None:
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._last: tuple[float, Mapping[str, Any]] | None = None
        try:
            self._server = _Server((HOST, port), _Request)
        except OSError as error:
            kind = PortBusyError if error.errno == errno.EADDRINUSE else PortError
            raise kind(
                f"status page: no {HOST}:{port}, {error.strerror}; choose another port with "
                "--status, or none"
            ) from error
        self._server.page = self
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="feagi-io-status", daemon=True
        )
        self._started = False

    def start(self) -> None:
        """Begin to answer."""
        self._started = True
        self._thread.start()

    def stop(self) -> None:
        """End it; requests under way are cut off. May be called more than once."""
        if self._started:
            self._server.shutdown()
            self._thread.join(_PEER_S)
        self._server.hang_up()
        self._server.server_close()

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

    def answer(self, path: str) -> object | None:
        """The JSON value of a path; None for one that there is not."""
        shape = _PATHS.get(path)
        return None if shape is None else shape(self._fresh())

    def _fresh(self) -> Mapping[str, Any]:
        with self._lock:
            now_s = time.monotonic()
            if self._last is None or now_s - self._last[0] > _FRESH_S:
                self._last = (now_s, self._snapshot())
            return self._last[1]


def _everything(snapshot: Mapping[str, Any]) -> object:
    return snapshot


def _agent_list(snapshot: Mapping[str, Any]) -> object:
    return [_base64_id(agent) for agent in snapshot["agents"]]


def _capabilities(snapshot: Mapping[str, Any]) -> object:
    return {
        _base64_id(agent): {
            "agent_name": agent["agent_name"],
            "capabilities": dict.fromkeys(agent["capabilities"], True),
        }
        for agent in snapshot["agents"]
    }


def _base64_id(agent: Mapping[str, Any]) -> str:
    return base64.b64encode(bytes.fromhex(agent["agent_id"])).decode()


_PATHS: Final[Mapping[str, Callable[[Mapping[str, Any]], object]]] = {
    "/telemetry": _everything,
    "/v1/agent/list": _agent_list,
    "/v1/agent/capabilities/all": _capabilities,
}


class _Server(ThreadingMixIn, HTTPServer):
    page: StatusPage
    daemon_threads = False  # so that closing waits for them; `hang_up` ends them
    request_queue_size = _AT_A_TIME

    def __init__(self, address: tuple[str, int], handler: type[_Request]) -> None:
        self._room = threading.Condition()
        self._served: dict[socket.socket, None] = {}  # in order of arrival
        super().__init__(address, handler)

    def hang_up(self, connections: int | None = None) -> None:
        """Cut off those served for longest, or (None) all."""
        with self._room:
            for served in tuple(self._served)[:connections]:
                with contextlib.suppress(OSError):  # it was quicker
                    served.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        """Bind without asking the network what this machine is called, as the parent does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve it in a thread of its own; where there are too many, the oldest makes room."""
        if len(self._served) >= _AT_A_TIME:
            self.hang_up(1)
        with self._room:
            there = self._room.wait_for(lambda: len(self._served) < _AT_A_TIME, _ROOM_S)
            if there:
                self._served[request] = None
        if not there:
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close it, and make room for the next."""
        with self._room:
            self._served.pop(request, None)
            self._room.notify_all()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """What a peer does wrong is no news; the parent would print it."""
        _log.debug("request of %s failed", client_address, exc_info=True)


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = _PEER_S
    server_version = "feagi-io"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with JSON."""
        host = self.headers.get("Host", HOST).rpartition(":")
        if (host[0] or host[2]) not in _OWN_NAMES:
            self._say(403, {"message": "this page is for programs of this machine"})
            return
        value = self.server.page.answer(self.path.partition("?")[0])
        if value is None:
            self._say(404, {"message": f"there are {', '.join(_PATHS)}"})
        else:
            self._say(200, value)

    def _say(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: one line per request would be a log of its own."""
