# SPDX-License-Identifier: Apache-2.0
"""What docs/real-engine.md says of the engine is what the engine does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from feagi_io_host.core.types import CorticalID
from tests.interop.raw_agent import RawAgent
from tools.engine import FEAGI_PORTS, Engine, Installation, find_or_install

TESTS = Path(__file__).resolve().parents[1]
TEXT = (TESTS.parent / "docs" / "real-engine.md").read_text(encoding="utf-8")
DEVICES: dict[str, Any] = json.loads(
    (TESTS / "vectors" / "device_registrations.json").read_text(encoding="utf-8")
)


def rows(mark: str) -> list[list[str]]:
    """The cells of the table behind a mark, without its heading."""
    _, found, rest = TEXT.partition(f"<!-- test: {mark} -->\n")
    assert found
    table = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table]


def configuration(unit: str) -> tuple[CorticalID, dict[str, Any]]:
    """The area and the configuration of a unit, as FEAGI's own client wrote it."""
    for name, device in DEVICES.items():
        if not name.startswith("_") and "group=0" in name:
            units = device["registration"]
            inputs = units["input_units_and_encoder_properties"]
            if unit in inputs | units["output_units_and_decoder_properties"]:
                return CorticalID.try_from_bytes(
                    bytes.fromhex(device["cortical_ids_hex"][0])
                ), units
    raise LookupError(unit)


def test_ports() -> None:
    ports = [int(port) for _, port in rows("ports")]
    assert ports == [
        FEAGI_PORTS.rest,
        FEAGI_PORTS.registration,
        FEAGI_PORTS.sensory,
        FEAGI_PORTS.motor,
        FEAGI_PORTS.visualization,
    ]


@pytest.mark.parametrize(("unit", "area", "size"), rows("areas"))
def test_areas(engine: Engine, unit: str, area: str, size: str) -> None:
    cortical_id, units = configuration(unit)
    assert cortical_id[:4] == area.encode()
    engine.load_genome("barebones")
    with RawAgent(engine.registration_url) as agent:
        agent.register()
        agent.ask({"agent_configuration": {"AgentConfigurationDetails": units}})
        engine.wait_for_areas(cortical_id)
    assert " x ".join(map(str, engine.area_dimensions(cortical_id))) == size


def test_digital_gpio_needs_a_flag(engine: Engine) -> None:
    cortical_id, units = configuration("DigitalGPIO")
    flags = units["input_units_and_encoder_properties"]["DigitalGPIO"][0][0]
    flags["io_configuration_flags"] = {"frame_change_handling": "Absolute"}
    engine.load_genome("barebones")
    with RawAgent(engine.registration_url) as agent:
        agent.register()
        agent.ask({"agent_configuration": {"AgentConfigurationDetails": units}})
        engine.wait_for_areas(cortical_id)


def test_program(engine_installation: Installation) -> None:
    assert find_or_install() == engine_installation
    (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    left: dict[str, Any] = {}
    exec(program, left)
    assert left["health"]["genome_state"] == "loaded"
    assert not left["engine"].running
