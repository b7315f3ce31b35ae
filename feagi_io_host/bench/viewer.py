# SPDX-License-Identifier: Apache-2.0
"""Viewer benchmark: how many pictures a second a browser of this machine draws, and how old they
are.

A brain emits 30 bursts a second of which no neuron is that of the burst before, the hardest there
is for the page. The reference is the same page with nothing to draw, which has the browser's own
rate. The page asks for fewer voxels until it draws 30 pictures a second; the note tells what it
left out.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from feagi_io_host.bench.browser import Browser
from feagi_io_host.bench.runner import Row
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import RemoteError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_io_host.viewer import KnownArea, ViewerServer
from feagi_io_host.viewer.figures import UNKNOWN

SIZES: Final = (1_000, 20_000, 200_000)
BURSTS_HZ: Final = 30.0
REFERENCE: Final = "the page at rest"
LIMIT: Final = "30 pictures a second"

_AREA: Final = CorticalID(b"cbench\x00\x00")
_SIDE: Final = 100
_FRAMES: Final = 8
_LOOK_S: Final = 0.25
_DEADLINE_S: Final = 30.0
# A screen of 60 Hz that misses every second picture has exactly 30 of them.
_LEAST_HZ: Final = 29.0

_READY: Final = "globalThis.feagiViewer?.figures !== undefined && document.querySelector('#status')"
_AT_REST: Final = """new Promise(done => {
  const times = [];
  const look = () => {
    times.push(performance.now());
    if (times.length < 60) requestAnimationFrame(look);
    else done((times.at(-1) - times[0]) / 59000);
  };
  requestAnimationFrame(look);
})"""
_RENDERER: Final = """(() => {
  const gl = document.createElement('canvas').getContext('webgl2');
  const told = gl?.getExtension('WEBGL_debug_renderer_info');
  return told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : 'unknown';
})()"""


class _Source:
    """A ViewerSource that knows nothing but its one area."""

    title = "bench"
    name = "bench"

    def burst_hz(self) -> float | None:
        return BURSTS_HZ

    def areas(self) -> Iterable[KnownArea]:
        return ()

    def state(self) -> dict[str, Any]:
        return {"at_ms": time.time() * 1000, **UNKNOWN}

    def world(self) -> dict[str, Any] | None:
        return None


def run(
    quick: bool = False,
    browser: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[Row]:
    """A row for each of SIZES; `ours_s` is the time from picture to picture.

    `browser` is the program to use, in `environment`. Raises MissingPartError where there is none.
    """
    settle_s, measure_s = (0.5, 0.5) if quick else (8.0, 6.0)
    rows = []
    with ViewerServer(_Source()) as viewer, Browser(viewer.url, browser, environment) as page:
        _wait_until_live(page)
        rest_s = float(page.evaluate(_AT_REST))
        renderer = str(page.evaluate(_RENDERER))
        for size in SIZES:
            with _firing(viewer, size):
                time.sleep(settle_s)
                looks = _looked(page, measure_s)
            rows.append(_row(size, looks, measure_s, rest_s, renderer))
    return rows


def _wait_until_live(page: Browser) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline_s:
        # Before the page is loaded there is nothing that could be asked.
        with contextlib.suppress(RemoteError):
            if page.evaluate(f"({_READY})?.dataset?.state") == "live":
                return
        time.sleep(_LOOK_S / 10)
    raise RemoteError(f"the page is not there after {_DEADLINE_S:g} s")


def _burst(size: int, seed: int) -> SharedFBC:
    """So many neurons at random in a cube of 100 x 100 x 100."""
    chance = np.random.default_rng(seed)
    place = chance.choice(_SIDE**3, size, replace=False).astype(np.uint32)
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(
        place % _SIDE,
        place // _SIDE % _SIDE,
        place // _SIDE**2,
        chance.random(size, np.float32),
    )
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(
        CorticalMappedXYZPNeuronVoxels({_AREA: arrays}), 0
    )
    return SharedFBC.adopt(container)


@contextlib.contextmanager
def _firing(viewer: ViewerServer, size: int) -> Iterator[None]:
    """Bursts come on a fixed grid from a thread of their own."""
    frames = [_burst(size, seed) for seed in range(_FRAMES)]
    stopping = threading.Event()

    def emit() -> None:
        number = 0
        next_s = time.monotonic()
        while not stopping.wait(max(0.0, next_s - time.monotonic())):
            viewer.show_frame(frames[number % _FRAMES])
            number += 1
            next_s += 1 / BURSTS_HZ

    thread = threading.Thread(target=emit, name="feagi-io-bench-viewer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        for frame in frames:
            frame.release()


def _looked(page: Browser, seconds: float) -> list[dict[str, Any]]:
    """What the page says of itself, four times a second."""
    looks: list[dict[str, Any]] = []
    end_s = time.monotonic() + seconds
    while not looks or time.monotonic() < end_s:
        looks.append(page.evaluate("feagiViewer.figures"))
        time.sleep(_LOOK_S)
    looks.append(page.evaluate("feagiViewer.figures"))
    return looks


def _row(
    size: int,
    looks: Sequence[Mapping[str, Any]],
    measure_s: float,
    rest_s: float,
    renderer: str,
) -> Row:
    rate_hz = statistics.median(look["rate"] for look in looks)
    latencies = [look["latencyMs"] for look in looks if look["latencyMs"] is not None]
    picture_s = 1 / max(1.0, rate_hz)
    shown_hz = (looks[-1]["frames"] - looks[0]["frames"]) / measure_s
    latency = f"{statistics.median(latencies):.0f} ms" if latencies else "unknown"
    drawn = round(statistics.median(look["live"] for look in looks))
    note = (
        f"{rate_hz:.0f} pictures and {shown_hz:.0f} bursts a second, emit to pixel p50 {latency}, "
        f"{drawn:,} of {size:,} voxels drawn; {renderer}"
    )
    return Row(
        f"viewer, {size:,} neurons",
        picture_s,
        REFERENCE,
        rest_s,
        picture_s / rest_s,
        LIMIT,
        rate_hz >= _LEAST_HZ,
        note,
    )
