# SPDX-License-Identifier: Apache-2.0
"""Control messages: the captured ones byte for byte, and nothing else taken for one."""

from __future__ import annotations

import copy
import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.errors import FeagiDataError
from feagi_io_host.core.messages import (
    NO_AGENT_ID,
    AgentConfiguration,
    ConnectionProtocol,
    DeregistrationRequest,
    DeregistrationResponse,
    Endpoint,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    RefusalReason,
    RegistrationRefusal,
    RegistrationRequest,
    RegistrationSuccess,
    TimestepChange,
    TimestepChangeAnswer,
    TimestepReport,
    TimestepRequest,
    UnacceptableRequest,
    decode_control,
    encode_control,
    message_from_json,
)
from feagi_io_host.core.types import AgentDescriptor
from tests.feagi_io_host.core.control import MOVE, SENSE, VIEW, json_frame, raw_json_frame, request
from tests.feagi_io_host.core.golden import VALID, VECTORS, mapped

CAPTURED = {
    "v29_cap_registration_request": RegistrationRequest,
    "v30_cap_registration_response": RegistrationSuccess,
    "v31_cap_agent_configuration": AgentConfiguration,
    "v32_cap_heartbeat_reply": HeartBeat,
    "v33_cap_heartbeat_request": HeartBeat,
    "v34_cap_dereg_request": DeregistrationRequest,
    "v35_cap_dereg_response": DeregistrationResponse,
}
BYTES = {vector.name: vector.data for vector in VALID}
REGISTRATIONS = {
    name: entry["registration"]
    for name, entry in json.loads((VECTORS / "device_registrations.json").read_text()).items()
    if not name.startswith("_")
}
EVERY = [
    request(),
    request("a", AgentCapabilities(0), b"\xff" * 32, ConnectionProtocol.SHARED_MEMORY),
    RegistrationSuccess(b"\x01" * 48, {}),
    RegistrationSuccess(
        b"\x02" * 48, {VIEW: Endpoint(ConnectionProtocol.WEBSOCKET, "ws://127.0.0.1:1")}
    ),
    *map(RegistrationRefusal, RefusalReason),
    DeregistrationRequest(),
    DeregistrationRequest("tired"),
    DeregistrationResponse(True),
    DeregistrationResponse(False),
    HeartBeat(),
    HealthCheckRequest(),
    HealthReport(True, True, False, 7, 8, connected_agents=2, simulation_timestep=0.05),
    TimestepRequest(),
    TimestepReport(0.02),
    TimestepChange(0.1),
    TimestepChangeAnswer(True),
    TimestepChangeAnswer(False),
]


def registration_value() -> Any:
    return copy.deepcopy(request().to_json())


@pytest.mark.parametrize("name", sorted(CAPTURED))
def test_captured_messages_round_trip_byte_for_byte(name: str) -> None:
    agent_id, message = decode_control(BYTES[name])
    assert type(message) is CAPTURED[name]
    assert not isinstance(message, UnacceptableRequest)
    assert encode_control(message, agent_id) == BYTES[name]


def test_the_captured_request_is_read_field_by_field() -> None:
    agent_id, message = decode_control(BYTES["v29_cap_registration_request"])
    assert agent_id == NO_AGENT_ID
    assert message == RegistrationRequest(
        AgentDescriptor("acme", "h2agent", 7),
        SENSE | MOVE,
        ConnectionProtocol.ZMQ,
        bytes(range(32)),
    )


def test_the_captured_answer_is_read_field_by_field() -> None:
    agent_id, message = decode_control(BYTES["v30_cap_registration_response"])
    assert message == RegistrationSuccess(
        agent_id,
        {
            MOVE: Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:15574"),
            SENSE: Endpoint(ConnectionProtocol.ZMQ, "tcp://127.0.0.1:15558"),
        },
    )


@pytest.mark.parametrize("name", sorted(REGISTRATIONS))
def test_every_device_of_the_real_library_round_trips(name: str) -> None:
    message = AgentConfiguration(REGISTRATIONS[name])
    _, read = decode_control(encode_control(message))
    assert isinstance(read, AgentConfiguration)
    assert read.details == REGISTRATIONS[name]


@pytest.mark.parametrize("message", EVERY, ids=repr)
def test_every_message_round_trips(message: Any) -> None:
    agent_id = bytes(range(48))
    assert decode_control(encode_control(message, agent_id)) == (agent_id, message)
    assert type(message).from_json(message.to_json()) == message


def test_burst_engine_and_health_messages_have_the_names_of_the_engine() -> None:
    assert TimestepRequest().to_json() == {"burst_engine": {"SimulationTimestepRequest": []}}
    assert TimestepReport(0.5).to_json() == {"burst_engine": {"SimulationTimeStepResponse": 0.5}}
    assert TimestepChange(0.02).to_json() == {
        "burst_engine": {"SimulationTimestepChangeRequest": 0.02}
    }
    assert TimestepChangeAnswer(True).to_json() == {
        "burst_engine": {"SimulationTimestepChangeRequestResponse": True}
    }
    assert HealthCheckRequest().to_json() == {"health_check": "FeagiHealthCheckRequest"}


def test_the_token_is_not_shown() -> None:
    assert "255" not in repr(request(token=b"\xff" * 32))
    assert "ff" not in repr(request(token=b"\xff" * 32)).replace("buffer", "")


def test_from_json_takes_no_other_message() -> None:
    with pytest.raises(FeagiDataError, match="HeartBeat came; RegistrationRequest is expected"):
        RegistrationRequest.from_json("heart_beat")
    value = registration_value()
    value["agent_registration"]["client_request_registration"]["requested_capabilities"] *= 2
    with pytest.raises(FeagiDataError, match="twice"):
        RegistrationRequest.from_json(value)


def test_a_token_has_32_bytes() -> None:
    with pytest.raises(FeagiDataError, match="31"):
        request(token=bytes(31))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["requested_capabilities"], ["send_sensor_data", "send_sensor_data"]),
        (["requested_capabilities"], ["receive_system_messages"]),
        (["agent_descriptor", "agent_name"], ""),
        (["agent_descriptor", "agent_name"], "x" * 65),
        (["agent_descriptor", "agent_name"], "r\u00f6ver"),
        (["agent_descriptor", "manufacturer"], "x" * 129),
        (["agent_descriptor", "agent_version"], 0),
    ],
)
def test_requests_that_are_refused_can_be_read(path: list[str], value: Any) -> None:
    message = registration_value()
    at = message["agent_registration"]["client_request_registration"]
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    read = message_from_json(message)
    assert isinstance(read, UnacceptableRequest)
    assert read.auth_token == bytes(32)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["requested_capabilities"], ["fly"]),
        (["requested_capabilities"], [["send_sensor_data"]]),
        (["requested_capabilities"], "send_sensor_data"),
        (["connection_protocol"], "Pigeon"),
        (["auth_token", "value"], [0] * 31),
        (["auth_token", "value"], [0] * 33),
        (["auth_token", "value"], [256] * 32),
        (["auth_token", "value"], [True] * 32),
        (["auth_token", "value"], [0.0] * 32),
        (["auth_token"], [0] * 32),
        (["agent_descriptor", "agent_version"], 1 << 32),
        (["agent_descriptor", "agent_version"], -1),
        (["agent_descriptor", "agent_version"], True),
        (["agent_descriptor", "agent_name"], None),
        (["agent_descriptor"], []),
        (["api_version"], 1),
    ],
)
def test_requests_that_cannot_be_read(path: list[str], value: Any) -> None:
    message = registration_value()
    at = message["agent_registration"]["client_request_registration"]
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    with pytest.raises(FeagiDataError):
        message_from_json(message)


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        [],
        {},
        "heartbeat",
        {"heart_beat": 1},
        {"heart_beat": None, "health_check": "FeagiHealthCheckRequest"},
        {"agent_registration": None},
        {"agent_registration": {"client_request_registration": None}},
        {"agent_registration": {"server_responds_registration": "success"}},
        {"agent_registration": {"server_responds_registration": {"success": [1, {}]}}},
        {"agent_registration": {"server_responds_registration": {"success": ["AAAA", {}]}}},
        {"agent_registration": {"server_responds_registration": {"success": ["A" * 64, {}]}}},
        {"agent_registration": {"client_request_deregistration": "bye"}},
        {"agent_registration": {"client_request_deregistration": {"reason": 1}}},
        {"agent_configuration": {"AgentConfigurationDetails": {}}},
        {"agent_configuration": {"AgentConfigurationDetails": []}},
        {"burst_engine": {"SimulationTimestepChangeRequest": "fast"}},
        {"burst_engine": {"SimulationTimestepChangeRequest": True}},
        {"burst_engine": {"SimulationTimestepRequest": [1]}},
        {"burst_engine": "SimulationTimestepRequest"},
        {"burst_engine": {"SimulationTimestepChangeRequestResponse": 1}},
        {"health_check": {"FeagiHealthCheckResponse": {"burst_engine": 1}}},
        {"health_check": {"FeagiHealthCheckResponse": 1}},
    ],
    ids=str,
)
def test_other_values_are_no_messages(value: Any) -> None:
    with pytest.raises(FeagiDataError):
        message_from_json(value)


def test_a_control_message_is_json_in_the_first_struct() -> None:
    container = FeagiByteContainer.new_empty()
    container.overwrite_byte_data_with_single_struct_data(mapped(1, 1), 0)
    with pytest.raises(FeagiDataError, match="XYZP"):
        decode_control(container.copy_out_as_byte_vector())
    with pytest.raises(FeagiDataError, match="no struct 0"):
        decode_control(FeagiByteContainer.new_empty().copy_out_as_byte_vector())


def test_depth_is_limited_where_it_is_asked_for() -> None:
    deep = raw_json_frame(b'{"heart_beat":' + b"[" * 9 + b"]" * 9 + b"}")
    with pytest.raises(FeagiDataError, match="nested 10 levels deep; at most 8"):
        decode_control(deep, max_depth=8)
    bottomless = raw_json_frame(b"[" * 100_000)
    with pytest.raises(FeagiDataError):
        decode_control(bottomless)


@pytest.mark.parametrize("key", ["feedbacks", "input_units_and_encoder_properties"])
def test_a_configuration_needs_its_keys(key: str) -> None:
    details = dict(REGISTRATIONS["motor_gaze_register group=0 absolute linear"])
    del details[key]
    with pytest.raises(FeagiDataError, match=key):
        AgentConfiguration(details)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda units: units.append([]),
        lambda units: units[0].pop(),
        lambda units: units[0][0].update(cortical_unit_index=-1),
        lambda units: units[0][0].update(cortical_unit_index="0"),
        lambda units: units[0][0].update(device_grouping=None),
        lambda units: units[0][0].update(device_grouping=[1]),
        lambda units: units[0][0].update(device_grouping=[{}] * 16385),
        lambda units: units[0][0].pop("io_configuration_flags"),
        lambda units: units[0].__setitem__(1, {"a": 1, "b": 2}),
        lambda units: units.extend([units[0]] * 1024),
    ],
)
def test_a_configuration_with_a_bad_unit_is_refused(spoil: Any) -> None:
    details = copy.deepcopy(REGISTRATIONS["motor_gaze_register group=0 absolute linear"])
    spoil(details["output_units_and_decoder_properties"]["Gaze"])
    with pytest.raises(FeagiDataError):
        AgentConfiguration(details)


values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(0, 300) | st.floats(-1, 1)
    | st.sampled_from(["heart_beat", "send_sensor_data", "Zmq", "success", ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["agent_registration", "client_request_registration", "burst_engine", "auth_token",
             "server_responds_registration", "health_check", "success", "value", "reason"]
        ),
        inner,
        max_size=2,
    ),
    max_leaves=8,
)  # fmt: skip


@given(values)
def test_whatever_the_json_is_only_our_error_is_raised(value: Any) -> None:
    try:
        message = decode_control(json_frame(value))[1]
    except FeagiDataError:
        return
    assert type(message).__module__ == "feagi_io_host.core.messages"


@given(st.sampled_from(sorted(CAPTURED)), st.data())
def test_damaged_captures_raise_only_our_error(name: str, data: st.DataObject) -> None:
    frame = bytearray(BYTES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        agent_id, _ = decode_control(bytes(frame))
    except FeagiDataError:
        return
    assert len(agent_id) == 48
