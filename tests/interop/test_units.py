# SPDX-License-Identifier: Apache-2.0
"""The areas that we say a configuration stands for are the areas that the engine makes."""

from __future__ import annotations

import pytest

from feagi_io_host.core.unit_table import RESOLUTIONS, SIZED, UNIT_TABLE, Form, UnitKind
from feagi_io_host.core.units import DeclaredUnit, agent_configuration, cortical_ids_of
from tests.interop.raw_agent import RawAgent
from tools.engine import Engine

TOLD = [k for k in UNIT_TABLE if k.form in RESOLUTIONS or k.form in SIZED or k.form is Form.BOOLEAN]


def declared(kind: UnitKind, group: int, *, incremental: bool, fractional: bool) -> DeclaredUnit:
    return DeclaredUnit(
        kind.code,
        group,
        incremental=incremental and kind.form is not Form.BOOLEAN,
        fractional=fractional and kind.positioned,
        dims=(4, 3, 1) if kind.form in SIZED else None,
    )


@pytest.mark.parametrize("incremental", [False, True])
@pytest.mark.parametrize("fractional", [False, True])
def test_every_unit(engine: Engine, incremental: bool, fractional: bool) -> None:
    group = 258 if incremental else 0
    details = agent_configuration(
        declared(kind, group, incremental=incremental, fractional=fractional) for kind in TOLD
    )
    engine.load_genome("barebones")
    before = engine.wait_for_areas()
    expected = cortical_ids_of(details)
    assert len(expected.sensors) + len(expected.motors) == 30
    with RawAgent(engine.registration_url) as agent:
        agent.register()
        answer = agent.ask({"agent_configuration": {"AgentConfigurationDetails": details}})
        assert answer == "heart_beat"
        found = engine.wait_for_areas(*expected.sensors, *expected.motors)
        assert found - before == {bytes(area) for area in (*expected.sensors, *expected.motors)}
