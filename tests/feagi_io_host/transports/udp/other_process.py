# SPDX-License-Identifier: Apache-2.0
"""One end of a UDP stream in a process of its own, to be stopped and killed.

python other_process.py viewer URL      prints the counter of each frame that it gets
python other_process.py server          prints the URL of a visualization stream, then publishes
"""

from __future__ import annotations

import select
import sys
import time

from feagi_io_host.core.types import StreamType
from feagi_io_host.transports.udp import udp_stream_end
from tests.feagi_io_host.transports.udp.far import VIEW, Running, counter_of


def tell(text: object) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def view(url: str) -> None:
    end = udp_stream_end(url, StreamType.VISUALIZATION, max_frame_bytes=1 << 20)
    while True:
        data = end.take()
        if data is not None:
            tell(counter_of(data))
            continue
        end.tend(time.monotonic())
        select.select([end], [], [], 0.02)


def serve() -> None:
    running = Running()
    tell(running.admit(VIEW).endpoints[VIEW])
    counter = 0
    while True:
        counter += 1
        running.show(counter % 65536)
        time.sleep(0.005)


if __name__ == "__main__":
    if sys.argv[1] == "viewer":
        view(sys.argv[2])
    else:
        serve()
