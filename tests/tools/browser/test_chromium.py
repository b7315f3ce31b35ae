# SPDX-License-Identifier: Apache-2.0
"""The browser of the tests: found, fetched, and able to do what pages of ours need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tools.browser import BrowserUnavailableError, chromium, find_chromium
from tools.emulation import EmulatorUnavailableError

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = """data:text/html,<!doctype html><body style="font:40px sans-serif"><canvas></canvas>axon"""
WEBGL = """() => {
  const gl = document.querySelector('canvas').getContext('webgl2', {preserveDrawingBuffer: true});
  gl.clearColor(1, 0.5, 0, 1);
  gl.clear(gl.COLOR_BUFFER_BIT);
  const seen = new Uint8Array(4);
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, seen);
  return Array.from(seen);
}"""
INK = """() => {
  const drawn = document.createElement('canvas').getContext('2d');
  drawn.font = '40px sans-serif';
  return ['i', 'W'].map(text => drawn.measureText(text).width);
}"""


@pytest.fixture
def nothing_found_yet() -> Iterator[None]:
    find_chromium.cache_clear()
    yield
    find_chromium.cache_clear()


@pytest.mark.slow
def test_draws_in_three_dimensions_and_has_letters(page: Page) -> None:
    page.goto(PAGE)
    assert page.evaluate(WEBGL) == [255, 128, 0, 255]
    narrow, wide = page.evaluate(INK)
    assert 0 < narrow < wide


@pytest.mark.usefixtures("nothing_found_yet")
def test_the_machines_own_is_taken_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(chromium, "programs", None)
    found = find_chromium()
    assert found.path == str(program)
    assert dict(found.environment) == dict(os.environ)


@pytest.mark.usefixtures("nothing_found_yet")
def test_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BrowserUnavailableError, match=r"sudo apt install chromium"):
        find_chromium()
    assert not isinstance(BrowserUnavailableError(""), EmulatorUnavailableError)
