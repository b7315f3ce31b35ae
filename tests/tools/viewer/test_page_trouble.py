# SPDX-License-Identifier: Apache-2.0
"""The page when things go wrong: restarts, wrong tokens, hostile servers, too many voxels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.feagi_io_host.core.golden import MALFORMED, VALID
from tests.tools.viewer.browsed import Browsed
from tests.tools.viewer.served import HEADER, ServedPage, compact, state

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

Browse = Callable[..., Browsed]
VECTORS = {vector.name[:3]: vector for vector in VALID}
BRAIN = b"cortex\x00\x00"
SIDE = 100


def test_it_comes_back_after_the_server_restarts(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    served.stop()
    browsed.expected.append("ERR_CONNECTION_REFUSED")
    browsed.until("document.getElementById('status').dataset.state === 'waiting'")
    assert browsed.page.is_visible("#banner")
    browsed.picture("offline")
    served.start()
    served.until_hello(2)
    browsed.until_live()
    assert browsed.page.is_hidden("#banner")
    assert browsed.figures["live"] == 0  # what was before is nothing to the new one
    served.received.clear()
    served.until_shown(served.show(VECTORS["v04"].data, 1))
    assert browsed.figures["live"] == 1


def test_a_wrong_token_is_told_and_not_tried_again(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    served.until_hello()
    browsed.page.clock.install()
    browsed.open(f"http://127.0.0.1:{served.port}/#token=guessed", 640, 520, "dark")
    # Another fragment alone opens no new page: the one that is there takes the new token.
    browsed.page.clock.run_for(1000)
    browsed.until("document.getElementById('status').dataset.state === 'refused'")
    assert "token is wrong" in browsed.text("#banner")
    browsed.picture("wrong-token")
    refused = served.refused
    browsed.page.clock.run_for(60_000)
    assert served.refused == refused == 1
    browsed.open(served.url, 640, 520, "dark")
    browsed.page.clock.run_for(1000)
    served.until_hello(2)
    browsed.until_live()


HOSTILE_TEXTS = [
    "",
    "no json",
    "[]",
    "null",
    "7",
    '{"type": 7}',
    '{"type": "surprise"}',
    '{"type": "areas"}',
    '{"type": "areas", "areas": {}}',
    '{"type": "areas", "areas": [null]}',
    '{"type": "areas", "areas": [{"id": "AAAA"}]}',
    '{"type": "areas", "areas": [{"id": "AAAAAAAAAAA=", "width": -1}]}',
    '{"type": "areas", "areas": [{"id": "AAAAAAAAAAA=", "width": 1e30, "height": 1, "depth": 1}]}',
    '{"type": "state", "agents": 7}',
    '{"type": "world"}',
    '{"type": "world", "kind": "cart_pole", "angle_rad": 0, "position_m": 0, "track_m": -1}',
    '{"type": "say", "text": "' + "x" * (1 << 20) + '"}',
]
# What is no fault, only odd: missing figures are dashes, texts stay texts.
ODD_TEXTS = [
    '{"type": "state"}',
    '{"type": "state", "agents": [null, 7, {"name": "<img src=x onerror=alert(1)>"}]}',
    '{"type": "say", "text": {"a": 1}}',
    '{"type": "say", "text": "<script>alert(1)</script>"}',
    '{"type": "refused"}',
]


def test_hostile_texts_are_counted_and_nothing_else(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    for text in HOSTILE_TEXTS:
        served.send(text)
    browsed.until(f"f.faults === {len(HOSTILE_TEXTS)}")
    for text in ODD_TEXTS:
        served.send(text)
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    assert (browsed.figures["live"], browsed.figures["faults"]) == (3, len(HOSTILE_TEXTS))
    assert browsed.page.locator("#log script, #agent-list img").count() == 0
    browsed.page.click("#tab-log")
    assert "<script>alert(1)</script>" in browsed.text("#log")
    assert "Not understood" in browsed.text("#log")


def test_hostile_frames_are_refused_and_the_next_is_shown(
    browse: Browse, served: ServedPage
) -> None:
    browsed = browse()
    for vector in MALFORMED:
        served.until_shown(served.show(vector.data))
    assert browsed.figures["faults"] == len(MALFORMED)
    for data in (b"", bytes(23), HEADER.pack(9, 0, 0, 1, 0.0, 0, 0)):
        served.send(data)
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    assert browsed.figures["faults"] == len(MALFORMED) + 3
    assert browsed.figures["live"] == 3
    # After a compact frame that cannot be read the next ones build on nothing: it begins anew.
    served.show_compact(struct.pack("<HH", 1, 0), fired=1, voxels=1)
    served.until_hello(2)
    browsed.until_live()
    served.received.clear()
    served.until_shown(served.show(VECTORS["v04"].data, 1))
    assert browsed.figures["live"] == 1


def test_frames_that_nobody_asked_for_end_the_connection(
    browse: Browse, served: ServedPage
) -> None:
    browsed = browse()
    browsed.page.keyboard.press(" ")  # the picture is held: nothing is taken
    for _ in range(9):
        served.show(VECTORS["v04"].data, 1)
    served.until_hello(2)


def test_200_000_neurons_are_drawn_or_said_to_be_thinned(
    browse: Browse, served: ServedPage
) -> None:
    """Drawn in software the page cannot hold 30 frames per second: it asks for less and says so."""
    browsed = browse()
    chance = np.random.default_rng(6)
    size = (SIDE, SIDE, SIDE)
    served.areas((BRAIN, "Cortex", "other", size))
    fired = 200_000

    def burst(voxels: int) -> int:
        cells = chance.choice(SIDE**3, voxels, replace=False)
        body = compact([(BRAIN, size, 1.0, cells, chance.integers(1, 256, voxels), [])])
        return served.show_compact(body, fired=fired, voxels=voxels, thinned=voxels < fired)

    served.until_shown(burst(fired))
    assert browsed.figures["live"] == fired
    assert browsed.page.is_hidden("#thinned")
    browsed.picture("burst-200k")
    # The next bursts come as soon as the last one was drawn, until the page asks for less.
    for _ in range(60):
        if any(message["type"] == "detail" for message in list(served.received)):
            break
        served.until_shown(burst(fired))
    wanted = served.until_received("detail")["max_voxels"]
    assert 1000 <= wanted < fired
    served.until_shown(burst(wanted))
    live = browsed.figures["live"]
    assert 1000 <= live <= wanted
    browsed.until(
        f"document.getElementById('thinned').textContent === '{live:,} of 200,000 voxels drawn'"
    )
    # Hands on the page are heard meanwhile.
    browsed.page.keyboard.press("?")
    assert browsed.page.is_visible("#help")
    browsed.page.keyboard.press("Escape")
    browsed.picture("burst-thinned")


def test_a_graphics_card_that_goes_and_comes_back(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    served.areas((BRAIN, "Cortex", "other", (4, 4, 4)))
    cells = compact([(BRAIN, (4, 4, 4), 1.0, range(64), [255] * 64, [])])
    served.until_shown(served.show_compact(cells, fired=64, voxels=64))
    spot = browsed.place(BRAIN, 3, 3, 0)
    lose = "globalThis.lost = document.getElementById('brain').getContext('webgl2')"
    browsed.page.evaluate(f"({lose}.getExtension('WEBGL_lose_context')).loseContext()")
    # Credit is not held up by pictures that are never drawn.
    served.until_shown(served.show_compact(cells, fired=64, voxels=64))
    browsed.page.evaluate("lost.restoreContext()")
    browsed.until("!document.getElementById('brain').getContext('webgl2').isContextLost()")
    served.until_shown(served.show_compact(cells, fired=64, voxels=64))
    (voxel,) = browsed.colours("context-restored", [spot])
    assert min(voxel[:2]) > 150


def test_themes(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=1000)
    page = browsed.page
    served.areas((BRAIN, "Cortex", "other", (4, 4, 4)))
    served.send(state(0))
    cells = compact([(BRAIN, (4, 4, 4), 1.0, range(64), [255] * 64, [])])
    served.until_shown(served.show_compact(cells, fired=64, voxels=64))
    spots = [(300.0, 60.0), (20.0, 400.0), browsed.place(BRAIN, 3, 3, 0)]
    ground, panel, voxel = browsed.colours("dark", spots)
    assert max(ground + panel) < 60
    assert min(voxel[:2]) > 150
    page.emulate_media(color_scheme="light")  # the system's choice is followed at once
    ground, panel, voxel = browsed.colours("light", spots)
    assert min(ground + panel) > 200
    assert max(voxel) < 140
    page.keyboard.press("t")  # light, whatever the system says
    page.keyboard.press("t")  # dark
    ground, _, _ = browsed.colours("dark-chosen", spots)
    assert max(ground) < 60
    page.reload()
    served.until_hello(2)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_phone(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=360, height=720)
    page = browsed.page
    served.areas(
        *((bytes([99, 48 + n]) + bytes(6), f"Area {n}", "core", (9, 9, 3)) for n in range(6))
    )
    served.send(state(0))
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    # Nothing is wider than the screen, nothing that is pressed is outside or too small.
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    boxes = page.evaluate(
        """() => [...document.querySelectorAll('header button, nav button')]
          .filter(one => one.offsetParent !== null)
          .map(one => one.getBoundingClientRect()).map(box => [box.left, box.right, box.height])"""
    )
    assert len(boxes) == 12
    assert all(left >= 0 and right <= 360 and height >= 28 for left, right, height in boxes)
    for tab, inside in (
        ("Charts", "#plots"),
        ("Agents", "#agent-list"),
        ("Log", "#log-panel"),
        ("Areas", "#area-list"),
    ):
        page.get_by_role("button", name=tab, exact=True).click()
        assert page.is_visible(inside)
        browsed.picture(f"phone-{tab.lower()}")
    assert page.is_hidden("#plots")


def test_everything_to_be_used_has_a_name(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=1000)
    served.areas((BRAIN, "Cortex", "other", (4, 4, 4)))
    served.send(state(0))
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    nameless = browsed.page.evaluate(
        """() => [...document.querySelectorAll(
            'button, input, canvas:not([aria-hidden]), dialog, aside, nav')]
          .filter(one => !one.closest('.uplot'))
          .filter(one => ![one.ariaLabel, one.getAttribute('aria-labelledby'), one.textContent,
                           one.labels?.[0]?.textContent].some(text => text?.trim()))
          .map(one => one.outerHTML)"""
    )
    assert nameless == []


def test_without_webgl_lists_and_figures_work(
    browse: Browse, served: ServedPage, page: Page
) -> None:
    page.add_init_script(
        "HTMLCanvasElement.prototype.getContext = (original => function (kind, ...more) {"
        "  return kind.startsWith('webgl') ? null : original.call(this, kind, ...more);"
        "})(HTMLCanvasElement.prototype.getContext);"
    )
    browsed = browse(width=1000)
    browsed.expected.append("WebGL")
    served.send(state(0))
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    assert "no WebGL 2" in browsed.text("#no-webgl")
    browsed.until("document.querySelectorAll('#area-list li').length === 2")
    browsed.until("document.querySelector('#stream-sensory td').textContent === '100'")
