# SPDX-License-Identifier: Apache-2.0
"""An agent that has configured itself gets the motor frames of its own units."""

from __future__ import annotations

import copy

import numpy as np

from feagi_io_host.core.agents import AgentCapabilities
from feagi_io_host.core.container import FeagiByteContainer
from feagi_io_host.core.messages import (
    AgentConfiguration,
    HealthCheckRequest,
    HealthReport,
    HeartBeat,
    encode_control,
)
from feagi_io_host.core.pool import SharedFBC
from feagi_io_host.core.types import AgentDescriptor, CorticalID
from feagi_io_host.core.units import DeclaredUnit, agent_configuration
from feagi_io_host.core.voxels import CorticalMappedXYZPNeuronVoxels, NeuronVoxelXYZPArrays
from feagi_io_host.pns import PNS
from feagi_io_host.transports.zmq import ZmqTransport
from tests.feagi_io_host.transports.zmq.peer import DEADLINE_S, ZmqPeer

MOTOR = AgentCapabilities.RECEIVE_MOTOR_DATA
MINE = CorticalID(b"omot\x05\x00\x00\x00")
OTHERS = CorticalID(b"omot\x05\x00\x01\x00")
MAX_FRAME_BYTES = 1 << 16


def publish(pns: PNS, area: CorticalID) -> None:
    ones = np.ones(1, np.uint32)
    arrays = NeuronVoxelXYZPArrays.new_from_numpy(ones, ones, ones, np.ones(1, np.float32))
    container = FeagiByteContainer()
    container.overwrite_byte_data_with_single_struct_data(
        CorticalMappedXYZPNeuronVoxels({area: arrays}), 0
    )
    with SharedFBC.from_bytes(container.copy_out_as_byte_vector()) as fbc:
        pns.publish_motor(None, fbc)


def received(peer: ZmqPeer) -> list[CorticalID]:
    fbc = peer.receive_motor(DEADLINE_S)
    assert fbc is not None
    with fbc:
        voxels = fbc.container.try_create_new_struct_from_index(0)
        assert isinstance(voxels, CorticalMappedXYZPNeuronVoxels)
        return list(voxels.mappings)


def test_the_frames_of_other_units_stay_away() -> None:
    descriptor = AgentDescriptor("feagi-io", "wheel", 1)
    details = agent_configuration([DeclaredUnit("omot")])
    unknown = copy.deepcopy(details)
    unknown["output_units_and_decoder_properties"] = {"Wheels": []}
    with PNS() as pns, ZmqTransport(pns, control_port=0) as transport:
        peer = ZmqPeer(transport.control_url, descriptor, MOTOR, MAX_FRAME_BYTES)
        try:
            (session,) = pns.sessions
            assert transport.wait_until_subscribed(session.agent_id, DEADLINE_S)
            publish(pns, OTHERS)
            assert received(peer) == [OTHERS]

            peer.send_raw(
                b"", encode_control(AgentConfiguration(unknown), peer.agent_id)
            )  # gets no answer, so the next one is the report's
            assert isinstance(peer.ask(HealthCheckRequest()), HealthReport)
            publish(pns, OTHERS)
            assert received(peer) == [OTHERS]

            assert peer.ask(AgentConfiguration(details)) == HeartBeat()
            publish(pns, OTHERS)
            publish(pns, MINE)
            assert received(peer) == [MINE]
        finally:
            peer.close()
