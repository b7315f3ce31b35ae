# SPDX-License-Identifier: Apache-2.0
"""Values and voxels against the real library (feagi-rust-py-libs), in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from feagi_wire import StaticFBC, ValueDecoder, ValueEncoder, check

pytestmark = pytest.mark.oracle

WORKER = Path(__file__).with_name("values_worker.py")
TIMEOUT_S = 60
AREA = b"iagp\x01\x00\x00\x00"
RESOLUTIONS = (1, 2, 3, 5, 8, 10, 16)
POSITIONINGS = ("Linear", "Fractional")


def ask(requests: list[Any]) -> list[Any]:
    """The library's answers."""
    if importlib.util.find_spec("feagi_rust_py_libs") is None:
        reason = "the real library is not installed: pip install feagi-rust-py-libs"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true everything has to run")
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, str(WORKER)], input=json.dumps(requests), capture_output=True, text=True,
        timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    assert len(answers) == len(requests)
    return answers


def written(encoder: ValueEncoder, value: int) -> list[tuple[float, ...]]:
    """The voxels that ours writes for a value of its only channel."""
    check(encoder.set(0, value))
    fbc = StaticFBC(bytearray(76 + 16 * encoder.max_voxels()))
    check(fbc.begin(0, 1))
    check(encoder.write(fbc, AREA))
    check(fbc.parse(check(fbc.end())))
    found: list[tuple[float, ...]] = []
    for index in range(fbc.next_area()):
        check(fbc.get(index))
        found.append((fbc.x, fbc.y, fbc.z, fbc.q16 / 65536))
    return found


def read(decoder: ValueDecoder, voxels: list[tuple[int, int]]) -> list[int]:
    """The values that ours reads."""
    fbc = StaticFBC(bytearray(76 + 16 * len(voxels)))
    check(fbc.begin(0, 1))
    check(fbc.begin_area(AREA, len(voxels)))
    for x, z in voxels:
        check(fbc.add(x, 0, z, 1.0))
    check(fbc.end_area())
    check(fbc.parse(check(fbc.end())))
    decoder.read(fbc, fbc.next_area())
    return list(decoder.values)


@pytest.mark.parametrize("positioning", POSITIONINGS)
@pytest.mark.parametrize("signed", [False, True], ids=["gpio", "imu"])
def test_encoder(signed: bool, positioning: str) -> None:
    numbers = random.Random(1)
    if signed:
        ours = [0, 1, -1, 2, 16383, 16384, -16384, 29490, 32766, -32766]
        ours += [numbers.randint(-32766, 32766) for _ in range(60)]
        # v of -32767..32767 stands for (2 |v| + 1) / 65536
        theirs = [0.0 if v == 0 else (2 * abs(v) + 1) / 65536 * (1 if v > 0 else -1) for v in ours]
        ours += [32767, -32767]
        theirs += [1.0, -1.0]
    else:
        ours = [0, 1, 100, 655, 8257, 16384, 32768, 49152, 58982, 65000]
        ours += [numbers.randint(0, 65534) for _ in range(60)]
        theirs = [v / 65536 for v in ours]
        ours.append(65535)
        theirs.append(1.0)
    kind = "imu" if signed else "gpio"
    answers = ask([[kind, r, positioning, theirs] for r in RESOLUTIONS])
    for resolution, answer in zip(RESOLUTIONS, answers, strict=True):
        encoder = ValueEncoder(1, resolution, signed, positioning == "Fractional")
        for value, voxels in zip(ours, answer, strict=True):
            expected = sorted(tuple(voxel) for voxel in voxels)
            assert sorted(written(encoder, value)) == expected, (resolution, value)


@pytest.mark.parametrize("positioning", POSITIONINGS)
@pytest.mark.parametrize("kind", ["rotary", "count"])
def test_decoder(kind: str, positioning: str) -> None:
    numbers = random.Random(2)
    signed, fractional = kind == "rotary", positioning == "Fractional"
    channels = 3
    planes = channels * 2 if signed and fractional else channels
    requests: list[Any] = []
    for resolution in RESOLUTIONS[1:]:
        frames: list[list[tuple[int, int]]] = [[]]
        frames += [[(0, z)] for z in range(resolution)]
        everywhere = [(x, z) for x in range(planes) for z in range(resolution)]
        for _ in range(40):
            frames.append(numbers.sample(everywhere, numbers.randint(0, min(9, len(everywhere)))))
        frames += [[(planes, 0), (planes + 1, 0), (0, 0)]]
        requests.append([kind, resolution, positioning, channels, frames])
    top = 32767 if signed else 65535
    low = -top if signed else 0
    for request, answer in zip(requests, ask(requests), strict=True):
        resolution, frames = request[1], request[4]
        decoder = ValueDecoder(channels, resolution, signed, fractional)
        for frame, values in zip(frames, answer, strict=True):
            got = read(decoder, frame)
            for ours, theirs in zip(got, values, strict=True):
                # ours ends at full scale, where their fractional sums go on; and a digit that
                # the integer cannot hold is cut, one unit for each voxel
                expected = min(top, max(low, theirs * top))
                assert abs(ours - expected) <= 2 + resolution, (resolution, frame, got, values)


def test_measured_values() -> None:
    """The figures that the wire documentation quotes, so that a new release shows."""
    values = [0.0, 0.126, 0.25, 0.5, 0.75, 0.9, 1.0]
    linear, fractional = ask([["gpio", 8, p, values] for p in POSITIONINGS])
    assert [[voxel[2] for voxel in voxels] for voxels in linear] == [
        [7], [6], [6], [4], [2], [0], [0],
    ]  # fmt: skip
    assert [[voxel[2] for voxel in voxels] for voxels in fractional] == [
        [7], [2], [1], [0], [0, 1], [0, 1, 2, 5, 6], [0, 1, 2, 3, 4, 5, 6, 7],
    ]  # fmt: skip
