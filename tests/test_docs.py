# SPDX-License-Identifier: Apache-2.0
"""What the documents say is what the code does: bytes, tables and programs are taken out and tried.

A comment `<!-- test: name -->` in a document stands before a part that is looked at here; other
tables are found by the line of their heading.
"""

from __future__ import annotations

import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from feagi_io_host.bridge.declaration import parse_declaration
from feagi_io_host.bridge.settings import LinkSettings
from feagi_io_host.core import errors as host_errors
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.delivery import DELIVERY_TABLE
from feagi_io_host.core.types import AgentDescriptor, StreamType
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from feagi_io_host.pns import PNS
from feagi_io_mcu import units
from feagi_io_mcu.agent import UNITS, Agent
from feagi_wire import const, cortical_id, link
from feagi_wire import errors as wire_errors
from feagi_wire.board_link import BoardLink
from feagi_wire.container import StaticFBC
from feagi_wire.framing import Framer, frame_bytes
from feagi_wire.host_link import STATE_NAMES, HostLink
from feagi_wire.xyzp import ValueDecoder, ValueEncoder

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
NAMES = [
    "agents.md",
    "architecture.md",
    "board-link.md",
    "configuration.md",
    "deploying.md",
    "emulated-boards.md",
    "real-engine.md",
    "telemetry.md",
    "troubleshooting.md",
    "tuning.md",
    "which-transport.md",
    "wire-format.md",
]
BITS_PER_BYTE = 10  # 8N1

HEX_ROW = re.compile(r"([0-9a-f]{4})  ([0-9a-f]{2}(?: [0-9a-f]{2})*)(?:  .*)?")
TABLE = re.compile(r"^(\|.*\|)\n\|[-|]+\|\n((?:\|.*\|\n)+)", re.MULTILINE)
FILE_LINK = re.compile(r"\]\(([\w.-]+\.md)(?:#([\w-]+))?\)")
PATH = re.compile(r"`((?:feagi_io_host|feagi_io_mcu|shared|tests|tools)/[\w./{},-]+)`")


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def after(name: str, mark: str) -> str:
    _, found, rest = text(name).partition(f"<!-- test: {mark} -->\n")
    assert found, f"{name} has no mark {mark!r}"
    return rest


def block(name: str, mark: str) -> str:
    match = re.match(r"```\w*\n(.*?)```", after(name, mark), re.DOTALL)
    assert match, f"no block behind {mark!r} of {name}"
    return match[1]


def cells(row: str) -> list[str]:
    parts = re.split(r"(?<!\\)\|", row.strip())[1:-1]
    return [part.strip().replace("\\|", "|").strip("`") for part in parts]


def rows_of(rest: str) -> list[list[str]]:
    """The first table in `rest`, without its heading."""
    match = TABLE.search(rest)
    assert match, "no table"
    return [cells(row) for row in match[2].splitlines()]


def table(name: str, *heading: str) -> list[list[str]]:
    """The one table of a document that has this heading."""
    found = [
        [cells(row) for row in match[2].splitlines()]
        for match in TABLE.finditer(text(name))
        if tuple(cells(match[1])) == heading
    ]
    assert len(found) == 1, f"{len(found)} tables of {name} are headed {heading}"
    return found[0]


def number_in(cell: str) -> int:
    match = re.search(r"\d+", cell)
    assert match, cell
    return int(match[0])


def run_programs(name: str) -> dict[str, Any]:
    """Run the Python blocks of a document, one after the other; the names they leave."""
    left: dict[str, Any] = {}
    for program in re.findall(r"```python\n(.*?)```", text(name), re.DOTALL):
        exec(compile(program, f"docs/{name}", "exec"), left)
    return left


def dumped() -> bytes:
    """The bytes of the annotated dump; each row has to stand at the offset it names."""
    data = b""
    for row in block("wire-format.md", "hexdump").splitlines():
        match = HEX_ROW.fullmatch(row)
        assert match, row
        assert int(match[1], 16) == len(data), row
        data += bytes.fromhex(match[2])
    return data


# -- wire-format.md -------------------------------------------------------------------------------


def test_both_codecs_read_the_dump_as_annotated() -> None:
    data = dumped()
    container = FeagiByteContainer.new_empty()
    container.try_write_data_by_copy_and_verify(data)
    assert container.get_number_of_bytes_used() == len(data) == 140
    assert container.get_increment_counter() == 258
    assert container.get_agent_identifier_bytes() == b"\xa1" + bytes(46) + b"\xa2"
    struct = container.try_create_new_struct_from_index(0)
    assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
    columns = {
        bytes(key): [column.tolist() for column in arrays.borrow_xyzp_vectors()]
        for key, arrays in struct
    }
    assert columns == {
        b"iinf\x01\x00\x00\x00": [[0, 1], [0, 0], [4, 0], [1.0, 1.0]],
        b"ibat\x01\x00\x03\x00": [[0], [0], [2], [1.0]],
    }
    fbc = StaticFBC(bytearray(data))
    assert fbc.parse(len(data)) == 2
    for key, (xs, ys, zs, _) in columns.items():
        assert fbc.next_area() == len(xs)
        assert fbc.area_id_is(key)
        for index, voxel in enumerate(zip(xs, ys, zs, strict=True)):
            assert fbc.get(index) == const.OK
            assert (fbc.x, fbc.y, fbc.z, fbc.q16) == (*voxel, 65536)


def test_programs_of_the_wire_format_write_and_read_the_dump() -> None:
    left = run_programs("wire-format.md")
    assert bytes(left["fbc"].buf[: left["length"]]) == dumped()
    assert left["area"] == b"ibat\x01\x00\x03\x00"
    assert left["z"].tolist() == [2]


def test_header_and_struct_tables() -> None:
    header = table("wire-format.md", "offset", "bytes", "field")
    assert [row[:2] for row in header[:5]] == [
        ["0", "1"],
        ["1", "2"],
        ["3", "1"],
        ["4", str(const.AGENT_ID_BYTES)],
        [str(const.HEADER_BYTES), "4 n"],
    ]
    assert number_in(header[0][2]) == const.FBC_VERSION
    structs = table("wire-format.md", "type", "version", "content")
    assert [[int(row[0]), int(row[1]), row[2][:4]] for row in structs] == [
        [const.STRUCT_JSON, const.STRUCT_VERSION, "JSON"],
        [const.STRUCT_XYZP, const.STRUCT_VERSION, "XYZP"],
    ]


def test_kinds_and_data_types_of_ids() -> None:
    kinds = table("wire-format.md", "first byte", "kind")
    assert sorted(row[0].encode() for row in kinds) == sorted(
        bytes([kind]) for kind in cortical_id.KINDS
    )
    types = table("wire-format.md", "data type", "number")
    numbers = [int(number) for row in types for number in row[1].split(",")]
    assert numbers == list(range(const.POSE_ESTIMATION + 1))


def coded(value: int, fractional: bool) -> tuple[str, str]:
    """What one channel of R = 8 becomes, and what it is read back as."""
    encoder = ValueEncoder(1, 8, fractional=fractional)
    assert encoder.set(0, value) == const.OK
    fbc = StaticFBC(bytearray(512))
    assert fbc.begin(0, 1) == const.OK
    assert encoder.write(fbc, b"iagp\x01\x00\x00\x00") == const.OK
    assert fbc.parse(fbc.end()) == 1
    count = fbc.next_area()
    depths = []
    for index in range(count):
        assert fbc.get(index) == const.OK
        depths.append(str(fbc.z))
    decoder = ValueDecoder(1, 8, fractional=fractional)
    assert decoder.read(fbc, count) == 1
    return " ".join(depths), f"{decoder.values[0] / 65535:.4f}"


def test_coding_examples() -> None:
    rows = rows_of(after("wire-format.md", "coding"))
    assert len(rows) == 5
    for v, *rest in rows:
        value = round(float(v) * 65535)
        assert rest == [*coded(value, False), *coded(value, True)], v


def test_refusals_name_what_exists() -> None:
    for _, host, portable in table("wire-format.md", "fault", "host", "portable"):
        assert issubclass(getattr(host_errors, host), host_errors.FeagiDataError)
        assert getattr(const, portable.split("`")[0]) < 0


# -- board-link.md --------------------------------------------------------------------------------


def test_numbers_of_the_link() -> None:
    streams = table("board-link.md", "stream", "number")
    assert {row[0]: int(row[1]) for row in streams} == {
        stream.value: stream.wire for stream in StreamType
    }
    for kind, number, _, _ in table("board-link.md", "kind", "number", "from", "payload"):
        assert getattr(link, kind) == int(number)
    prose = " ".join(text("board-link.md").split())
    assert f"The link version is {const.LINK_VERSION}, the container version" in prose
    assert f"the container version {const.FBC_VERSION}." in prose
    assert f"saves {const.COMPACT_SAVES} bytes" in prose


@pytest.mark.parametrize(("name", "size"), [("WELCOME", 64), ("BEAT", 20)])
def test_payload_layouts_have_no_gaps(name: str, size: int) -> None:
    _, found, rest = text("board-link.md").partition(f"\n{name}:\n")
    assert found
    at = 0
    for offset, length, _ in rows_of(rest):
        assert int(offset) == at
        at += int(length)
    assert at == size


def test_session_table() -> None:
    states = {state: number for number, state in enumerate(STATE_NAMES)}
    rows = {row[0]: bytes(states[cell] for cell in row[1:]) for row in session_rows()}
    assert rows == {
        "OFFER": link.TABLE[const.IN_OFFER],
        "ALIVE": link.TABLE[const.IN_ALIVE],
        "SILENCE": link.TABLE[const.IN_SILENCE],
        "BYE": link.TABLE[const.IN_BYE],
    }


def session_rows() -> list[list[str]]:
    return rows_of(after("board-link.md", "session"))


def test_times() -> None:
    settings = LinkSettings()
    rows = rows_of(after("board-link.md", "times"))
    assert [number_in(row[1]) for row in rows[:5]] == [
        settings.beat_ms,
        settings.lost_ms,
        settings.motor_timeout_ms,
        settings.lost_ms,
        4 * settings.lost_ms,
    ]
    defaults = {row[0]: row[1] for row in table("board-link.md", "setting", "default", "")}
    assert int(defaults["beat_ms"]) == settings.beat_ms
    assert int(defaults["motor_timeout_ms"]) == settings.motor_timeout_ms
    assert int(defaults["max_container"]) == settings.max_container
    assert defaults["supersede_motor"] == "off"
    assert not settings.supersede_motor


class End:
    """One end of a link without a line, and the sizes of the frames it has sent."""

    def __init__(self, host: bool, declaration: bytes = b"{}") -> None:
        tx = bytearray(4096)
        rx = StaticFBC(bytearray(4096))
        self.link: link.Link = HostLink(tx, rx) if host else BoardLink(tx, rx, declaration)
        self.sent: list[int] = []

    def step(self, now: int, other: End) -> int:
        """Let time be `now`, hand what is to be sent to the other end; the events of both."""
        events = self.link.tick(now)
        if self.link.pending():
            frame = bytes(self.link.framer.tx[self.link.tx_pos : self.link.tx_len])
            self.sent.append(len(frame))
            self.link.written(len(frame))
            at = 0
            while (rc := other.link.receive(frame, at, len(frame), now)) != const.END:
                events |= rc
                at = other.link.index
        return events


def frames_in(line: bytes) -> list[bytes]:
    """The payloads that a receiver finds in these bytes."""
    framer = Framer(bytearray(16), bytearray(64))
    found = []
    at = 0
    while (size := framer.feed(line, len(line), at)) != const.END:
        at = framer.index
        if size > 0:
            found.append(bytes(framer.rx[:size]))
    return found


def test_one_byte_costs_one_frame_at_most() -> None:
    sent = [b"one\0\xff", b"\0\0two", b"three"]
    framer = Framer(bytearray(64), bytearray(16))
    line = b"".join(bytes(framer.tx[: framer.encode(payload, 0, len(payload))]) for payload in sent)
    assert frames_in(line) == sent
    assert frames_in(b"MicroPython v1.29\r\n>>> " + line) == sent
    two_of_three = [sent[1:], sent[::2], sent[:2]]
    for at in range(len(line)):
        before, rest = line[:at], line[at:]
        assert frames_in(before + rest[1:]) in [sent, *two_of_three]
        for value in range(256):
            assert frames_in(before + bytes([value]) + rest) in [sent, *two_of_three]
            if value != line[at]:
                assert frames_in(before + bytes([value]) + rest[1:]) in two_of_three


def declared() -> bytes:
    return json.dumps(json.loads(block("board-link.md", "declaration"))).encode()


def test_handshake_has_the_sizes_told() -> None:
    board = End(False, declared())
    host = End(True)
    sizes = []
    sender, receiver = host, board
    for now in range(5):
        sender.step(now, receiver)
        sizes += sender.sent[-1:]
        sender, receiver = receiver, sender
    rows = table("board-link.md", "from", "frame", "bytes", "after it")
    assert sizes == [int(row[2]) for row in rows]
    assert host.link.state == board.link.state == const.CONNECTED


def test_a_board_says_hello_at_the_times_told() -> None:
    board = End(False, declared())
    nobody = End(True)
    times: list[int] = []
    for now in range(6000):
        board.step(now, nobody)
        nobody.link.discard()
        if len(board.sent) > len(times):
            times.append(now)
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    told = next(row[1] for row in rows_of(after("board-link.md", "times")) if "board's" in row[0])
    expected = [int(number) for number in re.findall(r"\d+", told)][: len(waits)]
    assert times[0] == 0
    # a wait is over with the first tick after it
    assert [wait - 1 for wait in waits] == expected
    assert len(waits) >= 4


def test_fail_safe_comes_with_the_motor_timeout_and_stays_without_motor_frames() -> None:
    board, host = End(False, declared()), End(True)
    empty = StaticFBC(bytearray(256))
    assert empty.begin(1, 0) == const.OK
    length = empty.end()
    events = {}
    for now in range(1500):
        host.step(now, board)
        if host.link.state == const.CONNECTED and now <= 500 and not host.link.pending():
            # frames without any area count as fresh
            host.link.send(const.STREAM_MOTOR, empty, length, now)
            host.step(now, board)
        found = board.step(now, host)
        if found & const.EV_FAILSAFE:
            events[now] = found
    assert len(events) == 1
    (at,) = events
    assert 0 < at - 500 - LinkSettings().motor_timeout_ms <= 2


def test_declaration_is_what_a_board_sends_and_the_host_takes() -> None:
    value = json.loads(block("board-link.md", "declaration"))
    board = Agent(_no_line(), "rover", "e6614103e7")
    sensor = board.sensor("iinf", channels=4, resolution=8)
    motor = board.motor("omot", channels=2, resolution=8)
    assert value["sensors"] == [sensor.entry]
    assert value["motors"] == [motor.entry]
    found = parse_declaration(declared())
    assert (found.name, found.uid) == ("rover", "e6614103e7")
    assert [unit.cortical_id for unit in found.sensors + found.motors] == [
        b"iinf\x01\x00\x00\x00",
        b"omot\x05\x00\x00\x00",
    ]
    fields = {row[0] for row in table("board-link.md", "field", "meaning")}
    volume = units.MiscSensor(board, 2, 2, 2)
    assert fields == {"name", "uid", "fw", "viz"} | volume.entry.keys()
    _, _, rest = text("board-link.md").partition("(`UNITS`):")
    assert re.findall(r"`(\w{4})`", rest.partition(". Those")[0]) == list(UNITS)
    rows = table("board-link.md", "class", "unit", "areas", "a channel's columns (x)")
    assert {name for row in rows for name in row[0].split("`, `")} == {
        name for name in units.__all__ if not name.startswith("Vector")
    }


def _no_line() -> Any:
    return run_programs("board-link.md")["MemoryDriver"]()


def test_slow_lines() -> None:
    rows = rows_of(after("board-link.md", "slow lines"))
    for row in rows:
        areas, channels, size, on_line = map(int, row[:4])
        assert size == 60 + 16 * areas + 16 * channels
        assert on_line == frame_bytes(size - const.COMPACT_SAVES + const.LINK_HEADER)
        assert float(row[4]) == round(on_line * BITS_PER_BYTE * 1e3 / 115200, 1)
        assert [int(cell) for cell in row[5:]] == [
            baud // BITS_PER_BYTE // on_line for baud in (9600, 115200, 460800, 921600)
        ]


def test_counters_exist() -> None:
    one = BoardLink(bytearray(4096), StaticFBC(bytearray(4096)))
    place = ""
    for where, names, _ in table("board-link.md", "where", "counter", "it counts"):
        place = where or place
        for name in re.findall(r"\w+", names):
            if place == "Link":
                assert isinstance(getattr(one, name), int)
            elif place == "Link.framer":
                assert isinstance(getattr(one.framer, name), int)
            elif place == "Agent":
                assert isinstance(getattr(Agent(_no_line(), "a"), name), int)
            elif place == "ValueDecoder":
                assert isinstance(getattr(ValueDecoder(1, 2), name), int)


def test_driver_of_the_board_link_carries_a_session() -> None:
    driver = run_programs("board-link.md")["MemoryDriver"]
    near, far = driver(), driver()
    near.join(far)
    agent = Agent(near, "rover", period_ms=0)
    agent.sensor("iinf").write_u16(0, 65535)
    host = HostLink(bytearray(4096), StaticFBC(bytearray(4096)))
    chunk = bytearray(64)
    events = now = 0
    while not events & const.EV_DATA and now < 1000:
        agent.step()
        now += 1
        host.tick(now)
        while host.pending():
            host.written(far.write_some(host.framer.tx, host.tx_pos, host.pending()))
            agent.step()
        while n := far.read_some(chunk):
            at = 0
            while (rc := host.receive(chunk, at, n, now)) != const.END:
                events |= rc
                at = host.index
    assert events & const.EV_DATA
    assert (host.stream, host.rx.next_area()) == (const.STREAM_SENSORY, 1)


# -- architecture.md ------------------------------------------------------------------------------


def test_programs_of_the_architecture_run() -> None:
    left = run_programs("architecture.md")
    counters = left["pool"].counters()
    assert (counters["leased"], counters["released"]) == (0, 1)


def test_program_of_the_agents_runs() -> None:
    left = run_programs("agents.md")
    assert (len(left["felt"]), left["frame"]) == (1, None)


def test_layers_are_those_that_are_checked() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (layers,) = [c["layers"] for c in contracts if c.get("containers") == ["feagi_io_host"]]
    # there a name in brackets is a room that need not be there
    assert block("architecture.md", "layers").splitlines() == [
        re.sub(r"[()]", "", layer) for layer in layers
    ]


def test_rooms_that_exist_and_those_that_do_not() -> None:
    package = ROOT / "feagi_io_host"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    rooms |= {path.stem for path in package.glob("[a-z]*.py")}
    assert {row[0] for row in table("architecture.md", "room", "holds")} == rooms
    transports = {path.parent.name for path in (package / "transports").glob("*/__init__.py")}
    _, found, rest = text("architecture.md").partition("but no code yet:")
    assert found
    planned = set(re.findall(r"`(\w+)`", rest.partition("\n\n")[0])) - {"blocking"}
    assert not planned & (rooms | transports)


def test_delivery_table() -> None:
    rows = rows_of(after("architecture.md", "delivery"))
    assert rows == [
        [
            rule.stream.value,
            rule.order.value,
            rule.on_full.value.removesuffix(" to a deadline"),
            str(rule.capacity),
            "-" if rule.deadline_s is None else f"{rule.deadline_s} s",
            "-" if rule.max_age_bursts is None else f"{rule.max_age_bursts} bursts",
        ]
        for rule in DELIVERY_TABLE.values()
    ]


def test_threads_are_named_so() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "feagi_io_host").rglob("*.py")
    )
    for name, _, _ in table("architecture.md", "thread", "one per", "does"):
        first = name.split()[0]
        # the names of a board's two writers are made of the stream's
        first = re.sub(r"(board-)(motor|visualization)", r"\1{stream.value}", first)
        first = first.replace("STREAM", "{channel.name}")
        assert first in sources, name


# -- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_what_is_pointed_at_exists(name: str) -> None:
    content = text(name)
    for file, anchor in FILE_LINK.findall(content):
        target = text(file)
        titles = re.findall(r"^#+ (.*)$", target, re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
        assert not anchor or anchor in anchors, f"{file}#{anchor}"
    for path in PATH.findall(content):
        stem, brace, rest = path.partition("{")
        inner, _, end = rest.partition("}")
        for part in inner.split(",") if brace else [""]:
            assert (ROOT / (stem + part + end)).exists(), path


@pytest.mark.parametrize("name", NAMES)
def test_errors_named_exist(name: str) -> None:
    known = set(vars(host_errors)) | set(vars(wire_errors)) | set(vars(const)) | {"ValueError"}
    for found in re.findall(r"`(\w+Error|E_[A-Z]+)`", text(name)):
        assert found in known, found


# -- telemetry.md ---------------------------------------------------------------------------------


def _keys(heading: str) -> set[str]:
    rows = table("telemetry.md", heading, "what it holds")
    return {key for row in rows for key in re.findall(r"\w+", row[0].replace("`", ""))}


def test_telemetry_has_the_keys_that_are_documented() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", text("telemetry.md"), re.DOTALL)
    left: dict[str, Any] = {}
    exec(compile(program, "docs/telemetry.md", "exec"), left)
    assert left["report"].keys() == _keys("key")
    pns = PNS()
    transport_of_it: Any = pns.add_transport("virtual").transport
    with pns:
        transport_of_it.connect(AgentDescriptor("feagi-io", "tests", 1), ~AgentCapabilities(0))
        report = pns.telemetry()
    (agent,), (transport,) = report["agents"], report["transports"]
    assert agent.keys() == _keys("key of an agent")
    assert transport.keys() == _keys("key of a transport")
    assert agent["motor"].keys() == transport["motor"].keys() == _keys("key of a row")
    assert re.findall(r"`(\w+_ms|count)`", text("telemetry.md")) == list(agent["motor"]["latency"])
