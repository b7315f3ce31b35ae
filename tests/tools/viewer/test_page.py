# SPDX-License-Identifier: Apache-2.0
"""The page in Chromium: voxels where the vectors say, lists, charts, and hands on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.feagi_io_host.core.golden import VALID, area, mapped
from tests.tools.viewer.browsed import Browsed, Colour, Point
from tests.tools.viewer.served import ServedPage, compact, state

pytestmark = pytest.mark.slow

Browse = Callable[..., Browsed]
VECTORS = {vector.name[:3]: vector for vector in VALID}
CUBE = b"cube\x00\x00\x00\x00"
EYE = b"iinf\x01\x00\x00\x00"
DASH = "\N{EN DASH}"
WHEELS = b"omot\x05\x00\x00\x00"


def brightness(colour: Colour) -> int:
    return max(colour)


def far_from(point: Point, others: list[Point], least: float) -> bool:
    return all(np.hypot(point[0] - x, point[1] - y) > least for x, y in others)


@pytest.mark.parametrize("name", ["v04", "v11", "v12"])
def test_voxels_are_where_the_vector_says(browse: Browse, served: ServedPage, name: str) -> None:
    browsed = browse()
    vector = VECTORS[name]
    sizes = {}
    fired: list[tuple[bytes, tuple[int, int, int]]] = []
    for part in vector.account["structs"][0]["areas"]:
        id_ = bytes.fromhex(part["cortical_id_hex"])
        cells = list(zip(part["x"], part["y"], part["z"], strict=True))
        fired += [(id_, cell) for cell in cells]
        sizes[id_] = tuple(max(cell[axis] for cell in cells) + 3 for axis in range(3))
    served.areas(*((id_, id_[:4].decode(), "other", size) for id_, size in sizes.items()))
    browsed.page.keyboard.press("l")  # no labels: they are painted over voxels
    served.until_shown(served.show(vector.data, len(fired)))
    browsed.still()
    assert browsed.figures["live"] == len(fired)
    lit = [browsed.place(id_, *cell) for id_, cell in fired]
    dark = []
    for id_, (width, height, depth) in sizes.items():
        for cell in np.ndindex(width, height, depth):
            point = browsed.place(id_, *cell)
            beside = browsed.place(id_, cell[0] + 1, *cell[1:])
            reach = 1.7 * float(np.hypot(beside[0] - point[0], beside[1] - point[1]))
            if far_from(point, lit, reach):
                dark.append(point)
    assert dark
    colours = browsed.colours(name, lit + dark)
    # Frames and floors are faint in the dark theme; what fires is not, were it ever so little.
    assert min(map(brightness, colours[: len(lit)])) > 90
    assert np.median([brightness(colour) for colour in colours[len(lit) :]]) < 60


def test_extreme_and_many_areas_are_drawn_too(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    for name, areas, voxels in (("v14", 1, 4), ("v16", 300, 300), ("v17", 1, 1000)):
        served.until_shown(served.show(VECTORS[name].data, voxels))
        figures = browsed.figures
        assert (figures["live"], figures["faults"]) == (voxels, 0)
        assert sum(live > 0 for live in figures["areas"].values()) == areas
    browsed.picture("many-areas")


def test_compact_frames_build_on_each_other(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    size = (10, 10, 10)
    served.areas((CUBE, "Cube", "core", size))
    whole = compact([(CUBE, size, 2.0, [0, 9, 999], [255, 255, 128], [])])
    served.until_shown(served.show_compact(whole, fired=3, voxels=3))
    assert browsed.figures["live"] == 3
    delta = compact([(CUBE, size, 2.0, [9, 500], [10, 255], [0])])
    served.until_shown(served.show_compact(delta, fired=3, voxels=2, whole=False))
    assert browsed.figures["live"] == 3
    browsed.still()
    points = [browsed.place(CUBE, *cell) for cell in ((0, 0, 0), (9, 0, 0), (9, 9, 9), (0, 0, 5))]
    gone, *kept = map(brightness, browsed.colours("delta", points))
    assert gone < 60 < min(kept)
    served.until_shown(served.show_compact(compact([]), fired=0, voxels=0))
    assert browsed.figures["live"] == 0


def test_a_voxel_tells_its_numbers(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    served.areas((EYE, "Infrared", "sensor", (2, 1, 8)), (WHEELS, "Wheels", "motor", (1, 1, 8)))
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    browsed.page.mouse.move(*browsed.place(EYE, 1, 0, 4))
    browsed.until("document.getElementById('tip').textContent === 'Infrared  1, 0, 4  p 1'")
    browsed.page.mouse.click(*browsed.place(EYE, 1, 0, 4))
    browsed.page.mouse.move(5, 5)
    browsed.picture("picked")
    assert browsed.text("#picked-area") == "Infrared"
    assert browsed.text("#picked-id") == "iinf 01000000"
    assert [browsed.text(f"#picked-{axis}") for axis in "xyz"] == ["1", "0", "4"]
    assert (browsed.text("#picked-p"), browsed.text("#picked-state")) == ("1", "fires")
    served.until_shown(served.show(VECTORS["v02"].data, 0))
    browsed.until("document.getElementById('picked-state').textContent === 'does not fire'")
    browsed.page.mouse.click(*browsed.place(WHEELS, 0, 0, 0))  # where nothing fires
    assert browsed.page.is_hidden("#picked")


def test_areas_are_hidden_and_shown_alone(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=1000)
    page = browsed.page
    served.areas((EYE, "Infrared", "sensor", (2, 1, 8)), (WHEELS, "Wheels", "motor", (1, 1, 8)))
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    seen = "([...ids]) => ids.map(id => feagiViewer.project(id, 0, 0, 0) !== null)"

    def shown() -> list[bool]:
        found: list[bool] = page.evaluate(seen, [EYE.hex(), WHEELS.hex()])
        return found

    left, right = browsed.place(EYE, 0, 0, 0)[0], browsed.place(WHEELS, 0, 0, 0)[0]
    assert left < right  # sensors left, motors right
    page.get_by_role("checkbox", name="Infrared").uncheck()
    assert shown() == [False, True]
    page.get_by_role("button", name="show only Infrared").click()
    assert shown() == [True, False]
    page.get_by_role("button", name="show only Infrared").click()
    assert shown() == [True, True]
    page.get_by_role("button", name="none").click()
    assert shown() == [False, False]
    page.keyboard.press("a")
    assert shown() == [True, True]
    browsed.until(
        "[...document.querySelectorAll('.live')].map(e => e.textContent).join() === '2,1'"
    )


def test_many_areas_are_found_by_name(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=1000)
    served.areas(*((area(n), f"Number {n}", "sensor", (1, 1, 4)) for n in range(40)))
    served.until_shown(served.show(VECTORS["v02"].data, 0))
    browsed.page.fill("#area-filter", "number 3")
    assert browsed.page.locator("#area-list li:visible").count() == 11  # 3, 30 to 39


def test_charts_and_agents_move(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=1000)
    page = browsed.page
    plots = "() => [...document.querySelectorAll('#plots canvas')].map(one => one.toDataURL())"
    for number in range(3):
        served.send(state(number))
    browsed.until("document.querySelector('#stream-sensory td').textContent === '102'")
    before = page.evaluate(plots)
    for number in range(3, 9):
        served.send(state(number))
    browsed.until("document.querySelector('#stream-sensory td').textContent === '108'")
    after = page.evaluate(plots)
    changed = [one != other for one, other in zip(before, after, strict=True)]
    assert changed[:4] == [True] * 4
    row = page.locator("#stream-visualization td").all_inner_texts()
    assert row == ["50", "0.4", "1.9", "24", "0"]
    assert page.locator(".chart output").all_inner_texts()[:3] == [
        "108 · 53 · 50",
        "1.9 · 1.9 · 1.9",
        "0 · 0 · 6",
    ]
    agent = page.get_by_role("button", name="cart-pole")
    assert agent.locator(".state").inner_text() == "UP"
    agent.click()
    assert browsed.text("#charts-title") == "Agent cart-pole"
    assert page.locator(".chart output").all_inner_texts() == ["108 · 50", "2.5", "4", "1"]
    assert "feagi-io" in browsed.text("#agent-list dl")
    served.send(state(9, agents=[]))
    browsed.until("document.querySelectorAll('#agent-list li').length === 0")
    assert browsed.text("#charts-title") == "Streams"


def test_what_the_server_does_not_know_is_a_dash(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=1000)
    served.send(state(0))
    browsed.until("document.querySelectorAll('#agent-list li').length === 1")
    browsed.picture("first-state")
    unknown = dict.fromkeys(("rate_hz", "delivered", "dropped", "queue", "p50_ms", "p99_ms"))
    agent = {"id": "a1" * 48, "name": None, "state": None, "sensory_hz": None}
    streams = {"sensory": unknown, "motor": unknown}
    served.send(state(1, streams=streams, agents=[agent], bursts=None, burst_hz=None))
    browsed.until(f"document.getElementById('fact-bursts').textContent === '{DASH}'")
    assert browsed.page.locator("#stream-table td").all_inner_texts() == [DASH] * 15
    assert browsed.text(".second .rates") == f"{DASH} in · {DASH} out"
    assert browsed.figures["faults"] == 0


def test_cart_and_pole_are_drawn(browse: Browse, served: ServedPage) -> None:
    browsed = browse(width=1000)
    page = browsed.page
    assert page.is_hidden("#world")
    paint = "() => document.getElementById('world-canvas').toDataURL()"
    world = {"type": "world", "kind": "cart_pole", "track_m": 2.4, "fell": False}
    seen = set()
    for angle in (0.0, 0.3, -0.3):
        served.send({**world, "angle_rad": angle, "position_m": 2 * angle})
        degrees = f"{abs(angle) * 57.2958:.1f}°"
        browsed.until(f"document.getElementById('world-angle').textContent.endsWith('{degrees}')")
        page.wait_for_function(f"([seen]) => !seen.includes(({paint})())", arg=[list(seen)])
        seen.add(page.evaluate(paint))
    assert browsed.text("#world-state") == "held"
    served.send({**world, "angle_rad": 1.5, "position_m": 2.4, "fell": True})
    browsed.until("document.getElementById('world-state').textContent === 'fell'")
    browsed.picture("world")


def test_keys(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    page = browsed.page
    served.areas((CUBE, "Cube", "core", (10, 10, 10)))
    served.until_shown(served.show(mapped_bytes(), 4))
    page.keyboard.press("?")
    assert page.is_visible("#help")
    assert "hold this picture" in browsed.text("#keys")
    browsed.picture("help")
    page.keyboard.press("Escape")
    assert page.is_hidden("#help")
    for key in ("ArrowLeft", "ArrowUp", "+", "Shift+ArrowRight"):
        before = browsed.place(CUBE, 0, 0, 0)
        page.keyboard.press(key)
        assert browsed.place(CUBE, 0, 0, 0) != before, key
    page.keyboard.press(" ")
    assert page.is_visible("#view-paused")
    held = served.show(VECTORS["v02"].data, 0)
    served.send({"type": "pause-check"})  # a message is answered while the picture stands
    browsed.until("f.faults === 1")
    assert browsed.figures["live"] == 4
    page.keyboard.press(" ")
    served.until_shown(held)
    assert browsed.figures["live"] == 0
    served.send(state(0, paused=False))
    browsed.until("document.getElementById('brain-step').disabled")
    page.keyboard.press("b")
    assert served.until_received("pause") == {"type": "pause"}
    served.send(state(1, paused=True))
    browsed.until("!document.getElementById('brain-paused').hidden")
    page.keyboard.press("n")
    assert served.until_received("step") == {"type": "step"}
    page.get_by_role("button", name="resume the brain").click()
    assert served.until_received("resume") == {"type": "resume"}
    served.send({"type": "refused", "what": "pause", "why": "started without --control"})
    browsed.until("document.getElementById('log').textContent.includes('without --control')")


def mapped_bytes() -> bytes:
    """Four voxels of one area as a container."""
    from feagi_io_host.core.container import FeagiByteContainer

    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(mapped(1, 4), 1)
    return container.copy_out_as_byte_vector()


def test_without_control_the_brain_has_no_buttons(browse: Browse, served: ServedPage) -> None:
    served.control = False
    browsed = browse()
    page = browsed.page
    assert page.is_hidden("#brain-pause")
    assert page.is_hidden("#brain-step")
    page.keyboard.press("b")
    served.until_shown(served.show(VECTORS["v02"].data, 0))
    assert {message["type"] for message in served.received} == {"shown"}


def test_the_picture_can_be_saved(browse: Browse, served: ServedPage) -> None:
    browsed = browse()
    served.until_shown(served.show(VECTORS["v11"].data, 3))
    with browsed.page.expect_download() as waited:
        browsed.page.keyboard.press("s")
    path = waited.value.path()
    assert waited.value.suggested_filename.endswith(".png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 1000
