# SPDX-License-Identifier: Apache-2.0
"""StatusPage: what it answers, to whom, and that nobody can hold it up."""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from feagi_io_host.cli.status_page import StatusPage
from feagi_io_host.core.errors import PortBusyError

DEADLINE_S = 10.0
AGENT = bytes(range(48))
SNAPSHOT = {
    "uptime_s": 3.0,
    "agents": [
        {"agent_id": AGENT.hex(), "agent_name": "rover", "capabilities": ["send_sensor_data"]}
    ],
}


@pytest.fixture
def page() -> Iterator[StatusPage]:
    with StatusPage(lambda: SNAPSHOT, 0) as running:
        yield running


def port_of(page: StatusPage) -> int:
    return int(page.url.rpartition(":")[2])


def ask(page: StatusPage, method: str, path: str, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=DEADLINE_S)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read()
        kind = response.getheader("Content-Type")
        return response.status, json.loads(body) if kind == "application/json" else None
    finally:
        connection.close()


def raw(page: StatusPage) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port_of(page)), timeout=DEADLINE_S)
    return connection


def test_it_tells_what_there_is(page: StatusPage) -> None:
    name = base64.b64encode(AGENT).decode()
    assert ask(page, "GET", "/telemetry") == (200, SNAPSHOT)
    assert ask(page, "GET", "/telemetry?now") == (200, SNAPSHOT)
    assert ask(page, "GET", "/v1/agent/list") == (200, [name])
    assert ask(page, "GET", "/v1/agent/capabilities/all") == (
        200,
        {name: {"agent_name": "rover", "capabilities": {"send_sensor_data": True}}},
    )
    status, value = ask(page, "GET", "/etc/passwd")
    assert status == 404
    assert "/telemetry" in value["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "NONSENSE"])
def test_it_only_tells(page: StatusPage, method: str) -> None:
    assert ask(page, method, "/telemetry")[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_web_page_that_points_here_learns_nothing(page: StatusPage, host: str) -> None:
    assert ask(page, "GET", "/telemetry", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:99"])
def test_its_own_names_are_served(page: StatusPage, host: str) -> None:
    assert ask(page, "GET", "/telemetry", Host=host)[0] == 200


def test_who_asks_often_gets_the_same_snapshot() -> None:
    taken = []

    def snapshot() -> dict[str, Any]:
        taken.append(1)
        return SNAPSHOT

    page = StatusPage(snapshot, 0)
    for _ in range(100):
        page.answer("/telemetry")
    page.stop()
    assert len(taken) < 20


def test_silent_peers_make_room_for_others_and_do_not_hold_up_the_end(page: StatusPage) -> None:
    silent = [raw(page) for _ in range(8)]
    try:
        assert ask(page, "GET", "/telemetry")[0] == 200  # one of the silent ones had to go
        silent.append(raw(page))
        silent[-1].send(b"GET /telemetry HTTP/1.1\r\nX")
        page.stop()
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize(
    "data", [b"\0" * 100, b"\xff\xfe\r\n\r\n", b"GET\r\n\r\n", b"GET /telemetry HTTP/9\r\n\r\n"]
)
def test_garbage_is_answered_or_hung_up_on(
    page: StatusPage, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with raw(page) as peer:
        peer.send(data)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(4096):
            pass
    assert ask(page, "GET", "/telemetry")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_headers_without_end_are_refused(page: StatusPage) -> None:
    with raw(page) as peer:
        peer.sendall(b"GET /telemetry HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n")
        assert peer.recv(100).startswith(b"HTTP/1.0 431")


def test_a_port_in_use_is_one_error(page: StatusPage) -> None:
    with pytest.raises(PortBusyError, match="--status"):
        StatusPage(lambda: SNAPSHOT, port_of(page))


def test_stop_may_come_twice_and_without_start() -> None:
    page = StatusPage(lambda: SNAPSHOT, 0)
    page.stop()
    with StatusPage(lambda: SNAPSHOT, 0) as again:
        again.stop()
