# SPDX-License-Identifier: Apache-2.0
"""Which of several transports carries a stream, for who has asked for what."""

from __future__ import annotations

from typing import Any

import pytest

from feagi_io_host.core.endpoints import (
    CAPABILITY_OF,
    STREAM_OF,
    EndpointsByStream,
    carriers_for,
    refuse_uncarried,
)
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.types import StreamType
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW

ZMQ, WEBSOCKET, SHM = (
    ConnectionProtocol.ZMQ,
    ConnectionProtocol.WEBSOCKET,
    ConnectionProtocol.SHARED_MEMORY,
)
ID = bytes(range(1, 49))


class Own:
    """The transport itself: hands out its own addresses, remembers what came back."""

    def __init__(self, protocol: ConnectionProtocol) -> None:
        self.protocol = protocol
        self.freed: list[Any] = []

    def allocate(self, agent_id: bytes, capability: Any, protocol: Any) -> Endpoint | None:
        assert protocol is self.protocol
        return Endpoint(protocol, f"own {STREAM_OF[capability].value}")

    def free(self, agent_id: bytes, capability: Any, endpoint: Endpoint) -> None:
        self.freed.append(capability)


class Carrier:
    """Another one, with room for one stream."""

    channel: Any = None

    def __init__(self, protocol: ConnectionProtocol, url: str | None = "carried") -> None:
        self.protocol = protocol
        self.url = url
        self.withdrawn: list[Any] = []

    def offer(self, agent_id: bytes, capability: Any) -> str | None:
        return self.url

    def withdraw(self, agent_id: bytes, capability: Any) -> None:
        self.withdrawn.append(capability)

    def serve(self, agent: Any, stream: StreamType) -> None:
        raise AssertionError("nobody is served here")


def urls(asked: ConnectionProtocol, own: ConnectionProtocol, carrier: Carrier) -> list[str | None]:
    table = EndpointsByStream(Own(own), {StreamType.VISUALIZATION: carrier}, own)
    found = [table.allocate(ID, capability, asked) for capability in (SENSE, MOVE, VIEW)]
    return [None if endpoint is None else endpoint.url for endpoint in found]


def test_each_stream_has_its_capability() -> None:
    assert {STREAM_OF[capability]: capability for capability in (SENSE, MOVE, VIEW)} == dict(
        CAPABILITY_OF
    )


@pytest.mark.parametrize("own", [ZMQ, WEBSOCKET])
def test_who_asks_for_a_carriers_protocol_gets_that_where_it_carries(
    own: ConnectionProtocol,
) -> None:
    mine = ["own sensory", "own motor"]
    assert urls(SHM, own, Carrier(SHM)) == [*mine, "carried"]
    assert urls(own, own, Carrier(SHM)) == [*mine, "own visualization"]
    # The same system by another transport: everybody here can do that.
    assert urls(own, own, Carrier(own)) == [*mine, "carried"]


def test_a_protocol_that_nobody_here_speaks_has_no_endpoint() -> None:
    assert urls(WEBSOCKET, ZMQ, Carrier(SHM)) == [None, None, None]
    assert urls(SHM, WEBSOCKET, Carrier(ZMQ)) == [None, None, None]


def test_over_websocket_nobody_is_given_zmq_who_did_not_ask_for_it() -> None:
    assert urls(WEBSOCKET, WEBSOCKET, Carrier(ZMQ))[2] == "own visualization"
    assert urls(ZMQ, WEBSOCKET, Carrier(ZMQ))[2] == "carried"


def test_a_carrier_without_room_is_no_endpoint() -> None:
    assert urls(SHM, ZMQ, Carrier(SHM, None))[2] is None


def test_what_is_given_back_goes_to_both() -> None:
    own, carrier = Own(ZMQ), Carrier(SHM)
    table = EndpointsByStream(own, {StreamType.VISUALIZATION: carrier}, ZMQ)
    for capability in (MOVE, VIEW):
        table.free(ID, capability, Endpoint(ZMQ, "any"))
    assert (own.freed, carrier.withdrawn) == ([MOVE, VIEW], [VIEW])


def test_control_cannot_be_carried() -> None:
    assert carriers_for(ZMQ, {}, ZMQ) == {}
    refuse_uncarried({StreamType.MOTOR: Carrier(ZMQ)})
    with pytest.raises(ConfigError, match="stream 'control' in carriers"):
        refuse_uncarried({StreamType.CONTROL: Carrier(ZMQ)})
