# SPDX-License-Identifier: Apache-2.0
"""StreamPacker: which frames are packed and timed, and what the time of the link decides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq
from zmq.utils.garbage import gc as collector

from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.transports.zmq.packing import AS_IT_IS, Plan, StreamPacker
from feagi_io_host.transports.zmq.wire_form import refuse_unfit_form

FRAME = b"\x04" + bytes(1 << 20)


class SlowClock:
    """Each look at it takes `step_s`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def pair() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    out, into = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    into.rcvtimeo = out.sndtimeo = 10_000
    port = out.bind_to_random_port("tcp://127.0.0.1")
    into.connect(f"tcp://127.0.0.1:{port}")
    yield out, into
    context.destroy(linger=0)
    collector.stop()


def settings(mode: CompressionMode) -> CompressionSettings:
    return CompressionSettings(mode=mode)


def test_off_leaves_everything_as_it_is() -> None:
    packer = StreamPacker(settings(CompressionMode.OFF))
    assert packer.plan(1 << 20) == AS_IT_IS
    assert not AS_IT_IS


def test_on_packs_above_the_threshold_and_times_nothing() -> None:
    packer = StreamPacker(settings(CompressionMode.ON))
    assert packer.plan(4095) == AS_IT_IS
    assert packer.plan(4096) == Plan(pack=True)


def test_auto_times_one_frame_in_sixteen() -> None:
    packer = StreamPacker(settings(CompressionMode.AUTO))
    timed = [packer.plan(1 << 20).time for _ in range(48)]
    assert [index for index, was in enumerate(timed) if was] == [0, 16, 32]
    assert packer.plan(100) == AS_IT_IS


@pytest.mark.parametrize(("seconds", "packs"), [(0.0, False), (2.0, True)])
def test_auto_packs_where_the_link_is_slower_than_the_packer(
    pair: tuple[zmq.Socket[bytes], zmq.Socket[bytes]], seconds: float, packs: bool
) -> None:
    clock = SlowClock()
    packer = StreamPacker(settings(CompressionMode.AUTO), clock=clock)
    out, into = pair
    clock.step_s = seconds  # a megabyte in so many seconds
    packer.send_timed(out, FRAME)
    assert into.recv() == FRAME
    clock.step_s = 1e-3  # a gigabyte a second
    assert packer.plan(len(FRAME)).pack, "the first one is a trial"
    assert packer.pack(FRAME) is FRAME, "zeros beyond the receiver's cap of the ratio"
    packer.pack(bytes(range(256)) * 4096)
    assert packer.plan(len(FRAME)).pack is packs


def test_timing_ends_for_a_link_that_does_not_move(
    pair: tuple[zmq.Socket[bytes], zmq.Socket[bytes]],
) -> None:
    out, into = pair
    into.close(0)  # nobody takes it: the frame stays with the library
    out.sndtimeo = 0
    packer = StreamPacker(settings(CompressionMode.AUTO))
    tracker = None
    try:
        tracker = packer.send_timed(out, FRAME)
    except zmq.Again:
        return  # the library has seen already that there is nobody
    assert tracker is not None


def test_the_transport_bounds_what_is_unpacked() -> None:
    bounded = refuse_unfit_form(False, settings(CompressionMode.ON), 1 << 20)
    assert bounded is not None
    assert bounded.max_frame_bytes == 1 << 20
    assert refuse_unfit_form(True, None, 1 << 20) is None
    with pytest.raises(ConfigError, match="one form"):
        refuse_unfit_form(True, settings(CompressionMode.OFF), 1 << 20)
