# SPDX-License-Identifier: Apache-2.0
"""The page with its frames over WebRTC, in a real Chromium with nothing but loopback.

What the flag and the permission are for: see tests/interop/test_browser_webrtc.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.viewer import ViewerServer
from tests.feagi_io_host.viewer.bursts import big_frame
from tests.feagi_io_host.viewer.live import DEADLINE_S, Told
from tests.tools.viewer.browsed import Browsed
from tools.browser import Chromium
from tools.engine import EngineUnavailableError, NetworkNamespace

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

FLAG = "--allow-loopback-in-peer-connection"
OVER = "document.getElementById('log').textContent.includes('Frames come over WebRTC.')"
BEFORE = "document.getElementById('log').textContent.includes('frames come as before')"


@pytest.fixture
def viewer() -> Iterator[ViewerServer]:
    """A viewer in a network of its own, as everything that is started after it."""
    try:
        network = NetworkNamespace()
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    try:
        with network.entered(), ViewerServer(Told()) as running:
            yield running
    finally:
        network.close()


@pytest.fixture
def page(viewer: ViewerServer, chromium: Chromium) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path,
            env={**chromium.environment},
            args=[*chromium.flags, FLAG],
        )
        try:
            yield browser.new_context(permissions=["microphone"]).new_page()
        finally:
            browser.close()


def show_until(viewer: ViewerServer, page: Page, frame: SharedFBC, what: Callable[[], Any]) -> None:
    """Frames, one after the other, until something is true."""
    deadline_s = time.monotonic() + DEADLINE_S
    while not what():
        assert time.monotonic() < deadline_s
        viewer.show_frame(frame)
        page.wait_for_timeout(20)


def test_frames_come_over_webrtc_and_as_before_when_it_is_lost(
    viewer: ViewerServer, page: Page, pictures: Path
) -> None:
    browsed = Browsed(page, pictures)
    browsed.open(f"{viewer.url}&over=webrtc", 480, 400, "dark")
    browsed.until_live()
    browsed.until(OVER)
    (on_show,) = viewer._stage._pages
    assert on_show._over_peer
    # Few enough to go as they are, and so many that they are thinned and go whole each time.
    for fired in (1_000, 60_000):
        frame = big_frame(fired, 1)
        try:
            shown, sent = on_show._shown, on_show._peer._line._sctp._local_tsn  # type: ignore[union-attr]
            show_until(viewer, page, frame, lambda: on_show._shown > shown + 3)  # noqa: B023
            assert on_show._peer._line._sctp._local_tsn != sent  # type: ignore[union-attr]
            browsed.until("f.live > 0")
        finally:
            frame.release()
    assert on_show._kept is None
    assert viewer._thread is not None
    lose = on_show._peer._line._lose  # type: ignore[union-attr]
    viewer._thread.loop.call_soon_threadsafe(lose, "the test has enough of it")
    browsed.until(BEFORE)
    frame = big_frame(1_000, 2)
    try:
        shown = on_show._shown
        show_until(viewer, page, frame, lambda: on_show._shown > shown + 3)
    finally:
        frame.release()
    assert browsed.figures["faults"] == 0
    browsed.check_clean()
