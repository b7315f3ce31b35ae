# SPDX-License-Identifier: Apache-2.0
"""Transports by name: the table that other rooms go through, so that none of them names a class.

A transport is imported when it is first asked for; one that is not used costs nothing.

Transports of other packages join the table through entry points of the group
`feagi_io.transports`, named `<name>.blocking` and `<name>.nonblocking`:

    [project.entry-points."feagi_io.transports"]
    "mybus.blocking" = "mybus.feagi:MyBusTransport"
    "mybus.nonblocking" = "mybus.feagi:AsyncMyBusTransport"

A name of the table here stays what it is, whatever is installed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final, Literal, cast

from feagi_io_host.blocking.transport import BlockingTransport
from feagi_io_host.core.agent_link import (
    AgentLink,
    AsyncAgentLink,
    LinkParty,
    MakePeerStreams,
    PeerPictures,
    PeerStreams,
    StreamEnd,
)
from feagi_io_host.core.carrier import AgentHost
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.messages import ConnectionProtocol, Endpoint
from feagi_io_host.core.types import StreamType
from feagi_io_host.nonblocking.transport import NonBlockingTransport
from feagi_io_host.transports.endpoint import LineParty, LineTransport

# The scheme of a line's address -> "module:class". "" is a path or the name of a port.
LINE_TRANSPORTS: Mapping[str, str] = MappingProxyType(
    {
        "": "feagi_io_host.transports.serial:SerialTransport",
        "socket": "feagi_io_host.transports.serial:SerialTransport",
        "udp": "feagi_io_host.transports.serial:SerialTransport",
    }
)

Paradigm = Literal["blocking", "nonblocking"]
ENTRY_POINT_GROUP: Final = "feagi_io.transports"

# Name and paradigm of an agent transport -> "module:class".
TRANSPORTS: Mapping[tuple[str, Paradigm], str] = MappingProxyType(
    {
        ("virtual", "blocking"): "feagi_io_host.transports.virtual:VirtualTransport",
        ("virtual", "nonblocking"): "feagi_io_host.transports.virtual:AsyncVirtualTransport",
        ("zmq", "blocking"): "feagi_io_host.transports.zmq:ZmqTransport",
        ("zmq", "nonblocking"): "feagi_io_host.transports.zmq:AsyncZmqTransport",
        ("udp", "nonblocking"): "feagi_io_host.transports.udp:UdpTransport",
        ("websocket", "nonblocking"): "feagi_io_host.transports.websocket:WebSocketTransport",
        ("webrtc", "nonblocking"): "feagi_io_host.transports.webrtc:WebRtcTransport",
        ("shm", "blocking"): "feagi_io_host.transports.shm:ShmTransport",
        ("shm", "nonblocking"): "feagi_io_host.transports.shm:AsyncShmTransport",
    }
)
_PARADIGMS: Final[tuple[Paradigm, ...]] = ("blocking", "nonblocking")


@dataclass(frozen=True, slots=True)
class AgentLinks:
    """The links for one scheme: how streams are asked for, and a "module:class" per paradigm."""

    protocol: ConnectionProtocol
    blocking: str
    nonblocking: str


# The scheme of a server's address -> how an agent gets there.
AGENT_LINKS: Mapping[str, AgentLinks] = MappingProxyType(
    {
        "tcp": AgentLinks(
            ConnectionProtocol.ZMQ,
            "feagi_io_host.transports.zmq.client:ZmqAgentLink",
            "feagi_io_host.transports.zmq.async_client:AsyncZmqAgentLink",
        ),
        **dict.fromkeys(
            ("ws", "wss"),
            AgentLinks(
                ConnectionProtocol.WEBSOCKET,
                "feagi_io_host.transports.websocket.client:WebSocketAgentLink",
                "feagi_io_host.transports.websocket.async_client:AsyncWebSocketAgentLink",
            ),
        ),
    }
)

# What a stream was asked for over -> how an agent opens its end of it, where that is another system
# than its control link: "module:callable(url, stream, *, max_frame_bytes, ...) -> StreamEnd".
STREAM_ENDS: Mapping[ConnectionProtocol, str] = MappingProxyType(
    {
        ConnectionProtocol.UDP: "feagi_io_host.transports.udp.stream_end:udp_stream_end",
        ConnectionProtocol.SHARED_MEMORY: (
            "feagi_io_host.transports.shm.stream_end:shm_stream_end"
        ),
        ConnectionProtocol.WEBSOCKET: (
            "feagi_io_host.transports.websocket.stream_end:websocket_stream_end"
        ),
    }
)

# What a stream was asked for over -> how an agent opens its end of all such streams together, where
# the two ends agree on it over the control link: "module:callable", a MakePeerStreams. Only the
# link for WebSocket can do that.
PEER_STREAMS: Mapping[ConnectionProtocol, str] = MappingProxyType(
    {ConnectionProtocol.WEBRTC: "feagi_io_host.transports.webrtc.agent_end:webrtc_streams"}
)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def line_scheme(address: str) -> str:
    """The scheme of a line's address, "" for a plain path. ConfigError for an unknown one."""
    match = _SCHEME.match(address)
    scheme = match.group(1).lower() if match else ""
    if scheme not in LINE_TRANSPORTS:
        known = ", ".join(f"{name}://" for name in LINE_TRANSPORTS if name)
        raise ConfigError(f"line {address!r}: no transport for {scheme}://; known: a path, {known}")
    return scheme


def line_transport(address: str, party: LineParty, **settings: Any) -> LineTransport:
    """The transport for a line's address, not yet started.

    `settings` are its keyword arguments. Raises ConfigError for an unknown scheme.
    """
    module, _, name = LINE_TRANSPORTS[line_scheme(address)].partition(":")
    make = cast("Callable[..., LineTransport]", getattr(import_module(module), name))
    return make(address, party, **settings)


def agent_protocol(
    address: str, streams_over: ConnectionProtocol | None = None
) -> ConnectionProtocol:
    """How an agent that registers at `address` asks for its streams: over the system of the address
    where `streams_over` is None. ConfigError for an address without a known scheme, and for what no
    agent here speaks beside it."""
    own = _links(address).protocol
    if streams_over is None or streams_over is own:
        return own
    there = (*STREAM_ENDS, *_peers(own))
    if streams_over not in there:
        known = ", ".join(protocol.value for protocol in dict.fromkeys((own, *there)))
        raise ConfigError(f"streams over {streams_over.value}; from {address} {known} can be had")
    return streams_over


def agent_link(address: str, party: LinkParty, **settings: Any) -> AgentLink:
    """The link from an agent to a server, for threads, not yet started.

    `settings` are its keyword arguments, `streams_over` among them: what the agent asks for its
    streams over. Raises ConfigError for an unknown scheme or an address that cannot be one.
    """
    links = _links(address)
    module, _, name = links.blocking.partition(":")
    return cast("Callable[..., AgentLink]", getattr(import_module(module), name))(
        address, party, **_seams(links), **settings
    )


def async_agent_link(address: str, party: LinkParty, **settings: Any) -> AsyncAgentLink:
    """The link for event loops; otherwise as `agent_link`."""
    links = _links(address)
    module, _, name = links.nonblocking.partition(":")
    return cast("Callable[..., AsyncAgentLink]", getattr(import_module(module), name))(
        address, party, **_seams(links), **settings
    )


def _peers(control: ConnectionProtocol) -> tuple[ConnectionProtocol, ...]:
    """What is agreed on over a control link of this protocol."""
    return tuple(PEER_STREAMS) if control is ConnectionProtocol.WEBSOCKET else ()


def _seams(links: AgentLinks) -> dict[str, Any]:
    """What a link opens streams with that are not its own."""
    seams: dict[str, Any] = {"stream_ends": stream_end}
    if _peers(links.protocol):
        seams["peer_streams"] = _peer_streams
    return seams


def _peer_streams(endpoints: Mapping[StreamType, Endpoint], **how: Any) -> PeerStreams:
    """The MakePeerStreams that knows the table."""
    protocol = next(iter(endpoints.values())).protocol
    module, _, name = PEER_STREAMS[protocol].partition(":")
    return cast("MakePeerStreams", getattr(import_module(module), name))(endpoints, **how)


def _links(address: str) -> AgentLinks:
    match = _SCHEME.match(address)
    links = AGENT_LINKS.get(match.group(1).lower()) if match else None
    if links is None:
        known = ", ".join(f"{scheme}://" for scheme in AGENT_LINKS)
        raise ConfigError(f"server address {address[:80]!r}; one with {known} is needed")
    return links


def peer_pictures(address: str, **how: Any) -> PeerPictures:
    """A connection for pictures to a page, in the running event loop. `address` is this machine's,
    as the page reaches it; `max_bytes`, `on_room` and `on_lost` as WebRtcPictures has them. Raises
    MissingExtraError where there is no WebRTC, ConfigError for what is no address."""
    module = import_module("feagi_io_host.transports.webrtc.pictures")
    return cast("Callable[..., PeerPictures]", module.WebRtcPictures)(address, **how)


def stream_end(
    endpoint: Endpoint, stream: StreamType, *, max_frame_bytes: int, **settings: Any
) -> StreamEnd:
    """An agent's end of a stream that the server has handed out at `endpoint`, opened.

    `settings` are further keyword arguments of the system's own. Raises ConfigError for a protocol
    without stream ends, FeagiDataError for an address that is none of the system's, RemoteError or
    PortError when there is no getting there, LocalError when the system has nothing left.
    """
    place = STREAM_ENDS.get(endpoint.protocol)
    if place is None:
        known = ", ".join(protocol.value for protocol in STREAM_ENDS)
        raise ConfigError(
            f"a {stream.value} stream over {endpoint.protocol.value} cannot be opened beside "
            f"another control link; known: {known}"
        )
    module, _, name = place.partition(":")
    make = cast("Callable[..., StreamEnd]", getattr(import_module(module), name))
    return make(endpoint.url, stream, max_frame_bytes=max_frame_bytes, **settings)


def transport_names() -> Mapping[str, tuple[Paradigm, ...]]:
    """Every agent transport, those of other packages included, with its paradigms."""
    names: dict[str, set[Paradigm]] = {}
    for name, paradigm in (*TRANSPORTS, *_installed()):
        names.setdefault(name, set()).add(paradigm)
    return {name: tuple(p for p in _PARADIGMS if p in names[name]) for name in sorted(names)}


def blocking_transport(name: str, host: AgentHost, **settings: Any) -> BlockingTransport:
    """The transport `name` for threads, not yet started; `settings` are its keyword arguments.

    Raises ConfigError for an unknown name, or when what stands behind it is no such transport.
    """
    made = _class(name, "blocking")(host, **settings)
    if not isinstance(made, BlockingTransport):
        raise ConfigError(f"transport {name!r} gave a {type(made).__name__}, no BlockingTransport")
    return made


def nonblocking_transport(name: str, host: AgentHost, **settings: Any) -> NonBlockingTransport:
    """The transport `name` for event loops; otherwise as `blocking_transport`."""
    made = _class(name, "nonblocking")(host, **settings)
    if not isinstance(made, NonBlockingTransport):
        raise ConfigError(
            f"transport {name!r} gave a {type(made).__name__}, no NonBlockingTransport"
        )
    return made


def _class(name: str, paradigm: Paradigm) -> Callable[..., object]:
    own = TRANSPORTS.get((name, paradigm))
    if own is not None:
        module, _, attribute = own.partition(":")
        return cast("Callable[..., object]", getattr(import_module(module), attribute))
    entry = _installed().get((name, paradigm))
    if entry is not None:
        return cast("Callable[..., object]", entry.load())
    known = ", ".join(
        f"{other} ({', '.join(paradigms)})" for other, paradigms in transport_names().items()
    )
    raise ConfigError(f"no {paradigm} transport {name!r}; known: {known}")


def _installed() -> Mapping[tuple[str, Paradigm], EntryPoint]:
    """What other packages bring, with names that are of the right form and not taken."""
    found: dict[tuple[str, Paradigm], EntryPoint] = {}
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        name, _, ending = entry.name.rpartition(".")
        for paradigm in _PARADIGMS:
            if name and ending == paradigm and (name, paradigm) not in TRANSPORTS:
                found.setdefault((name, paradigm), entry)
    return found
