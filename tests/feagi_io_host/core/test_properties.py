# SPDX-License-Identifier: Apache-2.0
"""Properties over generated data: round trips, and nothing but our errors for any bytes."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as arrays_of
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.json_struct import FeagiJSON, text_from_value, value_from_text
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_wire.container import StaticFBC
from tests.feagi_io_host.core.golden import MALFORMED, VALID

SMALL = [vector.data for vector in VALID + MALFORMED if len(vector.data) < 3000]

ids = st.builds(
    lambda first, rest: CorticalID(bytes([first]) + rest),
    st.sampled_from(b"_cmiog"),
    st.binary(min_size=7, max_size=7),
)


@st.composite
def voxel_arrays(draw: st.DrawFn) -> NeuronVoxelXYZPArrays:
    count = draw(st.integers(0, 20))
    words = draw(arrays_of.arrays(np.uint32, (4, count)))
    return NeuronVoxelXYZPArrays.new_from_numpy(
        words[0], words[1], words[2], words[3].view(np.float32)
    )


mapped_voxels = st.dictionaries(ids, voxel_arrays(), max_size=6).map(CorticalMappedXYZPNeuronVoxels)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)
structs = st.lists(mapped_voxels | json_values.map(FeagiJSON), max_size=5)


@given(structs, st.integers(0, 65535), st.binary(min_size=48, max_size=48), st.binary(max_size=40))
def test_containers_survive_the_round_trip(
    parts: list[Any], counter: int, agent_id: bytes, trailing: bytes
) -> None:
    container = FeagiByteContainer.new_empty()
    container.set_agent_identifier(agent_id)
    container.overwrite_byte_data_with_multiple_struct_data(parts, counter)
    wire = container.copy_out_as_byte_vector()
    for data in (wire, wire + trailing):
        copy = FeagiByteContainer.new_empty()
        copy.try_write_data_by_ownership_to_container_and_verify(data)
        assert copy.get_increment_counter() == counter
        assert copy.get_agent_identifier_bytes() == agent_id
        assert [
            copy.try_create_new_struct_from_index(index)
            for index in range(copy.try_get_number_contained_structures())
        ] == parts


@given(st.lists(mapped_voxels, min_size=1, max_size=6))
def test_reused_container_writes_what_a_fresh_one_writes(bursts: list[Any]) -> None:
    reused = FeagiByteContainer.new_empty()
    for counter, voxels in enumerate(bursts):
        fresh = FeagiByteContainer.new_empty()
        fresh.overwrite_byte_data_with_multiple_struct_data([voxels], counter)
        for _ in range(2):
            reused.overwrite_byte_data_with_single_struct_data(voxels, counter)
            assert reused.get_byte_ref() == fresh.get_byte_ref()
        views = reused.reserve_xyzp([(key, len(arrays)) for key, arrays in voxels], counter)
        for key, arrays in voxels:
            for target, source in zip(views[key], arrays.borrow_xyzp_vectors(), strict=True):
                target.view(np.uint32)[:] = source.view(np.uint32)
        assert reused.get_byte_ref() == fresh.get_byte_ref()


def mutated(data: st.DataObject, sources: list[bytes]) -> bytes:
    """One of `sources` with a few bytes, words or ends changed."""
    raw = bytearray(data.draw(st.sampled_from(sources)))
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["byte", "word", "cut", "insert"]))
        at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        if kind == "byte" and raw:
            raw[at] = data.draw(st.integers(0, 255))
        elif kind == "word":
            value = data.draw(st.sampled_from([0, 1, 2, 3, 4, 15, 16, 17, 0x7FFFFFFF, 0xFFFFFFFF]))
            raw[at : at + 4] = value.to_bytes(4, "little")
        elif kind == "cut":
            del raw[at:]
        else:
            raw[at:at] = data.draw(st.binary(max_size=20))
    return bytes(raw)


def refusal(data: bytes) -> str | None:
    """What we say against `data`; None when it is taken."""
    try:
        FeagiByteContainer.new_empty().try_write_data_by_ownership_to_container_and_verify(data)
    except FeagiDataError as error:
        return str(error)
    return None


def read_everything(data: bytes) -> None:
    """Write `data` into a container and, if it is taken, read all there is."""
    container = FeagiByteContainer.new_empty()
    try:
        container.try_write_data_by_copy_and_verify(data)
    except FeagiDataError:
        assert not container.is_valid()
        return
    for index in range(container.try_get_number_contained_structures()):
        struct = container.try_create_new_struct_from_index(index)
        if isinstance(struct, CorticalMappedXYZPNeuronVoxels):
            for _, arrays in struct:
                for view in arrays.borrow_xyzp_vectors():
                    assert view.shape == (len(arrays),)
    structs = [
        container.try_create_new_struct_from_index(index)
        for index in range(container.try_get_number_contained_structures())
    ]
    again = FeagiByteContainer.new_empty()
    again.overwrite_byte_data_with_multiple_struct_data(structs, 0)
    assert again.try_get_number_contained_structures() == len(structs)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_our_errors(data: bytes) -> None:
    read_everything(data)


@given(st.binary(max_size=300), st.integers(0, 3))
def test_arbitrary_bytes_behind_a_good_header(data: bytes, count: int) -> None:
    read_everything(b"\x04\x00\x00" + bytes([count]) + bytes(48) + data)


@given(st.sampled_from([b"\x01\x01", b"\x0b\x01"]), st.binary(max_size=200))
def test_arbitrary_struct_bodies(header: bytes, body: bytes) -> None:
    struct = header + body
    size = len(struct).to_bytes(4, "little")
    read_everything(b"\x04\x00\x00\x01" + bytes(48) + size + struct)


@given(st.data())
def test_mutated_vectors_raise_only_our_errors(data: st.DataObject) -> None:
    read_everything(mutated(data, SMALL))


@given(st.data())
def test_portable_codec_judges_mutated_vectors_alike(data: st.DataObject) -> None:
    raw = mutated(data, SMALL)
    accepted = StaticFBC(bytearray(raw + bytes(4))).parse(len(raw)) >= 0
    reason = refusal(raw)
    if accepted:
        # The portable reader leaves JSON text to its caller: only for that may the host refuse.
        assert reason is None or "JSON" in reason
    else:
        assert reason is not None


@given(st.text() | st.text('[]{}",:\\u0123456789dDefE.-+ ntrue', max_size=60))
def test_arbitrary_json_text_raises_only_our_errors(text: str) -> None:
    try:
        value = value_from_text(text.encode("utf-8", "surrogatepass"))
    except FeagiDataError:
        return
    assert value_from_text(text_from_value(value)) == value


@given(json_values)
def test_json_values_survive_the_round_trip(value: Any) -> None:
    assert value_from_text(text_from_value(value)) == value


@given(ids)
def test_id_forms_survive_the_round_trip(one: CorticalID) -> None:
    assert CorticalID.try_from_base_64(one.as_base_64()) == one
    assert CorticalID.try_from_u64(one.as_u64()) == one
    assert CorticalID.try_from_bytes(one.as_bytes()) == one


@given(st.lists(ids, min_size=2, max_size=5))
def test_ids_are_ordered_as_their_bytes_and_numbers(some: list[CorticalID]) -> None:
    by_number = sorted(some, key=CorticalID.as_u64)
    assert sorted(some) == sorted(some, key=CorticalID.as_bytes) == by_number


@pytest.mark.parametrize("size", [0, 51, 52, 55, 56, 59, 60, 75, 76, 91])
def test_each_cut_of_a_container_is_read_within_its_bounds(size: int) -> None:
    vector = next(vector for vector in VALID if vector.name.startswith("v04"))
    # The bytes behind the cut are there in memory; a reader that looks past its end finds them.
    whole = memoryview(vector.data)
    with pytest.raises(FeagiDataError):
        FeagiByteContainer.new_empty().try_write_data_by_copy_and_verify(whole[:size])
