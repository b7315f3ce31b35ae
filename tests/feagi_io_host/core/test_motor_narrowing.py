# SPDX-License-Identifier: Apache-2.0
"""An agent that has configured itself gets the motor frames of its own units."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.messages import AgentConfiguration
from feagi_io_host.core.motor_narrowing import DEATH, settle_configuration
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.core.units import DeclaredUnit, agent_configuration
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from feagi_io_host.pns import PNS, AgentSession
from tests.feagi_io_host.core.golden import neurons

DESCRIPTOR = AgentDescriptor("feagi-io", "narrowed", 1)
MOTOR = CorticalID(b"omot\x05\x00\x00\x00")
COUNT = CorticalID(b"ocnt\x01\x00\x02\x00")
OTHER = CorticalID(b"omot\x05\x00\x01\x00")
DETAILS = agent_configuration([DeclaredUnit("iinf"), DeclaredUnit("omot"), DeclaredUnit("ocnt", 2)])


@pytest.fixture
def pns() -> Iterator[PNS]:
    with PNS() as running:
        yield running


@pytest.fixture
def session(pns: PNS) -> AgentSession:
    return pns.attach_agent(DESCRIPTOR, AgentCapabilities.RECEIVE_MOTOR_DATA)


def gets(pns: PNS, session: AgentSession, *areas: CorticalID) -> bool:
    """Whether a motor frame with these areas reaches the agent."""
    container = FeagiByteContainer()
    container.overwrite_byte_data_with_single_struct_data(
        CorticalMappedXYZPNeuronVoxels({one: neurons(1) for one in areas}), 0
    )
    with SharedFBC.from_bytes(container.copy_out_as_byte_vector()) as fbc:
        pns.publish_motor(None, fbc)
    got = session.motor.get(0.0)
    if got is None:
        return False
    got.release()
    return True


def agree(agent_id: bytes, configuration: AgentConfiguration) -> bool:
    return True


def test_only_declared_areas_reach_it(pns: PNS, session: AgentSession) -> None:
    assert gets(pns, session, OTHER)
    assert settle_configuration(session, AgentConfiguration(DETAILS), agree)
    assert not gets(pns, session, OTHER)
    assert gets(pns, session, MOTOR)
    assert gets(pns, session, COUNT)
    assert gets(pns, session, OTHER, COUNT)
    assert gets(pns, session, DEATH)
    assert gets(pns, session)  # the brain's sign of life


def test_an_agent_without_motors(pns: PNS, session: AgentSession) -> None:
    details = agent_configuration([DeclaredUnit("iinf")])
    assert settle_configuration(session, AgentConfiguration(details), agree)
    assert not gets(pns, session, MOTOR)
    assert gets(pns, session, DEATH)


def test_the_last_configuration_counts(pns: PNS, session: AgentSession) -> None:
    settle_configuration(session, AgentConfiguration(DETAILS), agree)
    details = agent_configuration([DeclaredUnit("omot", 1)])
    settle_configuration(session, AgentConfiguration(details), agree)
    assert gets(pns, session, OTHER)
    assert not gets(pns, session, MOTOR)


def test_unknown_units_change_nothing(
    pns: PNS, session: AgentSession, caplog: pytest.LogCaptureFixture
) -> None:
    details = copy.deepcopy(DETAILS)
    outputs = details["output_units_and_decoder_properties"]
    outputs["RotaryMoter"] = outputs.pop("RotaryMotor")
    asked = []

    def note(agent_id: bytes, configuration: AgentConfiguration) -> bool:
        asked.append(agent_id)
        return True

    assert not settle_configuration(session, AgentConfiguration(details), note)
    assert asked == []
    assert gets(pns, session, OTHER)
    assert "narrowed gets no answer" in caplog.text
    assert "did you mean 'RotaryMotor'?" in caplog.text


def test_a_refusal_changes_nothing(pns: PNS, session: AgentSession) -> None:
    seen = []

    def refuse(agent_id: bytes, configuration: AgentConfiguration) -> bool:
        seen.append((agent_id, configuration.details))
        return False

    assert not settle_configuration(session, AgentConfiguration(DETAILS), refuse)
    assert seen == [(session.agent_id, DETAILS)]
    assert gets(pns, session, OTHER)
