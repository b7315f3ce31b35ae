# SPDX-License-Identifier: Apache-2.0
"""Packing, thinning and differences, against a decoder that knows nothing of them."""

from __future__ import annotations

import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import CorticalID
from feagi_io_host.viewer.areas import AreaTable, KnownArea
from feagi_io_host.viewer.compact import Kept, encode
from feagi_io_host.viewer.frames import Emitted, Picture
from tests.feagi_io_host.viewer.bursts import CUSTOM, EYE, WHEEL, Row, big_frame, frame
from tests.feagi_io_host.viewer.reference import Shown, fbc_voxels

AREAS = (CUSTOM, EYE, WHEEL)


def picture_of(fbc: SharedFBC, table: AreaTable, number: int = 1) -> Picture:
    return Picture(Emitted(number, fbc, 0.0), table)


def follow(shown: Shown, picture: Picture, most: int | None, before: Kept | None) -> Kept:
    kept, body = picture.compact(most, before)
    if body.flags & 1:
        shown.voxels = {}
    shown.thinned = bool(body.flags & 2)
    assert shown.take_body(body.data) == body.voxels
    return kept


def drawable(p: float) -> float:
    return 0.0 if math.isnan(p) or p < 0 else p


def assert_shows(shown: Shown, fbc: SharedFBC) -> None:
    """Every voxel that fired, and no other, within half a step of the scale."""
    fired = fbc_voxels(bytes(fbc.view))
    assert shown.voxels.keys() == fired.keys()
    for voxel, p in fired.items():
        scale = shown.scales[voxel[0]]
        expected = min(drawable(p), scale)
        assert abs(shown.voxels[voxel] - expected) <= scale / 510 * 1.001 + 1e-30


ROWS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 3),
        st.integers(0, 9),
        st.floats(width=32, allow_subnormal=False)
        | st.sampled_from([0.0, -1.0, 1.0, 0.5, math.nan, math.inf, -math.inf]),
    ),
    max_size=30,
)
FRAMES = st.lists(
    st.lists(st.dictionaries(st.sampled_from(AREAS), ROWS), min_size=1, max_size=2),
    min_size=1,
    max_size=6,
)


@given(FRAMES)
def test_a_page_that_follows_has_on_show_what_fired(
    frames: list[list[dict[CorticalID, list[Row]]]],
) -> None:
    table = AreaTable()
    shown, before = Shown(), None
    for number, structs in enumerate(frames, 1):
        fbc = frame(*structs)
        before = follow(shown, picture_of(fbc, table, number), None, before)
        assert not shown.thinned
        fired = fbc_voxels(bytes(fbc.view))
        emitted: dict[bytes, list[float]] = {bytes(area): [] for area in AREAS}
        for areas in structs:
            for area, rows in areas.items():
                emitted[bytes(area)] += [row[3] for row in rows]
        assert shown.voxels.keys() == fired.keys()
        for voxel, p in fired.items():
            highest = max((p for p in emitted[voxel[0]] if math.isfinite(p)), default=0.0)
            if highest <= 0.0:
                scale = 1.0
            else:  # the power of two above it, as far as there are some
                scale = 2.0 ** min(max(math.ceil(math.log2(highest)), -64), 127)
            expected = min(drawable(p), scale)
            assert abs(shown.voxels[voxel] - expected) <= scale / 510 * 1.001


def test_what_does_not_change_is_not_told_again() -> None:
    table = AreaTable()
    rows = [(x, 0, z, 0.5) for x in range(4) for z in range(50)]
    one = frame({CUSTOM: rows})
    other = frame({CUSTOM: [*rows[1:], (4, 0, 0, 1.0)], WHEEL: [(0, 0, 3, 1.0)]})
    table.declare([KnownArea(CUSTOM, (5, 1, 50)), KnownArea(WHEEL, (1, 1, 9))])
    shown = Shown()
    kept = follow(shown, picture_of(one, table), None, None)
    changed, body = picture_of(other, table, 2).compact(None, kept)
    # 1.0 in an area whose scale was 0.5: its potentials mean something else, so all is told
    assert body.flags == 1
    kept, body = picture_of(other, table, 3).compact(None, changed)
    assert body == (0, 0, struct.pack("<HH", 0, 0))
    third = frame({CUSTOM: [*rows[2:], (4, 0, 0, 1.0), (4, 0, 1, 0.25)], WHEEL: [(0, 0, 3, 1.0)]})
    _, body = picture_of(third, table, 4).compact(None, kept)
    assert body.flags == 0
    assert body.voxels == 1
    assert struct.unpack_from("<HH8sHHHHfII", body.data) == (
        1, 0, bytes(CUSTOM), 5, 1, 50, 0, 1.0, 1, 1,
    )  # fmt: skip


@pytest.mark.parametrize("share", [0.02, 0.3, 0.95])
def test_differences_of_big_frames(share: float) -> None:
    table = AreaTable()
    random = np.random.default_rng(7)
    with big_frame(5000, 1) as first:
        rows = [(*voxel[1:], p) for voxel, p in fbc_voxels(bytes(first.view)).items()]
    shown, before = Shown(), None
    table.declare([KnownArea(CUSTOM, (100, 100, 100))])
    sizes = []
    for number in range(1, 6):
        fbc = frame({CUSTOM: rows})
        picture = picture_of(fbc, table, number)
        kept, body = picture.compact(None, before)
        whole = encode(kept, None)
        sizes.append((len(body.data), len(whole.data)))
        before = follow(shown, picture, None, before)
        assert_shows(shown, fbc)
        keep = random.random(len(rows)) >= share
        fresh = [tuple(random.integers(0, 100, 3).tolist()) for _ in range(int((~keep).sum()))]
        stay = [row for row, kept_too in zip(rows, keep, strict=True) if kept_too]
        taken = {row[:3] for row in stay}
        new = [(*place, 0.75) for place in dict.fromkeys(fresh) if place not in taken]
        rows = [*stay, *new]
    for told, whole_bytes in sizes[1:]:
        assert told <= whole_bytes
        if share < 0.9:
            assert told < 2 * share * whole_bytes + 100


@pytest.mark.parametrize("most", [1024, 5000, 11_999])
def test_thinning_keeps_within_the_limit_and_does_not_flicker(most: int) -> None:
    table = AreaTable()
    motors = [(x, 0, 3, 1.0) for x in range(20)]
    one, other = big_frame(12_000, 1), big_frame(12_000, 2)
    first, second = Shown(), Shown()
    for fbc, shown in ((one, first), (other, second)):
        both = frame(
            {CUSTOM: [(*v[1:], p) for v, p in fbc_voxels(bytes(fbc.view)).items()], WHEEL: motors}
        )
        follow(shown, picture_of(both, table), most, None)
        assert shown.thinned
        assert 0.7 * most < len(shown.voxels) <= most
        assert {v for v in shown.voxels if v[0] == WHEEL} == {(WHEEL, x, 0, 3) for x in range(20)}
    # A place that is on show in one frame is on show in the other, if it fires there.
    for mine, theirs, fbc in ((first, second, other), (second, first, one)):
        fired = fbc_voxels(bytes(fbc.view)).keys()
        assert {v for v in mine.voxels if v in fired} <= theirs.voxels.keys()


def test_what_is_on_show_at_a_level_is_on_show_at_every_finer_one() -> None:
    table, coarse, fine = AreaTable(), Shown(), Shown()
    picture = picture_of(big_frame(30_000, 3), table)
    follow(coarse, picture, 2000, None)
    follow(fine, picture, 10_000, None)
    assert coarse.voxels.keys() < fine.voxels.keys()


def test_from_one_level_to_another_and_over_a_size_that_grew() -> None:
    table, shown = AreaTable(), Shown()
    fbc = big_frame(30_000, 3)
    kept = follow(shown, picture_of(fbc, table), 5000, None)
    kept = follow(shown, picture_of(fbc, table, 2), 20_000, kept)
    assert 5000 < len(shown.voxels) <= 20_000
    larger = frame({CUSTOM: [(150, 0, 0, 1.0)]})
    kept = follow(shown, picture_of(larger, table, 3), None, kept)
    assert shown.voxels.keys() == {(CUSTOM, 150, 0, 0)}
    nothing = frame({})
    follow(shown, picture_of(nothing, table, 4), None, kept)
    assert shown.voxels == {}


def test_voxels_where_no_area_can_be_are_left_out_and_told_of() -> None:
    table, shown = AreaTable(), Shown()
    fbc = frame({CUSTOM: [(0, 0, 0, 1.0), (1 << 31, 0, 0, 1.0), (0, 70_000, 0, 1.0)]})
    picture = picture_of(fbc, table)
    assert not picture.fits_unthinned(None)
    assert picture.fired == 3
    follow(shown, picture, None, None)
    assert shown.voxels.keys() == {(CUSTOM, 0, 0, 0)}
    assert shown.thinned
    huge = frame({EYE: [(65_534, 65_534, 65_534, 1.0)]})  # 2^48 places
    picture = picture_of(huge, table, 2)
    follow(shown, picture, None, None)
    assert shown.voxels == {}
    assert shown.thinned


def test_the_largest_places_there_can_be() -> None:
    table, shown = AreaTable(), Shown()
    fbc = frame({EYE: [(65_534, 65_534, 0, 1.0), (0, 0, 0, 0.5)]})
    follow(shown, picture_of(fbc, table), None, None)
    assert_shows(shown, fbc)
    assert not shown.thinned


def test_memory_does_not_grow_with_the_number_of_frames() -> None:
    table = AreaTable()
    frames = [big_frame(20_000, seed) for seed in range(3)]
    before = None
    peaks = []
    tracemalloc.start()
    try:
        for number in range(30):
            tracemalloc.reset_peak()
            picture = picture_of(frames[number % 3], table, number)
            before, _ = picture.compact(None, before)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert max(peaks[10:]) < 1.2 * max(peaks[2:8])
    assert max(peaks) < 20_000 * 150
