# SPDX-License-Identifier: Apache-2.0
"""Buffers, the path's MTU and multicast: what is set, and what is said when it is refused."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from feagi_io_host.core.errors import ConfigError
from feagi_io_host.transports.udp.sockets import (
    forbid_ip_fragments,
    join_group,
    path_datagram_bytes,
    send_to_group,
    size_buffer,
)

LINUX_PMTUDISC_DO = 2


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


class Capped(socket.socket):
    """A socket of a user without rights, on a system with a low limit."""

    def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
        if option in (32, 33):
            raise PermissionError(1, "Operation not permitted")
        super().setsockopt(level, option, min(value, 100_000))


@pytest.mark.parametrize("name", ["receive", "send"])
def test_buffer_that_is_granted(sock: socket.socket, name: str) -> None:
    grant = size_buffer(sock, name, 150_000)  # type: ignore[arg-type]
    assert (grant.name, grant.granted_bytes, grant.advice) == (name, 150_000, None)


@pytest.mark.parametrize(("name", "key"), [("receive", "rmem_max"), ("send", "wmem_max")])
def test_capped_buffer_names_the_line_to_run(
    name: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Capped(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        grant = size_buffer(sock, name, 4 << 20)  # type: ignore[arg-type]
    assert grant.granted_bytes == 100_000
    assert grant.advice == f"sysctl -w net.core.{key}=4194304"
    (record,) = caplog.records
    assert record.name == "feagi_io.udp"
    assert grant.advice in record.getMessage()


def test_path(sock: socket.socket) -> None:
    assert path_datagram_bytes(sock) is None  # not connected: no path
    sock.connect(("127.0.0.1", 9))
    assert path_datagram_bytes(sock) == 65_507  # loopback: all that IPv4 can carry
    assert forbid_ip_fragments(sock)
    assert sock.getsockopt(socket.IPPROTO_IP, 10) == LINUX_PMTUDISC_DO
    assert forbid_ip_fragments(sock, False)
    assert sock.getsockopt(socket.IPPROTO_IP, 10) == 0
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        assert forbid_ip_fragments(six)
        assert six.getsockopt(socket.IPPROTO_IPV6, 23) == LINUX_PMTUDISC_DO
        six.connect(("::1", 9))
        assert path_datagram_bytes(six) == 65_536 - 48


def test_group(sock: socket.socket) -> None:
    group = "239.255.70.71"
    send_to_group(sock, ttl=3, interface="127.0.0.1")
    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 3
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as viewer:
        viewer.bind((group, 0))
        join_group(viewer, group, "127.0.0.1")
        sock.sendto(b"frame", (group, viewer.getsockname()[1]))
        assert select.select([viewer], [], [], 5.0)[0]
        assert viewer.recv(100) == b"frame"


def test_group_refusals(sock: socket.socket) -> None:
    with pytest.raises(ConfigError, match="ttl is 256"):
        send_to_group(sock, ttl=256)
    with pytest.raises(ConfigError, match=r"'eth0' is no IPv4"):
        send_to_group(sock, interface="eth0")
    with pytest.raises(ConfigError, match="no multicast group"):
        join_group(sock, "192.168.0.1")
