# SPDX-License-Identifier: Apache-2.0
"""The example page in a real Chromium at our server: an agent that senses and is moved."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from feagi_io_host.bench.lines import encode
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S, Served

if TYPE_CHECKING:
    from playwright.sync_api import Page

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
MOTOR = Path(__file__).parent.parent / "vectors" / "valid" / "v38_cap_motor_one_neuron.bin"
BURST = 200_000
# In the page: a viewer that says what it was shown first.
VIEWER = """async url => {
  const {Agent, VIEW} = await import("./browser_agent.mjs");
  const viewer = new Agent(url, {name: "viewer", capabilities: [VIEW]});
  const shown = new Promise(resolve => { viewer.onVisualization = resolve; });
  await viewer.connect();
  const [area] = await shown;
  viewer.close();
  return [area.x.length, area.x[0], area.p[area.p.length - 1]];
}"""

pytestmark = pytest.mark.slow


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """The examples, served to browsers."""
    handler = functools.partial(Quiet, directory=str(EXAMPLES))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def served(site: str) -> Iterator[Served]:
    """A server that lets pages of the examples in. Before `page`, which keeps a loop running."""
    with Served(settings={"origins": (site,)}) as server:
        yield server


def until(page: Page, condition: Callable[[], bool]) -> None:
    for _ in range(int(DEADLINE_S * 100)):
        if condition():
            return
        page.wait_for_timeout(10)
    raise AssertionError("it did not come about")


def address(site: str, served: Served) -> str:
    return f"{site}/browser_agent.html?{quote(served.url, safe='')}"


def test_the_page_senses_and_is_moved(served: Served, site: str, page: Page) -> None:
    page.goto(address(site, served))
    state, wheels = page.locator("#state"), page.locator("#wheels")
    until(page, lambda: state.text_content() == "registered")
    (session,) = served.host.sessions
    assert session.descriptor.agent_name == "page"
    page.locator("#light").fill("5")

    def sees_the_light() -> bool:
        data = served.host.take_sensory(session.agent_id, DEADLINE_S)
        assert data is not None
        with SharedFBC.from_bytes(data) as fbc:
            struct = fbc.container.try_create_new_struct_from_index(0)
            assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
            ((area, arrays),) = struct
            assert area.as_bytes() == b"iinf\x01\x00\x00\x00"
            return bool(arrays.borrow_xyzp_vectors()[2][0] == 5)

    until(page, sees_the_light)
    with SharedFBC.from_bytes(MOTOR.read_bytes()) as fbc:
        served.handle.publish_motor(session.agent_id, fbc)
    until(page, lambda: wheels.text_content() == "0 at 6")
    session.close("the brain has enough of it")
    until(page, lambda: "1001" in (state.text_content() or ""))


def test_a_burst_of_200_000_neurons_reaches_the_page(served: Served, site: str, page: Page) -> None:
    page.goto(f"{site}/browser_agent.html?none")
    container = FeagiByteContainer.new_empty()
    encode(container, BURST, 1)
    stop = threading.Event()
    with SharedFBC.adopt(container) as burst:

        def show() -> None:
            while not stop.wait(0.02):
                served.handle.publish_visualization(burst)

        brain = threading.Thread(target=show)
        brain.start()
        try:
            assert page.evaluate(VIEWER, served.url) == [BURST, 1, 1]
        finally:
            stop.set()
            brain.join()


def test_a_page_of_another_origin_is_kept_out(served: Served, site: str, page: Page) -> None:
    page.goto(address(site.replace("localhost", "127.0.0.1"), served))
    state = page.locator("#state")
    until(page, lambda: "no connection" in (state.text_content() or ""))
    assert served.host.came == []
    assert served.transport.counters()["bad_origins"] == 1
