# SPDX-License-Identifier: Apache-2.0
"""An agent in a process of its own: sends each motor frame back as sensory data."""

from __future__ import annotations

import json
import sys

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.transports.shm import ShmAgent


def main(endpoints: str) -> None:
    """`endpoints` is JSON: URLs by the names of capabilities."""
    urls = {AgentCapabilities[name]: url for name, url in json.loads(endpoints).items()}
    with ShmAgent(urls) as agent:
        print("ready", flush=True)
        try:
            while True:
                fbc = agent.receive_motor()
                assert fbc is not None
                with fbc:
                    agent.send_sensory(fbc)
        except ClosedError as error:
            print(error, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
