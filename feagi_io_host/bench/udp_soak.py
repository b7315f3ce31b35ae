# SPDX-License-Identifier: Apache-2.0
"""UDP soak: 200,000 neurons a burst, 100 bursts a second, from one process to another.

    python -m feagi_io_host.bench.udp_soak BURSTS      the receiving process, started by `soak`

Latency runs from the frame in the sender's hands to its numpy arrays in the receiver's, on the
monotonic clock that all processes of a machine share.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from typing import Any, Final

import numpy as np

from feagi_io_host.bench.runner import Row
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import CorticalID, StreamType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_io_host.transports.udp.datagram import DEFAULT_DATAGRAM_BYTES, Check, Seal
from feagi_io_host.transports.udp.fragment import Fragmenter
from feagi_io_host.transports.udp.ladder import BurstReceiver, BurstSender, Pacer, probe
from feagi_io_host.transports.udp.reassembly import Reassembler
from feagi_io_host.transports.udp.sockets import DEFAULT_BUFFER_BYTES, size_buffer

NEURONS: Final = 200_000
BURSTS_PER_S: Final = 100
MAX_P99_S: Final = 0.01
LIMIT: Final = "0 lost, p99 < 10 ms"

_START_S: Final = 10.0
_SILENCE_S: Final = 2.0  # so long without a datagram ends the receiver
_SEAL: Final = Seal(Check.NONE)


def soak(seconds: float, neurons: int = NEURONS) -> Row:
    """Send for so long; one row, its time the 99th percentile of the latencies."""
    bursts = max(1, round(seconds * BURSTS_PER_S))
    receiver = subprocess.Popen(
        [sys.executable, "-m", "feagi_io_host.bench.udp_soak", str(bursts)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert receiver.stdout is not None
        if not select.select([receiver.stdout], [], [], _START_S)[0]:
            raise TimeoutError(f"receiving process not ready within {_START_S} s")
        port = int(receiver.stdout.readline())
        emitted_s, cpu_s, began_s = _send(port, bursts, neurons)
        took_s = time.monotonic() - began_s
        output, _ = receiver.communicate(timeout=_START_S + _SILENCE_S)
        told = json.loads(output)
    finally:
        if receiver.poll() is None:
            receiver.kill()
        receiver.communicate()
    return _row(bursts, neurons, emitted_s, told, cpu_s / took_s)


def _row(
    bursts: int, neurons: int, emitted_s: list[float], told: dict[str, Any], busy: float
) -> Row:
    latencies = [came_s - emitted_s[sequence] for sequence, came_s in told["arrived"]]
    lost = bursts - len(latencies)
    p50, p99, p99_9 = np.percentile(latencies, (50, 99, 99.9)) if latencies else (0.0, 0.0, 0.0)
    name = f"UDP soak, {neurons // 1000}K neurons, {BURSTS_PER_S} bursts/s, {bursts} bursts"
    note = (
        f"lost {lost}, p50 {p50 * 1e3:.2f} ms, p99.9 {p99_9 * 1e3:.2f} ms, "
        f"CPU {busy:.0%} + {told['busy']:.0%} of a core"
    )
    met = not lost and float(p99) < MAX_P99_S
    return Row(name, float(p99), "p99 alone", None, None, LIMIT, met, note)


def _frame(neurons: int) -> bytes:
    random = np.random.default_rng(1)
    voxels = CorticalMappedXYZPNeuronVoxels()
    x, y, z = (random.integers(0, 1 << 16, neurons, np.uint32) for _ in range(3))
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(x, y, z, random.random(neurons, np.float32))
    voxels.insert(CorticalID(b"iinf\x01\x00\x00\x00"), arrays)
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    return container.copy_out_as_byte_vector()


def _send(port: int, bursts: int, neurons: int) -> tuple[list[float], float, float]:
    """When each burst was emitted, the CPU time taken, and when it began."""
    frame = _frame(neurons)
    emitted_s = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        size_buffer(sock, "send", DEFAULT_BUFFER_BYTES)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        fragmenter = Fragmenter(1, seal=_SEAL)
        sender = BurstSender(sock, probe().send, Pacer())
        began_s, cpu_s = time.monotonic(), time.process_time()
        for number in range(bursts):
            time.sleep(max(0.0, began_s + number / BURSTS_PER_S - time.monotonic()))
            emitted_s.append(time.monotonic())
            burst = fragmenter.fragment(StreamType.VISUALIZATION, frame)
            assert burst is not None
            sender.begin(burst)
            while (pause_s := sender.step(time.monotonic())) is not None:
                if pause_s:
                    time.sleep(pause_s)
                else:
                    select.select([], [sock], [], _SILENCE_S)
        return emitted_s, time.process_time() - cpu_s, began_s


def _receive(bursts: int) -> dict[str, Any]:
    """Receive until the last burst or silence: when each one came, and how busy that was."""
    arrived: list[tuple[int, float]] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        size_buffer(sock, "receive", DEFAULT_BUFFER_BYTES)
        sock.setblocking(False)
        receiver = BurstReceiver(sock, probe().receive, DEFAULT_DATAGRAM_BYTES)
        reassembler = Reassembler(seal=_SEAL)
        sys.stdout.write(f"{sock.getsockname()[1]}\n")
        sys.stdout.flush()
        began_s, cpu_s, waits_s = time.monotonic(), time.process_time(), _START_S
        while not arrived or arrived[-1][0] < bursts - 1:
            if not receiver.receive():
                if not select.select([sock], [], [], waits_s)[0]:
                    break
                continue
            waits_s = _SILENCE_S
            for burst in reassembler.receive_blocks(
                receiver.blocks, receiver.lengths, receiver.segments, time.monotonic()
            ):
                with SharedFBC.from_bytes(burst.data) as shared:
                    voxels = shared.container.try_create_new_struct_from_index(0)
                    assert isinstance(voxels, CorticalMappedXYZPNeuronVoxels)
                    for _, arrays in voxels:
                        arrays.borrow_xyzp_vectors()
                    arrived.append((burst.sequence, time.monotonic()))
        took_s = time.monotonic() - began_s
        return {"arrived": arrived, "busy": (time.process_time() - cpu_s) / took_s}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_receive(int(sys.argv[1]))))
