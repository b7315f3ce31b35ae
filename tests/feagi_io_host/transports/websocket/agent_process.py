# SPDX-License-Identifier: Apache-2.0
"""An agent in a process of its own: says "in" when it is, then the counter of each motor frame.

Arguments: the URL, and what it asks for its streams over, if not WebSocket.
"""

from __future__ import annotations

import sys
import time

from feagi_io_host.agent import FeagiAgent
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.client_actions import ClientTiming
from feagi_io_host.core.messages import ConnectionProtocol
from feagi_io_host.core.types import AgentDescriptor

LIFETIME_S = 60.0


def run(url: str, over: str | None = None) -> None:
    """Be an agent."""
    until_s = time.monotonic() + LIFETIME_S  # whatever becomes of the test
    capabilities = (
        AgentCapabilities.RECEIVE_MOTOR_DATA | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
    )
    timing = ClientTiming(backoff_first_s=0.02, backoff_limit_s=0.1)
    descriptor = AgentDescriptor("feagi-io test", "other process", 1)
    asked = None if over is None else ConnectionProtocol(over)
    with FeagiAgent(descriptor, capabilities, url, timing=timing, streams_over=asked) as agent:
        agent.on_state_change(lambda change: print(change.after.name, flush=True))
        print("in", flush=True)
        while time.monotonic() < until_s:
            frame = agent.receive_motor(0.1)
            if frame is not None:
                print(frame.get_increment_counter(), flush=True)


if __name__ == "__main__":
    run(*sys.argv[1:])
