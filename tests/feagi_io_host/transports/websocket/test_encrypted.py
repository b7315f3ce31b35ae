# SPDX-License-Identifier: Apache-2.0
"""wss://: agents and servers with a certificate, and those that do not fit together."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feagi_io_host.agent import AsyncFeagiAgent, FeagiAgent
from feagi_io_host.bench.lines import encode
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import ConfigError, DeliveryTimeoutError
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor
from feagi_io_host.nonblocking.runtime import Runtime
from feagi_io_host.transports.websocket import WebSocketSettings
from tests.feagi_io_host.agent.faces import face
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW
from tests.feagi_io_host.transports.websocket.raw import DEADLINE_S, RawPeer, Served

Pair = tuple[Path, Path]
ROVER = AgentDescriptor("feagi-io test", "rover", 1)


@pytest.fixture(scope="module")
def make_pair(
    tmp_path_factory: pytest.TempPathFactory, require: Callable[[str], Any]
) -> Callable[[str], Pair]:
    """Make a certificate for 127.0.0.1 that vouches for itself, and its key."""
    openssl = require("openssl")

    def make(name: str) -> Pair:
        folder = tmp_path_factory.mktemp(name)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        subprocess.run(
            [
                *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-nodes", "-days", "2", "-subj", f"/CN={name}"),
                *("-addext", "subjectAltName=IP:127.0.0.1"),
                *("-out", str(certificate), "-keyout", str(key)),
            ],
            check=True,
            capture_output=True,
            timeout=DEADLINE_S,
        )
        return certificate, key

    return make


@pytest.fixture(scope="module")
def pair(make_pair: Callable[[str], Pair]) -> Pair:
    return make_pair("server")


@pytest.fixture(scope="module")
def served(pair: Pair) -> Iterator[Served]:
    certificate, key = pair
    settings = {"certificate": certificate, "private_key": key, "open_timeout_s": 0.5}
    with Served(settings=settings) as server:
        yield server


@pytest.mark.parametrize("kind", [FeagiAgent, AsyncFeagiAgent])
def test_frames_go_both_ways(served: Served, pair: Pair, kind: Any) -> None:
    assert served.url.startswith("wss://127.0.0.1:")
    runtime = Runtime()
    agent = face(kind(ROVER, SENSE | MOVE | VIEW, served.url, authorities=pair[0]), runtime)
    container = FeagiByteContainer.new_empty()
    encode(container, 200_000, 9)
    try:
        agent.connect(DEADLINE_S)
        # A large one: encryption cuts it in pieces, and the memory must stay until all have left.
        with SharedFBC.adopt(container) as fbc:
            served.handle.publish_motor(agent.agent_id, fbc)
            served.handle.publish_visualization(fbc)
            for received in (
                agent.receive_motor(DEADLINE_S),
                agent.receive_visualization(DEADLINE_S),
            ):
                assert received is not None
                assert received.get_increment_counter() == 9
            agent.send_sensory(fbc)
            assert served.host.take_sensory(agent.agent_id) == bytes(fbc.view)
    finally:
        agent.close()
        runtime.close()


def test_a_server_that_nobody_vouches_for_gets_no_agent(
    served: Served, make_pair: Callable[[str], Pair]
) -> None:
    for settings in ({}, {"authorities": make_pair("somebody else")[0]}):
        agent = FeagiAgent(ROVER, MOVE, served.url, **settings)
        with pytest.raises(DeliveryTimeoutError, match="certificate verify failed"):
            agent.connect(0.5)
        agent.close()


def test_who_speaks_in_the_clear_is_cut_off(served: Served) -> None:
    with RawPeer(served.url) as peer:
        assert peer.shake_hands()[0] == 0
    agent = FeagiAgent(ROVER, MOVE, served.url.replace("wss:", "ws:"))
    with pytest.raises(DeliveryTimeoutError, match="cannot be connected"):
        agent.connect(0.5)
    agent.close()


def test_files_that_do_not_fit_are_named(pair: Pair, tmp_path: Path) -> None:
    certificate, key = pair
    with pytest.raises(ConfigError, match="certificate alone"):
        WebSocketSettings(certificate=certificate)
    with pytest.raises(ConfigError, match="no WebSocket setting certificat"):
        WebSocketSettings.of({"certificat": certificate})
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    for files in ((junk, key), (certificate, junk), (tmp_path / "missing", key)):
        settings = WebSocketSettings(certificate=files[0], private_key=files[1])
        with pytest.raises(ConfigError, match="private key"):
            settings.tls()
        with pytest.raises(ConfigError, match="private key"):
            Served(settings=settings)
    with pytest.raises(ConfigError, match="certificates in"):
        FeagiAgent(ROVER, MOVE, "wss://127.0.0.1:9", authorities=junk)
