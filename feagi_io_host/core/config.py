# SPDX-License-Identifier: Apache-2.0
"""PNSConfig: the settings of a PNS, and where each of them comes from.

A setting has one path, `section.name`. It stands under that name in a TOML file, in the
environment (`zmq.rest` is FEAGI_IO_ZMQ_REST) and among the arguments. What comes later wins:

    default < FEAGI's own configuration (ports only) < TOML file < environment < arguments

Every value remembers its source. A key that does not exist is refused, with the nearest one that
does. The core reads no environment: it is handed in.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from feagi_io_host.core.agent_registry import DEFAULT_MAX_AGENTS, DEFAULT_TIMEOUT_S
from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.delivery import CHANNEL_CAPACITY, DeliveryRule, delivery_table
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.messages import AUTH_TOKEN_BYTES
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.settings import (
    DEFAULT_HOST,
    SETTINGS,
    argument_values,
    environment_values,
    feagi_ports,
    nearest,
    plain,
    read_file,
    shown,
    taken,
    toml_values,
)
from feagi_io_host.core.types import StreamType

_COMPRESSION: Final = CompressionSettings(mode=CompressionMode.OFF)
_EVERY_INTERFACE: Final = frozenset({"*", "0.0.0.0", "[::]"})


@dataclass(frozen=True, slots=True)
class ZmqEndpoints:
    """Where the PNS listens over ZMQ: `tcp://host:port`. `rest` is where agents register.

    Port 0 or * lets the system choose. The default host is this machine alone; the ports are
    FEAGI's. `advertised_address` is what agents are told to connect to, where that is not the host
    of the URLs.
    """

    rest: str = f"tcp://{DEFAULT_HOST}:30001"
    motor: str = f"tcp://{DEFAULT_HOST}:5564"
    viz: str = f"tcp://{DEFAULT_HOST}:5562"
    sensory: str = f"tcp://{DEFAULT_HOST}:5555"
    advertised_address: str | None = None


@dataclass(frozen=True, slots=True)
class WebSocketStreams:
    """How agents, viewers and browser pages come over WebSocket.

    `endpoint`: `ws://host:port` or `wss://host:port` where they may register, beside the transport
    of `control`; None for nowhere. Where `transport` names websocket without an endpoint, control
    is at this machine's port 9053, and other streams at any free one. `advertised_address`: what
    they are told to connect to, where that is not the host of the endpoint. `allowed_origins`:
    pages that a browser may connect from, with spaces between them; its own address is one. For wss
    `certificate` and `private_key` are files in PEM form. After `ping_interval_s` without a sign
    of life a connection is asked for one, and `ping_timeout_s` later ended. `send_buffer_bytes`:
    what the system holds for each connection (None: as much as it likes).
    """

    endpoint: str | None = None
    advertised_address: str | None = None
    allowed_origins: str = ""
    certificate: Path | None = None
    private_key: Path | None = None
    ping_interval_s: float = 10.0
    ping_timeout_s: float = 30.0
    send_buffer_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WebRtcStreams:
    """How streams go over WebRTC, those of them for which `transport` says so, for agents and pages
    that register over WebSocket.

    `addresses`: those of this machine that are offered to them, with spaces between; "*" is all but
    loopback. `ice_servers`: `stun:host:port` and `turn:user:password@host:port`, with spaces
    between, for what is beyond this network. `silence_timeout_s`: a connection without a sign of
    life for so long is over. `message_bytes`: the largest message of a channel.
    """

    addresses: str = "127.0.0.1"
    ice_servers: str = field(default="", repr=False)
    silence_timeout_s: float = 6.0
    message_bytes: int = 32_768


@dataclass(frozen=True, slots=True)
class UdpStreams:
    """How streams go over UDP, those of them for which `transport` says so.

    `endpoint`: `udp://host:port` where agents find the PNS; None for the host of `zmq.viz` and any
    free port. `advertised_address`: what they are told, None for that of `zmq`. `check`: what
    stands in front of each datagram ("auto": a keyed tag, or nothing over loopback).
    `datagram_bytes`: the largest datagram, 28 (IPv6: 48) below the path's MTU. `oversize`: what is
    done with a frame that is larger: "drop", "fragment", or "compress" and fragment if need be.
    `parity_group`: fragments that share one parity fragment, 0 for none. `buffer_bytes` is asked of
    the system, `bytes_per_s` bounds what one agent is sent after the first 4 MiB of a burst.
    `multicast`: `udp://group:port` where visualization goes once for all viewers, over so many
    networks (`multicast_ttl`) and out of the interface with this address.
    """

    endpoint: str | None = None
    advertised_address: str | None = None
    check: str = "auto"
    datagram_bytes: int = 1400
    oversize: str = "compress"
    parity_group: int = 0
    buffer_bytes: int = 4 << 20
    bytes_per_s: int = 4_000_000_000
    multicast: str | None = None
    multicast_ttl: int = 1
    multicast_interface: str | None = None


@dataclass(frozen=True, slots=True)
class ShmStreams:
    """How shared memory is used, where `transport` names it.

    `mode`: "fbc" for the streams alone; with "direct" there is also a ring of plain arrays, neuron
    ids and potentials, of `direct_neurons` at most (see `ShmTransport.direct`). `motor_slots`:
    motor frames that lie ready for each agent.
    """

    mode: str = "fbc"
    direct_neurons: int = 1_000_000
    motor_slots: int = 8


@dataclass(frozen=True, slots=True)
class StreamTransports:
    """The transport of each stream, by its name in the transport registry.

    `zmq.nonblocking` asks for the one that lives in an event loop, `zmq.blocking` for the one of
    threads; `zmq` alone is the one of threads, where there is one. Streams that name the same
    share it; the one of `control` lets the agents in, the others carry for it.
    """

    control: str = "zmq"
    sensory: str = "zmq"
    motor: str = "zmq"
    visualization: str = "zmq"


@dataclass(frozen=True, slots=True)
class PNSLimits:
    """`heartbeat_timeout_s`: so long may an agent be silent before it is dropped.
    `channel_capacity`: entries of a channel of each stream, unless `delivery` says otherwise.
    `max_agents`: agents registered at a time. `unregistered_bytes`: the longest message that is
    read from a peer that has not registered."""

    heartbeat_timeout_s: float = DEFAULT_TIMEOUT_S
    channel_capacity: int = CHANNEL_CAPACITY
    max_agents: int = DEFAULT_MAX_AGENTS
    unregistered_bytes: int = ServerLimits().unregistered_bytes


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """`token_file` holds the token that agents must show, as 32 bytes or 64 hexadecimal digits.

    None lets everybody in, which is refused for addresses that other machines can reach unless
    `open_to_everybody`. The token itself is in no setting, so that no listing can show it.
    """

    token_file: Path | None = None
    open_to_everybody: bool = False

    def read_token(self) -> bytes | None:
        """The 32 bytes of the token; None without a file.

        Raises ConfigError for a file that cannot be read or holds something else; the message
        tells how much, never what. A token of zeros is what agents without one send: refused.
        """
        if self.token_file is None:
            return None
        data = read_file(self.token_file)
        token = data
        if len(data) != AUTH_TOKEN_BYTES:
            digits = data.strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{%d}" % (2 * AUTH_TOKEN_BYTES), digits):
                raise ConfigError(
                    f"token file {self.token_file} has {len(data)} bytes; expected "
                    f"{AUTH_TOKEN_BYTES}, or {2 * AUTH_TOKEN_BYTES} hexadecimal digits"
                )
            token = bytes.fromhex(digits.decode("ascii"))
        if not any(token):
            raise ConfigError(
                f"token file {self.token_file} holds {AUTH_TOKEN_BYTES} zeros, which is what "
                "agents without a token send; make another one"
            )
        return token


@dataclass(frozen=True, slots=True)
class SensoryDelivery:
    """What differs from the delivery table for sensory channels; None for nothing."""

    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class MotorDelivery:
    """What differs from the delivery table for motor channels; None for nothing."""

    capacity: int | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """The rows of the delivery table that have something to set. Visualization has nothing: its
    channels hold one frame, the newest."""

    sensory: SensoryDelivery = SensoryDelivery()
    motor: MotorDelivery = MotorDelivery()


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One setting for a listing; `value` is a number, a text or None."""

    path: str
    value: int | float | str | None
    origin: str


@dataclass(frozen=True, slots=True)
class PNSConfig:
    """Everything that can be set about a PNS. Raises ConfigError for values that do not fit.

    Compression is off unless asked for: FEAGI's own engine and clients know no packed frames.
    """

    zmq: ZmqEndpoints = ZmqEndpoints()
    websocket: WebSocketStreams = WebSocketStreams()
    webrtc: WebRtcStreams = WebRtcStreams()
    udp: UdpStreams = UdpStreams()
    shm: ShmStreams = ShmStreams()
    transport: StreamTransports = StreamTransports()
    limits: PNSLimits = PNSLimits()
    auth: AuthSettings = AuthSettings()
    compression: CompressionSettings = _COMPRESSION
    delivery: DeliverySettings = DeliverySettings()
    # Path -> value and source. The value tells whether it is still the one that came from there.
    origins: Mapping[str, tuple[object, str]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for path in SETTINGS:
            value = _value_at(self, path)
            fitting = taken(path, value, self.origin_of(path))
            if fitting != value:
                kind = type(value).__name__
                raise ConfigError(f"{path} is {shown(value)}, a {kind}; {fitting!r} is needed")
        self._check_ports()

    @classmethod
    def default(cls) -> PNSConfig:
        """ZMQ for every stream, FEAGI's ports, this machine alone."""
        return cls()

    @classmethod
    def udp_optimized(cls) -> PNSConfig:
        """Visualization over UDP for agents that ask for it, everything else over ZMQ, and for
        all other agents that, too."""
        return cls._of({"transport.visualization": ("udp", "udp_optimized()")})

    @classmethod
    def from_toml(cls, path: str | Path) -> PNSConfig:
        """The defaults and what a TOML file says. Raises ConfigError naming file and key."""
        return cls.from_sources(toml=path)

    @classmethod
    def from_feagi_configuration(cls, path: str | Path) -> PNSConfig:
        """The defaults with the ports of FEAGI's own `feagi_configuration.toml`.

        Read are `[agent] registration_port` and `[ports] zmq_sensory_port`, `zmq_motor_port`,
        `zmq_visualization_port`, the keys of feagi-core 2.6.10; each may be missing. Hosts are
        not taken over: FEAGI's are about where FEAGI listens.
        """
        return cls.from_sources(feagi_configuration=path)

    @classmethod
    def from_sources(
        cls,
        *,
        feagi_configuration: str | Path | None = None,
        toml: str | Path | None = None,
        environ: Mapping[str, str] | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> PNSConfig:
        """Put the sources together, each one overriding those before it in this list.

        `environ` is the process's environment (`os.environ`); its FEAGI_IO_* count, and one that
        is empty counts as not set. `arguments` maps paths to values, None for not given. Raises
        ConfigError for unknown keys and for values of the wrong type or out of range, naming
        the source.
        """
        given: dict[str, tuple[object, str]] = {}
        if feagi_configuration is not None:
            given.update(feagi_ports(Path(feagi_configuration)))
        if toml is not None:
            given.update(toml_values(Path(toml)))
        given.update(environment_values(environ or {}))
        given.update(argument_values(arguments or {}))
        return cls._of(given)

    def origin_of(self, path: str) -> str:
        """Where the value of a setting comes from: "default", "file ...", "environment ...",
        "argument ...", or "program" for one that was set in Python. ConfigError when there is
        no such setting."""
        if path not in SETTINGS:
            raise ConfigError(f"no setting {path!r}; {nearest(path, SETTINGS)}")
        value = _value_at(self, path)
        known, origin = self.origins.get(path, (_default_of(path), "default"))
        return origin if known == value else "program"

    def rows(self) -> tuple[SettingRow, ...]:
        """Every setting with its value as plain data and its source, section by section."""
        return tuple(
            SettingRow(path, plain(_value_at(self, path)), self.origin_of(path))
            for path in SETTINGS
        )

    def delivery_rules(self) -> Mapping[StreamType, DeliveryRule]:
        """The delivery table with the capacities and deadlines that are set here."""
        sensory, motor = self.delivery.sensory, self.delivery.motor
        everyone = self.limits.channel_capacity
        capacity = {
            StreamType.SENSORY: everyone if sensory.capacity is None else sensory.capacity,
            StreamType.MOTOR: everyone if motor.capacity is None else motor.capacity,
            StreamType.CONTROL: everyone,
        }
        deadline_s = {} if motor.deadline_s is None else {StreamType.MOTOR: motor.deadline_s}
        return delivery_table(capacity=capacity, deadline_s=deadline_s)

    @classmethod
    def _of(cls, given: Mapping[str, tuple[object, str]]) -> PNSConfig:
        """The defaults with these values, which are checked one by one first."""
        values = {path: (taken(path, raw, origin), origin) for path, (raw, origin) in given.items()}

        def part(section: str) -> dict[str, Any]:
            names = ((path.rpartition("."), value) for path, (value, _) in values.items())
            return {name: value for (head, _, name), value in names if head == section}

        return cls(
            zmq=ZmqEndpoints(**part("zmq")),
            websocket=WebSocketStreams(**part("websocket")),
            webrtc=WebRtcStreams(**part("webrtc")),
            udp=UdpStreams(**part("udp")),
            shm=ShmStreams(**part("shm")),
            transport=StreamTransports(**part("transport")),
            limits=PNSLimits(**part("limits")),
            auth=AuthSettings(**part("auth")),
            compression=replace(_COMPRESSION, **part("compression")),
            delivery=DeliverySettings(
                SensoryDelivery(**part("delivery.sensory")),
                MotorDelivery(**part("delivery.motor")),
            ),
            origins=MappingProxyType(values),
        )

    def _check_ports(self) -> None:
        """No two endpoints on one port of one interface."""
        seen: list[tuple[str, str, str]] = []
        for path in ("zmq.rest", "zmq.motor", "zmq.viz", "zmq.sensory", "websocket.endpoint"):
            url = _value_at(self, path)
            if url is None:
                continue
            host, _, port = str(url).partition("://")[2].rpartition(":")
            if port == "*" or int(port) == 0:
                continue
            for other, other_host, other_port in seen:
                shared = host == other_host or not _EVERY_INTERFACE.isdisjoint((host, other_host))
                if shared and int(port) == int(other_port):
                    raise ConfigError(
                        f"{path} ({self.origin_of(path)}) and {other} ({self.origin_of(other)}) "
                        f"both listen on port {int(port)}; each needs a port of its own"
                    )
            seen.append((path, host, port))


def _value_at(config: PNSConfig, path: str) -> object:
    value: object = functools.reduce(getattr, path.split("."), config)
    return value


def _default_of(path: str) -> object:
    section, *names = path.split(".")
    default: object = PNSConfig.__dataclass_fields__[section].default
    return functools.reduce(getattr, names, default)
