# SPDX-License-Identifier: Apache-2.0
"""The example page with its streams over WebRTC, in a real Chromium, where there is no network.

Browser and server are in a network namespace that has nothing but loopback. There a browser finds
no address of its own that it would tell; the flag and the permission below have it use loopback. On
a machine with a network it needs neither.
"""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from feagi_io_host.bench.lines import encode
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.datagram import Check, Seal
from feagi_io_host.core.fragment import Fragmenter, FragmentSettings, Oversize
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.reassembly import Reassembler
from feagi_io_host.core.types import StreamType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from tests.feagi_io_host.transports.webrtc.peer import DEADLINE_S, ServedInThreads
from tests.interop.test_browser_agent import EXAMPLES, MOTOR, Quiet, until
from tools.browser import Chromium
from tools.engine import EngineUnavailableError, NetworkNamespace

if TYPE_CHECKING:
    from playwright.sync_api import Page

BURST = 200_000
LOOPBACK = "--allow-loopback-in-peer-connection"
# In the page: a viewer that says what it was shown third, and what it was not.
VIEWER = """async url => {
  const {VIEW} = await import("./browser_agent.mjs");
  const {PeerAgent} = await import("./browser_webrtc.mjs");
  const viewer = new PeerAgent(url, {name: "viewer", capabilities: [VIEW]});
  let count = 0;
  const shown = new Promise(resolve => {
    viewer.onVisualization = areas => { if (++count === 3) resolve(areas); };
  });
  await viewer.connect();
  const [area] = await shown;
  viewer.close();
  const {lost, damaged} = viewer.parts[VIEW];
  return [area.x.length, area.x[0], area.p[area.p.length - 1], lost, damaged];
}"""
CUT = """async ([frame, share]) => {
  const {cut} = await import("./browser_webrtc.mjs");
  return cut(Uint8Array.from(frame), 1, 7, share).map(part => Array.from(part));
}"""
GATHER = """async datagrams => {
  const {Parts} = await import("./browser_webrtc.mjs");
  const parts = new Parts();
  const whole = datagrams.map(bytes => parts.take(Uint8Array.from(bytes).buffer)).filter(Boolean);
  return [whole.map(frame => Array.from(frame)), parts.damaged, parts.lost];
}"""

pytestmark = pytest.mark.slow


@pytest.fixture
def nowhere() -> Iterator[None]:
    """A network of the test's own, without anything but loopback."""
    try:
        network = NetworkNamespace()
    except EngineUnavailableError as error:
        pytest.skip(str(error))
    try:
        with network.entered():
            yield
    finally:
        network.close()


@pytest.fixture
def site(nowhere: None) -> Iterator[str]:
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
def served(site: str) -> Iterator[ServedInThreads]:
    """A server that lets pages of the examples in. Before `page`, which keeps a loop running."""
    with ServedInThreads(settings={"origins": (site,)}) as server:
        yield server


@pytest.fixture
def page(served: ServedInThreads, chromium: Chromium) -> Iterator[Page]:
    """A page in a browser in the namespace."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.path,
            env={**chromium.environment},
            args=[*chromium.flags, LOOPBACK],
        )
        try:
            yield browser.new_context(permissions=["microphone"]).new_page()
        finally:
            browser.close()


def test_the_page_senses_and_is_moved(served: ServedInThreads, site: str, page: Page) -> None:
    page.goto(f"{site}/browser_webrtc.html?{quote(served.url, safe='')}")
    state, wheels = page.locator("#state"), page.locator("#wheels")
    until(page, lambda: state.text_content() != "connecting")
    assert state.text_content() == "registered"
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
    assert served.counted()["connections"] == 1
    session.close("the brain has enough of it")
    until(page, lambda: "lost" in (state.text_content() or ""))
    until(page, lambda: served.counted()["connections"] == 0)


def test_bursts_of_200_000_neurons_reach_the_page_whole(
    served: ServedInThreads, site: str, page: Page
) -> None:
    page.goto(f"{site}/browser_webrtc.html?none")
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
            assert page.evaluate(VIEWER, served.url) == [BURST, 1, 1, 0, 0]
        finally:
            stop.set()
            brain.join()


def test_the_page_cuts_and_gathers_as_the_library_does(
    served: ServedInThreads, site: str, page: Page
) -> None:
    page.goto(f"{site}/browser_webrtc.html?none")
    frame = bytes(range(256)) * 5
    reassembler = Reassembler(seal=Seal(Check.NONE))
    whole = [
        bytes(burst.data)
        for part in page.evaluate(CUT, [list(frame), 640])
        for burst in reassembler.receive(bytes(part), 0.0)
    ]
    assert whole == [frame]
    fragmenter = Fragmenter(7, FragmentSettings(640 + 32, Oversize.FRAGMENT), seal=Seal(Check.NONE))

    def parts() -> list[list[int]]:
        burst = fragmenter.fragment(StreamType.VISUALIZATION, frame)
        assert burst is not None
        return [list(b"".join(part)) for part in burst.datagrams()]

    first, second, third = parts(), parts(), parts()
    # The first is whole, of the second something is missing, the third comes in another order;
    # the rest is late, doubled, cut off or nonsense.
    sent = [*first, second[1], *reversed(third), second[0], third[0], third[1][:-1], [1, 2, 3]]
    assert page.evaluate(GATHER, sent) == [[list(frame)] * 2, 2, 1]
