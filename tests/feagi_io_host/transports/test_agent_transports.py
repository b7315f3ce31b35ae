# SPDX-License-Identifier: Apache-2.0
"""The table of agent transports, and those that other packages add to it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint

import pytest

from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.core.errors import ConfigError, FeagiDataError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.transport import NonBlockingTransport
from feagi_io_host.testing import StandInHost
from feagi_io_host.transports import registry
from feagi_io_host.transports.virtual import AsyncVirtualTransport, VirtualTransport

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that a package with these entry points is installed."""
    module = types.ModuleType("somebodys_bus")
    vars(module).update(Bus=type("Bus", (VirtualTransport,), {}), Nothing=lambda host: host)
    monkeypatch.setitem(sys.modules, "somebodys_bus", module)

    def pretend(**targets: str) -> None:
        found = [
            EntryPoint(name.replace("__", "."), f"somebodys_bus:{target}", "feagi_io.transports")
            for name, target in targets.items()
        ]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    return pretend


@pytest.mark.parametrize(("key", "target"), sorted(registry.TRANSPORTS.items()))
def test_every_entry_names_a_class_of_its_paradigm(key: tuple[str, str], target: str) -> None:
    module, _, name = target.partition(":")
    base = BlockingTransport if key[1] == "blocking" else NonBlockingTransport
    made = getattr(import_module(module), name)
    assert issubclass(made, base)
    assert made.backend_name == key[0]


def test_transports_are_made_by_name_with_their_settings() -> None:
    blocking = registry.blocking_transport("virtual", StandInHost(), max_frame_bytes=100)
    assert isinstance(blocking, VirtualTransport)
    assert blocking.max_frame_bytes == 100
    assert isinstance(
        registry.nonblocking_transport("virtual", StandInHost()), AsyncVirtualTransport
    )


def test_unknown_names_list_the_known_ones(install: Install) -> None:
    install(bus__blocking="Bus")
    with pytest.raises(
        ConfigError,
        match=r"'bus'; known: bus \(blocking\), shm \(.*\), udp \(nonblocking\), virtual \(bl",
    ):
        registry.nonblocking_transport("bus", StandInHost())


def test_entry_points_join_the_table_but_replace_nothing(install: Install) -> None:
    install(bus__blocking="Bus", virtual__blocking="Nothing", junk="Nothing", bus__other="Nothing")
    assert dict(registry.transport_names()) == {
        "bus": ("blocking",),
        "shm": ("blocking", "nonblocking"),
        "udp": ("nonblocking",),
        "virtual": ("blocking", "nonblocking"),
        "webrtc": ("nonblocking",),
        "websocket": ("nonblocking",),
        "zmq": ("blocking", "nonblocking"),
    }
    assert type(registry.blocking_transport("bus", StandInHost())).__name__ == "Bus"
    assert isinstance(registry.blocking_transport("virtual", StandInHost()), VirtualTransport)


def test_what_is_no_transport_is_refused(install: Install) -> None:
    install(bus__blocking="Nothing", bus__nonblocking="Bus")
    with pytest.raises(ConfigError, match="gave a StandInHost, no BlockingTransport"):
        registry.blocking_transport("bus", StandInHost())
    with pytest.raises(ConfigError, match="gave a Bus, no NonBlockingTransport"):
        registry.nonblocking_transport("bus", StandInHost())


@pytest.mark.parametrize("target", sorted(registry.STREAM_ENDS.values()))
def test_every_stream_end_can_be_opened_by_name(target: str) -> None:
    module, _, name = target.partition(":")
    assert callable(getattr(import_module(module), name))


def test_streams_over_what_has_no_end_of_its_own_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"motor stream over Zmq.*known: .*Udp"):
        registry.stream_end(
            Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:1"),
            StreamType.MOTOR,
            max_frame_bytes=100,
        )
    with pytest.raises(FeagiDataError, match="session-key is expected"):
        registry.stream_end(
            Endpoint(ConnectionProtocol.UDP, "udp://127.0.0.1:1"),
            StreamType.VISUALIZATION,
            max_frame_bytes=100,
        )
