# SPDX-License-Identifier: Apache-2.0
"""FeagiByteContainer: writing, in-place writing, reading, growth, JSON rules, misuse."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import (
    ContainerLimitError,
    ContainerTooShortError,
    CorticalIDError,
    FeagiDataError,
    StructCorruptError,
)
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.types import CorticalID, FeagiByteStructureType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from tests.feagi_io_host.core.golden import area, mapped, neurons, read_json, read_voxels

AGENT = bytes(range(48))


def with_struct(body: bytes, counter: int = 0) -> bytes:
    return struct.pack("<BHB48sI", 4, counter, 1, bytes(48), len(body)) + body


def with_json(text: bytes) -> bytes:
    return with_struct(b"\x01\x01" + text)


def received(data: bytes) -> FeagiByteContainer:
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    return container


# -- empty, header ------------------------------------------------------------------------


def test_empty_container() -> None:
    container = FeagiByteContainer.new_empty()
    assert container.is_valid()
    assert container.copy_out_as_byte_vector() == b"\x04" + bytes(51)
    assert container.try_get_number_contained_structures() == 0
    assert container.get_contained_struct_types() == []
    assert container.get_number_of_bytes_used() == 52


@pytest.mark.parametrize(
    ("given", "kept"), [(0, 0), (65535, 65535), (65536, 0), (65537, 1), (-1, 65535)]
)
def test_counter_wraps(given: int, kept: int) -> None:
    container = FeagiByteContainer.new_empty()
    container.set_increment_counter_state(given)
    assert container.get_increment_counter() == kept
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON(1), given)
    assert container.get_increment_counter() == kept
    for _ in range(2):
        container.reserve_xyzp([(area(0), 1)], given)
        assert container.get_increment_counter() == kept
        container.overwrite_byte_data_with_single_struct_data(mapped(1, 1), given)
        assert container.get_increment_counter() == kept


def test_agent_id_stays_through_overwrites() -> None:
    container = FeagiByteContainer.new_empty()
    container.set_agent_identifier(AGENT)
    container.overwrite_byte_data_with_single_struct_data(mapped(2, 5000), 1)  # grows
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON({}), 2)
    assert container.get_agent_identifier_bytes() == AGENT
    assert container.copy_out_as_byte_vector()[4:52] == AGENT


@pytest.mark.parametrize("size", [0, 8, 47, 49])
def test_agent_id_of_another_length(size: int) -> None:
    with pytest.raises(FeagiDataError, match=f"these are {size}"):
        FeagiByteContainer.new_empty().set_agent_identifier(bytes(size))


def test_header_of_data_taken_over_is_changed_in_a_copy() -> None:
    data = with_json(b"[1]")
    container = received(data)
    container.set_agent_identifier(AGENT)
    container.set_increment_counter_state(9)
    assert data == with_json(b"[1]")
    assert container.get_agent_identifier_bytes() == AGENT
    assert container.get_increment_counter() == 9
    assert read_json(container) == [1]


def test_agent_id_of_data_taken_over_stays_through_overwrite() -> None:
    source = FeagiByteContainer.new_empty()
    source.set_agent_identifier(AGENT)
    container = received(source.copy_out_as_byte_vector())
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON(1), 0)
    assert container.get_agent_identifier_bytes() == AGENT


# -- structs ------------------------------------------------------------------------------


def test_several_structs_in_order() -> None:
    voxels = mapped(3, 4)
    structs: list[Any] = [FeagiJSON([1]), voxels, FeagiJSON({"a": None}), mapped(0, 0)]
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_multiple_struct_data(structs, 5)
    copy = received(container.copy_out_as_byte_vector())
    for one in (container, copy):
        assert one.try_get_number_contained_structures() == 4
        assert [int(kind) for kind in one.get_contained_struct_types()] == [1, 11, 1, 11]
        assert [one.try_create_new_struct_from_index(index) for index in range(4)] == structs
        first = one.try_create_struct_from_first_found_struct_of_type(
            FeagiByteStructureType.NEURON_CATEGORICAL_XYZP
        )
        assert first == voxels


def test_no_struct_of_that_type_is_none() -> None:
    container = received(with_json(b"1"))
    kind = FeagiByteStructureType.NEURON_CATEGORICAL_XYZP
    assert container.try_create_struct_from_first_found_struct_of_type(kind) is None


@pytest.mark.parametrize("index", [-1, 1, 255])
def test_struct_that_is_not_there(index: int) -> None:
    with pytest.raises(FeagiDataError, match=f"no struct {index}: the container holds 1"):
        received(with_json(b"1")).try_create_new_struct_from_index(index)


def test_struct_limits() -> None:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_multiple_struct_data([FeagiJSON(0)] * 255, 0)
    before = container.copy_out_as_byte_vector()
    with pytest.raises(ContainerLimitError, match="256 structs"):
        container.overwrite_byte_data_with_multiple_struct_data([FeagiJSON(0)] * 256, 0)
    with pytest.raises(FeagiDataError, match="dict is no struct"):
        container.overwrite_byte_data_with_multiple_struct_data([{}], 0)  # type: ignore[list-item]
    assert container.copy_out_as_byte_vector() == before


def test_area_limit() -> None:
    empty = NeuronVoxelXYZPArrays()
    voxels = CorticalMappedXYZPNeuronVoxels()
    for index in range(65535):
        voxels.insert(b"c" + index.to_bytes(7, "little"), empty)
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(voxels, 0)
    assert len(read_voxels(received(container.copy_out_as_byte_vector()))) == 65535
    before = container.copy_out_as_byte_vector()
    voxels.insert(area(0), empty)
    with pytest.raises(ContainerLimitError, match="65536 areas"):
        container.overwrite_byte_data_with_single_struct_data(voxels, 0)
    with pytest.raises(ContainerLimitError, match="65536 areas"):
        container.overwrite_byte_data_with_multiple_struct_data([voxels], 0)
    with pytest.raises(ContainerLimitError, match="65536 areas"):
        container.reserve_xyzp([(key, 0) for key in voxels.mappings], 0)
    assert container.copy_out_as_byte_vector() == before


def test_size_limit_is_refused_before_memory_is_asked_for() -> None:
    container = FeagiByteContainer.new_empty()
    with pytest.raises(ContainerLimitError, match="4294967295"):
        container.reserve_xyzp([(area(0), 1 << 28)], 0)
    assert container.copy_out_as_byte_vector() == b"\x04" + bytes(51)


def test_later_record_of_the_same_area_wins() -> None:
    records = struct.pack("<8sII", area(0), 36, 16) + struct.pack("<8sII", area(0), 52, 32)
    body = struct.pack("<BBH", 11, 1, 2) + records + bytes(16) + struct.pack("<8I", *range(8))
    voxels = read_voxels(received(with_struct(body)))
    assert len(voxels) == 1
    assert voxels[area(0)].borrow_xyzp_vectors()[0].tolist() == [0, 1]


def test_gaps_any_order_and_shared_voxels_are_accepted() -> None:
    records = b"".join(
        struct.pack("<8sII", area(index), offset, 16)
        for index, offset in ((0, 80), (1, 60), (2, 60))
    )
    body = struct.pack("<BBH", 11, 1, 3) + records + bytes(60)
    assert len(body) == 112
    assert len(read_voxels(received(with_struct(body)))) == 3


@pytest.mark.parametrize("offset", [0, 20, 35, 36])
def test_area_without_neurons_may_point_anywhere_inside(offset: int) -> None:
    body = struct.pack("<BBH8sII", 11, 1, 1, area(0), offset, 0) + bytes(16)
    assert len(read_voxels(received(with_struct(body)))[area(0)]) == 0


def test_area_without_neurons_beyond_the_struct() -> None:
    body = struct.pack("<BBH8sII", 11, 1, 1, area(0), 37, 0) + bytes(16)
    with pytest.raises(StructCorruptError, match="to 37; the struct has 36"):
        received(with_struct(body))


# -- encoding -----------------------------------------------------------------------------


def test_remembered_layout_gives_the_bytes_of_a_fresh_container() -> None:
    reused = FeagiByteContainer.new_empty()
    shapes = [(3, 5), (3, 5), (3, 6), (2, 6), (3, 5), (0, 0), (3, 5), (1, 0)]
    for counter, (areas, count) in enumerate(shapes):
        voxels = mapped(areas, count, seed=counter)
        fresh = FeagiByteContainer.new_empty()
        for container in (fresh, reused):
            container.overwrite_byte_data_with_single_struct_data(voxels, counter)
        assert reused.copy_out_as_byte_vector() == fresh.copy_out_as_byte_vector()
        assert read_voxels(reused) == voxels


def test_layout_is_laid_out_anew_after_other_writing() -> None:
    container = FeagiByteContainer.new_empty()
    voxels = mapped(2, 3)
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    expected = container.copy_out_as_byte_vector()
    for disturb in (
        lambda: container.overwrite_byte_data_with_single_struct_data(FeagiJSON("x" * 99), 1),
        lambda: container.try_write_data_by_copy_and_verify(with_json(b"[7]")),
        lambda: container.try_write_data_by_ownership_to_container_and_verify(with_json(b"[7]")),
        container.free_unused_allocation,
    ):
        disturb()
        container.overwrite_byte_data_with_single_struct_data(voxels, 1)
        assert container.copy_out_as_byte_vector() == expected


def test_changed_voxels_are_encoded_again() -> None:
    container = FeagiByteContainer.new_empty()
    voxels = mapped(2, 3)
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    voxels.insert(area(1), neurons(3, seed=50))
    voxels.insert(area(9), neurons(1))
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    assert read_voxels(container) == voxels
    voxels.remove(area(0))
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    assert read_voxels(container) == voxels
    voxels.clear()
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    assert len(read_voxels(container)) == 0


@pytest.mark.parametrize("several", [False, True])
def test_source_inside_the_target_is_not_eaten(several: bool) -> None:
    container = FeagiByteContainer.new_empty()
    voxels = mapped(3, 40)
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    expected = CorticalMappedXYZPNeuronVoxels({CorticalID(area(8)): neurons(7)})
    moved = CorticalMappedXYZPNeuronVoxels({CorticalID(area(8)): neurons(7)})
    for key, arrays in read_voxels(container):  # views into the container itself
        moved.insert(key, arrays)
        expected.insert(key, arrays.copy())
    if several:
        container.overwrite_byte_data_with_multiple_struct_data([FeagiJSON(1), moved], 2)
    else:
        container.overwrite_byte_data_with_single_struct_data(moved, 2)
    assert read_voxels(container, int(several)) == expected
    assert moved == expected


def test_own_bytes_given_back_to_the_container() -> None:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON([1, 2]), 3)
    container.try_write_data_by_copy_and_verify(container.get_byte_ref())
    assert read_json(container) == [1, 2]


def test_strided_arrays_are_encoded() -> None:
    wide = np.arange(40, dtype=np.uint32).reshape(10, 4)
    voxels = CorticalMappedXYZPNeuronVoxels()
    voxels.insert(
        area(0),
        NeuronVoxelXYZPArrays.new_from_numpy(
            wide[:, 0], wide[:, 1], wide[:, 2], np.ones(20, np.float32)[::2]
        ),
    )
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(voxels, 0)
    assert read_voxels(received(container.copy_out_as_byte_vector())) == voxels


# -- in place -----------------------------------------------------------------------------


def test_reserve_writes_into_the_frame() -> None:
    container = FeagiByteContainer.new_empty()
    layout = [(area(0), 2), (CorticalID(area(1)), 0), (area(2), 3)]
    views = container.reserve_xyzp(layout, 7)
    assert list(views) == [area(0), area(1), area(2)]
    expected = CorticalMappedXYZPNeuronVoxels()
    for index, (key, count) in enumerate(layout):
        x, y, z, p = views[CorticalID(key)]
        assert [view.dtype.name for view in (x, y, z, p)] == ["uint32"] * 3 + ["float32"]
        assert x.shape == y.shape == z.shape == p.shape == (count,)
        arrays = neurons(count, seed=index)
        for target, source in zip((x, y, z, p), arrays.borrow_xyzp_vectors(), strict=True):
            target[:] = source
        expected.insert(key, arrays)
    assert read_voxels(received(container.copy_out_as_byte_vector())) == expected
    assert container.get_increment_counter() == 7


def test_reserve_again_returns_the_same_views() -> None:
    container = FeagiByteContainer.new_empty()
    layout = [(area(index), 10) for index in range(4)]
    views = container.reserve_xyzp(layout, 1)
    assert container.reserve_xyzp(list(layout), 2) is views
    assert container.reserve_xyzp(layout[:3], 3) is not views
    assert container.get_increment_counter() == 3
    assert len(read_voxels(container)) == 3
    assert container.reserve_xyzp([], 4) == {}
    assert container.get_number_of_bytes_used() == 60


def test_reserve_after_mapped_voxels_of_the_same_layout() -> None:
    container = FeagiByteContainer.new_empty()
    voxels = mapped(2, 3)
    container.overwrite_byte_data_with_single_struct_data(voxels, 1)
    views = container.reserve_xyzp([(area(0), 3), (area(1), 3)], 2)
    views[CorticalID(area(1))][0][0] = 77
    assert read_voxels(container)[area(1)].borrow_xyzp_vectors()[0][0] == 77
    container.overwrite_byte_data_with_single_struct_data(voxels, 3)
    assert read_voxels(container) == voxels


def test_views_of_outgrown_memory_stay_as_they_are() -> None:
    container = FeagiByteContainer.new_empty()
    views = container.reserve_xyzp([(area(0), 4)], 1)
    x = views[CorticalID(area(0))][0]
    x[:] = 5
    ref = container.get_byte_ref()
    bytes_before = bytes(ref)
    container.reserve_xyzp([(area(0), 100_000)], 2)
    x[:] = 6
    assert x.tolist() == [6, 6, 6, 6]
    assert len(ref) == len(bytes_before)
    assert 6 not in container.get_byte_ref()[72:2000]


@pytest.mark.parametrize("count", [-1, 1.5, "3", None])
def test_reserve_bad_count(count: Any) -> None:
    with pytest.raises(FeagiDataError):
        FeagiByteContainer.new_empty().reserve_xyzp([(area(0), count)], 0)


def test_reserve_bad_areas() -> None:
    container = FeagiByteContainer.new_empty()
    with pytest.raises(FeagiDataError, match="twice"):
        container.reserve_xyzp([(area(0), 1), (area(0), 2)], 0)
    with pytest.raises(CorticalIDError):
        container.reserve_xyzp([(b"xinf____", 1)], 0)
    assert container.copy_out_as_byte_vector() == b"\x04" + bytes(51)


def test_growth_is_geometric() -> None:
    container = FeagiByteContainer.new_empty()
    sizes = set()
    for count in range(1, 2000):
        container.reserve_xyzp([(area(0), count)], 0)
        sizes.add(container.get_number_of_bytes_allocated())
    assert len(sizes) < 14
    container.reserve_xyzp([(area(0), 1)], 0)
    container.free_unused_allocation()
    assert container.get_number_of_bytes_allocated() == container.get_number_of_bytes_used() == 92


def test_free_unused_allocation_keeps_the_bytes() -> None:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(mapped(1, 1000), 1)
    container.overwrite_byte_data_with_single_struct_data(mapped(1, 2), 2)
    before = container.copy_out_as_byte_vector()
    held = container.get_byte_ref()
    container.free_unused_allocation()
    assert container.copy_out_as_byte_vector() == before == bytes(held)
    taken = received(before)
    taken.free_unused_allocation()
    assert taken.get_number_of_bytes_allocated() == len(before)


# -- reading ------------------------------------------------------------------------------


def test_reading_copies_nothing_and_is_read_only() -> None:
    source = FeagiByteContainer.new_empty()
    source.overwrite_byte_data_with_single_struct_data(mapped(2, 10), 1)
    data = bytearray(source.copy_out_as_byte_vector())
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    memory = np.frombuffer(data, np.uint8)
    for one in (container, source):
        for _, arrays in read_voxels(one):
            for view in arrays.borrow_xyzp_vectors():
                assert not view.flags.writeable
                assert not view.flags.owndata
                assert np.shares_memory(view, memory) == (one is container)
    assert source.get_byte_ref().readonly
    assert container.get_byte_ref().readonly


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, np.frombuffer])
def test_kinds_of_buffers(kind: Any) -> None:
    data = with_json(b'{"k":1}')
    given = np.frombuffer(data, np.uint8) if kind is np.frombuffer else kind(data)
    for name in (
        "try_write_data_by_copy_and_verify",
        "try_write_data_by_ownership_to_container_and_verify",
    ):
        container = FeagiByteContainer.new_empty()
        getattr(container, name)(given)
        assert read_json(container) == {"k": 1}


@pytest.mark.parametrize("given", ["text", 52, None, memoryview(bytes(208))[::2], [4]])
def test_no_buffers(given: Any) -> None:
    container = FeagiByteContainer.new_empty()
    with pytest.raises(FeagiDataError):
        container.try_write_data_by_copy_and_verify(given)


def test_by_copy_does_not_keep_the_source() -> None:
    data = bytearray(with_json(b"[1]"))
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_copy_and_verify(data)
    data[:] = bytes(len(data))
    assert read_json(container) == [1]


def test_refused_data_invalidates_until_written_again() -> None:
    container = FeagiByteContainer.new_empty()
    with pytest.raises(ContainerTooShortError, match="12 bytes"):
        container.try_write_data_by_copy_and_verify(b"\x04" + bytes(11))
    assert not container.is_valid()
    for read in (
        container.copy_out_as_byte_vector,
        container.get_increment_counter,
        container.try_get_number_contained_structures,
        container.get_contained_struct_types,
        container.get_number_of_bytes_used,
        container.get_agent_identifier_bytes,
    ):
        with pytest.raises(FeagiDataError, match="refused"):
            read()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON(1), 0)
    assert container.is_valid()
    assert read_json(container) == 1


# -- JSON ---------------------------------------------------------------------------------

JSON_ACCEPTED: list[tuple[bytes, Any]] = [
    (b" 1 ", 1),
    (b'{"b":1,"a":2,"b":3}', {"a": 2, "b": 3}),
    (b"18446744073709551615", (1 << 64) - 1),
    (b"18446744073709551616", 18446744073709551616.0),
    (b"-9223372036854775808", -(1 << 63)),
    (b"123456789012345678901234567890", 1.2345678901234568e29),
    (b"1e-400", 0.0),
    (b"0e999999999999", 0.0),
    (b'"\\ud83d\\ude00"', "\U0001f600"),
    (b'"\\\\ud800"', "\\ud800"),
    (b'"\x7f\\u0000"', "\x7f\0"),
    (b"[" * 127 + b"]" * 127, None),
    (b'{"a":' * 127 + b"1" + b"}" * 127, None),
    (b'"' + b"[" * 500 + b'"', "[" * 500),
    (b'["\\"[[[' + b"[" * 200 + b'",1]', ['"[[[' + "[" * 200, 1]),
]
JSON_REFUSED: list[tuple[bytes, str]] = [
    (b"", "Expecting value"),
    (b"NaN", "NaN"),
    (b"[-Infinity]", "-Infinity"),
    (b"Infinity", "Infinity"),
    (b"1e400", "out of range"),
    (b"-1e400", "out of range"),
    (b"1" * 400, "out of range"),
    (b"1" * 10_000, "out of range"),
    (b"1 x", "Extra data"),
    (b"01", "Extra data"),
    (b"1.", "Extra data"),
    (b"[1,]", "JSON text of 4 bytes"),
    (b'"\\ud800"', "lone surrogate"),
    (b'"\\udc00"', "lone surrogate"),
    (b'"\\udbff\\u0041"', "lone surrogate"),
    (b'{"a":"\\uD800","a":1}', "lone surrogate"),
    (b'"\xed\xa0\x80"', "not UTF-8 from byte 1"),
    (b'"\xff"', "not UTF-8 from byte 1"),
    (b"\xef\xbb\xbf1", "Expecting value"),
    (b'"a\tb"', "control character"),
    (b"[" * 128 + b"]" * 128, "128 levels"),
    (b"[" * 100_000, "too deep"),
    ((b'{"a":' * 64 + b"[" * 64 + b"]" * 64 + b"}" * 64), "128 levels"),
    (b"-", "Expecting value"),
    (b"\x00", "Expecting value"),
]


@pytest.mark.parametrize(("text", "value"), JSON_ACCEPTED, ids=lambda part: repr(part)[:24])
def test_json_accepted(text: bytes, value: Any) -> None:
    found = read_json(received(with_json(text)))
    if value is not None:
        assert found == value
        assert type(found) is type(value)


def test_json_minus_zero_is_a_float() -> None:
    found = read_json(received(with_json(b"-0")))
    assert str(found) == "-0.0"


@pytest.mark.parametrize(("text", "reason"), JSON_REFUSED, ids=lambda part: repr(part)[:24])
def test_json_refused(text: bytes, reason: str) -> None:
    with pytest.raises(StructCorruptError, match=reason):
        received(with_json(text))


def test_json_is_written_compact_and_sorted() -> None:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(
        FeagiJSON({"b": [1, 2.5, None, True], "a": "é☃"}), 0
    )
    assert container.copy_out_as_byte_vector() == with_json(
        '{"a":"é☃","b":[1,2.5,null,true]}'.encode()
    )


def _cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf")],
        {1: 2, "a": 3},
        "\ud800",
        object(),
        {"x": b"bytes"},
        10**400,
        _cycle(),
        _nested(128),
        _nested(5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_value_without_a_form(value: Any) -> None:
    container = FeagiByteContainer.new_empty()
    with pytest.raises(FeagiDataError):
        container.overwrite_byte_data_with_single_struct_data(FeagiJSON(value), 0)
    assert container.copy_out_as_byte_vector() == b"\x04" + bytes(51)


def test_json_struct_compares_by_value() -> None:
    assert FeagiJSON([1]) == FeagiJSON([1])
    assert FeagiJSON([1]) != FeagiJSON([2])
    assert FeagiJSON([1]) != [1]
    assert repr(FeagiJSON([1])) == "FeagiJSON([1])"
