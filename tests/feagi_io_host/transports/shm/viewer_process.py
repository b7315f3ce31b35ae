# SPDX-License-Identifier: Apache-2.0
"""A viewer in a process of its own, and a host whose shared memory is full."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports.shm import ShmAgent, ShmTransport


def view(url: str) -> None:
    """Print the increment counter of each visualization frame that comes."""
    with ShmAgent({AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: url}) as agent:
        print("ready", flush=True)
        try:
            while True:
                fbc = agent.receive_visualization()
                assert fbc is not None
                with fbc:
                    print(fbc.container.get_increment_counter(), flush=True)
        except ClosedError as error:
            print(error, flush=True)


def fill(folder: str) -> None:
    """Publish in a file system that is too small, and again when there is room; prints what
    happened to each frame."""
    filler = Path(folder, "filler")
    filler.write_bytes(bytes(1_200_000))
    host = StandInHost()
    with ShmTransport(host, max_frame_bytes=600_000) as transport:
        invitation = transport.admit(
            AgentDescriptor("feagi-io test", "viewer", 1),
            AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS,
        )
        (session,) = host.sessions
        counters = session.counters[StreamType.VISUALIZATION]
        with ShmAgent(invitation.endpoints) as agent:
            for number in range(1, 5):
                if number == 3:
                    filler.unlink()
                container = FeagiByteContainer.new_empty()
                text = FeagiJSON("x" * 500_000)
                container.overwrite_byte_data_with_single_struct_data(text, number)
                before = counters.dropped
                with SharedFBC.adopt(container) as fbc:
                    transport.publish_visualization(fbc)
                got = None
                deadline_s = time.monotonic() + 10.0
                while got is None and counters.dropped == before:
                    assert time.monotonic() < deadline_s
                    got = agent.receive_visualization(0.01)
                if got is None:
                    print(number, "no memory", flush=True)
                else:
                    with got:
                        print(number, got.container.get_increment_counter(), flush=True)
    print(sorted(os.listdir(folder)), flush=True)


if __name__ == "__main__":
    {"view": view, "fill": fill}[sys.argv[1]](*sys.argv[2:])
