# SPDX-License-Identifier: Apache-2.0
"""Control messages and a small world around the registration server, for the tests of it."""

from __future__ import annotations

import itertools
from typing import Any

from feagi_io_host.core.agent_registry import AgentRegistry
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.messages import (
    ConnectionProtocol,
    Endpoint,
    ReceivedMessage,
    RegistrationRequest,
    decode_control,
    encode_control,
)
from feagi_io_host.core.registration import RegistrationServer
from feagi_io_host.core.types import AgentDescriptor

SENSE = AgentCapabilities.SEND_SENSOR_DATA
MOVE = AgentCapabilities.RECEIVE_MOTOR_DATA
VIEW = AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
TOKEN = bytes(range(32))


def descriptor(name: str = "rover") -> AgentDescriptor:
    """A descriptor that differs from others by its name only."""
    return AgentDescriptor("acme", name, 1)


def request(
    name: str = "rover",
    capabilities: AgentCapabilities = SENSE | MOVE,
    token: bytes = bytes(32),
    protocol: ConnectionProtocol = ConnectionProtocol.ZMQ,
) -> RegistrationRequest:
    """A good registration request."""
    return RegistrationRequest(descriptor(name), capabilities, protocol, token)


def json_frame(value: Any) -> bytes:
    """A container with this JSON and no agent id."""
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON(value), 0)
    return container.copy_out_as_byte_vector()


def raw_json_frame(text: bytes) -> bytes:
    """A container with this text as its JSON, good or not."""
    head = bytes([4, 0, 0, 1]) + bytes(48) + (2 + len(text)).to_bytes(4, "little")
    return head + b"\x01\x01" + text


class Slots:
    """Hands out a limited number of endpoints and knows which are out."""

    def __init__(self, count: int = 1000) -> None:
        self.count = count
        self.out: dict[tuple[bytes, AgentCapabilities], str] = {}
        self._numbers = itertools.count(1)

    def allocate(
        self, agent_id: bytes, capability: AgentCapabilities, protocol: ConnectionProtocol
    ) -> Endpoint | None:
        if protocol is not ConnectionProtocol.ZMQ or len(self.out) >= self.count:
            return None
        assert (agent_id, capability) not in self.out, "given twice"
        url = f"tcp://127.0.0.1:{next(self._numbers)}"
        self.out[agent_id, capability] = url
        return Endpoint(protocol, url)

    def free(self, agent_id: bytes, capability: AgentCapabilities, endpoint: Endpoint) -> None:
        assert self.out.pop((agent_id, capability)) == endpoint.url


class Ids:
    """Agent ids in order, each 48 bytes."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> bytes:
        self.made += 1
        return self.made.to_bytes(48, "big")


class World:
    """A server, its registry, its endpoints, and shorthand for one message."""

    def __init__(self, slots: int = 1000, max_agents: int = 1024, **more: Any) -> None:
        self.slots = Slots(slots)
        self.registry = AgentRegistry(max_agents=max_agents)
        self.server = RegistrationServer(self.registry, self.slots, new_agent_id=Ids(), **more)

    def say(self, peer: object, message: Any, now_s: float = 0.0) -> ReceivedMessage | None:
        """The answer to a message, a value or bytes; None for silence."""
        return self.hear(peer, message, now_s)[0]

    def hear(
        self, peer: object, message: Any, now_s: float = 0.0
    ) -> tuple[ReceivedMessage | None, tuple[Any, ...]]:
        """The answer to a message, and the events."""
        if isinstance(message, bytes):
            data = message
        elif isinstance(message, (dict, str, list)):
            data = json_frame(message)
        else:
            data = encode_control(message)
        outcome = self.server.receive(peer, data, now_s)
        if outcome.reply is None:
            return None, outcome.events
        return decode_control(outcome.reply)[1], outcome.events

    def ignored(self) -> dict[str, int]:
        """What was ignored, by reason, without the zeros."""
        return {why: n for why, n in self.server.counters()["ignored"].items() if n}
