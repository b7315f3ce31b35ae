# SPDX-License-Identifier: Apache-2.0
"""The committed page is what its sources give."""

from __future__ import annotations

import os
import re

import pytest

from tools.browser import BrowserUnavailableError
from tools.viewer import ASSETS, SOURCES, bundle, find_toolchain

HTML = (SOURCES / "index.html").read_text(encoding="utf-8")


def test_the_committed_page_is_what_its_sources_give() -> None:
    try:
        toolchain = find_toolchain()
    except BrowserUnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; with CI=true everything has to run")
        pytest.skip(str(error))
    made = bundle(toolchain)
    there = {path.name: path.read_bytes() for path in ASSETS.iterdir()}
    different = sorted(name for name in made.keys() | there if made.get(name) != there.get(name))
    assert not different, "run python -m tools.viewer"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|<script(?![^>]*\ssrc=)", HTML)
    references = re.findall(r'(?:src|href)="([^"]*)"', HTML)
    assert sorted(one for one in references if not one.startswith("data:")) == [
        "/viewer.css",
        "/viewer.js",
    ]


def test_licences_of_what_is_bundled_are_told() -> None:
    text = (ASSETS / "LICENSES.txt").read_text(encoding="utf-8")
    assert "three.js authors" in text
    assert "Leon Sorokin" in text
