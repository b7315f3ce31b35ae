# SPDX-License-Identifier: Apache-2.0
"""A page without a browser, and a source that tells what a test wants told."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from feagi_io_host.viewer import KnownArea, ViewerServer
from feagi_io_host.viewer.figures import UNKNOWN
from tests.feagi_io_host.viewer.reference import Header, Shown, header_of

DEADLINE_S = 10.0


class Told:
    """A ViewerSource; a test sets what it tells."""

    def __init__(self) -> None:
        self.known: list[KnownArea] = []
        self.figures: dict[str, Any] = {"at_ms": 1.0, **UNKNOWN}
        self.sight: dict[str, Any] | None = None
        self.failing = False

    @property
    def title(self) -> str:
        return "a test"

    @property
    def name(self) -> str:
        return "test"

    def burst_hz(self) -> float | None:
        return 50.0

    def areas(self) -> Iterable[KnownArea]:
        return self.known

    def state(self) -> dict[str, Any]:
        if self.failing:
            raise OSError("the source is broken")
        return self.figures

    def world(self) -> dict[str, Any] | None:
        return self.sight


class Place(NamedTuple):
    """Where a viewer of another process is."""

    base_url: str
    token: str

    @classmethod
    def of(cls, url: str) -> Place:
        base_url, _, token = url.strip().partition("/#token=")
        return cls(base_url, token)


class LivePage:
    """One connection; what comes is sorted by its type."""

    def __init__(self, line: ClientConnection) -> None:
        self.line = line
        self.shown = Shown()
        self.draws_all = False
        """Whether each frame that comes is drawn and called shown at once."""
        self.texts: list[dict[str, Any]] = []
        self.frames: list[bytes] = []

    def send(self, kind: str, **values: Any) -> None:
        self.line.send(json.dumps({"type": kind, **values}))

    def hello(self, token: str, protocol: int = 1) -> None:
        self.send("hello", token=token, protocol=protocol)

    def read(self, timeout_s: float = DEADLINE_S) -> dict[str, Any] | bytes:
        message = self.line.recv(timeout_s)
        if isinstance(message, str):
            value: dict[str, Any] = json.loads(message)
            self.texts.append(value)
            return value
        self.frames.append(message)
        if self.draws_all:
            self.tell_shown(self.shown.take(message).sequence)
        return message

    def text(
        self, kind: str, fits: Callable[[dict[str, Any]], object] = lambda value: True
    ) -> dict[str, Any]:
        """The next text of this type that fits; frames and others are put by."""
        until_s = time.monotonic() + DEADLINE_S
        while (left_s := until_s - time.monotonic()) > 0:
            value = self.read(left_s)
            if isinstance(value, dict) and value["type"] == kind and fits(value):
                return value
        raise AssertionError(f"no {kind} that fits within {DEADLINE_S} s")

    def frame(self) -> bytes:
        """The next frame; it is not called shown."""
        until_s = time.monotonic() + DEADLINE_S
        while (left_s := until_s - time.monotonic()) > 0:
            if isinstance(value := self.read(left_s), bytes):
                return value
        raise AssertionError(f"no frame within {DEADLINE_S} s")

    def draw(self) -> Header:
        """Draw the next frame and say so."""
        message = self.frame()
        header = self.shown.take(message)
        self.tell_shown(header.sequence)
        return header

    def ask_for_detail(self, max_voxels: int | None) -> None:
        """When this returns the server knows it: it answers in order."""
        self.send("detail", max_voxels=max_voxels)
        self.send("step")
        self.text("refused")

    def tell_shown(self, sequence: int) -> None:
        self.send("shown", sequence=sequence, frame_ms=1.5)

    def settled(self) -> list[Header]:
        """The frames that come until the second state from now on: none is on its way then."""
        self.frames.clear()
        for _ in range(2):
            self.text("state")
        return [header_of(message) for message in self.frames]

    def close_code(self) -> tuple[int, str]:
        """How the server ends it."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.read()
        assert self.line.close_code is not None
        return self.line.close_code, self.line.close_reason or ""


@contextmanager
def looking(viewer: ViewerServer | Place, *, hello: bool = True) -> Iterator[LivePage]:
    """A page that looks on; unless `hello` is False it has been welcomed."""
    with connect(
        f"ws{viewer.base_url.removeprefix('http')}/live",
        origin=viewer.base_url,  # type: ignore[arg-type]  # a str will do
        compression=None,
        max_size=None,
        max_queue=None,
        open_timeout=DEADLINE_S,
        close_timeout=1.0,
    ) as line:
        page = LivePage(line)
        if hello:
            page.hello(viewer.token)
            assert page.text("welcome")["protocol"] == 1
        yield page
