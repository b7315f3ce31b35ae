# SPDX-License-Identifier: Apache-2.0
"""A Chromium of this machine without a screen, driven by its own debugging protocol.

Chrome DevTools Protocol over WebSocket: https://chromedevtools.github.io/devtools-protocol/. The
browser has a profile of its own, which is removed with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from feagi_io_host.core.errors import MissingPartError, RemoteError

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS: Final = (
    "--headless",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--window-size=1280,800",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
)
_START_S: Final = 30.0
_ANSWER_S: Final = 30.0
_STOP_S: Final = 5.0
_LOOK_S: Final = 0.02


class Browser:
    """A page at `url` in a browser; a context manager.

    `program` is one of NAMES on the search path unless given. Raises MissingPartError where there
    is none, RemoteError where it does not start or answer within 30 s.
    """

    def __init__(
        self, url: str, program: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        found = program or next(filter(None, map(shutil.which, NAMES)), None)
        if found is None or shutil.which(found) is None:
            raise MissingPartError(
                f"no browser on this machine ({program or ', '.join(NAMES)}): "
                "sudo apt install chromium, or name one with --browser"
            )
        self._command = [found, *_FLAGS]
        if os.geteuid() == 0:
            self._command.append("--no-sandbox")  # the sandbox refuses to run for root
        self._url = url
        self._environment = None if environment is None else dict(environment)
        self._open = contextlib.ExitStack()
        self._line: ClientConnection | None = None
        self._number = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            profile = Path(tempfile.mkdtemp(prefix="feagi-io-browser-"))
            opening.callback(_remove, profile)
            try:
                process = subprocess.Popen(
                    [*self._command, f"--user-data-dir={profile}", self._url],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                opening.callback(_end, process)
                address = self._page_address(process, profile)
                line = connect(address, compression=None, max_size=1 << 20)
                self._line = opening.enter_context(line)
            except (OSError, WebSocketException, ValueError) as error:
                raise RemoteError(f"{self._command[0]} does not answer: {error}") from error
            self._open = opening.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is waited for.

        Raises RemoteError where it throws, or the browser does not answer within 30 s.
        """
        assert self._line is not None
        self._number += 1
        parameters = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        message = {"id": self._number, "method": "Runtime.evaluate", "params": parameters}
        deadline_s = time.monotonic() + _ANSWER_S
        try:
            self._line.send(json.dumps(message))
            answer: dict[str, Any] = {}
            while answer.get("id") != self._number:
                answer = json.loads(self._line.recv(max(0.0, deadline_s - time.monotonic())))
        except (OSError, WebSocketException, ValueError) as error:
            raise RemoteError(f"the browser does not answer: {error}") from error
        result = answer.get("result", {})
        if "exceptionDetails" in result or "result" not in result:
            raise RemoteError(f"{expression[:60]!r} in the browser: {json.dumps(answer)[:400]}")
        return result["result"].get("value")

    def _page_address(self, process: subprocess.Popen[bytes], profile: Path) -> str:
        """The debugging address of the page, once it is there."""
        told = profile / "DevToolsActivePort"
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                raise RemoteError(f"{self._command[0]} ended with status {process.returncode}")
            lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
            if lines:
                address = f"http://127.0.0.1:{int(lines[0])}/json/list"
                with urllib.request.urlopen(address, timeout=_ANSWER_S) as answer:
                    for target in json.load(answer):
                        if target.get("type") == "page":
                            return str(target["webSocketDebuggerUrl"])
            time.sleep(_LOOK_S)
        raise RemoteError(f"{self._command[0]} has no page after {_START_S:g} s")


def _remove(profile: Path) -> None:
    """The browser's helpers write on for a moment after it has ended."""
    deadline_s = time.monotonic() + _STOP_S
    while profile.exists() and time.monotonic() < deadline_s:
        shutil.rmtree(profile, ignore_errors=True)
        time.sleep(_LOOK_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
