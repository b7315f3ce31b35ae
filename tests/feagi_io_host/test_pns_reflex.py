# SPDX-License-Identifier: Apache-2.0
"""The spine without a board: a body, the PNS and the built-in brain, in their own threads."""

from __future__ import annotations

import pytest

from feagi_io_host.burst import Reflex, ReflexEngine, linear_weights
from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.pool import BufferPool
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels
from feagi_io_host.pns import PNS, AgentSession

PATIENCE_S = 10.0
RESOLUTION = 64
ANGLE = CorticalID(b"iinf\x01\x00\x00\x00")
FORCE = CorticalID(b"omot\x05\x00\x00\x00")
ALL = (
    AgentCapabilities.SEND_SENSOR_DATA
    | AgentCapabilities.RECEIVE_MOTOR_DATA
    | AgentCapabilities.RECEIVE_NEURON_VISUALIZATIONS
)
BODY = AgentDescriptor("feagi-io tests", "body", 1)


def sense(session: AgentSession, pool: BufferPool, z: int) -> None:
    container = pool.acquire()
    columns = container.reserve_xyzp([(ANGLE, 1)], 0)[ANGLE]
    for column, value in zip(columns, (0, 0, z, 1.0), strict=True):
        column[0] = value
    del column, columns
    with pool.share(container) as fbc:
        session.submit_sensory(fbc)


def next_force(session: AgentSession) -> int | None:
    """The z of the next motor frame; None when it is empty."""
    fbc = session.motor.get(PATIENCE_S)
    assert fbc is not None, "no motor frame came"
    with fbc:
        struct = fbc.container.try_create_new_struct_from_index(0)
        assert isinstance(struct, CorticalMappedXYZPNeuronVoxels)
        for area, arrays in struct:
            assert area == FORCE
            return int(arrays.borrow_xyzp_vectors()[2][0])
    return None


@pytest.mark.parametrize("attach_first", [True, False])
def test_what_a_body_senses_comes_back_as_its_motion(attach_first: bool) -> None:
    pool = BufferPool()
    weights = linear_weights(1.0, RESOLUTION).reshape(1, RESOLUTION, 1)
    engine = ReflexEngine(200.0, [Reflex(ANGLE, FORCE, weights, RESOLUTION)])
    pns = PNS()
    with pns, engine:
        session = pns.attach_agent(BODY, ALL) if attach_first else None
        engine.connect_to_pns(pns)
        pns.connect_to_burst_engine(engine)
        if session is None:
            session = pns.attach_agent(BODY, ALL)
        for z in (0, 20, 40, 63):
            # A fresh frame for each burst, until the one with this z has come back.
            for _ in range(1000):
                sense(session, pool, z)
                force = next_force(session)
                if force == z:
                    break
            else:
                pytest.fail(f"the motion for z {z} never came")
        # The body falls silent: the frames go on, empty.
        for _ in range(1000):
            if next_force(session) is None:
                break
        else:
            pytest.fail("the motor frames never became empty")
        shown = session.visualization.get(PATIENCE_S)
        assert shown is not None
        shown.release()
    engine.stop(PATIENCE_S)
    totals = pns.telemetry()["totals"]
    for stream in ("sensory", "motor", "visualization"):
        row = totals[stream]
        assert row["sent"] == row["delivered"] + sum(row["dropped"].values()) + row["queued"]
    assert pool.counters()["leased"] == 0
    telemetry = engine.telemetry()
    assert telemetry["motor_pool"]["leased"] == 0
    assert telemetry["visualization_pool"]["leased"] == 0
    assert telemetry["motor_failures"] == 0


def test_a_new_brain_takes_over_from_one_that_was_stopped() -> None:
    pool = BufferPool()
    weights = linear_weights(1.0, RESOLUTION).reshape(1, RESOLUTION, 1)
    with PNS() as pns:
        session = pns.attach_agent(BODY, ALL)
        for _ in range(2):
            with ReflexEngine(200.0, [Reflex(ANGLE, FORCE, weights, RESOLUTION)]) as engine:
                engine.connect_to_pns(pns)
                pns.connect_to_burst_engine(engine)
                for _ in range(1000):
                    sense(session, pool, 5)
                    if next_force(session) == 5:
                        break
                else:
                    pytest.fail("the brain did not answer")
            pns.disconnect_from_burst_engine(engine)
            while (left := session.motor.get_nowait()) is not None:
                left.release()
        assert session.motor.get_nowait() is None
        assert not session.closed
    assert pool.counters()["leased"] == 0
