# SPDX-License-Identifier: Apache-2.0
"""The command line: what it prints, and its exit status (0 done, 1 failed, 2 usage, 3 missing)."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from feagi_io_host.cli.app import app
from feagi_io_host.cli.demo.session import DemoResult, DemoSnapshot
from feagi_io_host.cli.demo.view import LineView, LiveView, picture
from feagi_io_host.cli.viewing import ViewOptions, viewing
from tests.feagi_io_host.viewer.live import Told

VECTORS = Path(__file__).resolve().parents[2] / "vectors"


def feagi_io(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_decode_prints_what_the_vector_says() -> None:
    done = feagi_io("decode", "--json", str(VECTORS / "valid" / "v21_json_and_xyzp.bin"))
    assert done.exit_code == 0
    first, second = json.loads(done.stdout)["structs"]
    assert first == {"type": "JSON", "value": {"k": 1}}
    assert second["areas"] == [
        {
            "id": "69696e6601000000",
            "text": "iinf\\x01\\x00\\x00\\x00",
            "x": [0],
            "y": [0],
            "z": [3],
            "p": [1.0],
        }
    ]


def test_decode_keeps_json_valid_for_infinities() -> None:
    done = feagi_io("decode", "--json", str(VECTORS / "valid" / "v14_extreme_values.bin"))
    (area,) = json.loads(done.stdout)["structs"][0]["areas"]
    assert area["p"] == ["inf", "-inf", "nan", -0.0]
    assert area["x"] == [0, 4294967295, 2147483648, 1]


def test_decode_cuts_long_areas_and_says_so() -> None:
    done = feagi_io("decode", str(VECTORS / "valid" / "v17_1000_neurons.bin"))
    assert done.exit_code == 0
    assert "1000 neuron(s)" in done.stdout
    assert "... and 992 more" in done.stdout


@pytest.mark.parametrize(
    "path", sorted((VECTORS / "malformed").glob("*.bin")), ids=lambda p: p.stem
)
def test_decode_refuses_what_is_malformed(path: Path) -> None:
    done = feagi_io("decode", str(path))
    assert done.exit_code == 1
    assert done.stderr.startswith("feagi-io: ")
    assert done.stdout == ""


def test_decode_of_no_file_fails_with_its_name() -> None:
    done = feagi_io("decode", "no-such-file.bin")
    assert done.exit_code == 1
    assert "no-such-file.bin" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["bridge"], ["demo", "--seconds", "0"], ["bench", "nothing"], ["decode"], ["boards", "what"]],
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    assert feagi_io(*arguments).exit_code == 2


@pytest.mark.parametrize("command", ["demo", "serve"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--control"], "this is for --view"),
        (["--open"], "this is for --view"),
        (["--view", "--view-host", "0.0.0.0"], "--open-to-network"),
        (["--view", "--token", "short"], "token of 5 characters"),
        (["--view", "--view-port", "70000"], "port 70000"),
    ],
)
def test_a_viewer_that_cannot_be_is_status_2(command: str, options: list[str], words: str) -> None:
    done = feagi_io(command, *options, *(["--status", "none"] if command == "serve" else []))
    assert done.exit_code == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nonsense"], "nonsense"),
        (["--rest", "ftp://here"], "http://host:port is needed"),
        (["--status", "here"], "http://host:port is needed"),
        (["--host", "192.0.2.1"], "--open-to-network"),
    ],
)
def test_a_brain_that_cannot_be_looked_at_is_status_2(options: list[str], words: str) -> None:
    done = feagi_io("view", *options)
    assert done.exit_code == 2
    assert words in done.stderr


def test_the_browser_is_opened_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    # A browser on the screen of whoever runs the tests is no part of them.
    monkeypatch.setattr("webbrowser.open", lambda url: not opened.append(url))
    done = feagi_io("view", "tcp://127.0.0.1:1", "--open", "--seconds", "0.1")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"viewer: {opened[0]}\n"
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    told: list[str] = []
    with viewing(Told(), ViewOptions(open_browser=True), told.append):
        assert told[1] == "no browser could be opened; open the URL yourself"


def test_who_opens_it_to_the_network_is_warned() -> None:
    told: list[str] = []
    with viewing(Told(), ViewOptions(address="0.0.0.0", open_to_network=True), told.append):
        assert told[0].startswith("viewer: http://127.0.0.1:")
        assert told[1].startswith("warning: other machines can reach the viewer")


def test_without_its_extra_the_viewer_names_it() -> None:
    code = "from feagi_io_host.cli.app import app; app(['view', '--seconds', '0.1'])"
    done = run_without("websockets", code)
    assert done.returncode == 3
    assert "pip install 'feagi-io[viewer]'" in done.stderr


def test_bridge_to_no_port_says_so_and_fails() -> None:
    done = feagi_io("bridge", "--port", "/dev/no-such-port", "--seconds", "0.3", "--json")
    assert done.exit_code == 1
    assert "/dev/no-such-port" in done.stderr
    (line,) = json.loads(done.stdout)
    assert line["state"] == "CLOSED"


def test_bridge_says_each_thing_once() -> None:
    """In a process of its own: the library's log records must not reach standard error too."""
    done = subprocess.run(
        [sys.executable, "-m", "feagi_io_host.cli", "bridge", "--port", "/dev/no-such-port",
         "--seconds", "0.3", "--json"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr.count("no port /dev/no-such-port") == 1


def test_bridge_to_a_port_named_twice_is_refused() -> None:
    done = feagi_io("bridge", "--port", "/dev/a", "--port", "/dev/a")
    assert done.exit_code == 2
    assert "named twice" in done.stderr


def test_emulate_of_no_program_fails() -> None:
    done = feagi_io("boards", "emulate", "no-such-program.py")
    assert done.exit_code == 1
    assert "no-such-program.py" in done.stderr


def test_emulate_does_not_replace_a_file(tmp_path: Path) -> None:
    precious = tmp_path / "port"
    precious.write_text("keep me")
    program = tmp_path / "board.py"
    program.write_text("")
    done = feagi_io("boards", "emulate", str(program), "--port", str(precious))
    assert done.exit_code == 1
    assert precious.read_text() == "keep me"


def run_without(module: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter in which a module is not installed."""
    blocked = f"import sys; sys.modules[{module!r}] = None\n{code}"
    return subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, timeout=30, check=False
    )


def test_without_the_cli_extra_it_names_it() -> None:
    done = run_without("typer", "from feagi_io_host.cli import main; main()")
    assert done.returncode == 3
    assert "pip install 'feagi-io[cli]'" in done.stderr


def test_demo_without_micropython_names_the_extra() -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'micropython_unix' else find(n, *a)\n"
        "sys.argv = ['feagi-io', 'demo']\n"
        "from feagi_io_host.cli import main; main()"
    )
    done = run_without("micropython_unix", code)
    assert done.returncode == 3, done.stderr
    assert "pip install 'feagi-io[demo]'" in done.stderr


# -- what the demo shows -----------------------------------------------------------------------


@pytest.mark.parametrize(("angle", "lean"), [(0.0, "|"), (0.3, "/"), (-0.3, "\\")])
def test_picture_leans_as_the_pole_does(angle: float, lean: str) -> None:
    rows = picture(angle, 0.0).plain.splitlines()
    assert lean in "".join(rows[:-2])
    top, bottom = rows[0].index("o"), rows[-2].index("=") + 3
    assert math.copysign(1, top - bottom) == math.copysign(1, angle) or angle == 0.0


@pytest.mark.parametrize("position", [-2.4, 0.0, 2.4, 99.0])
def test_picture_keeps_its_width_wherever_the_cart_is(position: float) -> None:
    assert {len(row) for row in picture(1.5, position).plain.splitlines()} == {64}


def test_line_view_prints_once_per_second() -> None:
    console = Console(record=True, width=200, quiet=False, file=None)
    with console.capture() as captured, LineView(console) as view:
        for tenth in range(31):
            view.show(DemoSnapshot(seconds=tenth / 10, link="CONNECTED"))
        view.say("something happened")
    lines = captured.get().splitlines()
    assert len(lines) == 5
    assert lines[-1].strip() == "something happened"


def test_live_view_shows_figures_and_the_last_messages() -> None:
    console = Console(width=120, force_terminal=True, color_system=None)
    with console.capture() as captured, LiveView(console) as view:
        for number in range(9):
            view.say(f"message {number}")
        view.show(DemoSnapshot(seconds=3.2, link="LOST", lost=7))
    text = captured.get()
    assert "board LOST" in text
    assert "lost 7" in text
    assert "message 8" in text
    assert "message 4" not in text


def result(**changes: object) -> DemoResult:
    values: dict[str, object] = {
        "upright": True,
        "seconds": 15.0,
        "fell_after_s": None,
        "bursts": 1500,
        "sensory": 1490,
        "motor": 1480,
        "lost": 0,
        "rtt_p50_ms": 1.2,
        "rtt_p99_ms": 2.5,
        "board_restarts": 0,
        "interpreter": "micropython 1.29.0 linux",
    }
    return DemoResult(**(values | changes))  # type: ignore[arg-type]


def test_summary_and_json_say_how_it_ended() -> None:
    assert "stood for 15.0 s" in result().summary()
    assert "fell after 0.9 s" in result(upright=False, fell_after_s=0.93).summary()
    assert "silent" in result(upright=False).summary()
    report = result(lost=3).as_json()
    assert report["upright"] is True
    assert report["lost"] == 3
    assert report["rtt_ms"] == {"p50": 1.2, "p99": 2.5}
