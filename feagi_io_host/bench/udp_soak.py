# SPDX-License-Identifier: Apache-2.0
"""UDP soak: 200,000 neurons a burst, 100 bursts a second, from a PNS to an agent.

    python -m feagi_io_host.bench.udp_soak URL BURSTS      the agent's process, started by `soak`

Latency runs from the frame in the brain's hands (`publish_visualization` is about to be called) to
its numpy arrays in the agent's, on the monotonic clock that all processes of a machine share. A
burst that did not get there whole counts as lost, whatever became of it.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from typing import Any, Final

import numpy as np

from feagi_io_host.bench.runner import Row
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ClosedError
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID, StreamType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_io_host.pns import PNS
from feagi_io_host.transports.udp.nonblocking_impl import UdpTransport
from feagi_io_host.transports.udp.stream_end import UdpStreamEnd, udp_stream_end

NEURONS: Final = 200_000
BURSTS_PER_S: Final = 100
SECONDS: Final = 30.0
MAX_P99_S: Final = 0.01
LIMIT: Final = "0 lost, p99 < 10 ms"

_VIEWER: Final = AgentDescriptor("feagi-io bench", "viewer", 1)
_VISUALIZATION: Final = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
_MAX_FRAME_BYTES: Final = 64 << 20
_START_S: Final = 10.0
_SILENCE_S: Final = 2.0  # so long without a frame ends the agent
_COUNTERS: Final = 1 << 16  # the increment counter of a container has 16 bits


def soak(seconds: float = SECONDS, neurons: int = NEURONS) -> Row:
    """Publish for so long; one row, its time the 99th percentile of the latencies."""
    bursts = min(max(1, round(seconds * BURSTS_PER_S)), _COUNTERS)
    with PNS() as pns:
        handle = pns.add_transport("udp", paradigm="nonblocking")
        handle.start()
        transport = handle.transport
        assert isinstance(transport, UdpTransport)
        agent_id = secrets.token_bytes(48)
        url = transport.offer(agent_id, _VISUALIZATION)
        assert url is not None
        agent = pns.attach_agent(_VIEWER, _VISUALIZATION, agent_id, channel=transport.channel)
        transport.serve(agent, StreamType.VISUALIZATION)
        emitted_s, busy, told = _run(pns, url, bursts, neurons)
        waiting: Any = agent.counters[StreamType.VISUALIZATION].snapshot()["dropped"]
    told["here"] = waiting.get("conflated", 0) + waiting.get("replaced", 0)
    return _row(bursts, neurons, emitted_s, told, busy)


def _run(
    pns: PNS, url: str, bursts: int, neurons: int
) -> tuple[list[float], float, dict[str, Any]]:
    """When each burst was emitted, how busy this process was, and what the agent says."""
    agent = subprocess.Popen(
        [sys.executable, "-m", "feagi_io_host.bench.udp_soak", url, str(bursts)],
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
    for number in range(bursts):
        container = pool.acquire()
        container.try_write_data_by_copy_and_verify(frame)
        container.set_increment_counter_state(number)
        with pool.share(container) as fbc:
            time.sleep(max(0.0, began_s + number / BURSTS_PER_S - time.monotonic()))
            emitted_s.append(time.monotonic())
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
    bursts: int, neurons: int, emitted_s: list[float], told: dict[str, Any], busy: float
) -> Row:
    latencies = [came_s - emitted_s[number] for number, came_s in told["arrived"]]
    lost = bursts - len(latencies)
    p50, p99, p99_9 = np.percentile(latencies, (50, 99, 99.9)) if latencies else (0.0, 0.0, 0.0)
    name = f"UDP soak, {neurons // 1000}K neurons, {BURSTS_PER_S} bursts/s, {bursts} bursts"
    note = (
        f"lost {lost} ({told['here']} of them before they were sent, {told['overtaken']} in the "
        f"agent), p50 {p50 * 1e3:.2f} ms, p99.9 {p99_9 * 1e3:.2f} ms, "
        f"CPU {busy:.0%} + {told['busy']:.0%} of a core"
    )
    met = not lost and float(p99) < MAX_P99_S
    return Row(name, float(p99), "p99 alone", None, None, LIMIT, met, note)


def _receive(end: UdpStreamEnd, bursts: int) -> dict[str, Any]:
    """Receive until the last burst or silence: when each one came, and how busy that was."""
    arrived: list[tuple[int, float]] = []
    began_s, cpu_s, heard_s = time.monotonic(), time.process_time(), time.monotonic() + _START_S
    try:
        while not arrived or arrived[-1][0] < bursts - 1:
            data = end.take()
            now_s = time.monotonic()
            if data is not None:
                arrived.append((_decoded(data), time.monotonic()))
                heard_s = now_s
                continue
            due_s = end.tend(now_s)
            if now_s - heard_s > _SILENCE_S:
                break
            wait_s = _SILENCE_S if due_s is None else min(max(due_s - now_s, 0.0), _SILENCE_S)
            select.select([end], [], [], wait_s)
    except ClosedError:
        pass  # the PNS has ended, and with it what could still come
    took_s = time.monotonic() - began_s
    overtaken = end.counters()["overtaken"]
    busy = (time.process_time() - cpu_s) / took_s
    return {"arrived": arrived, "busy": busy, "overtaken": overtaken}


def _decoded(data: Any) -> int:
    with SharedFBC.from_bytes(data) as shared:
        voxels = shared.container.try_create_new_struct_from_index(0)
        assert isinstance(voxels, CorticalMappedXYZPNeuronVoxels)
        for _, arrays in voxels:
            arrays.borrow_xyzp_vectors()
        return shared.container.get_increment_counter()


def _agent(url: str, bursts: int) -> None:
    end = udp_stream_end(url, StreamType.VISUALIZATION, max_frame_bytes=_MAX_FRAME_BYTES)
    try:
        while not end.welcomed:
            end.take()
            end.tend(time.monotonic())
            select.select([end], [], [], _SILENCE_S)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdout.write(json.dumps(_receive(end, bursts)))
    finally:
        end.close()


if __name__ == "__main__":
    _agent(sys.argv[1], int(sys.argv[2]))
