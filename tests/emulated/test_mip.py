# SPDX-License-Identifier: Apache-2.0
"""The packages reach a board by mpremote alone: mip from a path and from a URL, and a plain copy.

Sources are compiled on the board, with the heap that a Pico has.
"""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.micropython import ROOT
from tools.emulation import Cortex

pytestmark = [pytest.mark.micropython, pytest.mark.slow]

# The agent's own way in, and the codec checks itself by a round trip.
USE = (
    "import gc, sys\n"
    "from feagi_io_mcu import Agent, UartDriver\n"
    "import feagi_wire.container as c\n"
    "agent = Agent(UartDriver(1), 'copied')\n"
    "agent.sensor('iinf'); agent.start()\n"
    "agent.step()\n"
    "print(c.__file__, agent.connected)"
)
COPY_S = 100


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files, without a line for each on standard error."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    """This tree, served on loopback."""
    handler = functools.partial(Quiet, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_mip_installs_from_a_path_and_from_a_url(cortex_m3: Path, url: str) -> None:
    with Cortex(firmware=cortex_m3) as board:
        board.mpremote("mip", "install", f"{url}/shared/feagi_wire/package.json", timeout_s=COPY_S)
        local = ROOT / "feagi_io_mcu" / "package.json"
        board.mpremote("mip", "install", str(local), timeout_s=COPY_S)
        said = board.mpremote("exec", USE)
    assert said.split() == ["/lib/feagi_wire/container.py", "False"]


def test_a_plain_copy_of_the_source_tree_runs(cortex_m3: Path) -> None:
    with Cortex(firmware=cortex_m3) as board:
        folders = [str(ROOT / "shared/feagi_wire"), str(ROOT / "feagi_io_mcu")]
        board.mpremote("cp", "-r", *folders, ":", timeout_s=COPY_S)
        said = board.mpremote("exec", USE)
    assert said.split() == ["feagi_wire/container.py", "False"]
