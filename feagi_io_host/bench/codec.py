# SPDX-License-Identifier: Apache-2.0
"""Codec benchmark: encoding and decoding against a memory copy and the real Rust library.

The workload is one burst of 200,000 neurons: 3.2 MB of u32 x, y, z and f32 p. The memory copy is
numpy's copyto between two arrays of the same size.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

import numpy as np

from feagi_io_host.bench.runner import NOT_INSTALLED, Case, Row, measure
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays

BURST: Final = 200_000
SMALL: Final = 1_000
AREAS: Final = 20
MEMCPY: Final = "memcpy"
RUST: Final = "feagi-rust-py-libs"

Arrays = tuple[Any, Any, Any, Any]


def _area(index: int) -> CorticalID:
    return CorticalID(b"iinf\x01\x00" + index.to_bytes(2, "little"))


def _arrays(count: int, seed: int) -> Arrays:
    """Four separate arrays, as a user's program holds them."""
    random = np.random.default_rng(seed)
    x, y, z = (random.integers(0, 1 << 16, count, dtype=np.uint32) for _ in range(3))
    return x, y, z, random.random(count, dtype=np.float32)


def _mapped(neurons: int, areas: int) -> CorticalMappedXYZPNeuronVoxels:
    voxels = CorticalMappedXYZPNeuronVoxels()
    for index in range(areas):
        arrays = _arrays(neurons // areas, index)
        voxels.insert(_area(index), NeuronVoxelXYZPArrays.new_from_numpy(*arrays))
    return voxels


def _memcpy(size: int) -> Callable[[], object]:
    source = np.ones(size, np.uint8)
    target = np.zeros(size, np.uint8)
    return lambda: np.copyto(target, source)


def _encode(neurons: int, areas: int) -> Callable[[], object]:
    voxels = _mapped(neurons, areas)
    container = FeagiByteContainer.new_empty()
    return lambda: container.overwrite_byte_data_with_single_struct_data(voxels, 7)


def _encode_case(neurons: int, areas: int, max_ratio: float, memcpy: Callable[[], object]) -> Case:
    return Case(
        f"encode {neurons // 1000}K neurons, {areas} area{'s' * (areas > 1)}, reused buffer",
        _encode(neurons, areas),
        MEMCPY,
        f"<= {max_ratio:g}x",
        memcpy,
        max_ratio,
    )


def _reserve_case(areas: int, count: int) -> Case:
    layout = [(_area(index), count) for index in range(areas)]
    container = FeagiByteContainer.new_empty()
    max_s = 5e-6 + 0.3e-6 * areas
    return Case(
        f"encode in place (reserve_xyzp), unchanged layout, {areas} area{'s' * (areas > 1)}",
        lambda: container.reserve_xyzp(layout, 7),
        "5 us + 0.3 us an area",
        f"<= {max_s * 1e6:.1f} us",
        max_s=max_s,
    )


def _wire(neurons: int, areas: int) -> bytes:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(_mapped(neurons, areas), 7)
    return container.copy_out_as_byte_vector()


def _decode(data: bytes) -> list[Arrays]:
    """All arrays in the caller's hands."""
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    voxels = container.try_create_new_struct_from_index(0)
    assert isinstance(voxels, CorticalMappedXYZPNeuronVoxels)
    return [arrays.borrow_xyzp_vectors() for _, arrays in voxels]


def _decode_lazily(data: bytes) -> object:
    """Verified whole and taken over; arrays come into being when they are asked for."""
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    return container.try_create_new_struct_from_index(0)


def _decode_cases(memcpy: Callable[[], object]) -> list[Case]:
    one, many = _wire(BURST, 1), _wire(BURST, AREAS)
    return [
        Case(
            "decode 200K neurons, 1 area, to numpy views",
            lambda: _decode(one),
            MEMCPY,
            "<= 0.1x",
            memcpy,
            0.1,
        ),
        Case(
            f"decode 200K neurons, {AREAS} areas, lazily",
            lambda: _decode_lazily(many),
            MEMCPY,
            "<= 0.1x",
            memcpy,
            0.1,
        ),
    ]


def _rust_cases() -> list[Case]:
    """Rows against the real library; empty when it is not installed."""
    try:
        library = import_module("feagi_rust_py_libs")
    except ImportError:
        return []
    xyzp = library.data_structures.neurons_voxels.xyzp
    their_id = library.data_structures.genomic.cortical_area.CorticalID
    their_container = library.data_serialization.FeagiByteContainer
    arrays = _arrays(BURST, 0)
    area = _area(0)
    key = their_id.try_from_bytes(bytes(area))
    data = _wire(BURST, 1)
    container = FeagiByteContainer.new_empty()

    def ours_to_bytes() -> bytes:
        voxels = CorticalMappedXYZPNeuronVoxels()
        voxels.insert(area, NeuronVoxelXYZPArrays.new_from_numpy(*arrays))
        container.overwrite_byte_data_with_single_struct_data(voxels, 7)
        return container.copy_out_as_byte_vector()

    def theirs_to_bytes() -> object:
        voxels = xyzp.CorticalMappedXYZPNeuronVoxels()
        voxels.insert(key, xyzp.PyNeuronVoxelXYZPArrays.new_from_numpy(*arrays))
        one = their_container()
        one.add_struct(voxels, 7)
        return one.copy_out_as_byte_vector()

    def theirs_to_arrays() -> object:
        one = their_container()
        one.load_bytes_and_verify(data)
        return list(one.try_create_new_struct_from_index(0).iter_full())

    return [
        Case(_TO_BYTES, ours_to_bytes, RUST, _TO_BYTES_LIMIT, theirs_to_bytes, 1 / 5),
        Case(_TO_ARRAYS, lambda: _decode(data), RUST, _TO_ARRAYS_LIMIT, theirs_to_arrays, 1 / 50),
    ]


_TO_BYTES: Final = "numpy arrays -> bytes object, 200K neurons"
_TO_ARRAYS: Final = "bytes -> numpy arrays, 200K neurons"
_TO_BYTES_LIMIT: Final = "<= 0.2x (5x faster)"
_TO_ARRAYS_LIMIT: Final = "<= 0.02x (50x faster)"


def _allocation_row() -> Row:
    """Payload memory allocated per burst once the pool is warm."""
    bursts = 20
    pool = BufferPool()
    voxels = _mapped(BURST, AREAS)

    def burst(counter: int) -> int:
        container = pool.acquire()
        container.overwrite_byte_data_with_single_struct_data(voxels, counter)
        with pool.share(container) as shared:
            return len(shared.view)

    payload = burst(0)
    tracemalloc.start()
    try:
        burst(1)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for counter in range(bursts):
            burst(counter)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Python objects of a few hundred bytes come and go. One payload is 3.2 MB; a hundredth of it
    # anywhere in the 20 bursts would show.
    none = peak - before < payload // 100
    created = pool.counters()["created"]
    return Row(
        "payload memory allocated per burst after warm-up",
        None,
        f"{created} buffer made in {bursts + 2} bursts, peak {peak - before} B of objects",
        None,
        None,
        "0 payloads",
        none and created == 1,
    )


def run(quick: bool = False) -> list[Row]:
    """All rows of the codec benchmark; `quick` takes fewer and shorter samples."""
    large, small = _memcpy(16 * BURST), _memcpy(16 * SMALL)
    cases = [
        _encode_case(BURST, 1, 1.2, large),
        _encode_case(BURST, AREAS, 1.5, large),
        _encode_case(SMALL, AREAS, 25, small),
        _reserve_case(1, BURST),
        _reserve_case(AREAS, BURST // AREAS),
        _reserve_case(300, 10),
        *_decode_cases(large),
    ]
    rows = measure(cases, quick=quick)
    rust = _rust_cases()
    if rust:
        rows += measure(rust, quick=quick)
    else:
        reference = f"{RUST}: {NOT_INSTALLED}"
        rows += [
            Row(name, None, reference, None, None, limit, None)
            for name, limit in ((_TO_BYTES, _TO_BYTES_LIMIT), (_TO_ARRAYS, _TO_ARRAYS_LIMIT))
        ]
    rows.append(_allocation_row())
    return rows
