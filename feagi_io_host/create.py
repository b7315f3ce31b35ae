# SPDX-License-Identifier: Apache-2.0
"""create_pns, create_pns_with_config: a PNS with the transports that a configuration names.

The transport of `control` lets the agents in. Streams that name the same transport belong to it;
every other one that is named carries its streams for the agents of that one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Final

from feagi_io_host.core.compression import CompressionMode
from feagi_io_host.core.config import PNSConfig, ZmqEndpoints
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.server_seams import BrainControl, ServerLimits
from feagi_io_host.core.types import StreamType
from feagi_io_host.handles import TransportHandle
from feagi_io_host.pns import PNS
from feagi_io_host.transports.registry import Paradigm, transport_names

__all__ = ["create_pns", "create_pns_with_config"]

_DEFAULT: Final = ZmqEndpoints()

# Stream -> the setting with its URL.
_URLS: Final = {
    StreamType.CONTROL: "zmq.rest",
    StreamType.SENSORY: "zmq.sensory",
    StreamType.MOTOR: "zmq.motor",
    StreamType.VISUALIZATION: "zmq.viz",
}

_WEBRTC: Final[tuple[str, Paradigm]] = ("webrtc", "nonblocking")
_WEBSOCKET: Final[tuple[str, Paradigm]] = ("websocket", "nonblocking")
_WEBSOCKET_CONTROL: Final = "ws://127.0.0.1:9053"  # the engine's registration_port

_NOT_OVER_UDP: Final = {
    StreamType.CONTROL: "agents could not rely on any answer",
    StreamType.MOTOR: "a robot would not get a command, and its brain not know",
}


def create_pns(
    *,
    zmq_rest: str = _DEFAULT.rest,
    zmq_motor: str = _DEFAULT.motor,
    zmq_viz: str = _DEFAULT.viz,
    zmq_sensory: str = _DEFAULT.sensory,
    brain: BrainControl | None = None,
) -> PNS:
    """A PNS, not yet started, that agents reach over ZMQ at these URLs, `tcp://host:port`.

    Port 0 or * is any free one; `PNS.endpoints` tells which. Otherwise as `create_pns_with_config`.
    """
    config = PNSConfig.from_sources(
        arguments={
            "zmq.rest": zmq_rest,
            "zmq.motor": zmq_motor,
            "zmq.viz": zmq_viz,
            "zmq.sensory": zmq_sensory,
        }
    )
    return create_pns_with_config(config, brain=brain)


def create_pns_with_config(
    config: PNSConfig,
    *,
    brain: BrainControl | None = None,
    on_configured: Callable[[bytes, AgentConfiguration], bool] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> PNS:
    """A PNS, not yet started, with the transports and limits of `config`.

    `brain` answers what agents ask it over the control channel. `on_configured` is called with an
    agent's id and units, and says whether they can be had. Raises ConfigError for a transport that
    is not there, and for settings that cannot be had together; the message names the setting.
    """
    pns = PNS(delivery=config.delivery_rules(), clock=clock)
    names = {stream: getattr(config.transport, stream.value) for stream in StreamType}
    chosen = {stream: _choose(config, stream, name) for stream, name in names.items()}
    control = chosen[StreamType.CONTROL]
    door: dict[str, Any] = {
        "token": config.auth.read_token(),
        "brain": brain,
        "on_configured": on_configured,
        "limits": ServerLimits(unregistered_bytes=config.limits.unregistered_bytes),
        "max_agents": config.limits.max_agents,
        "silence_timeout_s": config.limits.heartbeat_timeout_s,
        "clock": clock,
    }
    carriers: dict[StreamType, TransportHandle] = {}
    # Agents that come over WebSocket as well; the last of the carriers, since it may need them.
    beside = config.websocket.endpoint is not None and control != _WEBSOCKET
    kinds = [kind for kind in dict.fromkeys(chosen.values()) if kind not in (control, _WEBSOCKET)]
    if beside or (_WEBSOCKET in chosen.values() and control != _WEBSOCKET):
        kinds.append(_WEBSOCKET)
    if _WEBRTC in kinds and not beside and control != _WEBSOCKET:
        (setting, *_) = (f"transport.{s.value}" for s in StreamType if chosen[s] == _WEBRTC)
        raise ConfigError(
            f"{setting} is 'webrtc' ({config.origin_of(setting)}), but its agents register over "
            "WebSocket: set websocket.endpoint, or transport.control to 'websocket'"
        )
    for kind in kinds:
        streams = tuple(stream for stream in StreamType if chosen[stream] == kind)
        settings = _settings_of(kind[0], config, streams)
        lets_in = kind == _WEBSOCKET and beside
        if lets_in:
            settings.update(door, lets_in=True)
        handle = _add(
            pns,
            kind,
            tuple(StreamType) if lets_in else streams,
            settings,
            carriers if lets_in else None,
        )
        carriers.update(dict.fromkeys(streams, handle))
    if control != _WEBSOCKET:  # who comes there could not agree on a connection
        carriers = {s: one for s, one in carriers.items() if chosen[s] != _WEBRTC}
    own = tuple(stream for stream in StreamType if chosen[stream] == control)
    settings = _settings_of(control[0], config, own)
    if control[0] in ("zmq", "websocket"):
        settings.update(door)
    _add(pns, control, tuple(StreamType), settings, carriers)
    return pns


def _choose(config: PNSConfig, stream: StreamType, name: str) -> tuple[str, Paradigm]:
    """The transport that a setting means; ConfigError when there is none."""
    known = transport_names()
    plain, _, wanted = name.partition(".")
    for paradigm in known.get(plain, ()):  # blocking first
        if wanted in ("", paradigm):
            return plain, paradigm
    setting = f"transport.{stream.value}"
    there = ", ".join(f"{n}.{paradigm}" for n, ways in known.items() for paradigm in ways)
    raise ConfigError(
        f"{setting} is {name!r} ({config.origin_of(setting)}), but no transport of this name is "
        f"there; known: {there}. Name one of them, or install a package that brings {plain!r}"
    )


def _add(
    pns: PNS,
    kind: tuple[str, Paradigm],
    streams: Iterable[StreamType],
    settings: Mapping[str, Any],
    carriers: Mapping[StreamType, TransportHandle] | None,
) -> TransportHandle:
    name, paradigm = kind
    try:
        return pns.add_transport(
            name, paradigm=paradigm, streams=streams, carriers=carriers, **settings
        )
    except TypeError as error:  # a transport that knows no carriers
        raise ConfigError(
            f"transport {name!r} ({paradigm}) cannot be used like this: {error}; let it carry "
            "every stream, or none"
        ) from error


def _settings_of(name: str, config: PNSConfig, streams: Iterable[StreamType]) -> dict[str, Any]:
    """What a transport is told of the streams that it carries, where there is anything to set."""
    if name == "udp":
        return _udp_settings(config, streams)
    if name == "websocket":
        return _websocket_settings(config, streams)
    if name == "webrtc":
        return {"settings": _webrtc_settings(config, streams)}
    if name == "shm":
        return {field.name: getattr(config.shm, field.name) for field in fields(config.shm)}
    if name != "zmq":
        return {}
    places = {stream: _place(config, stream) for stream in streams}
    hosts = {host for host, _ in places.values()}
    if len(hosts) > 1:
        urls = ", ".join(f"{_URLS[stream]} on {host}" for stream, (host, _) in places.items())
        raise ConfigError(
            f"one transport carries these streams and has one address, but {urls}; name the same "
            "host in each"
        )
    (host,) = hosts
    settings: dict[str, Any] = {
        "address": host,
        "advertised_address": config.zmq.advertised_address,
        "control_port": places[StreamType.CONTROL][1] if StreamType.CONTROL in places else None,
        "preferred_ports": {
            stream: port
            for stream, (_, port) in places.items()
            if port and stream is not StreamType.CONTROL
        },
        "open_to_everybody": config.auth.open_to_everybody,
    }
    if config.compression.mode is not CompressionMode.OFF:
        settings["compression"] = config.compression
    return settings


def _websocket_settings(config: PNSConfig, streams: Iterable[StreamType]) -> dict[str, Any]:
    websocket = config.websocket
    lets_in = StreamType.CONTROL in streams
    url = websocket.endpoint or (_WEBSOCKET_CONTROL if lets_in else "ws://127.0.0.1:0")
    secure = url.startswith("wss:")
    if secure != (websocket.certificate is not None):
        raise ConfigError(
            f"websocket.endpoint is {url} ({config.origin_of('websocket.endpoint')}), and "
            f"websocket.certificate {websocket.certificate}: wss:// needs certificate and "
            "private_key, and with these it has to be wss://"
        )
    host, port = _host_and_port(url)
    return {
        "address": host,
        "port": port,
        "lets_in": lets_in,
        "advertised_address": websocket.advertised_address,
        "open_to_everybody": config.auth.open_to_everybody,
        "settings": {
            "origins": tuple(websocket.allowed_origins.split()),
            "certificate": websocket.certificate,
            "private_key": websocket.private_key,
            "ping_interval_s": websocket.ping_interval_s,
            "ping_timeout_s": websocket.ping_timeout_s,
            "send_buffer_bytes": websocket.send_buffer_bytes,
        },
    }


def _webrtc_settings(config: PNSConfig, streams: Iterable[StreamType]) -> dict[str, Any]:
    if StreamType.CONTROL in streams:
        raise ConfigError(
            f"transport.control is 'webrtc' ({config.origin_of('transport.control')}), which has "
            "no place to register: name websocket there"
        )
    webrtc = config.webrtc
    return {
        "addresses": tuple(webrtc.addresses.split()),
        "ice_servers": tuple(webrtc.ice_servers.split()),
        "silence_timeout_s": webrtc.silence_timeout_s,
        "message_bytes": webrtc.message_bytes,
    }


def _udp_settings(config: PNSConfig, streams: Iterable[StreamType]) -> dict[str, Any]:
    for stream, why in _NOT_OVER_UDP.items():
        if stream in streams:
            setting = f"transport.{stream.value}"
            raise ConfigError(
                f"{setting} is 'udp' ({config.origin_of(setting)}), which loses some of what it "
                f"carries: {why}. Name zmq there"
            )
    udp = config.udp
    host, port = _place(config, StreamType.VISUALIZATION)[0], 0
    if udp.endpoint is not None:
        host, port = _host_and_port(udp.endpoint)
    settings: dict[str, Any] = {
        "address": host,
        "port": port,
        "advertised_address": udp.advertised_address or config.zmq.advertised_address,
        "open_to_everybody": config.auth.open_to_everybody,
        "check": udp.check,
        "datagram_bytes": udp.datagram_bytes,
        "oversize": udp.oversize,
        "parity_group": udp.parity_group,
        "buffer_bytes": udp.buffer_bytes,
        "bytes_per_s": float(udp.bytes_per_s),
        "multicast_ttl": udp.multicast_ttl,
        "multicast_interface": udp.multicast_interface,
    }
    if udp.multicast is not None:
        settings["multicast_group"], settings["multicast_port"] = _host_and_port(udp.multicast)
    packs = config.compression.mode is not CompressionMode.OFF
    return {"settings": settings, **({"compression": config.compression} if packs else {})}


def _place(config: PNSConfig, stream: StreamType) -> tuple[str, int]:
    """Host and port of a stream's URL, which the configuration has checked."""
    return _host_and_port(getattr(config.zmq, _URLS[stream].partition(".")[2]))


def _host_and_port(url: str) -> tuple[str, int]:
    host, _, port = url.partition("://")[2].rpartition(":")
    return host.strip("[]"), 0 if port == "*" else int(port)
