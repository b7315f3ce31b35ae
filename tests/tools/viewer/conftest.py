# SPDX-License-Identifier: Apache-2.0
"""The viewer's page in a real Chromium, at a server that says what a test tells it to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.tools.viewer.browsed import Browsed
from tests.tools.viewer.served import ServedPage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tools.browser import Chromium


@pytest.fixture(scope="module")
def browser(chromium: Chromium) -> Iterator[Browser]:
    """One browser for the tests of a module: starting it takes as long as most of them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=chromium.path,
            env={**chromium.environment},
            args=list(chromium.flags),
        )
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page with a storage of its own."""
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture
def served() -> Iterator[ServedPage]:
    with ServedPage(control=True) as running:
        yield running


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots are kept: FEAGI_IO_PICTURES, or the test's own folder."""
    folder = Path(os.environ.get("FEAGI_IO_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def browse(served: ServedPage, page: Page, pictures: Path) -> Iterator[Callable[..., Browsed]]:
    """`browse()` opens the page and waits for its hello. At the end nothing may have been logged as
    an error and no policy violated."""
    opened: list[Browsed] = []

    def open_page(*, width: int = 640, height: int = 520, scheme: str = "dark") -> Browsed:
        browsed = Browsed(page, pictures)
        opened.append(browsed)
        browsed.open(served.url, width, height, scheme)
        served.until_hello()
        browsed.until_live()
        return browsed

    yield open_page
    for browsed in opened:
        browsed.check_clean()
