# SPDX-License-Identifier: Apache-2.0
"""What tests do with the page: wait for what it holds, and look at what it painted."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.tools.viewer.served import DEADLINE_S

if TYPE_CHECKING:
    from playwright.sync_api import Page

Point = tuple[float, float]
Colour = tuple[int, int, int]

_VIOLATIONS = """
  globalThis.violations = [];
  addEventListener('securitypolicyviolation', event =>
    violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""
# In a page without a policy: a picture's colours at points.
_COLOURS = """async ([data, points]) => {
  const bytes = Uint8Array.from(atob(data), one => one.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], {type: 'image/png'}));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext('2d');
  context.drawImage(bitmap, 0, 0);
  return points.map(([x, y]) => [...context.getImageData(Math.round(x), Math.round(y), 1, 1).data]);
}"""


class Browsed:
    """One page at one server."""

    def __init__(self, page: Page, pictures: Path) -> None:
        self.page = page
        self._pictures = pictures
        self._blank = page.context.new_page()
        self.errors: list[str] = []
        self.expected: list[str] = []  # parts of errors that a test provokes
        page.set_default_timeout(1000 * DEADLINE_S)
        page.on("pageerror", lambda error: self.errors.append(f"uncaught: {error}"))
        page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )
        page.add_init_script(_VIOLATIONS)

    def open(self, url: str, width: int, height: int, scheme: str) -> None:
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        self.page.bring_to_front()  # a page in the background draws nothing
        self.page.goto(url)

    def until_live(self) -> None:
        """Wait until the server has welcomed the page."""
        self.until("document.getElementById('status').dataset.state === 'live'")

    def check_clean(self) -> None:
        unexpected = [
            error for error in self.errors if not any(part in error for part in self.expected)
        ]
        assert not unexpected
        assert self.page.evaluate("violations") == []

    def until(self, condition: str) -> None:
        """Wait for a JavaScript expression to be true; `f` is `feagiViewer.figures`."""
        self.page.wait_for_function(
            f"() => {{ const f = feagiViewer.figures; return {condition}; }}"
        )

    @property
    def figures(self) -> dict[str, Any]:
        figures: dict[str, Any] = self.page.evaluate("feagiViewer.figures")
        return figures

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def still(self) -> None:
        """Wait until nothing fades any more and the picture stands."""
        self.until("f.slots === f.live")
        self.page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def place(self, area: bytes, x: int, y: int, z: int) -> Point:
        """Where a cell is on the page, in CSS pixels."""
        point = self.page.evaluate(
            "([id, ...at]) => feagiViewer.project(id, ...at)", [area.hex(), x, y, z]
        )
        assert point is not None
        return point["x"], point["y"]

    def picture(self, name: str) -> bytes:
        """The page as it stands, kept as an artefact of this name."""
        # Playwright would write the file in a thread that stays.
        data = self.page.screenshot()
        (self._pictures / f"{name}.png").write_bytes(data)
        return data

    def colours(self, name: str, points: Sequence[Point]) -> list[Colour]:
        """The colours at points of the page."""
        data = base64.b64encode(self.picture(name)).decode()
        found = self._blank.evaluate(_COLOURS, [data, [list(point) for point in points]])
        return [(red, green, blue) for red, green, blue, _ in found]
