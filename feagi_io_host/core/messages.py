# SPDX-License-Identifier: Apache-2.0
"""Control messages: what an agent and its server say to each other beside the data streams.

Each is one JSON struct in one FBC. The agent id of the FBC's header is zero in a first request
and the one the server gave in everything after it; a reader believes the connection, not the
header. Names and shapes were captured between feagi-core 2.6.10 and the client of
feagi-rust-py-libs 0.0.120; the answers to health check and burst-engine requests, which that
engine does not give, have the shapes that its own sources declare for them.

    registration    RegistrationRequest -> RegistrationSuccess | RegistrationRefusal
    leaving         DeregistrationRequest -> DeregistrationResponse
    sign of life    HeartBeat -> HeartBeat
    configuration   AgentConfiguration -> HeartBeat (it has no answer of its own)
    health          HealthCheckRequest -> HealthReport
    burst engine    TimestepRequest -> TimestepReport, TimestepChange -> TimestepChangeAnswer
    peer connection PeerOffer -> PeerAnswer | PeerRefusal (our own: the engine has no WebRTC)

Text that is no control message raises FeagiDataError: such a message gets no answer. A
registration request that can be read but must be refused is an UnacceptableRequest instead:
it gets one.
"""

from __future__ import annotations

import base64
import binascii
import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from feagi_io_host.core.agent_configuration import check_configuration_details
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import BytesLike, FeagiByteContainer
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.json_shape import depth_of, kind_of, member, whole
from feagi_io_host.core.json_struct import FeagiJSON
from feagi_io_host.core.types import AgentDescriptor
from feagi_wire.const import AGENT_ID_BYTES, JSON_MAX_DEPTH

AUTH_TOKEN_BYTES: Final = 32
API_VERSION: Final = 1
NO_AGENT_ID: Final = bytes(AGENT_ID_BYTES)
# A browser's, with all candidates of a machine with many networks, has some thousands.
MAX_DESCRIPTION_CHARS: Final = 16 << 10

_U32_MAX: Final = (1 << 32) - 1
_U64_MAX: Final = (1 << 64) - 1

_REGISTRATION: Final = "agent_registration"
_REQUEST: Final = (_REGISTRATION, "client_request_registration")
_RESPONSE: Final = (_REGISTRATION, "server_responds_registration")
_LEAVING: Final = (_REGISTRATION, "client_request_deregistration")
_LEFT: Final = (_REGISTRATION, "server_responds_deregistration")
_CONFIGURATION: Final = ("agent_configuration", "AgentConfigurationDetails")
_HEALTH_REQUEST: Final = ("health_check", "FeagiHealthCheckRequest")
_HEALTH_REPORT: Final = ("health_check", "FeagiHealthCheckResponse")
_TIMESTEP_REQUEST: Final = ("burst_engine", "SimulationTimestepRequest")
_TIMESTEP_REPORT: Final = ("burst_engine", "SimulationTimeStepResponse")  # written so there
_TIMESTEP_CHANGE: Final = ("burst_engine", "SimulationTimestepChangeRequest")
_TIMESTEP_CHANGED: Final = ("burst_engine", "SimulationTimestepChangeRequestResponse")
_HEART_BEAT: Final = ("heart_beat",)
_PEER_OFFER: Final = ("peer_connection", "offer")
_PEER_ANSWER: Final = ("peer_connection", "answer")
_PEER_REFUSAL: Final = ("peer_connection", "refused")

CAPABILITY_NAMES: Final[Mapping[AgentCapabilities, str]] = {
    AgentCapabilities.SEND_SENSOR_DATA: "send_sensor_data",
    AgentCapabilities.RECEIVE_MOTOR_DATA: "receive_motor_data",
    AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS: "receive_neuron_visualizations",
}
_CAPABILITIES: Final = {name: flag for flag, name in CAPABILITY_NAMES.items()}
# A legal name that the engine's own control task does not survive; here it is refused.
_SYSTEM_MESSAGES: Final = "receive_system_messages"


class ConnectionProtocol(enum.Enum):
    """How an agent wants its data streams. The engine itself serves the first two only, and does
    not know UDP and WebRTC, which are between agents and servers of this library."""

    ZMQ = "Zmq"
    WEBSOCKET = "WebSocket"
    SHARED_MEMORY = "SharedMemory"
    BLUETOOTH_SERIAL = "BluetoothSerial"
    UDP = "Udp"
    WEBRTC = "WebRtc"


class RefusalReason(enum.Enum):
    """Why a registration was refused."""

    INVALID_REQUEST = "failed_invalid_request"
    INVALID_AUTH = "failed_invalid_auth"
    ALREADY_REGISTERED = "already_registered"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one data stream of one agent goes."""

    protocol: ConnectionProtocol
    url: str


class _Message:
    __slots__ = ()

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The message in a JSON value; FeagiDataError when there is another one or none."""
        message = message_from_json(value)
        if not isinstance(message, cls):
            reason = f": {message.reason}" if isinstance(message, UnacceptableRequest) else ""
            raise FeagiDataError(
                f"{type(message).__name__} came{reason}; {cls.__name__} is expected"
            )
        return message


@dataclass(frozen=True, slots=True)
class RegistrationRequest(_Message):
    """An agent asks to be let in. Raises FeagiDataError for a token that has not 32 bytes.

    The token stays out of `repr`, so that it does not get into a log.
    """

    descriptor: AgentDescriptor
    capabilities: AgentCapabilities
    protocol: ConnectionProtocol = ConnectionProtocol.ZMQ
    auth_token: bytes = field(default=bytes(AUTH_TOKEN_BYTES), repr=False)
    api_version: int = API_VERSION

    def __post_init__(self) -> None:
        if len(self.auth_token) != AUTH_TOKEN_BYTES:
            raise FeagiDataError(
                f"an auth token has {AUTH_TOKEN_BYTES} bytes, this one {len(self.auth_token)}"
            )

    def to_json(self) -> Any:
        """The message as a JSON value."""
        body = {
            "agent_descriptor": self.descriptor.as_json(),
            "api_version": {"version": self.api_version},
            "auth_token": {"value": list(self.auth_token)},
            "connection_protocol": self.protocol.value,
            "requested_capabilities": [CAPABILITY_NAMES[flag] for flag in self.capabilities],
        }
        return _wrap(_REQUEST, body)


@dataclass(frozen=True, slots=True)
class UnacceptableRequest:
    """A registration request that can be read and has to be refused; `reason` is for the log."""

    reason: str
    auth_token: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegistrationSuccess(_Message):
    """The agent is in: its 48-byte id and an endpoint for each capability it asked for."""

    agent_id: bytes
    endpoints: Mapping[AgentCapabilities, Endpoint]

    def to_json(self) -> Any:
        """The message as a JSON value."""
        urls = {
            CAPABILITY_NAMES[flag]: {end.protocol.value: {"url": end.url}}
            for flag, end in self.endpoints.items()
        }
        body = [base64.b64encode(self.agent_id).decode(), urls]
        return _wrap((*_RESPONSE, "success"), body)


@dataclass(frozen=True, slots=True)
class RegistrationRefusal(_Message):
    """The agent is not let in."""

    reason: RefusalReason

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap((*_RESPONSE, self.reason.value), None)


@dataclass(frozen=True, slots=True)
class DeregistrationRequest(_Message):
    """The agent leaves; `reason` is for people."""

    reason: str | None = None

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_LEAVING, {"reason": self.reason})


@dataclass(frozen=True, slots=True)
class DeregistrationResponse(_Message):
    """The agent is out; `was_registered` is false when it had not been in."""

    was_registered: bool

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap((*_LEFT, "success" if self.was_registered else "not_registered"), None)


@dataclass(frozen=True, slots=True)
class HeartBeat(_Message):
    """Sign of life, its answer, and the acknowledgement of a configuration."""

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_HEART_BEAT, None)


@dataclass(frozen=True, slots=True)
class AgentConfiguration(_Message):
    """Which units the agent senses and moves with.

    `details` is the JSON object with the keys feedbacks, input_units_and_encoder_properties and
    output_units_and_decoder_properties; it must not be changed any more. Raises FeagiDataError
    when a key is missing or a unit has not the shape that the engine reads.
    """

    details: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_configuration_details(self.details)

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_CONFIGURATION, self.details)


@dataclass(frozen=True, slots=True)
class HealthCheckRequest(_Message):
    """How is the brain?"""

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_HEALTH_REQUEST, None)


@dataclass(frozen=True, slots=True)
class HealthReport(_Message):
    """How the brain is. Of the optional figures None are unknown; others than these are skipped.

    `simulation_timestep` is in seconds.
    """

    burst_engine: bool
    brain_readiness: bool
    genome_availability: bool
    neuron_count_max: int = 0
    synapse_count_max: int = 0
    influxdb_availability: bool = False
    latest_changes_saved_externally: bool = False
    connected_agents: int | None = None
    cortical_area_count: int | None = None
    neuron_count: int | None = None
    synapse_count: int | None = None
    feagi_session: int | None = None
    genome_num: int | None = None
    simulation_timestep: float | None = None

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_HEALTH_REPORT, {row.name: getattr(self, row.name) for row in fields(self)})


@dataclass(frozen=True, slots=True)
class TimestepRequest(_Message):
    """How long is a burst?"""

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_TIMESTEP_REQUEST, [])


@dataclass(frozen=True, slots=True)
class TimestepReport(_Message):
    """A burst takes `timestep_s` seconds."""

    timestep_s: float

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_TIMESTEP_REPORT, self.timestep_s)


@dataclass(frozen=True, slots=True)
class TimestepChange(_Message):
    """Let a burst take `timestep_s` seconds from now on. Any number is a message."""

    timestep_s: float

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_TIMESTEP_CHANGE, self.timestep_s)


@dataclass(frozen=True, slots=True)
class TimestepChangeAnswer(_Message):
    """Whether the timestep was changed."""

    changed: bool

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_TIMESTEP_CHANGED, self.changed)


@dataclass(frozen=True, slots=True)
class PeerOffer(_Message):
    """An agent that has streams over WebRTC describes its end, in SDP with all candidates. It is
    answered when the server has made its own, perhaps after other messages."""

    sdp: str = field(repr=False)

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_PEER_OFFER, {"sdp": self.sdp})


@dataclass(frozen=True, slots=True)
class PeerAnswer(_Message):
    """The server describes its end."""

    sdp: str = field(repr=False)

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_PEER_ANSWER, {"sdp": self.sdp})


@dataclass(frozen=True, slots=True)
class PeerRefusal(_Message):
    """There will be no answer to an offer; `reason` is for people."""

    reason: str

    def to_json(self) -> Any:
        """The message as a JSON value."""
        return _wrap(_PEER_REFUSAL, {"reason": self.reason})


ControlMessage = (
    RegistrationRequest
    | RegistrationSuccess
    | RegistrationRefusal
    | DeregistrationRequest
    | DeregistrationResponse
    | HeartBeat
    | AgentConfiguration
    | HealthCheckRequest
    | HealthReport
    | TimestepRequest
    | TimestepReport
    | TimestepChange
    | TimestepChangeAnswer
    | PeerOffer
    | PeerAnswer
    | PeerRefusal
)
"""Everything that can be sent."""

ReceivedMessage = ControlMessage | UnacceptableRequest
"""Everything that can come in."""


def encode_control(message: ControlMessage, agent_id: bytes = NO_AGENT_ID) -> bytes:
    """The FBC of a control message, increment counter 0. Raises FeagiDataError for an agent id
    that has not 48 bytes and for values that JSON cannot hold."""
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(FeagiJSON(message.to_json()), 0)
    container.set_agent_identifier(agent_id)
    return container.copy_out_as_byte_vector()


def decode_control(
    data: BytesLike, *, max_depth: int = JSON_MAX_DEPTH
) -> tuple[bytes, ReceivedMessage]:
    """The agent id in the header of an FBC, and the control message in its first struct.

    `max_depth` is how many levels its JSON may be nested. `data` must not change any more.
    Raises FeagiDataError for everything else.
    """
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_ownership_to_container_and_verify(data)
    struct = container.try_create_new_struct_from_index(0)
    if not isinstance(struct, FeagiJSON):
        raise FeagiDataError("the first struct of a control message is JSON; this one is XYZP")
    depth = depth_of(struct.value)
    if depth > max_depth:
        raise FeagiDataError(f"control message is nested {depth} levels deep; at most {max_depth}")
    return container.get_agent_identifier_bytes(), message_from_json(struct.value)


def message_from_json(value: object) -> ReceivedMessage:
    """The control message in a JSON value; FeagiDataError when there is none.

    A choice is an object with one key, or for a choice without content its bare name.
    """
    path: tuple[str, ...] = ()
    while True:
        if isinstance(value, str):
            path, value = (*path, value), None
        elif isinstance(value, dict) and len(value) == 1:
            [(key, value)] = value.items()
            path = (*path, key)
        else:
            came = f"an object of {len(value)} keys" if isinstance(value, dict) else kind_of(value)
            raise FeagiDataError(
                f"control message: {_place(path)} is {came}; a name or an object with one key "
                "is expected"
            )
        read = _READERS.get(path)
        if read is not None:
            return read(value)
        if path not in _PREFIXES:
            raise FeagiDataError(f"control message: {_place(path)} is no message known here")


# Written types of a health report's fields -> what JSON makes of them.
_FIELD_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
}

# -- reading ----------------------------------------------------------------------------------


def _read_request(body: object) -> RegistrationRequest | UnacceptableRequest:
    descriptor = member(body, "agent_descriptor", dict)
    name = member(descriptor, "agent_name", str)
    manufacturer = member(descriptor, "manufacturer", str)
    version = whole(member(descriptor, "agent_version", int), "agent_version", _U32_MAX)
    api = member(body, "api_version", dict)
    api_version = whole(member(api, "version", int), "api_version", _U64_MAX)
    numbers = member(member(body, "auth_token", dict), "value", list)
    if len(numbers) != AUTH_TOKEN_BYTES:
        raise FeagiDataError(f"auth token of {len(numbers)} bytes; {AUTH_TOKEN_BYTES} are expected")
    token = bytes(whole(number, "auth_token", 255) for number in numbers)
    protocol_name = member(body, "connection_protocol", str)
    try:
        protocol = ConnectionProtocol(protocol_name)
    except ValueError:
        raise FeagiDataError(f"connection protocol {protocol_name[:40]!r} is unknown") from None
    names = member(body, "requested_capabilities", list)
    for item in names:
        if not isinstance(item, str) or (item not in _CAPABILITIES and item != _SYSTEM_MESSAGES):
            raise FeagiDataError(f"capability {str(item)[:40]!r} is unknown")
    if len(set(names)) != len(names):
        return UnacceptableRequest(f"{len(names)} capabilities, one of them twice", token)
    if _SYSTEM_MESSAGES in names:
        return UnacceptableRequest(f"{_SYSTEM_MESSAGES} is not served", token)
    capabilities = AgentCapabilities(0)
    for item in names:
        capabilities |= _CAPABILITIES[item]
    try:
        who = AgentDescriptor(manufacturer, name, version)
    except FeagiDataError as error:
        return UnacceptableRequest(str(error), token)
    return RegistrationRequest(who, capabilities, protocol, token, api_version)


def _read_success(body: object) -> RegistrationSuccess:
    if not isinstance(body, list) or len(body) != 2:
        raise FeagiDataError("registration success: a list of agent id and endpoints is expected")
    text, table = body
    try:
        agent_id = base64.b64decode(text if isinstance(text, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise FeagiDataError(f"registration success: agent id is no base64: {error}") from None
    if len(agent_id) != AGENT_ID_BYTES or agent_id == NO_AGENT_ID:
        raise FeagiDataError(
            f"registration success: agent id of {len(agent_id)} bytes; {AGENT_ID_BYTES} that are "
            "not all zero are expected"
        )
    if not isinstance(table, dict):
        raise FeagiDataError(f"registration success: endpoints are {kind_of(table)}, not an object")
    endpoints = {}
    for name, choice in table.items():
        flag = _CAPABILITIES.get(name)
        if flag is None or not isinstance(choice, dict) or len(choice) != 1:
            raise FeagiDataError(f"registration success: endpoint {name[:40]!r} cannot be read")
        [(protocol_name, place)] = choice.items()
        try:
            protocol = ConnectionProtocol(protocol_name)
        except ValueError:
            raise FeagiDataError(f"endpoint protocol {protocol_name[:40]!r} is unknown") from None
        endpoints[flag] = Endpoint(protocol, member(place, "url", str))
    return RegistrationSuccess(agent_id, endpoints)


def _read_leaving(body: object) -> DeregistrationRequest:
    reason = body.get("reason") if isinstance(body, dict) else 0
    if reason is not None and not isinstance(reason, str):
        raise FeagiDataError("deregistration: an object with reason, text or null, is expected")
    return DeregistrationRequest(reason)


def _read_configuration(body: object) -> AgentConfiguration:
    if not isinstance(body, dict):
        raise FeagiDataError(f"agent configuration is {kind_of(body)}; an object is expected")
    return AgentConfiguration(body)


def _read_health(body: object) -> HealthReport:
    if not isinstance(body, dict):
        raise FeagiDataError(f"health report is {kind_of(body)}; an object is expected")
    figures: dict[str, Any] = {}
    for row in fields(HealthReport):
        value = body.get(row.name)
        if value is None and row.default is None:
            continue
        wanted = _FIELD_TYPES[str(row.type).partition(" ")[0]]
        if type(value) not in wanted:
            raise FeagiDataError(
                f"health report: {row.name} is {kind_of(value)}; {row.type} is expected"
            )
        figures[row.name] = value
    return HealthReport(**figures)


def _number(body: object) -> float:
    if not isinstance(body, (int, float)) or isinstance(body, bool) or not math.isfinite(body):
        raise FeagiDataError(f"timestep is {kind_of(body)}; a number of seconds is expected")
    return float(body)


def _read_changed(body: object) -> TimestepChangeAnswer:
    if not isinstance(body, bool):
        raise FeagiDataError(f"timestep answer is {kind_of(body)}; true or false is expected")
    return TimestepChangeAnswer(body)


def _text_of(body: object, name: str) -> str:
    text = member(body, name, str)
    assert isinstance(text, str)
    if len(text) > MAX_DESCRIPTION_CHARS:
        raise FeagiDataError(
            f"peer connection: {name} of {len(text)} characters; at most {MAX_DESCRIPTION_CHARS} "
            "are read"
        )
    return text


def _empty(message: ControlMessage, content: object = None) -> Callable[[object], ControlMessage]:
    def read(body: object) -> ControlMessage:
        if body != content:
            raise FeagiDataError(
                f"{type(message).__name__} has {kind_of(body)} as content; none is expected"
            )
        return message

    return read


_READERS: Final[Mapping[tuple[str, ...], Callable[[object], ReceivedMessage]]] = {
    _REQUEST: _read_request,
    (*_RESPONSE, "success"): _read_success,
    **{(*_RESPONSE, why.value): _empty(RegistrationRefusal(why)) for why in RefusalReason},
    _LEAVING: _read_leaving,
    (*_LEFT, "success"): _empty(DeregistrationResponse(True)),
    (*_LEFT, "not_registered"): _empty(DeregistrationResponse(False)),
    _HEART_BEAT: _empty(HeartBeat()),
    _CONFIGURATION: _read_configuration,
    _HEALTH_REQUEST: _empty(HealthCheckRequest()),
    _HEALTH_REPORT: _read_health,
    _TIMESTEP_REQUEST: _empty(TimestepRequest(), []),
    _TIMESTEP_REPORT: lambda body: TimestepReport(_number(body)),
    _TIMESTEP_CHANGE: lambda body: TimestepChange(_number(body)),
    _TIMESTEP_CHANGED: _read_changed,
    _PEER_OFFER: lambda body: PeerOffer(_text_of(body, "sdp")),
    _PEER_ANSWER: lambda body: PeerAnswer(_text_of(body, "sdp")),
    _PEER_REFUSAL: lambda body: PeerRefusal(_text_of(body, "reason")),
}
_PREFIXES: Final = frozenset(path[:end] for path in _READERS for end in range(1, len(path)))


def _place(path: tuple[str, ...]) -> str:
    return ".".join(name[:40] for name in path) or "the whole"


def _wrap(path: tuple[str, ...], body: object) -> Any:
    value: object = path[-1] if body is None else {path[-1]: body}
    for key in reversed(path[:-1]):
        value = {key: value}
    return value
