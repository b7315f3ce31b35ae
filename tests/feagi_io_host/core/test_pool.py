# SPDX-License-Identifier: Apache-2.0
"""Leases: reuse, use after release, memory that is still looked at, no payload allocation."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ContainerTooShortError, FeagiDataError, LeaseError
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.pool import BufferPool, SharedFBC
from feagi_io_host.core.types import CorticalID
from tests.feagi_io_host.core.golden import area, mapped, read_json, read_voxels

JOIN_TIMEOUT_S = 30


def json_container(pool: BufferPool, value: object) -> FeagiByteContainer:
    container = pool.acquire()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON(value), 1)
    return container


def test_last_release_gives_the_memory_back() -> None:
    pool = BufferPool()
    shared = pool.share(json_container(pool, [1]))
    assert shared.retain() is shared
    assert shared.lease_count == 2
    shared.release()
    assert read_json(shared.container) == [1]
    assert pool.counters()["leased"] == 1
    shared.release()
    assert pool.counters() == {
        "created": 1,
        "leased": 0,
        "free": 1,
        "released": 1,
        "let_go": 0,
        "still_viewed": 0,
    }


def test_memory_is_used_again_and_looks_new() -> None:
    pool = BufferPool()
    container = json_container(pool, "x" * 5000)
    container.set_agent_identifier(b"\xff" * 48)
    pool.share(container).release()
    again = pool.acquire()
    assert again.get_number_of_bytes_allocated() >= 5000
    assert again.copy_out_as_byte_vector() == b"\x04" + bytes(51)
    assert again.try_get_number_contained_structures() == 0
    assert pool.counters()["created"] == 1
    pool.discard(again)


def test_remembered_layout_survives_the_pool() -> None:
    pool = BufferPool()
    layout = [(area(0), 3), (area(1), 2)]
    found = []
    for counter in range(3):
        container = pool.acquire()
        views = container.reserve_xyzp(layout, counter)
        views[CorticalID(area(1))][0][:] = counter
        found.append(views)
        with pool.share(container) as shared:
            assert shared.container.get_increment_counter() == counter
            assert read_voxels(shared.container)[area(1)].borrow_xyzp_vectors()[0][1] == counter
    assert found[0] is found[1] is found[2]


def test_every_use_after_the_last_release_is_refused() -> None:
    pool = BufferPool()
    container = json_container(pool, 1)
    shared = pool.share(container)
    with shared as same:
        assert same is shared
        assert len(shared) == len(shared.view) == 59
    for use in (
        shared.retain,
        shared.release,
        lambda: shared.view,
        lambda: shared.container,
        lambda: len(shared),
        container.get_byte_ref,
        container.copy_out_as_byte_vector,
        container.get_number_of_bytes_allocated,
        lambda: container.try_create_new_struct_from_index(0),
        lambda: container.reserve_xyzp([], 0),
        lambda: container.set_increment_counter_state(1),
        lambda: container.try_write_data_by_copy_and_verify(b""),
        container.free_unused_allocation,
        lambda: pool.share(container),
        lambda: pool.discard(container),
    ):
        with pytest.raises(LeaseError):
            use()
    assert pool.counters()["released"] == 1


def test_shared_container_cannot_be_written() -> None:
    pool = BufferPool()
    container = json_container(pool, 1)
    shared = pool.share(container)
    before = bytes(shared.view)
    for write in (
        lambda: container.reserve_xyzp([(area(0), 1)], 0),
        lambda: container.overwrite_byte_data_with_single_struct_data(FeagiJSON(2), 0),
        lambda: container.overwrite_byte_data_with_single_struct_data(mapped(1, 1), 0),
        lambda: container.overwrite_byte_data_with_multiple_struct_data([], 0),
        lambda: container.set_agent_identifier(bytes(48)),
        lambda: container.set_increment_counter_state(5),
        lambda: container.try_write_data_by_copy_and_verify(before),
        lambda: container.try_write_data_by_ownership_to_container_and_verify(before),
        container.free_unused_allocation,
        lambda: pool.share(container),
        lambda: pool.discard(container),
    ):
        with pytest.raises(LeaseError):
            write()
    assert bytes(shared.view) == before
    assert shared.view.readonly
    shared.release()


@pytest.mark.parametrize("kept", ["view", "slice", "arrays", "lazy voxels", "numpy"])
def test_memory_still_looked_at_is_not_used_again(kept: str) -> None:
    pool = BufferPool()
    container = pool.acquire()
    container.overwrite_byte_data_with_single_struct_data(mapped(1, 100), 1)
    shared = pool.share(container)
    held: object
    if kept == "view":
        held = shared.view
    elif kept == "slice":
        held = shared.view[60:70]
    elif kept == "arrays":
        held = read_voxels(shared.container)[area(0)].borrow_xyzp_vectors()[0]
    elif kept == "lazy voxels":
        held = read_voxels(shared.container)
    else:
        held = np.frombuffer(shared.view, np.uint8)
    expected = bytes(shared.view)
    shared.release()
    assert pool.counters()["still_viewed"] == 1
    assert pool.counters()["free"] == 0
    other = pool.acquire()
    other.overwrite_byte_data_with_single_struct_data(mapped(1, 100, seed=9), 2)
    if isinstance(held, memoryview):
        assert expected.find(bytes(held)) >= 0
    pool.discard(other)
    del held
    assert pool.counters() == {
        "created": 2,
        "leased": 0,
        "free": 1,
        "released": 2,
        "let_go": 0,
        "still_viewed": 1,
    }


def test_memory_looked_at_for_a_while_rests_for_so_long() -> None:
    # A socket library lets go of a frame a moment after it has said so.
    pool = BufferPool()
    held = []
    for counter in range(3):
        container = pool.acquire()
        container.overwrite_byte_data_with_single_struct_data(mapped(1, 100), counter)
        with pool.share(container) as shared:
            held.append(shared.view)
    assert pool.counters()["created"] == pool.counters()["still_viewed"] == 3
    kept = bytes(held[0]), bytes(held[2])
    del held[1]
    for counter in range(5):
        container = pool.acquire()
        container.overwrite_byte_data_with_single_struct_data(mapped(1, 100, seed=9), counter)
        pool.share(container).release()
    assert pool.counters()["created"] == 3
    assert (bytes(held[0]), bytes(held[1])) == kept


def test_no_more_memory_rests_than_is_kept() -> None:
    pool = BufferPool(max_free=2)
    held = []
    for counter in range(5):
        with pool.share(json_container(pool, [counter])) as shared:
            held.append(shared.view)
    del held, shared
    pool.discard(pool.acquire())
    leased = [pool.acquire() for _ in range(3)]
    assert pool.counters()["created"] == 6  # two of the five were kept
    for container in leased:
        pool.discard(container)


def test_memory_no_longer_looked_at_is_used_again() -> None:
    pool = BufferPool()
    for counter in range(4):
        container = pool.acquire()
        container.overwrite_byte_data_with_single_struct_data(mapped(2, 50), counter)
        with pool.share(container) as shared:
            view = shared.view[3:9]
            voxels = read_voxels(shared.container)
            arrays = [arrays.borrow_xyzp_vectors() for _, arrays in voxels]
            del view, voxels, arrays
    assert pool.counters()["created"] == 1
    assert pool.counters()["still_viewed"] == 0


def test_pool_keeps_so_many_and_no_more() -> None:
    pool = BufferPool(max_free=2)
    for container in [pool.acquire() for _ in range(5)]:
        pool.discard(container)
    counters = pool.counters()
    assert (counters["created"], counters["free"], counters["let_go"]) == (5, 2, 3)
    with pytest.raises(ValueError, match="max_free is 0"):
        BufferPool(max_free=0)


def test_discard_and_share_want_an_open_lease_of_this_pool() -> None:
    pool, other = BufferPool(), BufferPool()
    container = pool.acquire()
    for use in (other.share, other.discard):
        with pytest.raises(LeaseError, match="not acquired from this pool"):
            use(container)
    for use in (pool.share, pool.discard):
        with pytest.raises(LeaseError):
            use(FeagiByteContainer.new_empty())
    with pytest.raises(LeaseError, match=r"BufferPool\.share"):
        SharedFBC.adopt(container)
    pool.discard(container)
    with pytest.raises(LeaseError):
        pool.discard(container)


def test_container_without_data_is_not_shared() -> None:
    pool = BufferPool()
    container = pool.acquire()
    with pytest.raises(FeagiDataError):
        container.try_write_data_by_copy_and_verify(b"junk")
    with pytest.raises(FeagiDataError):
        pool.share(container)
    pool.discard(container)
    assert pool.counters()["leased"] == 0


def test_data_taken_over_by_a_leased_container() -> None:
    pool = BufferPool()
    data = bytes(json_container(BufferPool(), [5]).get_byte_ref())
    container = pool.acquire()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    with pool.share(container) as shared:
        assert read_json(shared.container) == [5]
    assert pool.counters()["free"] == 1


def test_from_bytes_verifies_and_copies_nothing() -> None:
    pool = BufferPool()
    data = bytearray(json_container(pool, {"a": 1}).get_byte_ref())
    with SharedFBC.from_bytes(data) as shared:
        assert read_json(shared.container) == {"a": 1}
        assert np.shares_memory(np.frombuffer(shared.view, np.uint8), np.frombuffer(data, np.uint8))
        with pytest.raises(LeaseError):
            shared.container.set_increment_counter_state(1)
    with pytest.raises(LeaseError):
        _ = shared.view
    with pytest.raises(ContainerTooShortError):
        SharedFBC.from_bytes(b"")


def test_adopt() -> None:
    container = FeagiByteContainer.new_empty()
    shared = SharedFBC.adopt(container)
    with pytest.raises(LeaseError):
        SharedFBC.adopt(container)
    assert bytes(shared.view) == b"\x04" + bytes(51)
    shared.release()
    with pytest.raises(LeaseError):
        container.get_byte_ref()


def test_leases_from_many_threads() -> None:
    pool = BufferPool(max_free=4)
    errors: list[BaseException] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        try:
            start.wait(JOIN_TIMEOUT_S)
            for step in range(200):
                container = pool.acquire()
                views = container.reserve_xyzp([(area(0), 8)], step)
                views[CorticalID(area(0))][0][:] = number * 1000 + step
                shared = pool.share(container)
                shared.retain()
                shared.release()
                x = read_voxels(shared.container)[area(0)].borrow_xyzp_vectors()[0]
                assert x.tolist() == [number * 1000 + step] * 8
                del x
                shared.release()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_TIMEOUT_S)
    assert errors == []
    counters = pool.counters()
    assert counters["leased"] == 0
    assert counters["released"] == 800
    assert counters["created"] <= 4
    assert counters["still_viewed"] == 0


def test_release_by_many_threads_ends_the_lease_once() -> None:
    pool = BufferPool()
    shared = pool.share(json_container(pool, 1))
    for _ in range(799):
        shared.retain()

    def work() -> None:
        for _ in range(200):
            shared.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN_TIMEOUT_S)
    assert shared.lease_count == 0
    assert pool.counters()["released"] == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_no_payload_is_allocated_after_warm_up(in_place: bool) -> None:
    pool = BufferPool()
    voxels = mapped(20, 500)  # 160 KB of payload
    layout = [(key, len(arrays)) for key, arrays in voxels]

    def burst(counter: int) -> None:
        container = pool.acquire()
        if in_place:
            views = container.reserve_xyzp(layout, counter)
            for key, arrays in voxels:
                for target, source in zip(views[key], arrays.borrow_xyzp_vectors(), strict=True):
                    np.copyto(target, source)
        else:
            container.overwrite_byte_data_with_single_struct_data(voxels, counter)
        with pool.share(container) as shared:
            assert len(shared.view) > 160_000

    burst(0)
    burst(1)
    tracemalloc.start()
    try:
        burst(2)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        for counter in range(20):
            burst(counter)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Objects of a few hundred bytes come and go; one payload would be 160,000.
    assert peak - before < 16_000
    assert after - before < 16_000
    assert pool.counters()["created"] == 1
