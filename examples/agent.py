# SPDX-License-Identifier: Apache-2.0
"""A body for any brain: one infrared sensor, one rotary motor. Argument: where to register.

    feagi-io serve                                   wires the two by itself
    python examples/agent.py tcp://127.0.0.1:30001   this

With the real FEAGI engine instead, the areas iinf and omot have to be mapped in the brain.
"""

import sys

import numpy as np

from feagi_io_host import (
    AgentCapabilities,
    AgentDescriptor,
    AgentState,
    CorticalMappedXYZPNeuronVoxels,
    DeclaredUnit,
    FeagiAgent,
    NeuronVoxelXYZPArrays,
    StateChanged,
)

DEPTH = 8  # steps of the sensor
EYE = DeclaredUnit("Infrared", resolution=DEPTH)
WHEEL = DeclaredUnit("RotaryMotor", resolution=DEPTH)


def seen(brightness: float) -> CorticalMappedXYZPNeuronVoxels:
    """0 to 1 as the voxel that stands for it: the brighter, the nearer to z = 0."""
    z = min(DEPTH - 1, int((1.0 - brightness) * DEPTH))
    place = [np.array([at], dtype=np.uint32) for at in (0, 0, z)]
    voxel = NeuronVoxelXYZPArrays.new_from_numpy(*place, np.ones(1, dtype=np.float32))
    return CorticalMappedXYZPNeuronVoxels({EYE.cortical_ids[0]: voxel})


def tell(change: StateChanged) -> None:
    """Each frame makes the agent go to and fro between two states; the others are news."""
    if not {change.before, change.after} <= {AgentState.ACTIVE_WAITING, AgentState.ACTIVE_HAS_DATA}:
        print(f"{change.after.value}: {change.reason}")


def main(url: str, steps: int) -> None:
    wheel = WHEEL.cortical_ids[0]
    moves = AgentCapabilities.SEND_SENSOR_DATA | AgentCapabilities.RECEIVE_MOTOR_DATA
    with FeagiAgent(AgentDescriptor("feagi-io", "example", 1), moves, url) as agent:
        agent.on_state_change(tell)
        agent.configure([EYE, WHEEL])
        for step in range(steps):
            agent.send_sensory(seen(abs(step % 20 - 10) / 10))  # brighter and darker
            frame = agent.receive_motor(timeout_s=1.0)  # the brain's next burst
            areas = None if frame is None else frame.try_create_new_struct_from_index(0)
            if isinstance(areas, CorticalMappedXYZPNeuronVoxels) and wheel in areas:
                print(f"wheel fires at z = {areas[wheel].borrow_xyzp_vectors()[2].tolist()}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else sys.maxsize)
