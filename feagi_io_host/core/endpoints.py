# SPDX-License-Identifier: Apache-2.0
"""Who carries which stream of an agent: the transport that lets it in, or another one for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.carrier import PeerCarrier, StreamCarrier
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.server_seams import EndpointAllocator
from feagi_io_host.core.types import StreamType

STREAM_OF: Final[Mapping[AgentCapabilities, StreamType]] = MappingProxyType(
    {
        AgentCapabilities.SEND_SENSOR_DATA: StreamType.SENSORY,
        AgentCapabilities.RECEIVE_MOTOR_DATA: StreamType.MOTOR,
        AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: StreamType.VISUALIZATION,
    }
)
CAPABILITY_OF: Final[Mapping[StreamType, AgentCapabilities]] = MappingProxyType(
    {stream: capability for capability, stream in STREAM_OF.items()}
)


class EndpointsByStream:
    """An EndpointAllocator that asks, for each stream, the one who carries it.

    `carriers` are transports that carry streams of agents let in here; `own` is for the others,
    and speaks `protocol`, which every agent here can do.
    """

    def __init__(
        self,
        own: EndpointAllocator,
        carriers: Mapping[StreamType, StreamCarrier],
        protocol: ConnectionProtocol,
    ) -> None:
        self._own = own
        self._carriers = carriers
        self._protocol = protocol

    def allocate(
        self, agent_id: bytes, capability: AgentCapabilities, protocol: ConnectionProtocol
    ) -> Endpoint | None:
        """Where one stream of one agent goes; None when there is no place to be had, and for a
        protocol that nobody here speaks.

        Who asks for the protocol of one carrier is given `own`'s for the streams of the others.
        """
        spoken = {carrier.protocol for carrier in self._carriers.values()}
        if protocol is not self._protocol and protocol not in spoken:
            return None
        carriers = carriers_for(protocol, self._carriers, self._protocol)
        carrier = carriers.get(STREAM_OF[capability])
        if carrier is None:
            return self._own.allocate(agent_id, capability, self._protocol)
        url = carrier.offer(agent_id, capability)
        return None if url is None else Endpoint(carrier.protocol, url)

    def free(self, agent_id: bytes, capability: AgentCapabilities, endpoint: Endpoint) -> None:
        """Take back what `allocate` gave and nobody serves."""
        self._own.free(agent_id, capability, endpoint)
        carrier = self._carriers.get(STREAM_OF[capability])
        if carrier is not None:
            carrier.withdraw(agent_id, capability)


def carriers_for(
    protocol: ConnectionProtocol,
    carriers: Mapping[StreamType, StreamCarrier],
    own: ConnectionProtocol,
) -> dict[StreamType, StreamCarrier]:
    """Those of `carriers` that serve an agent that has asked for `protocol`, at a transport whose
    own is `own`: that one every agent can do."""
    return {
        stream: carrier
        for stream, carrier in carriers.items()
        if carrier.protocol in (protocol, own)
    }


def refuse_uncarried(
    carriers: Mapping[StreamType, StreamCarrier], *, negotiates: bool = False
) -> None:
    """Raise ConfigError for a stream that no other transport can carry, and for a carrier whose
    connections are agreed on over a control channel unless this one `negotiates`."""
    for stream, carrier in carriers.items():
        if isinstance(carrier, PeerCarrier) and not negotiates:
            raise ConfigError(
                f"{stream.value} over {carrier.protocol.value}: its connections are agreed on over "
                "WebSocket; let agents that are to have them register there"
            )
        if stream not in CAPABILITY_OF:
            raise ConfigError(
                f"stream {stream.value!r} in carriers; only sensory, motor and visualization have "
                "an endpoint of their own"
            )
