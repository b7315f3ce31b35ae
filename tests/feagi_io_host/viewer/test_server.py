# SPDX-License-Identifier: Apache-2.0
"""The viewer's server with pages that are programs: who is let in, what comes, and when.

Long because a connection is tried from its first byte to its last with the same server and pages.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feagi_io_host.burst.reflex import ReflexEngine
from feagi_io_host.core.errors import ClosedError, ConfigError, PortBusyError
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.viewer import KnownArea, ViewerServer
from feagi_io_host.viewer.assets import Asset
from feagi_io_host.viewer.protocol import Control, Detail, Hello, PageError, Shown, parse
from feagi_io_host.viewer.stage import MAX_PAGES, Timing
from tests.feagi_io_host.transports.websocket.raw import BINARY, FIN, PING, TEXT, RawPeer, frame
from tests.feagi_io_host.viewer.bursts import CUSTOM, EYE, WHEEL, big_frame
from tests.feagi_io_host.viewer.bursts import frame as burst
from tests.feagi_io_host.viewer.live import DEADLINE_S, Told, looking
from tests.feagi_io_host.viewer.reference import Header, fbc_voxels, header_of

ASSETS = {
    path: Asset("text/html; charset=utf-8", b"<!doctype html>") for path in ("/", "/index.html")
}
BRISK = Timing(state_s=0.1)
IMPATIENT = Timing(hello_s=0.3, ping_s=0.4, give_up_s=1.0, state_s=0.1)


@contextmanager
def viewing(source: Told | None = None, **settings: Any) -> Iterator[ViewerServer]:
    settings = {"assets": ASSETS, "timing": BRISK, **settings}
    with ViewerServer(Told() if source is None else source, **settings) as viewer:
        yield viewer


def ask(viewer: ViewerServer, path: str = "/", *more: str, **headers: str | None) -> RawPeer:
    peer = RawPeer(viewer.base_url)
    peer.path = path
    usual: dict[str, str | None] = {"Upgrade": None, "Connection": None}
    usual |= {"Sec_WebSocket_Key": None, "Sec_WebSocket_Version": None}
    peer.status, peer.head = peer.shake_hands(*more, **{**usual, **headers})  # type: ignore[attr-defined]
    return peer


def status_of(viewer: ViewerServer, path: str = "/", *more: str, **headers: str | None) -> int:
    with ask(viewer, path, *more, **headers) as peer:
        return int(peer.status)  # type: ignore[attr-defined]


# -- HTTP -----------------------------------------------------------------------------------------


def test_the_page_comes_with_headers_that_keep_it_in_its_place() -> None:
    with viewing() as viewer, ask(viewer) as peer:
        head = peer.head.lower()  # type: ignore[attr-defined]
        assert "http/1.1 200 ok" in head
        host = viewer.base_url.removeprefix("http://")
        assert (
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; "
            f"img-src 'self' data: blob:; connect-src 'self' ws://{host}; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'"
        ) in head
        for line in (
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-opener-policy: same-origin",
            "content-type: text/html; charset=utf-8",
        ):
            assert line in head


def test_the_page_of_the_package_is_there_whole() -> None:
    with ViewerServer(Told()) as viewer:
        for path in ("/", "/index.html", "/viewer.js", "/viewer.css"):
            assert status_of(viewer, path) == 200, path


def test_what_is_not_there_and_what_may_not_be_asked() -> None:
    with viewing() as viewer:
        for path in ("/index", "/../pyproject.toml", "//", "/%2e%2e/x", "/assets/index.html"):
            assert status_of(viewer, path) == 404, path
        assert status_of(viewer, "/?cache=no") == 200
        for method in ("HEAD", "POST", "PUT", "OPTIONS"):
            assert status_of(viewer, method=method) == 405, method


def test_an_installation_without_the_page_says_so() -> None:
    with viewing(assets={}) as viewer:
        assert status_of(viewer) == 404


def test_only_by_an_address_of_its_own() -> None:
    with viewing() as viewer:
        port = viewer.base_url.rpartition(":")[2]
        for host in (f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
            assert status_of(viewer, Host=host) == 200, host
        evil = (
            f"evil.example:{port}",
            "127.0.0.1",
            "127.0.0.1:1",
            f"192.168.0.7:{port}",
            f"127.0.0.1:{port}:{port}",
            f"127.0.0.1 :{port}",
            f"[::1%x; script-src *]:{port}",
            "",
        )
        for host in evil:
            assert status_of(viewer, Host=host) == 421, host
        assert status_of(viewer, Host=None) == 421
        assert status_of(viewer, "/", f"Host: 127.0.0.1:{port}") == 421, "twice"


def test_another_site_gets_no_websocket() -> None:
    with viewing() as viewer:
        own = viewer.base_url
        port = own.rpartition(":")[2]
        live = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec_WebSocket_Version": "13",
        }
        assert status_of(viewer, "/live", **live, Origin=own) == 101
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"{own}0", None):
            assert status_of(viewer, "/live", **live, Origin=origin) == 403, origin
        host = f"evil.example:{port}"
        assert status_of(viewer, "/live", **live, Origin=f"http://{host}", Host=host) == 421
        assert status_of(viewer, "/live", **live, Origin=f"http://localhost:{port}") == 403
        assert status_of(viewer, "/live", Origin=own) == 426, "no upgrade"
        assert status_of(viewer, "/", **live, Origin=own) == 200, "a file stays a file"


# -- hello ----------------------------------------------------------------------------------------


def test_welcome_areas_and_state_in_this_order() -> None:
    source = Told()
    source.known = [KnownArea(EYE, (4, 1, 8)), KnownArea(CUSTOM, (2, 3, 4), "Thoughts\n\x07")]
    with viewing(source) as viewer, looking(viewer) as page:
        state = page.text("state")
        assert [text["type"] for text in page.texts] == ["welcome", "areas", "state"]
        welcome, areas, _ = page.texts
        assert welcome["title"] == "a test"
        assert welcome["source"] == "test"
        assert welcome["control"] is False
        assert welcome["burst_hz"] == 50.0
        assert areas["areas"] == [
            {"id": EYE.as_base_64(), "name": "Infrared 0", "kind": "sensor",
             "width": 4, "height": 1, "depth": 8},
            {"id": CUSTOM.as_base_64(), "name": "Thoughts??", "kind": "other",
             "width": 2, "height": 3, "depth": 4},
        ]  # fmt: skip
        assert state["viewers"] == 1
        assert state["conflated"] == 0
        assert state["bursts"] is None


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({"type": "hello", "protocol": 1, "token": "x" * 43}, 4401, "wrong token"),
        ({"type": "hello", "protocol": 1, "token": "\ud800"}, 4401, "wrong token"),
        ({"type": "hello", "protocol": 2, "token": "RIGHT"}, 4400, "protocol 2"),
        ({"type": "hello", "protocol": True, "token": "RIGHT"}, 1008, "protocol is True"),
        ({"type": "hello", "token": "RIGHT"}, 1008, "protocol is None"),
        ({"type": "hello", "protocol": 1, "token": 5}, 1008, "without a token"),
        ({"type": "shown", "sequence": 1, "frame_ms": 1}, 1008, "before hello"),
        ({"type": "other"}, 1008, "type 'other'"),
        ([], 1008, "a list came"),
        ("{", 1008, "no JSON"),
        ("[" * 4000, 1008, "no JSON"),
        (b"\x00", 1003, "1 bytes"),
        ("x" * 4097, 1009, ""),
    ],
)
def test_who_does_not_say_hello_is_told_what_was_wrong(
    message: object, code: int, reason: str
) -> None:
    with viewing() as viewer:
        with looking(viewer, hello=False) as page:
            if isinstance(message, str | bytes):
                page.line.send(message)
            else:
                page.line.send(json.dumps(message).replace("RIGHT", viewer.token))
            ended, words = page.close_code()
        assert ended == code
        assert reason in words
        assert sum(viewer.counters()["refused"].values()) == (code != 1009)
        with looking(viewer) as page:
            page.text("state")


def test_an_offer_that_is_none_is_refused_and_a_second_one_ends_it() -> None:
    with viewing() as viewer, looking(viewer) as page:
        page.send("peer", sdp="v=0")
        refused = page.text("refused")
        assert refused["what"] == "webrtc"
        assert "0 sections" in refused["why"]
        page.send("peer", sdp="v=0")
        assert page.close_code() == (1008, "a second offer of a peer connection")
    with viewing() as viewer, looking(viewer) as page:
        page.send("peer")
        assert page.close_code() == (1008, "peer without an sdp")


def test_silence_is_ended() -> None:
    with viewing(timing=IMPATIENT) as viewer, looking(viewer, hello=False) as page:
        assert page.close_code() == (4408, "no hello within 0.3 s")


def test_there_is_room_for_sixteen_and_then_for_the_next() -> None:
    with viewing() as viewer, ExitStack() as stack:
        pages = [stack.enter_context(looking(viewer)) for _ in range(MAX_PAGES)]
        with looking(viewer, hello=False) as late:
            late.hello(viewer.token)
            assert late.close_code() == (4429, "16 pages look on already")
        pages[0].line.close()
        pages[1].text("state", lambda state: state["viewers"] == MAX_PAGES - 1)
        with looking(viewer) as page:
            assert page.text("state")["viewers"] == MAX_PAGES


def test_strangers_make_room_for_each_other_and_for_pages() -> None:
    with viewing() as viewer, ExitStack() as stack:
        address = ("127.0.0.1", int(viewer.base_url.rpartition(":")[2]))
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(60)]
        with looking(viewer) as page:
            page.text("state")
        assert viewer.counters()["crowded"] >= 12
        idle[0].settimeout(DEADLINE_S)
        assert idle[0].recv(1) == b""


# -- frames ---------------------------------------------------------------------------------------


def test_a_small_frame_comes_as_it_was_emitted() -> None:
    fbc = burst({EYE: [(0, 0, 3, 0.5)], WHEEL: [(1, 0, 0, 1.0), (1, 0, 0, 0.25)]})
    with viewing() as viewer, looking(viewer) as page:
        before_ms = time.time() * 1000
        viewer.show_frame(fbc)
        message = page.frame()
        header = header_of(message)
        assert header[:4] == (1, 0, 0, 1)
        assert before_ms <= header.at_ms <= time.time() * 1000
        assert header[5:] == (3, 3)
        assert message[24:] == bytes(fbc.view)
        (areas,) = [text["areas"] for text in page.texts if text["type"] == "areas"][-1:]
        sizes = {a["name"]: (a["width"], a["height"], a["depth"]) for a in areas}
        assert sizes == {"Infrared 0": (1, 1, 4), "RotaryMotor 0": (2, 1, 1)}, "before the frame"


def test_two_are_under_way_the_newest_waits_and_the_others_are_counted() -> None:
    frames = [burst({EYE: [(number, 0, 0, 1.0)]}) for number in range(10)]
    with viewing() as viewer, looking(viewer) as page:
        for number, fbc in enumerate(frames[:2]):
            viewer.show_frame(fbc, float(number))
            assert header_of(page.frame())[3:5] == (number + 1, float(number))
        for number, fbc in enumerate(frames[2:], 2):
            viewer.show_frame(fbc, float(number))
        assert page.settled() == []
        assert page.texts[-1]["conflated"] == 8
        page.tell_shown(1)
        assert header_of(page.frame())[3:5] == (3, 9.0)
        assert page.settled() == []
        assert page.texts[-1]["conflated"] == 7
        assert viewer.counters()["pages"] == [
            {"sent": 3, "shown": 1, "conflated": 7, "max_voxels": None, "frame_ms": 1.5,
             "words_dropped": 0}
        ]  # fmt: skip
        page.tell_shown(1)  # again: nothing is wrong with it, and nothing new in it
        page.tell_shown(3)
        viewer.show_frame(frames[0], 11.0)
        viewer.show_frame(frames[1], 12.0)
        *_, last = page.settled()
        assert last.at_ms == 12.0


def test_who_comes_while_nothing_fires_sees_the_newest_frame() -> None:
    fbc = burst({EYE: [(0, 0, 3, 0.5)]})
    with viewing() as viewer:
        viewer.show_frame(burst({}))
        viewer.show_frame(fbc)
        for _ in range(2):
            with looking(viewer) as page:
                assert page.draw().kind == 1
                assert page.shown.voxels == {(bytes(EYE), 0, 0, 3): 0.5}
                assert page.settled() == []
                assert page.texts[-1]["conflated"] == 0


def test_a_large_frame_is_packed_thinned_and_then_told_by_its_differences() -> None:
    one, small = big_frame(30_000, 1), burst({EYE: [(0, 0, 0, 1.0)]})
    with viewing() as viewer, looking(viewer) as page:
        viewer.show_frame(one)
        header = page.draw()
        assert header[:2] == (2, 1)
        assert header[5:] == (30_000, 30_000)
        assert page.shown.voxels.keys() == fbc_voxels(bytes(one.view)).keys()
        viewer.show_frame(one)
        header = page.draw()
        assert header[:2] == (2, 0), "nothing has changed"
        assert header[5:] == (30_000, 0)
        page.ask_for_detail(5000)
        viewer.show_frame(one)
        header = page.draw()
        assert header.flags & 2
        assert header.fired == 30_000
        assert 3500 < len(page.shown.voxels) <= 5000
        page.ask_for_detail(1)
        viewer.show_frame(one)
        page.draw()
        assert 700 < len(page.shown.voxels) <= 1024
        viewer.show_frame(small)
        assert page.draw().kind == 1
        page.ask_for_detail(None)
        viewer.show_frame(one)
        header = page.draw()
        assert header[:2] == (2, 1), "whole after kind 1"
        assert len(page.shown.voxels) == 30_000


def test_few_neurons_are_packed_for_a_page_that_can_draw_fewer() -> None:
    with viewing() as viewer, looking(viewer) as page:
        page.ask_for_detail(2000)
        viewer.show_frame(big_frame(3000, 1))
        header = page.draw()
        assert (header.kind, header.flags, header.fired) == (2, 3, 3000)
        assert len(page.shown.voxels) <= 2000


def test_pages_that_see_the_same_get_the_same_bytes() -> None:
    with viewing() as viewer, looking(viewer) as one, looking(viewer) as other:
        for seed in range(3):
            viewer.show_frame(big_frame(25_000, seed))
            first, second = one.frame(), other.frame()
            assert first == second
            for page in (one, other):
                page.tell_shown(seed + 1)


def test_frames_come_sixty_times_a_second_at_most() -> None:
    fbc = burst({EYE: [(0, 0, 0, 1.0)]})
    stop = threading.Event()

    def fire() -> None:
        while not stop.wait(0.001):
            viewer.show_frame(fbc)

    with viewing() as viewer, looking(viewer) as page:
        thread = threading.Thread(target=fire)
        thread.start()
        try:
            page.draw()
            begun_s = time.monotonic()
            headers: list[Header] = [page.draw() for _ in range(30)]
            took_s = time.monotonic() - begun_s
        finally:
            stop.set()
            thread.join()
        assert took_s > 29 / 60
        assert [header.sequence for header in headers] == list(range(2, 32))


def test_every_lease_comes_back() -> None:
    pool = BufferPool()
    with viewing() as viewer, looking(viewer) as page:
        for number in range(5):
            container = pool.acquire()
            x, y, z, p = container.reserve_xyzp([(CUSTOM, 30_000)], number)[CUSTOM]
            x[:], y[:], z[:], p[:] = range(30_000), 0, number, 1.0
            del x, y, z, p
            with pool.share(container) as fbc:
                viewer.show_frame(fbc)
            page.draw()
        assert pool.counters()["leased"] <= 2
    assert pool.counters()["leased"] == 0
    assert pool.counters()["still_viewed"] == 0


def test_another_brain_begins_with_areas_of_its_own() -> None:
    source = Told()
    with viewing(source) as viewer, looking(viewer) as page:
        viewer.show_frame(big_frame(25_000, 1))
        page.draw()
        viewer.forget_areas()
        source.known = [KnownArea(EYE)]
        viewer.show_frame(big_frame(25_000, 1, area=WHEEL))
        header = page.draw()
        assert header.flags == 1, "whole"
        areas = [text for text in page.texts if text["type"] == "areas"][-1]["areas"]
        assert CUSTOM.as_base_64() not in [area["id"] for area in areas]
        page.text("areas", lambda text: len(text["areas"]) == 2)


# -- what else is said ----------------------------------------------------------------------------


def test_the_world_comes_thirty_times_a_second_at_most() -> None:
    source = Told()
    source.sight = {"kind": "cart_pole", "angle_rad": float("nan"), "position_m": 0.5}
    with viewing(source) as viewer, looking(viewer) as page:
        world = page.text("world")
        assert world == {
            "type": "world", "kind": "cart_pole", "angle_rad": None, "position_m": 0.5,
        }  # fmt: skip
        begun_s = time.monotonic()
        for _ in range(15):
            page.text("world")
        assert time.monotonic() - begun_s > 0.4


def test_what_is_said_is_heard_by_those_who_are_there() -> None:
    with viewing() as viewer, looking(viewer) as one, looking(viewer) as other:
        viewer.say("board up: <b>rover</b>")
        for page in (one, other):
            assert page.text("say")["text"] == "board up: <b>rover</b>"
        for number in range(500):
            viewer.say(str(number))
        said = [one.text("say")["text"]]
        while said[-1] != "499":
            said.append(one.text("say")["text"])
        assert len(said) <= 130
        assert viewer.counters()["news_dropped"] >= 370
    viewer.say("nobody hears that any more")


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({"type": "shown", "sequence": 2, "frame_ms": 1}, 1008, "frame 2 shown; 0 were sent"),
        ({"type": "shown", "sequence": -1, "frame_ms": 1}, 1008, "sequence is -1"),
        ({"type": "shown", "sequence": 0, "frame_ms": -1}, 1008, "frame_ms is -1"),
        ({"type": "shown", "sequence": 0, "frame_ms": 10**400}, 1008, "frame_ms is 1000"),
        ({"type": "shown", "sequence": 0, "frame_ms": "1"}, 1008, "frame_ms is 1"),
        ({"type": "detail"}, 1008, "max_voxels is None"),
        ({"type": "detail", "max_voxels": 1.5}, 1008, "max_voxels is 1.5"),
        ({"type": "hello", "protocol": 1, "token": "x"}, 1008, "a second hello"),
        (b"frame", 1003, "5 bytes came"),
    ],
)
def test_a_page_that_says_what_it_may_not_is_ended(message: object, code: int, reason: str) -> None:
    with viewing() as viewer, looking(viewer) as page, looking(viewer) as other:
        page.line.send(message if isinstance(message, bytes) else json.dumps(message))
        ended, words = page.close_code()
        assert ended == code
        assert reason in words
        other.text("state", lambda state: state["viewers"] == 1)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3),
        max_leaves=5,
    )
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["hello", "shown", "detail", "pause", "step", "x"])},
        optional={
            name: st.none() | st.integers() | st.floats() | st.text() | st.booleans()
            for name in ("protocol", "token", "sequence", "frame_ms", "max_voxels")
        },
    )
)
def test_whatever_a_page_says_is_a_message_or_is_refused(value: object) -> None:
    message: object = None
    with contextlib.suppress(PageError):  # and no other error
        message = parse(json.dumps(value))
    assert message is None or isinstance(message, Hello | Shown | Detail | Control)
    assert not isinstance(message, Shown) or 0.0 <= message.frame_ms < float("inf")


def test_a_page_that_floods_is_ended() -> None:
    with viewing() as viewer, looking(viewer) as page:
        for _ in range(2000):
            try:
                page.send("detail", max_voxels=5000)
            except Exception:
                break
        assert page.close_code()[0] == 1008
        with looking(viewer) as other:
            other.text("state")


def test_a_source_that_fails_is_reported_once_and_the_rest_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = Told()
    source.failing = True
    caplog.set_level(logging.ERROR, "feagi_io.viewer")
    with viewing(source) as viewer, looking(viewer) as page:
        viewer.show_frame(burst({EYE: [(0, 0, 0, 1.0)]}))
        assert page.draw().kind == 1
        source.failing = False
        page.text("state")
    assert [record.exc_info is not None for record in caplog.records] == [True]


# -- control --------------------------------------------------------------------------------------


def test_pages_control_nothing_unless_they_may() -> None:
    with viewing() as viewer, looking(viewer) as page:
        for what in ("pause", "resume", "step"):
            page.send(what)
            refused = page.text("refused")
            assert refused["what"] == what
            assert "--control" in refused["why"]


def test_pages_pause_step_and_resume_a_brain() -> None:
    engine = ReflexEngine(rate_hz=100)
    source = Told()

    def look() -> dict[str, Any]:
        return {**source.figures, **{k: engine.telemetry()[k] for k in ("paused", "bursts")}}

    source.state = look  # type: ignore[method-assign]
    with viewing(source, controls=engine) as viewer:
        viewer.connect_to_burst_engine(engine)
        with engine, looking(viewer) as page:
            page.draw()
            page.send("step")
            assert "pause it before" in page.text("refused")["why"]
            page.send("pause")
            bursts = page.text("state", lambda state: state["paused"])["bursts"]
            assert page.text("state")["bursts"] == bursts
            page.send("step")
            page.text("state", lambda state: state["bursts"] == bursts + 1)
            page.send("resume")
            page.text("state", lambda state: state["bursts"] > bursts + 10)
            assert engine.is_firing


# -- life -----------------------------------------------------------------------------------------


def test_the_end_is_said_and_the_same_port_and_token_serve_again() -> None:
    with viewing(token="a token of my own") as viewer, looking(viewer) as page:
        port = int(viewer.base_url.rpartition(":")[2])
        viewer.say("the last words")
        viewer.stop()
        assert page.close_code() == (1001, "the viewer was stopped")
        assert "the last words" in [text.get("text") for text in page.texts]
        viewer.stop()
        with pytest.raises(ClosedError, match="make a new one"):
            viewer.start()
    with viewing(token="a token of my own", port=port) as viewer:
        assert viewer.url == f"http://127.0.0.1:{port}/#token=a token of my own"
        with looking(viewer) as page:
            page.text("state")


def test_it_ends_in_time_whoever_is_there() -> None:
    with ExitStack() as stack, viewing() as viewer:
        address = ("127.0.0.1", int(viewer.base_url.rpartition(":")[2]))
        stack.enter_context(socket.create_connection(address)).sendall(b"GET / HT")
        for _ in range(3):
            stack.enter_context(stalled(viewer))
        for seed in range(3):
            viewer.show_frame(big_frame(19_000, seed))
        begun_s = time.monotonic()
        viewer.stop()
        assert time.monotonic() - begun_s < 2.0


@contextmanager
def stalled(viewer: ViewerServer) -> Iterator[RawPeer]:
    """A page that says hello and reads nothing more."""
    with RawPeer(f"{viewer.base_url}/live", receive_buffer=4096) as peer:
        status, _ = peer.shake_hands(Origin=viewer.base_url)
        assert status == 101
        hello = {"type": "hello", "protocol": 1, "token": viewer.token}
        peer.write(frame(FIN | TEXT, json.dumps(hello).encode()))
        assert peer.next_frame() is not None
        yield peer


def test_a_page_that_gives_no_sign_of_life_is_cut_off_and_one_that_does_is_not() -> None:
    with viewing(timing=IMPATIENT) as viewer, looking(viewer) as page, stalled(viewer) as peer:
        page.text("state", lambda state: state["viewers"] == 2)
        viewer.show_frame(big_frame(20_000, 1))
        viewer.show_frame(big_frame(20_000, 2))
        begun_s = time.monotonic()
        page.text("state", lambda state: state["viewers"] == 1)
        assert 0.2 < time.monotonic() - begun_s < 5.0
        assert page.text("state")["viewers"] == 1
        while peer.next_frame() is not None:  # what was on its way, and then the end
            pass


def test_who_makes_us_answer_and_does_not_read_is_cut_off() -> None:
    with viewing() as viewer, looking(viewer) as page, stalled(viewer) as peer:
        page.text("state", lambda state: state["viewers"] == 2)
        ping = frame(FIN | PING, b"x" * 125) * 1000
        with contextlib.suppress(ConnectionError):  # as soon as it is cut off
            for _ in range(1000):
                peer.write(ping)
        page.text("state", lambda state: state["viewers"] == 1)


def test_a_peer_that_breaks_the_rules_of_websocket_ends_alone() -> None:
    with viewing() as viewer, looking(viewer) as page:
        for garbage in (
            frame(FIN | TEXT, b"{}", masked=False),
            frame(FIN | 0x40 | TEXT, b"{}"),
            frame(FIN | BINARY, b"", length=b"\x7f" + b"\xff" * 8),
            frame(FIN | TEXT, b"\xff\xfe"),
        ):
            with stalled(viewer) as peer:
                peer.write(garbage)
                assert peer.close_code() in (1002, 1007, 1009), garbage
        page.text("state", lambda state: state["viewers"] == 1)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="port 70000"):
        ViewerServer(Told(), port=70000)
    with pytest.raises(ConfigError, match=r"other machines can reach that.*--open-to-network"):
        ViewerServer(Told(), address="0.0.0.0")
    with pytest.raises(ConfigError, match="token of 3 characters"):
        ViewerServer(Told(), token="abc")
    with pytest.raises(ClosedError, match="not started"):
        _ = ViewerServer(Told()).url


def test_open_to_the_network_it_answers_to_numbers_and_to_no_name() -> None:
    with viewing(address="0.0.0.0", open_to_network=True) as viewer:
        port = viewer.base_url.rpartition(":")[2]
        assert status_of(viewer, Host=f"192.168.0.7:{port}") == 200
        assert status_of(viewer, Host=f"evil.example:{port}") == 421
        with looking(viewer) as page:
            page.text("state")


def test_a_port_that_is_taken() -> None:
    with viewing() as viewer:
        port = int(viewer.base_url.rpartition(":")[2])
        with pytest.raises(PortBusyError, match=f"port {port}.*choose another"):
            ViewerServer(Told(), port=port).start()


def test_without_the_library_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['websockets'] = None\n"
        "try:\n    import feagi_io_host.viewer\n"
        "except Exception as error:\n    print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtraError The viewer is not installed")
    assert "feagi-io[viewer]" in done.stdout
