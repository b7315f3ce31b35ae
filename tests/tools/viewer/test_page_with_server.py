# SPDX-License-Identifier: Apache-2.0
"""The page at the real server: the demonstration's brain, and 200,000 neurons."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from feagi_io_host.viewer import ViewerServer
from tests.feagi_io_host.viewer.bursts import big_frame
from tests.feagi_io_host.viewer.live import Told
from tests.tools.viewer.browsed import Browsed

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

FEAGI_IO = [sys.executable, "-c", "from feagi_io_host.cli import main; main()"]
FIRED = 200_000
# Waits for a picture; true when the newest burst is in it, with no more than the page asked for.
PICTURE = """() => new Promise(done => requestAnimationFrame(() => {
  const { fired, live, maxVoxels } = feagiViewer.figures;
  done(fired === 200000 && maxVoxels !== null && live > 0 && live <= maxVoxels);
}))"""


@pytest.fixture
def demo(require: Callable[[str], Any]) -> Iterator[str]:
    """The URL of a running `feagi-io demo --view --control`."""
    require("micropython_unix")
    command = [*FEAGI_IO, "demo", "--view", "--control", "--seconds", "90"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = (re.search(r"http://\S+#token=\S+", line) for line in process.stdout)
            yield next(found.group() for found in lines if found is not None)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


@pytest.mark.micropython
def test_the_demonstration_and_the_brain_that_holds_the_pole(
    demo: str, page: Page, pictures: Path
) -> None:
    browsed = Browsed(page, pictures)
    browsed.open(demo, 1280, 760, "dark")
    browsed.until_live()
    said = "document.getElementById('{}').textContent"
    browsed.until(f"{said.format('world-state')} === 'held'")
    browsed.until("Object.values(f.areas).join() === '4,1'")  # four sensors hold one motor
    names = page.locator("#area-list .name").all_inner_texts()
    assert names == ["AnalogGPIO 0", "RotaryMotor 0"]
    browsed.until("document.querySelector('#agent-list .state')?.textContent === 'UP'")
    browsed.until("document.querySelector('#stream-motor td').textContent !== '0'")
    page.get_by_role("button", name="cart-pole").click()
    assert browsed.text("#charts-title") == "Agent cart-pole"
    page.get_by_role("button", name="all streams").click()
    assert 0 < browsed.figures["latencyMs"] < 2000
    assert browsed.figures["rate"] > 0
    browsed.picture("demo")

    page.keyboard.press("b")
    browsed.until("!document.getElementById('brain-paused').hidden")
    # The state that says so counts the last burst: from here on there are only steps.
    before = int(browsed.text("#fact-bursts").replace(",", ""))
    page.keyboard.press("n")
    browsed.until(f"{said.format('fact-bursts')} === '{before + 1:,}'")
    page.keyboard.press("b")
    browsed.until("document.getElementById('brain-paused').hidden")
    browsed.until(f"Number({said.format('fact-bursts')}.replaceAll(',', '')) > {before + 20}")
    assert browsed.figures["faults"] == 0
    browsed.check_clean()


@pytest.fixture
def viewer() -> Iterator[ViewerServer]:
    with ViewerServer(Told()) as running:
        yield running


def test_200_000_neurons_and_a_server_that_comes_back(
    viewer: ViewerServer, page: Page, pictures: Path
) -> None:
    browsed = Browsed(page, pictures)
    browsed.open(viewer.url, 640, 520, "dark")
    browsed.until_live()
    frames = [big_frame(FIRED, seed) for seed in range(4)]
    try:
        thinned = False
        for number in range(400):
            viewer.show_frame(frames[number % 4])
            # One picture later: the page is never without work.
            thinned = page.evaluate(PICTURE)
            if thinned:
                break
        assert thinned
        # What it says follows four times a second.
        browsed.until(
            "document.getElementById('thinned').textContent === "
            "`${f.live.toLocaleString('en-US')} of 200,000 voxels drawn`"
        )
        browsed.picture("server-200k")
        browsed.expected.append("ERR_CONNECTION_REFUSED")
        port, token = re.findall(r":(\d+)/#token=(.+)", viewer.url)[0]
        viewer.stop()
        browsed.until("document.getElementById('status').dataset.state === 'waiting'")
        with ViewerServer(Told(), port=int(port), token=token) as another:
            browsed.until_live()
            assert browsed.figures["live"] == 0
            another.show_frame(frames[1])
            browsed.until("f.live > 0")
    finally:
        for frame in frames:
            frame.release()
    assert browsed.figures["faults"] == 0
    browsed.check_clean()
