# SPDX-License-Identifier: Apache-2.0
"""The settings that exist, what each takes, and how they are read from their sources.

`SETTINGS` is the one list of them, by path. The readers yield (path, (value, origin)) with values
as they came; `taken` makes of each what the configuration holds. Used by `core.config`.
"""

from __future__ import annotations

import difflib
import enum
import functools
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from feagi_io_host.core.compression import CompressionMode
from feagi_io_host.core.errors import ConfigError
from feagi_wire.const import HEADER_BYTES

ENVIRONMENT_PREFIX: Final = "FEAGI_IO_"
DEFAULT_HOST: Final = "127.0.0.1"

_SHOWN_CHARS: Final = 120  # of a value in a message
_U32_MAX: Final = (1 << 32) - 1
_TCP: Final = re.compile(r"tcp://(\*|\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5}|\*)")
_WS: Final = re.compile(_TCP.pattern.replace("tcp", "(?:wss?)"))
_UDP: Final = re.compile(_TCP.pattern.replace("tcp", "udp"))
_HOST: Final = re.compile(r"[0-9A-Fa-f:.]+|[A-Za-z0-9._-]+")
_ICE_SERVER: Final = re.compile(
    r"(?:stun:|turns?:[^\s:@]{1,128}:[^\s@]{1,256}@)[A-Za-z0-9.\[\]:-]{1,253}(?:\?transport=(?:udp|tcp))?"
)
_ORIGIN: Final = re.compile(r"\*|null|https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}(\.(blocking|nonblocking))?")
_WORDS: Final = {"true": True, "false": False}
# 32 bytes as people write them, in hexadecimal or base64. A path looks different.
_TOKEN_TEXT: Final = re.compile(r"[0-9A-Fa-f]{64}|[A-Za-z0-9+/_-]{43}=")


# -- what a value must be -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting takes: `needed` in words, `take` from Python or TOML (ValueError when it
    does not fit), `parse` from text, which hands on as text what it cannot read."""

    needed: str
    take: Callable[[object], object]
    parse: Callable[[str], object] = str


def _whole(low: int, high: int) -> Kind:
    def take(value: object) -> object:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a whole number from {low} to {high}", take, functools.partial(_number, int))


def _seconds(low: float, high: float) -> Kind:
    def take(value: object) -> object:
        # A bool is an int to isinstance; a NaN is not within any bounds.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        if not low <= value <= high:
            raise ValueError
        return float(value)

    return Kind(
        f"a number of seconds from {low} to {high}", take, functools.partial(_number, float)
    )


def _number(kind: type[int] | type[float], text: str) -> object:
    try:
        return kind(text)
    except ValueError:
        return text


def _url(pattern: re.Pattern[str], value: object) -> object:
    match = pattern.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[2] != "*" and int(match[2]) > 65535):
        raise ValueError
    return value


def _origins(value: object) -> object:
    if not isinstance(value, str) or not all(map(_ORIGIN.fullmatch, value.split())):
        raise ValueError
    return value


def _addresses(value: object) -> object:
    if not isinstance(value, str) or not value.split():
        raise ValueError
    for word in value.split():
        number = None if word == "*" else ipaddress.ip_address(word)
        if number is not None and (number.is_unspecified or number.is_multicast):
            raise ValueError
    return value


def _ice_servers(value: object) -> object:
    if not isinstance(value, str) or not all(map(_ICE_SERVER.fullmatch, value.split())):
        raise ValueError
    return value


def _words(*words: str) -> Kind:
    def take(value: object) -> object:
        if value not in words:
            raise ValueError
        return value

    return Kind(" or ".join(repr(word) for word in words), take)


def _host(value: object) -> object:
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise ValueError
    return value


def _flag(value: object) -> object:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _name(value: object) -> object:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError
    return value


def _file(value: object) -> object:
    if not isinstance(value, str | Path):
        raise ValueError
    text = str(value)
    if not text or "\0" in text or _TOKEN_TEXT.fullmatch(text):
        raise ValueError
    return Path(value)


_URL: Final = Kind(
    "a URL tcp://host:port, with a port from 0 to 65535 or *,", functools.partial(_url, _TCP)
)
_UDP_URL: Final = Kind(
    "a URL udp://host:port, with a port from 0 to 65535 or *,", functools.partial(_url, _UDP)
)
_WS_URL: Final = Kind(
    "a URL ws://host:port or wss://host:port, with a port from 0 to 65535 or *,",
    functools.partial(_url, _WS),
)
_ORIGINS: Final = Kind(
    "origins with spaces between them, such as http://localhost:8080, null or *,", _origins
)
_ADDRESSES: Final = Kind("IP addresses with spaces between them, or *,", _addresses)
_ICE_SERVERS: Final = Kind(
    "servers with spaces between them, stun:host:port or turn:user:password@host:port,",
    _ice_servers,
)
_ADDRESS: Final = Kind("the name or the IP address of a machine, without port,", _host)
_FLAG: Final = Kind("true or false", _flag, lambda text: _WORDS.get(text, text))
_TRANSPORT: Final = Kind(
    "the name of a transport (a to z, 0 to 9, _ and -), with .blocking or .nonblocking or without,",
    _name,
)
_FILE: Final = Kind("the path of a file (not the token itself)", _file)
_PEM_FILE: Final = Kind("the path of a file in PEM form", _file)
_MODE: Final = Kind(" or ".join(repr(mode.value) for mode in CompressionMode), CompressionMode)
_CAPACITY: Final = _whole(1, 1_000_000)

SETTINGS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "zmq.rest": _URL,
        "zmq.motor": _URL,
        "zmq.viz": _URL,
        "zmq.sensory": _URL,
        "zmq.advertised_address": _ADDRESS,
        "websocket.endpoint": _WS_URL,
        "websocket.advertised_address": _ADDRESS,
        "websocket.allowed_origins": _ORIGINS,
        "websocket.certificate": _PEM_FILE,
        "websocket.private_key": _PEM_FILE,
        "websocket.ping_interval_s": _seconds(0.1, 3600.0),
        "websocket.ping_timeout_s": _seconds(0.1, 3600.0),
        "websocket.send_buffer_bytes": _whole(4096, 1 << 30),
        "webrtc.addresses": _ADDRESSES,
        "webrtc.ice_servers": _ICE_SERVERS,
        "webrtc.silence_timeout_s": _seconds(3.0, 3600.0),
        "webrtc.message_bytes": _whole(96, 65536),
        "udp.endpoint": _UDP_URL,
        "udp.advertised_address": _ADDRESS,
        "udp.check": _words("auto", "none", "crc", "tag"),
        "udp.datagram_bytes": _whole(96, 65507),
        "udp.oversize": _words("drop", "fragment", "compress"),
        "udp.parity_group": _whole(0, 255),
        "udp.buffer_bytes": _whole(4096, 1 << 30),
        "udp.bytes_per_s": _whole(1, 1 << 40),
        "udp.multicast": _UDP_URL,
        "udp.multicast_ttl": _whole(0, 255),
        "udp.multicast_interface": _ADDRESS,
        "shm.mode": _words("fbc", "direct"),
        "shm.direct_neurons": _whole(1, 100_000_000),
        "shm.motor_slots": _whole(2, 1024),
        "transport.control": _TRANSPORT,
        "transport.sensory": _TRANSPORT,
        "transport.motor": _TRANSPORT,
        "transport.visualization": _TRANSPORT,
        "limits.heartbeat_timeout_s": _seconds(0.1, 86400.0),
        "limits.channel_capacity": _CAPACITY,
        "limits.max_agents": _whole(1, 65536),
        # A registration request of the real client has 432 bytes.
        "limits.unregistered_bytes": _whole(512, 1 << 20),
        "auth.token_file": _FILE,
        "auth.open_to_everybody": _FLAG,
        "compression.mode": _MODE,
        "compression.threshold_bytes": _whole(0, _U32_MAX),
        "compression.max_frame_bytes": _whole(HEADER_BYTES, _U32_MAX),
        "compression.max_ratio": _whole(1, 1000),
        "delivery.sensory.capacity": _CAPACITY,
        "delivery.motor.capacity": _CAPACITY,
        "delivery.motor.deadline_s": _seconds(0.0, 60.0),
    }
)
# What may be left without a value; it is None then.
OPTIONAL: Final = frozenset(
    {
        "zmq.advertised_address",
        "websocket.endpoint",
        "websocket.advertised_address",
        "websocket.certificate",
        "websocket.private_key",
        "websocket.send_buffer_bytes",
        "udp.endpoint",
        "udp.advertised_address",
        "udp.multicast",
        "udp.multicast_interface",
        "auth.token_file",
        "delivery.sensory.capacity",
        "delivery.motor.capacity",
        "delivery.motor.deadline_s",
    }
)
_SECTIONS: Final = frozenset(
    path[:at] for path in SETTINGS for at, sign in enumerate(path) if sign == "."
)


def variable_of(path: str) -> str:
    """The environment variable of a setting."""
    return ENVIRONMENT_PREFIX + path.replace(".", "_").upper()


_VARIABLES: Final = {variable_of(path): path for path in SETTINGS}


def taken(path: str, raw: object, origin: str) -> object:
    """The value that `raw` stands for; ConfigError when it does not fit."""
    kind = SETTINGS[path]
    if raw is None and path in OPTIONAL:
        return None
    try:
        return kind.take(raw)
    except ValueError:
        raise ConfigError(f"{path} is {shown(raw)} ({origin}); {kind.needed} is needed") from None


def shown(value: object) -> str:
    """A value for a message, without what may be a secret in the wrong place."""
    if _TOKEN_TEXT.fullmatch(str(value)):
        return f"{len(str(value))} characters that look like a token"
    text = repr(plain(value))
    return (
        text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}... ({len(text)} characters)"
    )


def plain(value: object) -> Any:
    """A setting's value as a number, a text or None."""
    if isinstance(value, enum.Enum):
        return value.value
    return str(value) if isinstance(value, Path) else value


# -- the sources --------------------------------------------------------------------------------

_FEAGI_PORTS: Final = (
    ("agent", "registration_port", "zmq.rest"),
    ("ports", "zmq_sensory_port", "zmq.sensory"),
    ("ports", "zmq_motor_port", "zmq.motor"),
    ("ports", "zmq_visualization_port", "zmq.viz"),
)

Given = Iterator[tuple[str, tuple[object, str]]]


def toml_values(file: Path) -> Given:
    """What a TOML file says."""
    yield from _known(
        ((path, path, value) for path, value in _leaves(_toml(file), "")),
        f"file {file}",
        SETTINGS,
    )


def _leaves(table: Mapping[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    """What is no section, by path; an unknown table counts as one unknown key."""
    for key, value in table.items():
        path = prefix + key
        if isinstance(value, dict) and path in _SECTIONS:
            yield from _leaves(value, path + ".")
        else:
            yield path, value


def environment_values(environ: Mapping[str, str]) -> Given:
    """What the FEAGI_IO_* say; one that is empty is not set."""
    found = [
        (name, _VARIABLES.get(name, ""), text)
        for name, text in sorted(environ.items())
        if name.startswith(ENVIRONMENT_PREFIX) and text
    ]
    for path, (text, origin) in _known(iter(found), "environment", _VARIABLES):
        yield path, (SETTINGS[path].parse(str(text)), f"{origin} {variable_of(path)}")


def argument_values(arguments: Mapping[str, object]) -> Given:
    """What the arguments say, by path; None is not given."""
    found = ((path, path, value) for path, value in arguments.items() if value is not None)
    for path, (value, origin) in _known(found, "argument", SETTINGS):
        yield path, (value, f"{origin} {path}")


def _known(
    found: Iterator[tuple[str, str, object]], source: str, names: Mapping[str, object]
) -> Given:
    """Pass on what exists; ConfigError with everything that does not."""
    unknown = []
    for name, path, value in found:
        if name in names:
            yield path, (value, source)
        elif name in _SECTIONS:
            unknown.append(f"{name!r} is a section, not a value: write [{name}]")
        else:
            unknown.append(f"no setting {name!r}; {nearest(name, names)}")
    if unknown:
        raise ConfigError(f"{source}: {'. '.join(unknown)}")


def nearest(name: str, names: Mapping[str, object]) -> str:
    """For a message: the name most like `name`, or all there are."""
    close = difflib.get_close_matches(name, [*names, *_SECTIONS], 1, 0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names)}"


def feagi_ports(file: Path) -> Given:
    """The ports that FEAGI's own configuration file names."""
    table = _toml(file)
    for section, key, path in _FEAGI_PORTS:
        part = table.get(section, {})
        origin = f"FEAGI's {file} [{section}] {key}"
        if not isinstance(part, dict):
            raise ConfigError(f"{origin}: {section} is {shown(part)}; a section is needed")
        if key in part:
            port = part[key]
            if type(port) is not int or not 1 <= port <= 65535:
                raise ConfigError(f"{origin} is {shown(port)}; a port from 1 to 65535 is needed")
            yield path, (f"tcp://{DEFAULT_HOST}:{port}", origin)


def _toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(read_file(file).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from None


def read_file(file: Path) -> bytes:
    """All of a file; ConfigError when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
