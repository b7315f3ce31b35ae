# SPDX-License-Identifier: Apache-2.0
"""Only what a board has declared passes, both ways, and nothing valid is lost."""

from __future__ import annotations

import numpy as np
import pytest

from feagi_io_host.bridge.declaration import BoardDeclaration, UnitDeclaration
from feagi_io_host.bridge.screening import Screen
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays

SENSOR = CorticalID(b"iagp\x01\0\0\0")
MOTOR = CorticalID(b"omot\x05\0\0\0")
OTHER = CorticalID(b"omot\x05\0\x07\0")
AGENT = bytes(range(1, 49))
Voxel = tuple[int, int, int, float]


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool()


@pytest.fixture
def screen(pool: BufferPool) -> Screen:
    return Screen(
        BoardDeclaration(
            "b",
            "",
            "",
            (UnitDeclaration(SENSOR, 4, 8, False, False, True),),
            (UnitDeclaration(MOTOR, 1, 8, True, False, False),),
        ),
        pool,
    )


def mapped(areas: dict[CorticalID, list[Voxel]]) -> CorticalMappedXYZPNeuronVoxels:
    voxels = CorticalMappedXYZPNeuronVoxels()
    for cortical_id, rows in areas.items():
        x, y, z, p = zip(*rows, strict=True) if rows else ((), (), (), ())
        voxels.insert(
            cortical_id,
            NeuronVoxelXYZPArrays.new_from_numpy(
                np.array(x, np.uint32),
                np.array(y, np.uint32),
                np.array(z, np.uint32),
                np.array(p, np.float32),
            ),
        )
    return voxels


def frame(*structs: CorticalMappedXYZPNeuronVoxels | FeagiJSON) -> bytes:
    container = FeagiByteContainer()
    container.set_agent_identifier(AGENT)
    container.overwrite_byte_data_with_multiple_struct_data(list(structs), 77)
    return container.copy_out_as_byte_vector()


def rows(fbc: SharedFBC) -> dict[CorticalID, list[Voxel]]:
    struct = fbc.container.try_create_new_struct_from_index(0)
    assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
    return {
        cortical_id: list(
            zip(*(part.tolist() for part in arrays.borrow_xyzp_vectors()), strict=True)
        )
        for cortical_id, arrays in struct
    }


def taken(screen: Screen, data: bytes) -> SharedFBC:
    fbc = screen.take_sensory(memoryview(data))
    assert fbc is not None
    return fbc


def test_a_frame_within_the_declaration_passes_byte_for_byte(
    screen: Screen, pool: BufferPool
) -> None:
    data = frame(mapped({SENSOR: [(0, 0, 0, 1.0), (3, 0, 7, 0.5)]}))
    with taken(screen, data) as fbc:
        assert bytes(fbc.view) == data
    assert pool.counters()["leased"] == 0
    assert screen.sensory.voxels_refused == 0


@pytest.mark.parametrize(
    "bad",
    [(4, 0, 0, 1.0), (0, 1, 0, 1.0), (0, 0, 8, 1.0), (0, 0, 0, float("nan")), (1 << 31, 0, 0, 1.0)],
)
@pytest.mark.parametrize("good", [1, 1000])
def test_one_bad_voxel_costs_one_voxel(
    screen: Screen, pool: BufferPool, bad: Voxel, good: int
) -> None:
    before: list[Voxel] = [(1, 0, 2, 1.0)] * good
    data = frame(mapped({SENSOR: [*before, bad, (3, 0, 7, 0.5)]}))
    with taken(screen, data) as fbc:
        assert rows(fbc) == {SENSOR: [*before, (3, 0, 7, 0.5)]}
        assert fbc.container.get_increment_counter() == 77
        assert fbc.container.get_agent_identifier_bytes() == AGENT
    assert screen.sensory.voxels_refused == 1
    assert pool.counters()["leased"] == 0


def test_a_signed_sensor_may_use_two_columns_a_channel(pool: BufferPool) -> None:
    signed = UnitDeclaration(SENSOR, 2, 8, True, False, True)
    screen = Screen(BoardDeclaration("b", "", "", (signed,), ()), pool)
    data = frame(mapped({SENSOR: [(0, 0, 1, 1.0), (3, 0, 7, 1.0)]}))
    with taken(screen, data) as fbc:
        assert bytes(fbc.view) == data
    with taken(screen, frame(mapped({SENSOR: [(0, 0, 1, 1.0), (4, 0, 7, 1.0)]}))) as fbc:
        assert rows(fbc) == {SENSOR: [(0, 0, 1, 1.0)]}
    assert screen.sensory.voxels_refused == 1


def test_an_undeclared_area_is_taken_out(screen: Screen, pool: BufferPool) -> None:
    data = frame(mapped({MOTOR: [(0, 0, 0, 1.0)], SENSOR: [(1, 0, 2, 1.0)]}))
    with taken(screen, data) as fbc:
        assert rows(fbc) == {SENSOR: [(1, 0, 2, 1.0)]}
    assert (screen.sensory.areas_refused, screen.sensory.voxels_refused) == (1, 1)
    assert screen.take_sensory(memoryview(frame(mapped({MOTOR: [(0, 0, 0, 1.0)]})))) is None
    assert screen.sensory.frames_refused == 1
    assert pool.counters()["leased"] == 0


def test_only_voxels_pass(screen: Screen, pool: BufferPool) -> None:
    voxels = mapped({SENSOR: [(1, 0, 2, 1.0)]})
    with taken(screen, frame(FeagiJSON({"a": 1}), voxels)) as fbc:
        assert bytes(fbc.view) == frame(voxels)
    assert screen.take_sensory(memoryview(frame(FeagiJSON({"a": 1})))) is None
    assert screen.take_sensory(memoryview(frame())) is None
    assert pool.counters()["leased"] == 0


def test_a_frame_without_areas_passes(screen: Screen) -> None:
    data = frame(mapped({}))
    with taken(screen, data) as fbc:
        assert bytes(fbc.view) == data


def test_damaged_frames_raise_and_leak_nothing(screen: Screen, pool: BufferPool) -> None:
    data = frame(mapped({SENSOR: [(1, 0, 2, 1.0)]}))
    for size in range(len(data)):
        with pytest.raises(FeagiDataError):
            screen.take_sensory(memoryview(data)[:size])
    assert pool.counters()["leased"] == 0


def test_motor_frame_of_declared_areas_passes_as_it_is(screen: Screen) -> None:
    with SharedFBC.from_bytes(frame(mapped({MOTOR: [(0, 0, 3, 1.0)]}))) as fbc:
        passed = screen.cut_motor(fbc)
        assert passed is fbc
        passed.release()


def test_motor_frame_is_cut_down_to_the_declared_areas(screen: Screen, pool: BufferPool) -> None:
    data = frame(mapped({OTHER: [(5, 5, 5, 1.0)], MOTOR: [(0, 0, 3, 1.0)]}))
    with SharedFBC.from_bytes(data) as fbc:
        passed = screen.cut_motor(fbc)
        assert passed is not None
        with passed:
            assert rows(passed) == {MOTOR: [(0, 0, 3, 1.0)]}
            assert passed.container.get_increment_counter() == 77
    assert screen.motor.areas_refused == 1
    assert pool.counters()["leased"] == 0


def test_motor_frame_for_others_only_is_kept_back_and_an_empty_one_passes(screen: Screen) -> None:
    with SharedFBC.from_bytes(frame(mapped({OTHER: [(0, 0, 3, 1.0)]}))) as fbc:
        assert screen.cut_motor(fbc) is None
    with SharedFBC.from_bytes(frame(mapped({}))) as fbc:
        passed = screen.cut_motor(fbc)
        assert passed is fbc
        passed.release()
