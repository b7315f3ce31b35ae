# SPDX-License-Identifier: Apache-2.0
"""A PNS in a process of its own that shows and moves without a pause, until somebody kills it.

Its settings are JSON, the first argument. It prints the URL where agents register.
"""

from __future__ import annotations

import itertools
import json
import sys
import time

from feagi_io_host.core.config import PNSConfig
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.create import create_pns_with_config

LIFETIME_S = 60.0


def run(settings: str) -> None:
    """Be a server."""
    until_s = time.monotonic() + LIFETIME_S  # whatever becomes of the test
    with create_pns_with_config(PNSConfig.from_sources(arguments=json.loads(settings))) as pns:
        (url,) = [row["control_url"] for row in pns.endpoints if row["control_url"]]
        print(url, flush=True)
        for counter in itertools.count():
            if time.monotonic() > until_s:
                return
            container = FeagiByteContainer.new_empty()
            container.set_increment_counter_state(counter % 60_000)
            with SharedFBC.adopt(container) as fbc:
                pns.publish_visualization(fbc)
                pns.publish_motor(None, fbc)
            time.sleep(0.005)


if __name__ == "__main__":
    run(sys.argv[1])
