# SPDX-License-Identifier: Apache-2.0
"""Against the real library (feagi-rust-py-libs), both ways; it runs in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import selectors
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import CorticalIDError, FeagiDataError
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from tests.feagi_io_host.core.golden import MALFORMED, VALID, Vector, area, mapped
from tests.feagi_io_host.core.test_container import JSON_ACCEPTED, JSON_REFUSED

pytestmark = pytest.mark.oracle

WORKER = Path(__file__).with_name("oracle_worker.py")
ANSWER_TIMEOUT_S = 30
# Vectors of a size that crosses the pipe as text; one has 200,000 neurons.
PIPED = [vector for vector in VALID + MALFORMED if len(vector.data) < 1_000_000]
STOP_TIMEOUT_S = 10


class Oracle:
    """The real library behind a pipe."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # the library prints its panics
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = self._process.stdin
        self._out = self._process.stdout.fileno()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)

    def ask(self, **request: Any) -> Any:
        self._in.write(json.dumps(request).encode() + b"\n")
        self._in.flush()
        line = bytearray()
        while not line.endswith(b"\n"):
            if not self._selector.select(ANSWER_TIMEOUT_S):
                pytest.fail(f"no answer of the real library within {ANSWER_TIMEOUT_S} s")
            piece = os.read(self._out, 1 << 16)
            if not piece:
                pytest.fail("the real library's process ended")
            line += piece
        return json.loads(line)

    def verdict(self, data: bytes) -> bool:
        """Whether the library reads the whole container without a fault or a panic."""
        answer = self.ask(op="read", data=data.hex())
        return answer["load"] is None and not any(
            isinstance(part, list) for part in answer["structs"]
        )

    def close(self) -> None:
        self._selector.close()
        self._process.communicate(timeout=STOP_TIMEOUT_S)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    # Not imported here: a panic of the library must not touch this process.
    if importlib.util.find_spec("feagi_rust_py_libs") is None:
        reason = "feagi-rust-py-libs is not installed; pip install 'feagi-io[test]'"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; with CI=true everything has to run")
        pytest.skip(reason)
    one = Oracle()
    try:
        yield one
    finally:
        one.close()


def words(voxels: CorticalMappedXYZPNeuronVoxels) -> dict[str, list[list[int]]]:
    return {
        key.hex(): [view.view(np.uint32).tolist() for view in arrays.borrow_xyzp_vectors()]
        for key, arrays in voxels
    }


def ours(data: bytes) -> list[Any] | None:
    """What we read, in the oracle's words; None when we refuse it."""
    container = FeagiByteContainer.new_empty()
    try:
        container.try_write_data_by_ownership_to_container_and_verify(data)
    except FeagiDataError:
        return None
    found: list[Any] = []
    for index in range(container.try_get_number_contained_structures()):
        struct = container.try_create_new_struct_from_index(index)
        found.append("json" if isinstance(struct, FeagiJSON) else words(struct))
    return found


def overlaps_records(data: bytes) -> bool:
    """Whether an area's voxels begin inside the area records: accepted there, refused here."""
    start = 52 + 4 * data[3]
    for length in struct.unpack_from(f"<{data[3]}I", data, 52):
        if data[start] == 11:
            areas = struct.unpack_from("<H", data, start + 2)[0]
            for index in range(areas):
                offset, used = struct.unpack_from("<II", data, start + 12 + 16 * index)
                if used and offset < 4 + 16 * areas:
                    return True
        start += length
    return False


def check_agreement(oracle: Oracle, data: bytes) -> None:
    answer = oracle.ask(op="read", data=data.hex())
    faults = [part for part in answer["structs"] if isinstance(part, list)]
    mine = ours(data)
    if answer["load"] is None and not faults:
        if mine is None:
            assert overlaps_records(data), f"only we refuse {data.hex()}"
        else:
            assert mine == answer["structs"]
    else:
        assert mine is None, f"only we accept {data.hex()}: {answer['load'] or faults}"


@pytest.mark.parametrize("vector", PIPED, ids=lambda vector: vector.name)
def test_vectors_read_alike(oracle: Oracle, vector: Vector) -> None:
    check_agreement(oracle, vector.data)


def test_documented_difference_is_one(oracle: Oracle) -> None:
    only_here = [
        vector.name for vector in MALFORMED if oracle.verdict(vector.data) and not ours(vector.data)
    ]
    assert only_here == ["m45_area_data_overlaps_header_ACCEPTED"]


def test_panic_of_the_library_is_an_answer(oracle: Oracle) -> None:
    data = b"\x04\x00\x00\x01" + bytes(52)
    assert oracle.ask(op="read", data=data.hex())["load"][0] == "PanicException"
    assert ours(data) is None
    assert oracle.verdict(b"\x04" + bytes(51))


@pytest.mark.parametrize(("areas", "count"), [(0, 0), (1, 0), (1, 1), (3, 7), (20, 50)])
def test_ours_is_read_by_the_library(oracle: Oracle, areas: int, count: int) -> None:
    voxels = mapped(areas, count)
    container = FeagiByteContainer.new_empty()
    container.set_agent_identifier(bytes(range(48)))
    container.overwrite_byte_data_with_single_struct_data(voxels, 4660)
    answer = oracle.ask(op="read", data=container.get_byte_ref().hex())
    assert answer == {"load": None, "structs": [words(voxels)]}


@pytest.mark.parametrize(("areas", "count"), [(0, 0), (1, 0), (1, 1), (3, 7), (20, 50)])
def test_the_library_is_read_by_us(oracle: Oracle, areas: int, count: int) -> None:
    voxels = mapped(areas, count)
    request = [[key, *parts] for key, parts in words(voxels).items()]
    data = bytes.fromhex(oracle.ask(op="write", areas=request, counter=4660)["data"])
    assert ours(data) == [words(voxels)]
    # Areas in the library's order give the library's bytes.
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    read = container.try_create_new_struct_from_index(0)
    container.overwrite_byte_data_with_single_struct_data(read, 4660)
    assert container.copy_out_as_byte_vector() == data


@pytest.mark.parametrize("first", range(256))
def test_ids_are_accepted_alike(oracle: Oracle, first: int) -> None:
    data = bytes([first]) + b"inf\x9b\xff\x00\x01"
    answer = oracle.ask(op="id", data=data.hex())
    if "fault" in answer:
        with pytest.raises(CorticalIDError):
            CorticalID(data)
    else:
        assert CorticalID(data).as_base_64() == answer["base64"]
        assert CorticalID(data).as_u64() == answer["u64"]


def json_container(text: bytes) -> bytes:
    length = (len(text) + 2).to_bytes(4, "little")
    return b"\x04\x00\x00\x01" + bytes(48) + length + b"\x01\x01" + text


@pytest.mark.parametrize("text", [text for text, _ in JSON_ACCEPTED], ids=lambda t: repr(t)[:24])
def test_json_accepted_alike(oracle: Oracle, text: bytes) -> None:
    assert oracle.verdict(json_container(text))


@pytest.mark.parametrize("text", [text for text, _ in JSON_REFUSED], ids=lambda t: repr(t)[:24])
def test_json_refused_alike(oracle: Oracle, text: bytes) -> None:
    assert not oracle.verdict(json_container(text))


# The oracle serves all examples of a test: it keeps nothing between two requests.
shared_oracle = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@shared_oracle
@given(st.data())
def test_mutated_vectors_are_judged_alike(oracle: Oracle, data: st.DataObject) -> None:
    small = [vector.data for vector in VALID if 0 < len(vector.data) < 1000]
    raw = bytearray(data.draw(st.sampled_from(small)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        if data.draw(st.booleans()):
            raw[at] = data.draw(st.integers(0, 255))
        else:
            value = data.draw(st.sampled_from([0, 1, 2, 4, 16, 20, 36, 0xFFFFFFFF]))
            raw[at : at + 4] = value.to_bytes(4, "little")
    check_agreement(oracle, bytes(raw))


@shared_oracle
@given(st.sampled_from([b"\x01\x01", b"\x0b\x01"]), st.binary(max_size=120))
def test_struct_bodies_are_judged_alike(oracle: Oracle, header: bytes, body: bytes) -> None:
    data = header + body
    length = len(data).to_bytes(4, "little")
    check_agreement(oracle, b"\x04\x00\x00\x01" + bytes(48) + length + data)


@shared_oracle
@given(st.text('[]{}",:\\u0123456789dDcCefE.-+ \t\nntrulas\x00é', max_size=24))
def test_json_texts_are_judged_alike(oracle: Oracle, text: str) -> None:
    check_agreement(oracle, json_container(text.encode()))


@shared_oracle
@given(
    st.dictionaries(
        st.integers(0, 65535).map(area),
        st.lists(st.tuples(*[st.integers(0, (1 << 32) - 1)] * 4), max_size=6),
        max_size=5,
    )
)
def test_voxels_of_any_bits_cross_both_ways(
    oracle: Oracle, content: dict[bytes, list[tuple[int, int, int, int]]]
) -> None:
    voxels = CorticalMappedXYZPNeuronVoxels()
    for key, rows in content.items():
        table = np.array(rows, np.uint32).reshape(len(rows), 4)
        x, y, z, p = (np.ascontiguousarray(table[:, column]) for column in range(4))
        voxels.insert(key, NeuronVoxelXYZPArrays.new_from_numpy(x, y, z, p.view(np.float32)))
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    answer = oracle.ask(op="read", data=container.get_byte_ref().hex())
    assert answer == {"load": None, "structs": [words(voxels)]}
    request = [[key, *parts] for key, parts in words(voxels).items()]
    data = bytes.fromhex(oracle.ask(op="write", areas=request, counter=1)["data"])
    assert ours(data) == [words(voxels)]
