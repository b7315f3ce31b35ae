# SPDX-License-Identifier: Apache-2.0
"""PNSConfig: defaults, the four sources and their order, refusals, and where values come from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from feagi_io_host.core.agent_registry import AgentRegistry
from feagi_io_host.core.compression import CompressionMode, CompressionSettings
from feagi_io_host.core.config import (
    AuthSettings,
    DeliverySettings,
    MotorDelivery,
    PNSConfig,
    PNSLimits,
    SensoryDelivery,
    ZmqEndpoints,
)
from feagi_io_host.core.delivery import DELIVERY_TABLE
from feagi_io_host.core.errors import ConfigError
from feagi_io_host.core.server_seams import ServerLimits
from feagi_io_host.core.settings import OPTIONAL, SETTINGS, variable_of
from feagi_io_host.core.types import StreamType

# What FEAGI's generated file and the engine's own sections look like, with what is not for us.
FEAGI_FILE = """
[api]
host = "127.0.0.1"
port = 8000

[agent]
bind_host = "0.0.0.0"
registration_port = 31001

[ports]
zmq_sensory_port = 6555
zmq_motor_port = 6564
zmq_visualization_port = 6562

[websocket]
enabled = true
visualization_port = 8080
sensory_port = 5558
motor_port = 5564
registration_port = 9053

[burst_engine]
burst_duration = 0.01
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a file and says where."""

    def write(text: str) -> Path:
        path = tmp_path / "feagi-io.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def leaves(value: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(value):
        if field.name != "origins":
            inner = getattr(value, field.name)
            path = prefix + field.name
            yield from leaves(inner, path + ".") if dataclasses.is_dataclass(inner) else [path]


def refused(**sources: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        PNSConfig.from_sources(**sources)
    return str(caught.value)


# -- defaults -----------------------------------------------------------------------------------


def test_defaults() -> None:
    config = PNSConfig.default()
    assert config == PNSConfig() == PNSConfig.from_sources()
    assert config.zmq == ZmqEndpoints(
        rest="tcp://127.0.0.1:30001",
        motor="tcp://127.0.0.1:5564",
        viz="tcp://127.0.0.1:5562",
        sensory="tcp://127.0.0.1:5555",
    )
    assert config.limits == PNSLimits(30.0, 512, 64, 1024)
    assert config.auth.token_file is None
    assert config.compression.mode is CompressionMode.OFF
    assert {row.origin for row in config.rows()} == {"default"}


def test_defaults_are_those_of_the_parts_that_they_set() -> None:
    config = PNSConfig()
    registry = AgentRegistry()
    assert config.limits.max_agents == registry.max_agents
    assert config.limits.heartbeat_timeout_s == registry.timeout_s
    assert config.limits.unregistered_bytes == ServerLimits().unregistered_bytes
    assert config.delivery_rules() == DELIVERY_TABLE
    plain = CompressionSettings(mode=CompressionMode.OFF)
    assert config.compression == plain


def test_every_value_has_one_setting_and_one_variable() -> None:
    assert list(SETTINGS) == list(leaves(PNSConfig()))
    assert len({variable_of(path) for path in SETTINGS}) == len(SETTINGS)
    none = {row.path for row in PNSConfig().rows() if row.value is None}
    assert none == OPTIONAL


def test_udp_optimized_changes_one_name() -> None:
    config = PNSConfig.udp_optimized()
    changed = [row for row in config.rows() if row.origin != "default"]
    assert [(row.path, row.value) for row in changed] == [("transport.visualization", "udp")]
    assert changed[0].origin == "udp_optimized()"


# -- sources ------------------------------------------------------------------------------------


def test_later_sources_win_and_every_value_knows_its_own(written: Callable[[str], Path]) -> None:
    path = written(
        '[zmq]\nrest = "tcp://0.0.0.0:1001"\nviz = "tcp://0.0.0.0:1002"\n'
        '[limits]\nmax_agents = 7\nheartbeat_timeout_s = 5\n[compression]\nmode = "auto"\n'
    )
    config = PNSConfig.from_sources(
        toml=path,
        environ={
            "FEAGI_IO_ZMQ_REST": "tcp://0.0.0.0:2001",
            "FEAGI_IO_LIMITS_MAX_AGENTS": "8",
            "FEAGI_IO_AUTH_TOKEN_FILE": "",
            "HOME": "/nowhere",
        },
        arguments={"zmq.rest": "tcp://0.0.0.0:3001", "zmq.viz": None},
    )
    assert config.zmq.rest == "tcp://0.0.0.0:3001"
    assert config.origin_of("zmq.rest") == "argument zmq.rest"
    assert config.limits.max_agents == 8
    assert config.origin_of("limits.max_agents") == "environment FEAGI_IO_LIMITS_MAX_AGENTS"
    assert config.zmq.viz == "tcp://0.0.0.0:1002"
    assert config.origin_of("zmq.viz") == f"file {path}"
    assert config.compression.mode is CompressionMode.AUTO
    assert config.limits.heartbeat_timeout_s == 5.0
    assert config.origin_of("zmq.motor") == "default"
    assert config.auth.token_file is None


def test_a_value_that_was_replaced_in_the_program_says_so(written: Callable[[str], Path]) -> None:
    config = PNSConfig.from_toml(written("[limits]\nmax_agents = 7\nchannel_capacity = 9\n"))
    changed = dataclasses.replace(config, limits=PNSLimits(max_agents=8, channel_capacity=9))
    assert changed.origin_of("limits.max_agents") == "program"
    assert changed.origin_of("limits.channel_capacity").startswith("file ")
    assert PNSConfig(limits=PNSLimits(max_agents=3)).origin_of("limits.max_agents") == "program"


def test_a_default_that_was_written_down_comes_from_there(written: Callable[[str], Path]) -> None:
    config = PNSConfig.from_toml(written("[limits]\nmax_agents = 64\n"))
    assert config.origin_of("limits.max_agents").startswith("file ")


@pytest.mark.parametrize("path", list(SETTINGS))
def test_every_setting_can_come_from_the_environment(path: str) -> None:
    example = {"zmq": "tcp://127.0.0.1:9", "transport": "mybus", "auth": "/etc/token"}
    special = {
        "compression.mode": "on",
        "limits.unregistered_bytes": "2048",
        "zmq.advertised_address": "10.0.0.7",
        "auth.open_to_everybody": "true",
        "websocket.endpoint": "wss://127.0.0.1:9",
        "websocket.allowed_origins": "http://localhost:8080 null",
        "websocket.send_buffer_bytes": "65536",
        "webrtc.addresses": "192.0.2.7 ::1",
        "webrtc.ice_servers": "stun:a.example:3478 turns:me:se%20cret@[::1]:443?transport=tcp",
        "webrtc.message_bytes": "1024",
        "udp.endpoint": "udp://127.0.0.1:9",
        "udp.multicast": "udp://239.1.2.3:9",
        "udp.check": "tag",
        "udp.oversize": "drop",
        "udp.datagram_bytes": "8972",
        "udp.buffer_bytes": "65536",
        "shm.mode": "direct",
    }
    text = special.get(path) or example.get(path.partition(".")[0], "60")
    config = PNSConfig.from_sources(environ={variable_of(path): text})
    (row,) = [row for row in config.rows() if row.origin != "default"]
    assert row.value is not None
    assert (row.path, _written(row.value).removesuffix(".0")) == (path, text)


def test_ports_of_feagis_own_file(written: Callable[[str], Path]) -> None:
    path = written(FEAGI_FILE)
    config = PNSConfig.from_feagi_configuration(path)
    assert config.zmq == ZmqEndpoints(
        rest="tcp://127.0.0.1:31001",
        motor="tcp://127.0.0.1:6564",
        viz="tcp://127.0.0.1:6562",
        sensory="tcp://127.0.0.1:6555",
    )
    assert config.origin_of("zmq.rest") == f"FEAGI's {path} [agent] registration_port"
    over = PNSConfig.from_sources(feagi_configuration=path, arguments={"zmq.motor": "tcp://*:0"})
    assert (over.zmq.motor, over.zmq.viz) == ("tcp://*:0", config.zmq.viz)


def test_feagis_generated_file_names_no_zmq_port(written: Callable[[str], Path]) -> None:
    path = written("[api]\nport = 8000\n[websocket]\nsensory_port = 5558\nmotor_port = 5564\n")
    assert PNSConfig.from_feagi_configuration(path) == PNSConfig()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent]\nregistration_port = 70000\n", ["[agent] registration_port is 70000", "65535"]),
        ("[ports]\nzmq_motor_port = true\n", ["zmq_motor_port is True", "65535"]),
        ("ports = 3\n", ["ports is 3", "section"]),
        ("[ports]\nzmq_motor_port = 5555\n", ["zmq.sensory (default)", "FEAGI's", "port 5555"]),
    ],
)
def test_refused_of_feagis_file(
    written: Callable[[str], Path], text: str, words: list[str]
) -> None:
    message = refused(feagi_configuration=written(text))
    assert all(word in message for word in words), message


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[limits]\nmax_agent = 3\n", ["no setting 'limits.max_agent'", "'limits.max_agents'"]),
        ("[limit]\nmax_agents = 3\n", ["no setting 'limit'", "did you mean 'limits'"]),
        ("[zmqq]\n", ["no setting 'zmqq'", "did you mean 'zmq'"]),
        ("zmq = 3\n", ["'zmq' is a section, not a value: write [zmq]"]),
        ("xylophone = 1\n", ["no setting 'xylophone'", "known are zmq.rest, "]),
        (
            "[zmq]\nreset = 1\n[delivery.motor]\ndeadline = 1\n",
            ["did you mean 'zmq.rest'", "did you mean 'delivery.motor.deadline_s'"],
        ),
    ],
)
def test_unknown_keys_of_a_file(
    written: Callable[[str], Path], text: str, words: list[str]
) -> None:
    path = written(text)
    message = refused(toml=path)
    assert message.startswith(f"file {path}: ")
    assert all(word in message for word in words), message


def test_unknown_keys_elsewhere() -> None:
    message = refused(environ={"FEAGI_IO_ZMQ_RESTT": "tcp://secret:1"})
    assert "did you mean 'FEAGI_IO_ZMQ_REST'" in message
    assert "secret" not in message
    assert "did you mean 'zmq.viz'" in refused(arguments={"zmq.vis": "tcp://a:1"})
    with pytest.raises(ConfigError, match=r"no setting 'zmq.motr'; did you mean 'zmq.motor'"):
        PNSConfig().origin_of("zmq.motr")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("limits.max_agents", 0, ["is 0 ", "from 1 to 65536"]),
        ("limits.max_agents", 65537, ["is 65537 ", "from 1 to 65536"]),
        ("limits.max_agents", True, ["is True ", "whole number"]),
        ("limits.max_agents", 3.0, ["is 3.0 ", "whole number"]),
        ("limits.max_agents", "3", ["is '3' ", "whole number"]),
        ("limits.max_agents", [3] * 1000, ["...", "characters"]),
        ("limits.unregistered_bytes", 431, ["from 512 to 1048576"]),
        ("limits.heartbeat_timeout_s", float("nan"), ["is nan ", "from 0.1 to 86400.0"]),
        ("limits.heartbeat_timeout_s", 10**400, ["from 0.1 to 86400.0"]),
        ("limits.heartbeat_timeout_s", True, ["is True ", "seconds"]),
        ("zmq.rest", 30001, ["is 30001 ", "tcp://host:port"]),
        ("zmq.rest", "127.0.0.1:30001", ["tcp://host:port"]),
        ("zmq.rest", "tcp://127.0.0.1:65536", ["0 to 65535"]),
        ("zmq.rest", "udp://127.0.0.1:1", ["tcp://host:port"]),
        ("zmq.rest", "tcp://:1", ["tcp://host:port"]),
        ("transport.motor", "ZMQ over tape", ["name of a transport"]),
        ("transport.motor", "zmq.quick", ["with .blocking or .nonblocking"]),
        ("zmq.advertised_address", "tcp://10.0.0.7", ["without port"]),
        ("auth.open_to_everybody", "yes", ["true or false"]),
        ("compression.mode", "sometimes", ["'off' or 'on' or 'auto'"]),
        ("compression.mode", True, ["is True "]),
        ("compression.max_frame_bytes", 51, ["from 52 to"]),
        ("auth.token_file", 3, ["path of a file"]),
        ("auth.token_file", "a\0b", ["path of a file"]),
        ("delivery.motor.deadline_s", -1, ["is -1 ", "from 0.0 to 60.0"]),
        ("delivery.sensory.capacity", 0, ["is 0 ", "from 1 to 1000000"]),
    ],
)
def test_values_that_do_not_fit(path: str, value: object, words: list[str]) -> None:
    message = refused(arguments={path: value})
    assert message.startswith(f"{path} is ")
    assert f"(argument {path})" in message
    assert all(word in message for word in words), message


def test_text_of_the_environment_that_is_no_number() -> None:
    message = refused(environ={"FEAGI_IO_LIMITS_MAX_AGENTS": "many"})
    assert "limits.max_agents is 'many' (environment FEAGI_IO_LIMITS_MAX_AGENTS)" in message
    assert "nan" in refused(environ={"FEAGI_IO_LIMITS_HEARTBEAT_TIMEOUT_S": "nan"})


@pytest.mark.parametrize(
    ("text", "word"),
    [("[zmq", "not TOML"), ("a = 1\na = 2\n", "not TOML"), ("a = " + "[" * 5000, "not TOML")],
)
def test_files_that_are_no_toml(written: Callable[[str], Path], text: str, word: str) -> None:
    path = written(text)
    message = refused(toml=path)
    assert str(path) in message
    assert word in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refused(toml=tmp_path / "none.toml")
    assert "directory" in refused(feagi_configuration=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    assert "not UTF-8: invalid continuation byte at byte 2" in refused(toml=tmp_path / "latin.toml")


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        ("tcp://127.0.0.1:7", "tcp://127.0.0.1:7", True),
        ("tcp://127.0.0.1:7", "tcp://127.0.0.1:007", True),
        ("tcp://*:7", "tcp://127.0.0.1:7", True),
        ("tcp://127.0.0.1:7", "tcp://0.0.0.0:7", True),
        ("tcp://127.0.0.1:7", "tcp://127.0.0.2:7", False),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", False),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", False),
    ],
)
def test_two_endpoints_on_one_port(first: str, second: str, clash: bool) -> None:
    arguments = {"zmq.rest": first, "zmq.sensory": second}
    if clash:
        message = refused(arguments=arguments)
        assert "zmq.sensory (argument zmq.sensory) and zmq.rest (argument zmq.rest)" in message
        assert "port 7" in message
    else:
        assert PNSConfig.from_sources(arguments=arguments).zmq.rest == first


def test_what_a_program_builds_is_checked_as_well() -> None:
    with pytest.raises(ConfigError, match=r"zmq.rest is 'nowhere' \(program\)"):
        PNSConfig(zmq=ZmqEndpoints(rest="nowhere"))
    with pytest.raises(ConfigError, match="max_agents is None"):
        PNSConfig(limits=PNSLimits(max_agents=None))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is 'auto', a str; <CompressionMode"):
        PNSConfig(compression=CompressionSettings(mode="auto"))  # type: ignore[arg-type]


# -- what the document says ---------------------------------------------------------------------

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def _written(value: float | str) -> str:
    """As in TOML, but a text without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_the_document_lists_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `?([^`|]*?)`? \|", DOCUMENT.read_text(), re.MULTILINE)
    defaults = [
        (row.path, "-" if row.value is None else _written(row.value)) for row in PNSConfig().rows()
    ]
    assert rows == defaults


def test_the_example_file_of_the_document_loads(written: Callable[[str], Path]) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    config = PNSConfig.from_toml(written(text))
    assert sum(row.origin != "default" for row in config.rows()) >= 4


def test_the_programs_of_the_document_run() -> None:
    programs = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "docs/configuration.md", "exec"), {})


# -- delivery -----------------------------------------------------------------------------------


def test_capacities_and_deadlines_reach_the_delivery_table() -> None:
    config = PNSConfig(
        limits=PNSLimits(channel_capacity=10),
        delivery=DeliverySettings(SensoryDelivery(capacity=4), MotorDelivery(deadline_s=0.25)),
    )
    rules = config.delivery_rules()
    assert {stream: rule.capacity for stream, rule in rules.items()} == {
        StreamType.SENSORY: 4,
        StreamType.MOTOR: 10,
        StreamType.VISUALIZATION: 1,
        StreamType.CONTROL: 10,
    }
    assert rules[StreamType.MOTOR].deadline_s == 0.25
    assert rules[StreamType.CONTROL].deadline_s == DELIVERY_TABLE[StreamType.CONTROL].deadline_s


# -- tokens -------------------------------------------------------------------------------------

TOKEN = bytes(range(1, 33))


@pytest.mark.parametrize(
    "data", [TOKEN, TOKEN.hex().encode(), TOKEN.hex().upper().encode() + b"\n"]
)
def test_a_token_is_read_from_its_file(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(data)
    assert AuthSettings(path).read_token() == TOKEN
    assert AuthSettings().read_token() is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "has 0 bytes; expected 32"),
        (b"hunter2-hunter2", "has 15 bytes"),
        (TOKEN + b"\n", "has 33 bytes"),
        (b"g" * 64, "has 64 bytes"),
        (bytes(32), "zeros"),
        (b"0" * 64, "zeros"),
    ],
)
def test_a_token_that_is_none_is_refused_without_showing_it(
    tmp_path: Path, data: bytes, words: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as caught:
        AuthSettings(path).read_token()
    assert "hunter2" not in str(caught.value)


def test_a_missing_token_file_lets_nobody_in_by_accident(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        AuthSettings(tmp_path / "none").read_token()


def test_no_secret_in_listings(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN.hex())
    config = PNSConfig.from_sources(arguments={"auth.token_file": path})
    assert config.auth.read_token() == TOKEN
    assert TOKEN.hex() not in repr(config) + repr(config.rows())


@pytest.mark.parametrize("text", [TOKEN.hex(), "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="])
def test_a_token_in_the_place_of_its_file_is_refused_unseen(text: str) -> None:
    for path in ("auth.token_file", "zmq.rest"):
        message = refused(environ={variable_of(path): text})
        assert text not in message
        assert f"{len(text)} characters that look like a token" in message
