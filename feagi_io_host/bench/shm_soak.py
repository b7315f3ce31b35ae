# SPDX-License-Identifier: Apache-2.0
"""Shared-memory soak: 200,000 neurons a burst, 100 bursts a second, from a PNS to an agent.

    python -m feagi_io_host.bench.shm_soak URL BURSTS      the agent's process, started by `soak`

Latency runs from the frame in the brain's hands (`publish_visualization` is about to be called) to
its numpy arrays in the agent's, on the monotonic clock that all processes of a machine share. A
burst that a newer one overtook anywhere on the way counts as lost. A brain that was held up goes on
at its pace and makes up for nothing: bursts are 5 ms apart at least, and the rate is reported.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from typing import Any, Final, Literal

import numpy as np

from feagi_io_host.bench.runner import Row
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.pns import PNS
from feagi_io_host.transports.shm.agent import ShmAgent
from feagi_io_host.transports.shm.blocking_impl import ShmInvitation, ShmTransport
from feagi_io_host.transports.shm.names import why_unavailable
from feagi_io_host.transports.shm.nonblocking_impl import AsyncShmTransport

NEURONS: Final = 200_000
BURSTS_PER_S: Final = 100
SECONDS: Final = 30.0
MAX_P99_S: Final = 0.01
LIMIT: Final = "0 lost, p99 < 10 ms"

_VIEWER: Final = AgentDescriptor("feagi-io bench", "viewer", 1)
_VISUALIZATION: Final = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
_PERIOD_S: Final = 1.0 / BURSTS_PER_S
_START_S: Final = 10.0
_SILENCE_S: Final = 2.0  # so long without a frame ends the agent
_COUNTERS: Final = 1 << 16  # the increment counter of a container has 16 bits


def soak(
    seconds: float = SECONDS,
    neurons: int = NEURONS,
    paradigm: Literal["blocking", "nonblocking"] = "blocking",
) -> Row:
    """Publish for so long; one row, its time the 99th percentile of the latencies.

    A row that says why where there is no shared memory.
    """
    reason = why_unavailable()
    if reason is not None:
        return Row("SHM soak", None, reason, None, None, LIMIT, None)
    bursts = min(max(1, round(seconds * BURSTS_PER_S)), _COUNTERS)
    pns = PNS()
    runtime = Runtime()
    try:
        transport = pns.add_transport("shm", paradigm=paradigm).transport
        pns.start()
        invitation = _admit(transport, pns, runtime)
        emitted_s, busy, told = _run(pns, invitation.endpoints[_VISUALIZATION], bursts, neurons)
    finally:
        pns.stop()
        runtime.close()
    return _row(bursts, neurons, paradigm, emitted_s, busy, told)


def _admit(transport: object, pns: PNS, runtime: Runtime) -> ShmInvitation:
    if isinstance(transport, ShmTransport):
        return transport.admit(_VIEWER, _VISUALIZATION)
    assert isinstance(transport, AsyncShmTransport)
    return runtime.call(transport.admit(_VIEWER, _VISUALIZATION), _START_S)


def _run(
    pns: PNS, url: str, bursts: int, neurons: int
) -> tuple[list[float], float, dict[str, Any]]:
    """When each burst was emitted, how busy this process was, and what the agent says."""
    agent = subprocess.Popen(
        [sys.executable, "-m", "feagi_io_host.bench.shm_soak", url, str(bursts)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert agent.stdout is not None
        if not select.select([agent.stdout], [], [], _START_S)[0]:
            raise TimeoutError(f"agent's process not ready within {_START_S} s")
        agent.stdout.readline()
        emitted_s, cpu_s, began_s = _publish(pns, bursts, neurons)
        took_s = time.monotonic() - began_s
        output, _ = agent.communicate(timeout=_START_S + _SILENCE_S)
        return emitted_s, cpu_s / took_s, json.loads(output)
    finally:
        if agent.poll() is None:
            agent.kill()
        agent.communicate()


def _publish(pns: PNS, bursts: int, neurons: int) -> tuple[list[float], float, float]:
    """When each burst was emitted, the CPU time taken, and when it began."""
    frame = _frame(neurons)
    pool = BufferPool()
    emitted_s = []
    began_s, cpu_s = time.monotonic(), time.process_time()
    due_s = began_s
    for number in range(bursts):
        container = pool.acquire()
        container.try_write_data_by_copy_and_verify(frame)
        container.set_increment_counter_state(number)
        with pool.share(container) as fbc:
            time.sleep(max(0.0, due_s - time.monotonic()))
            emitted_s.append(time.monotonic())
            # Late by a little keeps the beat; late by more than a beat does not bunch bursts.
            due_s = max(due_s, emitted_s[-1] - _PERIOD_S / 2) + _PERIOD_S
            pns.publish_visualization(fbc)
    return emitted_s, time.process_time() - cpu_s, began_s


def _frame(neurons: int) -> bytes:
    random = np.random.default_rng(1)
    voxels = CorticalMappedXYZPNeuronVoxels()
    x, y, z = (random.integers(0, 1 << 16, neurons, np.uint32) for _ in range(3))
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(x, y, z, random.random(neurons, np.float32))
    voxels.insert(CorticalID(b"iinf\x01\x00\x00\x00"), arrays)
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(voxels, 0)
    return container.copy_out_as_byte_vector()


def _row(
    bursts: int,
    neurons: int,
    paradigm: str,
    emitted_s: list[float],
    busy: float,
    told: dict[str, Any],
) -> Row:
    latencies = [came_s - emitted_s[number] for number, came_s in told["arrived"]]
    lost = bursts - len(latencies)
    p50, p99, p99_9 = np.percentile(latencies, (50, 99, 99.9)) if latencies else (0.0, 0.0, 0.0)
    size = f"{neurons // 1000}K neurons"
    name = f"SHM soak, {size}, {BURSTS_PER_S} bursts/s, {bursts} bursts, {paradigm}"
    rate = (bursts - 1) / (emitted_s[-1] - emitted_s[0]) if bursts > 1 else 0.0
    note = (
        f"{rate:.1f} bursts/s, lost {lost} ({told['overtaken']} of them in the agent's ring), "
        f"p50 {p50 * 1e3:.2f} ms, p99.9 {p99_9 * 1e3:.2f} ms, "
        f"CPU {busy:.0%} + {told['busy']:.0%} of a core"
    )
    met = not lost and float(p99) < MAX_P99_S
    return Row(name, float(p99), "p99 alone", None, None, LIMIT, met, note)


def _receive(url: str, bursts: int) -> dict[str, Any]:
    """Receive until the last burst or silence: when each one came, and how busy that was."""
    arrived: list[tuple[int, float]] = []
    with ShmAgent({_VISUALIZATION: url}) as agent:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        began_s, cpu_s, waits_s = time.monotonic(), time.process_time(), _START_S
        try:
            while not arrived or arrived[-1][0] < bursts - 1:
                fbc = agent.receive_visualization(waits_s)
                if fbc is None:
                    break
                waits_s = _SILENCE_S
                with fbc:
                    voxels = fbc.container.try_create_new_struct_from_index(0)
                    assert isinstance(voxels, CorticalMappedXYZPNeuronVoxels)
                    for _, arrays in voxels:
                        arrays.borrow_xyzp_vectors()
                    arrived.append((fbc.container.get_increment_counter(), time.monotonic()))
                    del voxels, arrays  # they keep the slot
        except ClosedError:
            pass  # the PNS has ended; what came until then counts
        took_s = time.monotonic() - began_s
        busy = (time.process_time() - cpu_s) / took_s
        return {"arrived": arrived, "overtaken": agent.overtaken, "busy": busy}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_receive(sys.argv[1], int(sys.argv[2]))))
