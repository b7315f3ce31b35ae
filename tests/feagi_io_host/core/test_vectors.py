# SPDX-License-Identifier: Apache-2.0
"""Golden vectors: valid containers read as accounted for, malformed ones are refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import (
    ContainerTooShortError,
    ContainerVersionError,
    CorticalIDError,
    FeagiDataError,
    StructCorruptError,
    StructTypeError,
    StructVersionError,
)
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.types import FeagiByteStructureType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from feagi_wire.container import StaticFBC
from feagi_wire.errors import check
from tests.feagi_io_host.core.golden import MALFORMED, VALID, Vector, read_voxels

by_name = pytest.mark.parametrize("vector", VALID, ids=lambda vector: vector.name)

ONE_XYZP = [
    vector for vector in VALID if [part["type"] for part in vector.account["structs"]] == [11]
]
# Packed by hand with its keys in another order than any writer's.
UNSORTED = {"v20_json_utf8"}


def received(data: bytes) -> FeagiByteContainer:
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    return container


def test_vectors_are_there() -> None:
    assert len(VALID) == 32
    assert len(MALFORMED) == 48
    assert len(ONE_XYZP) == 19


@by_name
def test_valid_reads_as_its_account(vector: Vector) -> None:
    container = received(vector.data)
    account = vector.account
    assert container.get_increment_counter() == account["increment"]
    assert container.get_agent_identifier_bytes().hex() == account["agent_id_hex"]
    assert container.try_get_number_contained_structures() == account["struct_count"]
    assert [int(kind) for kind in container.get_contained_struct_types()] == [
        part["type"] for part in account["structs"]
    ]
    for index, part in enumerate(account["structs"]):
        made = container.try_create_new_struct_from_index(index)
        if isinstance(made, FeagiJSON):
            assert made.value == part["json"]
            continue
        assert [key.hex() for key in made.mappings] == [
            area["cortical_id_hex"] for area in part["areas"]
        ]
        for (_, arrays), area in zip(made, part["areas"], strict=True):
            x, y, z, p = arrays.borrow_xyzp_vectors()
            assert len(arrays) == area["neurons"]
            if "x" in area:
                assert x.tolist() == area["x"]
                assert y.tolist() == area["y"]
                assert z.tolist() == area["z"]
                assert p.view(np.uint32).tolist() == area["p_bits"]


@by_name
def test_valid_encodes_to_the_same_bytes(vector: Vector) -> None:
    source = received(vector.data)
    count = source.try_get_number_contained_structures()
    structs = [source.try_create_new_struct_from_index(index) for index in range(count)]
    target = FeagiByteContainer.new_empty()
    target.set_agent_identifier(source.get_agent_identifier_bytes())
    target.overwrite_byte_data_with_multiple_struct_data(structs, source.get_increment_counter())
    # Bytes after the last struct carry nothing and are not written again.
    size = target.get_number_of_bytes_used()
    written = target.copy_out_as_byte_vector()
    if vector.name in UNSORTED:
        assert sorted(written) == sorted(vector.data)
        assert received(written).try_create_new_struct_from_index(0) == structs[0]
    else:
        assert written == vector.data[:size]
    if "trailing" not in vector.name:
        assert size == len(vector.data)


@pytest.mark.parametrize("vector", ONE_XYZP, ids=lambda vector: vector.name)
def test_valid_single_struct_and_in_place_encode_to_the_same_bytes(vector: Vector) -> None:
    source = received(vector.data)
    voxels = read_voxels(source)
    counter = source.get_increment_counter()
    single = FeagiByteContainer.new_empty()
    in_place = FeagiByteContainer.new_empty()
    for target in (single, in_place):
        target.set_agent_identifier(source.get_agent_identifier_bytes())
    for _ in range(2):  # once laid out, once from the remembered layout
        single.overwrite_byte_data_with_single_struct_data(voxels, counter)
        views = in_place.reserve_xyzp([(key, len(arrays)) for key, arrays in voxels], counter)
        for key, arrays in voxels:
            for target_view, view in zip(views[key], arrays.borrow_xyzp_vectors(), strict=True):
                np.copyto(target_view.view(np.uint32), view.view(np.uint32))
        size = single.get_number_of_bytes_used()
        assert single.copy_out_as_byte_vector() == vector.data[:size]
        assert in_place.copy_out_as_byte_vector() == vector.data[:size]


EXPECTED = {
    **dict.fromkeys(["m01", "m02", "m03", "m04", "m05", "m13", "m14", "m15", "m16", "m17", "m18"],
                    ContainerTooShortError),
    **dict.fromkeys(["m06", "m07", "m08", "m09", "m10", "m11", "m12", "m55"],
                    ContainerVersionError),
    **dict.fromkeys(["m25", "m26", "m27", "m28", "m29", "m30", "m31", "m32", "m33"],
                    StructTypeError),
    **dict.fromkeys(["m34", "m35", "m53"], StructVersionError),
    **dict.fromkeys(["m46", "m47"], CorticalIDError),
    **dict.fromkeys(["m20", "m21", "m22", "m23", "m36", "m38", "m39", "m40", "m42", "m43", "m45",
                     "m49", "m50", "m51", "m54"], StructCorruptError),
}  # fmt: skip


@pytest.mark.parametrize("vector", MALFORMED, ids=lambda vector: vector.name)
def test_malformed_is_refused_with_numbers(vector: Vector) -> None:
    container = FeagiByteContainer.new_empty()
    for write in (
        container.try_write_data_by_copy_and_verify,
        container.try_write_data_by_ownership_to_container_and_verify,
    ):
        with pytest.raises(FeagiDataError) as caught:
            write(vector.data)
        assert caught.type is EXPECTED[vector.name[:3]]
        assert any(character.isdigit() for character in str(caught.value))
        assert not container.is_valid()
        with pytest.raises(FeagiDataError, match="refused"):
            container.get_byte_ref()


@pytest.mark.parametrize("name", ["m04", "m13"])
def test_old_layout_is_named(name: str) -> None:
    vector = next(vector for vector in MALFORMED if vector.name.startswith(name))
    with pytest.raises(FeagiDataError, match="8-byte agent id"):
        received(vector.data)


def test_old_layout_is_named_for_long_containers_too() -> None:
    body = struct.pack("<BBH8sII", 11, 1, 1, b"iinf\x01\0\0\0", 20, 800) + bytes(800)
    old = struct.pack("<BHB8sI", 4, 0, 1, bytes(8), len(body)) + body
    with pytest.raises(FeagiDataError, match="8-byte agent id"):
        received(old)


@pytest.mark.parametrize("name", ["m01", "m02", "m05", "m17", "m25"])
def test_old_layout_is_not_named_otherwise(name: str) -> None:
    vector = next(vector for vector in MALFORMED if vector.name.startswith(name))
    with pytest.raises(FeagiDataError) as caught:
        received(vector.data)
    assert "8-byte" not in str(caught.value)


def test_unaligned_voxels_behind_json_of_odd_length() -> None:
    vector = next(vector for vector in VALID if vector.name.startswith("v21"))
    voxels = received(vector.data).try_create_struct_from_first_found_struct_of_type(
        FeagiByteStructureType.NEURON_CATEGORICAL_XYZP
    )
    assert isinstance(voxels, CorticalMappedXYZPNeuronVoxels)
    x, _, z, p = next(iter(voxels))[1].borrow_xyzp_vectors()
    assert not x.flags.aligned
    assert (x.tolist(), z.tolist(), p.tolist()) == ([0], [3], [1.0])


# -- the portable codec of the boards, same bytes from the same source tree ------------------

JSON_TEXT_ONLY = ("m49", "m51", "m54")  # the portable reader leaves JSON text to its caller


@pytest.mark.parametrize("vector", ONE_XYZP, ids=lambda vector: vector.name)
def test_portable_codec_writes_the_same_bytes(vector: Vector) -> None:
    voxels = read_voxels(received(vector.data))
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(voxels, 99)
    portable = StaticFBC(bytearray(len(vector.data) + 16))
    check(portable.begin(99, len(voxels)))
    for key, arrays in voxels:
        x, y, z, p = (bytearray(view.tobytes()) for view in arrays.borrow_xyzp_vectors())
        check(portable.begin_area(key, len(arrays)))
        check(portable.put_arrays(x, y, z, p, len(arrays)))
        check(portable.end_area())
    length = check(portable.end())
    assert portable.buf[:length] == container.get_byte_ref()


@pytest.mark.parametrize("vector", VALID + MALFORMED, ids=lambda vector: vector.name)
def test_portable_codec_judges_alike(vector: Vector) -> None:
    size = len(vector.data)
    result = StaticFBC(bytearray(vector.data + bytes(4))).parse(size)
    good = vector in VALID or vector.name.startswith(JSON_TEXT_ONLY)
    assert (result >= 0) == good
    if vector in VALID:
        structs = vector.account["structs"]
        assert result == sum(len(part.get("areas", [])) for part in structs)
